#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "ebb/core/error.hpp"
#include "ebb/cuda/check.hpp"
#include "ebb/cuda/trace.hpp"
#include "ebb/memory/backend.hpp"

namespace ebb::cuda {

/// A CUDA event and when it was recorded last: inside which capture, or outside of all.
class Event {
 public:
  Event() = default;

 private:
  friend class Streams;
  cudaEvent_t handle_ = nullptr;
  std::uint64_t epoch_ = 0;  // 0: never recorded
};

/// Which of the two streams.
enum class Stream { compute, copy };

/// A recorded piece of work that can be launched again and again. Move-only.
class Graph {
 public:
  Graph() = default;
  /// Takes ownership of `recorded`. @throws CudaError
  explicit Graph(cudaGraph_t recorded) {
    const cudaError_t status = cudaGraphInstantiate(&executable_, recorded, 0);
    cudaGraphDestroy(recorded);
    check(status);
  }
  Graph(Graph&& other) noexcept : executable_(std::exchange(other.executable_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(executable_, other.executable_);
    return *this;
  }
  ~Graph() {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  }
  explicit operator bool() const { return executable_ != nullptr; }
  void launch(cudaStream_t stream) const { check(cudaGraphLaunch(executable_, stream)); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

/// The current device as a Backend: a stream that computes and one that copies from home memory, which should be
/// pinned (pageable memory is right too, but its copies keep the issuing thread waiting). One issuing thread.
///
/// Between `begin_capture` and `end_capture` both streams record instead of running. What was issued before a capture
/// has run before the captured work does, and what is issued after it runs later: at the borders the streams are
/// joined, and so waits for events of another side of a border have nothing to add and are left out.
class Streams {
 public:
  using Stream = cuda::Stream;
  using Event = cuda::Event;
  static constexpr bool computes_on_home_memory = false;

  /// @throws CudaError
  Streams() {
    check(cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking));
    check(cudaStreamCreateWithFlags(&copy_, cudaStreamNonBlocking));
    check(cudaEventCreateWithFlags(&join_, cudaEventDisableTiming));
  }
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;
  ~Streams() {
    cudaEventDestroy(join_);
    cudaStreamDestroy(copy_);
    cudaStreamDestroy(compute_);
  }

  cudaStream_t handle(Stream stream) const { return stream == Stream::compute ? compute_ : copy_; }

  Event create_event() const {
    Event event;
    check(cudaEventCreateWithFlags(&event.handle_, cudaEventDisableTiming));
    return event;
  }
  void destroy_event(Event& event) const noexcept {
    cudaEventDestroy(event.handle_);
    event.handle_ = nullptr;
  }
  void record(Event& event, Stream stream) {
    check(cudaEventRecord(event.handle_, handle(stream)));
    event.epoch_ = epoch_;
  }
  void wait(Stream stream, Event& event) {
    if (event.epoch_ == epoch_) check(cudaStreamWaitEvent(handle(stream), event.handle_));
  }
  void copy(std::byte* target, const std::byte* source, std::size_t bytes, Stream stream) {
    const Scope scope = observer_ == nullptr ? Scope() : Scope(*observer_, source, bytes, handle(stream));
    check(cudaMemcpyAsync(target, source, bytes, cudaMemcpyHostToDevice, handle(stream)));
  }
  void synchronize(Stream stream) { check(cudaStreamSynchronize(handle(stream))); }

  /// Transfers are reported to `observer`, which outlives their issue; null: to none.
  void set_observer(const Observer* observer) { observer_ = observer; }

  /// Later work of `second` starts after all that `first` has been given.
  void order(Stream first, Stream second) {
    check(cudaEventRecord(join_, handle(first)));
    check(cudaStreamWaitEvent(handle(second), join_));
  }

  bool capturing() const { return capturing_; }
  void begin_capture() {
    require(!capturing_, "Streams: a capture is running already");
    order(Stream::copy, Stream::compute);
    check(cudaStreamBeginCapture(compute_, cudaStreamCaptureModeThreadLocal));
    capturing_ = true;
    ++epoch_;
    order(Stream::compute, Stream::copy);
  }
  /// What was issued since `begin_capture`. It has to be launched on the compute stream, and after its last launch
  /// `order(compute, copy)` is needed before new copies are issued. @throws CudaError
  Graph end_capture() {
    require(capturing_, "Streams: no capture is running");
    order(Stream::copy, Stream::compute);
    cudaGraph_t recorded = nullptr;
    const cudaError_t status = cudaStreamEndCapture(compute_, &recorded);
    capturing_ = false;
    ++epoch_;
    check(status);
    return Graph(recorded);
  }
  /// Throws away what was issued since `begin_capture`, if a capture is running. Synchronize both streams before new
  /// work is issued: how that depends on work of before the capture is no longer known.
  void abandon_capture() noexcept {
    if (!capturing_) return;
    cudaGraph_t recorded = nullptr;
    cudaStreamEndCapture(compute_, &recorded);
    if (recorded != nullptr) cudaGraphDestroy(recorded);
    (void)cudaGetLastError();
    capturing_ = false;
    ++epoch_;
  }

 private:
  cudaStream_t compute_ = nullptr;
  cudaStream_t copy_ = nullptr;
  cudaEvent_t join_ = nullptr;
  const Observer* observer_ = nullptr;
  std::uint64_t epoch_ = 1;  // changes at every border of a capture
  bool capturing_ = false;
};
static_assert(ebb::Backend<Streams>);

}  // namespace ebb::cuda
