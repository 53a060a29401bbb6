// The CPU as a machine that runs the pipeline.
#include "ebb/host.hpp"

#include <cstddef>
#include <type_traits>
#include <utility>

#include "flux/engine.hpp"

namespace ebb::flux {

namespace {

/// "Device" memory is an arena of the size that the policy promises; with policy none, computation reads the weights
/// where they live.
class HostEngine final : public Engine {
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

  Result run(const Request& request, const Progress& progress) override {
    workspace_.release();
    workspace_.reset_peak();
    const OffloadStatistics before = offload_->statistics();
    const host::Stalls stalls = streams_.stalls();
    Result result;
    switch (compute_) {
      case DType::bf16:
        result = run_as<bfloat16>(request, progress);
        break;
      case DType::f16:
        result = run_as<float16>(request, progress);
        break;
      default:
        result = run_as<float>(request, progress);
    }
    traffic_.count(before, offload_->statistics());
    traffic_.arena_bytes = offload_->peak_bytes() + in_place_bytes_;
    traffic_.workspace_bytes = workspace_.peak_bytes();
    traffic_.stalls = streams_.stalls().count - stalls.count;
    traffic_.stall_seconds = streams_.stalls().seconds - stalls.seconds;
    return result;
  }
  const Plan& plan() const override { return offload_->plan(); }

 private:
  template <Element T>
  Result run_as(const Request& request, const Progress& progress) {
    host::Context<T> ctx(workspace_, threads_, offload_.get(), fusion_);
    const std::size_t transformer = offload_->component("transformer");
    const std::size_t moved = offload_->statistics(transformer).bytes_moved;
    Result result;
    if constexpr (std::is_same_v<T, float16>) {
      host::Context<float> wide(workspace_, threads_, offload_.get(), fusion_);
      result = generate(ctx, wide, model_, request, progress);
    } else {
      result = generate(ctx, ctx, model_, request, progress);
    }
    traffic_.denoise_bytes_moved = offload_->statistics(transformer).bytes_moved - moved;
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

class HostMachine final : public Machine {
 public:
  explicit HostMachine(int threads) : threads_(threads) {}
  std::unique_ptr<Engine> engine(Model& model, const Weights& weights, const EngineOptions& options) override {
    if (!options.trace.empty()) throw ConfigError("--trace: a timeline is made of a GPU's streams; use --device cuda");
    return std::make_unique<HostEngine>(model, weights, options, threads_);
  }
  std::string name() const override { return "host"; }

 private:
  int threads_;
};

}  // namespace

std::unique_ptr<Machine> host_machine(int threads) { return std::make_unique<HostMachine>(threads); }

}  // namespace ebb::flux
