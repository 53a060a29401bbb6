#pragma once

#include <cmath>
#include <cstdint>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/mma.cuh"
#include "ebb/cuda/sm90_attention_schedule.cuh"
#include "ebb/cuda/sm90_wgmma.cuh"

namespace ebb::cuda::sm90 {

inline constexpr int partial_floats = attention_dim / 2 + 4;  // of one thread: accumulators, 2 maxima, 2 sums

/// One thread's share of 64 query rows: two rows, `upper` and `upper + 8`, of which four threads hold the columns.
template <Element T, int keys>
struct AttentionRows {
  static constexpr unsigned panel_bytes = keys * 128;  // 64 columns of a key or value tile
  using Scores = float[keys / 2];
  using Weights = std::uint32_t[keys / 16][4];

  float output[attention_dim / 2] = {};
  float largest[2] = {-INFINITY, -INFINITY};  // raw score that the exponentials are relative to
  float sum[2] = {};                          // this thread's columns only, until the end
  float factor[2];                            // what a change of `largest` multiplies older results by

  static __device__ void multiply_keys(Scores& scores, const std::uint32_t (&query)[8][4], std::uint32_t key) {
    wgmma_fence();
#pragma unroll
    for (unsigned i = 0; i < 8; ++i)
      wgmma<T>(scores, query[i], operand(key + i / 4 * panel_bytes + i % 4 * 32, 16, 1024), i > 0);
    wgmma_commit();
  }
  __device__ void multiply_values(const Weights& weights, std::uint32_t value) {
    wgmma_fence();
#pragma unroll
    for (unsigned i = 0; i < keys / 16; ++i)
      wgmma_transposed<T>(output, weights[i], operand(value + i * 2048, panel_bytes, 1024), 1);
    wgmma_commit();
  }

  /// Hides the columns from `valid` on.
  static __device__ void hide(Scores& scores, int valid) {
    const int column = 2 * static_cast<int>(threadIdx.x & 3u);
#pragma unroll
    for (int i = 0; i < keys / 2; i += 4) {
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
    for (int i = 4; i < keys / 2; i += 4) {
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
    for (int i = 0; i < keys / 2; i += 4) {
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
    for (int i = 0; i < keys / 4; ++i) weights[i / 4][i % 4] = pack_pair<T>(scores[2 * i], scores[2 * i + 1]);
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

}  // namespace ebb::cuda::sm90
