#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/config_file.hpp"
#include "ebb/core/error.hpp"

namespace ebb::examples {

/// What `scheduler_config.json` says of a UniPCMultistepScheduler that follows a rectified flow, with the defaults of
/// diffusers.
struct UniPCMultistepConfig {
  static constexpr std::size_t highest_order = 3;

  std::size_t train_timesteps = 1000;
  std::size_t order = 2;
  double flow_shift = 1.0;
  std::vector<std::size_t> uncorrected;  // steps whose result the next step leaves as it is

  /// @throws ConfigError for everything but flow prediction on flow sigmas that end in zero, solved for the data:
  ///   the only mode of the Wan checkpoints
  static UniPCMultistepConfig read(const ConfigFile& file) {
    const auto fail = [&](const char* field, const char* expected, const auto& found) {
      throw ConfigError(
          concat(file.path().string(), ": field \"", field, "\": expected ", expected, ", found ", found));
    };
    if (const auto type = file.string("prediction_type", "epsilon"); type != "flow_prediction")
      fail("prediction_type", "\"flow_prediction\"", '"' + type + '"');
    if (!file.flag("use_flow_sigmas", false)) fail("use_flow_sigmas", "true", "false");
    for (const char* needed : {"predict_x0", "lower_order_final"}) file.expect(needed, true);
    for (const char* unsupported :
         {"thresholding", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_dynamic_shifting"})
      file.expect(unsupported, false);
    file.expect("solver_p", nullptr);
    file.expect("final_sigmas_type", "zero");
    file.expect("solver_type", "bh2");  // diffusers' bh1 multiplies 0 by infinity where the sigmas end in zero
    // diffusers takes 0 for "no terminal", as it takes null.
    if (const double terminal = file.number("shift_terminal", 0.0); terminal != 0.0)
      fail("shift_terminal", "null", terminal);
    UniPCMultistepConfig config{.train_timesteps = file.size("num_train_timesteps", 1, 1'000'000, 1000),
                                .order = file.size("solver_order", 1, highest_order, 2),
                                .flow_shift = file.number("flow_shift", 1.0),
                                .uncorrected = {}};
    if (!(config.flow_shift > 0)) fail("flow_shift", "a positive number", config.flow_shift);
    if (file.has("disable_corrector")) config.uncorrected = file.sizes("disable_corrector", 0, 100'000, 0, 1'000'000);
    return config;
  }
};

/// One step of UniPC: the model's velocity at the sample gives its prediction of the data, that corrects the sample,
/// and both lead to the next sample. All are fixed linear combinations:
///
///     data      = sample - sigma * velocity
///     corrected = corrector . (last, data1, data2, data3, data, sample)
///     next      = predictor . (corrected, data, data1, data2)
///
/// data1, data2, data3 are the data of one, two, three steps ago, `last` is the previous step's `corrected`. What is
/// not there yet has the coefficient 0; where memory for it is read all the same, it has to hold finite numbers.
struct UniPCStep {
  float sigma;
  std::array<float, 6> corrector;
  std::array<float, 4> predictor;
};

/// The multistep predictor-corrector UniPC (Zhao et al. 2023, arXiv 2302.04867) along a rectified flow, from noise
/// (sigma 1) to data (sigma 0): diffusers' UniPCMultistepScheduler as its Wan pipeline drives it.
///
/// Sigmas and timesteps are bit-equal to those of diffusers in every case that tests/golden/make_schedules.py records.
/// Coefficients are computed in double of the float32 sigmas, where diffusers computes in float32.
class UniPCMultistep {
 public:
  explicit UniPCMultistep(UniPCMultistepConfig config = {}) : config_(std::move(config)) {}

  /// Reads `directory/scheduler_config.json`. @throws FileError, ConfigError
  static UniPCMultistep load(const std::filesystem::path& directory) {
    return UniPCMultistep(UniPCMultistepConfig::read(ConfigFile::open(directory / "scheduler_config.json")));
  }

  const UniPCMultistepConfig& config() const { return config_; }

  /// Makes the schedule of a run: sigmas from 1 in equal parts towards 1/train_timesteps, shifted to the noisy end,
  /// then 0.
  /// @throws ConfigError when `steps` is not within 1 to 100000, or two sigmas would be the same float32
  void set_timesteps(std::size_t steps) {
    if (steps < 1 || steps > 100'000)
      throw ConfigError(concat("denoising steps: expected a whole number from 1 to 100000, found ", steps));
    std::vector<float> sigmas;
    std::vector<std::int64_t> timesteps;
    for (const double sigma : shifted(steps)) {
      sigmas.push_back(static_cast<float>(sigma));
      timesteps.push_back(static_cast<std::int64_t>(sigma * static_cast<double>(config_.train_timesteps)));
    }
    sigmas.push_back(0.0f);
    for (std::size_t i = 0; i < steps; ++i)
      if (!(sigmas[i] < 1.0f && sigmas[i] > sigmas[i + 1]))
        throw ConfigError(concat("the scheduler configuration gives no falling noise levels below 1 for ", steps,
                                 " steps (step ", i, ": ", sigmas[i], " to ", sigmas[i + 1],
                                 "): use fewer steps or a flow_shift nearer to 1"));
    steps_ = steps_of(sigmas);
    sigmas_ = std::move(sigmas);
    timesteps_ = std::move(timesteps);
  }

  /// Noise levels, one more than there are steps; the last is 0. Empty before set_timesteps.
  std::span<const float> sigmas() const { return sigmas_; }
  /// What the model is told, sigma times train_timesteps without its fraction; one per step.
  std::span<const std::int64_t> timesteps() const { return timesteps_; }
  /// What to compute, one per step.
  std::span<const UniPCStep> steps() const { return steps_; }

 private:
  /// A step from one noise level to the next, as weights of the sample and of the data predicted there and elsewhere.
  struct Update {
    double sample, data;
    std::vector<double> others;
  };

  /// The double product, rounded: the store keeps a compiler from fusing it with a sum where there is hardware for
  /// that.
  static double product(double a, double b) {
    const volatile double rounded = a * b;
    return rounded;
  }

  /// `numpy.linspace(1, 1 / train_timesteps, steps + 1)[:-1]`, shifted. diffusers keeps the first sigma off 1, where
  /// the logarithm of 1 - sigma would be infinite.
  std::vector<double> shifted(std::size_t steps) const {
    constexpr double margin = 1e-6;
    const double spacing = (1.0 / static_cast<double>(config_.train_timesteps) - 1.0) / static_cast<double>(steps);
    std::vector<double> sigmas;
    for (std::size_t i = 0; i < steps; ++i) {
      const double even = product(static_cast<double>(i), spacing) + 1.0;
      sigmas.push_back(config_.flow_shift * even / (1.0 + product(config_.flow_shift - 1.0, even)));
    }
    if (std::abs(sigmas[0] - 1.0) < margin) sigmas[0] -= margin;
    return sigmas;
  }

  /// phi_k(x) = sum over j of x^j / (j + k)!; the series where the closed form cancels.
  static double phi(std::size_t k, double x) {
    double factor = 1.0;  // 1 / i!
    if (std::abs(x) < 1.0) {
      for (std::size_t i = 2; i <= k; ++i) factor /= static_cast<double>(i);
      double sum = 0.0;
      for (std::size_t j = 1; j <= 24; ++j) {
        sum += factor;
        factor *= x / static_cast<double>(j + k);
      }
      return sum;
    }
    double value = std::expm1(x) / x;
    for (std::size_t i = 1; i < k; ++i) {
      factor /= static_cast<double>(i);
      value = (value - factor) / x;
    }
    return value;
  }

  /// Weights rho with sum over j of rho_j node_j^(i-1) = i! phi_(i+1)(h) / phi_1(h) for i from 1 to the number of
  /// nodes, `h` the negative width of the step in half the log signal-to-noise ratio. One node takes 1/2 instead, as
  /// the reference does.
  static std::vector<double> weights_of(const std::vector<double>& nodes, double h) {
    if (nodes.size() == 1) return {0.5};
    std::vector<double> weights;
    for (std::size_t j = 0; j < nodes.size(); ++j) {
      std::vector<double> polynomial{1.0};  // Lagrange's, 1 at node j and 0 at the others; lowest power first
      for (std::size_t other = 0; other < nodes.size(); ++other) {
        if (other == j) continue;
        polynomial.push_back(0.0);
        for (std::size_t power = polynomial.size(); power-- > 0;)
          polynomial[power] = ((power > 0 ? polynomial[power - 1] : 0.0) - nodes[other] * polynomial[power]) /
                              (nodes[j] - nodes[other]);
      }
      double weight = 0.0, factorial = 1.0;
      for (std::size_t i = 1; i <= nodes.size(); ++i) {
        factorial *= static_cast<double>(i);
        weight += polynomial[i - 1] * factorial * phi(i + 1, h) / phi(1, h);
      }
      weights.push_back(weight);
    }
    return weights;
  }

  /// Half the logarithm of the signal-to-noise ratio at a noise level above 0.
  static double half_log_snr(float sigma) {
    return std::log1p(-static_cast<double>(sigma)) - std::log(static_cast<double>(sigma));
  }

  enum class Target { unknown, predicted };

  /// From `sigmas[at]` to the next, with the data of `order` steps up to `at` and, where it is `predicted`, of the
  /// target: `others` has the older data, newest first, then the target's.
  static Update update(std::span<const float> sigmas, std::size_t at, std::size_t order, Target target) {
    if (sigmas[at + 1] == 0.0f) return {0.0, 1.0, {}};  // the data are the sample
    const double from = half_log_snr(sigmas[at]);
    const double width = half_log_snr(sigmas[at + 1]) - from;
    std::vector<double> nodes;
    for (std::size_t back = 1; back < order; ++back) nodes.push_back((half_log_snr(sigmas[at - back]) - from) / width);
    if (target == Target::predicted) nodes.push_back(1.0);
    const double gain = (static_cast<double>(sigmas[at + 1]) - 1.0) * std::expm1(-width);
    Update result{static_cast<double>(sigmas[at + 1]) / static_cast<double>(sigmas[at]), gain, {}};
    const auto weights = weights_of(nodes, -width);
    for (std::size_t j = 0; j < nodes.size(); ++j) {
      const double weight = gain * weights[j] / nodes[j];
      result.others.push_back(weight);
      result.data -= weight;
    }
    return result;
  }

  std::vector<UniPCStep> steps_of(std::span<const float> sigmas) const {
    const std::size_t count = sigmas.size() - 1;
    const auto order = [&](std::size_t step) { return std::min({config_.order, count - step, step + 1}); };
    std::vector<UniPCStep> steps;
    for (std::size_t i = 0; i < count; ++i) {
      UniPCStep step{sigmas[i], {}, {}};
      const auto& skipped = config_.uncorrected;
      if (i == 0 || std::find(skipped.begin(), skipped.end(), i - 1) != skipped.end()) {
        step.corrector[5] = 1.0f;
      } else {
        const Update corrected = update(sigmas, i - 1, order(i - 1), Target::predicted);
        step.corrector[0] = static_cast<float>(corrected.sample);
        step.corrector[1] = static_cast<float>(corrected.data);
        for (std::size_t back = 0; back + 1 < corrected.others.size(); ++back)
          step.corrector[2 + back] = static_cast<float>(corrected.others[back]);
        step.corrector[4] = static_cast<float>(corrected.others.back());
      }
      const Update next = update(sigmas, i, order(i), Target::unknown);
      step.predictor[0] = static_cast<float>(next.sample);
      step.predictor[1] = static_cast<float>(next.data);
      for (std::size_t back = 0; back < next.others.size(); ++back)
        step.predictor[2 + back] = static_cast<float>(next.others[back]);
      steps.push_back(step);
    }
    return steps;
  }

  UniPCMultistepConfig config_;
  std::vector<float> sigmas_;
  std::vector<std::int64_t> timesteps_;
  std::vector<UniPCStep> steps_;
};

}  // namespace ebb::examples
