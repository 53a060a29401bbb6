#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/module/level.hpp"
#include "ebb/module/outline.hpp"
#include "ebb/offload/component.hpp"
#include "ebb/offload/plan.hpp"
#include "ebb/offload/policy.hpp"

namespace ebb {

/// A policy and the device bytes that weights take under it.
struct PolicyCost {
  OffloadSpec policy;
  std::size_t arena_bytes = 0;
};

/// What each kind of policy would need for the components that `outlines` describe, of which those named in `excluded`
/// stay on the device; policies that do not apply (block level where a component has no blocks) are left out.
/// @throws ConfigError for a name in `excluded` that no component has
inline std::vector<PolicyCost> policy_costs(std::span<const Outline> outlines, HomeMemory home = HomeMemory::separate,
                                            std::span<const std::string> excluded = {}) {
  std::vector<PolicyCost> costs;
  for (const char* name : {"none", "model", "block", "leaf"}) {
    const OffloadSpec policy = OffloadSpec::parse(name);
    if (policy.settings().level == Level::block && !std::ranges::all_of(outlines, &Outline::holds_blocks)) continue;
    std::vector<Component> components;
    for (const Outline& outline : outlines) components.push_back(component_of(outline, nullptr, policy));
    exclude(components, excluded);
    for (const Outline& outline : outlines)
      if (outline.hoisted_begin != outline.begin) components.push_back(hoisted_component_of(outline, nullptr));
    costs.push_back({policy, make_plan(policy, components, home).arena_bytes});
  }
  return costs;
}

/// The end of a message about too little memory: which policies fit in `free` bytes, of which `others` are needed for
/// something other than weights.
inline std::string policies_that_fit(std::span<const PolicyCost> costs, std::size_t free, std::size_t others = 0) {
  const std::size_t available = free > others ? free - others : 0;
  std::string fitting, smallest;
  std::size_t smallest_bytes = 0;
  for (const PolicyCost& cost : costs) {
    const std::string text = concat("--offload ", cost.policy.text(), " (", cost.arena_bytes, " bytes)");
    if (cost.arena_bytes <= available) fitting += (fitting.empty() ? "" : ", ") + text;
    if (smallest.empty() || cost.arena_bytes < smallest_bytes) {
      smallest = text;
      smallest_bytes = cost.arena_bytes;
    }
  }
  const std::string room = others == 0
                               ? concat(available, " bytes")
                               : concat(available, " bytes (", free, " less ", others, " for activations and scratch)");
  if (!fitting.empty()) return concat("in ", room, " fit: ", fitting);
  return concat("no offload policy fits in ", room, smallest.empty() ? "" : concat("; ", smallest, " needs least"));
}

}  // namespace ebb
