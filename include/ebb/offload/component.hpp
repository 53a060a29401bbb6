#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/module/outline.hpp"
#include "ebb/module/unit.hpp"
#include "ebb/offload/policy.hpp"

namespace ebb {

/// Whether a component takes part in offloading as the policy says, stays on the device whatever the policy, or passes
/// through a small ring whatever the policy, because it is needed once and then no more.
enum class Residence { offloaded, resident, transient };

/// A model of a pipeline, e.g. a text encoder or the transformer, and the home memory that holds its weights.
struct Component {
  std::string name;
  const std::byte* home = nullptr;  // outlives the group; its contents no longer change
  std::vector<Unit> units = {};     // in the expected order of execution
  ModuleId root = {};               // a call of it is one pass, e.g. one denoising step
  Residence residence = Residence::offloaded;
};

namespace detail {

/// Lets a unit be entered by every module inside it too: a pipeline may call a decoder without its autoencoder.
inline std::vector<Unit> with_inner_modules(const Outline& outline, std::vector<Unit> units) {
  std::vector<std::pair<ModuleId, std::size_t>> owners;
  for (std::size_t index = 0; index < units.size(); ++index)
    for (const ModuleId module : units[index].modules) owners.emplace_back(module, index);
  std::ranges::sort(owners);
  const auto visit = [&](const auto& self, const Outline& node, Unit* inside) -> void {
    const auto owner = std::ranges::lower_bound(owners, node.id, {}, [](const auto& each) { return each.first; });
    if (owner != owners.end() && owner->first == node.id)
      inside = &units[owner->second];
    else if (inside != nullptr && !node.hoisted)
      inside->modules.push_back(node.id);
    for (const Outline& child : node.children) self(self, child, inside);
  };
  visit(visit, outline, nullptr);
  return units;
}

}  // namespace detail

/// The component that `outline` describes, cut as `policy` asks. `home` is its home arena of `outline.end` bytes.
/// @throws ConfigError from units_of, e.g. for block level without blocks
template <OffloadPolicy Policy>
Component component_of(const Outline& outline, const std::byte* home, const Policy& policy) {
  const OffloadSettings settings = policy.settings();
  return {.name = outline.name,
          .home = home,
          .units = detail::with_inner_modules(outline, units_of(outline, settings.level, settings.blocks_per_unit)),
          .root = outline.id};
}

/// The hoisted modules of the component that `outline` describes: what runs before a loop and not in it. Its units are
/// leaves, which stream one after another under every policy, so that nothing of them stays on the device.
inline Component hoisted_component_of(const Outline& outline, const std::byte* home) {
  return {.name = outline.name + " (hoisted)",
          .home = home,
          .units = hoisted_units_of(outline),
          .residence = Residence::transient};
}

/// Makes the components named in `excluded` resident.
/// @throws ConfigError for a name that is not there; lists what is
inline void exclude(std::span<Component> components, std::span<const std::string> excluded) {
  for (const std::string& name : excluded) {
    const auto found = std::ranges::find(components, name, &Component::name);
    if (found == components.end()) {
      std::string names;
      for (const Component& component : components) names += (names.empty() ? "" : ", ") + component.name;
      throw ConfigError(concat("cannot exclude '", name, "' from offloading: the components are ", names));
    }
    found->residence = Residence::resident;
  }
}

}  // namespace ebb
