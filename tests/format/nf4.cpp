#include "ebb/format/nf4.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

using ebb::NF4;

namespace {
constexpr int ulps_from_midpoint(std::size_t i) {
  const float midpoint = 0.5f * (NF4::values[i] + NF4::values[i + 1]);
  return std::bit_cast<int>(NF4::thresholds[i]) - std::bit_cast<int>(midpoint);
}
// The exact midpoints 0, 8, 12 and 14 are no float32 numbers: there CUDA's literals are the other neighbour.
static_assert([] {
  for (std::size_t i = 0; i < 15; ++i)
    if (ulps_from_midpoint(i) != (i == 0 || i == 8 ? 1 : i == 12 || i == 14 ? -1 : 0)) return false;
  return true;
}());
// The immediates in the compiled CUDA kernel.
static_assert(std::bit_cast<unsigned>(NF4::thresholds[0]) == 0xbf591cd9u);
static_assert(std::bit_cast<unsigned>(NF4::thresholds[8]) == 0x3df64863u);
static_assert(std::bit_cast<unsigned>(NF4::thresholds[12]) == 0x3f006d03u);
static_assert(std::bit_cast<unsigned>(NF4::thresholds[14]) == 0x3f5c89d9u);
}  // namespace

TEST_CASE("NF4: the table has the published bits") {
  constexpr std::uint32_t bits[] = {0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f,
                                    0xbdba7871, 0x00000000, 0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a,
                                    0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000};
  for (std::size_t code = 0; code < 16; ++code) CHECK(std::bit_cast<std::uint32_t>(NF4::values[code]) == bits[code]);
}

TEST_CASE("NF4: values, ties and neighbours of ties") {
  for (std::uint8_t code = 0; code < 16; ++code) CHECK(NF4::encode(NF4::values[code], 1.0f) == code);
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < NF4::thresholds.size(); ++i) {
    CAPTURE(i);
    CHECK(NF4::encode(NF4::thresholds[i], 1.0f) == i);  // a tie goes down
    CHECK(NF4::encode(std::nextafter(NF4::thresholds[i], infinity), 1.0f) == i + 1);
    CHECK(NF4::encode(std::nextafter(NF4::thresholds[i], -infinity), 1.0f) == i);
  }
  CHECK(NF4::encode(3.5f, 1.0f / 3.5f) == 15);
  CHECK(NF4::encode(-3.5f, 1.0f / 3.5f) == 0);
}

TEST_CASE("NF4: a zero block encodes to code 0 with scale 0, as on CUDA") {
  CHECK(NF4::encode(0.0f, NF4::inverse_of(0.0f)) == 0);
  CHECK(NF4::decode(0, NF4::scale_of(0.0f)) == 0.0f);
}

TEST_CASE("NF4: an implicit zero is code 7") { CHECK(NF4::encode(0.0f, 4.0f) == 7); }
