#pragma once
// Every launcher enqueues on `stream`, allocates nothing, can be captured, and returns what its launch says. Matrices
// lie on the device; rows may be strided, and aligned 16-byte vectors run fastest. Extents that must fit each other are
// the caller's to check, as the operations of ops.cuh do. Rows beyond any grid, and extents that
// `launch_rms_norm_rope` cannot match, are cudaErrorInvalidValue.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/cuda/architecture.cuh"
#include "ebb/cuda/vector.cuh"
#include "ebb/epilogue/epilogue.hpp"

namespace ebb::cuda {

namespace detail {

inline constexpr int norm_threads = 256;
inline constexpr int norm_kept = 4;  // vectors of a row that a thread keeps in registers between passes

/// Sum over the thread block, in a fixed order, for every thread.
__device__ inline float block_sum(float value, float (&warp_sums)[norm_threads / 32]) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
  __syncthreads();  // readers of the previous sum are done
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < norm_threads / 32; ++warp) sum += warp_sums[warp];
  return sum;
}

struct Affine {  // normed * gamma + beta
  const float* gamma;
  const float* beta;
  template <int width>
  __device__ void operator()(float (&values)[width], std::size_t, std::size_t column) const {
    float factors[width], offsets[width];
    load_floats(factors, gamma + column);
    load_floats(offsets, beta + column);
#pragma unroll
    for (int i = 0; i < width; ++i) values[i] = values[i] * factors[i] + offsets[i];
  }
};

template <class Stage>
struct Scaled {  // stage(normed * gamma)
  const float* gamma;
  Stage stage;
  template <int width>
  __device__ void operator()(float (&values)[width], std::size_t row, std::size_t column) const {
    float factors[width];
    load_floats(factors, gamma + column);
#pragma unroll
    for (int i = 0; i < width; ++i) values[i] = stage(values[i] * factors[i], row, column + i);
  }
};

template <class T>
struct Modulated {  // normed * (1 + scale) + shift
  Matrix<const T> shift;
  Matrix<const T> scale;
  std::size_t rows_per_item;
  template <int width>
  __device__ void operator()(float (&values)[width], std::size_t row, std::size_t column) const {
    float factors[width], offsets[width];
    load_floats(factors, scale.row(row / rows_per_item) + column);
    load_floats(offsets, shift.row(row / rows_per_item) + column);
#pragma unroll
    for (int i = 0; i < width; ++i) values[i] = values[i] * (1.0f + factors[i]) + offsets[i];
  }
};

template <class T>
struct ScaledRotated {  // normed * gamma, rounded, then pairs of columns turned by their head's angles
  const float* gamma;
  Matrix<const float> cosines;
  Matrix<const float> sines;
  template <int width>
  __device__ void operator()(float (&values)[width], std::size_t row, std::size_t column) const {
    static_assert(width % 2 == 0);
    constexpr int step = width % 4 == 0 ? 4 : 2;  // few of the tables' values in registers at a time
    // 32 bits: a division of 64 takes registers that there are not.
    const auto token = static_cast<unsigned>(row) % static_cast<unsigned>(cosines.rows);
    const auto in_head = static_cast<unsigned>(column) % static_cast<unsigned>(cosines.columns);
    const float* cosine = cosines.row(token) + in_head;
    const float* sine = sines.row(token) + in_head;
#pragma unroll
    for (int first = 0; first < width; first += step) {
      float factors[step], c[step], s[step];
      load_floats(factors, gamma + column + first);
      load_floats(c, cosine + first);
      load_floats(s, sine + first);
#pragma unroll
      for (int i = 0; i < step; i += 2) {
        const float even = static_cast<float>(static_cast<T>(values[first + i] * factors[i]));
        const float odd = static_cast<float>(static_cast<T>(values[first + i + 1] * factors[i + 1]));
        values[first + i] = even * c[i] - odd * s[i];
        values[first + i + 1] = odd * c[i + 1] + even * s[i + 1];
      }
    }
  }
};

/// One thread block a row. A row of up to 256 * 4 vectors is read once; of a longer one the rest is read again.
template <int width, bool centered, class T, class Finish>
__global__ void __launch_bounds__(norm_threads, compiled_capability >= 120 ? 3 : 4)
    row_norm_kernel(Matrix<const T> x, float epsilon, Finish finish, Matrix<T> y) {
  __shared__ float warp_sums[norm_threads / 32];
  const std::size_t row = blockIdx.x;
  const T* in = x.row(row);
  T* out = y.row(row);
  constexpr std::size_t stride = std::size_t{norm_threads} * width;
  const std::size_t first = threadIdx.x * std::size_t{width};
  const std::size_t first_left = first + norm_kept * stride;
  float kept[norm_kept][width];
#pragma unroll
  for (int k = 0; k < norm_kept; ++k)
    if (first + k * stride < x.columns) load_floats(kept[k], in + first + k * stride);
  const auto for_each = [&](auto use) {
#pragma unroll
    for (int k = 0; k < norm_kept; ++k)
      if (first + k * stride < x.columns) use(kept[k], first + k * stride);
    for (std::size_t column = first_left; column < x.columns; column += stride) {
      float values[width];
      load_floats(values, in + column);
      use(values, column);
    }
  };
  const auto columns = static_cast<float>(x.columns);
  float mean = 0.0f;
  if constexpr (centered) {
    float sum = 0.0f;
    for_each([&](float(&values)[width], std::size_t) {
#pragma unroll
      for (int i = 0; i < width; ++i) sum += values[i];
    });
    mean = block_sum(sum, warp_sums) / columns;
  }
  float squares = 0.0f;
  for_each([&](float(&values)[width], std::size_t) {
#pragma unroll
    for (int i = 0; i < width; ++i) squares += (values[i] - mean) * (values[i] - mean);
  });
  const float inverse = 1.0f / sqrtf(block_sum(squares, warp_sums) / columns + epsilon);
  for_each([&](float(&values)[width], std::size_t column) {
    float result[width];
#pragma unroll
    for (int i = 0; i < width; ++i) result[i] = (values[i] - mean) * inverse;
    finish(result, row, column);
    store_floats(out + column, result);
  });
}

/// Several rows a thread block: `lanes` threads share one, which they keep in registers. For rows of up to
/// 32 * 4 vectors, of which a thread block each would leave most threads idle.
template <int width, bool centered, class T, class Finish>
__global__ void __launch_bounds__(norm_threads, compiled_capability >= 120 ? 3 : 4)
    narrow_row_norm_kernel(Matrix<const T> x, float epsilon, Finish finish, Matrix<T> y, int lanes) {
  const std::size_t row = std::size_t{blockIdx.x} * static_cast<unsigned>(norm_threads / lanes) +
                          threadIdx.x / static_cast<unsigned>(lanes);
  const bool there = row < x.rows;  // threads without a row take part in the sums
  const std::size_t stride = static_cast<std::size_t>(lanes) * width;
  const std::size_t first = threadIdx.x % static_cast<unsigned>(lanes) * std::size_t{width};
  float kept[norm_kept][width];
  const auto for_each = [&](auto use) {
#pragma unroll
    for (int k = 0; k < norm_kept; ++k)
      if (there && first + k * stride < x.columns) use(kept[k], first + k * stride);
  };
  const auto row_sum = [&](float value) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
    return value;
  };
  for_each([&](float(&values)[width], std::size_t column) { load_floats(values, x.row(row) + column); });
  const auto columns = static_cast<float>(x.columns);
  float mean = 0.0f;
  if constexpr (centered) {
    float sum = 0.0f;
    for_each([&](float(&values)[width], std::size_t) {
#pragma unroll
      for (int i = 0; i < width; ++i) sum += values[i];
    });
    mean = row_sum(sum) / columns;
  }
  float squares = 0.0f;
  for_each([&](float(&values)[width], std::size_t) {
#pragma unroll
    for (int i = 0; i < width; ++i) squares += (values[i] - mean) * (values[i] - mean);
  });
  const float inverse = 1.0f / sqrtf(row_sum(squares) / columns + epsilon);
  for_each([&](float(&values)[width], std::size_t column) {
#pragma unroll
    for (int i = 0; i < width; ++i) values[i] = (values[i] - mean) * inverse;
    finish(values, row, column);
    store_floats(y.row(row) + column, values);
  });
}

template <int width, bool centered, class T, class Finish>
void launch_row_norm_kernel(Matrix<const T> x, float epsilon, const Finish& finish, Matrix<T> y, cudaStream_t stream) {
  const std::size_t vectors = (x.columns + width - 1) / width;
  if (vectors > 32 * norm_kept) {
    row_norm_kernel<width, centered><<<static_cast<unsigned>(x.rows), norm_threads, 0, stream>>>(x, epsilon, finish, y);
    return;
  }
  // The fewest threads that can hold a row in registers: each then has several loads in flight, and few have none.
  int lanes = 1;
  while (lanes < 32 && static_cast<std::size_t>(lanes * norm_kept) < vectors) lanes *= 2;
  const std::size_t rows_per_block = static_cast<std::size_t>(norm_threads / lanes);
  narrow_row_norm_kernel<width, centered>
      <<<static_cast<unsigned>((x.rows + rows_per_block - 1) / rows_per_block), norm_threads, 0, stream>>>(
          x, epsilon, finish, y, lanes);
}

template <bool centered, class T, class Finish>
cudaError_t launch_row_norm(Matrix<const T> x, float epsilon, const Finish& finish, Matrix<T> y, bool vectors,
                            cudaStream_t stream) noexcept {
  if (x.rows == 0 || x.columns == 0) return cudaSuccess;
  if (x.rows >= (std::size_t{1} << 31)) return cudaErrorInvalidValue;
  if (vectors)
    launch_row_norm_kernel<vector_width<T>, centered>(x, epsilon, finish, y, stream);
  else
    launch_row_norm_kernel<1, centered>(x, epsilon, finish, y, stream);
  return cudaGetLastError();
}

inline bool aligned_to_16(const float* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; }

/// One thread block a token. `lanes` threads share a head, each with `width` neighbouring columns at a time, which lie
/// in aligned vectors or are accessed one by one.
template <int width, bool vectors, class T>
__global__ void __launch_bounds__(norm_threads)
    rms_norm_rope_kernel(Matrix<T> x, const float* __restrict__ gamma, float epsilon, Matrix<const float> cosines,
                         Matrix<const float> sines, int heads, int head_dim, int lanes) {
  const std::size_t row = blockIdx.x;
  const float* cosine = cosines.row(row % cosines.rows);
  const float* sine = sines.row(row % cosines.rows);
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const auto load = [](float(&to)[width], const auto* from) {
    if constexpr (vectors) {
      load_floats(to, from);
    } else {
#pragma unroll
      for (int i = 0; i < width; ++i) to[i] = static_cast<float>(from[i]);
    }
  };
  for (int first = 0; first < heads; first += norm_threads / lanes) {
    const int head = first + static_cast<int>(threadIdx.x) / lanes;
    T* values = x.row(row) + static_cast<std::size_t>(min(head, heads - 1)) * static_cast<std::size_t>(head_dim);
    float squares = 0.0f;
    for (int column = lane * width; column < head_dim; column += lanes * width) {
      float part[width];
      load(part, values + column);
#pragma unroll
      for (int i = 0; i < width; ++i) squares += part[i] * part[i];
    }
    for (int distance = lanes / 2; distance > 0; distance /= 2) squares += __shfl_xor_sync(~0u, squares, distance);
    const float inverse = 1.0f / sqrtf(squares / static_cast<float>(head_dim) + epsilon);
    if (head >= heads) continue;
    for (int column = lane * width; column < head_dim; column += lanes * width) {
      float part[width], factors[width], c[width], s[width];
      load(part, values + column);
      load(factors, gamma + column);
      load(c, cosine + column);
      load(s, sine + column);
#pragma unroll
      for (int i = 0; i < width; i += 2) {
        // Rounded before the rotation: the norm is an operation of its own in the reference.
        const float even = static_cast<float>(static_cast<T>(part[i] * inverse * factors[i]));
        const float odd = static_cast<float>(static_cast<T>(part[i + 1] * inverse * factors[i + 1]));
        part[i] = even * c[i] - odd * s[i];
        part[i + 1] = odd * c[i + 1] + even * s[i + 1];
      }
      if constexpr (vectors) {
        store_floats(values + column, part);
      } else {
#pragma unroll
        for (int i = 0; i < width; ++i) values[column + i] = static_cast<T>(part[i]);
      }
    }
  }
}

}  // namespace detail

/// (x - mean) / sqrt(variance + epsilon) * gamma + beta over each row, biased variance; see ops/norm.hpp. y may be x.
///
/// @param gamma [columns], `beta` [columns], on the device
template <Element T>
cudaError_t launch_layer_norm(std::type_identity_t<Matrix<const T>> x, const float* gamma, const float* beta,
                              float epsilon, Matrix<T> y, cudaStream_t stream) noexcept {
  const bool vectors = vectorizable(x, y) && detail::aligned_to_16(gamma) && detail::aligned_to_16(beta);
  return detail::launch_row_norm<true>(x, epsilon, detail::Affine{gamma, beta}, y, vectors, stream);
}

/// (x - mean) / sqrt(variance + epsilon) * (1 + scale) + shift; y may be x.
///
/// @param shift [items, columns], `scale` [items, columns], of T or float32; `rows_per_item` consecutive rows use one
/// row
template <Element T, class Modulation>
  requires Element<std::remove_const_t<Modulation>>
cudaError_t launch_layer_norm_modulate(std::type_identity_t<Matrix<const T>> x, Matrix<Modulation> shift,
                                       Matrix<Modulation> scale, std::size_t rows_per_item, float epsilon, Matrix<T> y,
                                       cudaStream_t stream) noexcept {
  if (rows_per_item == 0) return cudaErrorInvalidValue;
  return detail::launch_row_norm<true>(x, epsilon,
                                       detail::Modulated<std::remove_const_t<Modulation>>{shift, scale, rows_per_item},
                                       y, vectorizable(x, y, shift, scale), stream);
}

/// stage(x / sqrt(mean(x^2) + epsilon) * gamma) over each row; y may be x.
template <Element T, Epilogue Stage>
cudaError_t launch_rms_norm(std::type_identity_t<Matrix<const T>> x, const float* gamma, float epsilon,
                            const Stage& stage, Matrix<T> y, cudaStream_t stream) noexcept {
  const bool vectors = vectorizable(x, y) && detail::aligned_to_16(gamma);
  return detail::launch_row_norm<false>(x, epsilon, detail::Scaled<Stage>{gamma, stage}, y, vectors, stream);
}

/// RMS norm of each head, or of all together, and rotation of pairs (2i, 2i + 1), in place; see ops/norm.hpp.
///
/// @param x       [batch * tokens, heads * head_dim], head_dim even; pairs are aligned to twice an element's size
/// @param gamma   [gamma_columns] on the device: head_dim of them, or as many as x has columns
/// @param cosines [tokens, head_dim], `sines` likewise; row r of x uses row r % tokens
template <Element T>
cudaError_t launch_rms_norm_rope(Matrix<T> x, const float* gamma, std::size_t gamma_columns, float epsilon,
                                 Matrix<const float> cosines, Matrix<const float> sines, cudaStream_t stream) noexcept {
  if (x.rows == 0 || x.columns == 0) return cudaSuccess;
  const std::size_t head_dim = cosines.columns;
  if (head_dim == 0 || head_dim % 2 != 0 || x.columns % head_dim != 0 ||
      (gamma_columns != head_dim && gamma_columns != x.columns) || cosines.rows == 0 ||
      x.rows >= (std::size_t{1} << 31) || cosines.rows >= (std::size_t{1} << 31) || x.columns >= (std::size_t{1} << 30))
    return cudaErrorInvalidValue;
  const auto rows = static_cast<unsigned>(x.rows);
  const std::size_t heads = x.columns / head_dim;
  const bool aligned = vectorizable(x, cosines, sines) && detail::aligned_to_16(gamma);
  if (gamma_columns != head_dim) {
    const detail::ScaledRotated<T> finish{gamma, cosines, sines};
    if (aligned && head_dim % vector_width<T> == 0)
      detail::row_norm_kernel<vector_width<T>, false>
          <<<rows, detail::norm_threads, 0, stream>>>(Matrix<const T>(x), epsilon, finish, x);
    else if (reinterpret_cast<std::uintptr_t>(x.data) % (2 * sizeof(T)) == 0 && x.stride % 2 == 0)
      detail::row_norm_kernel<2, false>
          <<<rows, detail::norm_threads, 0, stream>>>(Matrix<const T>(x), epsilon, finish, x);
    else
      return cudaErrorMisalignedAddress;
    return cudaGetLastError();
  }
  const auto dim = static_cast<int>(head_dim);
  const auto launch = [&]<int width, bool vectors>() {
    int lanes = 1;
    while (lanes < 32 && lanes * width < dim) lanes *= 2;
    detail::rms_norm_rope_kernel<width, vectors><<<rows, detail::norm_threads, 0, stream>>>(
        x, gamma, epsilon, cosines, sines, static_cast<int>(heads), dim, lanes);
  };
  constexpr int width = vector_width<T>;
  if (head_dim % width == 0 && aligned)
    launch.template operator()<width, true>();
  else
    launch.template operator()<2, false>();
  return cudaGetLastError();
}

}  // namespace ebb::cuda
