#pragma once

#include <cstddef>

#include "ebb/core/error.hpp"
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
///   bias [heads * query_tokens, key_tokens] in float32, added to the scores of every item, or empty
/// y must not overlap k or v; it may be q where that is not read again. Causal needs query_tokens <= key_tokens.
/// @throws ShapeError
template <class Q, class K, class V, class B, class Y>
void check_attention(const Q& q, const K& k, const V& v, const AttentionShape& shape, AttentionMask mask,
                     const B& bias, const Y& y) {
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

}  // namespace ebb
