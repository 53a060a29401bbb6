#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"

namespace ebb::cuda {

namespace detail {

inline constexpr int softmax_threads = 256;
inline constexpr std::size_t softmax_warp_columns = 1024;  // rows up to here are a warp's, longer ones a thread block's

/// `combine` of what `lanes` threads bring, for each of them, in an order that is always the same.
template <int lanes, class Combine>
__device__ inline float combine_lanes(float value, float (&warp_values)[softmax_threads / 32], Combine combine) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value = combine(value, __shfl_xor_sync(~0u, value, distance));
  if constexpr (lanes > 32) {
    __syncthreads();  // readers of the values before these are done
    if (threadIdx.x % 32 == 0) warp_values[threadIdx.x / 32] = value;
    __syncthreads();
    value = warp_values[0];
#pragma unroll
    for (int warp = 1; warp < softmax_threads / 32; ++warp) value = combine(value, warp_values[warp]);
  }
  return value;
}

/// `lanes`, a warp or the whole thread block, share a row. A thread reads and writes columns of its own, so that y may
/// be x.
template <int lanes, class T>
__global__ void __launch_bounds__(softmax_threads) softmax_kernel(Matrix<const T> x, float scale, Matrix<T> y) {
  static_assert(lanes == 32 || lanes == softmax_threads);
  __shared__ float warp_values[softmax_threads / 32];
  const std::size_t row = std::size_t{blockIdx.x} * (softmax_threads / lanes) + threadIdx.x / lanes;
  if (row >= x.rows) return;  // whole warps, and never one of a thread block that shares a row
  const T* in = x.row(row);
  T* out = y.row(row);
  const std::size_t first = threadIdx.x % lanes;
  // Rounded before anything is subtracted: a fused product would leave the largest above zero.
  const auto scaled = [&](std::size_t column) { return __fmul_rn(static_cast<float>(in[column]), scale); };
  float largest = -INFINITY;
  for (std::size_t column = first; column < x.columns; column += lanes) largest = fmaxf(largest, scaled(column));
  largest = combine_lanes<lanes>(largest, warp_values, [](float a, float b) { return fmaxf(a, b); });
  float sum = 0.0f;
  for (std::size_t column = first; column < x.columns; column += lanes) sum += expf(scaled(column) - largest);
  sum = combine_lanes<lanes>(sum, warp_values, [](float a, float b) { return a + b; });
  for (std::size_t column = first; column < x.columns; column += lanes)
    out[column] = static_cast<T>(expf(scaled(column) - largest) / sum);
}

}  // namespace detail

/// y = exp(x * scale) over its sum in each row, in float32, rounded once; see ops/softmax.hpp. y may be x. Enqueued on
/// `stream`; allocates nothing. Repeated launches give the same bits.
///
/// @return cudaErrorInvalidValue for 2^31 rows and more, or where the extents differ
template <Element T>
cudaError_t launch_softmax(std::type_identity_t<Matrix<const T>> x, float scale, Matrix<T> y,
                           cudaStream_t stream) noexcept {
  if (x.rows != y.rows || x.columns != y.columns || x.rows >= (std::size_t{1} << 31)) return cudaErrorInvalidValue;
  if (x.size() == 0) return cudaSuccess;
  constexpr std::size_t rows_per_block = detail::softmax_threads / 32;
  if (x.columns <= detail::softmax_warp_columns)
    detail::softmax_kernel<32>
        <<<static_cast<unsigned>((x.rows + rows_per_block - 1) / rows_per_block), detail::softmax_threads, 0, stream>>>(
            x, scale, y);
  else
    detail::softmax_kernel<detail::softmax_threads>
        <<<static_cast<unsigned>(x.rows), detail::softmax_threads, 0, stream>>>(x, scale, y);
  return cudaGetLastError();
}

}  // namespace ebb::cuda
