#pragma once

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/architecture.cuh"
#include "ebb/cuda/attention_arguments.hpp"
#include "ebb/cuda/mma.cuh"
#include "ebb/cuda/plain_attention.cuh"
#include "ebb/cuda/sm90_attention.cuh"

namespace ebb::cuda {

namespace detail {

/// How the portable kernel divides its work; `dim` is the head dimension, padded with zeros. A thread block makes
/// `value_dim` columns of the result: a large head is divided, because its sums would not fit the registers.
template <int dim_>
struct AttentionTile {
  static constexpr int dim = dim_;
  static constexpr int value_dim = dim < 256 ? dim : 256;
  static constexpr int parts = dim / value_dim;
  static constexpr int warps = 4;                         // 16 query rows each
  static constexpr int keys = dim <= 128 ? 64 : 32;       // rows of a key or value tile
  static constexpr bool query_in_registers = dim <= 128;  // else they are read again for each tile
  static constexpr int queries = 16 * warps;
  static constexpr int threads = 32 * warps;
  static constexpr int query_bytes = queries * 2 * dim;
  static constexpr int key_bytes = keys * 2 * dim;
  static constexpr int stage_bytes = key_bytes + keys * 2 * value_dim;
  /// Queries that live in registers pass through the memory of the second stage.
  static constexpr int bytes = 2 * stage_bytes + (query_in_registers ? 0 : query_bytes);
  static_assert(!query_in_registers || query_bytes <= stage_bytes);
};

/// Address of a 16-byte chunk of a row of `columns` elements: chunks are permuted within groups of eight so that a
/// column of eight rows meets no bank twice.
template <int columns>
__device__ inline std::uint32_t chunk_address(std::uint32_t base, int row, int chunk) {
  return base + static_cast<std::uint32_t>(row * 2 * columns + ((chunk ^ (row & 7)) << 4));
}

/// Starts copying `rows` rows of `columns` columns to shared memory; rows from `valid` on and columns from `head_dim`
/// on are zeros. Rows that are not made of aligned 16-byte chunks are copied element by element.
template <int columns, int rows, int threads, class T>
__device__ inline void copy_rows(std::uint32_t to, const T* from, std::size_t stride, int valid, int head_dim,
                                 bool aligned) {
  constexpr int chunks = columns / 8;
  for (int i = static_cast<int>(threadIdx.x); i < rows * chunks; i += threads) {
    const int row = i / chunks;
    const int chunk = i % chunks;
    const bool wanted = row < valid && 8 * chunk < head_dim;
    const T* source = from + static_cast<std::size_t>(row) * stride + 8 * chunk;
    const std::uint32_t target = chunk_address<columns>(to, row, chunk);
    if (aligned) {
      copy_async(target, wanted ? source : from, wanted);
    } else {
      std::uint32_t words[4] = {};
#pragma unroll
      for (int j = 0; j < 8; ++j)
        if (wanted && 8 * chunk + j < head_dim)
          words[j / 2] |= static_cast<std::uint32_t>(source[j].bits) << (16 * (j % 2));
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(target), "r"(words[0]), "r"(words[1]),
                   "r"(words[2]), "r"(words[3])
                   : "memory");
    }
  }
}

/// One thread block: `Tile::queries` rows of one head, all its keys. Each warp holds 16 rows' scores and results in
/// registers (Dao, FlashAttention-2, 2023).
template <class Tile, bool biased, class T>
__global__ void __launch_bounds__(Tile::threads) attention_kernel(AttentionArguments<T> a, bool aligned) {
  if (compiled_capability >= 120 && Tile::bytes > 99 * 1024) return;  // no such block fits there: the launcher refuses
  extern __shared__ __align__(16) std::uint8_t portable_attention_memory[];
  const std::uint32_t memory = shared_address(portable_attention_memory);
  const auto key_stage = [&](int tile) { return memory + static_cast<std::uint32_t>(tile % 2 * Tile::stage_bytes); };
  const auto value_stage = [&](int tile) { return key_stage(tile) + Tile::key_bytes; };
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int head_dim = static_cast<int>(a.shape.head_dim);
  const int query_tokens = static_cast<int>(a.shape.query_tokens);
  const int key_tokens = static_cast<int>(a.shape.key_tokens);
  const std::size_t column = blockIdx.y * a.shape.head_dim;
  const int first_query = static_cast<int>(blockIdx.x) / Tile::parts * Tile::queries;
  const int first_value = static_cast<int>(blockIdx.x) % Tile::parts * Tile::value_dim;
  const int value_columns = head_dim - first_value;
  const T* query =
      a.query + (blockIdx.z * a.shape.query_tokens + static_cast<std::size_t>(first_query)) * a.query_stride + column;
  const T* key = a.key + blockIdx.z * a.shape.key_tokens * a.key_stride + column;
  const T* value = a.value + blockIdx.z * a.shape.key_tokens * a.value_stride + column + first_value;
  const bool causal = a.mask == AttentionMask::causal;
  const int ahead = key_tokens - query_tokens;  // a causal query sees keys up to its index plus this
  const int seen = causal ? min(key_tokens, first_query + Tile::queries + ahead) : key_tokens;
  const int tiles = (seen + Tile::keys - 1) / Tile::keys;
  const auto copy_tile = [&](int tile) {
    const int first = tile * Tile::keys;
    const int valid = key_tokens - first;
    copy_rows<Tile::dim, Tile::keys, Tile::threads>(
        key_stage(tile), key + static_cast<std::size_t>(first) * a.key_stride, a.key_stride, valid, head_dim, aligned);
    copy_rows<Tile::value_dim, Tile::keys, Tile::threads>(value_stage(tile),
                                                          value + static_cast<std::size_t>(first) * a.value_stride,
                                                          a.value_stride, valid, value_columns, aligned);
    copy_async_commit();
  };

  const std::uint32_t query_memory = memory + (Tile::query_in_registers ? 1 : 2) * Tile::stage_bytes;
  copy_rows<Tile::dim, Tile::queries, Tile::threads>(query_memory, query, a.query_stride, query_tokens - first_query,
                                                     head_dim, aligned);
  copy_async_commit();
  copy_tile(0);
  const auto load_query = [&](std::uint32_t(&matrices)[4], int step) {
    load_matrices(matrices, chunk_address<Tile::dim>(query_memory, warp * 16 + lane % 16, 2 * step + lane / 16));
  };
  std::uint32_t queries[Tile::query_in_registers ? Tile::dim / 16 : 1][4];
  copy_async_wait<1>();
  __syncthreads();
  if constexpr (Tile::query_in_registers) {
#pragma unroll
    for (int step = 0; step < Tile::dim / 16; ++step) load_query(queries[step], step);
    __syncthreads();  // the second stage is about to be overwritten
  }

  constexpr float log2e = 1.4426950408889634f;
  const float scale_log2 = a.scale * log2e;
  const int rows[2] = {first_query + warp * 16 + lane / 4, first_query + warp * 16 + lane / 4 + 8};
  const int seen_by_all = causal ? min(key_tokens, rows[0] / 16 * 16 + ahead + 1) : key_tokens;  // rows of this warp
  const float* bias_rows[2];
  if constexpr (biased)
    for (int row = 0; row < 2; ++row)  // rows beyond the last query read the last one's
      bias_rows[row] =
          a.bias + (blockIdx.y * a.shape.query_tokens + static_cast<std::size_t>(min(rows[row], query_tokens - 1))) *
                       a.shape.key_tokens;
  float output[Tile::value_dim / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY};  // in units of log2
  float sum[2] = {};
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    const int first_key = tile * Tile::keys + 2 * (lane % 4);
    float offsets[biased ? Tile::keys / 8 : 1][4];
    if constexpr (biased) {
#pragma unroll
      for (int block = 0; block < Tile::keys / 8; ++block)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int at = first_key + 8 * block + i % 2;
          offsets[block][i] = at < key_tokens ? __ldg(bias_rows[i / 2] + at) : 0.0f;
        }
    }
    if (tile + 1 < tiles) {
      copy_tile(tile + 1);
      copy_async_wait<1>();
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
    float scores[Tile::keys / 8][4] = {};
    const auto add_products = [&](int step) {
      std::uint32_t reread[4];
      if constexpr (!Tile::query_in_registers) load_query(reread, step);
#pragma unroll
      for (int block = 0; block < Tile::keys / 16; ++block) {
        std::uint32_t keys[4];
        load_matrices(keys, chunk_address<Tile::dim>(key_stage(tile), 16 * block + lane / 16 * 8 + lane % 8,
                                                     2 * step + lane / 8 % 2));
        const auto& left = Tile::query_in_registers ? queries[Tile::query_in_registers ? step : 0] : reread;
        multiply_add<T>(scores[2 * block], left, keys[0], keys[1]);
        multiply_add<T>(scores[2 * block + 1], left, keys[2], keys[3]);
      }
    };
    if constexpr (compiled_capability >= 120 && !Tile::query_in_registers) {
#pragma unroll 2  // all steps at once would spill
      for (int step = 0; step < Tile::dim / 16; ++step) add_products(step);
    } else {
#pragma unroll
      for (int step = 0; step < Tile::dim / 16; ++step) add_products(step);
    }
#pragma unroll
    for (int block = 0; block < Tile::keys / 8; ++block)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[block][i] *= scale_log2;
        if constexpr (biased) scores[block][i] = fmaf(offsets[block][i], log2e, scores[block][i]);
      }
    if ((tile + 1) * Tile::keys > seen_by_all) {
#pragma unroll
      for (int block = 0; block < Tile::keys / 8; ++block)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int at = first_key + 8 * block + i % 2;
          if (at >= key_tokens || (causal && at > rows[i / 2] + ahead)) scores[block][i] = -INFINITY;
        }
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float top = largest[row];
#pragma unroll
      for (int block = 0; block < Tile::keys / 8; ++block)
        top = fmaxf(top, fmaxf(scores[block][2 * row], scores[block][2 * row + 1]));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      const float base = top == -INFINITY ? 0.0f : top;  // a row whose keys so far are all hidden by the bias
      const float factor = power_of_two(largest[row] - base);
      largest[row] = top;
      float added = 0.0f;
#pragma unroll
      for (int block = 0; block < Tile::keys / 8; ++block)
#pragma unroll
        for (int i = 2 * row; i < 2 * row + 2; ++i) {
          scores[block][i] = power_of_two(scores[block][i] - base);
          added += scores[block][i];
        }
      sum[row] = sum[row] * factor + added;
#pragma unroll
      for (int block = 0; block < Tile::value_dim / 8; ++block) {
        output[block][2 * row] *= factor;
        output[block][2 * row + 1] *= factor;
      }
    }
#pragma unroll
    for (int step = 0; step < Tile::keys / 16; ++step) {
      const std::uint32_t weights[4] = {pack_pair<T>(scores[2 * step][0], scores[2 * step][1]),
                                        pack_pair<T>(scores[2 * step][2], scores[2 * step][3]),
                                        pack_pair<T>(scores[2 * step + 1][0], scores[2 * step + 1][1]),
                                        pack_pair<T>(scores[2 * step + 1][2], scores[2 * step + 1][3])};
#pragma unroll
      for (int block = 0; block < Tile::value_dim / 16; ++block) {
        std::uint32_t values[4];
        load_matrices_transposed(
            values, chunk_address<Tile::value_dim>(value_stage(tile), 16 * step + lane % 16, 2 * block + lane / 16));
        multiply_add<T>(output[2 * block], weights, values[0], values[1]);
        multiply_add<T>(output[2 * block + 1], weights, values[2], values[3]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    sum[row] += __shfl_xor_sync(~0u, sum[row], 1);
    sum[row] += __shfl_xor_sync(~0u, sum[row], 2);
    const float inverse = 1.0f / sum[row];
    if (rows[row] >= query_tokens) continue;
    T* out = a.output + (blockIdx.z * a.shape.query_tokens + static_cast<std::size_t>(rows[row])) * a.output_stride +
             column + first_value;
#pragma unroll
    for (int block = 0; block < Tile::value_dim / 8; ++block) {
      const int at = 8 * block + 2 * (lane % 4);
      const float pair[2] = {output[block][2 * row] * inverse, output[block][2 * row + 1] * inverse};
      if (aligned && at < value_columns) {
        *reinterpret_cast<std::uint32_t*>(out + at) = pack_pair<T>(pair[0], pair[1]);
      } else {
        if (at < value_columns) out[at] = T(pair[0]);
        if (at + 1 < value_columns) out[at + 1] = T(pair[1]);
      }
    }
  }
}

template <int dim, class T>
cudaError_t launch_portable_attention(const AttentionArguments<T>& a, cudaStream_t stream) noexcept {
  using Tile = AttentionTile<dim>;
  const auto chunked = [](const T* data, std::size_t stride) {
    return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride % 8 == 0;
  };
  const bool aligned = a.shape.head_dim % 8 == 0 && chunked(a.query, a.query_stride) && chunked(a.key, a.key_stride) &&
                       chunked(a.value, a.value_stride) && chunked(a.output, a.output_stride);
  const auto kernel = a.bias == nullptr ? attention_kernel<Tile, false, T> : attention_kernel<Tile, true, T>;
  const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::bytes);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();
    // The largest tile needs more memory than some devices have.
    return Tile::parts > 1 ? cudaErrorNotSupported : status;
  }
  const dim3 grid(static_cast<unsigned>((a.shape.query_tokens + Tile::queries - 1) / Tile::queries * Tile::parts),
                  static_cast<unsigned>(a.shape.heads), static_cast<unsigned>(a.shape.batch));
  kernel<<<grid, Tile::threads, Tile::bytes, stream>>>(a, aligned);
  return cudaGetLastError();
}

}  // namespace detail

/// Attention for sm_80 and later with tensor cores: 16-bit T, head dimension up to 512, masks and bias; accumulation in
/// float32, the probabilities are rounded to T. Rows of aligned 16-byte chunks run fastest; any others are right.
///
/// @return cudaErrorNotSupported for a larger head dimension, and above 256 on devices with less than 160 KiB of shared
/// memory; cudaErrorInvalidValue for extents that no grid holds
template <Element T>
  requires(sizeof(T) == 2)
cudaError_t launch_portable_attention(const AttentionArguments<T>& a, cudaStream_t stream) noexcept {
  if (a.shape.batch * a.shape.heads * a.shape.query_tokens * a.shape.head_dim == 0) return cudaSuccess;
  if (const cudaError_t status = detail::check_attention_extents(a); status != cudaSuccess) return status;
  if (a.shape.head_dim <= 64) return detail::launch_portable_attention<64>(a, stream);
  if (a.shape.head_dim <= 128) return detail::launch_portable_attention<128>(a, stream);
  if (a.shape.head_dim <= 256) return detail::launch_portable_attention<256>(a, stream);
  if (a.shape.head_dim <= 512) return detail::launch_portable_attention<512>(a, stream);
  return cudaErrorNotSupported;
}

/// softmax(q k^T * scale + bias) v by the fastest kernel that takes the arguments and runs on the current device.
/// Enqueued on `stream`; allocates nothing; may be captured in a CUDA graph.
///
/// @return cudaErrorNotSupported for a head dimension above 512
template <Element T>
cudaError_t launch_attention(const AttentionArguments<T>& a, cudaStream_t stream) noexcept {
  if constexpr (sizeof(T) == 2) {
    if (fits_sm90_attention(a)) {
      const cudaError_t status = launch_sm90_attention(a, stream);
      if (status != cudaErrorNotSupported) return status;
    }
    const cudaError_t status = launch_portable_attention(a, stream);
    if (status != cudaErrorNotSupported) return status;
  }
  return launch_plain_attention(a, stream);
}

}  // namespace ebb::cuda
