#include "ebb/host/stream.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "ebb/memory/storage.hpp"
#include "ebb/offload/group.hpp"

namespace {

using ebb::host::Stream;
using ebb::host::Streams;

void sleep_us(std::uint64_t microseconds) { std::this_thread::sleep_for(std::chrono::microseconds(microseconds)); }

/// Copies with a pause before, between halves, or not at all.
Streams::Copy slow_copy(std::uint64_t seed) {
  return [random = std::mt19937_64(seed)](std::byte* target, const std::byte* source, std::size_t bytes) mutable {
    if (random() % 4 == 0) sleep_us(random() % 60);
    const std::size_t half = bytes / 2;
    std::memcpy(target, source, half);
    if (random() % 4 == 0) sleep_us(random() % 60);
    std::memcpy(target + half, source + half, bytes - half);
  };
}

}  // namespace

TEST_CASE("operations of the copy stream run in order, and the compute stream waits for the latest record") {
  std::vector<std::byte> source(1000), target(1000);
  Streams streams([](std::byte* to, const std::byte* from, std::size_t bytes) {
    sleep_us(2000);
    std::memcpy(to, from, bytes);
  });
  auto event = streams.create_event();
  streams.wait(Stream::compute, event);  // never recorded: does not wait
  CHECK(streams.stalls().count == 0);
  for (int round = 1; round <= 3; ++round) {
    std::memset(source.data(), round, source.size());
    streams.copy(target.data(), source.data(), source.size(), Stream::copy);
    streams.record(event, Stream::copy);
    streams.wait(Stream::compute, event);
    CHECK(target == source);
    CHECK(streams.stalls().count == static_cast<std::size_t>(round));
  }
  CHECK(streams.stalls().seconds > 0.001);
  streams.wait(Stream::compute, event);
  CHECK(streams.stalls().count == 3);
}

TEST_CASE("the copy stream waits for what the compute stream recorded") {
  std::vector<std::byte> source(8), target(8);
  Streams streams;
  auto event = streams.create_event();
  streams.record(event, Stream::compute);
  streams.wait(Stream::copy, event);
  streams.copy(target.data(), source.data(), 8, Stream::copy);
  streams.synchronize(Stream::copy);
  streams.synchronize(Stream::compute);
  CHECK(target == source);
}

TEST_CASE("an exception of a copy surfaces at waits and at synchronize, later copies are skipped until then") {
  std::atomic<int> copies = 0;
  Streams streams([&](std::byte*, const std::byte*, std::size_t) {
    if (++copies == 2) throw std::runtime_error("unreadable");
  });
  auto before = streams.create_event(), after = streams.create_event();
  std::byte bytes[2]{};
  streams.copy(bytes, bytes + 1, 1, Stream::copy);
  streams.record(before, Stream::copy);
  for (int i = 0; i < 5; ++i) streams.copy(bytes, bytes + 1, 1, Stream::copy);
  streams.record(after, Stream::copy);
  CHECK_NOTHROW(streams.wait(Stream::compute, before));
  CHECK_THROWS_WITH(streams.wait(Stream::compute, after), "unreadable");
  CHECK_THROWS_WITH(streams.wait(Stream::compute, after), "unreadable");
  CHECK_THROWS_WITH(streams.synchronize(Stream::copy), "unreadable");
  CHECK(copies == 2);
  streams.copy(bytes, bytes + 1, 1, Stream::copy);
  streams.record(after, Stream::copy);
  CHECK_NOTHROW(streams.wait(Stream::compute, after));
  CHECK(copies == 3);
}

TEST_CASE("destruction in the middle of work: queued copies are dropped, events may go first") {
  for (int round = 0; round < 50; ++round) {
    std::vector<std::byte> source(64), target(64);
    Streams streams([](std::byte*, const std::byte*, std::size_t) { sleep_us(100); });
    auto event = streams.create_event();
    for (int i = 0; i < 10; ++i) {
      streams.copy(target.data(), source.data(), 64, Stream::copy);
      streams.record(event, Stream::copy);
      streams.wait(Stream::copy, event);
    }
    streams.destroy_event(event);
    if (round % 2 == 0) sleep_us(150);
  }
}

TEST_CASE("a streamed pipeline computes what a resident one does, under random delays") {
  // Each unit holds numbers; a module's forward adds them to a checksum that depends on their order.
  std::mt19937_64 random(11);
  for (int round = 0; round < 60; ++round) {
    const std::size_t count = 1 + random() % 3;
    std::vector<std::unique_ptr<ebb::AlignedBuffer>> homes;
    std::vector<ebb::Component> components;
    std::vector<std::vector<char>> modules;  // only their addresses matter
    std::size_t total = 0;
    for (std::size_t c = 0; c < count; ++c) {
      modules.emplace_back(20);
      ebb::Component component{.name = "component" + std::to_string(c)};
      std::size_t offset = 0;
      for (std::size_t u = 0, units = 1 + random() % 8; u < units; ++u) {
        const std::size_t bytes = random() % 7 == 0 ? 0 : 256 * (1 + random() % 30);
        component.units.push_back({"unit" + std::to_string(u), offset, offset + bytes, {{&modules[c][u], nullptr}}});
        offset += bytes;
      }
      homes.push_back(std::make_unique<ebb::AlignedBuffer>(offset + 256));
      for (std::size_t i = 0; i < offset; ++i) homes[c]->data()[i] = static_cast<std::byte>(random());
      component.home = homes[c]->data();
      component.root = {&modules[c][19], nullptr};
      total += offset;
      components.push_back(component);
    }
    const ebb::OffloadSpec specs[] = {ebb::OffloadSpec(ebb::NoOffload{}), ebb::OffloadSpec(ebb::LeafOffload{0}),
                                      ebb::OffloadSpec(ebb::LeafOffload{1}), ebb::OffloadSpec(ebb::LeafOffload{3}),
                                      ebb::OffloadSpec(ebb::Budget{30 * 256 + total / 2, 2})};
    const std::uint64_t order_seed = random();
    std::vector<std::uint64_t> results;
    for (const ebb::OffloadSpec& spec : specs) {
      using Group = ebb::OffloadGroup<ebb::OffloadSpec, Streams>;
      ebb::AlignedBuffer arena(Group::plan(spec, components).arena_bytes);
      if (arena.size() > 0) std::memset(arena.data(), 0xee, arena.size());
      Streams streams(slow_copy(random()));
      std::mt19937_64 order(order_seed), delay(random());
      std::uint64_t checksum = 0;
      try {
        Group group(spec, streams, Stream::compute, Stream::copy, components, arena.bytes());
        CHECK((spec.text() != "none" || group.address(0, 0) == components[0].home));
        for (int pass = 0; pass < 6; ++pass) {
          const std::size_t c = pass < 4 ? 0 : order() % count;
          const auto root = group.enter(components[c].root);
          for (const ebb::Unit& unit : components[c].units) {
            if (order() % 5 == 0) continue;
            const auto lease = group.enter(unit.modules[0]);
            if (delay() % 4 == 0) sleep_us(delay() % 60);
            for (std::size_t offset = unit.begin; offset < unit.end; ++offset)
              checksum = checksum * 0x100000001b3 + std::to_integer<unsigned>(*group.address(c, offset));
            if (order() % 97 == 0) throw std::runtime_error("cancelled");
          }
        }
      } catch (const std::runtime_error&) {  // the arena is freed right after: no copy may still run
      }
      results.push_back(checksum);
    }
    for (const std::uint64_t result : results) CHECK(result == results[0]);
  }
}
