#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

#include "ebb/core/config.hpp"
#include "ebb/core/error.hpp"

namespace ebb {

/// A row-major matrix somewhere in memory, not owned: `rows` x `columns`, consecutive rows `stride` elements
/// apart (`stride >= columns`). Valid as long as the memory under it.
template <class T>
struct Matrix {
  T* data = nullptr;
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::size_t stride = 0;

  Matrix() = default;
  EBB_HOST_DEVICE constexpr Matrix(T* first, std::size_t row_count, std::size_t column_count, std::size_t row_stride)
      : data(first), rows(row_count), columns(column_count), stride(row_stride) {}
  EBB_HOST_DEVICE constexpr Matrix(T* first, std::size_t row_count, std::size_t column_count)
      : Matrix(first, row_count, column_count, column_count) {}
  template <class Const>
    requires(std::is_same_v<Const, const T> && !std::is_const_v<T>)
  EBB_HOST_DEVICE constexpr operator Matrix<Const>() const {
    return {data, rows, columns, stride};
  }

  EBB_HOST_DEVICE constexpr T& operator()(std::size_t row, std::size_t column) const {
    return data[row * stride + column];
  }
  EBB_HOST_DEVICE constexpr T* row(std::size_t index) const { return data + index * stride; }
  EBB_HOST_DEVICE constexpr std::size_t size() const { return rows * columns; }
  EBB_HOST_DEVICE constexpr bool contiguous() const { return stride == columns || rows <= 1; }

  /// All elements of a contiguous matrix.
  constexpr std::span<T> elements() const {
    require(contiguous(), "elements: the rows of the matrix are not neighbours in memory");
    return {data, size()};
  }
  /// Rows [first, first + count).
  constexpr Matrix rows_from(std::size_t first, std::size_t count) const {
    require(first <= rows && count <= rows - first, "rows_from: the rows asked for lie outside the matrix");
    return {data + first * stride, count, columns, stride};
  }
  /// Columns [first, first + count) of every row; keeps the stride.
  constexpr Matrix columns_from(std::size_t first, std::size_t count) const {
    require(first <= columns && count <= columns - first, "columns_from: the columns asked for lie outside the matrix");
    return {data + first, rows, count, stride};
  }
};

/// A batch of pictures in NHWC order, contiguous, not owned.
template <class T>
struct Image {
  T* data = nullptr;
  std::size_t batch = 0;
  std::size_t height = 0;
  std::size_t width = 0;
  std::size_t channels = 0;

  template <class Const>
    requires(std::is_same_v<Const, const T> && !std::is_const_v<T>)
  EBB_HOST_DEVICE constexpr operator Image<Const>() const {
    return {data, batch, height, width, channels};
  }
  EBB_HOST_DEVICE constexpr T& operator()(std::size_t n, std::size_t y, std::size_t x, std::size_t c) const {
    return data[((n * height + y) * width + x) * channels + c];
  }
  EBB_HOST_DEVICE constexpr std::size_t size() const { return batch * height * width * channels; }
  EBB_HOST_DEVICE constexpr std::span<T> elements() const { return {data, size()}; }
  /// One row a pixel: [batch * height * width, channels].
  EBB_HOST_DEVICE constexpr Matrix<T> pixels() const { return {data, batch * height * width, channels}; }
};

}  // namespace ebb
