#include "ebb/format/fp8.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using ebb::FP8;

TEST_CASE("FP8: every code survives a round trip") {
  for (int i = 0; i < 256; ++i) {
    const auto code = static_cast<std::uint8_t>(i);
    if ((code & 0x7f) == 0x7f) {
      CHECK(std::isnan(FP8::value_of(code)));
      continue;
    }
    CHECK(FP8::bits_of(FP8::value_of(code)) == code);
  }
}

TEST_CASE("FP8: values follow the definition of E4M3") {
  for (int code = 0; code < 0x7f; ++code) {
    const int exponent = code >> 3;
    const int fraction = code & 7;
    const float expected = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                         : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
    CHECK(FP8::value_of(static_cast<std::uint8_t>(code)) == expected);
    CHECK(FP8::value_of(static_cast<std::uint8_t>(code | 0x80)) == -expected);
  }
}

TEST_CASE("FP8: rounds to nearest, ties to even, between all neighbours") {
  for (int code = 0; code < 0x7e; ++code) {
    const float low = FP8::value_of(static_cast<std::uint8_t>(code));
    const float high = FP8::value_of(static_cast<std::uint8_t>(code + 1));
    const float tie = 0.5f * (low + high);
    CAPTURE(code);
    CHECK(FP8::bits_of(tie) == (code % 2 == 0 ? code : code + 1));
    CHECK(FP8::bits_of(std::nextafter(tie, 1000.0f)) == code + 1);
    CHECK(FP8::bits_of(std::nextafter(tie, 0.0f)) == code);
    CHECK(FP8::bits_of(-std::nextafter(tie, 1000.0f)) == ((code + 1) | 0x80));
  }
}

TEST_CASE("FP8: saturates; NaN stays NaN") {
  CHECK(FP8::bits_of(449.0f) == 0x7e);
  CHECK(FP8::bits_of(-1e30f) == 0xfe);
  CHECK(FP8::bits_of(std::numeric_limits<float>::infinity()) == 0x7e);
  CHECK(FP8::bits_of(std::nanf("")) == 0x7f);
}

TEST_CASE("FP8: rows of zeros and of tiny numbers never become NaN") {
  for (const float absmax : {0.0f, 1e-45f, 1e-38f, 1.4e-36f, 1e-30f}) {
    const float inverse = FP8::inverse_of(absmax);
    CHECK(FP8::encode(0.0f, inverse) == 0);
    CHECK(std::abs(FP8::decode(FP8::encode(absmax, inverse), FP8::scale_of(absmax)) - absmax) <= 2e-36f);
  }
}
