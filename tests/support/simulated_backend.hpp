#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/memory/backend.hpp"
#include "ebb/memory/storage.hpp"

namespace ebb::test {

/// A planted bug: the `drop`-th wait issued to stream `drop_on` is left out.
struct SimulatedFault {
  std::size_t drop_on = 2;  // no stream
  std::size_t drop = 0;
};

/// A device without hardware. Operations are queued; a seeded scheduler starts and finishes them in a random order
/// that the Backend contract allows, copies and computations overlapping. Memory is shadowed in granules of 256
/// bytes: each knows which home granule it holds. The first thing that goes wrong is kept in `violation()`.
class SimulatedBackend {
 public:
  static constexpr std::size_t granule = 256;
  static constexpr bool computes_on_home_memory = false;
  using Stream = std::size_t;  // 0: compute, 1: copy
  static constexpr Stream compute_stream = 0, copy_stream = 1;
  using Event = std::size_t;

  using Fault = SimulatedFault;
  using Arena = AlignedBuffer;

  SimulatedBackend(std::uint64_t seed, std::byte* arena, std::size_t arena_bytes, Fault fault = {})
      : random_(seed),
        arena_(arena),
        arena_bytes_(arena_bytes),
        shadow_(arena_bytes / granule + 1, 0),
        writer_(shadow_.size(), 0),
        readers_(shadow_.size(), 0),
        fault_(fault),
        bias_(random_() % 3) {}

  Event create_event() {
    ++live_events;
    events_.push_back({});
    return events_.size() - 1;
  }
  void destroy_event(Event&) noexcept { --live_events; }
  void record(Event& event, Stream stream) {
    push(stream, {.kind = Kind::record, .event = event, .generation = ++events_[event].issued});
  }
  void wait(Stream stream, Event& event) {
    if (stream == fault_.drop_on && waits_[stream]++ == fault_.drop) return;
    push(stream, {.kind = Kind::wait, .event = event, .generation = events_[event].issued});
  }
  void copy(std::byte* target, const std::byte* source, std::size_t bytes, Stream stream) {
    if (fail_next_copy) {
      fail_next_copy = false;
      throw ebb::FileError("simulated: the copy could not be issued");
    }
    push(stream, {.kind = Kind::copy, .target = target, .source = source, .bytes = bytes});
  }
  /// Home memory needs no preparation: only its addresses matter.
  void adopt(std::span<std::byte>) {}
  /// Work that reads [device, device + bytes) and expects what lies at `home`.
  void compute(const std::byte* device, const std::byte* home, std::size_t bytes) {
    if (bytes == 0) return;  // an empty unit is nowhere
    push(compute_stream, {.kind = Kind::compute, .target = device, .source = home, .bytes = bytes});
  }
  /// Blocks the host, and counts that.
  void synchronize(Stream stream) {
    ++host_blocked;
    while (!queues_[stream].empty() && step()) {
    }
    if (!queues_[stream].empty()) violate("deadlock");
  }
  /// Lets some time pass while the host does nothing else.
  void idle() {
    for (std::uint64_t steps = random_() % 8; steps > 0; --steps) step();
  }

  const std::string& violation() const { return violation_; }
  std::size_t waits(Stream stream) const { return issued_waits_[stream]; }
  std::size_t host_blocked = 0;
  std::size_t live_events = 0;
  std::size_t copied_bytes = 0;
  bool fail_next_copy = false;

 private:
  enum class Kind { copy, compute, record, wait };
  struct Operation {
    Kind kind;
    const std::byte* target = nullptr;
    const std::byte* source = nullptr;
    std::size_t bytes = 0;
    Event event = 0;
    std::uint64_t generation = 0;
    bool started = false;
  };
  struct EventState {
    std::uint64_t issued = 0, completed = 0;
  };

  void push(Stream stream, Operation operation) {
    if (operation.kind == Kind::wait) ++issued_waits_[stream];
    queues_[stream].push_back(operation);
    for (std::uint64_t steps = random_() % 3; steps > 0; --steps) step();  // the device runs beside the host
  }

  bool runnable(Stream stream) const {
    if (queues_[stream].empty()) return false;
    const Operation& operation = queues_[stream].front();
    return operation.kind != Kind::wait || events_[operation.event].completed >= operation.generation;
  }

  /// Starts or finishes one operation at the head of a stream. False when nothing can run.
  bool step() {
    Stream stream = bias_ < 2 && random_() % 4 != 0 ? bias_ : random_() % 2;  // one stream is often the slow one
    if (!runnable(stream)) stream = 1 - stream;
    if (!runnable(stream)) return false;
    Operation& operation = queues_[stream].front();
    const bool timed = operation.kind == Kind::copy || operation.kind == Kind::compute;
    if (timed && !operation.started) {
      operation.started = true;
      begin(operation);
      return true;
    }
    if (timed) finish(operation);
    if (operation.kind == Kind::record) events_[operation.event].completed = operation.generation;
    queues_[stream].pop_front();
    return true;
  }

  static std::uintptr_t tag(const std::byte* home) { return reinterpret_cast<std::uintptr_t>(home); }

  template <class Visit>
  void each_granule(const Operation& operation, Visit&& visit) {
    const std::size_t first = static_cast<std::size_t>(operation.target - arena_);
    if (operation.target < arena_ || first + operation.bytes > arena_bytes_) {
      violate("outside the arena");
      return;
    }
    for (std::size_t offset = 0; offset < operation.bytes; offset += granule)
      visit((first + offset) / granule, tag(operation.source + offset));
  }

  void begin(const Operation& operation) {
    each_granule(operation, [&](std::size_t index, std::uintptr_t home) {
      if (operation.kind == Kind::copy) {
        if (readers_[index] > 0) violate("a copy overwrites what is being computed with");
        if (writer_[index] != 0) violate("two copies write one place");
        writer_[index] = home;
        shadow_[index] = 0;
      } else {
        if (shadow_[index] != home) violate("computation on bytes that have not arrived or are overwritten");
        ++readers_[index];
      }
    });
  }

  void finish(const Operation& operation) {
    if (operation.kind == Kind::copy) copied_bytes += operation.bytes;
    each_granule(operation, [&](std::size_t index, std::uintptr_t home) {
      if (operation.kind == Kind::copy) {
        shadow_[index] = home;
        writer_[index] = 0;
      } else {
        if (shadow_[index] != home) violate("bytes changed while they were computed with");
        --readers_[index];
      }
    });
  }

  void violate(const char* what) {
    if (violation_.empty()) violation_ = what;
  }

  std::mt19937_64 random_;
  std::byte* arena_;
  std::size_t arena_bytes_;
  std::vector<std::uintptr_t> shadow_;  // home address of what each granule holds; 0: nothing
  std::vector<std::uintptr_t> writer_;
  std::vector<int> readers_;
  Fault fault_;
  Stream bias_;
  std::deque<Operation> queues_[2];
  std::deque<EventState> events_;
  std::size_t waits_[3] = {};
  std::size_t issued_waits_[2] = {};
  std::string violation_;
};
static_assert(ebb::Backend<SimulatedBackend>);

}  // namespace ebb::test
