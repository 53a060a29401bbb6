#pragma once

#include <cstddef>
#include <span>

#include "ebb/core/dtype.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/core/view.hpp"

namespace ebb {

/// Activations of element type T out of a workspace: what the contexts of all backends have in common.
template <Element T, class Workspace>
class Activations {
 public:
  using element = T;

  /// `workspace` outlives this.
  explicit Activations(Workspace& workspace) : workspace_(&workspace) {}

  Workspace& workspace() const { return *workspace_; }

  /// An uninitialised [rows, columns] matrix, valid until the enclosing workspace frame ends.
  Matrix<T> matrix(std::size_t rows, std::size_t columns) const {
    return {workspace_->template allocate<T>(checked_product(rows, columns)), rows, columns};
  }
  /// An uninitialised NHWC image, valid until the enclosing workspace frame ends.
  Image<T> image(std::size_t batch, std::size_t height, std::size_t width, std::size_t channels) const {
    const std::size_t pixels = checked_product(checked_product(batch, height), width);
    return {workspace_->template allocate<T>(checked_product(pixels, channels)), batch, height, width, channels};
  }
  /// `count` uninitialised objects, valid until the enclosing workspace frame ends.
  template <class U>
  std::span<U> array(std::size_t count) const {
    return {workspace_->template allocate<U>(count), count};
  }

 private:
  Workspace* workspace_;
};

}  // namespace ebb
