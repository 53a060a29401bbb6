#pragma once

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/core/view.hpp"

namespace ebb {

/// Whether a linear dequantizes, multiplies and finishes its result in as few passes over memory as the backend can, or
/// in one pass for each of the three (what a framework without fusion does: a peer to measure against).
enum class Fusion { off, on };

/// Contract of `linear(ctx, x, weight, epilogue, y)`: y = epilogue(x weight^T), accumulated in float32 and rounded
/// once.
///   x [M, K] and y [M, N] in the context's element type, rows may be strided; weight [N, K] in any format, or of a
///   higher rank with K elements behind each of its N first indices.
/// y must not overlap x. Epilogue stages may read the element of y that they replace.
/// @throws ShapeError
template <class T>
void check_linear(const Matrix<const T>& x, const Shape& weight, const Matrix<T>& y) {
  if (weight.rank() < 2 || x.columns * weight[0] != weight.elements() || y.columns != weight[0] || x.rows != y.rows)
    throw ShapeError(concat("linear: expected x [M, K], weight [N, K], y [M, N], found x [", x.rows, ", ", x.columns,
                            "], weight ", weight.text(), ", y [", y.rows, ", ", y.columns, "]"));
}

}  // namespace ebb
