#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/cuda/blockwise.cuh"
#include "ebb/cuda/dequantize.cuh"
#include "ebb/cuda/mma.cuh"
#include "ebb/epilogue/epilogue.hpp"

namespace ebb::cuda {

namespace detail {

inline constexpr int gemv_rows = 16;     // weight rows of a strip: one matrix product's rows
inline constexpr int gemv_block = 64;    // elements of a quantization block, and of a step along K
inline constexpr int gemv_prefetch = 3;  // steps whose loads are in flight

/// How the tensor-core kernel is laid out: 8 tokens a matrix product.
template <int token_tiles_, DoubleQuantization nested>
struct GemvTile {
  static constexpr int token_tiles = token_tiles_;
  static constexpr int warps = token_tiles == 1 ? 16 : 8;
  static constexpr int threads = 32 * warps;
  static constexpr int blocks = nested == DoubleQuantization::off ? 2 : 1;  // of a multiprocessor, at least
};

/// The values of both codes of a byte as packed T, once for each lane so that look-ups meet no bank conflict: lane `l`
/// reads word `byte * 32 + l`.
template <class Format, class T>
struct PairTable {
  std::uint32_t words[256 * 32];

  /// One quarter of an entry a thread at a time.
  __device__ void fill() {
    for (unsigned at = threadIdx.x; at < 256 * 8; at += blockDim.x) {
      const unsigned byte = at / 8;
      const float high = value(byte >> 4, std::make_index_sequence<16>());
      const float low = value(byte & 15u, std::make_index_sequence<16>());
      const std::uint32_t pair = pack_pair<T>(high, low);  // the high nibble is the first element
      reinterpret_cast<uint4*>(words)[at] = make_uint4(pair, pair, pair, pair);
    }
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
  static __device__ float value(unsigned wanted, std::index_sequence<code...>) {
    float result = 0.0f;
    ((result = wanted == code ? constant<code>() : result), ...);
    return result;
  }
  template <std::size_t code>
  static __device__ float constant() {
    constexpr float value = Format::values[code];
    return value;
  }
};

/// Scales of one step for a lane's two rows, as fetched.
template <DoubleQuantization nested>
struct GemvScales;
template <>
struct GemvScales<DoubleQuantization::off> {
  float values[2];
  __device__ void fetch(const BlockwiseTensor& weight, int row, std::size_t block) {
    values[row] = __ldg(weight.scales + block);
  }
  __device__ float value(const BlockwiseTensor&, int row) const { return values[row]; }
};
template <>
struct GemvScales<DoubleQuantization::on> {
  unsigned codes[2];
  float factors[2];
  __device__ void fetch(const BlockwiseTensor& weight, int row, std::size_t block) {
    codes[row] = __ldg(weight.scale_codes + block);
    factors[row] = __ldg(weight.nested_scales + block / nested_block_size);
  }
  __device__ float value(const BlockwiseTensor& weight, int row) const {
    return __fadd_rn(__fmul_rn(__ldg(weight.nested_map + codes[row]), factors[row]), __ldg(weight.nested_mean));
  }
};

/// Each thread block takes strips of 16 weight rows; its warps take the strip's blocks of 64 columns in turn and add up
/// through shared memory. Loads run `gemv_prefetch` steps ahead, across strips.
///
/// The layout of bitsandbytes serves as it is: in a block of 64 columns a lane owns 16 neighbouring ones (8 bytes of
/// codes) of its two rows. A matrix product adds over columns in any order, so the activations may follow the same
/// order: 16 neighbouring columns a lane, straight from the row-major x. All columns of a product lie in one
/// quantization block, so that the codes' values are multiplied unscaled and the scale is applied in float32.
template <class Format, DoubleQuantization nested, int token_tiles, class T, class Stage>
__global__ void __launch_bounds__(GemvTile<token_tiles, nested>::threads, GemvTile<token_tiles, nested>::blocks)
    gemv_kernel(Matrix<const T> x, BlockwiseTensor weight, Stage stage, Matrix<T> y) {
  using Tile = GemvTile<token_tiles, nested>;
  constexpr int partials = 4 * token_tiles;  // of a lane
  __shared__ __align__(128) PairTable<Format, T> table;
  __shared__ float sums[2][Tile::warps][partials][32];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const unsigned lane = threadIdx.x % 32;
  const unsigned group = lane / 4;
  const unsigned column = lane % 4 * 16;
  const int tokens = static_cast<int>(x.rows);
  const auto outputs = static_cast<unsigned>(y.columns);
  const auto blocks = static_cast<unsigned>(x.columns / gemv_block);  // of a weight row
  const int strips = static_cast<int>((outputs + gemv_rows - 1) / gemv_rows);
  const int own_strips =
      (strips - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x);
  const int own_blocks = (static_cast<int>(blocks) - warp + Tile::warps - 1) / Tile::warps;  // of a strip; may be 0
  const int steps = own_strips * own_blocks;

  // Where the next fetch reads; rows beyond the last read the last one's codes and are not stored.
  unsigned fetch_strip = blockIdx.x;
  int fetch_block = 0;
  unsigned at = 0;        // block index of the upper row
  unsigned distance = 0;  // to that of the lower row
  const auto begin_strip = [&] {
    const unsigned upper = min(fetch_strip * gemv_rows + group, outputs - 1);
    const unsigned lower = min(fetch_strip * gemv_rows + group + 8, outputs - 1);
    at = upper * blocks + static_cast<unsigned>(warp);
    distance = (lower - upper) * blocks;
  };
  begin_strip();
  uint2 codes[gemv_prefetch][2];
  GemvScales<nested> scales[gemv_prefetch];
  const auto fetch = [&](int slot) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const std::size_t block = at + (row == 0 ? 0u : distance);
      codes[slot][row] = __ldcs(reinterpret_cast<const uint2*>(weight.codes + block * (gemv_block / 2) + column / 2));
      scales[slot].fetch(weight, row, block);
    }
    at += Tile::warps;
    if (++fetch_block == own_blocks) {
      fetch_block = 0;
      fetch_strip += gridDim.x;
      begin_strip();
    }
  };
#pragma unroll
  for (int slot = 0; slot < gemv_prefetch; ++slot)
    if (slot < steps) fetch(slot);
  table.fill();
  __syncthreads();

  float sum[token_tiles][4] = {};
  int strip = static_cast<int>(blockIdx.x);
  int parity = 0;
  const auto finish_strip = [&] {
#pragma unroll
    for (int i = 0; i < partials; ++i) {
      sums[parity][warp][i][lane] = sum[i / 4][i % 4];
      sum[i / 4][i % 4] = 0.0f;
    }
    __syncthreads();
    if (warp < partials) {
      float total = 0.0f;
#pragma unroll
      for (int other = 0; other < Tile::warps; ++other) total += sums[parity][other][warp][lane];
      const unsigned output = static_cast<unsigned>(strip) * gemv_rows + group + warp % 4 / 2 * 8u;
      const int token = warp / 4 * 8 + static_cast<int>(lane % 4) * 2 + warp % 2;
      if (token < tokens && output < outputs)
        y(static_cast<std::size_t>(token), output) =
            static_cast<T>(stage(total, static_cast<std::size_t>(token), output));
    }
    parity ^= 1;  // the next strip's sums go elsewhere: one barrier a strip is enough
    strip += static_cast<int>(gridDim.x);
  };
  if (own_blocks == 0)
    for (int i = 0; i < own_strips; ++i) finish_strip();

  const std::uint32_t lane_bytes = 4 * lane;
  int block = 0;
  for (int base = 0; base < steps; base += gemv_prefetch) {
#pragma unroll
    for (int slot = 0; slot < gemv_prefetch; ++slot) {
      if (base + slot >= steps) break;
      const std::size_t first =
          (static_cast<std::size_t>(block) * Tile::warps + static_cast<unsigned>(warp)) * gemv_block + column;
      uint4 activations[token_tiles][2];
#pragma unroll
      for (int tile = 0; tile < token_tiles; ++tile) {
        const int token = static_cast<int>(group) + 8 * tile;
        const auto* from = reinterpret_cast<const uint4*>(x.row(static_cast<std::size_t>(token)) + first);
#pragma unroll
        for (int i = 0; i < 2; ++i) activations[tile][i] = token < tokens ? __ldg(from + i) : make_uint4(0, 0, 0, 0);
      }
      float product[token_tiles][2][4] = {};
      const auto multiply = [&](auto step_constant) {
        constexpr int step = decltype(step_constant)::value;
        const auto word = [&](int row) { return step < 2 ? codes[slot][row].x : codes[slot][row].y; };
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
      multiply(std::integral_constant<int, 0>{});
      multiply(std::integral_constant<int, 1>{});
      multiply(std::integral_constant<int, 2>{});
      multiply(std::integral_constant<int, 3>{});
      const float scale[2] = {scales[slot].value(weight, 0), scales[slot].value(weight, 1)};
#pragma unroll
      for (int tile = 0; tile < token_tiles; ++tile)
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[tile][i] += (product[tile][0][i] + product[tile][1][i]) * scale[i / 2];
      if (base + slot + gemv_prefetch < steps) fetch(slot);
      if (++block == own_blocks) {
        block = 0;
        finish_strip();
      }
    }
  }
}

inline constexpr int exact_gemv_threads = 256;
inline constexpr int exact_gemv_tokens = 4;

/// One warp a weight row, four tokens at a time; weights are dequantized to float32 as `launch_dequantize` does.
template <class Format, DoubleQuantization nested, class T, class Stage>
__global__ void __launch_bounds__(exact_gemv_threads)
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

/// Whether the tensor-core kernel takes the arguments: 16-bit T, 1 to 16 tokens, blocks of 64 and whole blocks a row.
template <Element T>
bool fits_gemv(const Matrix<const T>& x, const BlockwiseTensor& weight) noexcept {
  constexpr std::size_t limit = std::size_t{1} << 31;
  return sizeof(T) == 2 && x.rows <= gemv_most_tokens && weight.block_shift == 6 && x.columns % 64 == 0 &&
         weight.elements / 64 < limit && x.columns < limit && x.stride % 8 == 0 &&
         reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && reinterpret_cast<std::uintptr_t>(weight.codes) % 8 == 0;
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
        using Tile = detail::GemvTile<token_tiles, nested>;
        const std::size_t strips = (y.columns + detail::gemv_rows - 1) / detail::gemv_rows;
        const auto grid = static_cast<unsigned>(
            std::min<std::size_t>(strips, static_cast<std::size_t>(multiprocessors) * (Tile::warps == 16 ? 2 : 3)));
        detail::gemv_kernel<Format, nested, token_tiles><<<grid, Tile::threads, 0, stream>>>(x, weight, epilogue, y);
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
