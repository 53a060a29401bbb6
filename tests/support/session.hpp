#pragma once

#include <csignal>
#include <cstddef>
#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "common/engine.hpp"
#include "common/run.hpp"
#include "support/golden.hpp"

namespace ebb::testing {

/// A golden's model with weights of one kind, and one engine after another on a machine, which outlives it.
template <examples::Pipeline P>
class Session {
 public:
  using Model = typename P::Model;
  using Request = typename P::Request;
  using Result = typename P::Result;

  /// `quantize` is a plan, or empty: everything as it is stored. `disk` is a directory for the weights' home, or empty.
  Session(examples::Machine<P>& machine, const Golden& golden, const std::string& quantize, DType compute,
          const FormatChoice& format = {}, const std::filesystem::path& disk = {})
      : machine_(&machine),
        model_(Model::open(golden.directory())),
        compute_(compute),
        weights_(model_, {quantize.empty() ? QuantizationPlan{} : QuantizationPlan::parse(quantize, format, {}),
                          compute, 1, disk}) {}

  Result run(const Request& request, const OffloadSpec& policy = OffloadSpec(NoOffload{}),
             const std::vector<std::string>& excluded = {}) {
    return run(*machine_, request, {.placement = {policy, excluded}, .compute = compute_});
  }
  /// With a timeline in `file`: then a GPU makes no graphs.
  Result run_traced(const Request& request, const OffloadSpec& policy, const std::filesystem::path& file) {
    return run(*machine_, request, {.placement = {policy, {}}, .compute = compute_, .trace = file});
  }
  /// On another machine, resident.
  Result run_on(examples::Machine<P>& machine, const Request& request) {
    return run(machine, request, {.placement = {OffloadSpec(NoOffload{}), {}}, .compute = compute_});
  }

  /// Runs with a SIGINT once the first denoising step has run, as a user's Ctrl-C would come.
  /// @return how many steps had run each time that the loop told, until it ended
  std::vector<std::size_t> steps_until_signal(const Request& request) {
    const auto engine = machine_->engine(model_, weights_, {.placement = {}, .compute = compute_});
    const examples::InterruptGuard guard;
    std::ostringstream printed;
    examples::Progress progress(printed, examples::ProgressStyle::quiet);
    std::vector<std::size_t> steps;
    const auto watch = [&, stop = examples::watcher(progress)](const char* phase, std::size_t done, std::size_t of) {
      if (std::string_view(phase) == "denoise") steps.push_back(done);
      if (steps.size() == 2) std::raise(SIGINT);
      stop(phase, done, of);
    };
    try {
      (void)engine->run(request, watch);
      steps.clear();  // nothing ended it
    } catch (const examples::Interrupted&) {
    }
    return steps;
  }

  Model& model() { return model_; }
  const examples::Weights& weights() const { return weights_; }
  /// Of the last run.
  const examples::Traffic& traffic() const { return traffic_; }
  const Plan& plan() const { return plan_; }

 private:
  Result run(examples::Machine<P>& machine, const Request& request, const examples::EngineOptions& options) {
    const auto engine = machine.engine(model_, weights_, options);
    auto result = engine->run(request, [](const char*, std::size_t, std::size_t) {});
    traffic_ = engine->traffic();
    plan_ = engine->plan();
    return result;
  }

  examples::Machine<P>* machine_;
  Model model_;
  DType compute_;
  examples::Weights weights_;
  examples::Traffic traffic_;
  Plan plan_;
};

}  // namespace ebb::testing
