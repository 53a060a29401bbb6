#pragma once

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstddef>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/architecture.cuh"
#include "ebb/cuda/attention_arguments.hpp"

namespace ebb::cuda {

namespace detail {

inline constexpr int plain_rows = 32;  // queries of a thread block, keys of a tile, columns of a chunk
inline constexpr int plain_lanes = 8;  // threads that share a query
inline constexpr int plain_threads = plain_rows * plain_lanes;
inline constexpr int plain_per_lane = plain_rows / plain_lanes;

template <class T>
cudaError_t check_attention_extents(const AttentionArguments<T>& a) noexcept {
  constexpr std::size_t most_tokens = std::size_t{1} << 30;
  constexpr std::size_t most_blocks = 65535;
  const AttentionShape& shape = a.shape;
  if (shape.key_tokens == 0 || shape.key_tokens > most_tokens || shape.query_tokens > most_tokens ||
      shape.heads > most_blocks || shape.batch > most_blocks ||
      (a.mask == AttentionMask::causal && shape.query_tokens > shape.key_tokens))
    return cudaErrorInvalidValue;
  return cudaSuccess;
}

/// A [32, 32] piece of a matrix as floats, zeros outside.
template <class T>
__device__ inline void load_piece(float (&to)[plain_rows][plain_rows + 1], const T* from, std::size_t stride, int rows,
                                  int columns) {
  for (int i = static_cast<int>(threadIdx.x); i < plain_rows * plain_rows; i += plain_threads) {
    const int row = i / plain_rows;
    const int column = i % plain_rows;
    to[row][column] =
        row < rows && column < columns
            ? static_cast<float>(from[static_cast<std::size_t>(row) * stride + static_cast<std::size_t>(column)])
            : 0.0f;
  }
}

/// `chunks` * 32 is at least the head dimension.
template <int chunks, class T>
__global__ void __launch_bounds__(plain_threads, any_blocks) plain_attention_kernel(AttentionArguments<T> a) {
  __shared__ float left[plain_rows][plain_rows + 1];
  __shared__ float right[plain_rows][plain_rows + 1];
  __shared__ float weights[plain_rows][plain_rows + 1];
  const int row = static_cast<int>(threadIdx.x) / plain_lanes;
  const int lane = static_cast<int>(threadIdx.x) % plain_lanes;
  const int head_dim = static_cast<int>(a.shape.head_dim);
  const int query_tokens = static_cast<int>(a.shape.query_tokens);
  const int key_tokens = static_cast<int>(a.shape.key_tokens);
  const std::size_t column = blockIdx.y * a.shape.head_dim;
  const int first_query = static_cast<int>(blockIdx.x) * plain_rows;
  const int index = first_query + row;
  const bool causal = a.mask == AttentionMask::causal;
  const int ahead = key_tokens - query_tokens;
  const int seen = causal ? min(key_tokens, first_query + plain_rows + ahead) : key_tokens;
  const T* query =
      a.query + (blockIdx.z * a.shape.query_tokens + static_cast<std::size_t>(first_query)) * a.query_stride + column;
  float output[chunks * plain_per_lane] = {};
  float largest = -INFINITY;
  float sum = 0.0f;
#pragma unroll 1
  for (int first_key = 0; first_key < seen; first_key += plain_rows) {
    const std::size_t token = blockIdx.z * a.shape.key_tokens + static_cast<std::size_t>(first_key);
    float scores[plain_per_lane] = {};
#pragma unroll 1
    for (int begin = 0; begin < head_dim; begin += plain_rows) {
      __syncthreads();
      load_piece(left, query + begin, a.query_stride, query_tokens - first_query, head_dim - begin);
      load_piece(right, a.key + token * a.key_stride + column + begin, a.key_stride, key_tokens - first_key,
                 head_dim - begin);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < plain_rows; ++i)
#pragma unroll
        for (int j = 0; j < plain_per_lane; ++j) scores[j] += left[row][i] * right[lane + j * plain_lanes][i];
    }
    float top = largest;
#pragma unroll
    for (int j = 0; j < plain_per_lane; ++j) {
      const int at = first_key + lane + j * plain_lanes;
      scores[j] *= a.scale;
      if (at >= key_tokens || (causal && at > index + ahead))
        scores[j] = -INFINITY;
      else if (a.bias != nullptr && index < query_tokens)
        scores[j] +=
            __ldg(a.bias + (blockIdx.y * a.shape.query_tokens + static_cast<std::size_t>(index)) * a.shape.key_tokens +
                  static_cast<std::size_t>(at));
      top = fmaxf(top, scores[j]);
    }
#pragma unroll
    for (int distance = 1; distance < plain_lanes; distance *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, distance));
    const float base = top == -INFINITY ? 0.0f : top;
    const float factor = expf(largest - base);
    largest = top;
    sum *= factor;
#pragma unroll
    for (int j = 0; j < plain_per_lane; ++j) {
      const float weight = expf(scores[j] - base);
      sum += weight;
      weights[row][lane + j * plain_lanes] = weight;
    }
#pragma unroll
    for (int chunk = 0; chunk < chunks; ++chunk) {
      __syncthreads();
      const int begin = chunk * plain_rows;
      if (begin >= head_dim) continue;
      load_piece(right, a.value + token * a.value_stride + column + begin, a.value_stride, key_tokens - first_key,
                 head_dim - begin);
      __syncthreads();
#pragma unroll
      for (int j = 0; j < plain_per_lane; ++j) output[chunk * plain_per_lane + j] *= factor;
#pragma unroll 8
      for (int i = 0; i < plain_rows; ++i)
#pragma unroll
        for (int j = 0; j < plain_per_lane; ++j)
          output[chunk * plain_per_lane + j] += weights[row][i] * right[i][lane + j * plain_lanes];
    }
  }
#pragma unroll
  for (int distance = 1; distance < plain_lanes; distance *= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  if (index >= query_tokens) return;
  T* out = a.output + (blockIdx.z * a.shape.query_tokens + static_cast<std::size_t>(index)) * a.output_stride + column;
#pragma unroll
  for (int i = 0; i < chunks * plain_per_lane; ++i) {
    const int at = i / plain_per_lane * plain_rows + lane + i % plain_per_lane * plain_lanes;
    if (at < head_dim) out[at] = static_cast<T>(output[i] / sum);
  }
}

}  // namespace detail

/// Attention in float32 arithmetic throughout, for any T, head dimension up to 512, masks and bias: the one to compare
/// others with, and the only one for float. Uses no tensor cores.
///
/// @return cudaErrorNotSupported for a larger head dimension, cudaErrorInvalidValue for extents that no grid holds
template <Element T>
cudaError_t launch_plain_attention(const AttentionArguments<T>& a, cudaStream_t stream) noexcept {
  if (a.shape.batch * a.shape.heads * a.shape.query_tokens * a.shape.head_dim == 0) return cudaSuccess;
  if (const cudaError_t status = detail::check_attention_extents(a); status != cudaSuccess) return status;
  const dim3 grid(static_cast<unsigned>((a.shape.query_tokens + detail::plain_rows - 1) / detail::plain_rows),
                  static_cast<unsigned>(a.shape.heads), static_cast<unsigned>(a.shape.batch));
  if (a.shape.head_dim <= 128)
    detail::plain_attention_kernel<4><<<grid, detail::plain_threads, 0, stream>>>(a);
  else if (a.shape.head_dim <= 512)
    detail::plain_attention_kernel<16><<<grid, detail::plain_threads, 0, stream>>>(a);
  else
    return cudaErrorNotSupported;
  return cudaGetLastError();
}

}  // namespace ebb::cuda
