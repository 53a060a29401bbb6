#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/cuda/attention_arguments.hpp"
#include "ebb/cuda/blas.hpp"
#include "ebb/cuda/check.hpp"
#include "ebb/cuda/resource.hpp"
#include "ebb/cuda/stream.hpp"
#include "ebb/cuda/trace.hpp"
#include "ebb/memory/activations.hpp"
#include "ebb/memory/workspace.hpp"
#include "ebb/module/unit.hpp"
#include "ebb/offload/group.hpp"
#include "ebb/ops/linear.hpp"

namespace ebb::cuda {

/// Activations in device memory.
using Workspace = BasicWorkspace<DeviceBuffer<std::byte>>;

/// Offloading to the GPU, with a policy that is chosen at run time.
using Offload = OffloadGroup<OffloadSpec, Streams>;

/// A GPU that this build can use.
struct Device {
  int index = 0;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;

  /// Makes device `index` the calling thread's current one. @throws CudaError that says what to do when there is no GPU,
  /// the driver is too old or there is no such device
  static Device open(int index) {
    int count = 0;
    check(cudaGetDeviceCount(&count));
    if (index < 0 || index >= count)
      throw ConfigError(concat("there is no GPU ", index, ": this machine has ", count, ", numbered from 0"));
    Device device{.index = index};
    check(cudaSetDevice(index));
    check(cudaDeviceGetAttribute(&device.major, cudaDevAttrComputeCapabilityMajor, index));
    check(cudaDeviceGetAttribute(&device.minor, cudaDevAttrComputeCapabilityMinor, index));
    check(cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, index));
    return device;
  }
  /// Whether a GPU and a driver for it are there.
  static bool available() {
    int count = 0;
    const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
    if (!found) (void)cudaGetLastError();
    return found;
  }
};

/// What all contexts of one stream share: handles and memory whose contents matter to kernels.
struct Engine {
  /// `attention` is what `attention_workspace(on)` says.
  Engine(const Device& on, AttentionWorkspaceBytes attention) : device(on) {
    attention_scratch = DeviceBuffer<std::byte>(attention.scratch);
    attention_flags = DeviceBuffer<unsigned>(attention.flags / sizeof(unsigned));
    check(cudaMemset(attention_flags.data(), 0, attention.flags));  // kernels leave it zero
  }

  /// Modules and transfers are reported to `observer` from now on; null: to none.
  void set_trace(Trace* observer) {
    trace = observer;
    streams.set_trace(observer);
  }

  Device device;
  Fusion fusion = Fusion::on;
  bool graphs = true;  // `repeat` may record steps; false where home memory that moves is not pinned
  Trace* trace = nullptr;
  Streams streams;
  Workspace workspace;
  Blas blas;
  DeviceBuffer<std::byte> attention_scratch;
  DeviceBuffer<unsigned> attention_flags;
};

/// A module is computed with as long as this lives.
struct Entered {
  Lease lease;
  Trace::Scope scope;  // begins when the weights are there
};

/// What a forward pass on the GPU runs with: the element type of activations, the engine with its streams and workspace,
/// and, where weights move, the offload group. Everything is issued to the engine's compute stream; nothing waits for it
/// but `download` and the end of `repeat`. Ops are found by argument-dependent lookup. Not thread-safe.
template <Element T>
class Context : public Activations<T, Workspace> {
 public:
  /// `engine` and `offload` outlive the context.
  explicit Context(Engine& engine, Offload* offload = nullptr)
      : Activations<T, Workspace>(engine.workspace), engine_(&engine), offload_(offload) {}

  /// The same context for activations of another type.
  template <Element U>
  Context<U> as() const {
    return Context<U>(*engine_, offload_);
  }

  Engine& engine() const { return *engine_; }
  cudaStream_t stream() const { return engine_->streams.handle(Stream::compute); }
  Offload* offload() const { return offload_; }

  /// Makes a module's weights available until the lease ends; see `call`.
  template <class Module>
  Entered enter(const Module& module) const {
    const ModuleId id = id_of(module);
    Lease lease = offload_ ? offload_->enter(id) : Lease{};
    return {std::move(lease), Trace::Scope(engine_->trace, id, stream())};
  }

 private:
  Engine* engine_;
  Offload* offload_;
};

}  // namespace ebb::cuda
