#pragma once

#include <cstddef>
#include <span>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/host/stream.hpp"
#include "ebb/memory/workspace.hpp"
#include "ebb/module/unit.hpp"
#include "ebb/offload/group.hpp"

namespace ebb::host {

/// Offloading on the CPU, with a policy that is chosen at run time.
using Offload = OffloadGroup<OffloadSpec, Streams>;

/// Whether a linear dequantizes, multiplies and finishes a tile while it is in the cache, or each of the three runs
/// over the whole matrix before the next (what a framework without fusion does: a peer to measure against).
enum class Fusion { off, on };

/// What a forward pass on the CPU runs with: the element type of activations, a workspace, a thread count and,
/// where weights move, the offload group. Ops are found by argument-dependent lookup on it. Not thread-safe: one
/// context a stream.
template <Element T>
class Context {
 public:
  using element = T;

  /// `workspace` and `offload` must outlive the context; `threads` is at least 1. Without `offload` all parameters
  /// are where they are bound.
  Context(Workspace& workspace, int threads, Offload* offload = nullptr, Fusion fusion = Fusion::on)
      : workspace_(workspace), threads_(threads < 1 ? 1 : threads), offload_(offload), fusion_(fusion) {}

  Workspace& workspace() const { return workspace_; }
  int threads() const { return threads_; }
  Fusion fusion() const { return fusion_; }

  /// Makes a module's weights available until the lease ends; see `call`.
  template <class Module>
  Lease enter(const Module& module) const {
    return offload_ ? offload_->enter(id_of(module)) : Lease{};
  }

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
  Offload* offload_;
  Fusion fusion_;
};

}  // namespace ebb::host
