#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "common/phase.hpp"
#include "common/tiling.hpp"
#include "common/values.hpp"
#include "ebb/core/view.hpp"

namespace ebb::wan {

using examples::Values;

/// Gets the frames of each video in order, 8-bit RGB [frames, height, width, 3], valid during the call. May throw to
/// end the run.
using FrameSink = std::function<void(std::size_t video, Image<const std::uint8_t> frames)>;

/// How the two sides of classifier-free guidance run: one after the other, with the memory of one; or together, so that
/// every weight is read, dequantized and moved once a step.
enum class Guidance { one_after_the_other, together };

/// One call of the pipeline.
struct Request {
  std::vector<std::string> prompts;           // one or more, or none with `embeds`
  std::vector<std::string> negative_prompts;  // none: the empty prompt
  double guidance = 5.0;                      // 1 or less: no guidance, and no negative prompt
  Guidance guidance_order = Guidance::one_after_the_other;
  std::size_t height = 480, width = 832;  // pixels
  std::size_t frames = 81;
  std::size_t steps = 50;
  std::optional<double> flow_shift;  // of the noise levels; none: what the scheduler's configuration says
  std::uint64_t seed = 0;
  std::size_t videos_per_prompt = 1;
  std::size_t max_sequence_length = 512;
  examples::Tiling tiling = examples::Tiling::off;
  Values latents;                  // noise [B, C, F, H, W]; empty: drawn from the seed
  Values embeds, negative_embeds;  // text states [B, S, C]; empty: encoded from the prompts
  FrameSink sink;  // where frames go, called by one thread at a time, not always the same; none: nothing is decoded

  std::size_t prompt_count() const { return embeds.empty() ? prompts.size() : embeds.shape[0]; }
  std::size_t batch() const { return prompt_count() * videos_per_prompt; }
  bool uses_guidance() const { return guidance > 1.0; }
};

/// What came out, frames excepted.
struct Result : examples::Phases {
  Values latents;                 // [B, C, F, H, W], after the last step
  std::uint64_t frames_hash = 0;  // of one frame after another, video after video; 0 where nothing is decoded
};

/// The largest difference of two results' latents; infinite for NaN, and where equal latents gave other frames.
inline float largest_difference(const Result& a, const Result& b) {
  constexpr float infinite = std::numeric_limits<float>::infinity();
  float largest = 0;
  for (std::size_t i = 0; i < a.latents.values.size(); ++i) {
    const float difference = std::abs(a.latents.values[i] - b.latents.values[i]);
    largest = std::max(largest, std::isnan(difference) ? infinite : difference);
  }
  return largest == 0 && a.frames_hash != b.frames_hash ? infinite : largest;
}

}  // namespace ebb::wan
