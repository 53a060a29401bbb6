#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <string_view>

namespace ebb::judge {

// What examples/models/world.py can draw, told again for a judge that shares no code with it. Lengths are parts of the
// picture's side, y goes down, an object's radius is 1 in `inside`.

inline constexpr std::size_t no_name = static_cast<std::size_t>(-1);

/// Index of `name` in `names`, or `no_name`.
template <std::size_t Count>
constexpr std::size_t index_of(const std::array<std::string_view, Count>& names, std::string_view name) {
  const auto at = std::find(names.begin(), names.end(), name);
  return at == names.end() ? no_name : static_cast<std::size_t>(at - names.begin());
}

inline constexpr std::array<std::string_view, 8> shapes{"circle", "square", "triangle", "star",
                                                        "ring",   "cross",  "heart",    "crescent"};
inline constexpr std::array<std::string_view, 10> colours{"red",  "orange", "yellow", "green", "cyan",
                                                          "blue", "purple", "pink",   "white", "black"};
inline constexpr std::array<std::string_view, 8> ground_colours{"orange", "yellow", "green", "cyan",
                                                                "blue",   "purple", "pink",  "gray"};
inline constexpr std::array<std::string_view, 3> sizes{"small", "medium", "large"};
inline constexpr std::array<std::string_view, 3> textures{"plain", "striped", "dotted"};
inline constexpr std::array<std::string_view, 5> patterns{"plain", "striped", "checkered", "dotted", "gradient"};
inline constexpr std::array<std::string_view, 4> relations{"above", "below", "left", "right"};

using Rgb = std::array<double, 3>;  // sRGB, 0 to 255

/// Each colour's tone, and the other one of its striped and dotted textures.
inline constexpr std::array<std::array<Rgb, 2>, colours.size()> tones{{
    {{{220, 40, 40}, {136, 25, 25}}},
    {{{245, 130, 25}, {152, 81, 16}}},
    {{{248, 212, 25}, {154, 131, 16}}},
    {{{40, 165, 65}, {25, 102, 40}}},
    {{{25, 195, 200}, {16, 121, 124}}},
    {{{40, 80, 220}, {25, 50, 136}}},
    {{{130, 50, 185}, {81, 31, 115}}},
    {{{248, 105, 175}, {154, 65, 108}}},
    {{{250, 250, 250}, {214, 214, 220}}},
    {{{25, 25, 28}, {64, 64, 70}}},
}};
inline constexpr std::array<Rgb, ground_colours.size()> ground_tones{{{245, 200, 150},
                                                                      {238, 226, 150},
                                                                      {176, 222, 168},
                                                                      {160, 224, 226},
                                                                      {158, 186, 236},
                                                                      {204, 176, 236},
                                                                      {242, 186, 210},
                                                                      {162, 162, 168}}};

/// Radii up to the first are small, from the second on large: geometric means of the three that are drawn.
inline constexpr std::array<double, 2> size_limits{0.113, 0.160};

// Of examples/models/moving_world.py.
inline constexpr std::array<std::string_view, 8> clip_shapes{"ball", "square", "triangle", "star",
                                                             "ring", "cross",  "heart",    "crescent"};
inline constexpr std::array<std::string_view, 2> clip_sizes{"medium", "large"};
inline constexpr double clip_size_limit = 0.156;
inline constexpr std::array<std::string_view, 5> motions{"left", "right", "up", "down", "bounce"};
inline constexpr std::array<std::string_view, 2> orders{"behind", "in front"};
inline constexpr std::array<std::string_view, 2> ground_kinds{"background", "floor"};
inline constexpr double horizon = 0.72;  // where a floor begins

/// Whether a point lies in shape number `shape` of radius 1 around the origin.
inline bool inside(std::size_t shape, double x, double y) {
  using std::numbers::pi;
  const double length = std::hypot(x, y), wide = std::abs(x), high = std::abs(y);
  switch (shape) {
    case 0:
      return length < 0.95;
    case 1:
      return std::max(wide, high) < 0.8;
    case 2:
      return y < 0.54 && 0.5 * (std::sqrt(3.0) * wide - y) < 0.54;
    case 3: {
      constexpr double fifth = 2 * pi / 5, tip = 1.1, notch = 0.5;
      const double angle = std::abs(std::remainder(std::atan2(x, -y), fifth));
      const double along = length * std::cos(angle), across = length * std::sin(angle);
      const double notch_along = notch * std::cos(fifth / 2), notch_across = notch * std::sin(fifth / 2);
      return (notch_across * (along - tip) - (notch_along - tip) * across) < 0;
    }
    case 4:
      return std::abs(length - 0.76) < 0.24;
    case 5:
      return (wide < 0.32 && high < 0.98) || (high < 0.32 && wide < 0.98);
    case 6: {
      const double lowered = y + 0.1;
      return wide + std::abs(lowered) < 0.8 || std::hypot(wide - 0.4, lowered + 0.4) < 0.8 / std::numbers::sqrt2;
    }
    default:
      return length < 0.98 && std::hypot(x - 0.46, y) > 0.74;
  }
}

}  // namespace ebb::judge
