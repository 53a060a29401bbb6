#include "ebb/offload/prefetcher.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "../support/simulated_backend.hpp"
#include "ebb/host/stream.hpp"
#include "ebb/memory/storage.hpp"

namespace {

using ebb::test::SimulatedBackend;

struct Fixture {
  ebb::AlignedBuffer home{4096}, arena{1024};
  SimulatedBackend device{1, arena.data(), 1024};
  // 0 and 1 are apart, 2 overlaps both.
  ebb::StreamPrefetcher<SimulatedBackend> prefetcher{
      device,
      0,
      1,
      arena.data(),
      {{home.data(), 0, 512}, {home.data() + 512, 512, 512}, {home.data() + 1024, 256, 512}}};
};

std::vector<std::size_t> overwritten(const ebb::StreamPrefetcher<SimulatedBackend>& prefetcher, std::size_t unit) {
  std::vector<std::size_t> units;
  prefetcher.for_each_overwritten(unit, [&](std::size_t other) { units.push_back(other); });
  return units;
}

}  // namespace

TEST_CASE("a fetch overwrites exactly what it overlaps, and is made once") {
  Fixture f;
  f.prefetcher.fetch(0);
  f.prefetcher.fetch(1);
  f.prefetcher.fetch(0);
  CHECK(f.prefetcher.statistics().copies == 2);
  CHECK(overwritten(f.prefetcher, 0).empty());
  CHECK(overwritten(f.prefetcher, 2) == std::vector<std::size_t>{0, 1});
  f.prefetcher.fetch(2);
  CHECK_FALSE(f.prefetcher.present(0));
  CHECK_FALSE(f.prefetcher.present(1));
  CHECK(f.prefetcher.present(2));
  CHECK(f.prefetcher.statistics().present_bytes == 512);
  CHECK(f.prefetcher.statistics().peak_bytes == 1024);
  CHECK(f.prefetcher.statistics().bytes == 1536);
}

TEST_CASE("misuse is refused: use before fetch, fetch over what is in use") {
  Fixture f;
  CHECK_THROWS_AS(f.prefetcher.acquire(0), ebb::ShapeError);
  f.prefetcher.fetch(0);
  f.prefetcher.acquire(0);
  CHECK_THROWS_AS(f.prefetcher.fetch(2), ebb::ShapeError);
  f.prefetcher.release(0);
  f.prefetcher.fetch(2);
  CHECK(f.prefetcher.present(2));
}

TEST_CASE("streams wait only where bytes are handed over") {
  Fixture f;
  f.prefetcher.fetch(0);
  CHECK(f.device.waits(1) == 0);  // nobody used these bytes before
  f.prefetcher.acquire(0);
  f.prefetcher.release(0);
  f.prefetcher.acquire(0);
  f.prefetcher.release(0);
  CHECK(f.device.waits(0) == 1);  // the bytes arrive once
  f.prefetcher.fetch(2);
  CHECK(f.device.waits(1) == 1);
  f.prefetcher.fetch(0);  // 2 was never computed with
  CHECK(f.device.waits(1) == 1);
}

TEST_CASE("a copy that cannot be issued leaves the unit absent, and can be tried again") {
  Fixture f;
  f.prefetcher.fetch(0);
  f.device.fail_next_copy = true;
  CHECK_THROWS_AS(f.prefetcher.fetch(2), ebb::FileError);
  CHECK_FALSE(f.prefetcher.present(2));
  CHECK(f.prefetcher.statistics().present_bytes == 0);
  f.prefetcher.fetch(2);
  f.prefetcher.fetch(0);
  CHECK(f.prefetcher.present(0));
  CHECK(f.prefetcher.statistics().present_bytes == 512);
}

TEST_CASE("a copy that fails later is reported when its bytes are needed, and then made again") {
  bool fail = true;
  ebb::AlignedBuffer home(1024), arena(1024);
  for (std::size_t i = 0; i < 1024; ++i) home.data()[i] = static_cast<std::byte>(i);
  ebb::host::Streams device([&](std::byte* target, const std::byte* source, std::size_t bytes) {
    if (fail) throw ebb::FileError("the disk is gone");
    std::memcpy(target, source, bytes);
  });
  ebb::StreamPrefetcher<ebb::host::Streams> prefetcher(device, ebb::host::Stream::compute, ebb::host::Stream::copy,
                                                       arena.data(), {{home.data(), 0, 512}, {home.data(), 512, 512}});
  prefetcher.fetch(0);
  prefetcher.fetch(1);
  CHECK_THROWS_WITH_AS(prefetcher.acquire(0), "the disk is gone", ebb::FileError);
  CHECK_FALSE(prefetcher.present(0));
  CHECK_FALSE(prefetcher.present(1));  // skipped after the failure
  CHECK(prefetcher.statistics().present_bytes == 0);
  fail = false;
  prefetcher.fetch(0);
  prefetcher.acquire(0);
  CHECK(std::memcmp(arena.data(), home.data(), 512) == 0);
}

TEST_CASE("after its destruction nothing touches the arena") {
  ebb::AlignedBuffer home(512), arena(512);
  std::atomic<int> finished = 0;
  ebb::host::Streams device([&](std::byte*, const std::byte*, std::size_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ++finished;
  });
  {
    ebb::StreamPrefetcher<ebb::host::Streams> prefetcher(device, ebb::host::Stream::compute, ebb::host::Stream::copy,
                                                         arena.data(),
                                                         {{home.data(), 0, 256}, {home.data(), 256, 256}});
    prefetcher.fetch(0);
    prefetcher.fetch(1);
  }
  CHECK(finished == 2);
}
