#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "ebb/core/error.hpp"
#include "judge/verdict.hpp"

namespace ebb::judge {

/// Counts verdicts: how many pictures are right, how many exact, and in how many something of an aspect is wrong.
class Tally {
 public:
  void add(const Verdict& verdict) {
    ++pictures_;
    right_ += verdict.right();
    exact_ += verdict.exact();
    for (std::size_t i = 0; i < aspects.size(); ++i)
      wrong_[i] += fails(verdict.content, aspects[i]) || fails(verdict.style, aspects[i]);
  }

  std::size_t pictures() const { return pictures_; }
  std::size_t right() const { return right_; }
  std::size_t exact() const { return exact_; }
  /// Pictures in which a check of this aspect does not hold. @throws ValueError for no aspect of a Verdict
  std::size_t wrong(std::string_view aspect) const {
    const std::size_t index = index_of(aspects, aspect);
    if (index == no_name) throw ValueError(concat("aspect ", aspect, ": expected one of ", detail::listed(aspects)));
    return wrong_[index];
  }

  /// The head of a Markdown table, two lines.
  static std::string head() {
    std::string names = "| | right | exact |", line = "|---|---|---|";
    for (const std::string_view aspect : aspects) {
      names.append(" ").append(aspect).append(" wrong |");
      line += "---|";
    }
    return names + '\n' + line + '\n';
  }
  /// A line of that table.
  std::string row(std::string_view label) const {
    std::string text = concat("| ", label, " | ", right_, " of ", pictures_, " | ", exact_, " |");
    for (const std::size_t count : wrong_) text += concat(" ", count, " |");
    return text + '\n';
  }

 private:
  static constexpr std::array<std::string_view, 7> aspects{"number", "shape",   "colour",    "relation",
                                                           "size",   "texture", "background"};

  static bool fails(const std::vector<Check>& checks, std::string_view aspect) {
    return std::any_of(checks.begin(), checks.end(),
                       [&](const Check& check) { return check.aspect == aspect && !check.held; });
  }

  std::size_t pictures_ = 0, right_ = 0, exact_ = 0;
  std::array<std::size_t, aspects.size()> wrong_{};
};

}  // namespace ebb::judge
