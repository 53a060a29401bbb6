#pragma once

#include "ebb/core/error.hpp"
#include "ebb/core/view.hpp"

namespace ebb {

/// Contract of softmax(ctx, x, scale, y): exp(x * scale) over its sum in each row, the row's largest subtracted first;
/// x and y [rows, columns] in the context's element type, rows may be strided, computed in float32 and rounded once; y
/// may be x. Entries of -infinity give 0; a row of nothing else, or with NaN or +infinity after scaling, gives NaN
/// throughout, as in PyTorch. @throws ShapeError
template <class X, class Y>
void check_softmax(const X& x, const Y& y) {
  if (x.rows != y.rows || x.columns != y.columns)
    throw ShapeError(concat("softmax: expected equal matrices, found [", x.rows, ", ", x.columns, "] and [", y.rows,
                            ", ", y.columns, "]"));
}

}  // namespace ebb
