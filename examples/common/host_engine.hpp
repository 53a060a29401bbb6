#pragma once
// The CPU as a machine that runs pipelines.

#include <cstddef>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "common/engine.hpp"
#include "ebb/host.hpp"

namespace ebb::examples {

namespace detail {

/// "Device" memory is an arena of the size that the policy promises; with policy none, computation reads the weights
/// where they live.
template <Pipeline P>
class HostEngine final : public Engine<P> {
  using Model = typename P::Model;
  using Request = typename P::Request;
  using Result = typename P::Result;
  using Engine<P>::traffic_;

 public:
  HostEngine(Model& model, const Weights& weights, const EngineOptions& options, int threads)
      : model_(model), compute_(options.compute), threads_(threads), fusion_(options.fusion) {
    std::vector<Component> components = components_of(weights, options.placement);
    const Plan plan = host::Offload::plan(options.placement.policy, components);
    for (const PlacedUnit& unit : plan.units)
      if (unit.placing == Placing::in_place) in_place_bytes_ += unit.bytes;
    arena_ = AlignedBuffer(plan.arena_bytes);
    offload_ = std::make_unique<host::Offload>(options.placement.policy, streams_, host::Stream::compute,
                                               host::Stream::copy, std::move(components), arena_.bytes());
    bind_all(weights, *offload_);
  }

  Result run(const Request& request, const PhaseWatcher& watcher) override {
    const OffloadStatistics before = offload_->statistics();
    const host::Stalls stalls = streams_.stalls();
    Result result;
    try {
      switch (compute_) {
        case DType::bf16:
          result = run_as<bfloat16>(request, watcher);
          break;
        case DType::f16:
          result = run_as<float16>(request, watcher);
          break;
        default:
          result = run_as<float>(request, watcher);
      }
    } catch (const MemoryError& error) {
      const std::string why = error.what();
      fail_activations(why.substr(0, why.find(';')));
    } catch (const std::bad_alloc&) {
      fail_activations("out of memory");
    }
    traffic_.count(before, offload_->statistics());
    traffic_.arena_bytes = offload_->peak_bytes() + in_place_bytes_;
    traffic_.workspace_bytes = result.workspace_bytes();
    traffic_.host = {.stalls = streams_.stalls().count - stalls.count,
                     .stall_seconds = streams_.stalls().seconds - stalls.seconds};
    return result;
  }
  const Plan& plan() const override { return offload_->plan(); }

 private:
  /// Weights have their memory by now, so advice for them would be wrong.
  [[noreturn]] static void fail_activations(const std::string& why) {
    throw MemoryError(
        concat("activations: ", why,
               "; ask for fewer or smaller pictures or frames, or add --vae-tiling, or --vae-slicing where "
               "there is one"));
  }

  template <Element T>
  Result run_as(const Request& request, const PhaseWatcher& watcher) {
    host::Context<T> ctx(workspace_, threads_, offload_.get(), fusion_);
    const std::size_t denoiser = offload_->component(P::denoiser);
    const std::size_t moved = offload_->statistics(denoiser).bytes_moved;
    Result result = P::run(ctx, model_, request, watcher);
    traffic_.denoise_bytes_moved = offload_->statistics(denoiser).bytes_moved - moved;
    return result;
  }

  Model& model_;
  DType compute_;
  int threads_;
  Fusion fusion_;
  Workspace workspace_;
  AlignedBuffer arena_;
  host::Streams streams_;
  std::unique_ptr<host::Offload> offload_;
  std::size_t in_place_bytes_ = 0;  // computed with where they live: resident all the time
};

template <Pipeline P>
class HostMachine final : public Machine<P> {
 public:
  explicit HostMachine(int threads) : threads_(threads) {}
  void check(const EngineOptions& options) const override {
    if (!options.tuned.empty()) throw ConfigError("--tune: algorithms are chosen for a GPU; use --device cuda");
    if (!options.trace.empty()) throw ConfigError("--trace: a timeline is made of a GPU's streams; use --device cuda");
  }
  std::unique_ptr<Engine<P>> engine(typename P::Model& model, const Weights& weights,
                                    const EngineOptions& options) override {
    check(options);
    return std::make_unique<HostEngine<P>>(model, weights, options, threads_);
  }
  std::string name() const override { return "host"; }

 private:
  int threads_;
};

}  // namespace detail

template <Pipeline P>
std::unique_ptr<Machine<P>> host_machine(int threads) {
  return std::make_unique<detail::HostMachine<P>>(threads);
}

}  // namespace ebb::examples
