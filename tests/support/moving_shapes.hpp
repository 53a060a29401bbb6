#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ebb/core/view.hpp"

namespace ebb::testing {

/// One 8-bit RGB picture that owns its pixels.
struct Frame {
  std::size_t width = 0;
  std::size_t height = 0;
  std::vector<std::uint8_t> rgb;

  Image<const std::uint8_t> view() const { return {rgb.data(), 1, height, width, 3}; }
};

/// Frame `index` of a video: a disc and a ring with soft edges that move over a coloured gradient.
inline Frame moving_shapes(std::size_t width, std::size_t height, std::size_t index) {
  const auto w = static_cast<double>(width), h = static_cast<double>(height), t = static_cast<double>(index);
  const auto mix = [](double a, double b, double share) { return a + (b - a) * std::clamp(share, 0.0, 1.0); };
  Frame frame{width, height, {}};
  frame.rgb.reserve(width * height * 3);
  for (std::size_t y = 0; y < height; ++y)
    for (std::size_t x = 0; x < width; ++x) {
      const auto px = static_cast<double>(x), py = static_cast<double>(y);
      std::array<double, 3> color{40 + 150 * px / w, 60 + 120 * py / h, 190 - 100 * px / w};
      const double disc = h / 5 - std::hypot(px - w / 4 - 3 * t, py - h / 2);
      const double ring = h / 16 - std::abs(std::hypot(px - 3 * w / 4 + 2 * t, py - h / 2) - h / 4);
      for (std::size_t c = 0; c < 3; ++c) {
        color[c] = mix(color[c], std::array{230.0, 80.0, 40.0}[c], disc / 4 + 0.5);
        color[c] = mix(color[c], std::array{30.0, 60.0, 200.0}[c], ring / 4 + 0.5);
        frame.rgb.push_back(static_cast<std::uint8_t>(std::lround(color[c])));
      }
    }
  return frame;
}

inline Frame solid(std::size_t width, std::size_t height, std::array<std::uint8_t, 3> color) {
  Frame frame{width, height, {}};
  for (std::size_t i = 0; i < width * height; ++i) frame.rgb.insert(frame.rgb.end(), color.begin(), color.end());
  return frame;
}

/// Peak signal to noise ratio in dB; infinite for equal pictures, NaN for different sizes.
inline double psnr(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  if (a.size() != b.size()) return std::nan("");
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return 10 * std::log10(255.0 * 255.0 * static_cast<double>(a.size()) / sum);
}

}  // namespace ebb::testing
