#pragma once
// A GPU as a machine that runs pipelines.

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/config_file.hpp"
#include "common/engine.hpp"
#include "common/pins.hpp"
#include "ebb/cuda/loop.hpp"
#include "ebb/cuda/ops.cuh"
#include "ebb/cuda/probe.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/io/atomic_file.hpp"
#include "ebb/io/text_file.hpp"
#include "ebb/offload/advice.hpp"

namespace ebb::examples {

namespace detail {

/// Free bytes of the current device, as the driver sees it.
inline std::size_t free_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  cuda::check(cudaMemGetInfo(&free, &total));
  return free;
}

/// Calls `action()`. Where device memory runs out in it, the message ends with `advice(bytes)`, which is called when
/// all that unwinding gives back is free again; `bytes` were asked for in vain, 0 where that is not known.
/// @throws MemoryError, and whatever else `action` throws
template <class Action, class Advice>
auto advised(Action action, Advice advice) {
  std::string message;
  std::size_t bytes = 0;
  try {
    return action();
  } catch (const cuda::CudaError& error) {
    if (error.status != cudaErrorMemoryAllocation) throw;
    message = error.what();
    bytes = error.asked;
  } catch (const cuda::BlasError& error) {
    if (!error.out_of_memory) throw;
    message = error.what();
  }
  throw MemoryError(concat(message, "; ", advice(bytes)));
}

/// Which policies need less than the `arena_bytes` that were too many, and fit in `free` bytes with `others` beside
/// them.
inline std::string smaller_policies(const Weights& weights, const Placement& placement, std::size_t arena_bytes,
                                    std::size_t free, std::size_t others) {
  std::vector<Outline> outlines;
  for (const Weights::Home& home : weights.homes()) outlines.push_back(home.outline);
  // Sums say nothing of how the driver rounds and where its free bytes lie: what did not fit once does not fit now.
  const std::size_t most = arena_bytes > 0 ? arena_bytes - 1 : 0;
  return policies_that_fit(policy_costs(outlines, HomeMemory::separate, placement.excluded),
                           std::min(free, most + others), others);
}

template <Pipeline P>
class CudaEngine final : public Engine<P> {
  using Model = typename P::Model;
  using Request = typename P::Request;
  using Result = typename P::Result;
  using Engine<P>::traffic_;

 public:
  CudaEngine(const cuda::Device& device, Model& model, const Weights& weights, const EngineOptions& options,
             std::shared_ptr<const Pins> pins)
      : free_before_(free_bytes()),
        pins_(std::move(pins)),
        model_(model),
        weights_(weights),
        placement_(options.placement),
        compute_(options.compute),
        gpu_(device, attention_workspace(device)) {
    std::vector<Component> components = components_of(weights, options.placement);
    const Plan plan = cuda::Offload::plan(options.placement.policy, components);
    arena_ = cuda::DeviceBuffer<std::byte>(plan.arena_bytes);
    offload_ = std::make_unique<cuda::Offload>(options.placement.policy, gpu_.streams, cuda::Stream::compute,
                                               cuda::Stream::copy, std::move(components), arena_.bytes());
    bind_all(weights, *offload_);
    gpu_.fusion = options.fusion;
    const Level level = options.placement.policy.settings().level;
    const bool moves_in_steps =
        (level != Level::none && level != Level::model) || options.placement.policy.settings().budget_bytes.has_value();
    for (const Weights::Home& home : weights.homes()) gpu_.observer.names.add(home.outline, home.bytes);
    if (!options.trace.empty()) {
      trace_path_ = options.trace;
      trace_ = std::make_unique<cuda::Trace>();
      gpu_.observer.trace = trace_.get();
    }
    if (!options.tuned.empty()) {
      tuned_path_ = options.tuned;
      tuned_ = read_tuned(tuned_path_);
      gpu_.blas.tune(tuned_);
    }
    // Only the denoiser's weights move in the steps that are recorded.
    gpu_.graphs = options.fusion == Fusion::on && (!moves_in_steps || pins_->holds(P::denoiser));
  }

  Result run(const Request& request, const PhaseWatcher& watcher) override {
    gpu_.device.use();
    return advised([&] { return watched(request, watcher); },
                   [&](std::size_t bytes) {
                     const std::size_t activations = gpu_.workspace.peak_bytes() + bytes;
                     gpu_.workspace.release();
                     return smaller_policies(weights_, placement_, arena_.size(), free_bytes() + arena_.size(),
                                             activations);
                   });
  }
  const Plan& plan() const override { return offload_->plan(); }

 private:
  /// What a file holds; nothing where there is none yet. @throws FileError
  static cuda::TunedAlgorithms read_tuned(const std::filesystem::path& path) {
    if (!is_there(path)) return {};
    return cuda::TunedAlgorithms::parse(read_text(path, most_text_bytes, "tuned algorithms"), path.string());
  }

  /// One call of the pipeline. Profilers see its phases, and what the driver counts is looked at at the end of each,
  /// when its workspace is still there.
  Result watched(const Request& request, const PhaseWatcher& watcher) {
    if (trace_) trace_->start(gpu_.streams.handle(cuda::Stream::compute));
    const OffloadStatistics before = offload_->statistics();
    const std::size_t launches = gpu_.graph_launches;
    std::size_t driver_peak = 0;
    std::optional<cuda::Range> range;
    const PhaseWatcher watch = [&](const char* phase, std::size_t done, std::size_t of) {
      if (done == 0) range.emplace(phase);
      if (done == of) {
        range.reset();
        const std::size_t free = free_bytes();
        driver_peak = std::max(driver_peak, free_before_ > free ? free_before_ - free : 0);
      }
      watcher(phase, done, of);
    };
    Result result;
    switch (compute_) {
      case DType::bf16:
        result = run_as<bfloat16>(request, watch);
        break;
      case DType::f16:
        result = run_as<float16>(request, watch);
        break;
      default:
        result = run_as<float>(request, watch);
    }
    traffic_.count(before, offload_->statistics());
    traffic_.arena_bytes = arena_.size();
    traffic_.workspace_bytes = result.workspace_bytes();
    traffic_.gpu = {.driver_peak_bytes = driver_peak, .graph_launches = gpu_.graph_launches - launches};
    if (trace_) AtomicFile::write_text(trace_path_, trace_->json());
    if (tuned_.changed()) AtomicFile::write_text(tuned_path_, tuned_.text());
    return result;
  }

  template <Element T>
  Result run_as(const Request& request, const PhaseWatcher& watcher) {
    cuda::Context<T> ctx(gpu_, offload_.get());
    const std::size_t denoiser = offload_->component(P::denoiser);
    const std::size_t moved = offload_->statistics(denoiser).bytes_moved;
    Result result = P::run(ctx, model_, request, watcher);
    traffic_.denoise_bytes_moved = offload_->statistics(denoiser).bytes_moved - moved;
    return result;
  }

  std::size_t free_before_;
  std::shared_ptr<const Pins> pins_;
  Model& model_;
  const Weights& weights_;
  Placement placement_;
  DType compute_;
  std::filesystem::path trace_path_, tuned_path_;
  cuda::TunedAlgorithms tuned_;         // outlives who reads it
  std::unique_ptr<cuda::Trace> trace_;  // outlives what reports to it
  cuda::Engine gpu_;
  cuda::DeviceBuffer<std::byte> arena_;
  std::unique_ptr<cuda::Offload> offload_;
};

template <Pipeline P>
class CudaMachine final : public Machine<P> {
 public:
  CudaMachine(int index, std::size_t pin_bytes) : device_(cuda::Device::open(index)), pin_bytes_(pin_bytes) {
    cuda::probe();
  }

  std::unique_ptr<Engine<P>> engine(typename P::Model& model, const Weights& weights,
                                    const EngineOptions& options) override {
    device_.use();
    return advised(
        [&]() -> std::unique_ptr<Engine<P>> {
          return std::make_unique<CudaEngine<P>>(device_, model, weights, options, pins_of(weights));
        },
        [&](std::size_t) {
          const cuda::AttentionWorkspaceBytes attention = cuda::attention_workspace(device_);
          const std::size_t arena_bytes =
              cuda::Offload::plan(options.placement.policy, components_of(weights, options.placement)).arena_bytes;
          return smaller_policies(weights, options.placement, arena_bytes, free_bytes(),
                                  cuda::Blas::workspace_bytes + attention.scratch + attention.flags);
        });
  }
  std::shared_ptr<const void> pin(const Weights& weights) override {
    device_.use();
    return pins_of(weights);
  }
  std::string name() const override {
    cudaDeviceProp properties{};
    cuda::check(cudaGetDeviceProperties(&properties, device_.index));
    return concat("cuda:", device_.index, " ", properties.name);
  }
  std::vector<std::string> warnings() const override { return warnings_; }

 private:
  std::shared_ptr<const Pins> pins_of(const Weights& weights) {
    std::shared_ptr<const Pins> pins = pins_.lock();
    if (!pins || pinned_ != &weights) {
      pins = std::make_shared<const Pins>(weights, pin_bytes_);
      pins_ = pins;
      pinned_ = &weights;
      warnings_ = pins->warnings();
    }
    return pins;
  }

  cuda::Device device_;
  std::size_t pin_bytes_;
  std::weak_ptr<const Pins> pins_;  // of the weights that are pinned now
  const Weights* pinned_ = nullptr;
  std::vector<std::string> warnings_;
};

}  // namespace detail

template <Pipeline P>
bool cuda_available(std::string& trouble) {
  const cudaError_t presence = cuda::Device::presence();
  if (presence == cudaErrorNoDevice) return false;
  try {
    cuda::check(presence);
    (void)cuda::Device::open(0);
    cuda::probe();
    return true;
  } catch (const cuda::CudaError& error) {
    trouble = error.what();
    return false;
  }
}

template <Pipeline P>
std::unique_ptr<Machine<P>> cuda_machine(int index, std::size_t pin_bytes) {
  return std::make_unique<detail::CudaMachine<P>>(index, pin_bytes);
}

}  // namespace ebb::examples
