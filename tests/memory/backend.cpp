#include "ebb/memory/backend.hpp"

#include <doctest/doctest.h>

#include "../support/simulated_backend.hpp"
#include "ebb/host/stream.hpp"

namespace {

struct WithoutWait {
  static constexpr bool computes_on_home_memory = true;
  using Stream = int;
  using Event = int;
  Event create_event();
  void destroy_event(Event&) noexcept;
  void record(Event&, Stream);
  void copy(std::byte*, const std::byte*, std::size_t, Stream);
  void synchronize(Stream);
};
struct Whole : WithoutWait {
  void wait(Stream, Event&);
};
struct ThrowingDestroy : Whole {
  void destroy_event(Event&);
};

}  // namespace

static_assert(ebb::Backend<ebb::host::Streams> && ebb::Backend<ebb::test::SimulatedBackend> && ebb::Backend<Whole>);
static_assert(!ebb::Backend<WithoutWait> && !ebb::Backend<ThrowingDestroy> && !ebb::Backend<int>);

TEST_CASE("a scoped event is destroyed once") {
  ebb::test::SimulatedBackend device(1, nullptr, 0);
  {
    ebb::ScopedEvent<ebb::test::SimulatedBackend> event(device);
    CHECK(device.live_events == 1);
  }
  CHECK(device.live_events == 0);
}

TEST_CASE("the simulation reports deadlocks, wrong bytes and places outside the arena") {
  using ebb::test::SimulatedBackend;
  std::byte memory[2048];
  SimulatedBackend wrong(1, memory, 1024);
  wrong.compute(memory, memory + 1024, 256);
  wrong.synchronize(0);
  CHECK(wrong.violation() == "computation on bytes that have not arrived or are overwritten");
  SimulatedBackend outside(1, memory, 1024);
  outside.copy(memory + 1024, memory, 256, 1);
  outside.synchronize(1);
  CHECK(outside.violation() == "outside the arena");
  SimulatedBackend right(1, memory, 1024);
  auto event = right.create_event();
  right.wait(0, event);  // never recorded: complete
  right.copy(memory, memory + 1024, 512, 1);
  right.record(event, 1);
  right.wait(0, event);
  right.compute(memory, memory + 1024, 512);
  right.synchronize(0);
  CHECK(right.violation() == "");
}
