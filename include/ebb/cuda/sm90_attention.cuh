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

inline constexpr int warpgroup = 128;
inline constexpr int consumers = 2;           // warpgroups
inline constexpr int attention_dim = 128;     // head dimension
inline constexpr int attention_queries = 64;  // rows of one warpgroup
inline constexpr int attention_keys = 144;    // rows of a key or value tile
inline constexpr unsigned attention_stages = 2;
inline constexpr int attention_tile_rows = consumers * attention_queries;
inline constexpr int attention_threads = (consumers + 1) * warpgroup;
inline constexpr int partial_floats = attention_dim / 2 + 4;  // of one thread: accumulators, 2 maxima, 2 sums

/// The kernel's arguments beside the tensor maps.
struct AttentionPlan {
  int heads;
  int key_tokens;
  int key_tiles;          // of one head
  int query_tiles;        // of one head
  int tiles;              // of all heads and items
  int whole_rounds;       // rounds in which each block takes a whole tile; the tiles after them are divided
  int divided_key_tiles;  // key tiles in all divided tiles
  float scale_log2;       // scale * log2(e): the exponentials are powers of two
  float* partials;
  unsigned* flags;
};

/// A query tile, or a part of its keys.
struct AttentionPiece {
  int item;
  int head;
  int row;
  int first_key_tile;
  int end_key_tile;
};

/// The pieces of one thread block; producer and consumers walk the same list.
class AttentionSchedule {
 public:
  __device__ explicit AttentionSchedule(const AttentionPlan& plan) : plan_(plan) {
    begin_ = first_divided(share_of(blockIdx.x));
    end_ = first_divided(share_of(blockIdx.x) + 1);
  }

  __device__ bool next(AttentionPiece& piece) {
    int tile;
    if (round_ < plan_.whole_rounds) {
      tile = static_cast<int>(blockIdx.x + round_++ * gridDim.x);
      if (tile >= plan_.tiles) return false;
      piece.first_key_tile = 0;
      piece.end_key_tile = plan_.key_tiles;
    } else {
      if (begin_ >= end_) return false;
      tile = begin_ / plan_.key_tiles;
      piece.first_key_tile = begin_ - tile * plan_.key_tiles;
      piece.end_key_tile = min(plan_.key_tiles, piece.first_key_tile + end_ - begin_);
      begin_ += piece.end_key_tile - piece.first_key_tile;
      tile += plan_.whole_rounds * static_cast<int>(gridDim.x);
    }
    const int head = tile / plan_.query_tiles;
    piece.item = head / plan_.heads;
    piece.head = head - piece.item * plan_.heads;
    piece.row = (tile - head * plan_.query_tiles) * attention_tile_rows;
    return true;
  }

  /// Calls `take(block)` for the blocks that hold the rest of a divided tile, in the order of its keys.
  template <class Take>
  __device__ void for_each_rest(const AttentionPiece& piece, Take take) const {
    int key_tile = piece.end_key_tile;
    for (int share = share_of(blockIdx.x) + 1; key_tile < plan_.key_tiles; ++share) {
      const int length = first_divided(share + 1) - first_divided(share);
      if (length == 0) continue;
      take(share_of(share));
      key_tile += min(plan_.key_tiles - key_tile, length);
    }
  }

 private:
  /// Shares run against the block indices: a block then waits only for blocks with smaller indices, which the hardware
  /// starts earlier, so that waiting cannot deadlock when other work holds some of the multiprocessors.
  __device__ static int share_of(int block) { return static_cast<int>(gridDim.x) - 1 - block; }
  /// First divided key tile, counted over all divided tiles, of one share.
  __device__ int first_divided(int share) const {
    return static_cast<int>(static_cast<long long>(plan_.divided_key_tiles) * share / static_cast<int>(gridDim.x));
  }

  const AttentionPlan& plan_;
  int round_ = 0;
  int begin_;
  int end_;
};

/// Shared memory of a block, by address; buffers aligned to 1024 bytes for the swizzle.
struct AttentionMemory {
  static constexpr unsigned query_bytes = attention_queries * attention_dim * 2;
  static constexpr unsigned tile_bytes = attention_keys * attention_dim * 2;
  static constexpr unsigned panel_bytes = attention_keys * 128;  // 64 columns of a key or value tile
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
__device__ inline void produce_attention(const AttentionMemory& memory, const CUtensorMap& query,
                                         const CUtensorMap& key, const CUtensorMap& value, const AttentionPlan& plan) {
  using Ring = Turn<attention_stages>;
  AttentionSchedule schedule(plan);
  AttentionPiece piece{};
  unsigned tiles = 0;  // key tiles so far
  unsigned pieces = 0;
  const auto load_key = [&](int tile) {
    const Ring turn(tiles);
    if (tiles >= attention_stages) barrier_wait(memory.key_empty(turn.stage), turn.parity ^ 1u);
    barrier_expect(memory.key_full(turn.stage), AttentionMemory::tile_bytes);
    tensor_load(memory.key(turn.stage), key, tile * attention_keys, 2 * piece.head, piece.item,
                memory.key_full(turn.stage));
    ++tiles;
  };
  const auto load_value = [&](int tile, unsigned count) {
    const Ring turn(count);
    if (count >= attention_stages) barrier_wait(memory.value_empty(turn.stage), turn.parity ^ 1u);
    barrier_expect(memory.value_full(turn.stage), AttentionMemory::tile_bytes);
    tensor_load(memory.value(turn.stage), value, tile * attention_keys, 2 * piece.head, piece.item,
                memory.value_full(turn.stage));
  };
  while (schedule.next(piece)) {
    load_key(piece.end_key_tile - 1);
#pragma unroll 1  // twenty-four registers are left to this thread
    for (unsigned i = 0; i < consumers; ++i) {
      if (pieces > 0) barrier_wait(memory.query_empty(i), (pieces & 1u) ^ 1u);
      barrier_expect(memory.query_full(i), AttentionMemory::query_bytes);
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

/// One thread's share of 64 query rows: two rows, `upper` and `upper + 8`, of which four threads hold the columns.
template <Element T>
struct AttentionRows {
  using Scores = float[attention_keys / 2];
  using Weights = std::uint32_t[attention_keys / 16][4];

  float output[attention_dim / 2] = {};
  float largest[2] = {-INFINITY, -INFINITY};  // raw score that the exponentials are relative to
  float sum[2] = {};                          // this thread's columns only, until the end
  float factor[2];                            // what a change of `largest` multiplies older results by

  static __device__ void multiply_keys(Scores& scores, const std::uint32_t (&query)[8][4], std::uint32_t key) {
    wgmma_fence();
#pragma unroll
    for (unsigned i = 0; i < 8; ++i)
      wgmma_m64n144k16<T>(scores, query[i], operand(key + i / 4 * AttentionMemory::panel_bytes + i % 4 * 32, 16, 1024),
                          i > 0);
    wgmma_commit();
  }
  __device__ void multiply_values(const Weights& weights, std::uint32_t value) {
    wgmma_fence();
#pragma unroll
    for (unsigned i = 0; i < attention_keys / 16; ++i)
      wgmma_m64n128k16_transposed<T>(output, weights[i], operand(value + i * 2048, AttentionMemory::panel_bytes, 1024),
                                     1);
    wgmma_commit();
  }

  /// Hides the columns from `valid` on.
  static __device__ void hide(Scores& scores, int valid) {
    const int column = 2 * static_cast<int>(threadIdx.x & 3u);
#pragma unroll
    for (int i = 0; i < attention_keys / 2; i += 4) {
      const int key = 2 * i + column;
      if (key >= valid) scores[i] = scores[i + 2] = -INFINITY;
      if (key + 1 >= valid) scores[i + 1] = scores[i + 3] = -INFINITY;
    }
  }

  /// Scores to exponentials. `largest` follows the true maximum only when that is 2^8 times ahead: the exponentials
  /// stay below 2^8, far inside float16 and float32, and most tiles need no rescaling.
  __device__ void exponentiate(Scores& scores, float scale_log2) {
    float top[2] = {fmaxf(scores[0], scores[1]), fmaxf(scores[2], scores[3])};
#pragma unroll
    for (int i = 4; i < attention_keys / 2; i += 4) {
      top[0] = fmaxf(top[0], fmaxf(scores[i], scores[i + 1]));
      top[1] = fmaxf(top[1], fmaxf(scores[i + 2], scores[i + 3]));
    }
    float offset[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      top[row] = fmaxf(top[row], __shfl_xor_sync(~0u, top[row], 1));
      top[row] = fmaxf(top[row], __shfl_xor_sync(~0u, top[row], 2));
      if (!((top[row] - largest[row]) * scale_log2 > 8.0f)) top[row] = largest[row];
      factor[row] = power_of_two((largest[row] - top[row]) * scale_log2);
      largest[row] = top[row];
      offset[row] = top[row] * scale_log2;
    }
    float added[2] = {};
#pragma unroll
    for (int i = 0; i < attention_keys / 2; i += 4) {
#pragma unroll
      for (int j = 0; j < 4; ++j) scores[i + j] = power_of_two(fmaf(scores[i + j], scale_log2, -offset[j / 2]));
      added[0] += scores[i] + scores[i + 1];
      added[1] += scores[i + 2] + scores[i + 3];
    }
    sum[0] = sum[0] * factor[0] + added[0];
    sum[1] = sum[1] * factor[1] + added[1];
  }

  static __device__ void round(const Scores& scores, Weights& weights) {
#pragma unroll
    for (int i = 0; i < attention_keys / 4; ++i) weights[i / 4][i % 4] = pack_pair<T>(scores[2 * i], scores[2 * i + 1]);
  }

  __device__ void rescale() {
    if (!__any_sync(~0u, factor[0] != 1.0f || factor[1] != 1.0f)) return;
#pragma unroll
    for (int i = 0; i < attention_dim / 2; ++i) output[i] *= factor[i / 2 % 2];
  }

  __device__ void complete_sums() {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      sum[row] += __shfl_xor_sync(~0u, sum[row], 1);
      sum[row] += __shfl_xor_sync(~0u, sum[row], 2);
    }
  }

  /// Leaves everything where `merge` of another block finds it. `slot` is this thread's first float.
  __device__ void hand_over(float* slot) const {
#pragma unroll
    for (int i = 0; i < attention_dim / 2; ++i) slot[i * warpgroup] = output[i];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      slot[(attention_dim / 2 + row) * warpgroup] = largest[row];
      slot[(attention_dim / 2 + 2 + row) * warpgroup] = sum[row];
    }
  }
  __device__ void merge(const float* slot, float scale_log2) {
    float own[2];
    float other[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float found = __ldcg(slot + (attention_dim / 2 + row) * warpgroup);
      const float top = fmaxf(largest[row], found);
      own[row] = power_of_two((largest[row] - top) * scale_log2);
      other[row] = power_of_two((found - top) * scale_log2);
      sum[row] = sum[row] * own[row] + __ldcg(slot + (attention_dim / 2 + 2 + row) * warpgroup) * other[row];
      largest[row] = top;
    }
#pragma unroll
    for (int i = 0; i < attention_dim / 2; ++i)
      output[i] = output[i] * own[i / 2 % 2] + __ldcg(slot + i * warpgroup) * other[i / 2 % 2];
  }

  /// Divides by the sums and writes the 64 rows to shared memory in the copy engine's swizzle.
  __device__ void stage(std::uint32_t to) const {
    const float inverse[2] = {1.0f / sum[0], 1.0f / sum[1]};
    const unsigned lane = threadIdx.x % 32;
    const unsigned row = threadIdx.x % warpgroup / 32 * 16 + lane % 16;
#pragma unroll
    for (unsigned j = 0; j < attention_dim / 8; j += 2) {
      const unsigned chunk = j + lane / 16;
      const std::uint32_t at = to + j / 8 * (attention_queries * 128) + row * 128 + ((chunk % 8 ^ row % 8) << 4);
      std::uint32_t word[4];
#pragma unroll
      for (unsigned i = 0; i < 4; ++i)
        word[i] = pack_pair<T>(output[4 * j + 2 * i] * inverse[i % 2], output[4 * j + 2 * i + 1] * inverse[i % 2]);
      asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(word[0]),
                   "r"(word[1]), "r"(word[2]), "r"(word[3])
                   : "memory");
    }
  }
};

/// Reads a warp's 16 query rows as operand registers.
__device__ inline void load_query(std::uint32_t (&query)[8][4], std::uint32_t from) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned row = threadIdx.x % warpgroup / 32 * 16 + lane % 16;
#pragma unroll
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned chunk = 2 * (i % 4) + lane / 16;
    const std::uint32_t at = from + i / 4 * (attention_queries * 128) + row * 128 + ((chunk ^ row % 8) << 4);
    load_matrices(query[i], at);
  }
}

/// One consumer warpgroup.
template <Element T>
__device__ inline void consume_attention(const AttentionMemory& memory, const CUtensorMap& output,
                                         const AttentionPlan& plan) {
  using Ring = Turn<attention_stages>;
  using Rows = AttentionRows<T>;
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
      const int valid = plan.key_tokens - (piece.end_key_tile - 1) * attention_keys;
      if (valid < attention_keys) Rows::hide(scores, valid);
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

template <Element T>
__global__ void __launch_bounds__(attention_threads, 1)
    attention_kernel(const __grid_constant__ CUtensorMap query, const __grid_constant__ CUtensorMap key,
                     const __grid_constant__ CUtensorMap value, const __grid_constant__ CUtensorMap output,
                     const __grid_constant__ AttentionPlan plan) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ std::uint8_t attention_memory[];
  const AttentionMemory memory(attention_memory);
  if (threadIdx.x == 0) memory.init_barriers();
  __syncthreads();
  if (threadIdx.x / warpgroup == consumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x % warpgroup == 0) produce_attention(memory, query, key, value, plan);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    consume_attention<T>(memory, output, plan);
  }
#else
  __trap();  // the launcher refuses such builds and devices
#endif
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
requires(sizeof(T) == 2) cudaError_t launch_sm90_attention(const AttentionArguments<T>& a, cudaStream_t stream)
noexcept {
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
  if (status == cudaSuccess) status = cudaFuncGetAttributes(&build, sm90::attention_kernel<T>);
  if (status != cudaSuccess) return status;
  // A build without sm_90a has an empty kernel, which shows in its registers.
  if (major != 9 || build.numRegs < 128) return cudaErrorNotSupported;

  sm90::AttentionPlan plan{};
  const std::size_t query_tiles = (shape.query_tokens + sm90::attention_tile_rows - 1) / sm90::attention_tile_rows;
  const std::size_t tiles = query_tiles * shape.heads * shape.batch;
  if (tiles >= (std::size_t{1} << 30)) return cudaErrorInvalidValue;
  plan.heads = static_cast<int>(shape.heads);
  plan.key_tokens = static_cast<int>(shape.key_tokens);
  plan.key_tiles = (plan.key_tokens + sm90::attention_keys - 1) / sm90::attention_keys;
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

  const std::size_t columns = shape.heads * sm90::attention_dim;
  CUtensorMap query, key, value, output;
  status = sm90::make_tensor_map(query, a.query, shape.batch, shape.query_tokens, columns, a.query_stride,
                                 sm90::attention_queries, 2);
  if (status == cudaSuccess)
    status = sm90::make_tensor_map(key, a.key, shape.batch, shape.key_tokens, columns, a.key_stride,
                                   sm90::attention_keys, 2);
  if (status == cudaSuccess)
    status = sm90::make_tensor_map(value, a.value, shape.batch, shape.key_tokens, columns, a.value_stride,
                                   sm90::attention_keys, 2);
  if (status == cudaSuccess)
    status = sm90::make_tensor_map<T>(output, a.output, shape.batch, shape.query_tokens, columns, a.output_stride,
                                      sm90::attention_queries, 2);
  if (status == cudaSuccess)
    status = cudaFuncSetAttribute(sm90::attention_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  sm90::AttentionMemory::bytes);
  if (status != cudaSuccess) return status;
  const auto grid = static_cast<unsigned>(divides ? multiprocessors : std::min(multiprocessors, plan.tiles));
  sm90::attention_kernel<T>
      <<<grid, sm90::attention_threads, sm90::AttentionMemory::bytes, stream>>>(query, key, value, output, plan);
  return cudaGetLastError();
}

}  // namespace ebb::cuda
