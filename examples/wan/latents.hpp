#pragma once

#include <cstddef>
#include <span>

#include "ebb/core/view.hpp"
#include "wan/transformer.hpp"

namespace ebb::wan {

/// Extents of a video in latents.
struct LatentShape {
  std::size_t batch = 0, channels = 0, frames = 0, height = 0, width = 0;

  std::size_t elements() const { return batch * channels * frames * height * width; }
  std::size_t rows() const { return height / TransformerConfig::patch; }
  std::size_t columns() const { return width / TransformerConfig::patch; }
  std::size_t tokens() const { return frames * rows() * columns(); }  // of one video
  std::size_t token_width() const { return TransformerConfig::patch * TransformerConfig::patch * channels; }
};

namespace detail {

/// Calls `pair(index in [batch, channels, frames, height, width], token, column)` for every value.
template <class Pair>
void for_each_latent(const LatentShape& shape, Pair pair) {
  constexpr std::size_t patch = TransformerConfig::patch;
  std::size_t index = 0;
  for (std::size_t item = 0; item < shape.batch; ++item)
    for (std::size_t c = 0; c < shape.channels; ++c)
      for (std::size_t frame = 0; frame < shape.frames; ++frame)
        for (std::size_t y = 0; y < shape.height; ++y)
          for (std::size_t x = 0; x < shape.width; ++x, ++index) {
            const std::size_t token =
                ((item * shape.frames + frame) * shape.rows() + y / patch) * shape.columns() + x / patch;
            pair(index, token, ((y % patch) * patch + x % patch) * shape.channels + c);
          }
}

}  // namespace detail

/// Cuts latents [batch, channels, frames, height, width] into tokens [batch * tokens, token_width]: the loop's order,
/// in which patches are neither made nor undone.
inline void pack_latents(std::span<const float> latents, const LatentShape& shape, Matrix<float> tokens) {
  require(latents.size() == shape.elements() && tokens.rows == shape.batch * shape.tokens() &&
              tokens.columns == shape.token_width(),
          "pack_latents: latents [batch, channels, frames, height, width], tokens [batch * tokens, 4 * channels]");
  detail::for_each_latent(
      shape, [&](std::size_t index, std::size_t token, std::size_t column) { tokens(token, column) = latents[index]; });
}

/// The way back.
inline void unpack_latents(Matrix<const float> tokens, const LatentShape& shape, std::span<float> latents) {
  require(latents.size() == shape.elements() && tokens.rows == shape.batch * shape.tokens() &&
              tokens.columns == shape.token_width(),
          "unpack_latents: tokens [batch * tokens, 4 * channels], latents [batch, channels, frames, height, width]");
  detail::for_each_latent(
      shape, [&](std::size_t index, std::size_t token, std::size_t column) { latents[index] = tokens(token, column); });
}

}  // namespace ebb::wan
