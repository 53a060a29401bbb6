#include "ebb/memory/workspace.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <vector>

TEST_CASE("a frame gives back what was allocated in it, at the same addresses") {
  ebb::Workspace workspace;
  float* first = nullptr;
  {
    const auto frame = workspace.frame();
    first = workspace.allocate<float>(1000);
    workspace.allocate<float>(std::size_t{1} << 20);
  }
  const std::size_t peak = workspace.peak_bytes();
  for (int pass = 0; pass < 3; ++pass) {
    const auto frame = workspace.frame();
    CHECK(workspace.allocate<float>(1000) == first);
    workspace.allocate<float>(std::size_t{1} << 20);
  }
  CHECK(workspace.peak_bytes() == peak);
  CHECK(peak >= (std::size_t{1} << 22));
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
