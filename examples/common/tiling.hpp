#pragma once

#include <algorithm>
#include <cstddef>

#include "ebb/core/view.hpp"

namespace ebb::examples {

/// Whether an autoencoder decodes a picture whole, or in overlapping tiles that are blended: much less memory, a
/// slightly different result.
enum class Tiling { off, on };

namespace detail {

/// Cross-fades the first `extent` rows (or columns) of each picture of `tile` with the last ones of its neighbour.
template <class T>
void blend(Image<const T> neighbour, Image<T> tile, std::size_t extent, bool vertical) {
  const std::size_t before = vertical ? neighbour.height : neighbour.width;
  extent = std::min({extent, before, vertical ? tile.height : tile.width});
  const std::size_t along = vertical ? std::min(tile.width, neighbour.width) : std::min(tile.height, neighbour.height);
  for (std::size_t step = 0; step < extent; ++step) {
    const float fraction = static_cast<float>(static_cast<double>(step) / static_cast<double>(extent));
    const float rest = static_cast<float>(1.0 - static_cast<double>(step) / static_cast<double>(extent));
    const std::size_t from = before - extent + step;
    for (std::size_t n = 0; n < tile.batch; ++n)
      for (std::size_t at = 0; at < along; ++at)
        for (std::size_t c = 0; c < tile.channels; ++c) {
          const float old = vertical ? neighbour(n, from, at, c) : neighbour(n, at, from, c);
          T& value = vertical ? tile(n, step, at, c) : tile(n, at, step, c);
          value = static_cast<T>(static_cast<float>(static_cast<T>(old * rest)) +
                                 static_cast<float>(static_cast<T>(static_cast<float>(value) * fraction)));
        }
  }
}

}  // namespace detail

}  // namespace ebb::examples
