#pragma once
// Every launcher enqueues on `stream`, allocates nothing, can be captured, and returns what its launch says. Matrices
// lie on the device; rows may be strided, and aligned 16-byte vectors run fastest. Extents that must fit each other are
// the caller's to check, as the operations of ops.cuh do.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/cuda/vector.cuh"
#include "ebb/epilogue/epilogue.hpp"

namespace ebb::cuda {

namespace detail {

inline constexpr int elementwise_threads = 256;

/// Calls `body.template operator()<width>(row, column)` for every `width` columns of every row.
template <int width, class Body>
__global__ void __launch_bounds__(elementwise_threads)
    elementwise_kernel(std::size_t rows, std::size_t columns, Body body) {
  for (std::size_t row = blockIdx.y; row < rows; row += gridDim.y)
    for (std::size_t column = (std::size_t{blockIdx.x} * elementwise_threads + threadIdx.x) * width; column < columns;
         column += std::size_t{gridDim.x} * elementwise_threads * width)
      body.template operator()<width>(row, column);
}

template <int width, class Body>
cudaError_t launch_elementwise(std::size_t rows, std::size_t columns, const Body& body, cudaStream_t stream) noexcept {
  if (rows == 0 || columns == 0) return cudaSuccess;
  constexpr std::size_t per_block = std::size_t{elementwise_threads} * width;
  const dim3 grid(static_cast<unsigned>(std::min<std::size_t>((columns + per_block - 1) / per_block, 1u << 20)),
                  static_cast<unsigned>(std::min<std::size_t>(rows, 65535)));
  elementwise_kernel<width><<<grid, elementwise_threads, 0, stream>>>(rows, columns, body);
  return cudaGetLastError();
}

template <class From, class Stage, class To>
struct Map {
  Matrix<const From> x;
  Stage stage;
  Matrix<To> y;
  template <int width>
  __device__ void operator()(std::size_t row, std::size_t column) const {
    float values[width];
    load_floats(values, x.row(row) + column);
#pragma unroll
    for (int i = 0; i < width; ++i) values[i] = stage(values[i], row, column + i);
    store_floats(y.row(row) + column, values);
  }
};

template <class T>
struct Add {
  Matrix<const T> a;
  Matrix<const T> b;
  Matrix<T> y;
  template <int width>
  __device__ void operator()(std::size_t row, std::size_t column) const {
    float left[width], right[width];
    load_floats(left, a.row(row) + column);
    load_floats(right, b.row(row) + column);
#pragma unroll
    for (int i = 0; i < width; ++i) left[i] += right[i];
    store_floats(y.row(row) + column, left);
  }
};

template <class Gate, class T>
struct AddGated {
  Matrix<const T> x;
  Matrix<const Gate> gate;
  std::size_t rows_per_item;
  Matrix<const T> residual;
  Matrix<T> y;
  template <int width>
  __device__ void operator()(std::size_t row, std::size_t column) const {
    float values[width], gates[width], sums[width];
    load_floats(values, x.row(row) + column);
    load_floats(gates, gate.row(row / rows_per_item) + column);
    load_floats(sums, residual.row(row) + column);
#pragma unroll
    for (int i = 0; i < width; ++i) sums[i] += gates[i] * values[i];
    store_floats(y.row(row) + column, sums);
  }
};

template <class T, std::size_t count>
struct LinearCombination {
  Matrix<const T> inputs[count];
  const float* coefficients;
  Matrix<T> y;
  template <int width>
  __device__ void operator()(std::size_t row, std::size_t column) const {
    float sum = 0.0f;
#pragma unroll
    for (std::size_t i = 0; i < count; ++i)
      sum = __fadd_rn(sum, __fmul_rn(__ldg(coefficients + i), static_cast<float>(inputs[i](row, column))));
    y(row, column) = static_cast<T>(sum);
  }
};

template <class T>
struct AddScaled {
  Matrix<const T> x;
  const float* factor;
  Matrix<T> y;
  template <int width>
  __device__ void operator()(std::size_t row, std::size_t column) const {
    const float product = __fmul_rn(__ldg(factor), static_cast<float>(x(row, column)));
    y(row, column) = static_cast<T>(static_cast<float>(y(row, column)) + static_cast<float>(static_cast<T>(product)));
  }
};

template <class T>
struct Guide {
  Matrix<const T> conditional;
  Matrix<const T> unconditional;
  float scale;
  Matrix<T> y;
  template <int width>
  __device__ void operator()(std::size_t row, std::size_t column) const {
    const float base = static_cast<float>(unconditional(row, column));
    const float difference = static_cast<float>(static_cast<T>(static_cast<float>(conditional(row, column)) - base));
    y(row, column) = static_cast<T>(base + static_cast<float>(static_cast<T>(__fmul_rn(scale, difference))));
  }
};

struct RelativeBias {
  const float* table;
  std::size_t heads;
  const std::int32_t* buckets;
  Matrix<float> bias;
  template <int width>
  __device__ void operator()(std::size_t row, std::size_t key) const {
    const std::size_t tokens = bias.columns;
    const std::size_t bucket = static_cast<std::size_t>(__ldg(buckets + (key + tokens - 1 - row % tokens)));
    bias(row, key) = __ldg(table + bucket * heads + row / tokens);
  }
};

template <class T>
struct Upsample {
  Image<const T> x;
  Image<T> y;
  template <int width>
  __device__ void operator()(std::size_t row, std::size_t column) const {  // row: a row of pixels of y
    const std::size_t item = row / y.height;
    const std::size_t y_row = row % y.height;
    const std::size_t y_column = column / y.channels;
    const T* from = &x(item, y_row / 2, y_column / 2, column % y.channels);
    *reinterpret_cast<Pack<T, width>*>(&y(item, y_row, y_column, column % y.channels)) =
        *reinterpret_cast<const Pack<T, width>*>(from);
  }
};

template <class T>
struct TimestepEmbedding {
  const float* timesteps;
  Matrix<T> y;
  template <int width>
  __device__ void operator()(std::size_t row, std::size_t column) const {
    const std::size_t half = y.columns / 2;
    // The order of the operations is the reference's: the exponent divides before the exponential.
    const float exponent = -9.210340371976184f * static_cast<float>(column) / static_cast<float>(half);
    const float angle = timesteps[row] * expf(exponent);
    y(row, column) = static_cast<T>(cosf(angle));
    y(row, half + column) = static_cast<T>(sinf(angle));
  }
};

}  // namespace detail

/// y = stage(x), element by element in float32, e.g. `Silu`; `Identity` converts. y may be x where the types are the
/// same. Stages that read matrices of their own do so one element at a time: `launch_add` and `launch_gated_residual`
/// are faster.
template <class From, Epilogue Stage, Element To>
  requires Element<std::remove_const_t<From>>
cudaError_t launch_map(Matrix<From> x, const Stage& stage, Matrix<To> y, cudaStream_t stream) noexcept {
  const detail::Map<std::remove_const_t<From>, Stage, To> body{x, stage, y};
  constexpr int width = std::min(vector_width<From>, vector_width<To>);
  return vectorizable(x, y) ? detail::launch_elementwise<width>(y.rows, y.columns, body, stream)
                            : detail::launch_elementwise<1>(y.rows, y.columns, body, stream);
}

/// y = a + b; y may be an operand.
template <Element T>
cudaError_t launch_add(std::type_identity_t<Matrix<const T>> a, std::type_identity_t<Matrix<const T>> b, Matrix<T> y,
                       cudaStream_t stream) noexcept {
  const detail::Add<T> body{a, b, y};
  return vectorizable(a, b, y) ? detail::launch_elementwise<vector_width<T>>(y.rows, y.columns, body, stream)
                               : detail::launch_elementwise<1>(y.rows, y.columns, body, stream);
}

/// y = residual + gate * x, rounded once; y may be x or the residual.
///
/// @param gate [items, columns], of T or float32; `rows_per_item` consecutive rows use one row of it
template <Element T, class Gate>
  requires Element<std::remove_const_t<Gate>>
cudaError_t launch_gated_residual(std::type_identity_t<Matrix<const T>> x, Matrix<Gate> gate, std::size_t rows_per_item,
                                  std::type_identity_t<Matrix<const T>> residual, Matrix<T> y,
                                  cudaStream_t stream) noexcept {
  if (rows_per_item == 0) return cudaErrorInvalidValue;
  const detail::AddGated<std::remove_const_t<Gate>, T> body{x, gate, rows_per_item, residual, y};
  return vectorizable(x, gate, residual, y)
             ? detail::launch_elementwise<vector_width<T>>(y.rows, y.columns, body, stream)
             : detail::launch_elementwise<1>(y.rows, y.columns, body, stream);
}

/// y = the sum of coefficients[i] * inputs[i], from left to right, every operation rounded to float32; y may be an
/// input.
///
/// @param coefficients [count], on the device
template <Element T, std::size_t count>
cudaError_t launch_linear_combination(const std::array<Matrix<const T>, count>& inputs, const float* coefficients,
                                      Matrix<T> y, cudaStream_t stream) noexcept {
  detail::LinearCombination<T, count> body{{}, coefficients, y};
  std::copy(inputs.begin(), inputs.end(), body.inputs);
  return detail::launch_elementwise<1>(y.rows, y.columns, body, stream);
}

/// y = y + factor[0] * x, the product rounded to T first; see ops/elementwise.hpp.
///
/// @param factor one number on the device
template <Element T>
cudaError_t launch_add_scaled(std::type_identity_t<Matrix<const T>> x, const float* factor, Matrix<T> y,
                              cudaStream_t stream) noexcept {
  return detail::launch_elementwise<1>(y.rows, y.columns, detail::AddScaled<T>{x, factor, y}, stream);
}

/// y = unconditional + scale * (conditional - unconditional), each operation rounded to T; y may be an operand.
template <Element T>
cudaError_t launch_guide(std::type_identity_t<Matrix<const T>> conditional,
                         std::type_identity_t<Matrix<const T>> unconditional, float scale, Matrix<T> y,
                         cudaStream_t stream) noexcept {
  return detail::launch_elementwise<1>(y.rows, y.columns, detail::Guide<T>{conditional, unconditional, scale, y},
                                       stream);
}

/// bias[head * tokens + query, key] = table[buckets[key - query + tokens - 1], head]; see ops/attention.hpp.
///
/// @param table [rows, heads], `buckets` [2 * tokens - 1], `bias` [heads * tokens, tokens], on the device
inline cudaError_t launch_relative_bias(const float* table, std::size_t heads, const std::int32_t* buckets,
                                        Matrix<float> bias, cudaStream_t stream) noexcept {
  return detail::launch_elementwise<1>(bias.rows, bias.columns, detail::RelativeBias{table, heads, buckets, bias},
                                       stream);
}

/// Each pixel of x [n, h, w, c] four times in y [n, 2h, 2w, c]. y must not overlap x.
template <Element T>
cudaError_t launch_upsample_nearest(std::type_identity_t<Image<const T>> x, Image<T> y, cudaStream_t stream) noexcept {
  const detail::Upsample<T> body{x, y};
  const std::size_t rows = y.batch * y.height;
  const std::size_t columns = y.width * y.channels;
  return vectorizable(x.pixels(), y.pixels()) ? detail::launch_elementwise<vector_width<T>>(rows, columns, body, stream)
                                              : detail::launch_elementwise<1>(rows, columns, body, stream);
}

/// Cosines, then sines, of each timestep's frequencies; see ops/elementwise.hpp.
///
/// @param timesteps [y.rows], on the device
template <Element T>
cudaError_t launch_timestep_embedding(const float* timesteps, Matrix<T> y, cudaStream_t stream) noexcept {
  if (y.columns % 2 != 0) return cudaErrorInvalidValue;
  return detail::launch_elementwise<1>(y.rows, y.columns / 2, detail::TimestepEmbedding<T>{timesteps, y}, stream);
}

}  // namespace ebb::cuda
