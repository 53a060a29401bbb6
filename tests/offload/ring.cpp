#include "ebb/offload/ring.hpp"

#include <doctest/doctest.h>

#include <random>
#include <vector>

namespace {

using Sizes = std::vector<std::size_t>;

bool disjoint(const ebb::Ring& ring, const Sizes& bytes, std::size_t i, std::size_t j) {
  return ring.offsets[i] + bytes[i] <= ring.offsets[j] || ring.offsets[j] + bytes[j] <= ring.offsets[i];
}

}  // namespace

TEST_CASE("neighbours within the lookahead never share a byte, and the bound holds") {
  std::mt19937_64 random(1);
  for (int round = 0; round < 3000; ++round) {
    Sizes bytes(1 + random() % 12);
    std::size_t largest = 0;
    for (std::size_t& each : bytes) {
      each = 1 + random() % (random() % 4 == 0 ? 20000 : 1500);
      largest = std::max(largest, (each + 255) / 256 * 256);
    }
    const std::size_t lookahead = std::min<std::size_t>(random() % 5, bytes.size());
    const std::size_t bound = (lookahead + 1) * largest;
    const ebb::Ring ring = ebb::make_ring(bytes, lookahead, bound);
    REQUIRE(ring.offsets.size() == bytes.size());
    REQUIRE(ring.bytes <= bound);
    bool wraps = true;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      REQUIRE(ring.offsets[i] % 256 == 0);
      REQUIRE(ring.offsets[i] + bytes[i] <= ring.bytes);
      for (std::size_t ahead = 1; ahead <= lookahead && ahead < bytes.size(); ++ahead) {
        const std::size_t j = (i + ahead) % bytes.size();
        if (j > i)
          REQUIRE(disjoint(ring, bytes, i, j));
        else
          wraps = wraps && disjoint(ring, bytes, i, j);
      }
    }
    REQUIRE(ring.wraps == wraps);
  }
}

TEST_CASE("equal units use as many slots as the lookahead asks, and one more for an odd pass where it is allowed") {
  const Sizes even(6, 512), odd(7, 512);
  CHECK(ebb::make_ring(even, 1, 1024).bytes == 1024);
  CHECK(ebb::make_ring(even, 1, 1024).wraps);
  CHECK(ebb::make_ring(odd, 1, 1024).bytes == 1024);
  CHECK_FALSE(ebb::make_ring(odd, 1, 1024).wraps);
  CHECK(ebb::make_ring(odd, 1, 4096).bytes == 1536);
  CHECK(ebb::make_ring(odd, 1, 4096).wraps);
  CHECK(ebb::make_ring(odd, 0, 4096).bytes == 512);
  CHECK(ebb::make_ring(Sizes{}, 0, 0).bytes == 0);
}

TEST_CASE("small units do not cost the place of large ones") {
  // Two slots of the largest would be 20480; the layout needs one large and one small place.
  const Sizes bytes{10240, 256, 10240, 256};
  CHECK(ebb::make_ring(bytes, 1, 20480).bytes == 10496);
}
