#pragma once

#include <cstddef>

#include "ebb/core/shape.hpp"
#include "ebb/format/format.hpp"

namespace ebb {

/// Rows of a tensor for row-wise formats: the outermost extent; a vector or scalar is one row.
constexpr std::size_t rows_of(const Shape& shape) { return shape.rank() < 2 ? 1 : shape[0]; }

/// Elements of one row: the product of all extents but the outermost; of a vector, its length.
constexpr std::size_t columns_of(const Shape& shape) {
  if (shape.rank() < 2) return shape.elements();
  std::size_t product = 1;
  for (std::size_t axis = 1; axis < shape.rank(); ++axis) product = checked_product(product, shape[axis]);
  return product;
}

namespace detail {
/// One byte an element and one float32 scale a row.
constexpr SegmentLayout rowwise_layout(const Shape& shape) {
  const std::size_t elements = shape.elements();
  return layout_of_parts(elements, checked_product(elements == 0 ? 0 : rows_of(shape), sizeof(float)));
}
}  // namespace detail

}  // namespace ebb
