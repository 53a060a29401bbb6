#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "judge/world.hpp"

namespace ebb::judge {

/// A place in a picture, column and row.
struct Pixel {
  std::size_t x, y;
};

/// The shape whose outline a patch of pixels is most like; lengths in pixels.
struct Silhouette {
  std::size_t shape = 0;
  double likeness = 0;  // intersection over union with that shape
  double x = 0, y = 0, radius = 0;
};

/// Connected patches (by side or corner) of a mask [height * width].
inline std::vector<std::vector<Pixel>> patches(std::vector<char> mask, std::size_t width, std::size_t height) {
  std::vector<std::vector<Pixel>> result;
  for (std::size_t start = 0; start < mask.size(); ++start) {
    if (!mask[start]) continue;
    mask[start] = 0;
    std::vector<Pixel> patch{{start % width, start / width}};
    for (std::size_t next = 0; next < patch.size(); ++next) {
      const Pixel pixel = patch[next];
      for (std::size_t y = pixel.y - (pixel.y > 0); y <= std::min(pixel.y + 1, height - 1); ++y)
        for (std::size_t x = pixel.x - (pixel.x > 0); x <= std::min(pixel.x + 1, width - 1); ++x)
          if (char& there = mask[y * width + x]; there) {
            there = 0;
            patch.push_back({x, y});
          }
    }
    result.push_back(std::move(patch));
  }
  return result;
}

/// The pixels of a patch that lie at least three from its edge; where there are none, those that lie two, or all.
inline std::vector<Pixel> inner_pixels(const std::vector<Pixel>& patch, std::size_t width, std::size_t height) {
  std::vector<char> mask(width * height, 0);
  std::vector<Pixel> inner = patch;
  for (int depth = 0; depth < 2; ++depth) {
    std::fill(mask.begin(), mask.end(), char{0});
    for (const Pixel& pixel : inner) mask[pixel.y * width + pixel.x] = 1;
    std::vector<Pixel> deeper;
    for (const auto& [x, y] : inner) {
      if (x == 0 || y == 0 || x + 1 == width || y + 1 == height) continue;
      const std::size_t at = y * width + x;
      if (mask[at - 1] && mask[at + 1] && mask[at - width] && mask[at + width]) deeper.push_back({x, y});
    }
    if (deeper.size() < 12) break;
    inner = std::move(deeper);
  }
  return inner;
}

/// The mask and all within `by` columns and rows of it.
inline std::vector<char> grown(const std::vector<char>& mask, std::size_t width, std::size_t height, std::size_t by) {
  std::vector<char> wide(mask.size(), 0), result(mask.size(), 0);
  for (std::size_t y = 0; y < height; ++y)
    for (std::size_t x = 0; x < width; ++x)
      if (mask[y * width + x])
        for (std::size_t i = x - std::min(x, by); i <= std::min(x + by, width - 1); ++i) wide[y * width + i] = 1;
  for (std::size_t y = 0; y < height; ++y)
    for (std::size_t x = 0; x < width; ++x)
      if (wide[y * width + x])
        for (std::size_t i = y - std::min(y, by); i <= std::min(y + by, height - 1); ++i) result[i * width + x] = 1;
  return result;
}

namespace detail {

/// Area and centre of mass of a shape of radius 1.
struct Measure {
  double area = 0, x = 0, y = 0;
};

inline const std::array<Measure, shapes.size()>& measures() {
  static const auto all = [] {
    std::array<Measure, shapes.size()> result;
    constexpr int steps = 600;
    constexpr double reach = 1.2, step = 2 * reach / steps;
    for (std::size_t shape = 0; shape < shapes.size(); ++shape) {
      Measure& measure = result[shape];
      for (int i = 0; i < steps; ++i)
        for (int j = 0; j < steps; ++j) {
          const double x = -reach + (j + 0.5) * step, y = -reach + (i + 0.5) * step;
          if (!inside(shape, x, y)) continue;
          measure.area += step * step;
          measure.x += x * step * step;
          measure.y += y * step * step;
        }
      measure.x /= measure.area;
      measure.y /= measure.area;
    }
    return result;
  }();
  return all;
}

}  // namespace detail

/// Lays every shape over the patch, with the patch's area and centre of mass and turned by up to 12 degrees.
inline Silhouette silhouette_of(const std::vector<Pixel>& patch) {
  std::size_t left = patch[0].x, right = left, top = patch[0].y, bottom = top;
  double x = 0, y = 0;
  for (const Pixel& pixel : patch) {
    left = std::min(left, pixel.x), right = std::max(right, pixel.x);
    top = std::min(top, pixel.y), bottom = std::max(bottom, pixel.y);
    x += static_cast<double>(pixel.x), y += static_cast<double>(pixel.y);
  }
  const auto area = static_cast<double>(patch.size());
  x /= area, y /= area;
  const std::size_t columns = right - left + 1;
  std::vector<char> there(columns * (bottom - top + 1), 0);
  for (const Pixel& pixel : patch) there[(pixel.y - top) * columns + pixel.x - left] = 1;

  Silhouette best;
  for (std::size_t shape = 0; shape < shapes.size(); ++shape) {
    const detail::Measure& measure = detail::measures()[shape];
    const double radius = std::sqrt(area / measure.area);
    for (int degrees = -12; degrees <= 12; degrees += 4) {
      const double angle = degrees * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
      double both = 0;
      for (std::size_t row = top; row <= bottom; ++row)
        for (std::size_t column = left; column <= right; ++column) {
          if (!there[(row - top) * columns + column - left]) continue;
          const double dx = (static_cast<double>(column) - x) / radius, dy = (static_cast<double>(row) - y) / radius;
          if (inside(shape, c * dx + s * dy + measure.x, c * dy - s * dx + measure.y)) both += 1;
        }
      const double likeness = both / (2 * area - both);  // both have the same area
      if (likeness > best.likeness)
        best = {.shape = shape,
                .likeness = likeness,
                .x = x + 0.5 - radius * (c * measure.x - s * measure.y),
                .y = y + 0.5 - radius * (s * measure.x + c * measure.y),
                .radius = radius};
    }
  }
  return best;
}

}  // namespace ebb::judge
