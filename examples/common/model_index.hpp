#pragma once

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include "common/config_file.hpp"

namespace ebb::examples {

/// Refuses a `model_index.json` of another pipeline; `supported` names the checkpoints that this program reads.
/// @throws ConfigError
inline void check_pipeline(const ConfigFile& index, std::string_view expected, std::string_view supported) {
  if (const std::string name = index.string("_class_name", ""); name != expected)
    throw ConfigError(concat(index.path().string(), ": field \"_class_name\": expected \"", expected, "\" (", supported,
                             "), found \"", name, "\""));
}

/// The class of a component in `model_index.json`, one of `expected`; fast tokenizers are named "...Fast".
/// @throws ConfigError
inline std::string check_class(const ConfigFile& index, const char* component,
                               std::initializer_list<std::string_view> expected) {
  std::string names;
  for (const std::string_view name : expected) names += concat(names.empty() ? "" : " or ", name);
  const auto entry = index.json().find(component);
  if (entry == index.json().end() || !entry->is_array() || entry->size() != 2 || !(*entry)[1].is_string())
    throw ConfigError(concat(index.path().string(), ": component \"", component, "\" is missing: expected [library, \"",
                             names, "\"]"));
  const std::string found = (*entry)[1].get<std::string>();
  if (std::none_of(expected.begin(), expected.end(),
                   [&](std::string_view name) { return found == name || found == concat(name, "Fast"); }))
    throw ConfigError(
        concat(index.path().string(), ": component \"", component, "\": expected ", names, ", found ", found));
  return found;
}

inline ConfigFile component_config(const std::filesystem::path& directory, const char* component) {
  return ConfigFile::open(directory / component / "config.json");
}

}  // namespace ebb::examples
