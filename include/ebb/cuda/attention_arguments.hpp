#pragma once

#include <cstddef>

#include "ebb/core/dtype.hpp"
#include "ebb/ops/attention.hpp"

namespace ebb::cuda {

/// Bytes of the two pieces of memory that attention splits work with.
struct AttentionWorkspaceBytes {
  std::size_t scratch = 0;  // contents do not matter; 16-byte aligned
  std::size_t flags = 0;    // zero before the first launch
};

/// softmax(q k^T * scale + bias) v for each item and head; see ops/attention.hpp. All pointers are device pointers.
template <Element T>
struct AttentionArguments {
  const T* query = nullptr;  // [batch * query_tokens, heads * head_dim], rows `query_stride` elements apart
  const T* key = nullptr;    // [batch * key_tokens, heads * head_dim]
  const T* value = nullptr;
  T* output = nullptr;  // as query; overlaps none of the others
  std::size_t query_stride = 0;
  std::size_t key_stride = 0;
  std::size_t value_stride = 0;
  std::size_t output_stride = 0;
  AttentionShape shape;
  float scale = 1.0f;
  AttentionMask mask = AttentionMask::none;
  const float* bias = nullptr;  // [heads, query_tokens, key_tokens], contiguous, or null

  /// Both or neither. Without them the sm_90 kernel does not divide the last tiles among the multiprocessors, and
  /// leaves some of them idle. Every launch leaves `flags` zero, so that zeroing them once, where they are allocated,
  /// is enough, also under CUDA graphs. Launches that may overlap in time need their own pair.
  void* scratch = nullptr;
  unsigned* flags = nullptr;
};

}  // namespace ebb::cuda
