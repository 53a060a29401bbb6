#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/epilogue/epilogue.hpp"
#include "ebb/host/context.hpp"
#include "ebb/host/linear.hpp"
#include "ebb/host/threads.hpp"
#include "ebb/ops/conv.hpp"
#include "ebb/tensor/any_of.hpp"

namespace ebb::host {

namespace detail {

/// Tiles of pixels are unfolded into rows of [frames, kernel, kernel, inputs] and multiplied with the filter.
template <Element T, Epilogue Stage>
void convolve(const Context<T>& ctx, const Image<const T>& x, const DenseTensor& filter, std::size_t frames,
              std::size_t kernel, const Stage& stage, const Image<T>& y) {
  if (y.size() == 0) return;
  const auto frame = ctx.workspace().frame();
  const std::size_t depth = frames * kernel * kernel * x.channels;
  const auto weights = ctx.template array<float>(filter.elements());
  dequantize(filter, 0, weights);
  constexpr std::size_t pixel_tile = 128;
  const auto threads = static_cast<std::size_t>(ctx.threads());
  const auto unfolded = ctx.template array<float>(threads * pixel_tile * depth);
  const auto products = ctx.template array<float>(threads * pixel_tile * y.channels);
  const Matrix<T> out = y.pixels();
  const std::size_t tiles = (out.rows + pixel_tile - 1) / pixel_tile;
  const std::size_t pad = kernel / 2;
#pragma omp parallel num_threads(threads_for(ctx, y.size() * depth))
  {
    const std::size_t thread = thread_number();
    float* rows = unfolded.data() + thread * pixel_tile * depth;
    float* product = products.data() + thread * pixel_tile * y.channels;
#pragma omp for schedule(dynamic)
    for (std::size_t tile = 0; tile < tiles; ++tile) {
      const std::size_t first = tile * pixel_tile;
      const std::size_t count = std::min(pixel_tile, out.rows - first);
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t pixel = first + i;
        const std::size_t column = pixel % x.width;
        const std::size_t line = pixel / x.width % x.height;
        const std::size_t item = pixel / (x.width * x.height);
        float* row = rows + i * depth;
        for (std::size_t dz = 0; dz < frames; ++dz)
          for (std::size_t dy = 0; dy < kernel; ++dy)
            for (std::size_t dx = 0; dx < kernel; ++dx, row += x.channels) {
              const std::size_t from_y = line + dy;  // shifted by pad, so that it stays unsigned
              const std::size_t from_x = column + dx;
              if (from_y < pad || from_y >= x.height + pad || from_x < pad || from_x >= x.width + pad) {
                std::fill_n(row, x.channels, 0.0f);
                continue;
              }
              const T* source = &x(item + dz, from_y - pad, from_x - pad, 0);
              for (std::size_t c = 0; c < x.channels; ++c) row[c] = static_cast<float>(source[c]);
            }
      }
      multiply(rows, depth, weights.data(), depth, product, y.channels, count, y.channels, depth);
      store(product, y.channels, count, y.channels, first, 0, stage, out);
    }
  }
}

}  // namespace detail

/// See ops/conv.hpp.
template <Element T, Epilogue Stage>
void conv2d(const Context<T>& ctx, std::type_identity_t<Image<const T>> x, const DenseTensor& filter, Stage stage,
            Image<T> y) {
  check_conv2d(x, filter.shape(), y);
  detail::convolve(ctx, x, filter, 1, filter.shape()[1], stage, y);
}

/// See ops/conv.hpp.
template <Element T, Epilogue Stage>
void conv3d(const Context<T>& ctx, std::type_identity_t<Image<const T>> x, const DenseTensor& filter, Stage stage,
            Image<T> y) {
  check_conv3d(x, filter.shape(), y);
  detail::convolve(ctx, x, filter, filter.shape()[1], filter.shape()[2], stage, y);
}

/// See ops/conv.hpp.
template <Element T>
void upsample_nearest(const Context<T>& ctx, std::type_identity_t<Image<const T>> x, Image<T> y) {
  check_upsample(x, y);
#pragma omp parallel for num_threads(ctx.threads()) schedule(static) if (y.size() > 65536)
  for (std::size_t line = 0; line < y.batch * y.height; ++line) {
    const std::size_t item = line / y.height;
    const std::size_t row = line % y.height;
    for (std::size_t column = 0; column < y.width; ++column)
      std::copy_n(&x(item, row / 2, column / 2, 0), y.channels, &y(item, row, column, 0));
  }
}

}  // namespace ebb::host
