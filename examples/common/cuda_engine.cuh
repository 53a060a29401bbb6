#pragma once
// A GPU as a machine that runs pipelines.

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/engine.hpp"
#include "ebb/cuda/loop.hpp"
#include "ebb/cuda/ops.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/io/atomic_file.hpp"
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

/// The home memory of some weights, pinned component by component as far as a budget reaches.
struct Pins {
  Pins(const Weights& weights, std::size_t budget) {
    for (const Weights::Home& home : weights.homes()) {
      const std::size_t bytes = home.outline.end;
      if (bytes <= budget) {
        regions.emplace_back(std::span(home.bytes, bytes));
        if (regions.back().pinned()) {
          budget -= bytes;
          continue;
        }
      }
      warnings.push_back(concat(home.outline.name, ": its ", bytes,
                                " bytes of weights are not pinned (the budget or the system's limit is reached): "
                                "transfers are slower and do not overlap"));
    }
  }
  std::vector<cuda::PinnedRegion> regions;
  std::vector<std::string> warnings;
};

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
        compute_(options.compute),
        gpu_(device, attention_workspace(device)) {
    std::vector<Component> components = components_of(weights, options.placement);
    const Plan plan = cuda::Offload::plan(options.placement.policy, components);
    arena_ = arena_of(weights, plan.arena_bytes);
    offload_ = std::make_unique<cuda::Offload>(options.placement.policy, gpu_.streams, cuda::Stream::compute,
                                               cuda::Stream::copy, std::move(components), arena_.bytes());
    bind_all(weights, *offload_);
    gpu_.fusion = options.fusion;
    const Level level = options.placement.policy.settings().level;
    const bool moves_in_steps =
        (level != Level::none && level != Level::model) || options.placement.policy.settings().budget_bytes.has_value();
    if (!options.trace.empty()) {
      trace_path_ = options.trace;
      trace_ = std::make_unique<cuda::Trace>();
      for (const Weights::Home& home : weights.homes()) trace_->name(home.outline, home.bytes);
      gpu_.set_trace(trace_.get());
    }
    if (!options.tuned.empty()) {
      tuned_path_ = options.tuned;
      tuned_ = read_tuned(tuned_path_);
      gpu_.blas.tune(tuned_);
    }
    gpu_.graphs = options.fusion == Fusion::on && (pins_->warnings.empty() || !moves_in_steps);
  }

  Result run(const Request& request, const PhaseWatcher& watcher) override {
    if (trace_) trace_->start(gpu_.streams.handle(cuda::Stream::compute));
    const OffloadStatistics before = offload_->statistics();
    Result result;
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
    traffic_.count(before, offload_->statistics());
    traffic_.arena_bytes = arena_.size();
    traffic_.workspace_bytes = result.workspace_bytes();
    const std::size_t free = free_bytes();
    traffic_.driver_bytes = free_before_ > free ? free_before_ - free : 0;
    if (trace_) AtomicFile::write_text(trace_path_, trace_->json());
    if (tuned_.changed()) AtomicFile::write_text(tuned_path_, tuned_.text());
    return result;
  }
  const Plan& plan() const override { return offload_->plan(); }

 private:
  /// What a file holds; nothing where there is none yet. @throws FileError
  static cuda::TunedAlgorithms read_tuned(const std::filesystem::path& path) {
    if (!std::filesystem::exists(path)) return {};
    std::ifstream stream(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    if (!stream) throw FileError(concat(path.string(), ": cannot be read"));
    return cuda::TunedAlgorithms::parse(text, path.string());
  }

  /// @throws MemoryError that says which policies fit
  static cuda::DeviceBuffer<std::byte> arena_of(const Weights& weights, std::size_t bytes) {
    try {
      return cuda::DeviceBuffer<std::byte>(bytes);
    } catch (const cuda::CudaError& error) {
      if (error.status != cudaErrorMemoryAllocation) throw;
      std::vector<Outline> outlines;
      for (const Weights::Home& home : weights.homes()) outlines.push_back(home.outline);
      throw MemoryError(concat(error.what(), "; ", policies_that_fit(policy_costs(outlines), free_bytes())));
    }
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
  CudaMachine(int index, std::size_t pin_bytes) : device_(cuda::Device::open(index)), pin_bytes_(pin_bytes) {}

  std::unique_ptr<Engine<P>> engine(typename P::Model& model, const Weights& weights,
                                    const EngineOptions& options) override {
    return std::make_unique<CudaEngine<P>>(device_, model, weights, options, pins_of(weights));
  }
  std::shared_ptr<const void> pin(const Weights& weights) override { return pins_of(weights); }
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
      warnings_ = pins->warnings;
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
bool cuda_available() {
  return cuda::Device::available();
}

template <Pipeline P>
std::unique_ptr<Machine<P>> cuda_machine(int index, std::size_t pin_bytes) {
  return std::make_unique<detail::CudaMachine<P>>(index, pin_bytes);
}

}  // namespace ebb::examples
