#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string_view>
#include <vector>

#include "judge/world.hpp"

namespace ebb::judge {

/// Where an object is in one frame; parts of the picture's side.
struct Moment {
  std::size_t frame;
  double x, y;
};

/// One of `motions`, or "still", or "unclear" for a path that is none of them.
///
/// "bounce": falls and then rises by an eighth of the picture or more, and stays in its column. The other four: ends a
/// quarter of the picture or more away from where it began, along one axis, and hardly ever goes back on its way.
/// "still": never further than an eighth from where it began.
inline std::string_view motion_of(const std::vector<Moment>& path) {
  if (path.size() < 5) return "unclear";
  const auto [left, right] = std::minmax_element(path.begin(), path.end(), [](auto& a, auto& b) { return a.x < b.x; });
  const auto above = [](const Moment& a, const Moment& b) { return a.y < b.y; };
  const auto [top, bottom] = std::minmax_element(path.begin(), path.end(), above);
  const double wide = right->x - left->x, high = bottom->y - top->y;

  const bool bounces = std::any_of(path.begin(), path.end(), [&](const Moment& moment) {
    const auto here = path.begin() + (&moment - path.data());
    const double before = std::min_element(path.begin(), here + 1, above)->y;
    const double after = std::min_element(here, path.end(), above)->y;
    return moment.y - std::max(before, after) >= 0.125;
  });
  if (bounces && wide < 0.5 * high) return "bounce";
  if (std::max(wide, high) < 0.125) return "still";

  const auto middle = [](const Moment& a, const Moment& b) { return Moment{0, (a.x + b.x) / 2, (a.y + b.y) / 2}; };
  const Moment first = middle(path[0], path[1]), last = middle(path[path.size() - 2], path.back());
  const double x = last.x - first.x, y = last.y - first.y;
  const bool vertical = std::abs(y) > std::abs(x);
  const double along = vertical ? y : x, across = vertical ? wide : high;
  double back = 0;
  for (std::size_t i = 1; i < path.size(); ++i) {
    const double step = vertical ? path[i].y - path[i - 1].y : path[i].x - path[i - 1].x;
    back += std::max(0.0, along < 0 ? step : -step);
  }
  if (std::abs(along) < 0.25 || across > 0.5 * std::abs(along) || back > 0.2 * std::abs(along)) return "unclear";
  return motions[vertical ? (y < 0 ? 2 : 3) : (x < 0 ? 0 : 1)];
}

}  // namespace ebb::judge
