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

/// A GPU. Whether this build has code for it, `probe` says (probe.cuh).
struct Device {
  int index = 0;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;

  /// Makes device `index` the calling thread's current one. @throws CudaError that says what to do when there is no
  /// GPU, the driver is too old or there is no such device
  static Device open(int index) {
    int count = 0;
    check(cudaGetDeviceCount(&count));
    if (index < 0 || index >= count)
      throw ConfigError(concat("there is no GPU ", index, ": this machine has ", count, ", numbered from 0"));
    Device device{.index = index};
    device.use();
    check(cudaDeviceGetAttribute(&device.major, cudaDevAttrComputeCapabilityMajor, index));
    check(cudaDeviceGetAttribute(&device.minor, cudaDevAttrComputeCapabilityMinor, index));
    check(cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, index));
    return device;
  }
  /// Makes it the calling thread's current device. @throws CudaError
  void use() const { check(cudaSetDevice(index)); }
  /// cudaSuccess where there is a GPU, cudaErrorNoDevice where there is none or no driver at all, and otherwise what
  /// keeps a GPU from being used.
  static cudaError_t presence() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    (void)cudaGetLastError();
    if (status == cudaSuccess) return count > 0 ? cudaSuccess : cudaErrorNoDevice;
    // Where no driver is installed the runtime calls it too old.
    int driver = 0;
    if (status == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
      return cudaErrorNoDevice;
    return status;
  }
};

/// What all contexts of one stream share: handles and memory whose contents matter to kernels. All of it belongs to the
/// device that is the calling thread's current one at construction (`Device::open`), which has to be current, too,
/// where work is issued.
struct Engine {
  /// `attention` is what `attention_workspace(on)` says.
  Engine(const Device& on, AttentionWorkspaceBytes attention) : device(on) {
    attention_scratch = DeviceBuffer<std::byte>(attention.scratch);
    attention_flags = DeviceBuffer<unsigned>(attention.flags / sizeof(unsigned));
    // Kernels leave them zero. Not cudaMemset: the compute stream does not wait for the default one.
    check(cudaMemsetAsync(attention_flags.data(), 0, attention.flags, streams.handle(Stream::compute)));
    streams.set_observer(&observer);
  }

  Device device;
  Fusion fusion = Fusion::on;
  bool graphs = true;  // `repeat` may record steps; false where home memory that moves in them is not pinned
  std::size_t graph_launches = 0;
  Observer observer;  // hears of modules and transfers
  Streams streams;
  Workspace workspace;
  Blas blas;
  DeviceBuffer<std::byte> attention_scratch;
  DeviceBuffer<unsigned> attention_flags;
};

/// A module is computed with as long as this lives.
struct Entered {
  Lease lease;
  Scope scope;  // begins when the weights are there
};

/// What a forward pass on the GPU runs with: the element type of activations, the engine with its streams and
/// workspace, and, where weights move, the offload group. Everything is issued to the engine's compute stream. The host
/// waits for it in `upload`, in what uploads its arguments (timestep_embedding, relative_bias, gather_rows), in
/// `download`, `quantize` and `repeat`, where the workspace grows, and where cuBLASLt's algorithms are tuned; none of
/// these can be captured. Ops are found by argument-dependent lookup. Not thread-safe.
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
    return {std::move(lease), Scope(engine_->observer, id, stream())};
  }

 private:
  Engine* engine_;
  Offload* offload_;
};

}  // namespace ebb::cuda
