#pragma once

#include "ebb/core/dtype.hpp"
#include "ebb/host/stream.hpp"
#include "ebb/memory/activations.hpp"
#include "ebb/memory/workspace.hpp"
#include "ebb/module/unit.hpp"
#include "ebb/offload/group.hpp"
#include "ebb/ops/linear.hpp"

namespace ebb::host {

/// Offloading on the CPU, with a policy that is chosen at run time.
using Offload = OffloadGroup<OffloadSpec, Streams>;

/// What a forward pass on the CPU runs with: the element type of activations, a workspace, a thread count and,
/// where weights move, the offload group. Ops are found by argument-dependent lookup on it. Not thread-safe: one
/// context a stream.
template <Element T>
class Context : public Activations<T, Workspace> {
 public:
  /// `workspace` and `offload` must outlive the context; `threads` is at least 1. Without `offload` all parameters
  /// are where they are bound.
  Context(Workspace& workspace, int threads, Offload* offload = nullptr, Fusion fusion = Fusion::on)
      : Activations<T, Workspace>(workspace), threads_(threads < 1 ? 1 : threads), offload_(offload), fusion_(fusion) {}

  /// The same context for activations of another type.
  template <Element U>
  Context<U> as() const {
    return Context<U>(this->workspace(), threads_, offload_, fusion_);
  }

  int threads() const { return threads_; }
  Fusion fusion() const { return fusion_; }

  /// Makes a module's weights available until the lease ends; see `call`.
  template <class Module>
  Lease enter(const Module& module) const {
    return offload_ ? offload_->enter(id_of(module)) : Lease{};
  }

 private:
  int threads_;
  Offload* offload_;
  Fusion fusion_;
};

}  // namespace ebb::host
