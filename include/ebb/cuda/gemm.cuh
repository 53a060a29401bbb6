#pragma once

#include <cuda_runtime_api.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/cuda/architecture.cuh"
#include "ebb/cuda/element.cuh"
#include "ebb/cuda/mma.cuh"
#include "ebb/cuda/vector.cuh"
#include "ebb/epilogue/epilogue.hpp"

namespace ebb::cuda {

namespace detail {

inline constexpr int copied_rows = 32;  // from a row that a thread copies to its next one

/// A thread's way along K through some rows of an operand, `copied_rows` apart: where the current column of each lies,
/// and whether the operand holds it; what it does not hold is zero.
template <class E>
struct MatrixCursor {
  const E* from;
  std::size_t step;
  int rows;     // from the first on
  int columns;  // from the current one on
  __device__ bool holds(int i) const { return copied_rows * i < rows && columns > 0; }
  __device__ const E* at(int i) const { return from + static_cast<std::size_t>(i) * step; }
  __device__ void advance(int by) {
    from += by;
    columns -= by;
  }
};

/// An operand [rows, K] of a product. Others, like a convolution's pixels, offer the same two functions.
template <class E>
struct MatrixOperand {
  Matrix<const E> matrix;
  __device__ const E* base() const { return matrix.data; }
  /// Of `count` rows.
  template <int count>
  __device__ MatrixCursor<E> cursor(int row, int column) const {
    return {matrix.row(static_cast<std::size_t>(row)) + column, copied_rows * matrix.stride,
            static_cast<int>(matrix.rows) - row, static_cast<int>(matrix.columns) - column};
  }
};

/// How a thread block of the tensor-core kernels computes `side` x `side` elements of y: 2 x 2 warps, and stages of 64
/// bytes of each row of both operands.
template <int side_>
struct GemmTile {
  static constexpr int side = side_;
  static constexpr int warps = 4;
  static constexpr int threads = 32 * warps;
  static constexpr int warp_side = side / 2;
  static constexpr int row_bytes = 64;
  static constexpr int operand_bytes = side * row_bytes;
  static constexpr int stages = side == 128 ? 3 : 4;  // two thread blocks fit any multiprocessor
  static constexpr int bytes = stages * 2 * operand_bytes;
  static constexpr bool chunks_only = side == 128;  // no code for rows that are not aligned 16-byte chunks

  /// Chunks of two rows fill the banks; they are permuted so that a column of eight rows meets no bank twice.
  static __device__ int chunk_offset(int row, int chunk) { return row * row_bytes + ((chunk ^ (row >> 1 & 3)) << 4); }
  static __device__ int warp_row() { return static_cast<int>(threadIdx.x) / 64 * warp_side; }
  static __device__ int warp_column() { return static_cast<int>(threadIdx.x) / 32 % 2 * warp_side; }
};

/// Copies one thread's part of a stage, the same chunk of each of its rows, and moves the cursor to the next stage.
template <class Tile, class E, class Cursor>
__device__ inline void copy_chunks(std::uint8_t* to, Cursor& cursor, const E* base, bool chunked) {
  constexpr int rows = Tile::side / copied_rows;
  constexpr int width = 16 / sizeof(E);
  constexpr int depth = Tile::row_bytes / sizeof(E);
  to += Tile::chunk_offset(static_cast<int>(threadIdx.x) / 4, static_cast<int>(threadIdx.x) % 4);
  if (Tile::chunks_only || chunked) {
#pragma unroll
    for (int i = 0; i < rows; ++i) {
      const bool wanted = cursor.holds(i);
      copy_async(shared_address(to + i * copied_rows * Tile::row_bytes), wanted ? cursor.at(i) : base, wanted);
    }
    cursor.advance(depth);
  } else {
    using Bits = std::conditional_t<sizeof(E) == 1, std::uint8_t, std::uint16_t>;
    std::uint32_t words[rows][4] = {};
#pragma unroll
    for (int j = 0; j < width; ++j) {
#pragma unroll
      for (int i = 0; i < rows; ++i)
        if (cursor.holds(i))
          words[i][j * sizeof(E) / 4] |= std::uint32_t{std::bit_cast<Bits>(*cursor.at(i))} << (8 * (j * sizeof(E) % 4));
      cursor.advance(1);
    }
    cursor.advance(depth - width);
#pragma unroll
    for (int i = 0; i < rows; ++i)
      *reinterpret_cast<uint4*>(to + i * copied_rows * Tile::row_bytes) =
          make_uint4(words[i][0], words[i][1], words[i][2], words[i][3]);
  }
}

/// First row and column of the tile of y that this thread block computes. Neighbouring blocks go down eight rows of
/// tiles before the next column, so that they find each other's operands in the L2 cache.
template <int side>
__device__ inline int2 tile_of_block(std::size_t rows, std::size_t columns) {
  constexpr unsigned band = 8;
  const auto row_tiles = static_cast<unsigned>((rows + side - 1) / side);
  const auto column_tiles = static_cast<unsigned>((columns + side - 1) / side);
  const unsigned first = blockIdx.x / (band * column_tiles) * band;
  const unsigned height = min(band, row_tiles - first);
  const unsigned index = blockIdx.x - first * column_tiles;
  return make_int2(static_cast<int>(first + index % height) * side, static_cast<int>(index / height) * side);
}

/// sums = left right^T over K for the tile at `at`. E is a 16-bit Element and Sum float, or std::int8_t and int32.
template <class Tile, class E, class Left, class Right, class Sum>
__device__ inline void multiply_operands(const Left& left, const Right& right, int2 at, int depth, bool chunked,
                                         std::uint8_t* memory,
                                         Sum (&sums)[Tile::warp_side / 16][Tile::warp_side / 8][4]) {
  constexpr int row_blocks = Tile::warp_side / 16, column_blocks = Tile::warp_side / 8;
  constexpr int steps = Tile::row_bytes / 32;
  constexpr int stage_depth = Tile::row_bytes / sizeof(E);
  constexpr int rows = Tile::side / copied_rows;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int thread_row = static_cast<int>(threadIdx.x) / 4;
  const int thread_column = static_cast<int>(threadIdx.x) % 4 * (16 / static_cast<int>(sizeof(E)));
  auto left_cursor = left.template cursor<rows>(at.x + thread_row, thread_column);
  auto right_cursor = right.template cursor<rows>(at.y + thread_row, thread_column);
  const auto copy_stage = [&](int stage) {
    std::uint8_t* to = memory + stage * 2 * Tile::operand_bytes;
    copy_chunks<Tile>(to, left_cursor, left.base(), chunked);
    copy_chunks<Tile>(to + Tile::operand_bytes, right_cursor, right.base(), chunked);
    copy_async_commit();
  };
  // Where this lane reads rows of 8x8 matrices: 16 rows of the left operand, twice 8 of the right one.
  const int left_row = Tile::warp_row() + lane % 16;
  const int right_row = Tile::warp_column() + lane / 16 * 8 + lane % 8;

  const int tiles = (depth + stage_depth - 1) / stage_depth;
#pragma unroll
  for (int stage = 0; stage < Tile::stages - 1; ++stage)
    if (tiles > 0) copy_stage(stage);
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    copy_async_wait<Tile::stages - 2>();
    __syncthreads();
    const std::uint32_t from =
        shared_address(memory) + static_cast<std::uint32_t>(tile % Tile::stages * 2 * Tile::operand_bytes);
    std::uint32_t lefts[steps][row_blocks][4], rights[steps][column_blocks / 2][4];
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      const auto left_from = from + static_cast<std::uint32_t>(Tile::chunk_offset(left_row, 2 * step + lane / 16));
      const auto right_from = from + Tile::operand_bytes +
                              static_cast<std::uint32_t>(Tile::chunk_offset(right_row, 2 * step + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < row_blocks; ++i) load_matrices(lefts[step][i], left_from + i * 16 * Tile::row_bytes);
#pragma unroll
      for (int i = 0; i < column_blocks / 2; ++i) load_matrices(rights[step][i], right_from + i * 16 * Tile::row_bytes);
      // Here, so that the copies start early, but not before there is something to multiply. They go into the stage
      // that was read before the barrier; beyond K they are zeros that nobody reads.
      if (step == 0) copy_stage((tile + Tile::stages - 1) % Tile::stages);
    }
#pragma unroll
    for (int step = 0; step < steps; ++step)
#pragma unroll
      for (int i = 0; i < row_blocks; ++i)
#pragma unroll
        for (int j = 0; j < column_blocks; ++j)
          multiply_add<E>(sums[i][j], lefts[step][i], rights[step][j / 2][j % 2 * 2],
                          rights[step][j / 2][j % 2 * 2 + 1]);
  }
  copy_async_wait<0>();
}

/// Hands a warp's `rows` x `columns` results in shared memory, rows `columns + 8` floats apart, to the stage and to y.
template <int rows, int columns, class T, class Stage>
__device__ inline void store_block(const float* block, int first_row, int first_column, const Stage& stage,
                                   const Matrix<T>& y) {
  constexpr int width = vector_width<T>;
  constexpr int packs = columns / width;  // of a row
  constexpr int batch = 2;                // packs of a thread for which the stage's loads are in flight together
  static_assert(rows * packs % (32 * batch) == 0);
  const bool vectors = reinterpret_cast<std::uintptr_t>(y.data) % 16 == 0 && y.stride % width == 0;
#pragma unroll 1
  for (int first = static_cast<int>(threadIdx.x) % 32; first < rows * packs; first += 32 * batch) {
    float values[batch][width];
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      const int pack = first + 32 * i;
      load_floats(values[i], block + pack / packs * (columns + 8) + pack % packs * width);
      const auto row = static_cast<std::size_t>(first_row + pack / packs);
      const auto column = static_cast<std::size_t>(first_column + pack % packs * width);
#pragma unroll
      for (int j = 0; j < width; ++j)
        if (row < y.rows && column + j < y.columns) values[i][j] = stage(values[i][j], row, column + j);
    }
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      const int pack = first + 32 * i;
      const auto row = static_cast<std::size_t>(first_row + pack / packs);
      const auto column = static_cast<std::size_t>(first_column + pack % packs * width);
      if (row >= y.rows) continue;
      T* to = y.row(row) + column;
      if (vectors && column + width <= y.columns) {
        if constexpr (sizeof(T) == 2) {
          Pack<std::uint32_t, 4> pairs;
#pragma unroll
          for (int j = 0; j < 4; ++j) pairs.values[j] = pack_pair<T>(values[i][2 * j], values[i][2 * j + 1]);
          *reinterpret_cast<Pack<std::uint32_t, 4>*>(to) = pairs;
        } else {
          store_floats(to, values[i]);
        }
      } else {
#pragma unroll
        for (int j = 0; j < width; ++j)
          if (column + j < y.columns) to[j] = static_cast<T>(values[i][j]);
      }
    }
  }
}

/// Takes each warp's results through the operands' memory, so that a thread has neighbouring columns of them.
template <class Tile, class T, class Stage>
__device__ inline void finish_tile(const float (&values)[Tile::warp_side / 16][Tile::warp_side / 8][4],
                                   std::uint8_t* memory, int2 at, const Stage& stage, const Matrix<T>& y) {
  constexpr int stride = Tile::warp_side + 8;  // a warp's pairs meet no bank twice
  static_assert(Tile::warps * 32 * stride * static_cast<int>(sizeof(float)) <= Tile::bytes);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* block = reinterpret_cast<float*>(memory) + static_cast<int>(threadIdx.x) / 32 * 32 * stride;
  __syncthreads();  // the operands have been read
#pragma unroll
  for (int first = 0; first < Tile::warp_side; first += 32) {
#pragma unroll
    for (int row = 0; row < 32; row += 8)
#pragma unroll
      for (int i = 0; i < Tile::warp_side / 8; ++i) {
        const float* pair = values[(first + row) / 16][i] + row % 16 / 4;
        *reinterpret_cast<float2*>(block + (row + lane / 4) * stride + 8 * i + lane % 4 * 2) =
            make_float2(pair[0], pair[1]);
      }
    __syncwarp();
    store_block<32, Tile::warp_side>(block, at.x + Tile::warp_row() + first, at.y + Tile::warp_column(), stage, y);
    __syncwarp();
  }
}

template <class Tile, class Left, class T, class Stage>
__global__ void __launch_bounds__(Tile::threads, 2)
    gemm_kernel(Left left, MatrixOperand<T> weight, bool chunked, Stage stage, Matrix<T> y) {
  __shared__ __align__(128) std::uint8_t memory[Tile::bytes];
  const int2 at = tile_of_block<Tile::side>(y.rows, y.columns);
  float sums[Tile::warp_side / 16][Tile::warp_side / 8][4] = {};
  multiply_operands<Tile, T>(left, weight, at, static_cast<int>(weight.matrix.columns), chunked, memory, sums);
  finish_tile<Tile>(sums, memory, at, stage, y);
}

inline constexpr int plain_gemm_threads = 256;

/// float32 products without tensor cores. Operands lie in shared memory with K along the rows; 4 x 2 warps, each thread
/// with 4 x 4 neighbouring elements of y, or four times as many. For 12.0 the larger tile does not fit half the
/// registers.
template <int side, class Left, class Stage>
__global__ void __launch_bounds__(plain_gemm_threads, compiled_capability >= 120 && side == 128 ? 1 : 2)
    plain_gemm_kernel(Left left, MatrixOperand<float> weight, Stage stage, Matrix<float> y) {
  constexpr int depth = 16;         // of a stage
  constexpr int stride = side + 4;  // eight columns of four rows are stored to different banks
  constexpr int groups = side / 64;
  constexpr int rows = side / copied_rows;
  constexpr int warp_rows = side / 4, warp_columns = side / 2;
  constexpr int operand = depth * stride;
  constexpr int block = 16 * (warp_columns + 8);  // results of a warp
  __shared__ __align__(16) float memory[4 * operand > 8 * block ? 4 * operand : 8 * block];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int2 at = tile_of_block<side>(y.rows, y.columns);
  const int copied_row = 4 * warp + lane / 8;
  auto left_cursor = left.template cursor<rows>(at.x + copied_row, lane % 8);
  auto right_cursor = weight.template cursor<rows>(at.y + copied_row, lane % 8);
  const auto copy_operand = [&](float* to, auto& cursor, const float* base) {
#pragma unroll
    for (int first = 0; first < depth; first += 8) {
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        const bool wanted = cursor.holds(i);
        copy_word_async(shared_address(to + (first + lane % 8) * stride + copied_row + copied_rows * i),
                        wanted ? cursor.at(i) : base, wanted);
      }
      cursor.advance(8);
    }
  };
  const auto copy_stage = [&](int stage) {
    copy_operand(memory + stage * 2 * operand, left_cursor, left.base());
    copy_operand(memory + (stage * 2 + 1) * operand, right_cursor, weight.base());
    copy_async_commit();
  };
  const int row = warp / 2 * warp_rows;  // of the warp's results
  const int column = warp % 2 * warp_columns;
  float sums[groups][4][groups][4] = {};
  const int tiles = (static_cast<int>(weight.matrix.columns) + depth - 1) / depth;
  if (tiles > 0) copy_stage(0);
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    copy_async_wait<0>();
    __syncthreads();
    if (tile + 1 < tiles) copy_stage((tile + 1) % 2);
    const float* lefts = memory + tile % 2 * 2 * operand + row + lane / 8 * 4;
    const float* rights = memory + (tile % 2 * 2 + 1) * operand + column + lane % 8 * 4;
#pragma unroll
    for (int k = 0; k < depth; ++k) {
      float a[groups][4], b[groups][4];
#pragma unroll
      for (int group = 0; group < groups; ++group) {
        load_floats(a[group], lefts + k * stride + 16 * group);
        load_floats(b[group], rights + k * stride + 32 * group);
      }
#pragma unroll
      for (int g = 0; g < groups; ++g)
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int h = 0; h < groups; ++h)
#pragma unroll
            for (int j = 0; j < 4; ++j) sums[g][i][h][j] = fmaf(a[g][i], b[h][j], sums[g][i][h][j]);
    }
  }
  float* results = memory + warp * block;
  __syncthreads();  // the operands have been read
#pragma unroll
  for (int g = 0; g < groups; ++g) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int h = 0; h < groups; ++h)
        store_floats(results + (lane / 8 * 4 + i) * (warp_columns + 8) + 32 * h + lane % 8 * 4, sums[g][i][h]);
    __syncwarp();
    store_block<16, warp_columns>(results, at.x + row + 16 * g, at.y + column, stage, y);
    __syncwarp();
  }
}

/// The larger tiles where they give every multiprocessor of the device one.
struct GemmPlan {
  bool large;
  unsigned blocks;
};
inline cudaError_t plan_gemm(std::size_t rows, std::size_t columns, std::size_t depth, bool chunked,
                             GemmPlan& plan) noexcept {
  constexpr std::size_t limit = (std::size_t{1} << 31) - 4096;  // what the kernels count in an int
  const auto tiles = [&](std::size_t side) { return ((rows + side - 1) / side) * ((columns + side - 1) / side); };
  if (rows > limit || columns > limit || depth > limit || tiles(64) > limit) return cudaErrorInvalidValue;
  int device = 0;
  int multiprocessors = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) status = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (status != cudaSuccess) return status;
  plan.large = chunked && rows > 64 && columns > 64 && tiles(128) >= static_cast<std::size_t>(multiprocessors);
  plan.blocks = static_cast<unsigned>(tiles(plan.large ? 128 : 64));
  return cudaSuccess;
}

/// y = stage(left weight^T); `chunked` tells that both operands are made of whole, aligned 16-byte chunks.
template <class Left, class T, class Stage>
cudaError_t launch_product(const Left& left, const Matrix<const T>& weight, bool chunked, const Stage& stage,
                           const Matrix<T>& y, cudaStream_t stream) noexcept {
  if (y.size() == 0) return cudaSuccess;
  GemmPlan plan;
  const cudaError_t status = plan_gemm(y.rows, y.columns, weight.columns, chunked || sizeof(T) == 4, plan);
  if (status != cudaSuccess) return status;
  const MatrixOperand<T> right{weight};
  if constexpr (sizeof(T) == 4) {
    const auto kernel = plan.large ? plain_gemm_kernel<128, Left, Stage> : plain_gemm_kernel<64, Left, Stage>;
    kernel<<<plan.blocks, plain_gemm_threads, 0, stream>>>(left, right, stage, y);
  } else {
    const auto kernel =
        plan.large ? gemm_kernel<GemmTile<128>, Left, T, Stage> : gemm_kernel<GemmTile<64>, Left, T, Stage>;
    kernel<<<plan.blocks, GemmTile<64>::threads, 0, stream>>>(left, right, chunked, stage, y);
  }
  return cudaGetLastError();
}

}  // namespace detail

/// y = epilogue(x weight^T), accumulated in float32 and rounded once; any extents and alignment, the same bytes every
/// time. 16-bit T on tensor cores, fastest where rows are made of aligned 16-byte chunks; float in float32 throughout.
/// Enqueued on `stream`; allocates nothing; may be captured in a CUDA graph.
///
/// @param x [M, K], `weight` [N, K], `y` [M, N], on the device; y overlaps neither operand
template <Element T, Epilogue Stage>
cudaError_t launch_gemm(std::type_identity_t<Matrix<const T>> x, std::type_identity_t<Matrix<const T>> weight,
                        const Stage& epilogue, Matrix<T> y, cudaStream_t stream) noexcept {
  if (x.columns != weight.columns || y.rows != x.rows || y.columns != weight.rows) return cudaErrorInvalidValue;
  return detail::launch_product(detail::MatrixOperand<T>{x}, weight, vectorizable(x, weight), epilogue, y, stream);
}

}  // namespace ebb::cuda
