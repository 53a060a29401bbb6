#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <system_error>
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
      concat("\nSteps: ", request.steps, ", Guidance: ", request.guidance,
             request.flow_shift ? concat(", Flow shift: ", *request.flow_shift) : "",
             ", Max sequence length: ", request.max_sequence_length, ", Seed: ", request.seed, ", Video: ", index,
             ", Frames: ", request.frames, ", Size: ", request.width, "x", request.height,
             ", Model: ", examples::name_of_directory(options.model),
             ", Quantization: ", options.quantize.empty() ? "none" : options.quantize, ", Compute: ", options.compute,
             ", Version: ebb ", version_major, ".", version_minor, ".", version_patch);
  return text;
}

/// The files of all videos.
class Videos {
 public:
  /// Opens all. Several directories of frames lie in one, which is made where it is not there.
  /// @throws ConfigError, FileError
  Videos(const Options& options, const Request& request) : frames_(request.frames) {
    const std::filesystem::path output(options.output);
    examples::check_distinct(options, output, options.output_latents, request.batch());
    if (request.batch() > 1 && output.has_relative_path() && !output.has_filename()) {
      std::error_code failure;
      if (std::filesystem::create_directory(output, failure)) parent_.path = output;
      if (failure) throw FileError(concat(options.output, ": cannot be created: ", failure.message()));
    }
    for (std::size_t index = 0; index < request.batch(); ++index) {
      examples::VideoFormat format{.width = request.width,
                                   .height = request.height,
                                   .frames_per_second = {static_cast<int>(std::lround(options.fps * 1000)), 1000},
                                   .parameters = parameters(options, request, index)};
      if (!request.prompts.empty()) format.title = request.prompts[index / request.videos_per_prompt];
      open_.push_back({examples::open_video(examples::numbered(output, index, request.batch()), format)});
    }
  }

  /// The next frames of a video. With its last one it is finished and closed: an encoder holds much memory.
  /// @throws FileError
  void write(std::size_t video, Image<const std::uint8_t> frames) {
    Open& to = open_[video];
    for (std::size_t frame = 0; frame < frames.batch; ++frame)
      to.sink->write({&frames(frame, 0, 0, 0), 1, frames.height, frames.width, frames.channels});
    to.frames += frames.batch;
    if (to.frames < frames_) return;
    to.sink->finish();
    to.sink.reset();
  }

 private:
  struct Open {
    std::unique_ptr<examples::VideoSink> sink;
    std::size_t frames = 0;
  };
  /// Goes away again where nothing was put into it.
  struct NewDirectory {
    std::filesystem::path path;
    ~NewDirectory() {
      std::error_code not_empty;
      if (!path.empty()) std::filesystem::remove(path, not_empty);
    }
  };

  NewDirectory parent_;  // before the videos: theirs are gone when it goes
  std::vector<Open> open_;
  std::size_t frames_;  // of each video
};

}  // namespace detail

/// The whole program. Tables and nothing else go to `out`; progress and warnings go to standard error.
/// @throws Error, examples::Interrupted
inline void run(const Options& options, std::ostream& out) {
  Request request = detail::request_of(options);
  std::optional<detail::Videos> videos;
  examples::Run<Pipeline> run(options, request, [&] {
    if (!options.compare) videos.emplace(options, request);
    examples::check_writable(options.output_latents);
  });
  request.sink = [&](std::size_t video, Image<const std::uint8_t> frames) {
    if (videos) videos->write(video, frames);
  };
  if (options.compare) return run.compare(request, out);

  const Result result = run.run(request);
  if (!options.output_latents.empty())
    examples::write_values(options.output_latents, "latents", result.latents.shape, result.latents.values);
  run.report(result, {{"height", request.height},
                      {"width", request.width},
                      {"frames", request.frames},
                      {"steps", request.steps},
                      {"batch", request.batch()}});
}

}  // namespace ebb::wan
