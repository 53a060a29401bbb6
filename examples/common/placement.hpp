#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "common/weights.hpp"
#include "ebb/io/load.hpp"
#include "ebb/offload/component.hpp"
#include "ebb/offload/policy.hpp"

namespace ebb::examples {

/// How a run uses the device tier.
struct Placement {
  OffloadSpec policy;
  std::vector<std::string> excluded;
};

/// What an offload group moves of `weights`: the components in the pipeline's order, then the hoisted modules of those
/// that have some. @throws ConfigError for an excluded component that is not there
inline std::vector<Component> components_of(const Weights& weights, const Placement& placement) {
  std::vector<Component> components;
  for (const Weights::Home& home : weights.homes())
    components.push_back(component_of(home.outline, home.bytes, placement.policy));
  exclude(components, placement.excluded);
  for (const Weights::Home& home : weights.homes())
    if (home.outline.hoisted_begin != home.outline.begin)
      components.push_back(hoisted_component_of(home.outline, home.bytes));
  return components;
}

/// Points all parameters at their places under `group`, which was made of `components_of(weights, ...)`.
template <class Group>
void bind_all(const Weights& weights, const Group& group) {
  std::size_t hoisted = weights.homes().size();
  for (std::size_t index = 0; index < weights.homes().size(); ++index) {
    const Outline& outline = weights.homes()[index].outline;
    bind_parameters(outline, weights.homes()[index].bytes, [&](std::size_t offset) {
      return group.address(offset < outline.begin ? hoisted : index, offset);
    });
    if (outline.hoisted_begin != outline.begin) ++hoisted;
  }
}

}  // namespace ebb::examples
