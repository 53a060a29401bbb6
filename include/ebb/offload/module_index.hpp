#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/module/unit.hpp"
#include "ebb/offload/component.hpp"

namespace ebb {

/// Finds what a module is to an OffloadGroup. Sorted, so that a look-up is a dozen comparisons.
class ModuleIndex {
 public:
  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  struct Entry {
    ModuleId module;
    std::size_t unit = none;       // the unit that the module opens
    std::size_t component = none;  // the component whose root the module is
  };

  ModuleIndex() = default;
  /// `unit_numbers` has, for each unit of each component in order, the number that `find` shall give, or `none`
  /// for units that need not be opened.
  /// @throws ConfigError for a module in two units or two components
  ModuleIndex(std::span<const Component> components, std::span<const std::size_t> unit_numbers) {
    std::size_t unit_count = 0;
    std::vector<bool> moves(components.size());
    for (std::size_t c = 0; c < components.size(); ++c)
      for (const Unit& unit : components[c].units) {
        const std::size_t number = unit_numbers[unit_count++];
        if (number != none) moves[c] = true;
        for (const ModuleId module : unit.modules) entries_.push_back({module, number, none});
      }
    std::ranges::sort(entries_, {}, &Entry::module);
    if (const auto twice = std::ranges::adjacent_find(entries_, {}, &Entry::module); twice != entries_.end())
      throw ConfigError(concat("offload: one module belongs to two units (", owners(components, twice->module),
                               "); a module can be offloaded only once"));
    std::vector<Entry> roots;
    for (std::size_t c = 0; c < components.size(); ++c) {
      const ModuleId root = components[c].root;
      if (root.address == nullptr) continue;
      const auto entry = std::ranges::lower_bound(entries_, root, {}, &Entry::module);
      if (entry != entries_.end() && entry->module == root)
        entry->component = c;
      else
        roots.push_back({root, none, c});
    }
    entries_.insert(entries_.end(), roots.begin(), roots.end());
    std::ranges::sort(entries_, {}, &Entry::module);
    if (const auto same = std::ranges::adjacent_find(entries_, {}, &Entry::module); same != entries_.end())
      throw ConfigError(concat("offload: components ", components[same->component].name, " and ",
                               components[(same + 1)->component].name, " are the same model"));
    std::erase_if(entries_, [&](const Entry& entry) {
      return entry.unit == none && (entry.component == none || !moves[entry.component]);
    });
  }

  /// Null for modules that neither open a unit nor are the root of a component that moves.
  const Entry* find(ModuleId module) const {
    const auto entry = std::ranges::lower_bound(entries_, module, {}, &Entry::module);
    return entry != entries_.end() && entry->module == module ? &*entry : nullptr;
  }

 private:
  static std::string owners(std::span<const Component> components, ModuleId module) {
    std::string names;
    for (const Component& component : components)
      for (const Unit& unit : component.units)
        for (const ModuleId each : unit.modules)
          if (each == module) names += concat(names.empty() ? "" : " and ", component.name, " ", unit.name);
    return names;
  }

  std::vector<Entry> entries_;
};

}  // namespace ebb
