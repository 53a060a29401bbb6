#include "ebb/format/fp4.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>

using ebb::FP4;

TEST_CASE("FP4: codes name magnitudes in bit order") {
  const std::array<float, 8> twelfths = {0.0f, 0.0625f, 8.0f, 12.0f, 4.0f, 6.0f, 2.0f, 3.0f};
  for (std::uint8_t code = 0; code < 8; ++code) {
    CAPTURE(int{code});
    CHECK(FP4::values[code] == doctest::Approx(twelfths[code] / 12.0f).epsilon(1e-7));
    CHECK(FP4::values[code + 8u] == -FP4::values[code]);
    CHECK(std::signbit(FP4::values[code + 8u]));
    CHECK(FP4::encode(FP4::values[code], 1.0f) == code);
    if (code != 0) CHECK(FP4::encode(-FP4::values[code], 1.0f) == code + 8);
  }
}

TEST_CASE("FP4: ties go to the smaller magnitude on both sides of zero") {
  const std::array<std::uint8_t, 8> ascending = {0, 1, 6, 7, 4, 5, 2, 3};
  for (std::size_t i = 0; i < FP4::pivots.size(); ++i) {
    CAPTURE(i);
    const float pivot = FP4::pivots[i];
    const float beyond = std::nextafter(pivot, 2.0f);
    CHECK(FP4::encode(pivot, 1.0f) == ascending[i]);
    CHECK(FP4::encode(beyond, 1.0f) == ascending[i + 1]);
    CHECK(FP4::encode(-pivot, 1.0f) == ascending[i] + 8);
    CHECK(FP4::encode(-beyond, 1.0f) == ascending[i + 1] + 8);
  }
}

TEST_CASE("FP4: the pivots are CUDA's literals, not the midpoints") {
  const auto ulps = [](float a, float b) { return std::bit_cast<int>(a) - std::bit_cast<int>(b); };
  const std::array<std::uint8_t, 8> ascending = {0, 1, 6, 7, 4, 5, 2, 3};
  const std::array<int, 7> expected = {14, 0, -1, -1, 0, -6, -1};
  for (std::size_t i = 0; i < FP4::pivots.size(); ++i) {
    const float midpoint = (FP4::values[ascending[i]] + FP4::values[ascending[i + 1]]) * 0.5f;
    CHECK(ulps(FP4::pivots[i], midpoint) == expected[i]);
  }
}

TEST_CASE("FP4: zeros") {
  CHECK(FP4::encode(0.0f, 1.0f) == 0);
  CHECK(FP4::encode(-0.0f, 1.0f) == 0);
  CHECK(FP4::encode(-1e-5f, 1.0f) == 8);  // negative, rounds to -0
  CHECK(FP4::encode(0.0f, FP4::inverse_of(0.0f)) == 0);
}
