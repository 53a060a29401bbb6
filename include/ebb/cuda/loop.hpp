#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/check.hpp"
#include "ebb/cuda/context.hpp"
#include "ebb/cuda/stream.hpp"
#include "ebb/ops/loop.hpp"

namespace ebb::cuda {

namespace detail {

/// Measures steps on a stream and reports each once it has run, while the next one is queued already.
template <class Done>
class StepClock {
 public:
  StepClock(cudaStream_t stream, Done& done) : stream_(stream), done_(done) {
    for (cudaEvent_t& event : events_) check(cudaEventCreate(&event));
    check(cudaEventRecord(events_[0], stream_));
  }
  StepClock(const StepClock&) = delete;
  StepClock& operator=(const StepClock&) = delete;
  ~StepClock() {
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  }

  /// Everything of the next step has been issued.
  void mark() {
    ++issued_;
    check(cudaEventRecord(events_[issued_ % events_.size()], stream_));
    if (issued_ - reported_ > 1) report();
  }
  void finish() {
    while (reported_ < issued_) report();
  }

 private:
  void report() {
    const cudaEvent_t begin = events_[reported_ % events_.size()];
    const cudaEvent_t end = events_[(reported_ + 1) % events_.size()];
    check(cudaEventSynchronize(end));
    float milliseconds = 0.0f;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    done_(reported_++, static_cast<double>(milliseconds) * 1e-3);
  }

  cudaStream_t stream_;
  Done& done_;
  std::array<cudaEvent_t, 4> events_{};
  std::size_t issued_ = 0;
  std::size_t reported_ = 0;
};

}  // namespace detail

/// See ops/loop.hpp. The first step runs as it is issued; it also makes all memory and plans that the others need. A
/// later one is recorded, transfers of weights included, and once a recording ends with the same weights on the device
/// as it began with, all remaining steps are launches of that graph.
template <Element T, class Prepare, class Body, class Done>
requires LoopParts<Prepare, Body, Done>
void repeat(const Context<T>& ctx, std::size_t count, Prepare prepare, Body body, Done done) {
  Streams& streams = ctx.engine().streams;
  Offload* offload = ctx.offload();
  struct Abandon {
    Streams& streams;
    ~Abandon() { streams.abandon_capture(); }
  } const abandon{streams};
  detail::StepClock<Done> clock(ctx.stream(), done);
  Graph graph;
  bool repeats = false;  // the graph leads from a state of the weights to the same state
  OffloadRecord record;
  for (std::size_t step = 0; step < count; ++step) {
    prepare(step);
    if (step == 0 || !ctx.engine().graphs || ctx.engine().trace != nullptr) {
      body();
    } else {
      if (!repeats) {
        const OffloadState before = offload ? offload->state() : OffloadState{};
        streams.begin_capture();
        body();
        graph = streams.end_capture();
        if (offload) record = offload->since(before);
        repeats = !offload || offload->state().present == before.present;
      } else if (offload) {
        offload->repeated(record);
      }
      graph.launch(ctx.stream());
      streams.order(Stream::compute, Stream::copy);
    }
    clock.mark();
  }
  clock.finish();
  streams.synchronize(Stream::compute);  // the graph must not end before its work
}

}  // namespace ebb::cuda
