#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/offload/component.hpp"
#include "ebb/offload/policy.hpp"
#include "ebb/offload/ring.hpp"

namespace ebb {

/// Whether the device computes on home memory (a CPU), or has memory of its own.
enum class HomeMemory { separate, computable };

/// How a unit gets to where it is computed with.
enum class Placing {
  in_place,  // read in home memory, never copied
  resident,  // shares its bytes with no other unit of its component: copied once while the component runs
  streamed,  // shares its bytes with other units of its component: copied in every pass
};

/// A unit with a place in the device arena that never changes, so that it may be captured in a graph.
struct PlacedUnit {
  std::size_t component = 0;  // index in the components that were planned
  std::size_t unit = 0;       // index in that component's units
  std::size_t offset = 0;     // byte offset in the device arena, a multiple of 256; nothing for in_place
  std::size_t bytes = 0;      // may be 0: legal, and nothing happens
  Placing placing = Placing::in_place;
};

/// What the plan does with one component.
struct ComponentPlan {
  std::string name;
  std::size_t first = 0;  // its units are Plan::units[first, first + count)
  std::size_t count = 0;
  std::size_t lookahead = 0;       // streamed units ahead of the one that computes
  std::size_t resident_bytes = 0;  // kept while the component runs
  std::size_t streamed_bytes = 0;  // copied in every pass
  std::size_t ring_bytes = 0;      // what the streamed units share
  bool wraps = true;               // the next pass is prefetched while this one still computes
};

/// Where everything is on the device. Two units may be on the device at once exactly when their ranges
/// [offset, offset + bytes) are disjoint; a transfer into a range waits for the last use of what overlaps it.
/// Components run one after another and share the arena, except those that are excluded from offloading.
struct Plan {
  std::vector<PlacedUnit> units;  // by component, in the order given
  std::vector<ComponentPlan> components;
  std::size_t arena_bytes = 0;  // needed on the device
  /// What the policy promises: the budget, or the resident units plus (lookahead + 1) x the largest streamed one.
  std::size_t bound_bytes = 0;
};

namespace detail {

struct BudgetFit {
  std::vector<bool> streamed = {};
  std::vector<std::size_t> offsets = {};  // of all units of the component
  std::size_t lookahead = 0;
  std::size_t bytes = 0;
  Ring ring = {};
};

/// Places the units of one component: those marked in a ring at offset 0, the others behind it.
inline BudgetFit fit(const std::vector<std::size_t>& bytes, std::vector<bool> streamed, std::size_t lookahead,
                     std::size_t limit_bytes) {
  BudgetFit result{
      .streamed = std::move(streamed), .offsets = std::vector<std::size_t>(bytes.size()), .lookahead = lookahead};
  std::vector<std::size_t> moving;
  std::size_t resident_bytes = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] > 0 && result.streamed[i])
      moving.push_back(bytes[i]);
    else
      resident_bytes += ring_aligned(bytes[i]);
  }
  result.ring = make_ring(moving, std::min(lookahead, moving.size()),
                          limit_bytes > resident_bytes ? limit_bytes - resident_bytes : 0);
  std::size_t next = result.ring.bytes, in_ring = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] > 0 && result.streamed[i]) {
      result.offsets[i] = result.ring.offsets[in_ring++];
    } else {
      result.offsets[i] = next;
      next += ring_aligned(bytes[i]);
    }
  }
  result.bytes = next;
  return result;
}

/// Makes units resident that still fit beside what `found` places, far apart from each other.
inline BudgetFit fill(const std::vector<std::size_t>& bytes, BudgetFit found, std::size_t budget) {
  const std::size_t count = bytes.size();
  std::size_t stride = count * 618 / 1000 + 1;  // golden ratio: any prefix of the walk is spread evenly
  while (std::gcd(stride, count) != 1) ++stride;
  // Without a small unit between them, large ones become neighbours in the ring, which then grows: aim lower.
  for (std::size_t share = 1; share <= 8; share *= 2) {
    std::vector<bool> streamed = found.streamed;
    std::size_t left = (budget - found.bytes) / share;
    for (std::size_t step = 0, i = 0; step < count; ++step, i = (i + stride) % count) {
      if (!streamed[i] || ring_aligned(bytes[i]) > left) continue;
      streamed[i] = false;
      left -= ring_aligned(bytes[i]);
    }
    if (BudgetFit filled = fit(bytes, std::move(streamed), found.lookahead, budget); filled.bytes <= budget)
      return filled;
  }
  return found;
}

/// Chooses what streams so that the component fits in `budget` bytes: as little as possible, spread evenly over the
/// order of execution by error diffusion (a run of resident units would leave the link idle, and a run of streamed
/// ones the processor), first among large units only. A shorter lookahead is the last resort.
inline std::optional<BudgetFit> fit_budget(const std::vector<std::size_t>& bytes, std::size_t lookahead,
                                           std::size_t budget) {
  const std::size_t largest = bytes.empty() ? 0 : *std::ranges::max_element(bytes);
  std::size_t total = 0;
  for (const std::size_t unit : bytes) total += ring_aligned(unit);
  if (total <= budget) return fit(bytes, std::vector<bool>(bytes.size()), lookahead, budget);
  constexpr int steps = 256;
  for (std::size_t ahead = std::min(lookahead, bytes.size()) + 1; ahead-- > 0;)
    for (const std::size_t smallest : {largest / 16, std::size_t{0}})
      for (int step = 1; step <= steps; ++step) {
        std::vector<bool> streamed(bytes.size());
        double owed = 0;
        std::size_t resident_bytes = 0;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
          if (bytes[i] >= smallest) {
            owed += static_cast<double>(bytes[i]) * step / steps;
            streamed[i] = owed >= static_cast<double>(bytes[i]);
            if (streamed[i]) owed -= static_cast<double>(bytes[i]);
          }
          if (!streamed[i]) resident_bytes += ring_aligned(bytes[i]);
        }
        if (resident_bytes > budget) continue;
        if (BudgetFit candidate = fit(bytes, std::move(streamed), ahead, budget); candidate.bytes <= budget)
          return fill(bytes, std::move(candidate), budget);
      }
  return std::nullopt;
}

inline void check_units(const Component& component) {
  std::size_t end = 0;
  for (const Unit& unit : component.units) {
    if (unit.begin % Ring::alignment != 0 || unit.end < unit.begin || unit.begin < end)
      throw ConfigError(concat("offload: unit '", unit.name, "' of ", component.name, " is bytes [", unit.begin, ", ",
                               unit.end,
                               ") of the home arena; units must begin at multiples of 256, in order and "
                               "without overlap (the one before ends at ",
                               end, ")"));
    end = unit.end;
  }
}

inline bool stays_on_device(const OffloadSettings& settings, const Component& component) {
  return component.residence == Residence::resident ||
         (settings.level == Level::none && component.residence != Residence::transient);
}

}  // namespace detail

/// Decides what is on the device, where, and what streams. A pure function of sizes.
/// @throws MemoryError when a budget is too small, naming the smallest that works
template <OffloadPolicy Policy>
Plan make_plan(const Policy& policy, std::span<const Component> components, HomeMemory home = HomeMemory::separate) {
  const OffloadSettings settings = policy.settings();
  Plan plan;
  std::vector<std::vector<std::size_t>> bytes(components.size());
  std::size_t excluded_bytes = 0, total_bytes = 0, largest_bytes = 0;
  std::string largest_name;
  for (std::size_t c = 0; c < components.size(); ++c) {
    detail::check_units(components[c]);
    plan.components.push_back(
        {.name = components[c].name, .first = plan.units.size(), .count = components[c].units.size(), .wraps = true});
    const bool stays = detail::stays_on_device(settings, components[c]);
    for (std::size_t u = 0; u < components[c].units.size(); ++u) {
      const Unit& unit = components[c].units[u];
      bytes[c].push_back(unit.bytes());
      const bool in_place = home == HomeMemory::computable && (stays || settings.level == Level::none);
      plan.units.push_back({.component = c,
                            .unit = u,
                            .bytes = unit.bytes(),
                            .placing = in_place ? Placing::in_place : Placing::resident});
      if (in_place) continue;
      const std::size_t aligned = detail::ring_aligned(unit.bytes());
      total_bytes += aligned;
      if (stays) {  // a place that no other unit shares
        plan.units.back().offset = excluded_bytes;
        excluded_bytes += aligned;
        plan.components[c].resident_bytes += unit.bytes();
      } else if (aligned > largest_bytes) {
        largest_bytes = aligned;
        largest_name = components[c].name + " " + unit.name;
      }
    }
  }

  const std::size_t budget = settings.budget_bytes.value_or(std::numeric_limits<std::size_t>::max());
  const std::size_t minimum = excluded_bytes + largest_bytes;
  if (minimum > budget)
    throw MemoryError(concat("offload: a budget of ", budget, " bytes is too small: at least ", minimum,
                             " bytes are needed, ", excluded_bytes, " for components excluded from offloading and ",
                             largest_bytes, " for the largest unit (", largest_name.empty() ? "none" : largest_name,
                             "); use budget:", detail::byte_text(minimum),
                             " or more, exclude less, or quantize to a smaller format"));
  const std::size_t shared_budget = budget - excluded_bytes;
  // When all components fit side by side, none ever has to move again.
  const bool side_by_side = settings.budget_bytes && total_bytes <= budget;

  std::size_t shared_bytes = 0, bound = 0;
  for (std::size_t c = 0; c < components.size(); ++c) {
    ComponentPlan& component = plan.components[c];
    const bool in_place = home == HomeMemory::computable && settings.level == Level::none;
    if (in_place || detail::stays_on_device(settings, components[c])) continue;
    const bool transient = components[c].residence == Residence::transient;
    const std::size_t lookahead = transient ? std::max<std::size_t>(settings.lookahead, 2) : settings.lookahead;
    detail::BudgetFit placed;
    if (settings.budget_bytes) {
      placed = *detail::fit_budget(bytes[c], lookahead, shared_budget);  // `minimum` fits: it is there
    } else {
      const std::size_t largest = bytes[c].empty() ? 0 : *std::ranges::max_element(bytes[c]);
      const std::size_t ahead = std::min(lookahead, bytes[c].size());
      const std::size_t promise = (ahead + 1) * detail::ring_aligned(largest);
      // Units that all have room at once share nothing: they stay until another component needs the place.
      const auto moving = bytes[c].size() - static_cast<std::size_t>(std::ranges::count(bytes[c], std::size_t{0}));
      placed = detail::fit(bytes[c], std::vector<bool>(bytes[c].size(), moving > ahead + 1), ahead, promise);
      bound = std::max(bound, promise);
    }
    const std::size_t base = excluded_bytes + (side_by_side ? shared_bytes : 0);
    for (std::size_t u = 0; u < bytes[c].size(); ++u) {
      PlacedUnit& unit = plan.units[component.first + u];
      unit.offset = base + placed.offsets[u];
      unit.placing = placed.streamed[u] ? Placing::streamed : Placing::resident;
      (placed.streamed[u] ? component.streamed_bytes : component.resident_bytes) += unit.bytes;
    }
    component.lookahead = placed.lookahead;
    component.ring_bytes = placed.ring.bytes;
    component.wraps = placed.ring.wraps;
    shared_bytes = side_by_side ? shared_bytes + placed.bytes : std::max(shared_bytes, placed.bytes);
  }
  plan.arena_bytes = excluded_bytes + shared_bytes;
  plan.bound_bytes = settings.budget_bytes ? budget : excluded_bytes + bound;
  return plan;
}

}  // namespace ebb
