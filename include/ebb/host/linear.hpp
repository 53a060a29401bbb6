#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/epilogue/epilogue.hpp"
#include "ebb/host/context.hpp"
#include "ebb/host/simd.hpp"
#include "ebb/host/threads.hpp"
#include "ebb/ops/linear.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/dequantize.hpp"

namespace ebb::host {

namespace detail {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstRows = Eigen::Map<const RowMajor, Eigen::Unaligned, Eigen::OuterStride<>>;
using Rows = Eigen::Map<RowMajor, Eigen::Unaligned, Eigen::OuterStride<>>;

inline Eigen::Index index(std::size_t value) { return static_cast<Eigen::Index>(value); }

/// y [m, n] = x [m, k] * w [n, k]^T; `stride`s are elements between rows. On the calling thread alone: parallel regions
/// are this backend's own, and Eigen, which would start threads in a region of one, is told so once for the process.
inline void multiply(const float* x, std::size_t x_stride, const float* w, std::size_t w_stride, float* y,
                     std::size_t y_stride, std::size_t m, std::size_t n, std::size_t k) {
  [[maybe_unused]] static const bool told = (Eigen::setNbThreads(1), true);
  const ConstRows left(x, index(m), index(k), Eigen::OuterStride<>(index(x_stride)));
  const ConstRows right(w, index(n), index(k), Eigen::OuterStride<>(index(w_stride)));
  Rows result(y, index(m), index(n), Eigen::OuterStride<>(index(y_stride)));
  result.noalias() = left * right.transpose();
}

/// x as contiguous float32 rows: itself where it is, else a copy in the workspace.
template <class T>
Matrix<const float> as_float(const Context<T>& ctx, const Matrix<const T>& x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    const Matrix<float> copy(ctx.template array<float>(x.size()).data(), x.rows, x.columns);
#pragma omp parallel for num_threads(ctx.threads()) schedule(static) if (x.size() > 65536)
    for (std::size_t row = 0; row < x.rows; ++row)
      for (std::size_t column = 0; column < x.columns; ++column) copy(row, column) = static_cast<float>(x(row, column));
    return copy;
  }
}

/// Elements [first, first + out.size()) as float32: the vectorized form of `ebb::dequantize`, equal bit for bit.
template <QuantFormat Format>
void decode(const QuantizedTensor<Format>& weight, std::size_t first, std::span<float> out) {
  if constexpr (BlockFormat<Format>) {
    const std::size_t block = weight.group();
    std::size_t done = 0;
    while (done < out.size()) {
      const std::size_t element = first + done;
      const std::size_t group = element / block;
      std::size_t count = std::min(out.size() - done, (group + 1) * block - element);
      if (element % 2 != 0 || count % 2 != 0) {  // an odd row length: one element the slow way
        const std::size_t single = element % 2 != 0 ? 1 : count;
        dequantize(weight, element, out.subspan(done, single));
        done += single;
        continue;
      }
      decode_nibbles(weight.codes().data() + element / 2, count, Format::values.data(), weight.scale(group),
                     out.data() + done);
      done += count;
    }
  } else {
    dequantize(weight, first, out);
  }
}

template <class T, class Stage>
void store(const float* tile, std::size_t stride, std::size_t rows, std::size_t columns, std::size_t first_row,
           std::size_t first_column, const Stage& stage, const Matrix<T>& y) {
  for (std::size_t row = 0; row < rows; ++row) {
    T* out = y.row(first_row + row) + first_column;
    for (std::size_t column = 0; column < columns; ++column)
      out[column] = static_cast<T>(stage(tile[row * stride + column], first_row + row, first_column + column));
  }
}

inline constexpr std::size_t panel_columns = 128;  // outputs that are decoded at a time: 128 x 3072 floats fill an L2
inline constexpr std::size_t tile_rows = 512;      // tokens that are multiplied at a time
inline constexpr std::size_t vector_rows = 4;      // up to here decoding costs more than multiplying

/// Product of `blocks` blocks from `first_block` on with as many numbers of x.
template <BlockFormat Format>
float dot_row(const QuantizedTensor<Format>& weight, std::size_t first_block, std::size_t blocks, const float* x) {
  const std::uint8_t* codes = weight.codes().data() + first_block * weight.group() / 2;
  if (weight.nested()) {
    const std::uint8_t* scale_codes = weight.scale_codes().data();
    const float* map = weight.nested_map().data();
    const float* nested = weight.nested_scales().data();
    const float mean = *weight.nested_offset();
    return dot_blocks(
        codes, blocks, weight.group(), Format::values.data(),
        [=](std::size_t block) {
          const std::size_t at = first_block + block;
          return nested_scale(map[scale_codes[at]], nested[at / nested_block_size], mean);
        },
        x);
  }
  const float* scales = weight.scales().data() + first_block;
  return dot_blocks(
      codes, blocks, weight.group(), Format::values.data(), [scales](std::size_t block) { return scales[block]; }, x);
}

/// Few rows: each thread decodes rows of the weight once and takes their products with all rows of x.
template <class T, QuantFormat Format, class Stage>
void linear_vector(const Context<T>& ctx, const Matrix<const float>& x, const QuantizedTensor<Format>& weight,
                   const Stage& stage, const Matrix<T>& y) {
  const std::size_t k = x.columns;
  const auto scratch = ctx.template array<float>(static_cast<std::size_t>(ctx.threads()) * k);
  const bool direct = [&] {
    if constexpr (BlockFormat<Format>) return k % weight.group() == 0 && x.rows == 1;
    return false;
  }();
#pragma omp parallel num_threads(threads_for(ctx, y.size() * k))
  {
    float* row = scratch.data() + thread_number() * k;
#pragma omp for schedule(static)
    for (std::size_t n = 0; n < y.columns; ++n) {
      if constexpr (BlockFormat<Format>) {
        if (direct) {
          const std::size_t blocks = k / weight.group();
          const float sum = dot_row(weight, n * blocks, blocks, x.data);
          y(0, n) = static_cast<T>(stage(sum, 0, n));
          continue;
        }
      }
      decode(weight, n * k, std::span(row, k));
      const Eigen::Map<const Eigen::VectorXf> right(row, index(k));
      for (std::size_t m = 0; m < x.rows; ++m) {
        const Eigen::Map<const Eigen::VectorXf> left(x.row(m), index(k));
        y(m, n) = static_cast<T>(stage(left.dot(right), m, n));
      }
    }
  }
}

/// Many rows: each thread takes panels of the weight, decodes one, multiplies it with all of x, and finishes the
/// tile while it is in the cache.
template <class T, QuantFormat Format, class Stage>
void linear_panels(const Context<T>& ctx, const Matrix<const float>& x, const QuantizedTensor<Format>& weight,
                   const Stage& stage, const Matrix<T>& y) {
  const std::size_t k = x.columns;
  const std::size_t panels = (y.columns + panel_columns - 1) / panel_columns;
  const auto threads = static_cast<std::size_t>(ctx.threads());
  const std::size_t rows = std::min(tile_rows, x.rows);
  const auto decoded = ctx.template array<float>(threads * panel_columns * k);
  const auto tiles = ctx.template array<float>(threads * rows * panel_columns);
#pragma omp parallel num_threads(threads_for(ctx, y.size() * k))
  {
    const std::size_t thread = thread_number();
    float* panel = decoded.data() + thread * panel_columns * k;
    float* tile = tiles.data() + thread * rows * panel_columns;
#pragma omp for schedule(dynamic)
    for (std::size_t number = 0; number < panels; ++number) {
      const std::size_t first = number * panel_columns;
      const std::size_t columns = std::min(panel_columns, y.columns - first);
      const float* right = panel;
      if constexpr (std::is_same_v<Format, F32>)
        right = weight.values().data() + first * k;
      else
        decode(weight, first * k, std::span(panel, columns * k));
      for (std::size_t row = 0; row < x.rows; row += rows) {
        const std::size_t count = std::min(rows, x.rows - row);
        multiply(x.row(row), x.stride, right, k, tile, panel_columns, count, columns, k);
        store(tile, panel_columns, count, columns, row, first, stage, y);
      }
    }
  }
}

/// Without fusion: the whole weight, then the whole product, then the whole epilogue.
template <class T, QuantFormat Format, class Stage>
void linear_unfused(const Context<T>& ctx, const Matrix<const float>& x, const QuantizedTensor<Format>& weight,
                    const Stage& stage, const Matrix<T>& y) {
  const auto dense = ctx.template array<float>(weight.elements());
  dequantize(weight, 0, dense);
  const auto product = ctx.template array<float>(y.size());
  const std::size_t tiles = (y.columns + panel_columns - 1) / panel_columns;
#pragma omp parallel for num_threads(threads_for(ctx, y.size() * x.columns)) schedule(static)
  for (std::size_t tile = 0; tile < tiles; ++tile) {
    const std::size_t first = tile * panel_columns;
    multiply(x.data, x.stride, dense.data() + first * x.columns, x.columns, product.data() + first, y.columns, x.rows,
             std::min(panel_columns, y.columns - first), x.columns);
  }
  store(product.data(), y.columns, y.rows, y.columns, 0, 0, stage, y);
}

/// What LLM.int8 multiplies: activations rounded to float16, and rows of those rounded to int8 by their largest
/// magnitude.
struct Int8Activations {
  Matrix<const float> half, quantized;
  std::span<const float> scales;      // of the rows
  std::vector<std::size_t> outliers;  // columns with a magnitude at or above the threshold: zeros in `quantized`
};

template <class T>
Int8Activations quantize_activations(const Context<T>& ctx, const Matrix<const float>& x, float threshold) {
  const std::size_t k = x.columns;
  const Matrix<float> half(ctx.template array<float>(x.size()).data(), x.rows, k);
  const Matrix<float> quantized(ctx.template array<float>(x.size()).data(), x.rows, k);
  const auto scales = ctx.template array<float>(x.rows);
  // No magnitude is at or above NaN.
  const float least = threshold > 0.0f ? threshold : std::numeric_limits<float>::quiet_NaN();
  const auto seen = ctx.template array<std::uint8_t>(static_cast<std::size_t>(ctx.threads()) * k);  // by each thread
  std::ranges::fill(seen, std::uint8_t{0});
#pragma omp parallel for num_threads(ctx.threads()) schedule(static) if (x.size() > 65536)
  for (std::size_t row = 0; row < x.rows; ++row) {
    std::uint8_t* is_outlier = seen.data() + thread_number() * k;
    float* values = half.row(row);
    round_to_float16(x.row(row), k, values);
    float largest = 0.0f;  // of the values that are no outliers themselves
    for (std::size_t column = 0; column < k; ++column) {
      const float magnitude = std::abs(values[column]);
      const bool outlier = magnitude >= least;
      is_outlier[column] |= static_cast<std::uint8_t>(outlier);
      largest = std::max(largest, outlier ? 0.0f : magnitude);
    }
    scales[row] = largest;
  }
  for (std::size_t i = k; i < seen.size(); ++i) seen[i % k] |= seen[i];
#pragma omp parallel for num_threads(ctx.threads()) schedule(static) if (x.size() > 65536)
  for (std::size_t row = 0; row < x.rows; ++row) {
    const float inverse = scales[row] == 0.0f ? 0.0f : 127.0f / scales[row];
    for (std::size_t column = 0; column < k; ++column)
      quantized(row, column) = seen[column] != 0 ? 0.0f : std::nearbyint(half(row, column) * inverse);
  }
  Int8Activations result{half, quantized, scales, {}};
  for (std::size_t column = 0; column < k; ++column)
    if (seen[column] != 0) result.outliers.push_back(column);
  return result;
}

/// LLM.int8 (Dettmers et al., 2022) with the arithmetic of bitsandbytes: products of int8 are summed exactly; columns
/// of outliers are left out there and multiplied with the dequantized weight instead.
template <class T, class Stage>
void linear_int8(const Context<T>& ctx, const Matrix<const float>& x, const QuantizedTensor<INT8>& weight,
                 const Stage& stage, const Matrix<T>& y) {
  // Sums of products of int8 stay below 2^24 over 1024 columns, so that float32 holds them exactly; double holds all.
  constexpr std::size_t exact_columns = 1024;
  const std::size_t k = x.columns;
  const Int8Activations input = quantize_activations(ctx, x, weight.options().outlier_threshold);
  const std::size_t panels = (y.columns + panel_columns - 1) / panel_columns;
  const auto threads = static_cast<std::size_t>(ctx.threads());
  const std::size_t rows = std::min(tile_rows, x.rows);
  const std::size_t tile_size = rows * panel_columns;
  const auto decoded = ctx.template array<float>(threads * panel_columns * k);
  const auto tiles = ctx.template array<float>(threads * tile_size);
  const auto sums = ctx.template array<double>(k > exact_columns ? threads * tile_size : 0);
  const std::size_t kept_size = input.outliers.size() * panel_columns;
  const auto dequantized = ctx.template array<float>(threads * kept_size);
#pragma omp parallel num_threads(threads_for(ctx, y.size() * k))
  {
    const std::size_t thread = thread_number();
    float* panel = decoded.data() + thread * panel_columns * k;
    float* tile = tiles.data() + thread * tile_size;
    const auto exact = k > exact_columns ? sums.subspan(thread * tile_size, tile_size) : sums;
    float* kept = dequantized.data() + thread * kept_size;  // [outliers, panel_columns]
    std::fill_n(tile, tile_size, 0.0f);                     // what a narrow panel leaves alone is added up as well
#pragma omp for schedule(dynamic)
    for (std::size_t number = 0; number < panels; ++number) {
      const std::size_t first = number * panel_columns;
      const std::size_t columns = std::min(panel_columns, y.columns - first);
      const auto* codes = weight.codes().data() + first * k;
      std::array<float, panel_columns> scales{};
      for (std::size_t n = 0; n < columns; ++n) scales[n] = weight.scale(first + n);
      for (std::size_t at = 0; at < input.outliers.size(); ++at)
        for (std::size_t n = 0; n < columns; ++n)
          kept[at * panel_columns + n] = INT8::decode(codes[n * k + input.outliers[at]], scales[n]);
      for (std::size_t row = 0; row < x.rows; row += rows) {
        const std::size_t count = std::min(rows, x.rows - row);
        std::ranges::fill(exact, 0.0);
        for (std::size_t begin = 0; begin < k; begin += exact_columns) {
          const std::size_t width = std::min(exact_columns, k - begin);
          float* part = panel + begin * panel_columns;  // [columns, width], decoded when it is first needed
          for (std::size_t n = 0; row == 0 && n < columns; ++n)
            std::copy_n(codes + n * k + begin, width, part + n * width);
          multiply(input.quantized.row(row) + begin, k, part, width, tile, panel_columns, count, columns, width);
          for (std::size_t i = 0; i < exact.size(); ++i) exact[i] += static_cast<double>(tile[i]);
        }
        for (std::size_t i = 0; i < exact.size(); ++i) tile[i] = static_cast<float>(exact[i]);
        for (std::size_t i = 0; i < count; ++i) {
          float* values = tile + i * panel_columns;
          for (std::size_t n = 0; n < columns; ++n)
            values[n] = values[n] * (input.scales[row + i] * scales[n]) * (1.0f / (127.0f * 127.0f));
          for (std::size_t at = 0; at < input.outliers.size(); ++at) {
            const float activation = input.half(row + i, input.outliers[at]);
            for (std::size_t n = 0; n < columns; ++n) values[n] += activation * kept[at * panel_columns + n];
          }
        }
        store(tile, panel_columns, count, columns, row, first, stage, y);
      }
    }
  }
}

}  // namespace detail

/// See ops/linear.hpp. Quantized weights are decoded a panel of outputs at a time, never as a whole.
template <Element T, Epilogue Stage, QuantFormat... Formats>
void linear(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, const AnyOf<Formats...>& weight,
            Stage stage, Matrix<T> y) {
  check_linear(x, weight.shape(), y);
  if (y.size() == 0) return;
  (void)weight.segment();  // throws here what would end the program inside a parallel region
  const auto frame = ctx.workspace().frame();
  const Matrix<const float> wide = detail::as_float(ctx, x);
  weight.visit([&]<class Format>(const QuantizedTensor<Format>& tensor) {
    if constexpr (std::is_same_v<Format, INT8>)
      detail::linear_int8(ctx, wide, tensor, stage, y);
    else if (ctx.fusion() == Fusion::off)
      detail::linear_unfused(ctx, wide, tensor, stage, y);
    else if (x.rows <= detail::vector_rows)
      detail::linear_vector(ctx, wide, tensor, stage, y);
    else
      detail::linear_panels(ctx, wide, tensor, stage, y);
  });
}

}  // namespace ebb::host
