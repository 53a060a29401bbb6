#pragma once

#include <cuda_runtime_api.h>

namespace ebb::cuda::sm90 {

inline constexpr int warpgroup = 128;
inline constexpr int consumers = 2;           // warpgroups that compute
inline constexpr int attention_dim = 128;     // head dimension
inline constexpr int attention_queries = 64;  // rows of one consumer
inline constexpr int attention_tile_rows = consumers * attention_queries;

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

}  // namespace ebb::cuda::sm90
