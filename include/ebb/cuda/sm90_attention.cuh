#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/attention_arguments.hpp"
#include "ebb/cuda/mma.cuh"
#include "ebb/cuda/sm90_attention_rows.cuh"
#include "ebb/cuda/sm90_attention_schedule.cuh"
#include "ebb/cuda/sm90_barrier.cuh"
#include "ebb/cuda/sm90_tensor_copy.cuh"
#include "ebb/cuda/sm90_wgmma.cuh"

// Attention for Hopper, head dimension 128, without mask or bias.
//
// One persistent thread block a multiprocessor: a producer thread feeds the copy engine; two consumer warpgroups own 64
// query rows each and take turns, so that the tensor cores work for one while the other computes its exponentials
// (Shah et al., FlashAttention-3, 2024). Within a warpgroup the scores of key tile i + 1 are multiplied together with
// the values of tile i, which hides the softmax behind the tensor cores once more. Tiles that do not fill the grid a
// whole number of times are divided along the keys (stream-K: Osama et al., 2023), merged in a fixed order: equal
// inputs give equal bits.

namespace ebb::cuda {

namespace sm90 {

inline constexpr unsigned attention_stages = 2;
inline constexpr int attention_threads = (consumers + 1) * warpgroup;

/// Shared memory of a block, by address; buffers aligned to 1024 bytes for the swizzle.
template <int keys>
struct AttentionMemory {
  static constexpr unsigned query_bytes = attention_queries * attention_dim * 2;
  static constexpr unsigned tile_bytes = keys * attention_dim * 2;
  static constexpr unsigned bytes = 1024 + 2 * consumers * query_bytes + 2 * attention_stages * tile_bytes +
                                    8 * (2 * consumers + 4 * attention_stages);

  std::uint32_t base;
  __device__ explicit AttentionMemory(const void* memory) : base((shared_address(memory) + 1023u) & ~1023u) {}

  __device__ std::uint32_t query(unsigned consumer) const { return base + consumer * query_bytes; }
  __device__ std::uint32_t output(unsigned consumer) const { return query(consumers + consumer); }
  __device__ std::uint32_t key(unsigned stage) const { return query(2 * consumers) + stage * tile_bytes; }
  __device__ std::uint32_t value(unsigned stage) const { return key(attention_stages + stage); }

  __device__ std::uint32_t query_full(unsigned consumer) const { return value(attention_stages) + 8 * consumer; }
  __device__ std::uint32_t query_empty(unsigned consumer) const { return query_full(consumers + consumer); }
  __device__ std::uint32_t key_full(unsigned stage) const { return query_full(2 * consumers) + 8 * stage; }
  __device__ std::uint32_t key_empty(unsigned stage) const { return key_full(attention_stages + stage); }
  __device__ std::uint32_t value_full(unsigned stage) const { return key_full(2 * attention_stages + stage); }
  __device__ std::uint32_t value_empty(unsigned stage) const { return key_full(3 * attention_stages + stage); }

  __device__ void init_barriers() const {
    for (unsigned i = 0; i < consumers; ++i) {
      barrier_init(query_full(i), 1);
      barrier_init(query_empty(i), warpgroup / 32);
    }
    for (unsigned i = 0; i < attention_stages; ++i) {
      barrier_init(key_full(i), 1);
      barrier_init(value_full(i), 1);
      barrier_init(key_empty(i), consumers * warpgroup / 32);
      barrier_init(value_empty(i), consumers * warpgroup / 32);
    }
    barrier_init_fence();
  }
};

/// The copying thread: walks the pieces, last key tile first, with the values one tile behind the keys.
template <int keys>
__device__ inline void produce_attention(const AttentionMemory<keys>& memory, const CUtensorMap& query,
                                         const CUtensorMap& key, const CUtensorMap& value, const AttentionPlan& plan) {
  using Ring = Turn<attention_stages>;
  AttentionSchedule schedule(plan);
  AttentionPiece piece{};
  unsigned tiles = 0;  // key tiles so far
  unsigned pieces = 0;
  const auto load_key = [&](int tile) {
    const Ring turn(tiles);
    if (tiles >= attention_stages) barrier_wait(memory.key_empty(turn.stage), turn.parity ^ 1u);
    barrier_expect(memory.key_full(turn.stage), AttentionMemory<keys>::tile_bytes);
    tensor_load(memory.key(turn.stage), key, tile * keys, 2 * piece.head, piece.item, memory.key_full(turn.stage));
    ++tiles;
  };
  const auto load_value = [&](int tile, unsigned count) {
    const Ring turn(count);
    if (count >= attention_stages) barrier_wait(memory.value_empty(turn.stage), turn.parity ^ 1u);
    barrier_expect(memory.value_full(turn.stage), AttentionMemory<keys>::tile_bytes);
    tensor_load(memory.value(turn.stage), value, tile * keys, 2 * piece.head, piece.item,
                memory.value_full(turn.stage));
  };
  while (schedule.next(piece)) {
    load_key(piece.end_key_tile - 1);
#pragma unroll 1  // twenty-four registers are left to this thread
    for (unsigned i = 0; i < consumers; ++i) {
      if (pieces > 0) barrier_wait(memory.query_empty(i), (pieces & 1u) ^ 1u);
      barrier_expect(memory.query_full(i), AttentionMemory<keys>::query_bytes);
      tensor_load(memory.query(i), query, piece.row + static_cast<int>(i) * attention_queries, 2 * piece.head,
                  piece.item, memory.query_full(i));
    }
    ++pieces;
#pragma unroll 1
    for (int tile = piece.end_key_tile - 1; tile > piece.first_key_tile; --tile) {
      load_key(tile - 1);
      load_value(tile, tiles - 2);
    }
    load_value(piece.first_key_tile, tiles - 1);
  }
}

/// One consumer warpgroup.
template <Element T, int keys>
__device__ inline void consume_attention(const AttentionMemory<keys>& memory, const CUtensorMap& output,
                                         const AttentionPlan& plan) {
  using Ring = Turn<attention_stages>;
  using Rows = AttentionRows<T, keys>;
  constexpr int turn_barrier = 1;   // and 2: whose turn it is to issue products
  constexpr int group_barrier = 3;  // and 4: the threads of a warpgroup
  const unsigned group = threadIdx.x / warpgroup;
  const unsigned thread = threadIdx.x % warpgroup;
  const bool first_lane = threadIdx.x % 32 == 0;
  const auto sync_group = [&] { named_barrier_sync(group_barrier + static_cast<int>(group), warpgroup); };
  const auto release = [&](std::uint32_t barrier) {
    if (first_lane) barrier_arrive(barrier);
  };
  AttentionSchedule schedule(plan);
  AttentionPiece piece;
  unsigned tiles = 0;
  unsigned pieces = 0;
  if (group == 1) named_barrier_arrive(turn_barrier, consumers * warpgroup);  // the first turn is group 0's
  while (schedule.next(piece)) {
    Rows rows;
    std::uint32_t query[8][4];
    barrier_wait(memory.query_full(group), pieces++ & 1u);
    load_query(query, memory.query(group));
    // An arrive does not wait for ldmatrix in flight: without the fence the copy engine overwrites rows that are still
    // being read. Errors stay small; only comparing repeated runs bit by bit shows it.
    fence_async_proxy();
    __syncwarp();
    release(memory.query_empty(group));

    typename Rows::Weights weights;
    {
      typename Rows::Scores scores;
      const Ring turn(tiles);
      barrier_wait(memory.key_full(turn.stage), turn.parity);
      Rows::multiply_keys(scores, query, memory.key(turn.stage));
      wgmma_wait<0>();
      settle(scores);
      release(memory.key_empty(turn.stage));
      const int valid = plan.key_tokens - (piece.end_key_tile - 1) * keys;
      if (valid < keys) Rows::hide(scores, valid);
      rows.exponentiate(scores, plan.scale_log2);
      Rows::round(scores, weights);
    }
#pragma unroll 1
    for (int left = piece.end_key_tile - piece.first_key_tile - 1; left > 0; --left) {
      typename Rows::Scores scores;
      const Ring value(tiles++);
      const Ring key(tiles);
      barrier_wait(memory.key_full(key.stage), key.parity);
      named_barrier_sync(turn_barrier + static_cast<int>(group), consumers * warpgroup);
      Rows::multiply_keys(scores, query, memory.key(key.stage));
      barrier_wait(memory.value_full(value.stage), value.parity);
      rows.multiply_values(weights, memory.value(value.stage));
      named_barrier_arrive(turn_barrier + static_cast<int>(group ^ 1u), consumers * warpgroup);
      wgmma_wait<1>();
      settle(scores);
      release(memory.key_empty(key.stage));
      rows.exponentiate(scores, plan.scale_log2);
      wgmma_wait<0>();
      settle(rows.output);
      settle(scores);
      release(memory.value_empty(value.stage));
      Rows::round(scores, weights);
      rows.rescale();
    }
    const Ring value(tiles++);
    barrier_wait(memory.value_full(value.stage), value.parity);
    rows.multiply_values(weights, memory.value(value.stage));
    wgmma_wait<0>();
    settle(rows.output);
    release(memory.value_empty(value.stage));
    rows.complete_sums();

    const auto slot = [&](unsigned block) {
      return plan.partials + (block * std::size_t{consumers} + group) * (partial_floats * warpgroup) + thread;
    };
    if (piece.first_key_tile > 0) {
      rows.hand_over(slot(blockIdx.x));
      __threadfence();
      sync_group();
      if (thread == 0) atomicExch(plan.flags + blockIdx.x * consumers + group, 1u);
      continue;
    }
    schedule.for_each_rest(piece, [&](unsigned block) {
      unsigned* flag = plan.flags + block * consumers + group;
      if (thread == 0) {
        while (atomicAdd(flag, 0u) == 0) {
        }
        __threadfence();
      }
      sync_group();
      rows.merge(slot(block), plan.scale_log2);
      sync_group();
      if (thread == 0) atomicExch(flag, 0u);  // ready for the next launch
    });
    if (thread == 0) tensor_store_wait_read();
    sync_group();
    rows.stage(memory.output(group));
    fence_async_proxy();
    sync_group();
    if (thread == 0)
      tensor_store(output, piece.row + static_cast<int>(group) * attention_queries, 2 * piece.head, piece.item,
                   memory.output(group));
  }
  if (thread == 0) tensor_store_wait();
}

template <Element T, int keys>
__global__ void __launch_bounds__(attention_threads, 1)
    attention_kernel(const __grid_constant__ CUtensorMap query, const __grid_constant__ CUtensorMap key,
                     const __grid_constant__ CUtensorMap value, const __grid_constant__ CUtensorMap output,
                     const __grid_constant__ AttentionPlan plan) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ std::uint8_t attention_memory[];
  const AttentionMemory<keys> memory(attention_memory);
  if (threadIdx.x == 0) memory.init_barriers();
  __syncthreads();
  if (threadIdx.x / warpgroup == consumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x % warpgroup == 0) produce_attention(memory, query, key, value, plan);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    consume_attention<T, keys>(memory, output, plan);
  }
#else
  __trap();  // the launcher refuses such builds and devices
#endif
}

/// Tiles of `keys` keys, at most `multiprocessors` blocks; the arguments were checked.
template <int keys, Element T>
cudaError_t launch_attention(const AttentionArguments<T>& a, int multiprocessors, cudaStream_t stream) noexcept {
  const AttentionShape& shape = a.shape;
  AttentionPlan plan{};
  const std::size_t query_tiles = (shape.query_tokens + attention_tile_rows - 1) / attention_tile_rows;
  const std::size_t tiles = query_tiles * shape.heads * shape.batch;
  if (tiles >= (std::size_t{1} << 30)) return cudaErrorInvalidValue;
  plan.heads = static_cast<int>(shape.heads);
  plan.key_tokens = static_cast<int>(shape.key_tokens);
  plan.key_tiles = (plan.key_tokens + keys - 1) / keys;
  plan.query_tiles = static_cast<int>(query_tiles);
  plan.tiles = static_cast<int>(tiles);
  plan.scale_log2 = a.scale * 1.4426950408889634f;
  plan.partials = static_cast<float*>(a.scratch);
  plan.flags = a.flags;
  // The last full round is divided together with the rest: two rounds' worth of work leaves less waiting at the end.
  const bool divides = a.scratch != nullptr && a.flags != nullptr && plan.tiles % multiprocessors != 0;
  plan.whole_rounds =
      divides ? std::max(0, plan.tiles / multiprocessors - 1) : (plan.tiles + multiprocessors - 1) / multiprocessors;
  plan.divided_key_tiles = std::max(0, plan.tiles - plan.whole_rounds * multiprocessors) * plan.key_tiles;

  const std::size_t columns = shape.heads * attention_dim;
  CUtensorMap query, key, value, output;
  cudaError_t status =
      make_tensor_map(query, a.query, shape.batch, shape.query_tokens, columns, a.query_stride, attention_queries, 2);
  if (status == cudaSuccess)
    status = make_tensor_map(key, a.key, shape.batch, shape.key_tokens, columns, a.key_stride, keys, 2);
  if (status == cudaSuccess)
    status = make_tensor_map(value, a.value, shape.batch, shape.key_tokens, columns, a.value_stride, keys, 2);
  if (status == cudaSuccess)
    status = make_tensor_map<T>(output, a.output, shape.batch, shape.query_tokens, columns, a.output_stride,
                                attention_queries, 2);
  constexpr unsigned bytes = AttentionMemory<keys>::bytes;
  if (status == cudaSuccess)
    status = cudaFuncSetAttribute(attention_kernel<T, keys>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (status != cudaSuccess) return status;
  const auto grid = static_cast<unsigned>(divides ? multiprocessors : std::min(multiprocessors, plan.tiles));
  attention_kernel<T, keys><<<grid, attention_threads, bytes, stream>>>(query, key, value, output, plan);
  return cudaGetLastError();
}

}  // namespace sm90

/// Memory for `AttentionArguments::scratch` and `flags` on a device of this many multiprocessors.
constexpr AttentionWorkspaceBytes sm90_attention_workspace(int multiprocessors) {
  const auto slots = static_cast<std::size_t>(multiprocessors) * sm90::consumers;
  return {slots * sm90::partial_floats * sm90::warpgroup * sizeof(float), slots * sizeof(unsigned)};
}

/// Whether `launch_sm90_attention` takes these arguments (the device must have compute capability 9.0 besides).
template <Element T>
bool fits_sm90_attention(const AttentionArguments<T>& a) noexcept {
  if constexpr (sizeof(T) != 2) return false;
  const auto aligned = [](const T* data, std::size_t stride) {
    return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
  };
  constexpr std::size_t limit = std::size_t{1} << 28;
  return a.shape.head_dim == sm90::attention_dim && a.mask == AttentionMask::none && a.bias == nullptr &&
         a.scale > 0.0f && std::isfinite(a.scale) && aligned(a.query, a.query_stride) && aligned(a.key, a.key_stride) &&
         aligned(a.value, a.value_stride) && aligned(a.output, a.output_stride) && a.shape.key_tokens > 0 &&
         a.shape.key_tokens < limit && a.shape.query_tokens < limit && a.shape.heads < limit / 128 &&
         a.shape.batch < limit / 128;
}

/// Attention for sm_90a with head dimension 128; T is bfloat16 or float16, accumulation in float32, the probabilities
/// are rounded to T. Enqueued on `stream`; allocates nothing; may be captured in a CUDA graph.
///
/// @return cudaErrorNotSupported for arguments that `fits_sm90_attention` refuses and for other devices or builds
template <Element T>
  requires(sizeof(T) == 2)
cudaError_t launch_sm90_attention(const AttentionArguments<T>& a, cudaStream_t stream) noexcept {
  const AttentionShape& shape = a.shape;
  if (shape.batch == 0 || shape.heads == 0 || shape.query_tokens == 0) return cudaSuccess;
  if (!fits_sm90_attention(a)) return cudaErrorNotSupported;
  int device = 0;
  int major = 0;
  int multiprocessors = 0;
  cudaFuncAttributes build{};
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (status == cudaSuccess) status = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (status == cudaSuccess) status = cudaFuncGetAttributes(&build, sm90::attention_kernel<T, 144>);
  if (status != cudaSuccess) return status;
  // A build without sm_90a has an empty kernel, which shows in its registers.
  if (major != 9 || build.numRegs < 128) return cudaErrorNotSupported;

  // Tiles of 144 keys run a few percent faster, unless tiles of 128 compute on less padding.
  const std::size_t padded_144 = (shape.key_tokens + 143) / 144 * 144;
  const std::size_t padded_128 = (shape.key_tokens + 127) / 128 * 128;
  return padded_128 * 26 < padded_144 * 25 ? sm90::launch_attention<128>(a, multiprocessors, stream)
                                           : sm90::launch_attention<144>(a, multiprocessors, stream);
}

}  // namespace ebb::cuda
