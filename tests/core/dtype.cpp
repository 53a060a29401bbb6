#include "ebb/core/dtype.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cstdint>
#include <limits>
#include <random>

TEST_CASE("every float16 value survives the way through float32") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    if ((half & 0x7c00u) == 0x7c00u && (half & 0x3ffu) != 0) continue;  // NaN payloads are not kept
    REQUIRE(ebb::float16_bits(ebb::float16_value(half)) == half);
  }
}

TEST_CASE("every bfloat16 value survives the way through float32") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    if ((half & 0x7f80u) == 0x7f80u && (half & 0x7fu) != 0) continue;
    REQUIRE(ebb::bfloat16_bits(ebb::bfloat16_value(half)) == half);
  }
}

TEST_CASE("rounding picks the nearest neighbour, and the even one of two") {
  std::mt19937 random(7);
  for (int trial = 0; trial < 200000; ++trial) {
    const float value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (!(std::abs(value) < 65504.0f)) continue;
    const std::uint16_t rounded = ebb::float16_bits(value);
    const double error = std::abs(double(ebb::float16_value(rounded)) - double(value));
    for (const int step : {-1, 1}) {
      const auto neighbour = static_cast<std::uint16_t>(rounded + step);
      if ((neighbour & 0x7c00u) == 0x7c00u || ((neighbour ^ rounded) & 0x8000u)) continue;
      const double other = std::abs(double(ebb::float16_value(neighbour)) - double(value));
      REQUIRE(error <= other);
      if (error == other) REQUIRE((rounded & 1u) == 0);
    }
  }
}

TEST_CASE("infinities and NaN keep their kind") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(float(ebb::float16(infinity)) == infinity);
  CHECK(float(ebb::bfloat16(-infinity)) == -infinity);
  CHECK(std::isnan(float(ebb::float16(std::nanf("")))));
  CHECK(std::isnan(float(ebb::bfloat16(std::nanf("")))));
  CHECK(float(ebb::bfloat16(std::numeric_limits<float>::max())) == infinity);
}
