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

/// Whether a component takes part in offloading, or stays on the device whatever the policy.
enum class Residence { offloaded, resident };

/// A model of a pipeline, e.g. a text encoder or the transformer, and the home memory that holds its weights.
struct Component {
  std::string name;
  const std::byte* home = nullptr;  // outlives the group; its contents no longer change
  std::vector<Unit> units;          // in the expected order of execution
  ModuleId root = {};               // a call of it is one pass, e.g. one denoising step
  Residence residence = Residence::offloaded;
};

/// The component that `outline` describes, cut as `policy` asks. `home` is its home arena of `outline.end` bytes.
/// @throws ConfigError from units_of, e.g. for block level without blocks
template <OffloadPolicy Policy>
Component component_of(const Outline& outline, const std::byte* home, const Policy& policy) {
  const OffloadSettings settings = policy.settings();
  return {.name = outline.name,
          .home = home,
          .units = units_of(outline, settings.level, settings.blocks_per_unit),
          .root = outline.id};
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
