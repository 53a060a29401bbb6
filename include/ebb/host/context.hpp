#pragma once

#include <cstddef>
#include <span>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/memory/workspace.hpp"

namespace ebb::host {

/// What a forward pass on the CPU runs with: the element type of activations, a workspace, a thread count.
/// Ops are found by argument-dependent lookup on it. Not thread-safe: one context a stream.
template <Element T>
class Context {
 public:
  using element = T;

  /// `workspace` must outlive the context; `threads` is at least 1.
  Context(Workspace& workspace, int threads) : workspace_(workspace), threads_(threads < 1 ? 1 : threads) {}

  Workspace& workspace() const { return workspace_; }
  int threads() const { return threads_; }

  /// An uninitialised [rows, columns] matrix, valid until the enclosing workspace frame ends.
  Matrix<T> matrix(std::size_t rows, std::size_t columns) const {
    return {workspace_.allocate<T>(checked_product(rows, columns)), rows, columns};
  }
  /// An uninitialised NHWC image, valid until the enclosing workspace frame ends.
  Image<T> image(std::size_t batch, std::size_t height, std::size_t width, std::size_t channels) const {
    const std::size_t pixels = checked_product(checked_product(batch, height), width);
    return {workspace_.allocate<T>(checked_product(pixels, channels)), batch, height, width, channels};
  }
  /// `count` uninitialised objects, valid until the enclosing workspace frame ends.
  template <class U>
  std::span<U> array(std::size_t count) const {
    return {workspace_.allocate<U>(count), count};
  }

 private:
  Workspace& workspace_;
  int threads_;
};

}  // namespace ebb::host
