#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "ebb/host.hpp"
#include "flux/pipeline.hpp"
#include "flux/weights.hpp"

namespace ebb::flux {

/// How a run uses the device tier.
struct Placement {
  OffloadSpec policy;
  std::vector<std::string> excluded;
  host::Fusion fusion = host::Fusion::on;
};

/// A model with its weights, ready to run on the CPU under one placement. "Device" memory is an arena of the size that
/// the policy promises; with policy none, computation reads the weights where they live.
class HostEngine {
 public:
  /// Binds all parameters of `model`, which can have one engine at a time. @throws ConfigError, MemoryError
  HostEngine(Model& model, const Weights& weights, const Placement& placement, DType compute, int threads)
      : model_(model), compute_(compute), threads_(threads), placement_(placement) {
    std::vector<Component> components;
    for (const Weights::Home& home : weights.homes())
      components.push_back(component_of(home.outline, home.bytes, placement.policy));
    exclude(components, placement.excluded);
    const Plan plan = host::Offload::plan(placement.policy, components);
    for (const PlacedUnit& unit : plan.units)
      if (unit.placing == Placing::in_place) in_place_bytes_ += unit.bytes;
    arena_ = AlignedBuffer(plan.arena_bytes);
    offload_ = std::make_unique<host::Offload>(placement.policy, streams_, host::Stream::compute, host::Stream::copy,
                                               std::move(components), arena_.bytes());
    for (std::size_t index = 0; index < weights.homes().size(); ++index)
      bind_parameters(weights.homes()[index].outline, weights.homes()[index].bytes,
                      [&](std::size_t offset) { return offload_->address(index, offset); });
  }

  /// One call of the pipeline; see `generate`.
  Result run(const Request& request, const Progress& progress) {
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
    const OffloadStatistics after = offload_->statistics();
    traffic_.arena_bytes = offload_->peak_bytes() + in_place_bytes_;
    traffic_.workspace_bytes = workspace_.peak_bytes();
    traffic_.bytes_moved = after.bytes_moved - before.bytes_moved;
    traffic_.copies = after.copies - before.copies;
    traffic_.misses = after.misses - before.misses;
    traffic_.stalls = streams_.stalls().count - stalls.count;
    traffic_.stall_seconds = streams_.stalls().seconds - stalls.seconds;
    return result;
  }

  /// Of the last run.
  const Traffic& traffic() const { return traffic_; }
  const Plan& plan() const { return offload_->plan(); }

 private:
  template <Element T>
  Result run_as(const Request& request, const Progress& progress) {
    host::Context<T> ctx(workspace_, threads_, offload_.get(), placement_.fusion);
    const std::size_t transformer = offload_->component("transformer");
    const std::size_t moved = offload_->statistics(transformer).bytes_moved;
    Result result;
    if constexpr (std::is_same_v<T, float16>) {
      host::Context<float> wide(workspace_, threads_, offload_.get(), placement_.fusion);
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
  Placement placement_;
  Workspace workspace_;
  AlignedBuffer arena_;
  host::Streams streams_;
  std::unique_ptr<host::Offload> offload_;
  Traffic traffic_;
  std::size_t in_place_bytes_ = 0;  // computed with where they live: resident all the time
};

}  // namespace ebb::flux
