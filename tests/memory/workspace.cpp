#include "ebb/memory/workspace.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

TEST_CASE("a frame gives back what was allocated in it; after the first pass at the same addresses") {
  ebb::Workspace workspace;
  const auto pass = [&] {
    const auto frame = workspace.frame();
    float* first = workspace.allocate<float>(1000);
    return std::pair(first, workspace.allocate<float>(std::size_t{1} << 20));
  };
  pass();
  const auto addresses = pass();
  const std::size_t peak = workspace.peak_bytes();
  for (int again = 0; again < 3; ++again) CHECK((pass() == addresses));
  CHECK(workspace.peak_bytes() == peak);
  CHECK(peak >= (std::size_t{1} << 22));
}

TEST_CASE("a workspace's generation says whether addresses may have changed") {
  ebb::Workspace workspace;
  const auto pass = [&](std::size_t count) {
    const auto frame = workspace.frame();
    workspace.allocate<float>(1000);
    workspace.allocate<float>(count);
  };
  pass(std::size_t{1} << 20);
  const std::size_t first = workspace.generation();
  pass(std::size_t{1} << 20);
  pass(10);
  CHECK(workspace.generation() == first);
  pass(std::size_t{1} << 21);
  const std::size_t grown = workspace.generation();
  CHECK(grown != first);
  pass(std::size_t{1} << 20);
  CHECK(workspace.generation() == grown);
  workspace.release();
  CHECK(workspace.generation() != grown);
}

TEST_CASE("frames of other sizes share their memory") {
  constexpr std::size_t mebibyte = std::size_t{1} << 20;
  ebb::Workspace workspace;
  const auto outer = workspace.frame();
  workspace.allocate<std::byte>(40 * mebibyte);
  std::vector<std::vector<std::byte*>> addresses;
  for (int pass = 0; pass < 3; ++pass) {
    addresses.emplace_back();
    const auto module = workspace.frame();
    addresses.back().push_back(workspace.allocate<std::byte>(100));
    {
      const auto frame = workspace.frame();
      for (int piece = 0; piece < 3; ++piece) addresses.back().push_back(workspace.allocate<std::byte>(50 * mebibyte));
    }
    {
      const auto frame = workspace.frame();
      addresses.back().push_back(workspace.allocate<std::byte>(120 * mebibyte));
      addresses.back().push_back(workspace.allocate<std::byte>(20 * mebibyte));
    }
  }
  CHECK(addresses[1] == addresses[2]);
  // 40 and three times 50, and the chunk that small pieces share.
  CHECK(workspace.peak_bytes() <= 190 * mebibyte + 33 * mebibyte);
}

TEST_CASE("a released workspace begins anew") {
  ebb::Workspace workspace;
  {
    const auto frame = workspace.frame();
    workspace.allocate<std::byte>(std::size_t{100} << 20);
  }
  workspace.release();
  workspace.reset_peak();
  CHECK(workspace.peak_bytes() == 0);
  const auto frame = workspace.frame();
  workspace.allocate<std::byte>(1);
  CHECK(workspace.peak_bytes() == std::size_t{1} << 20);
}

TEST_CASE("allocations are aligned and do not overlap") {
  ebb::Workspace workspace;
  std::mt19937 random(3);
  const auto outer = workspace.frame();
  std::vector<std::pair<unsigned char*, std::size_t>> taken;
  for (int i = 0; i < 200; ++i) {
    const std::size_t bytes = random() % 100000;
    auto* memory = workspace.allocate<unsigned char>(bytes);
    REQUIRE(reinterpret_cast<std::uintptr_t>(memory) % ebb::AlignedBuffer::alignment == 0);
    std::fill_n(memory, bytes, static_cast<unsigned char>(i));
    taken.emplace_back(memory, bytes);
  }
  for (std::size_t i = 0; i < taken.size(); ++i)
    for (std::size_t byte = 0; byte < taken[i].second; byte += 997)
      REQUIRE(taken[i].first[byte] == static_cast<unsigned char>(i));
}

TEST_CASE("impossible sizes are errors") {
  ebb::Workspace workspace;
  CHECK_THROWS_AS(workspace.allocate<double>(std::numeric_limits<std::size_t>::max() / 4), ebb::ShapeError);
  CHECK_THROWS_AS(ebb::AlignedBuffer(std::size_t{1} << 62), ebb::MemoryError);
}
