#pragma once

#include <cstddef>

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/core/view.hpp"

namespace ebb {

/// Which keys a query sees: all, or those up to its own position.
enum class AttentionMask { none, causal };

/// Extents of one attention; items of the batch do not see one another.
struct AttentionShape {
  std::size_t batch = 1;
  std::size_t heads = 1;
  std::size_t head_dim = 0;
  std::size_t query_tokens = 0;
  std::size_t key_tokens = 0;
};

/// Contract of attention(ctx, q, k, v, shape, scale, mask, bias, y): softmax(q k^T * scale + bias) v for each item and
/// head, accumulated in float32.
///   q, y [batch * query_tokens, heads * head_dim]; k, v [batch * key_tokens, heads * head_dim]; rows may be strided
///   bias [heads * query_tokens, key_tokens] in float32, added to the scores of every item, or empty; -infinity hides a
///   key, and a query that sees none is NaN throughout, as a softmax of nothing but -infinity is
/// y overlaps none of the others. Causal needs query_tokens <= key_tokens.
/// @throws ShapeError
template <class Q, class K, class V, class B, class Y>
void check_attention(const Q& q, const K& k, const V& v, const AttentionShape& shape, AttentionMask mask, const B& bias,
                     const Y& y) {
  const std::size_t width = shape.heads * shape.head_dim;
  const std::size_t queries = shape.batch * shape.query_tokens;
  const std::size_t keys = shape.batch * shape.key_tokens;
  const auto is = [&](const auto& matrix, std::size_t rows) { return matrix.rows == rows && matrix.columns == width; };
  if (!is(q, queries) || !is(y, queries) || !is(k, keys) || !is(v, keys) || (keys == 0 && queries != 0))
    throw ShapeError(concat("attention: expected q and y [", queries, ", ", width, "], k and v [", keys, ", ", width,
                            "], found q [", q.rows, ", ", q.columns, "], k [", k.rows, ", ", k.columns, "], v [",
                            v.rows, ", ", v.columns, "], y [", y.rows, ", ", y.columns, "]"));
  if (bias.data != nullptr && (bias.rows != shape.heads * shape.query_tokens || bias.columns != shape.key_tokens))
    throw ShapeError(concat("attention: expected bias [", shape.heads * shape.query_tokens, ", ", shape.key_tokens,
                            "], found [", bias.rows, ", ", bias.columns, "]"));
  if (mask == AttentionMask::causal && shape.query_tokens > shape.key_tokens)
    throw ShapeError("attention: causal attention needs at least as many keys as queries");
}

/// Contract of relative_bias(ctx, table, buckets, bias): what T5 adds to the scores,
/// bias[head * tokens + query, key] = table[buckets[key - query + tokens - 1], head].
///   table [rows, heads] in float32; buckets [2 * tokens - 1] in host memory; bias [heads * tokens, tokens]
/// @throws ShapeError, also for a bucket outside the table
template <class Buckets, class B>
void check_relative_bias(const Shape& table, const Buckets& buckets, const B& bias) {
  const std::size_t tokens = bias.columns;
  if (table.rank() != 2 || bias.rows != table[1] * tokens || buckets.size() + 1 != 2 * tokens)
    throw ShapeError(
        concat("relative_bias: expected table [rows, heads], bias [heads * tokens, tokens] and 2 * tokens - 1 "
               "buckets, found table ",
               table.text(), ", bias [", bias.rows, ", ", bias.columns, "], ", buckets.size(), " buckets"));
  for (const auto bucket : buckets)
    if (bucket < 0 || static_cast<std::size_t>(bucket) >= table[0])
      throw ShapeError(concat("relative_bias: bucket ", bucket, " is outside a table of ", table[0], " rows"));
}

}  // namespace ebb
