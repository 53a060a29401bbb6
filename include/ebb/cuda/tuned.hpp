#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include "ebb/core/error.hpp"

namespace ebb::cuda {

/// Algorithms that were measured for products of some extents, so that they need not be measured again: cuBLASLt's own
/// description of one (64 bytes that its documentation allows to be stored and used with the same library version), and
/// how long it took. As text it outlives the process; the caller keeps the file. Choices hold for one environment, the
/// GPU and the library; those of another are left alone. Not thread-safe.
class TunedAlgorithms {
 public:
  using Description = std::array<std::uint64_t, 8>;
  struct Choice {
    Description algorithm{};
    double microseconds = 0;
  };

  TunedAlgorithms() = default;

  /// @throws FileError for text that `text()` did not write; `where` is named there
  static TunedAlgorithms parse(const std::string& text, const std::string& where) {
    TunedAlgorithms result;
    std::istringstream lines(text);
    std::string line;
    std::size_t number = 1;
    const auto fail = [&](const char* expected) {
      throw FileError(concat(where, ":", number, ": expected ", expected,
                             ": not a file of tuned algorithms, or damaged; delete it"));
    };
    if (!std::getline(lines, line) || line != header) fail(header);
    for (++number; std::getline(lines, line); ++number) {
      // environment TAB key TAB eight numbers, then microseconds
      const auto first = line.find('\t');
      const auto second = first == std::string::npos ? first : line.find('\t', first + 1);
      if (second == std::string::npos) fail("an environment, a key and a choice, separated by tabs");
      Choice choice;
      std::istringstream fields(line.substr(second + 1));
      for (std::uint64_t& word : choice.algorithm) fields >> word;
      fields >> choice.microseconds;
      if (!fields || !(fields >> std::ws).eof()) fail("eight whole numbers and a time");
      result.choices_[{line.substr(0, first), line.substr(first + 1, second - first - 1)}] = choice;
    }
    return result;
  }

  std::string text() const {
    std::ostringstream lines;
    lines << header << '\n';
    for (const auto& [name, choice] : choices_) {
      lines << name.first << '\t' << name.second << '\t';
      for (const std::uint64_t word : choice.algorithm) lines << word << ' ';
      lines << choice.microseconds << '\n';
    }
    return std::move(lines).str();
  }

  std::optional<Choice> find(const std::string& environment, const std::string& key) const {
    const auto found = choices_.find({environment, key});
    return found == choices_.end() ? std::nullopt : std::optional(found->second);
  }
  /// `environment` and `key` hold neither tabs nor line ends.
  void keep(const std::string& environment, const std::string& key, const Choice& choice) {
    require((environment + key).find_first_of("\t\n") == std::string::npos,
            "TunedAlgorithms: a tab or a line end in a name");
    choices_[{environment, key}] = choice;
    changed_ = true;
  }
  std::size_t size() const { return choices_.size(); }
  /// Whether there is something that the text of the beginning does not say.
  bool changed() const { return changed_; }

 private:
  static constexpr const char* header = "ebb tuned algorithms 1";

  std::map<std::pair<std::string, std::string>, Choice> choices_;
  bool changed_ = false;
};

}  // namespace ebb::cuda
