#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/blockwise.cuh"
#include "ebb/format/dynamic8.hpp"
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
    quantize_rowwise_kernel(const T* __restrict__ values, std::size_t columns,
                            typename Format::Code* __restrict__ codes, float* __restrict__ scales,
                            unsigned long long* __restrict__ first_not_finite) {
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

/// One thread block. The sum goes from the first to the last in double, as on the host: another order would round
/// otherwise. The threads only bring the numbers near to the one that adds.
template <class = void>  // a template, so that several translation units may have it
__global__ void __launch_bounds__(quantize_threads)
    mean_of_scales_kernel(const float* __restrict__ scales, std::size_t count, float* __restrict__ mean) {
  __shared__ float near[quantize_threads];
  double sum = 0.0;
  for (std::size_t begin = 0; begin < count; begin += quantize_threads) {
    if (begin + threadIdx.x < count) near[threadIdx.x] = scales[begin + threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
      const auto some = static_cast<unsigned>(min(count - begin, std::size_t{quantize_threads}));
      for (unsigned i = 0; i < some; ++i) sum += static_cast<double>(near[i]);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) *mean = count == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(count));
}

/// One thread block a nested block, one thread a scale.
template <class = void>
__global__ void __launch_bounds__(nested_block_size)
    quantize_scales_kernel(const float* __restrict__ scales, std::size_t count, const float* __restrict__ map,
                           const float* __restrict__ mean, std::uint8_t* __restrict__ codes,
                           float* __restrict__ nested_scales) {
  __shared__ unsigned warp_bits[nested_block_size / 32];
  const std::size_t at = blockIdx.x * nested_block_size + threadIdx.x;
  const float residual = at < count ? scales[at] - *mean : 0.0f;
  unsigned bits = warp_largest(magnitude_bits(residual));
  if (threadIdx.x % 32 == 0) warp_bits[threadIdx.x / 32] = bits;
  __syncthreads();
#pragma unroll
  for (unsigned warp = 0; warp < nested_block_size / 32; ++warp) bits = max(bits, warp_bits[warp]);
  const float largest = __uint_as_float(bits);
  if (threadIdx.x == 0) nested_scales[blockIdx.x] = largest;
  if (at >= count) return;
  codes[at] = largest == 0.0f ? std::uint8_t{0} : dynamic_code(residual * (1.0f / largest), map);
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
///
/// @return cudaErrorInvalidValue for 2^31 rows and more
template <ScaledFormat Format, Element T>
  requires(!BlockFormat<Format>)
cudaError_t launch_quantize(const T* values, std::size_t rows, std::size_t columns, typename Format::Code* codes,
                            float* scales, unsigned long long* first_not_finite, cudaStream_t stream) noexcept {
  if (rows == 0 || columns == 0) return cudaSuccess;
  if (rows >= (std::size_t{1} << 31)) return cudaErrorInvalidValue;
  detail::quantize_rowwise_kernel<Format, T><<<static_cast<unsigned>(rows), detail::quantize_threads, 0, stream>>>(
      values, columns, codes, scales, first_not_finite);
  return cudaGetLastError();
}

/// Double quantization, the second stage: what `launch_quantize` to 4 bits left as scales becomes 8-bit codes and
/// nested state, byte-equal to the host's. Enqueued on `stream`. For set-up: the mean is summed one by one.
///
/// @param scales [count] on the device; the four that follow are written, on the device as well
/// @param codes  [count]; `map` [256]: the values of the codes; `nested_scales` [ceil(count / 256)]; `mean` one number
/// @return cudaErrorInvalidValue for 2^39 scales and more
inline cudaError_t launch_quantize_scales(const float* scales, std::size_t count, std::uint8_t* codes, float* map,
                                          float* nested_scales, float* mean, cudaStream_t stream) noexcept {
  const std::size_t nested_blocks = (count + nested_block_size - 1) / nested_block_size;
  if (nested_blocks >= (std::size_t{1} << 31)) return cudaErrorInvalidValue;
  const cudaError_t status =
      cudaMemcpyAsync(map, dynamic_map.data(), sizeof(dynamic_map), cudaMemcpyHostToDevice, stream);
  if (status != cudaSuccess) return status;
  detail::mean_of_scales_kernel<><<<1, detail::quantize_threads, 0, stream>>>(scales, count, mean);
  if (count != 0)
    detail::quantize_scales_kernel<><<<static_cast<unsigned>(nested_blocks), nested_block_size, 0, stream>>>(
        scales, count, map, mean, codes, nested_scales);
  return cudaGetLastError();
}

}  // namespace ebb::cuda
