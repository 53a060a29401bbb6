#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/memory/backend.hpp"
#include "ebb/offload/component.hpp"
#include "ebb/offload/lease.hpp"
#include "ebb/offload/module_index.hpp"
#include "ebb/offload/order.hpp"
#include "ebb/offload/plan.hpp"
#include "ebb/offload/prefetcher.hpp"

namespace ebb {

/// What happened since construction, of one component or of the whole group.
struct OffloadStatistics {
  std::size_t passes = 0;
  std::size_t entered = 0;  // changes from one unit to another
  std::size_t copies = 0;
  std::size_t bytes_moved = 0;  // home to device; nothing is ever copied back
  std::size_t misses = 0;       // units whose copy was not issued before they were entered
};

/// Which weights are on the device, in the order in which they came, and what has been moved so far.
struct OffloadState {
  std::vector<std::size_t> present = {};
  std::vector<OffloadStatistics> statistics = {};
};

/// What one piece of work moved.
struct OffloadRecord {
  std::vector<OffloadStatistics> change = {};
};

/// Moves the weights of a pipeline's components as a policy says. Bind every parameter once to `address(...)`; it
/// holds for ever. Then `enter` each module before its computation is issued: the compute stream waits for its
/// weights, and the copies of what comes next are started. Whatever modules run, in whatever order, results equal
/// those of a model that is wholly resident.
///
/// A unit is in use from the first `enter` of one of its modules until every lease on it is gone and another unit is
/// entered. Nothing blocks the issuing thread, but errors and the destructor.
template <OffloadPolicy Policy, Backend Device>
class OffloadGroup {
 public:
  using Stream = typename Device::Stream;
  static constexpr HomeMemory home_memory =
      Device::computes_on_home_memory ? HomeMemory::computable : HomeMemory::separate;

  /// The plan that the constructor will make: what to allocate, what to report.
  static Plan plan(const Policy& policy, std::span<const Component> components) {
    return make_plan(policy, components, home_memory);
  }

  /// `arena` is device memory of at least `plan(...).arena_bytes` bytes, 256-byte aligned. Device, home memory, arena
  /// and modules outlive the group and stay where they are.
  /// @throws MemoryError for an arena or budget that is too small, ConfigError for a module that occurs twice
  OffloadGroup(const Policy& policy, Device& device, Stream compute, Stream copy, std::vector<Component> components,
               std::span<std::byte> arena)
      : policy_(policy),
        components_(std::move(components)),
        plan_(plan(policy, components_)),
        arena_(checked(arena)),
        prefetcher_(device, compute, copy, arena.data(), prepare()) {}
  OffloadGroup(const OffloadGroup&) = delete;
  OffloadGroup& operator=(const OffloadGroup&) = delete;

  /// Where the byte at `home_offset` of a component's home arena is during computation. Bytes in no unit (tables that
  /// stay at home) are read in home memory.
  const std::byte* address(std::size_t component, std::size_t home_offset) const {
    const Component& owner = components_.at(component);
    const auto after = std::ranges::upper_bound(owner.units, home_offset, {}, &Unit::begin);
    for (auto unit = after; unit != owner.units.begin();) {  // empty units share their neighbour's begin
      --unit;
      if (unit->bytes() == 0) continue;
      if (home_offset >= unit->end) break;
      const PlacedUnit& placed =
          plan_.units[plan_.components[component].first + static_cast<std::size_t>(unit - owner.units.begin())];
      if (placed.placing == Placing::in_place) break;
      return arena_ + placed.offset + (home_offset - unit->begin);
    }
    return owner.home + home_offset;
  }

  /// Call before work of the module is issued; keep the lease until all of it has been. Cheap for modules that
  /// belong to no unit.
  /// @throws MemoryError when units that are in use together share bytes (more lookahead helps); what the device throws
  Lease enter(ModuleId module) {
    Lease lease;
    const ModuleIndex::Entry* entry = index_.find(module);
    if (entry == nullptr) return lease;
    if (entry->component != none) {
      Running& running = running_[entry->component];
      if (running.depth == 0) begin_pass(running);
      lease.hold_pass(running.depth);
    }
    if (entry->unit != none) {
      open(entry->unit);
      lease.hold_unit(moving_[entry->unit].users);
    }
    return lease;
  }

  /// The pass that is running, or the next one, is the last: its end does not prefetch the beginning of another.
  void expect_no_more(std::size_t component) {
    Running& running = running_.at(component);
    running.order.expect_no_more(running.depth > 0);
  }

  const Plan& plan() const { return plan_; }
  const Policy& policy() const { return policy_; }
  std::span<const Component> components() const { return components_; }
  /// @throws ConfigError that lists the components
  std::size_t component(std::string_view name) const {
    for (std::size_t index = 0; index < components_.size(); ++index)
      if (components_[index].name == name) return index;
    std::string names;
    for (const Component& known : components_) names += (names.empty() ? "" : ", ") + known.name;
    throw ConfigError(concat("offload: there is no component '", name, "'; the components are ", names));
  }

  OffloadStatistics statistics(std::size_t component) const {
    const Running& running = running_.at(component);
    OffloadStatistics result = running.statistics;
    result.passes = running.order.passes();
    return result;
  }
  OffloadStatistics statistics() const {
    OffloadStatistics sum;
    for (std::size_t index = 0; index < running_.size(); ++index) {
      const OffloadStatistics one = statistics(index);
      sum.passes += one.passes;
      sum.entered += one.entered;
      sum.copies += one.copies;
      sum.bytes_moved += one.bytes_moved;
      sum.misses += one.misses;
    }
    return sum;
  }
  /// For work that is recorded once and run often, e.g. as a CUDA graph: when `state().present` is the same before and
  /// after it, it may be run again without the group; `repeated` then counts what it moves, which `since` says.
  OffloadState state() const {
    OffloadState now{.present = prefetcher_.present_units()};
    for (const Running& running : running_) now.statistics.push_back(running.statistics);
    return now;
  }
  OffloadRecord since(const OffloadState& before) const {
    OffloadRecord record;
    for (std::size_t index = 0; index < running_.size(); ++index) {
      const OffloadStatistics& now = running_[index].statistics;
      const OffloadStatistics& then = before.statistics.at(index);
      record.change.push_back({.entered = now.entered - then.entered,
                               .copies = now.copies - then.copies,
                               .bytes_moved = now.bytes_moved - then.bytes_moved,
                               .misses = now.misses - then.misses});
    }
    return record;
  }
  void repeated(const OffloadRecord& record) {
    for (std::size_t index = 0; index < running_.size(); ++index) {
      OffloadStatistics& sum = running_[index].statistics;
      const OffloadStatistics& change = record.change.at(index);
      sum.entered += change.entered;
      sum.copies += change.copies;
      sum.bytes_moved += change.bytes_moved;
      sum.misses += change.misses;
    }
  }

  /// Counts all weights as absent from the device: for when work with copies was recorded that will never run. The next
  /// pass fetches what it needs. Call it while no lease is held. Blocks until both streams are idle.
  void forget() noexcept {
    prefetcher_.forget();
    open_.clear();
    for (Running& running : running_) running.current = none;
  }

  /// Most bytes of weights that were on the device at once; at most `plan().arena_bytes`.
  std::size_t peak_bytes() const { return prefetcher_.statistics().peak_bytes; }

 private:
  static constexpr std::size_t none = ModuleIndex::none;

  struct Moving {  // a unit that is copied: neither in place nor empty
    std::size_t component = 0;
    Placing placing = Placing::streamed;
    std::uint32_t users = 0;  // leases
    std::string_view name;
  };
  struct Running {  // a component's state
    ExecutionOrder order;
    std::size_t lookahead = 0;
    std::size_t current = none;  // the unit entered last in this pass
    std::uint32_t depth = 0;     // nested calls of the root
    OffloadStatistics statistics;
  };

  std::byte* checked(std::span<std::byte> arena) const {
    if (arena.size() < plan_.arena_bytes)
      throw MemoryError(concat("offload ", policy_.text(), ": the device arena has ", arena.size(), " bytes, but ",
                               plan_.arena_bytes,
                               " are needed; use a policy that needs less (model, block, leaf, "
                               "or budget:BYTES), or quantize to a smaller format"));
    if (reinterpret_cast<std::uintptr_t>(arena.data()) % Ring::alignment != 0)
      throw MemoryError("offload: the device arena must begin at a multiple of 256 bytes");
    return arena.data();
  }

  std::vector<Transfer> prepare() {
    std::vector<Transfer> transfers;
    std::vector<std::size_t> numbers;
    running_.resize(components_.size());
    for (std::size_t c = 0; c < components_.size(); ++c) {
      std::vector<std::size_t> order;
      for (std::size_t u = 0; u < components_[c].units.size(); ++u) {
        const PlacedUnit& placed = plan_.units[plan_.components[c].first + u];
        const Unit& unit = components_[c].units[u];
        const bool moves = placed.placing != Placing::in_place && placed.bytes > 0;
        numbers.push_back(moves ? transfers.size() : none);
        if (!moves) continue;
        order.push_back(transfers.size());
        moving_.push_back({.component = c, .placing = placed.placing, .name = unit.name});
        transfers.push_back({components_[c].home + unit.begin, placed.offset, placed.bytes});
      }
      running_[c].order = ExecutionOrder(std::move(order));
      running_[c].lookahead = plan_.components[c].lookahead;
    }
    index_ = ModuleIndex(components_, numbers);
    return transfers;
  }

  void begin_pass(Running& running) {
    running.order.begin_pass();
    running.current = none;
    release_idle(none);
    prefetch(running);
  }

  void open(std::size_t unit) {
    const Moving& moving = moving_[unit];
    Running& running = running_[moving.component];
    if (running.current == unit && prefetcher_.acquired(unit)) return;  // another module of the open unit
    if (running.depth == 0 && running.order.looks_like_new_pass(unit)) running.order.begin_pass();
    running.order.enter(unit);
    running.current = unit;
    ++running.statistics.entered;
    const bool released = release_idle(unit);
    if (prefetcher_.acquired(unit)) {  // a resident unit that is in use for good, or one with a second lease
      if (released) prefetch(running);
      return;
    }
    if (!prefetcher_.present(unit)) {
      ++running.statistics.misses;
      make_room(unit);
      fetch(running, unit);
    }
    prefetcher_.acquire(unit);
    if (moving.placing == Placing::streamed) open_.push_back(unit);
    prefetch(running);
  }

  /// Declares the last use of every streamed unit that has no lease, but `except`.
  bool release_idle(std::size_t except) {
    bool released = false;
    for (const std::size_t unit : open_) {
      if (unit == except || moving_[unit].users > 0) continue;
      prefetcher_.release(unit);
      released = true;
    }
    if (released) std::erase_if(open_, [&](std::size_t unit) { return !prefetcher_.acquired(unit); });
    return released;
  }

  void fetch(Running& running, std::size_t unit) {
    // Resident units are released as late as here, when another component takes their place.
    prefetcher_.for_each_overwritten(unit, [&](std::size_t other) { prefetcher_.release(other); });
    const TransferStatistics before = prefetcher_.statistics();
    prefetcher_.fetch(unit);
    running.statistics.copies += prefetcher_.statistics().copies - before.copies;
    running.statistics.bytes_moved += prefetcher_.statistics().bytes - before.bytes;
  }

  void make_room(std::size_t unit) const {
    prefetcher_.for_each_overwritten(unit, [&](std::size_t other) {
      if (moving_[other].users == 0) return;
      throw MemoryError(concat("offload ", policy_.text(), ": ", described(unit), " needs the place of ",
                               described(other),
                               ", which is still in use; modules that compute together must be in "
                               "one unit, or the policy needs more lookahead"));
    });
  }
  std::string described(std::size_t unit) const {
    return concat(components_[moving_[unit].component].name, " '", moving_[unit].name, "'");
  }

  /// Starts the copies of the next units, as far as these overwrite nothing that is needed sooner.
  void prefetch(Running& running) {
    window_.clear();
    std::size_t ahead = 0;
    running.order.upcoming([&](std::size_t unit) {
      if (ahead >= running.lookahead) return false;
      const bool counted = unit == running.current || std::ranges::find(window_, unit) != window_.end();
      if (counted) return true;
      if (prefetcher_.present(unit)) {
        if (moving_[unit].placing != Placing::streamed) return true;
      } else {
        bool room = true;
        prefetcher_.for_each_overwritten(unit, [&](std::size_t other) {
          room = room && moving_[other].users == 0 && other != running.current &&
                 std::ranges::find(window_, other) == window_.end();
        });
        if (!room) return false;
        fetch(running, unit);
      }
      window_.push_back(unit);
      ++ahead;
      return true;
    });
  }

  Policy policy_;
  std::vector<Component> components_;
  Plan plan_;
  std::byte* arena_;
  ModuleIndex index_;
  std::vector<Moving> moving_;  // what the prefetcher moves, same indices; never resized: leases point into it
  std::vector<Running> running_;
  std::vector<std::size_t> open_;    // streamed units that are acquired
  std::vector<std::size_t> window_;  // scratch of prefetch()
  StreamPrefetcher<Device> prefetcher_;
};

}  // namespace ebb
