#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/io/text_file.hpp"

namespace ebb::examples {

/// Whether a directory has an entry of this name. One that cannot be looked at is there: opening it says why.
inline bool is_there(const std::filesystem::path& path) {
  std::error_code failure;
  return std::filesystem::status(path, failure).type() != std::filesystem::file_type::not_found;
}

/// A JSON object from a checkpoint directory (`config.json`, `model_index.json`, ...) whose fields are checked as
/// they are read. Every error names the file and the field, what was expected and what was found.
class ConfigFile {
 public:
  /// @throws FileError when the file is missing, larger than 64 MiB, nested deeper than 64 levels, or no object
  static ConfigFile open(const std::filesystem::path& path) {
    const std::string text = read_text(path, most_text_bytes, "JSON");
    if (depth(text) > maximum_depth)
      throw FileError(concat(path.string(), ": JSON is nested deeper than ", maximum_depth, " levels"));
    nlohmann::json parsed;
    try {
      parsed = nlohmann::json::parse(text);
    } catch (const nlohmann::json::exception& error) {
      throw FileError(concat(path.string(), ": is not valid JSON: ", error.what()));
    }
    if (!parsed.is_object()) throw FileError(concat(path.string(), ": expected a JSON object"));
    return ConfigFile(path, std::move(parsed));
  }

  const std::filesystem::path& path() const { return path_; }
  const nlohmann::json& json() const { return json_; }
  bool has(const char* field) const { return json_.contains(field) && !json_.at(field).is_null(); }

  /// A whole number within [least, most]; a missing one is an error unless `otherwise` is given.
  std::size_t size(const char* field, std::size_t least, std::size_t most,
                   std::optional<std::size_t> otherwise = {}) const {
    if (!has(field) && otherwise) return *otherwise;
    return checked_size(field, at(field), least, most);
  }
  /// A finite number; a missing one is an error unless `otherwise` is given.
  double number(const char* field, std::optional<double> otherwise = {}) const {
    if (!has(field) && otherwise) return *otherwise;
    const nlohmann::json& value = at(field);
    if (!value.is_number() || !std::isfinite(value.get<double>())) fail(field, "a number", value);
    return value.get<double>();
  }
  bool flag(const char* field, bool otherwise) const {
    if (!has(field)) return otherwise;
    const nlohmann::json& value = at(field);
    if (!value.is_boolean()) fail(field, "true or false", value);
    return value.get<bool>();
  }
  std::string string(const char* field, std::optional<std::string> otherwise = {}) const {
    if (!has(field) && otherwise) return *otherwise;
    const nlohmann::json& value = at(field);
    if (!value.is_string()) fail(field, "a string", value);
    return value.get<std::string>();
  }
  /// A list of between `fewest` and `longest` whole numbers, each within [least, most].
  std::vector<std::size_t> sizes(const char* field, std::size_t fewest, std::size_t longest, std::size_t least,
                                 std::size_t most) const {
    const nlohmann::json& value = at(field);
    if (!value.is_array() || value.size() < fewest || value.size() > longest)
      fail(field, concat("a list of ", fewest, " to ", longest, " whole numbers").c_str(), value);
    std::vector<std::size_t> result;
    for (const nlohmann::json& entry : value) result.push_back(checked_size(field, entry, least, most));
    return result;
  }

  /// Refuses a field whose value is not the one that this program implements.
  template <class Value>
  void expect(const char* field, const Value& expected) const {
    if (has(field) && json_.at(field) != nlohmann::json(expected))
      fail(field, nlohmann::json(expected).dump().c_str(), json_.at(field));
  }

 private:
  static constexpr std::size_t maximum_depth = 64;

  /// How many arrays and objects of a JSON text lie inside each other. With a callback, which could count them,
  /// nlohmann's parser searches all members before an object for discarded ones when that object ends.
  static std::size_t depth(std::string_view text) {
    std::size_t open = 0, deepest = 0;
    bool quoted = false;
    for (std::size_t at = 0; at < text.size(); ++at) {
      const char c = text[at];
      if (c == '"')
        quoted = !quoted;
      else if (quoted)
        at += c == '\\' ? 1 : 0;
      else if (c == '[' || c == '{')
        deepest = std::max(deepest, ++open);
      else if (c == ']' || c == '}')
        open -= open > 0 ? 1 : 0;
    }
    return deepest;
  }

  ConfigFile(std::filesystem::path path, nlohmann::json json) : path_(std::move(path)), json_(std::move(json)) {}

  const nlohmann::json& at(const char* field) const {
    if (!has(field)) throw ConfigError(concat(path_.string(), ": the field \"", field, "\" is missing"));
    return json_.at(field);
  }
  std::size_t checked_size(const char* field, const nlohmann::json& value, std::size_t least, std::size_t most) const {
    if (!value.is_number_integer() || value.get<std::int64_t>() < 0 || value.get<std::uint64_t>() < least ||
        value.get<std::uint64_t>() > most)
      fail(field, concat("a whole number from ", least, " to ", most).c_str(), value);
    return value.get<std::size_t>();
  }
  [[noreturn]] void fail(const char* field, const char* expected, const nlohmann::json& found) const {
    std::string text = found.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    throw ConfigError(concat(path_.string(), ": field \"", field, "\": expected ", expected, ", found ", text));
  }

  std::filesystem::path path_;
  nlohmann::json json_;
};

}  // namespace ebb::examples
