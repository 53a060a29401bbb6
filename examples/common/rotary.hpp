#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "ebb/core/shape.hpp"

namespace ebb::examples {

/// Cosines and sines of a rotary embedding along three axes, [tokens, head_dim], each value twice (pairs 2i, 2i + 1).
/// Computed in double and stored in float, as FluxPosEmbed and WanRotaryPosEmbed of diffusers do.
struct RotaryTables {
  std::size_t tokens = 0;
  std::size_t head_dim = 0;
  std::vector<float> cosines, sines;

  /// `axes` are columns of a head for each axis, all even; `position(token)` is where a token sits.
  template <class Position>
  static RotaryTables make(const std::array<std::size_t, 3>& axes, std::size_t tokens, Position position) {
    RotaryTables tables{.tokens = tokens, .head_dim = axes[0] + axes[1] + axes[2], .cosines = {}, .sines = {}};
    tables.cosines.resize(checked_product(tokens, tables.head_dim));
    tables.sines.resize(tables.cosines.size());
    for (std::size_t token = 0; token < tokens; ++token) {
      const std::array<std::size_t, 3> place = position(token);
      std::size_t at = token * tables.head_dim;
      for (std::size_t axis = 0; axis < 3; ++axis)
        for (std::size_t pair = 0; pair < axes[axis]; pair += 2, at += 2) {
          const double frequency = 1.0 / std::pow(10000.0, static_cast<double>(pair) / static_cast<double>(axes[axis]));
          const double angle = static_cast<double>(place[axis]) * frequency;
          tables.cosines[at] = tables.cosines[at + 1] = static_cast<float>(std::cos(angle));
          tables.sines[at] = tables.sines[at + 1] = static_cast<float>(std::sin(angle));
        }
    }
    return tables;
  }
};

}  // namespace ebb::examples
