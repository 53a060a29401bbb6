#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/cuda/element.cuh"
#include "ebb/cuda/gemm.cuh"
#include "ebb/cuda/vector.cuh"
#include "ebb/epilogue/epilogue.hpp"
#include "ebb/format/int8.hpp"

namespace ebb::cuda {

namespace detail {

inline constexpr int int8_threads = 256;
inline constexpr int int8_outlier_depth = 32;  // outlier columns that pass through shared memory at a time

/// What the kernels of one call tell each other.
struct Int8Workspace {
  float* scales;           // [rows] of x
  std::int32_t* flags;     // [columns], 1 for an outlier
  std::int32_t* outliers;  // [columns], those columns in ascending order
  std::int32_t* count;     // of them
  std::int8_t* codes;      // [rows, columns] of x

  static std::size_t code_offset(std::size_t rows, std::size_t columns) {
    return ((rows + 2 * columns + 1) * 4 + 15) / 16 * 16;
  }
  Int8Workspace(void* memory, std::size_t rows, std::size_t columns)
      : scales(static_cast<float*>(memory)),
        flags(reinterpret_cast<std::int32_t*>(scales + rows)),
        outliers(flags + columns),
        count(outliers + columns),
        codes(static_cast<std::int8_t*>(memory) + code_offset(rows, columns)) {}
};

/// `width` elements as LLM.int8 sees them: rounded to float16.
template <int width, class T>
__device__ inline void load_halves(float (&to)[width], const T* from) {
  load_floats(to, from);
  if constexpr (!std::is_same_v<T, float16>) {
#pragma unroll
    for (int i = 0; i < width; ++i) to[i] = INT8::prepare(to[i]);
  }
}

/// One thread block a row of x: its largest magnitude but for outliers, and which columns hold outliers.
template <int width, class T>
__global__ void __launch_bounds__(int8_threads)
    int8_scale_kernel(Matrix<const T> x, float threshold, Int8Workspace workspace) {
  __shared__ float of_warps[int8_threads / 32];
  const std::size_t row = blockIdx.x;
  float largest = 0.0f;
  for (std::size_t column = threadIdx.x * std::size_t{width}; column < x.columns; column += int8_threads * width) {
    float values[width];
    load_halves(values, x.row(row) + column);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float magnitude = fabsf(values[i]);
      if (threshold > 0.0f && magnitude >= threshold)
        workspace.flags[column + i] = 1;
      else
        largest = fmaxf(largest, magnitude);
    }
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, distance));
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int warp = 1; warp < int8_threads / 32; ++warp) largest = fmaxf(largest, of_warps[warp]);
  workspace.scales[row] = largest;
}

/// Lists the columns that have a flag; one thread block.
__device__ inline void list_outliers(std::size_t columns, const Int8Workspace& workspace) {
  __shared__ int of_warps[int8_threads / 32];
  const unsigned lane = threadIdx.x % 32;
  const unsigned warp = threadIdx.x / 32;
  int count = 0;
  for (std::size_t first = 0; first < columns; first += int8_threads) {
    const std::size_t column = first + threadIdx.x;
    const bool flagged = column < columns && workspace.flags[column] != 0;
    const unsigned mask = __ballot_sync(~0u, flagged);
    if (lane == 0) of_warps[warp] = __popc(mask);
    __syncthreads();
    int before = count;
#pragma unroll
    for (unsigned other = 0; other < int8_threads / 32; ++other) {
      if (other < warp) before += of_warps[other];
      count += of_warps[other];
    }
    if (flagged) workspace.outliers[before + __popc(mask & ((1u << lane) - 1u))] = static_cast<std::int32_t>(column);
    __syncthreads();
  }
  if (threadIdx.x == 0) *workspace.count = count;
}

/// The first thread block lists the outliers; each other one quantizes a row of x, outliers to zero.
template <int width, class T>
__global__ void __launch_bounds__(int8_threads) int8_quantize_kernel(Matrix<const T> x, Int8Workspace workspace) {
  if (blockIdx.x == 0) return list_outliers(x.columns, workspace);
  const std::size_t row = blockIdx.x - 1;
  const float largest = workspace.scales[row];
  const float inverse = largest == 0.0f ? 0.0f : __fdiv_rn(127.0f, largest);
  for (std::size_t column = threadIdx.x * std::size_t{width}; column < x.columns; column += int8_threads * width) {
    float values[width];
    load_halves(values, x.row(row) + column);
    Pack<std::int8_t, width> codes;
#pragma unroll
    for (int i = 0; i < width; ++i)
      codes.values[i] = static_cast<std::int8_t>(
          workspace.flags[column + i] != 0 ? 0 : __float2int_rn(__fmul_rn(values[i], inverse)));
    *reinterpret_cast<Pack<std::int8_t, width>*>(workspace.codes + row * x.columns + column) = codes;
  }
}

/// Adds the products of the outlier columns, in their order, to the results of this lane.
template <class Tile, class T>
__device__ inline void add_outliers(const Matrix<const T>& x, const Matrix<const std::int8_t>& weight,
                                    const float* scales, const Int8Workspace& workspace, int2 at, std::uint8_t* memory,
                                    float (&values)[Tile::warp_side / 16][Tile::warp_side / 8][4]) {
  static_assert(2 * int8_outlier_depth * Tile::side * static_cast<int>(sizeof(float)) <= Tile::bytes);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* lefts = reinterpret_cast<float*>(memory);  // [columns at a time, side]
  float* rights = lefts + int8_outlier_depth * Tile::side;
  const int count = *workspace.count;
#pragma unroll 1
  for (int first = 0; first < count; first += int8_outlier_depth) {
    const int depth = min(int8_outlier_depth, count - first);
    __syncthreads();  // what was there has been read
    for (int i = static_cast<int>(threadIdx.x); i < depth * Tile::side; i += Tile::threads) {
      const auto column = static_cast<std::size_t>(workspace.outliers[first + i / Tile::side]);
      const auto row = static_cast<std::size_t>(at.x + i % Tile::side);
      const auto output = static_cast<std::size_t>(at.y + i % Tile::side);
      float half[1] = {};
      if (row < x.rows) load_halves(half, x.row(row) + column);
      lefts[i] = half[0];
      rights[i] = output < weight.rows ? INT8::decode(weight(output, column), scales[output]) : 0.0f;
    }
    __syncthreads();
#pragma unroll 1
    for (int k = 0; k < depth; ++k) {
      const float* left = lefts + k * Tile::side + Tile::warp_row() + lane / 4;
      const float* right = rights + k * Tile::side + Tile::warp_column() + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < Tile::warp_side / 16; ++i) {
        const float rows[2] = {left[16 * i], left[16 * i + 8]};
#pragma unroll
        for (int j = 0; j < Tile::warp_side / 8; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) values[i][j][e] = fmaf(rows[e / 2], right[8 * j + e % 2], values[i][j][e]);
      }
    }
  }
}

template <class Tile, class T, class Stage>
__global__ void __launch_bounds__(Tile::threads, 2)
    int8_gemm_kernel(Matrix<const T> x, MatrixOperand<std::int8_t> weight, const float* scales, bool chunked,
                     Int8Workspace workspace, Stage stage, Matrix<T> y) {
  __shared__ __align__(128) std::uint8_t memory[Tile::bytes];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int2 at = tile_of_block<Tile::side>(y.rows, y.columns);
  const MatrixOperand<std::int8_t> codes{{workspace.codes, x.rows, x.columns}};
  std::int32_t sums[Tile::warp_side / 16][Tile::warp_side / 8][4] = {};
  multiply_operands<Tile, std::int8_t>(codes, weight, at, static_cast<int>(x.columns), chunked, memory, sums);
  float values[Tile::warp_side / 16][Tile::warp_side / 8][4];
#pragma unroll
  for (int j = 0; j < Tile::warp_side / 8; ++j)
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const auto column = static_cast<std::size_t>(at.y + Tile::warp_column() + 8 * j + lane % 4 * 2 + side);
      const float scale = column < y.columns ? __ldg(scales + column) : 0.0f;
#pragma unroll
      for (int i = 0; i < Tile::warp_side / 16; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const auto row = static_cast<std::size_t>(at.x + Tile::warp_row() + 16 * i + 8 * half + lane / 4);
          const float row_scale = row < y.rows ? workspace.scales[row] : 0.0f;
          values[i][j][2 * half + side] =
              __fmul_rn(__fmul_rn(static_cast<float>(sums[i][j][2 * half + side]), __fmul_rn(row_scale, scale)),
                        1.0f / (127.0f * 127.0f));
        }
    }
  add_outliers<Tile>(x, weight.matrix, scales, workspace, at, memory, values);
  finish_tile<Tile>(values, memory, at, stage, y);
}

}  // namespace detail

/// Bytes of `workspace` for `launch_int8_linear`; `columns` are those of x.
inline std::size_t int8_linear_workspace_bytes(std::size_t rows, std::size_t columns) {
  return detail::Int8Workspace::code_offset(rows, columns) + rows * columns;
}

/// y = epilogue(x weight^T) by LLM.int8 (Dettmers et al., 2022) with the arithmetic of bitsandbytes: activations are
/// rounded to float16, rows of them to int8 by their largest magnitude, products are summed exactly. Columns of x that
/// hold a magnitude at or above the threshold are left out there; their float16 values are multiplied with the
/// dequantized weight and added one after another. Equal to the host's `linear` but for fused multiply-adds there.
/// Enqueued on `stream`; allocates nothing, waits for nothing; may be captured in a CUDA graph.
///
/// @param codes     [N, K] and `scales` [N]: the weight, a QuantizedTensor<INT8>'s arrays, on the device
/// @param threshold 0 for no outliers
/// @param workspace `int8_linear_workspace_bytes`, aligned to 16 bytes; contents do not matter
/// @return cudaErrorInvalidValue for more than 2^17 columns, whose sums an int32 might not hold
template <Element T, Epilogue Stage>
cudaError_t launch_int8_linear(std::type_identity_t<Matrix<const T>> x, const std::int8_t* codes, const float* scales,
                               float threshold, const Stage& epilogue, Matrix<T> y, void* workspace,
                               cudaStream_t stream) noexcept {
  if (y.rows != x.rows || x.columns > (std::size_t{1} << 17)) return cudaErrorInvalidValue;
  if (y.size() == 0) return cudaSuccess;
  const detail::Int8Workspace parts(workspace, x.rows, x.columns);
  const detail::MatrixOperand<std::int8_t> weight{{codes, y.columns, x.columns}};
  const bool chunked = vectorizable(weight.matrix);  // x's codes are laid out alike
  detail::GemmPlan plan;
  cudaError_t status = detail::plan_gemm(y.rows, y.columns, x.columns, chunked, plan);
  if (status != cudaSuccess) return status;
  status = cudaMemsetAsync(parts.flags, 0, x.columns * sizeof(*parts.flags), stream);
  if (status != cudaSuccess) return status;
  const auto rows = static_cast<unsigned>(x.rows);
  const bool vectors = vectorizable(x) && x.columns % 16 == 0;
  constexpr int width = vector_width<T>;
  const auto scale = vectors ? detail::int8_scale_kernel<width, T> : detail::int8_scale_kernel<1, T>;
  const auto quantize = vectors ? detail::int8_quantize_kernel<width, T> : detail::int8_quantize_kernel<1, T>;
  scale<<<rows, detail::int8_threads, 0, stream>>>(x, threshold, parts);
  quantize<<<rows + 1, detail::int8_threads, 0, stream>>>(x, parts);
  using Large = detail::GemmTile<128>;
  using Small = detail::GemmTile<64>;
  const auto multiply =
      plan.large ? detail::int8_gemm_kernel<Large, T, Stage> : detail::int8_gemm_kernel<Small, T, Stage>;
  multiply<<<plan.blocks, Small::threads, 0, stream>>>(x, weight, scales, chunked, parts, epilogue, y);
  return cudaGetLastError();
}

}  // namespace ebb::cuda
