#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

#include "ebb/core/error.hpp"
#include "ebb/core/view.hpp"

namespace ebb {

/// Contract of the transfers. Elements are trivially copyable and of one type.
///   copy(ctx, from, to)        within the context's memory; rows may be strided, the matrices do not overlap
///   clear(ctx, to)             zeros; rows may be strided
///   upload(ctx, from, to)      from host memory; `from` may be reused when the call returns
///   download(ctx, from, to)    to host memory; returns when everything issued before has run and the values are there
/// @throws ShapeError when the extents differ
template <class From, class To>
void check_copy(const From& from, const To& to) {
  if (from.rows != to.rows || from.columns != to.columns)
    throw ShapeError(concat("copy: expected equal matrices, found [", from.rows, ", ", from.columns, "] and [", to.rows,
                            ", ", to.columns, "]"));
}

/// @throws ShapeError
inline void check_transfer(std::size_t from, std::size_t to) {
  if (from != to) throw ShapeError(concat("upload or download: expected equal sizes, found ", from, " and ", to));
}

/// `values` of host memory in the context's workspace, valid until the enclosing frame ends.
template <class Context, class T>
std::span<T> uploaded(Context& ctx, std::span<const T> values) {
  const auto target = ctx.template array<T>(values.size());
  upload(ctx, values, target);
  return target;
}

}  // namespace ebb
