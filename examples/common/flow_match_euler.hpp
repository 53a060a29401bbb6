#pragma once

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/config_file.hpp"
#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"

namespace ebb::examples {

/// What `scheduler_config.json` says of a FlowMatchEulerDiscreteScheduler, with the defaults of diffusers.
struct FlowMatchEulerConfig {
  enum class Shifting { fixed, by_image_size };
  enum class TimeShift { exponential, linear };
  enum class Direction { noise_to_data, data_to_noise };

  std::size_t train_timesteps = 1000;
  double shift = 1.0;
  Shifting shifting = Shifting::fixed;
  double base_shift = 0.5;
  double max_shift = 1.15;
  std::size_t base_image_tokens = 256;
  std::size_t max_image_tokens = 4096;
  std::optional<double> shift_terminal;
  TimeShift time_shift = TimeShift::exponential;
  Direction direction = Direction::noise_to_data;

  /// @throws ConfigError for values that make no schedule, and for stochastic sampling and the Karras,
  ///   exponential and beta spacings, which no FLUX checkpoint uses
  static FlowMatchEulerConfig read(const ConfigFile& file) {
    for (const char* unsupported :
         {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "stochastic_sampling"})
      file.expect(unsupported, false);
    const auto fail = [&](const char* field, const char* expected, const auto& found) {
      throw ConfigError(
          concat(file.path().string(), ": field \"", field, "\": expected ", expected, ", found ", found));
    };
    const std::string time_shift = file.string("time_shift_type", "exponential");
    if (time_shift != "exponential" && time_shift != "linear")
      fail("time_shift_type", "\"exponential\" or \"linear\"", '"' + time_shift + '"');
    FlowMatchEulerConfig config{
        .train_timesteps = file.size("num_train_timesteps", 1, 1'000'000, 1000),
        .shift = file.number("shift", 1.0),
        .shifting = file.flag("use_dynamic_shifting", false) ? Shifting::by_image_size : Shifting::fixed,
        .base_shift = file.number("base_shift", 0.5),
        .max_shift = file.number("max_shift", 1.15),
        .base_image_tokens = file.size("base_image_seq_len", 1, std::size_t{1} << 24, 256),
        .max_image_tokens = file.size("max_image_seq_len", 1, std::size_t{1} << 24, 4096),
        .shift_terminal = {},
        .time_shift = time_shift == "linear" ? TimeShift::linear : TimeShift::exponential,
        .direction = file.flag("invert_sigmas", false) ? Direction::data_to_noise : Direction::noise_to_data};
    if (!(config.shift > 0)) fail("shift", "a positive number", config.shift);
    if (config.shifting == Shifting::by_image_size && config.max_image_tokens == config.base_image_tokens)
      fail("max_image_seq_len", "another number than base_image_seq_len", config.max_image_tokens);
    // diffusers takes 0 for "no terminal", as it takes null.
    if (const double terminal = file.number("shift_terminal", 0.0); terminal != 0.0) {
      if (!(terminal > 0 && terminal < 1)) fail("shift_terminal", "null or a number from 0 to 1", terminal);
      config.shift_terminal = terminal;
    }
    return config;
  }
};

/// Explicit Euler steps along a rectified flow dx/dsigma = v(x, sigma), from noise (sigma 1) to a picture
/// (sigma 0): diffusers' FlowMatchEulerDiscreteScheduler as its Flux and Wan pipelines drive it.
///
/// The schedule is computed in float32 in the order in which NumPy and PyTorch compute it, and is bit-equal
/// to theirs in every case that tests/golden/make_schedules.py records.
class FlowMatchEuler {
 public:
  explicit FlowMatchEuler(FlowMatchEulerConfig config = {}) : config_(config) {}

  /// Reads `directory/scheduler_config.json`. @throws FileError, ConfigError
  static FlowMatchEuler load(const std::filesystem::path& directory) {
    return FlowMatchEuler(FlowMatchEulerConfig::read(ConfigFile::open(directory / "scheduler_config.json")));
  }

  const FlowMatchEulerConfig& config() const { return config_; }

  /// The exponent of the shift for a picture of `image_tokens` packed latent tokens: the line through
  /// (base_image_tokens, base_shift) and (max_image_tokens, max_shift), continued on both sides.
  double mu(std::size_t image_tokens) const {
    const double slope = (config_.max_shift - config_.base_shift) / (static_cast<double>(config_.max_image_tokens) -
                                                                     static_cast<double>(config_.base_image_tokens));
    const double offset = config_.base_shift - slope * static_cast<double>(config_.base_image_tokens);
    return static_cast<double>(image_tokens) * slope + offset;
  }

  /// Makes the schedule of a run: sigma from 1 to 1/steps in equal parts, shifted towards the noisy end.
  /// Without dynamic shifting `image_tokens` has no influence.
  /// @throws ConfigError when `steps` is not within 1 to 100000, or the schedule would not be finite
  void set_timesteps(std::size_t steps, std::size_t image_tokens) {
    require_possible(steps);
    std::vector<float> sigmas = spaced(steps);
    shift(sigmas, image_tokens);
    if (config_.shift_terminal) stretch(sigmas, *config_.shift_terminal);
    keep(std::move(sigmas), concat(steps, " steps and ", image_tokens, " image tokens"));
  }

  /// The schedule of a caller that leaves the sigmas to the scheduler, as Wan does: in equal parts from the largest to
  /// the smallest sigma of the training, which are shifted already, then shifted once more. In double, as NumPy
  /// computes it.
  /// @throws ConfigError as above, and for dynamic shifting, which asks for an image size
  void set_timesteps(std::size_t steps) {
    require_possible(steps);
    if (config_.shifting != FlowMatchEulerConfig::Shifting::fixed)
      throw ConfigError(
          "the scheduler configuration has use_dynamic_shifting, which needs a picture's size: set it to "
          "false for a video");
    const auto training = static_cast<double>(config_.train_timesteps);
    const double first = training_sigma(config_.train_timesteps) * training, last = training_sigma(1) * training;
    std::vector<double> shifted(steps, first);
    const double spacing = steps > 1 ? (last - first) / static_cast<double>(steps - 1) : 0.0;
    for (std::size_t i = 0; i < steps; ++i) {
      const double even = (i > 0 && i + 1 == steps ? last : static_cast<double>(i) * spacing + first) / training;
      shifted[i] = config_.shift * even / (1.0 + (config_.shift - 1.0) * even);
    }
    if (config_.shift_terminal) stretch(shifted, *config_.shift_terminal);
    keep({shifted.begin(), shifted.end()}, concat(steps, " steps"));
  }

  /// Noise levels, one more than there are steps; the last is 0. Empty before set_timesteps.
  std::span<const float> sigmas() const { return sigmas_; }
  /// What the model is told, sigma times train_timesteps; one per step.
  std::span<const float> timesteps() const { return timesteps_; }

  /// Step `index` is sample += width * velocity, which `add_scaled` does. The width is rounded to the activation type
  /// first: PyTorch multiplies in the type of the velocity.
  /// @throws ShapeError when there is no such step
  template <Element T>
  float step_width(std::size_t index) const {
    require(index < timesteps_.size(), "FlowMatchEuler: a step beyond the schedule (call set_timesteps first)");
    return static_cast<float>(static_cast<T>(sigmas_[index + 1] - sigmas_[index]));
  }

 private:
  /// The float32 product, rounded: the store keeps a compiler from fusing it with a sum where there is
  /// hardware for that.
  static float product(float a, float b) {
    const volatile float rounded = a * b;
    return rounded;
  }

  /// `numpy.linspace(1, 1 / steps, steps)` in double, rounded.
  static std::vector<float> spaced(std::size_t steps) {
    std::vector<float> sigmas(steps, 1.0f);
    if (steps == 1) return sigmas;
    const double last = 1.0 / static_cast<double>(steps);
    const double spacing = (last - 1.0) / static_cast<double>(steps - 1);
    for (std::size_t i = 0; i < steps; ++i) sigmas[i] = static_cast<float>(static_cast<double>(i) * spacing + 1.0);
    sigmas.back() = static_cast<float>(last);
    return sigmas;
  }

  void shift(std::vector<float>& sigmas, std::size_t image_tokens) const {
    if (config_.shifting == FlowMatchEulerConfig::Shifting::fixed) {
      const auto factor = static_cast<float>(config_.shift);
      const auto factor_less_one = static_cast<float>(config_.shift - 1.0);
      for (float& sigma : sigmas) sigma = factor * sigma / (1.0f + product(factor_less_one, sigma));
      return;
    }
    const double exponent = mu(image_tokens);
    const bool linear = config_.time_shift == FlowMatchEulerConfig::TimeShift::linear;
    if (linear && !(exponent > 0))
      throw ConfigError(
          concat("time_shift_type \"linear\" needs a positive shift; ", image_tokens, " image tokens give ", exponent));
    const auto factor = static_cast<float>(linear ? exponent : std::exp(exponent));
    for (float& sigma : sigmas) sigma = factor / (factor + (1.0f / sigma - 1.0f));
  }

  /// Scales the distance from 1 so that the last sigma becomes `terminal`.
  template <class Real>
  static void stretch(std::vector<Real>& sigmas, double terminal) {
    const Real scale = (1 - sigmas.back()) / static_cast<Real>(1.0 - terminal);
    for (Real& sigma : sigmas) sigma = 1 - (1 - sigma) / scale;
  }

  /// Noise level of a timestep of the training, shifted in float32.
  double training_sigma(std::size_t timestep) const {
    std::vector<float> sigma{static_cast<float>(timestep) / static_cast<float>(config_.train_timesteps)};
    shift(sigma, 0);
    return static_cast<double>(sigma[0]);
  }

  static void require_possible(std::size_t steps) {
    if (steps < 1 || steps > 100'000)
      throw ConfigError(concat("denoising steps: expected a whole number from 1 to 100000, found ", steps));
  }

  /// Makes these sigmas the schedule. `run` says for messages what they are for.
  void keep(std::vector<float> sigmas, const std::string& run) {
    const bool inverted = config_.direction == FlowMatchEulerConfig::Direction::data_to_noise;
    std::vector<float> timesteps;
    timesteps.reserve(sigmas.size());
    for (float& sigma : sigmas) {
      if (!std::isfinite(sigma))
        throw ConfigError(concat("the scheduler configuration gives no finite schedule for ", run,
                                 ": use more steps or another shift"));
      if (inverted) sigma = 1.0f - sigma;
      timesteps.push_back(sigma * static_cast<float>(config_.train_timesteps));
    }
    sigmas.push_back(inverted ? 1.0f : 0.0f);
    sigmas_ = std::move(sigmas);
    timesteps_ = std::move(timesteps);
  }

  FlowMatchEulerConfig config_;
  std::vector<float> sigmas_;
  std::vector<float> timesteps_;
};

}  // namespace ebb::examples
