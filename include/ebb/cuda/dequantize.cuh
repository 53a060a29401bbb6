#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/blockwise.cuh"
#include "ebb/cuda/element.cuh"
#include "ebb/format/fp8.hpp"
#include "ebb/format/int8.hpp"

namespace ebb::cuda {

namespace detail {

/// The format's sixteen values, once for each lane, so that a look-up never meets a bank conflict: lane `l` reads
/// word `code * 32 + l`. The format owns the numbers; the unrolled fill turns them into immediates.
template <class Format>
struct LaneTable {
  float values[16 * 32];

  __device__ void fill() {
    fill_each(std::make_index_sequence<16>());
    __syncthreads();
  }
  __device__ float operator()(unsigned code, unsigned lane) const { return values[code * 32 + lane]; }

 private:
  template <std::size_t... code>
  __device__ void fill_each(std::index_sequence<code...>) {
    for (unsigned lane = threadIdx.x; lane < 32; lane += blockDim.x) (set<code>(lane), ...);
  }
  template <std::size_t code>
  __device__ void set(unsigned lane) {
    constexpr float value = Format::values[code];
    values[code * 32 + lane] = value;
  }
};

inline constexpr int dequantize_threads = 256;
inline constexpr int dequantize_run = 8;    // elements of one packed 32-bit load
inline constexpr int dequantize_loads = 4;  // loads in flight per thread

template <class Format, class T, DoubleQuantization nested>
__global__ void __launch_bounds__(dequantize_threads)
    dequantize_blockwise_kernel(BlockwiseTensor tensor, T* __restrict__ out) {
  __shared__ LaneTable<Format> table;
  table.fill();
  const unsigned lane = threadIdx.x % 32;
  constexpr std::size_t per_block = std::size_t{dequantize_threads} * dequantize_loads;
  const std::size_t runs = tensor.elements / dequantize_run;
  const auto* packed = reinterpret_cast<const std::uint32_t*>(tensor.codes);
  for (std::size_t base = blockIdx.x * per_block; base < runs; base += gridDim.x * per_block) {
    std::uint32_t word[dequantize_loads];
    float scale[dequantize_loads];
#pragma unroll
    for (int load = 0; load < dequantize_loads; ++load) {
      const std::size_t run = base + load * dequantize_threads + threadIdx.x;
      if (run >= runs) continue;
      word[load] = __ldcs(packed + run);
      scale[load] = block_scale<nested>(tensor, (run * dequantize_run) >> tensor.block_shift);
    }
#pragma unroll
    for (int load = 0; load < dequantize_loads; ++load) {
      const std::size_t run = base + load * dequantize_threads + threadIdx.x;
      if (run >= runs) continue;
      constexpr int width = 16 / sizeof(T);  // elements of one 16-byte store
#pragma unroll
      for (int part = 0; part < dequantize_run / width; ++part) {
        Pack<T, width> values;
#pragma unroll
        for (int i = 0; i < width; ++i) {
          const int element = part * width + i;
          const unsigned shift = static_cast<unsigned>(element / 2 * 8 + (element % 2 == 0 ? 4 : 0));
          values.values[i] = static_cast<T>(__fmul_rn(table((word[load] >> shift) & 15u, lane), scale[load]));
        }
        reinterpret_cast<Pack<T, width>*>(out)[run * (dequantize_run / width) + part] = values;
      }
    }
  }
  const std::size_t tail = runs * dequantize_run + threadIdx.x;
  if (blockIdx.x == 0 && tail < tensor.elements) {
    const unsigned byte = tensor.codes[tail / 2];
    const unsigned code = tail % 2 == 0 ? byte >> 4 : byte & 15u;
    out[tail] = static_cast<T>(__fmul_rn(table(code, lane), block_scale<nested>(tensor, tail >> tensor.block_shift)));
  }
}

/// One thread block a row; a thread takes `width` neighbours at a time.
template <class Format, int width, class T>
__global__ void __launch_bounds__(dequantize_threads)
    dequantize_rowwise_kernel(const typename Format::Code* __restrict__ codes, const float* __restrict__ scales,
                              std::size_t columns, T* __restrict__ out) {
  using Code = typename Format::Code;
  const std::size_t row = blockIdx.x;
  const float scale = scales[row];
  const auto* from = reinterpret_cast<const Pack<Code, width>*>(codes + row * columns);
  auto* to = reinterpret_cast<Pack<T, width>*>(out + row * columns);
  for (std::size_t at = threadIdx.x; at < columns / width; at += dequantize_threads) {
    const Pack<Code, width> pack = from[at];
    Pack<T, width> values;
#pragma unroll
    for (int i = 0; i < width; ++i) values.values[i] = static_cast<T>(Format::decode(pack.values[i], scale));
    to[at] = values;
  }
}

}  // namespace detail

/// Expands a 4-bit tensor: value(code) * scale in float32, rounded once to T; bit-equal to `ebb::dequantize` on the
/// host and to bitsandbytes. Enqueued on `stream`; allocates nothing.
///
/// @param tensor device pointers; `codes` aligned to 4 bytes
/// @param out    [elements] on the device, aligned to 16 bytes
/// @return cudaErrorInvalidValue for blocks of fewer than 8 elements
template <BlockFormat Format, Element T>
cudaError_t launch_dequantize(const BlockwiseTensor& tensor, T* out, cudaStream_t stream) noexcept {
  if (tensor.elements == 0) return cudaSuccess;
  if ((std::size_t{1} << tensor.block_shift) < detail::dequantize_run) return cudaErrorInvalidValue;
  constexpr std::size_t per_block =
      std::size_t{detail::dequantize_threads} * detail::dequantize_loads * detail::dequantize_run;
  constexpr std::size_t most_blocks = 1u << 20;
  const auto blocks = static_cast<unsigned>(std::min((tensor.elements + per_block - 1) / per_block, most_blocks));
  if (tensor.nested == DoubleQuantization::off)
    detail::dequantize_blockwise_kernel<Format, T, DoubleQuantization::off>
        <<<blocks, detail::dequantize_threads, 0, stream>>>(tensor, out);
  else
    detail::dequantize_blockwise_kernel<Format, T, DoubleQuantization::on>
        <<<blocks, detail::dequantize_threads, 0, stream>>>(tensor, out);
  return cudaGetLastError();
}

/// Expands a row-wise tensor (INT8, FP8): decode(code, scale of the row), rounded once to T; bit-equal to
/// `ebb::dequantize` on the host. Enqueued on `stream`; allocates nothing. Fastest where rows are whole vectors of 8
/// elements, and `codes` and `out` are aligned to those.
///
/// @param codes  [rows, columns], `scales` [rows], `out` [rows, columns], all on the device
/// @return cudaErrorInvalidValue for 2^31 rows and more
template <ScaledFormat Format, Element T>
  requires(!BlockFormat<Format>)
cudaError_t launch_dequantize(const typename Format::Code* codes, const float* scales, std::size_t rows,
                              std::size_t columns, T* out, cudaStream_t stream) noexcept {
  if (rows == 0 || columns == 0) return cudaSuccess;
  if (rows >= (std::size_t{1} << 31)) return cudaErrorInvalidValue;
  constexpr int width = 8;
  const bool vectors = columns % width == 0 && reinterpret_cast<std::uintptr_t>(codes) % width == 0 &&
                       reinterpret_cast<std::uintptr_t>(out) % (width * sizeof(T)) == 0;
  const auto kernel =
      vectors ? detail::dequantize_rowwise_kernel<Format, width, T> : detail::dequantize_rowwise_kernel<Format, 1, T>;
  kernel<<<static_cast<unsigned>(rows), detail::dequantize_threads, 0, stream>>>(codes, scales, columns, out);
  return cudaGetLastError();
}

}  // namespace ebb::cuda
