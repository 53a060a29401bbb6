#include "ebb/format/dynamic8.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

using namespace ebb;

TEST_CASE("dynamic8: landmarks of the map") {
  CHECK(std::is_sorted(dynamic_map.begin(), dynamic_map.end()));
  CHECK(dynamic_map[0] == -0.99296875f);
  CHECK(dynamic_map[1] == doctest::Approx(-0.97890625).epsilon(1e-7));
  const std::array<double, 7> around_zero = {-7.75e-6, -3.25e-6, -5.5e-7, 0.0, 5.5e-7, 3.25e-6, 7.75e-6};
  for (std::size_t i = 0; i < around_zero.size(); ++i)
    CHECK(dynamic_map[124 + i] == doctest::Approx(around_zero[i]).epsilon(1e-6));
  CHECK(dynamic_map[254] == 0.99296875f);
  for (std::size_t i = 0; i < 127; ++i) CHECK(dynamic_map[i] == -dynamic_map[254 - i]);
}

TEST_CASE("dynamic8: a value of the map encodes to its own code") {
  for (std::size_t code = 0; code < dynamic_map.size(); ++code)
    CHECK(dynamic_code(dynamic_map[code], dynamic_map.data()) == code);
}

TEST_CASE("dynamic8: the code is the nearest, on both sides of every midpoint") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (std::size_t code = 0; code + 1 < dynamic_map.size(); ++code) {
    const float tie = (dynamic_map[code] + dynamic_map[code + 1]) * 0.5f;
    CAPTURE(code);
    CHECK(dynamic_code(std::nextafter(tie, -infinity), dynamic_map.data()) == code);
    CHECK(dynamic_code(std::nextafter(tie, infinity), dynamic_map.data()) == code + 1);
    const int at = dynamic_code(tie, dynamic_map.data());  // which way depends on the path, as on CUDA
    // the search ends on an even code: above it a tie stays, below it a tie stays too
    CHECK(at == static_cast<int>(code % 2 == 0 ? code : code + 1));
  }
  CHECK(dynamic_code(-1.0f, dynamic_map.data()) == 0);
  CHECK(dynamic_code(std::nanf(""), dynamic_map.data()) == 0);
}

TEST_CASE("dynamic8: scales that all equal the mean decode to it exactly") {
  const std::vector<float> scales(3, 0.7f);
  std::array<std::uint8_t, 3> codes{9, 9, 9};
  std::array<float, 1> nested{9.0f};
  quantize_scales(scales, mean_of_scales(scales), codes, nested);
  for (const std::uint8_t code : codes) {
    CHECK(code == 0);
    CHECK(nested_scale(dynamic_map[code], nested[0], 0.7f) == 0.7f);
  }
}

TEST_CASE("dynamic8: scales decode to within a code of themselves") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0.01f, 0.2f);
  std::vector<float> scales(1000);
  for (float& scale : scales) scale = uniform(random);
  const float mean = mean_of_scales(scales);
  std::vector<std::uint8_t> codes(scales.size());
  std::vector<float> nested(ceil_divide(scales.size(), nested_block_size));
  quantize_scales(scales, mean, codes, nested);
  for (std::size_t i = 0; i < scales.size(); ++i) {
    const float span = nested[i / nested_block_size];
    // neighbouring values of the map differ by at most 0.0141, so the nearest is within half of that
    CHECK(std::abs(nested_scale(dynamic_map[codes[i]], span, mean) - scales[i]) <= 0.00704f * span);
  }
}

TEST_CASE("dynamic8: the mean is rounded once") {
  const std::vector<float> scales = {1.0f, 0x1p-24f, 0x1p-24f, 0x1p-24f};
  CHECK(mean_of_scales(scales) == static_cast<float>((1.0 + 3 * 0x1p-24) / 4));
  CHECK(mean_of_scales({}) == 0.0f);
}
