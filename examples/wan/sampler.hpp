#pragma once

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "common/flow_match_euler.hpp"
#include "common/unipc_multistep.hpp"

namespace ebb::wan {

/// What a run of a sampler computes, settled before it begins.
struct SamplerSchedule {
  /// Of one step: 2 for the data out of (sample, velocity), 6 and 4 as UniPCStep has them.
  static constexpr std::size_t coefficients_per_step = 12;

  std::vector<float> timesteps;     // [steps], what the transformer is told
  std::vector<float> coefficients;  // [steps, coefficients_per_step]

  std::size_t steps() const { return timesteps.size(); }
};

/// The scheduler of a checkpoint. Every step is a row of coefficients, whichever scheduler it is: Euler's are those of
/// a UniPC step that corrects nothing and looks at nothing older.
class Sampler {
 public:
  /// Reads `directory/scheduler_config.json` as one of `class_name`, which is UniPCMultistepScheduler or
  /// FlowMatchEulerDiscreteScheduler. @throws FileError, ConfigError
  static Sampler load(const std::filesystem::path& directory, std::string_view class_name) {
    Sampler sampler;
    if (class_name == "UniPCMultistepScheduler")
      sampler.config_ = examples::UniPCMultistep::load(directory).config();
    else
      sampler.config_ = examples::FlowMatchEuler::load(directory).config();
    return sampler;
  }

  /// @param flow_shift of the noise levels, in place of the configuration's
  /// @throws ConfigError where the configuration gives no schedule for so many steps
  SamplerSchedule schedule(std::size_t steps, std::optional<double> flow_shift) const {
    if (flow_shift && !(*flow_shift > 0 && std::isfinite(*flow_shift)))
      throw ConfigError(concat("flow-shift: expected a positive number, found ", *flow_shift));
    SamplerSchedule result;
    const auto add = [&](float timestep, const examples::UniPCStep& step) {
      result.timesteps.push_back(timestep);
      result.coefficients.insert(result.coefficients.end(), {1.0f, -step.sigma});
      result.coefficients.insert(result.coefficients.end(), step.corrector.begin(), step.corrector.end());
      result.coefficients.insert(result.coefficients.end(), step.predictor.begin(), step.predictor.end());
    };
    if (const auto* unipc = std::get_if<examples::UniPCMultistepConfig>(&config_)) {
      auto config = *unipc;
      if (flow_shift) config.flow_shift = *flow_shift;
      examples::UniPCMultistep scheduler(std::move(config));
      scheduler.set_timesteps(steps);
      for (std::size_t i = 0; i < steps; ++i) add(static_cast<float>(scheduler.timesteps()[i]), scheduler.steps()[i]);
    } else {
      auto config = std::get<examples::FlowMatchEulerConfig>(config_);
      if (flow_shift) config.shift = *flow_shift;
      examples::FlowMatchEuler scheduler(config);
      scheduler.set_timesteps(steps);
      for (std::size_t i = 0; i < steps; ++i) {
        // sample + (next - sigma) velocity, with the velocity as (sample - data) / sigma
        const double sigma = scheduler.sigmas()[i], next = scheduler.sigmas()[i + 1];
        if (!(sigma > 0))
          throw ConfigError(concat("scheduler: expected noise levels above 0, found ", sigma, " at step ", i,
                                   "; invert_sigmas true goes from data to noise, which makes no video"));
        add(scheduler.timesteps()[i],
            {static_cast<float>(sigma),
             {0, 0, 0, 0, 0, 1},
             {static_cast<float>(next / sigma), static_cast<float>(1.0 - next / sigma), 0, 0}});
      }
    }
    return result;
  }

 private:
  std::variant<examples::UniPCMultistepConfig, examples::FlowMatchEulerConfig> config_;
};

}  // namespace ebb::wan
