#pragma once

#include <cstddef>
#include <span>

#include "ebb/core/view.hpp"

namespace ebb::flux {

/// Packs NCHW latents into tokens: 2 x 2 neighbours become the channels of one token, channel * 4 + dy * 2 + dx.
/// latents [batch, channels, 2 * rows, 2 * columns] -> tokens [batch * rows * columns, 4 * channels]
template <class T>
void pack_latents(std::span<const T> latents, std::size_t batch, std::size_t channels, std::size_t rows,
                  std::size_t columns, Matrix<T> tokens) {
  require(latents.size() == batch * channels * 4 * rows * columns && tokens.rows == batch * rows * columns &&
              tokens.columns == 4 * channels,
          "pack_latents: latents [batch, channels, 2 * rows, 2 * columns], tokens [batch * rows * columns, 4 * c]");
  for (std::size_t item = 0; item < batch; ++item)
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t column = 0; column < columns; ++column)
        for (std::size_t c = 0; c < channels; ++c)
          for (std::size_t corner = 0; corner < 4; ++corner) {
            const std::size_t y = 2 * row + corner / 2;
            const std::size_t x = 2 * column + corner % 2;
            tokens((item * rows + row) * columns + column, c * 4 + corner) =
                latents[((item * channels + c) * 2 * rows + y) * 2 * columns + x];
          }
}

/// Unpacks tokens into the picture that the VAE decodes, NHWC, applying `x / scaling + shift` on the way, each
/// operation rounded to T as the reference does.
/// tokens [batch * rows * columns, 4 * channels] -> picture [batch, 2 * rows, 2 * columns, channels]
template <class T>
void unpack_latents(Matrix<const T> tokens, std::size_t rows, std::size_t columns, float scaling, float shift,
                    Image<T> picture) {
  require(picture.height == 2 * rows && picture.width == 2 * columns && tokens.rows == picture.batch * rows * columns &&
              tokens.columns == 4 * picture.channels,
          "unpack_latents: tokens [batch * rows * columns, 4 * c], picture [batch, 2 * rows, 2 * columns, c]");
  for (std::size_t item = 0; item < picture.batch; ++item)
    for (std::size_t y = 0; y < picture.height; ++y)
      for (std::size_t x = 0; x < picture.width; ++x)
        for (std::size_t c = 0; c < picture.channels; ++c) {
          const float value =
              static_cast<float>(tokens((item * rows + y / 2) * columns + x / 2, c * 4 + (y % 2) * 2 + x % 2));
          const float unscaled = static_cast<float>(static_cast<T>(value / scaling));
          picture(item, y, x, c) = static_cast<T>(unscaled + shift);
        }
}

}  // namespace ebb::flux
