#include "ebb/format/int8.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "ebb/core/dtype.hpp"

using ebb::INT8;

TEST_CASE("INT8: rounds to nearest, ties to even") {
  for (int i = -126; i <= 126; ++i) {
    const auto value = static_cast<float>(i);
    const int even = i % 2 == 0 ? i : i + 1;
    CAPTURE(i);
    CHECK(INT8::encode(value, 1.0f) == i);
    CHECK(INT8::encode(value + 0.5f, 1.0f) == even);
    CHECK(INT8::encode(std::nextafter(value + 0.5f, 200.0f), 1.0f) == i + 1);
    CHECK(INT8::encode(std::nextafter(value + 0.5f, -200.0f), 1.0f) == i);
  }
}

TEST_CASE("INT8: the row maximum maps to 127 whatever its magnitude") {
  for (int exponent = -24; exponent < 16; ++exponent) {
    std::mt19937 random(static_cast<unsigned>(exponent + 100));
    const float absmax = ebb::float16(std::ldexp(std::uniform_real_distribution<float>(1.0f, 1.99f)(random), exponent));
    CHECK(INT8::encode(absmax, INT8::inverse_of(absmax)) == 127);
    CHECK(INT8::encode(-absmax, INT8::inverse_of(absmax)) == -127);
    CHECK(INT8::decode(127, absmax) == doctest::Approx(absmax).epsilon(1e-6));
  }
  CHECK(INT8::encode(0.0f, INT8::inverse_of(0.0f)) == 0);
}

TEST_CASE("INT8: prepare is the float16 cast, bit for bit") {
  const auto check = [](float value) {
    const float expected = ebb::float16(value);
    CHECK(std::bit_cast<std::uint32_t>(INT8::prepare(value)) == std::bit_cast<std::uint32_t>(expected));
  };
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7fff) > 0x7c00) continue;
    const float exact = ebb::float16_value(static_cast<std::uint16_t>(bits));
    if (std::isinf(exact)) continue;
    REQUIRE(std::bit_cast<std::uint32_t>(INT8::prepare(exact)) == std::bit_cast<std::uint32_t>(exact));
  }
  for (const float tie : {0x1p-25f, 0x1.8p-24f, 0x1.004p-14f, 1.0f + 0x1p-11f, 1.0f + 0x1.8p-10f, 65519.0f, 65520.0f})
    for (const float value : {tie, std::nextafter(tie, 0.0f), std::nextafter(tie, 1e6f)}) {
      check(value);
      check(-value);
    }
  check(1e30f);
  check(1e-30f);
  CHECK(std::isnan(INT8::prepare(std::nanf(""))));
}
