#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/offload/plan.hpp"
#include "ebb/ops/linear.hpp"
#include "flux/pipeline.hpp"
#include "flux/placement.hpp"
#include "flux/report.hpp"
#include "flux/weights.hpp"

namespace ebb::flux {

/// How an engine computes and where weights are meanwhile.
struct EngineOptions {
  Placement placement;
  DType compute = DType::f32;
  Fusion fusion = Fusion::on;
  std::filesystem::path trace = {};  // GPU: where each run writes a timeline; empty: none
};

/// A model with its weights, ready to run on some device under one placement.
class Engine {
 public:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  virtual ~Engine() = default;

  /// One call of the pipeline; see `generate`.
  virtual Result run(const Request& request, const Progress& progress) = 0;
  virtual const Plan& plan() const = 0;
  /// Of the last run.
  const Traffic& traffic() const { return traffic_; }

 protected:
  Traffic traffic_;
};

/// A device that engines run on. It outlives them.
class Machine {
 public:
  Machine() = default;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  virtual ~Machine() = default;

  /// Binds all parameters of `model`, which can have one engine at a time. @throws ConfigError, MemoryError
  virtual std::unique_ptr<Engine> engine(Model& model, const Weights& weights, const EngineOptions& options) = 0;
  /// Makes transfers from the weights' memory fast for as long as the result, or an engine for these weights, lives; both
  /// must be gone before the weights are.
  virtual std::shared_ptr<const void> pin(const Weights&) { return nullptr; }
  /// What the report says: "host", "cuda:0 NVIDIA ...".
  virtual std::string name() const = 0;
  /// What the user should know, one sentence each.
  virtual std::vector<std::string> warnings() const { return {}; }
};

/// The CPU, with this many threads.
std::unique_ptr<Machine> host_machine(int threads);

/// Whether this program was built for GPUs, and finds one.
bool cuda_available();

/// GPU `index`. At most `pin_bytes` of the weights' home memory are pinned. @throws ConfigError where the program was
/// built without CUDA, Error when there is no such GPU
std::unique_ptr<Machine> cuda_machine(int index, std::size_t pin_bytes);

}  // namespace ebb::flux
