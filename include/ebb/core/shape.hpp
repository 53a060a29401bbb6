#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>

#include "ebb/core/error.hpp"

namespace ebb {

/// Product that refuses to wrap: sizes that come from files pass through here.
/// @throws ShapeError on overflow
constexpr std::size_t checked_product(std::size_t a, std::size_t b) {
  if (b != 0 && a > std::numeric_limits<std::size_t>::max() / b)
    throw ShapeError("a size overflows 64 bits: the file or configuration that names it is damaged");
  return a * b;
}

/// ceil(count / size) without overflow.
constexpr std::size_t ceil_divide(std::size_t count, std::size_t size) {
  return count / size + (count % size != 0 ? 1 : 0);
}

/// Extents of a tensor, outermost first; at most five, stored inline. An empty shape is a scalar.
class Shape {
 public:
  static constexpr std::size_t max_rank = 5;

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<std::size_t> extents)
      : Shape(std::span<const std::size_t>(extents.begin(), extents.size())) {}
  constexpr explicit Shape(std::span<const std::size_t> extents) {
    if (extents.size() > max_rank) throw ShapeError("a tensor has more than five dimensions");
    for (const std::size_t extent : extents) extents_[rank_++] = extent;
  }

  constexpr std::size_t rank() const { return rank_; }
  constexpr std::size_t operator[](std::size_t axis) const { return extents_[axis]; }
  constexpr const std::size_t* begin() const { return extents_.data(); }
  constexpr const std::size_t* end() const { return extents_.data() + rank_; }
  /// Number of elements. @throws ShapeError on overflow
  constexpr std::size_t elements() const {
    std::size_t product = 1;
    for (const std::size_t extent : *this) product = checked_product(product, extent);
    return product;
  }
  constexpr bool operator==(const Shape&) const = default;

  /// "[3072, 64]"
  std::string text() const {
    std::string result = "[";
    for (std::size_t axis = 0; axis < rank_; ++axis) result += (axis ? ", " : "") + std::to_string(extents_[axis]);
    return result + "]";
  }

 private:
  std::array<std::size_t, max_rank> extents_{};
  std::size_t rank_ = 0;
};

}  // namespace ebb
