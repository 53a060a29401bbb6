#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/memory/backend.hpp"

namespace ebb {

/// One thing that StreamPrefetcher moves: from home memory to a fixed place in the device arena.
struct Transfer {
  const std::byte* home = nullptr;
  std::size_t offset = 0;  // in the device arena
  std::size_t bytes = 0;   // more than 0
};

/// Counts since construction.
struct TransferStatistics {
  std::size_t copies = 0;
  std::size_t bytes = 0;
  std::size_t present_bytes = 0;  // now on the device, or on the way
  std::size_t peak_bytes = 0;     // most bytes that were present at once
};

/// Moves units from home to device memory on a copy stream while a compute stream works. Each unit has a fixed place;
/// places may overlap. Two events a unit keep the order, and only streams wait, never the host: computation waits
/// until a unit's bytes have arrived (`ready`), a copy waits until what it overwrites has been computed with (`free`).
/// Weights do not change, so nothing is copied back. One issuing thread.
template <Backend Device>
class StreamPrefetcher {
 public:
  using Stream = typename Device::Stream;
  using Event = typename Device::Event;

  /// `device`, the home memory and the device `arena` outlive the prefetcher. Units are numbered as in `transfers`;
  /// each goes through `fetch`, `acquire`, computation and `release`, any number of times.
  StreamPrefetcher(Device& device, Stream compute, Stream copy, std::byte* arena, std::vector<Transfer> transfers)
      : device_(device), compute_(compute), copy_(copy), arena_(arena) {
    units_.reserve(transfers.size());
    for (const Transfer& transfer : transfers) units_.push_back(std::make_unique<Tracked>(device, transfer));
  }
  StreamPrefetcher(const StreamPrefetcher&) = delete;
  StreamPrefetcher& operator=(const StreamPrefetcher&) = delete;
  /// Blocks until neither stream touches the arena any more.
  ~StreamPrefetcher() { drain(); }

  std::size_t size() const { return units_.size(); }
  /// The unit's bytes are on the device or on their way.
  bool present(std::size_t unit) const { return units_[unit]->present; }
  /// Computation that is issued now may use the unit.
  bool acquired(std::size_t unit) const { return units_[unit]->in_use; }

  /// Calls `visit(other)` for each unit that `fetch(unit)` would overwrite.
  template <class Visit>
  void for_each_overwritten(std::size_t unit, Visit&& visit) const {
    if (present(unit)) return;
    for (const std::size_t other : occupants_)
      if (units_[other]->present && overlap(unit, other)) visit(other);
  }

  /// Starts the copy of `unit` unless it is present. What it overwrites must have been released.
  void fetch(std::size_t unit) {
    Tracked& target = *units_[unit];
    if (target.present) return;
    for_each_overwritten(unit, [&](std::size_t other) {
      require(!units_[other]->in_use, "offload: a unit was fetched over one that is still computed with");
    });
    for_each_overwritten(unit, [&](std::size_t other) { evict(*units_[other]); });
    std::erase_if(occupants_, [&](std::size_t other) { return !units_[other]->present; });
    device_.copy(arena_ + target.transfer.offset, target.transfer.home, target.transfer.bytes, copy_);
    device_.record(target.ready.get(), copy_);
    target.present = true;
    target.waited = false;
    occupants_.push_back(unit);
    ++statistics_.copies;
    statistics_.bytes += target.transfer.bytes;
    statistics_.present_bytes += target.transfer.bytes;
    statistics_.peak_bytes = std::max(statistics_.peak_bytes, statistics_.present_bytes);
  }

  /// Makes the compute stream wait until the fetched `unit` has arrived; from here on computation may use it.
  /// When the copy failed, the error is passed on, and what has not been computed with counts as not fetched.
  void acquire(std::size_t unit) {
    Tracked& target = *units_[unit];
    require(target.present, "offload: a unit was used that has not been fetched");
    if (!target.waited) {
      try {
        device_.wait(compute_, target.ready.get());
      } catch (...) {
        forget_unseen();
        throw;
      }
      target.waited = true;
    }
    target.in_use = true;
  }

  /// Computation issued so far was the last to use `unit`, until it is acquired again.
  void release(std::size_t unit) {
    Tracked& target = *units_[unit];
    if (!target.in_use) return;
    device_.record(target.free.get(), compute_);
    target.in_use = false;
    target.must_wait = true;
  }

  /// Counts every unit as not fetched and not in use. Blocks until both streams are idle.
  void forget() noexcept {
    drain();
    for (const std::size_t unit : occupants_) {
      units_[unit]->present = false;
      units_[unit]->in_use = false;
    }
    for (const auto& unit : units_) unit->must_wait = false;
    occupants_.clear();
    statistics_.present_bytes = 0;
  }

  const TransferStatistics& statistics() const { return statistics_; }
  /// The units that are on the device or on their way, in the order of their fetches.
  const std::vector<std::size_t>& present_units() const { return occupants_; }

 private:
  struct Tracked {
    Tracked(Device& device, const Transfer& what) : transfer(what), ready(device), free(device) {}
    Transfer transfer;
    ScopedEvent<Device> ready;
    ScopedEvent<Device> free;
    bool present = false;
    bool waited = false;     // the compute stream knows that the bytes have arrived
    bool in_use = false;     // acquired and not released
    bool must_wait = false;  // `free` was recorded, and the copy stream has not waited for it
  };

  bool overlap(std::size_t left, std::size_t right) const {
    const Transfer& a = units_[left]->transfer;
    const Transfer& b = units_[right]->transfer;
    return a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
  }

  /// Later copies may overwrite `unit`. One wait is enough: the copy stream keeps the order of all that follow.
  void evict(Tracked& unit) {
    if (!unit.present) return;
    if (unit.must_wait) device_.wait(copy_, unit.free.get());
    unit.must_wait = false;
    unit.present = false;
    statistics_.present_bytes -= unit.transfer.bytes;
  }

  void drain() noexcept {
    for (const Stream stream : {copy_, compute_}) {
      try {
        device_.synchronize(stream);
      } catch (...) {  // reported to whoever waits for results; here only idleness counts
      }
    }
  }

  void forget_unseen() noexcept {
    drain();
    std::erase_if(occupants_, [&](std::size_t index) {
      Tracked& unit = *units_[index];
      if (unit.waited) return false;
      unit.present = false;
      statistics_.present_bytes -= unit.transfer.bytes;
      return true;
    });
  }

  Device& device_;
  Stream compute_;
  Stream copy_;
  std::byte* arena_;
  std::vector<std::unique_ptr<Tracked>> units_;
  std::vector<std::size_t> occupants_;  // units that are present: disjoint ranges
  TransferStatistics statistics_;
};

}  // namespace ebb
