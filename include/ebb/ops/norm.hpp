#pragma once

#include <cstddef>

#include "ebb/core/error.hpp"
#include "ebb/core/view.hpp"

namespace ebb {

/// What follows a normalization in the same pass.
enum class Activation { none, silu };

/// Contract of the row norms. All compute in float32 over each row of x [rows, width] and round once; y may be x.
///   layer_norm(ctx, x, gamma, beta, epsilon, y): (x - mean) / sqrt(variance + epsilon) * gamma + beta, biased variance
///   layer_norm_modulate(ctx, x, shift, scale, rows_per_item, epsilon, y): the same without gamma and beta, then
///     * (1 + scale) + shift; shift and scale [batch, width] of x's type or float32, `rows_per_item` consecutive rows
///     use one row of them
///   rms_norm(ctx, x, gamma, epsilon, activation, y): x / sqrt(mean(x^2) + epsilon) * gamma, then the activation
/// @throws ShapeError
template <class X, class Y>
void check_row_norm(const char* op, const X& x, std::size_t width, const Y& y) {
  if (x.columns != width || y.columns != x.columns || y.rows != x.rows)
    throw ShapeError(concat(op, ": expected x and y [rows, ", width, "], found x [", x.rows, ", ", x.columns, "], y [",
                            y.rows, ", ", y.columns, "]"));
}

/// @throws ShapeError
template <class X, class M>
void check_modulation(const char* op, const X& x, const M& modulation, std::size_t rows_per_item) {
  if (rows_per_item == 0 || modulation.columns != x.columns || modulation.rows * rows_per_item != x.rows)
    throw ShapeError(concat(op, ": expected modulation [", rows_per_item == 0 ? 0 : x.rows / rows_per_item, ", ",
                            x.columns, "] for ", x.rows, " rows, ", rows_per_item, " an item, found [", modulation.rows,
                            ", ", modulation.columns, "]"));
}

/// Contract of rms_norm_rope(ctx, x, gamma, epsilon, cosines, sines), in place: each head of x
/// [batch * tokens, heads * head_dim] is RMS-normalized with gamma [head_dim], or all heads of a row together with
/// gamma [heads * head_dim]; then pairs (2i, 2i + 1) are rotated by the tables [tokens, head_dim]: x * cos + (-x[2i +
/// 1], x[2i]) * sin. Row r uses row r % tokens of the tables. @throws ShapeError
template <class X, class Table>
void check_rope(const X& x, std::size_t gamma, const Table& cosines, const Table& sines) {
  const std::size_t head_dim = cosines.columns;
  if (head_dim == 0 || head_dim % 2 != 0 || x.columns % head_dim != 0 || (gamma != head_dim && gamma != x.columns) ||
      sines.columns != head_dim || cosines.rows != sines.rows || cosines.rows == 0 || x.rows % cosines.rows != 0)
    throw ShapeError(
        concat("rms_norm_rope: expected x [batch * tokens, heads * head_dim], tables [tokens, head_dim] and ",
               "gamma of head_dim or of all columns, found x [", x.rows, ", ", x.columns, "], tables [", cosines.rows,
               ", ", cosines.columns, "], gamma ", gamma));
}

/// Contract of group_norm(ctx, x, groups, gamma, beta, epsilon, activation, y): NHWC, each item's channels in `groups`
/// equal groups, mean and biased variance over a group's pixels and channels, gamma and beta [channels]; y may be x.
/// @throws ShapeError
template <class X, class Y>
void check_group_norm(const X& x, std::size_t groups, std::size_t gamma, std::size_t beta, const Y& y) {
  if (groups == 0 || x.channels % groups != 0 || gamma != x.channels || beta != x.channels || y.batch != x.batch ||
      y.height != x.height || y.width != x.width || y.channels != x.channels)
    throw ShapeError(concat("group_norm: ", x.channels, " channels in ", groups, " groups, gamma ", gamma, ", beta ",
                            beta, ", y with ", y.channels, " channels: expected equal images and whole groups"));
}

}  // namespace ebb
