#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "common/run.hpp"
#include "common/values.hpp"
#include "common/video.hpp"
#include "wan/options.hpp"
#include "wan/pipeline.hpp"

namespace ebb::wan {

namespace detail {

inline Request request_of(const Options& options) {
  Request request{.prompts = options.prompts,
                  .negative_prompts = options.negative_prompts,
                  .guidance = options.guidance,
                  .guidance_order = options.guidance_together ? Guidance::together : Guidance::one_after_the_other,
                  .height = options.height,
                  .width = options.width,
                  .frames = options.num_frames,
                  .steps = options.steps,
                  .flow_shift = options.flow_shift,
                  .seed = options.seed,
                  .videos_per_prompt = options.num_videos,
                  .max_sequence_length = options.max_sequence_length,
                  .tiling = options.vae_tiling ? examples::Tiling::on : examples::Tiling::off,
                  .latents = {},
                  .embeds = {},
                  .negative_embeds = {},
                  .sink = {}};
  if (!options.latents.empty())
    request.latents = examples::read_values(SafetensorsFile::open(options.latents), "latents");
  if (!options.prompt_embeds.empty()) {
    const auto file = SafetensorsFile::open(options.prompt_embeds);
    request.embeds = examples::read_values(file, "prompt_embeds");
    if (file.contains("negative_prompt_embeds"))
      request.negative_embeds = examples::read_values(file, "negative_prompt_embeds");
  }
  return request;
}

/// How a video was made, in the words that PNG files of other programs use.
inline std::string parameters(const Options& options, const Request& request, std::size_t index) {
  const std::size_t prompt = index / request.videos_per_prompt;
  std::string text = request.prompts.empty() ? "" : request.prompts[prompt];
  if (!request.negative_prompts.empty())
    text += "\nNegative prompt: " + request.negative_prompts[std::min(prompt, request.negative_prompts.size() - 1)];
  text +=
      concat("\nSteps: ", request.steps, ", Guidance: ", request.guidance, ", Seed: ", request.seed, ", Video: ", index,
             ", Frames: ", request.frames, ", Size: ", request.width, "x", request.height,
             ", Model: ", std::filesystem::path(options.model).filename().string(),
             ", Quantization: ", options.quantize.empty() ? "none" : options.quantize, ", Compute: ", options.compute,
             ", Version: ebb ", version_major, ".", version_minor, ".", version_patch);
  return text;
}

/// The files of all videos, open.
inline std::vector<std::unique_ptr<examples::VideoSink>> open_videos(const Options& options, const Request& request) {
  std::vector<std::unique_ptr<examples::VideoSink>> videos;
  for (std::size_t index = 0; index < request.batch(); ++index) {
    examples::VideoFormat format{.width = request.width,
                                 .height = request.height,
                                 .frames_per_second = {static_cast<int>(std::lround(options.fps * 1000)), 1000},
                                 .parameters = parameters(options, request, index)};
    if (!request.prompts.empty()) format.title = request.prompts[index / request.videos_per_prompt];
    videos.push_back(examples::open_video(examples::numbered(options.output, index, request.batch()), format));
  }
  return videos;
}

}  // namespace detail

/// The whole program. Tables and nothing else go to `out`; progress and warnings go to standard error.
/// @throws Error, examples::Interrupted
inline void run(const Options& options, std::ostream& out) {
  Request request = detail::request_of(options);
  std::vector<std::unique_ptr<examples::VideoSink>> videos;
  examples::Run<Pipeline> run(options, request, [&] {
    if (!options.compare) videos = detail::open_videos(options, request);
    examples::check_writable(options.output_latents);
  });
  request.sink = [&](std::size_t video, Image<const std::uint8_t> frames) {
    if (options.compare) return;
    for (std::size_t frame = 0; frame < frames.batch; ++frame)
      videos[video]->write({&frames(frame, 0, 0, 0), 1, frames.height, frames.width, frames.channels});
  };
  if (options.compare) return run.compare(request, out);

  const Result result = run.run(request);
  for (const auto& video : videos) video->finish();
  if (!options.output_latents.empty())
    examples::write_values(options.output_latents, "latents", result.latents.shape, result.latents.values);
  run.report(result, {{"height", request.height},
                      {"width", request.width},
                      {"frames", request.frames},
                      {"steps", request.steps},
                      {"batch", request.batch()}});
}

}  // namespace ebb::wan
