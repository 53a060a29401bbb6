#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ebb/core/dtype.hpp"

namespace ebb::cuda::sm90 {

/// Columns of one swizzled row in shared memory: 128 bytes of 16-bit elements.
inline constexpr int panel_columns = 64;

// Tiles of a tensor map over [item][column panel][token][64 columns]. The copy engine writes a tile as consecutive
// panels of 128-byte rows, 16-byte chunk c of row r at chunk c ^ (r % 8), and fills rows beyond the last token with 0.

/// Copies into shared memory; completes on `barrier`. One thread calls it.
__device__ inline void tensor_load(std::uint32_t to, const CUtensorMap& map, int token, int panel, int item,
                                   std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], "
      "[%6];" ::"r"(to),
      "l"(&map), "r"(0), "r"(token), "r"(panel), "r"(item), "r"(barrier)
      : "memory");
}

/// Copies out of shared memory, leaving out rows beyond the last token, and commits. One thread calls it.
__device__ inline void tensor_store(const CUtensorMap& map, int token, int panel, int item, std::uint32_t from) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%1, %2, %3, %4}], [%5];" ::"l"(&map),
               "r"(0), "r"(token), "r"(panel), "r"(item), "r"(from)
               : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/// Waits until this thread's stores have read their shared memory.
__device__ inline void tensor_store_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
/// Waits until this thread's stores have arrived.
__device__ inline void tensor_store_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

/// Describes [items * tokens, columns] with rows `stride` elements apart for copies of `tile_tokens` rows and
/// `tile_panels` column panels. Needs `data` and the stride aligned to 16 bytes, and columns a multiple of 64.
template <Element T>
  requires(sizeof(T) == 2)
cudaError_t make_tensor_map(CUtensorMap& map, const T* data, std::size_t items, std::size_t tokens, std::size_t columns,
                            std::size_t stride, unsigned tile_tokens, unsigned tile_panels) noexcept {
  // The encoder is a driver function: asking the runtime for it spares every user linking the driver library.
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
  if (status != cudaSuccess) return status;
  if (found != cudaDriverEntryPointSuccess || function == nullptr) return cudaErrorInsufficientDriver;
  constexpr std::size_t largest_extent = std::size_t{1} << 31;
  constexpr std::size_t largest_stride = std::size_t{1} << 38;
  if (tokens >= largest_extent || items >= largest_extent || stride >= largest_stride ||
      (items > 1 && tokens > largest_stride / stride))
    return cudaErrorInvalidValue;
  const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  const cuuint64_t extents[] = {panel_columns, tokens, columns / panel_columns, items};
  const cuuint64_t strides[] = {stride * sizeof(T), panel_columns * sizeof(T), tokens * stride * sizeof(T)};
  const cuuint32_t tile[] = {panel_columns, tile_tokens, tile_panels, 1};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  const CUresult result =
      encode(&map, dtype_of<T> == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4,
             const_cast<T*>(data), extents, strides, tile, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace ebb::cuda::sm90
