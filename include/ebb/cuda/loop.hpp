#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <vector>

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

/// The graphs of a loop's steps. They end after the work that was launched, however the loop ends, and a step that was
/// recorded but did not run leaves no trace in what is known of the weights.
class Recordings {
 public:
  Recordings(Engine& engine, Offload* offload) : engine_(engine), offload_(offload) {}
  Recordings(const Recordings&) = delete;
  Recordings& operator=(const Recordings&) = delete;
  ~Recordings() {
    if (pending_) {
      engine_.streams.abandon_capture();
      for (const Stream stream : {Stream::compute, Stream::copy})  // see abandon_capture
        (void)cudaStreamSynchronize(engine_.streams.handle(stream));
      if (offload_ != nullptr) offload_->forget();  // it counts copies as made that were only recorded
    }
    if (!graphs_.empty()) (void)cudaStreamSynchronize(engine_.streams.handle(Stream::compute));
  }

  /// Records what `body` issues and launches it.
  template <class Body>
  void record(Body& body) {
    before_ = state();
    pending_ = true;
    engine_.streams.begin_capture();
    body();
    graphs_.push_back(engine_.streams.end_capture());
    if (offload_ != nullptr) moved_ = offload_->since(before_);
    launch();
    pending_ = false;
    returns_ = state().present == before_.present;
    generation_ = engine_.workspace.generation();
  }
  /// Whether the last recording computes the same when it is launched once more: it leads from one state of the weights
  /// to the same, that state is the present one, and the memory that it computes in is still there.
  bool can_repeat() const {
    return !graphs_.empty() && returns_ && generation_ == engine_.workspace.generation() &&
           state().present == before_.present;
  }
  /// Launches the last recording once more.
  void repeat() {
    engine_.streams.order(Stream::copy, Stream::compute);  // copies that were issued since
    launch();
    if (offload_ != nullptr) offload_->repeated(moved_);
  }

 private:
  OffloadState state() const { return offload_ != nullptr ? offload_->state() : OffloadState{}; }
  void launch() {
    graphs_.back().launch(engine_.streams.handle(Stream::compute));
    ++engine_.graph_launches;
    engine_.streams.order(Stream::compute, Stream::copy);
  }

  Engine& engine_;
  Offload* offload_;
  std::vector<Graph> graphs_;  // all of them: the last but one may still run
  // Of the last one:
  OffloadState before_;
  OffloadRecord moved_;
  bool returns_ = false;  // leaves the weights that it began with
  std::size_t generation_ = 0;
  bool pending_ = false;  // a recording has begun and not run
};

}  // namespace detail

/// See ops/loop.hpp. The first step runs as it is issued; it also makes all memory and plans that the others need. A
/// later one is recorded, transfers of weights included, and once a recording ends with the same weights on the device
/// as it began with, later steps are launches of that graph. Where `prepare` or `done` enters modules that take the
/// place of such weights, or needs more workspace than there was, the next step is recorded anew.
template <Element T, class Prepare, class Body, class Done>
  requires LoopParts<Prepare, Body, Done>
void repeat(const Context<T>& ctx, std::size_t count, Prepare prepare, Body body, Done done) {
  Engine& engine = ctx.engine();
  detail::Recordings recordings(engine, ctx.offload());
  detail::StepClock<Done> clock(ctx.stream(), done);
  for (std::size_t step = 0; step < count; ++step) {
    prepare(step);
    if (step == 0 || !engine.graphs || engine.observer.trace != nullptr)
      body();
    else if (recordings.can_repeat())
      recordings.repeat();
    else
      recordings.record(body);
    clock.mark();
  }
  clock.finish();
  engine.streams.synchronize(Stream::compute);
}

}  // namespace ebb::cuda
