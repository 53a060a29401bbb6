#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>

#include "common/png.hpp"

namespace ebb::testing {

/// Convolved with [1 2 1] / 4 `times` times each way: a Gaussian of standard deviation sqrt(times / 2).
inline examples::PngPicture blurred(examples::PngPicture picture, int times) {
  const auto pass = [&](std::size_t step, std::size_t stride, std::size_t length) {
    const auto before = picture.pixels;
    for (std::size_t i = 0; i < before.size(); ++i) {
      const std::size_t at = i / stride % length;
      const int here = before[i], low = at > 0 ? before[i - step] : here,
                high = at + 1 < length ? before[i + step] : here;
      picture.pixels[i] = static_cast<std::uint8_t>((low + 2 * here + high + 2) / 4);
    }
  };
  for (int i = 0; i < times; ++i) {
    pass(3, 3, picture.width);
    pass(3 * picture.width, 3 * picture.width, picture.height);
  }
  return picture;
}

/// Times `factor`, plus normal noise of that deviation.
inline examples::PngPicture changed(examples::PngPicture picture, double factor, double noise) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal(0.0, 1.0);
  for (auto& value : picture.pixels)
    value = static_cast<std::uint8_t>(std::clamp(std::lround(factor * value + noise * normal(random)), 0l, 255l));
  return picture;
}

}  // namespace ebb::testing
