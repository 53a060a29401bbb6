#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/host/context.hpp"
#include "ebb/host/linear.hpp"
#include "ebb/host/threads.hpp"
#include "ebb/ops/attention.hpp"
#include "ebb/tensor/quantized_tensor.hpp"

namespace ebb::host {

namespace detail {

inline constexpr std::size_t query_tile = 64;

/// One head's columns of `count` rows, as contiguous float32 rows.
template <class T>
void gather_head(const Matrix<const T>& from, std::size_t first_row, std::size_t count, std::size_t first_column,
                 std::size_t head_dim, float* to) {
  for (std::size_t row = 0; row < count; ++row)
    for (std::size_t i = 0; i < head_dim; ++i)
      to[row * head_dim + i] = static_cast<float>(from(first_row + row, first_column + i));
}

}  // namespace detail

/// See ops/attention.hpp. Tiles of 64 queries against all keys of one head at a time: scores of a tile are the
/// largest temporary.
template <Element T>
void attention(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> q, std::type_identity_t<Matrix<const T>> k,
               std::type_identity_t<Matrix<const T>> v, const AttentionShape& shape, float scale, AttentionMask mask,
               Matrix<const float> bias, Matrix<T> y) {
  check_attention(q, k, v, shape, mask, bias, y);
  if (y.size() == 0) return;
  const auto frame = ctx.workspace().frame();
  const auto threads = static_cast<std::size_t>(ctx.threads());
  const std::size_t d = shape.head_dim;
  const std::size_t keys = shape.key_tokens;
  const std::size_t per_thread = 2 * keys * d + detail::query_tile * (keys + 2 * d);
  const auto scratch = ctx.template array<float>(threads * per_thread);
  const std::size_t tiles = (shape.query_tokens + detail::query_tile - 1) / detail::query_tile;
#pragma omp parallel num_threads(detail::threads_for(ctx, y.size() * keys))
  {
    float* own = scratch.data() + detail::thread_number() * per_thread;
    float* head_k = own;
    float* head_v = head_k + keys * d;
    float* head_q = head_v + keys * d;
    float* head_y = head_q + detail::query_tile * d;
    float* scores = head_y + detail::query_tile * d;
    std::size_t gathered = std::numeric_limits<std::size_t>::max();
#pragma omp for schedule(static)
    for (std::size_t job = 0; job < shape.batch * shape.heads * tiles; ++job) {
      const std::size_t pair = job / tiles;
      const std::size_t item = pair / shape.heads;
      const std::size_t head = pair % shape.heads;
      const std::size_t first = job % tiles * detail::query_tile;
      const std::size_t count = std::min(detail::query_tile, shape.query_tokens - first);
      if (gathered != pair) {
        detail::gather_head<T>(k, item * keys, keys, head * d, d, head_k);
        detail::gather_head<T>(v, item * keys, keys, head * d, d, head_v);
        gathered = pair;
      }
      detail::gather_head<T>(q, item * shape.query_tokens + first, count, head * d, d, head_q);
      detail::multiply(head_q, d, head_k, d, scores, keys, count, keys, d);
      for (std::size_t row = 0; row < count; ++row) {
        float* line = scores + row * keys;
        const std::size_t seen = mask == AttentionMask::causal ? first + row + 1 + (keys - shape.query_tokens) : keys;
        float largest = -std::numeric_limits<float>::infinity();
        for (std::size_t i = 0; i < seen; ++i) {
          line[i] *= scale;
          if (bias.data != nullptr) line[i] += bias(head * shape.query_tokens + first + row, i);
          largest = std::max(largest, line[i]);
        }
        float sum = 0.0f;
        for (std::size_t i = 0; i < seen; ++i) {
          line[i] = std::exp(line[i] - largest);
          sum += line[i];
        }
        const float inverse = 1.0f / sum;
        for (std::size_t i = 0; i < seen; ++i) line[i] *= inverse;
        std::fill(line + seen, line + keys, 0.0f);
      }
      const detail::ConstRows left(scores, detail::index(count), detail::index(keys),
                                   Eigen::OuterStride<>(detail::index(keys)));
      const detail::ConstRows right(head_v, detail::index(keys), detail::index(d),
                                    Eigen::OuterStride<>(detail::index(d)));
      detail::Rows result(head_y, detail::index(count), detail::index(d), Eigen::OuterStride<>(detail::index(d)));
      result.noalias() = left * right;
      for (std::size_t row = 0; row < count; ++row)
        for (std::size_t i = 0; i < d; ++i)
          y(item * shape.query_tokens + first + row, head * d + i) = static_cast<T>(head_y[row * d + i]);
    }
  }
}

/// See ops/attention.hpp.
template <Element T>
void relative_bias(const Context<T>&, const Vector& table, std::span<const std::int32_t> buckets, Matrix<float> bias) {
  check_relative_bias(table.shape(), buckets, bias);
  const auto values = table.values();
  const std::size_t tokens = bias.columns;
  const std::size_t heads = table.shape()[1];
  for (std::size_t head = 0; head < heads; ++head)
    for (std::size_t query = 0; query < tokens; ++query)
      for (std::size_t key = 0; key < tokens; ++key)
        bias(head * tokens + query, key) =
            values[static_cast<std::size_t>(buckets[key + tokens - 1 - query]) * heads + head];
}

}  // namespace ebb::host
