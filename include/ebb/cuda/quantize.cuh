#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/blockwise.cuh"
#include "ebb/format/fp8.hpp"
#include "ebb/format/int8.hpp"

namespace ebb::cuda {

/// Index that means that all values were finite.
inline constexpr unsigned long long all_finite = ~0ull;

namespace detail {

template <class Format>
__device__ inline float prepared(float value) {
  if constexpr (PreparingFormat<Format>)
    return Format::prepare(value);
  else
    return value;
}

/// Largest magnitude in a warp, as bits: they order like magnitudes, with infinity and NaN on top.
__device__ inline unsigned warp_largest(unsigned bits) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) bits = max(bits, __shfl_xor_sync(~0u, bits, distance));
  return bits;
}

__device__ inline unsigned magnitude_bits(float value) { return __float_as_uint(value) & 0x7fffffffu; }

inline constexpr int quantize_threads = 256;

/// One warp a block of values: a pass for the largest magnitude, a pass that encodes and packs.
template <class Format, class T>
__global__ void __launch_bounds__(quantize_threads)
    quantize_blockwise_kernel(const T* __restrict__ values, std::size_t elements, unsigned block_shift,
                              std::uint8_t* __restrict__ codes, float* __restrict__ scales,
                              unsigned long long* __restrict__ first_not_finite) {
  const unsigned lane = threadIdx.x % 32;
  const std::size_t block_size = std::size_t{1} << block_shift;
  const std::size_t blocks = (elements + block_size - 1) >> block_shift;
  const std::size_t warps = static_cast<std::size_t>(gridDim.x) * (quantize_threads / 32);
  for (std::size_t block = blockIdx.x * (quantize_threads / 32) + threadIdx.x / 32; block < blocks; block += warps) {
    const std::size_t begin = block << block_shift;
    const std::size_t end = min(begin + block_size, elements);
    unsigned largest = 0;
    for (std::size_t at = begin + lane; at < end; at += 32) {
      const unsigned bits = magnitude_bits(static_cast<float>(values[at]));
      if (bits >= 0x7f800000u) atomicMin(first_not_finite, static_cast<unsigned long long>(at));
      largest = max(largest, bits);
    }
    const float absmax = __uint_as_float(warp_largest(largest));
    if (lane == 0) scales[block] = Format::scale_of(absmax);
    const float inverse = Format::inverse_of(absmax);
    for (std::size_t at = begin + 2 * lane; at < end; at += 64) {
      const unsigned high = Format::encode(static_cast<float>(values[at]), inverse);
      const unsigned low = Format::encode(at + 1 < end ? static_cast<float>(values[at + 1]) : 0.0f, inverse);
      codes[at / 2] = static_cast<std::uint8_t>(high << 4 | low);
    }
  }
}

/// One thread block a row.
template <class Format, class T>
__global__ void __launch_bounds__(quantize_threads)
    quantize_rowwise_kernel(const T* __restrict__ values, std::size_t columns, typename Format::Code* __restrict__ codes,
                            float* __restrict__ scales, unsigned long long* __restrict__ first_not_finite) {
  __shared__ unsigned warp_bits[quantize_threads / 32];
  const std::size_t first = blockIdx.x * columns;
  unsigned largest = 0;
  for (std::size_t column = threadIdx.x; column < columns; column += quantize_threads) {
    const unsigned bits = magnitude_bits(prepared<Format>(static_cast<float>(values[first + column])));
    if (bits >= 0x7f800000u) atomicMin(first_not_finite, static_cast<unsigned long long>(first + column));
    largest = max(largest, bits);
  }
  largest = warp_largest(largest);
  if (threadIdx.x % 32 == 0) warp_bits[threadIdx.x / 32] = largest;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < quantize_threads / 32; ++warp) largest = max(largest, warp_bits[warp]);
  const float absmax = __uint_as_float(largest);
  if (threadIdx.x == 0) scales[blockIdx.x] = Format::scale_of(absmax);
  const float inverse = Format::inverse_of(absmax);
  for (std::size_t column = threadIdx.x; column < columns; column += quantize_threads)
    codes[first + column] = Format::encode(prepared<Format>(static_cast<float>(values[first + column])), inverse);
}

}  // namespace detail

/// Quantizes to 4 bits: byte-equal codes and scales to `ebb::quantize` on the host. Enqueued on `stream`.
///
/// @param values [elements] on the device
/// @param codes  [(elements + 1) / 2], `scales` [ceil(elements / 2^block_shift)], on the device
/// @param first_not_finite device memory that the caller set to `all_finite`; receives the smallest index of a NaN
///        or infinity, in which case the codes are worthless
template <BlockFormat Format, Element T>
cudaError_t launch_quantize(const T* values, std::size_t elements, unsigned block_shift, std::uint8_t* codes,
                            float* scales, unsigned long long* first_not_finite, cudaStream_t stream) noexcept {
  if (elements == 0) return cudaSuccess;
  const std::size_t blocks = ((elements - 1) >> block_shift) + 1;
  constexpr std::size_t per_thread_block = detail::quantize_threads / 32;
  const std::size_t wanted = (blocks + per_thread_block - 1) / per_thread_block;
  const auto grid = static_cast<unsigned>(wanted < (1u << 16) ? wanted : (1u << 16));
  detail::quantize_blockwise_kernel<Format, T>
      <<<grid, detail::quantize_threads, 0, stream>>>(values, elements, block_shift, codes, scales, first_not_finite);
  return cudaGetLastError();
}

/// Quantizes row by row (INT8, FP8): byte-equal to the host. Arguments as above, `values` [rows, columns].
template <ScaledFormat Format, Element T>
  requires(!BlockFormat<Format>)
cudaError_t launch_quantize(const T* values, std::size_t rows, std::size_t columns, typename Format::Code* codes,
                            float* scales, unsigned long long* first_not_finite, cudaStream_t stream) noexcept {
  if (rows == 0 || columns == 0) return cudaSuccess;
  detail::quantize_rowwise_kernel<Format, T><<<static_cast<unsigned>(rows), detail::quantize_threads, 0, stream>>>(
      values, columns, codes, scales, first_not_finite);
  return cudaGetLastError();
}

}  // namespace ebb::cuda
