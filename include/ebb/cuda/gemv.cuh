#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/cuda/architecture.cuh"
#include "ebb/cuda/blockwise.cuh"
#include "ebb/cuda/dequantize.cuh"
#include "ebb/cuda/mma.cuh"
#include "ebb/epilogue/epilogue.hpp"

namespace ebb::cuda {

namespace detail {

inline constexpr int gemv_rows = 16;     // weight rows of a strip: one matrix product's rows
inline constexpr int gemv_block = 64;    // elements of a quantization block
inline constexpr int gemv_step = 128;    // columns of a step along K: two blocks
inline constexpr int gemv_prefetch = 2;  // steps whose loads are in flight
inline constexpr int gemv_warps = 8;
inline constexpr int gemv_threads = 32 * gemv_warps;
template <int token_tiles>
inline constexpr int gemv_blocks = token_tiles == 1 ? 3 : 2;  // thread blocks of a multiprocessor

/// The values of both codes of a byte as packed T, once for each lane so that look-ups meet no bank conflict: lane `l`
/// reads word `byte * 32 + l`.
template <class Format, class T>
struct PairTable {
  std::uint32_t words[256 * 32];

  /// Two barriers: the sixteen values first, then their pairs.
  __device__ void fill() {
    __shared__ float values[16];
    if (threadIdx.x == 0) fill_values(values, std::make_index_sequence<16>());
    __syncthreads();
    for (unsigned at = threadIdx.x; at < 256 * 8; at += blockDim.x) {
      const unsigned byte = at / 8;  // the high nibble is the first element
      const std::uint32_t pair = pack_pair<T>(values[byte >> 4], values[byte & 15u]);
      reinterpret_cast<uint4*>(words)[at] = make_uint4(pair, pair, pair, pair);
    }
    __syncthreads();
  }
  /// `lane_bytes` is 4 * lane. Byte `index` of `word`.
  template <int index>
  __device__ std::uint32_t at(std::uint32_t word, std::uint32_t lane_bytes) const {
    const std::uint32_t shifted = index == 0 ? word << 7 : word >> (8 * index - 7);
    return *reinterpret_cast<const std::uint32_t*>(reinterpret_cast<const char*>(words) +
                                                   ((shifted & 0x7f80u) | lane_bytes));
  }

 private:
  template <std::size_t... code>
  static __device__ void fill_values(float* values, std::index_sequence<code...>) {
    ((values[code] = constant<code>()), ...);
  }
  template <std::size_t code>
  static __device__ float constant() {
    constexpr float value = Format::values[code];
    return value;
  }
};

/// Scales of a row's two blocks in one step, as fetched; `block` is the first one's index, which is even.
template <DoubleQuantization nested>
struct GemvScales;
template <>
struct GemvScales<DoubleQuantization::off> {
  float2 scales;
  __device__ void fetch(const BlockwiseTensor& weight, std::size_t block) {
    scales = __ldg(reinterpret_cast<const float2*>(weight.scales + block));
  }
  template <int index>
  __device__ float value(const BlockwiseTensor&) const {
    return index == 0 ? scales.x : scales.y;
  }
};
template <>
struct GemvScales<DoubleQuantization::on> {
  unsigned codes;  // two bytes
  float factor;    // 256 blocks share one, so that both of an aligned pair do
  __device__ void fetch(const BlockwiseTensor& weight, std::size_t block) {
    codes = __ldg(reinterpret_cast<const std::uint16_t*>(weight.scale_codes + block));
    factor = __ldg(weight.nested_scales + block / nested_block_size);
  }
  template <int index>
  __device__ float value(const BlockwiseTensor& weight) const {
    const unsigned code = index == 0 ? codes & 255u : codes >> 8;
    return __fadd_rn(__fmul_rn(__ldg(weight.nested_map + code), factor), __ldg(weight.nested_mean));
  }
};

/// Codes of a row's two blocks, 16 bytes a lane, so that four lanes read 64 neighbouring bytes. Half of them changes
/// hands: a matrix product adds over the columns of all lanes, and one scale must hold for all of them. Afterwards a
/// lane has, of each block, the 16 columns from `gemv_column(lane)` on.
struct GemvCodes {
  uint2 blocks[2];
  __device__ GemvCodes(const uint4& fetched, unsigned lane) {
    const bool first = (lane & 2u) == 0;
    const std::uint32_t x = __shfl_xor_sync(~0u, first ? fetched.z : fetched.x, 2);
    const std::uint32_t y = __shfl_xor_sync(~0u, first ? fetched.w : fetched.y, 2);
    blocks[0] = first ? make_uint2(fetched.x, fetched.y) : make_uint2(x, y);
    blocks[1] = first ? make_uint2(x, y) : make_uint2(fetched.z, fetched.w);
  }
};
__device__ inline unsigned gemv_column(unsigned lane) { return (lane & 1u) * 32 + (lane & 2u) * 8; }

/// Each thread block takes strips of 16 weight rows; its warps take the strip's steps of 128 columns in turn and add up
/// through shared memory. Loads run `gemv_prefetch` steps ahead, across strips.
///
/// The layout of bitsandbytes serves as it is. A matrix product adds over columns in any order, so that a lane may own
/// 16 neighbouring ones of the weight and of the row-major x. All columns of a product lie in one quantization block:
/// the codes' values are multiplied unscaled, and the scale is applied in float32.
template <class Format, DoubleQuantization nested, int token_tiles, class T, class Stage>
__global__ void __launch_bounds__(gemv_threads, gemv_blocks<token_tiles>)
    gemv_kernel(Matrix<const T> x, BlockwiseTensor weight, Stage stage, Matrix<T> y) {
  constexpr int partials = 4 * token_tiles;  // of a lane
  __shared__ __align__(128) PairTable<Format, T> table;
  __shared__ float sums[gemv_warps][partials][32];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const unsigned lane = threadIdx.x % 32;
  const unsigned group = lane / 4;
  const int tokens = static_cast<int>(x.rows);
  const auto outputs = static_cast<unsigned>(y.columns);
  const auto row_steps = static_cast<unsigned>(x.columns / gemv_step);
  const auto strips = (outputs + gemv_rows - 1) / gemv_rows;
  // Every warp counts the same steps, so that all meet at the same barriers; a step beyond the row does nothing.
  const auto strip_steps = static_cast<int>((row_steps + gemv_warps - 1) / gemv_warps);
  const int steps = static_cast<int>((strips - blockIdx.x + gridDim.x - 1) / gridDim.x) * strip_steps;
  const auto within_row = [&](int step) { return static_cast<unsigned>(step * gemv_warps + warp) < row_steps; };

  // Where the next fetch reads; rows beyond the last read the last one's codes and are not stored.
  unsigned fetch_strip = blockIdx.x;
  int fetch_step = 0;
  unsigned at = 0;        // step index of the upper row, counted over the weight
  unsigned distance = 0;  // to that of the lower row
  const auto begin_strip = [&] {
    const unsigned upper = min(fetch_strip * gemv_rows + group, outputs - 1);
    const unsigned lower = min(fetch_strip * gemv_rows + group + 8, outputs - 1);
    at = upper * row_steps + static_cast<unsigned>(warp);
    distance = (lower - upper) * row_steps;
  };
  begin_strip();
  uint4 codes[gemv_prefetch][2];
  GemvScales<nested> scales[gemv_prefetch][2];
  const auto fetch = [&](int slot) {
    if (within_row(fetch_step)) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const std::size_t step = at + (row == 0 ? 0u : distance);
        codes[slot][row] = __ldcs(reinterpret_cast<const uint4*>(weight.codes) + step * 4 + lane % 4);
        scales[slot][row].fetch(weight, step * 2);
      }
    }
    at += gemv_warps;
    if (++fetch_step == strip_steps) {
      fetch_step = 0;
      fetch_strip += gridDim.x;
      begin_strip();
    }
  };
#pragma unroll
  for (int slot = 0; slot < gemv_prefetch; ++slot)
    if (slot < steps) fetch(slot);
  table.fill();

  const std::uint32_t lane_bytes = 4 * lane;
  float sum[token_tiles][4] = {};
  const auto multiply_block = [&]<int block>(const GemvCodes(&rows)[2], const GemvScales<nested>(&row_scales)[2],
                                             std::size_t column) {
    uint4 activations[token_tiles][2];
#pragma unroll
    for (int tile = 0; tile < token_tiles; ++tile) {
      const int token = static_cast<int>(group) + 8 * tile;
      const auto* from =
          reinterpret_cast<const uint4*>(x.row(static_cast<std::size_t>(token)) + column + block * gemv_block);
#pragma unroll
      for (int i = 0; i < 2; ++i) activations[tile][i] = token < tokens ? __ldg(from + i) : make_uint4(0, 0, 0, 0);
    }
    float product[token_tiles][2][4] = {};
    const auto multiply = [&]<int step>() {
      const auto word = [&](int row) { return step < 2 ? rows[row].blocks[block].x : rows[row].blocks[block].y; };
      const std::uint32_t a[4] = {table.template at<step % 2 * 2>(word(0), lane_bytes),
                                  table.template at<step % 2 * 2>(word(1), lane_bytes),
                                  table.template at<step % 2 * 2 + 1>(word(0), lane_bytes),
                                  table.template at<step % 2 * 2 + 1>(word(1), lane_bytes)};
#pragma unroll
      for (int tile = 0; tile < token_tiles; ++tile) {
        const uint4& part = activations[tile][step / 2];
        multiply_add<T>(product[tile][step % 2], a, step % 2 == 0 ? part.x : part.z, step % 2 == 0 ? part.y : part.w);
      }
    };
    multiply.template operator()<0>();
    multiply.template operator()<1>();
    multiply.template operator()<2>();
    multiply.template operator()<3>();
    const float scale[2] = {row_scales[0].template value<block>(weight), row_scales[1].template value<block>(weight)};
#pragma unroll
    for (int tile = 0; tile < token_tiles; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[tile][i] += (product[tile][0][i] + product[tile][1][i]) * scale[i / 2];
  };

  unsigned strip = blockIdx.x;
  const auto finish_strip = [&] {
    __syncthreads();  // the previous strip's sums have been read
#pragma unroll
    for (int i = 0; i < partials; ++i) {
      sums[warp][i][lane] = sum[i / 4][i % 4];
      sum[i / 4][i % 4] = 0.0f;
    }
    __syncthreads();
    if (warp < partials) {
      float total = 0.0f;
#pragma unroll
      for (int other = 0; other < gemv_warps; ++other) total += sums[other][warp][lane];
      const unsigned output = strip * gemv_rows + group + static_cast<unsigned>(warp) % 4 / 2 * 8;
      const int token = warp / 4 * 8 + static_cast<int>(lane % 4) * 2 + warp % 2;
      if (token < tokens && output < outputs)
        y(static_cast<std::size_t>(token), output) =
            static_cast<T>(stage(total, static_cast<std::size_t>(token), output));
    }
    strip += gridDim.x;
  };
  int step = 0;  // of the strip
  for (int base = 0; base < steps; base += gemv_prefetch) {
#pragma unroll
    for (int slot = 0; slot < gemv_prefetch; ++slot) {
      if (base + slot >= steps) break;
      if (within_row(step)) {
        const GemvCodes rows[2] = {GemvCodes(codes[slot][0], lane), GemvCodes(codes[slot][1], lane)};
        const std::size_t column = static_cast<unsigned>(step * gemv_warps + warp) * gemv_step + gemv_column(lane);
        multiply_block.template operator()<0>(rows, scales[slot], column);
        multiply_block.template operator()<1>(rows, scales[slot], column);
      }
      if (base + slot + gemv_prefetch < steps) fetch(slot);
      if (++step == strip_steps) {
        step = 0;
        finish_strip();
      }
    }
  }
}

inline constexpr int exact_gemv_threads = 256;
inline constexpr int exact_gemv_tokens = 4;

/// One warp a weight row, four tokens at a time; weights are dequantized to float32 as `launch_dequantize` does.
template <class Format, DoubleQuantization nested, class T, class Stage>
__global__ void __launch_bounds__(exact_gemv_threads, any_blocks)
    exact_gemv_kernel(Matrix<const T> x, BlockwiseTensor weight, Stage stage, Matrix<T> y) {
  __shared__ LaneTable<Format> table;
  table.fill();
  const unsigned lane = threadIdx.x % 32;
  const std::size_t output = std::size_t{blockIdx.x} * (exact_gemv_threads / 32) + threadIdx.x / 32;
  if (output >= y.columns) return;
  const std::size_t first_token = std::size_t{blockIdx.y} * exact_gemv_tokens;
  float sum[exact_gemv_tokens] = {};
  for (std::size_t column = lane; column < x.columns; column += 32) {
    const std::size_t element = output * x.columns + column;
    const unsigned byte = __ldg(weight.codes + element / 2);
    const unsigned code = element % 2 == 0 ? byte >> 4 : byte & 15u;
    const float value = __fmul_rn(table(code, lane), block_scale<nested>(weight, element >> weight.block_shift));
#pragma unroll
    for (int i = 0; i < exact_gemv_tokens; ++i)
      if (first_token + i < x.rows) sum[i] = fmaf(value, static_cast<float>(x(first_token + i, column)), sum[i]);
  }
#pragma unroll
  for (int i = 0; i < exact_gemv_tokens; ++i) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum[i] += __shfl_xor_sync(~0u, sum[i], distance);
    if (lane == 0 && first_token + i < x.rows)
      y(first_token + i, output) = static_cast<T>(stage(sum[i], first_token + i, output));
  }
}

}  // namespace detail

/// Tokens that `launch_gemv` multiplies with tensor cores.
inline constexpr std::size_t gemv_most_tokens = 16;

/// Whether the tensor-core kernel takes the arguments: 16-bit T, 1 to 16 tokens, blocks of 64, K a multiple of 128.
template <Element T>
bool fits_gemv(const Matrix<const T>& x, const BlockwiseTensor& weight) noexcept {
  constexpr std::size_t limit = std::size_t{1} << 31;
  return sizeof(T) == 2 && x.rows <= gemv_most_tokens && weight.block_shift == 6 && x.columns % 128 == 0 &&
         weight.elements / 64 < limit && x.columns < limit && x.stride % 8 == 0 &&
         reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 &&
         reinterpret_cast<std::uintptr_t>(weight.codes) % 16 == 0 &&
         reinterpret_cast<std::uintptr_t>(weight.scales) % 8 == 0 &&
         reinterpret_cast<std::uintptr_t>(weight.scale_codes) % 2 == 0;
}

/// y = epilogue(x weight^T) with weights dequantized to float32 (bit-equal to `launch_dequantize`) and float32 products
/// and sums: any T, extents and block size. Enqueued on `stream`; allocates nothing.
///
/// @param x [tokens, K], `y` [tokens, N], not overlapping; `weight` N * K elements, row by row; all on the device
template <BlockFormat Format, Element T, Epilogue Stage>
cudaError_t launch_exact_gemv(std::type_identity_t<Matrix<const T>> x, const BlockwiseTensor& weight,
                              const Stage& epilogue, Matrix<T> y, cudaStream_t stream) noexcept {
  if (x.rows == 0 || y.columns == 0) return cudaSuccess;
  if (y.rows != x.rows || weight.elements != x.columns * y.columns) return cudaErrorInvalidValue;
  constexpr std::size_t rows = detail::exact_gemv_threads / 32;
  const std::size_t token_groups = (x.rows + detail::exact_gemv_tokens - 1) / detail::exact_gemv_tokens;
  if (token_groups > 65535 || y.columns >= (std::size_t{1} << 31)) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>((y.columns + rows - 1) / rows), static_cast<unsigned>(token_groups));
  const auto kernel = weight.nested == DoubleQuantization::off
                          ? detail::exact_gemv_kernel<Format, DoubleQuantization::off, T, Stage>
                          : detail::exact_gemv_kernel<Format, DoubleQuantization::on, T, Stage>;
  kernel<<<grid, detail::exact_gemv_threads, 0, stream>>>(x, weight, epilogue, y);
  return cudaGetLastError();
}

/// y = epilogue(x weight^T) for a few tokens, reading the 4-bit weight once: with tensor cores where `fits_gemv`, by
/// `launch_exact_gemv` otherwise. The tensor cores see the format's sixteen values rounded to T (for bfloat16 a
/// relative Frobenius error near 1e-3 of the result, for float16 1e-4); block scales and sums are float32.
///
/// @param x [tokens, K], `y` [tokens, N], not overlapping; `weight` N * K elements in bitsandbytes' layout
template <BlockFormat Format, Element T, Epilogue Stage>
cudaError_t launch_gemv(std::type_identity_t<Matrix<const T>> x, const BlockwiseTensor& weight, const Stage& epilogue,
                        Matrix<T> y, cudaStream_t stream) noexcept {
  if constexpr (sizeof(T) == 2) {
    if (x.rows > 0 && y.columns > 0 && x.columns > 0 && fits_gemv<T>(x, weight)) {
      if (y.rows != x.rows || weight.elements != x.columns * y.columns) return cudaErrorInvalidValue;
      int device = 0;
      int multiprocessors = 0;
      cudaError_t status = cudaGetDevice(&device);
      if (status == cudaSuccess)
        status = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
      if (status != cudaSuccess) return status;
      const auto run = [&]<int token_tiles, DoubleQuantization nested>() {
        const auto kernel = detail::gemv_kernel<Format, nested, token_tiles, T, Stage>;
        // Strips are dealt out evenly, so every thread block must be resident at once.
        int blocks = 0;
        status = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, detail::gemv_threads, 0);
        if (status != cudaSuccess) return status;
        const std::size_t strips = (y.columns + detail::gemv_rows - 1) / detail::gemv_rows;
        const std::size_t resident = static_cast<std::size_t>(multiprocessors) * static_cast<std::size_t>(blocks);
        kernel<<<static_cast<unsigned>(std::min(strips, resident)), detail::gemv_threads, 0, stream>>>(x, weight,
                                                                                                       epilogue, y);
        return cudaGetLastError();
      };
      using enum DoubleQuantization;
      if (x.rows <= 8)
        return weight.nested == off ? run.template operator()<1, off>() : run.template operator()<1, on>();
      return weight.nested == off ? run.template operator()<2, off>() : run.template operator()<2, on>();
    }
  }
  return launch_exact_gemv<Format>(x, weight, epilogue, y, stream);
}

}  // namespace ebb::cuda
