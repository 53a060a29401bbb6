#pragma once

#include <concepts>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/phase.hpp"
#include "common/placement.hpp"
#include "common/report.hpp"
#include "common/weights.hpp"
#include "ebb/core/dtype.hpp"
#include "ebb/offload/plan.hpp"
#include "ebb/ops/linear.hpp"

namespace ebb::examples {

/// What engines run: types named Model, Request and Result, and a static
///   Result run(Context& ctx, const Model& model, const Request& request, const PhaseWatcher& watcher)
/// for the context of any backend. The component that the loop calls is `denoiser`, by its name.
template <class P>
concept Pipeline = requires {
  typename P::Model;
  typename P::Request;
  requires std::derived_from<typename P::Result, Phases>;
  { P::denoiser } -> std::convertible_to<const char*>;
};

/// How an engine computes and where weights are meanwhile.
struct EngineOptions {
  Placement placement;
  DType compute = DType::f32;
  Fusion fusion = Fusion::on;
  std::filesystem::path trace = {};  // GPU: where each run writes a timeline; empty: none
  std::filesystem::path tuned = {};  // GPU: where measured choices of algorithms are kept; empty: none are measured
};

/// A model with its weights, ready to run on some device under one placement.
template <Pipeline P>
class Engine {
 public:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  virtual ~Engine() = default;

  /// One call of the pipeline.
  virtual typename P::Result run(const typename P::Request& request, const PhaseWatcher& watcher) = 0;
  virtual const Plan& plan() const = 0;
  /// Of the last run.
  const Traffic& traffic() const { return traffic_; }

 protected:
  Traffic traffic_;
};

/// A device that engines run on. It outlives them.
template <Pipeline P>
class Machine {
 public:
  Machine() = default;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  virtual ~Machine() = default;

  /// Says before weights are there which options its engines refuse in any case. @throws ConfigError
  virtual void check(const EngineOptions&) const {}
  /// Binds all parameters of `model`, which can have one engine at a time. @throws ConfigError, MemoryError
  virtual std::unique_ptr<Engine<P>> engine(typename P::Model& model, const Weights& weights,
                                            const EngineOptions& options) = 0;
  /// Makes transfers from the weights' memory fast for as long as the result, or an engine for these weights, lives;
  /// both must be gone before the weights are.
  virtual std::shared_ptr<const void> pin(const Weights&) { return nullptr; }
  /// What the report says: "host", "cuda:0 NVIDIA ...".
  virtual std::string name() const = 0;
  /// What the user should know, one sentence each.
  virtual std::vector<std::string> warnings() const { return {}; }
};

// The devices are compiled once a pipeline, apart from its users: host_engine.hpp, and cuda_engine.cuh or no_cuda.hpp.

/// The CPU, with this many threads.
template <Pipeline P>
std::unique_ptr<Machine<P>> host_machine(int threads);

/// Whether this program was built for GPUs, and finds one that it can use. Where there is one that it cannot use,
/// `trouble` says why.
template <Pipeline P>
bool cuda_available(std::string& trouble);

/// GPU `index`. At most `pin_bytes` of the weights' home memory are pinned. @throws ConfigError where the program was
/// built without CUDA, Error when there is no such GPU
template <Pipeline P>
std::unique_ptr<Machine<P>> cuda_machine(int index, std::size_t pin_bytes);

}  // namespace ebb::examples
