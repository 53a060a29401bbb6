#pragma once

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/png.hpp"
#include "common/run.hpp"
#include "common/values.hpp"
#include "ebb/io/safetensors.hpp"
#include "flux/options.hpp"
#include "flux/pipeline.hpp"

namespace ebb::flux {

namespace detail {

/// A float tensor [items, tokens, channels], or [items, channels], of a safetensors file. @throws FileError
inline Batch read_batch(const SafetensorsFile& file, std::string_view name) {
  examples::Values read = examples::read_values(file, name);
  const Shape& shape = read.shape;
  if (shape.rank() != 2 && shape.rank() != 3)
    throw FileError(concat(file.path().string(), ": tensor '", name,
                           "': expected shape [batch, tokens, channels] or [batch, channels], found ", shape.text()));
  return {shape[0], shape.rank() == 3 ? shape[1] : 1, shape[shape.rank() - 1], std::move(read.values)};
}

inline Request request_of(const Options& options) {
  Request request{.prompts = options.prompts,
                  .prompts_2 = options.prompts_2,
                  .negative_prompts = options.negative_prompts,
                  .true_cfg = options.true_cfg,
                  .height = options.height,
                  .width = options.width,
                  .steps = options.steps,
                  .guidance = options.guidance,
                  .seed = options.seed,
                  .images_per_prompt = options.num_images,
                  .max_sequence_length = options.max_sequence_length,
                  .slicing = options.vae_slicing ? examples::Slicing::on : examples::Slicing::off,
                  .tiling = options.vae_tiling ? examples::Tiling::on : examples::Tiling::off,
                  .latents = {},
                  .embeds = {},
                  .pooled = {}};
  if (!options.latents.empty()) request.latents = read_batch(SafetensorsFile::open(options.latents), "latents");
  if (!options.prompt_embeds.empty()) {
    const auto file = SafetensorsFile::open(options.prompt_embeds);
    request.embeds = read_batch(file, "prompt_embeds");
    request.pooled = read_batch(file, "pooled_prompt_embeds");
  }
  return request;
}

/// "parameters" as other programs write it, and the same as separate entries.
inline std::vector<examples::PngText> metadata(const Options& options, const Request& request, std::size_t index) {
  const std::size_t prompt = index / request.images_per_prompt;
  const std::string text = request.prompts.empty() ? "" : request.prompts[prompt];
  std::string negative;
  if (!request.negative_prompts.empty())
    negative = request.negative_prompts[std::min(prompt, request.negative_prompts.size() - 1)];
  std::string parameters = text;
  if (!request.prompts_2.empty()) parameters += "\nPrompt of T5: " + request.prompts_2[prompt];
  if (!negative.empty()) parameters += "\nNegative prompt: " + negative;
  parameters +=
      concat("\nSteps: ", request.steps, ", Sampler: FlowMatchEuler, Guidance: ", request.guidance,
             ", True CFG: ", request.true_cfg, ", Max sequence length: ", request.max_sequence_length,
             ", Seed: ", request.seed, ", Image: ", index, ", Size: ", request.width, "x", request.height,
             ", Model: ", examples::name_of_directory(options.model),
             ", Quantization: ", options.quantize.empty() ? "none" : options.quantize, ", Compute: ", options.compute,
             ", Version: ebb ", version_major, ".", version_minor, ".", version_patch);
  return {{"parameters", parameters}, {"Software", "ebb flux"}};
}

/// Says before minutes of work what would fail after them. @throws ConfigError, FileError
inline void check_output(const Options& options, const Request& request) {
  std::string extension = std::filesystem::path(options.output).extension().string();
  std::ranges::transform(extension, extension.begin(), [](unsigned char c) { return std::tolower(c); });
  if (extension != ".png")
    throw ConfigError(concat("--output \"", options.output, "\": expected a name that ends in .png"));
  examples::check_distinct(options, options.output, options.output_latents, request.batch());
  examples::check_writable(examples::numbered(options.output, 0, request.batch()));
}

inline void write_pictures(const Options& options, const Request& request, const Result& result) {
  for (std::size_t index = 0; index < result.pictures.size(); ++index) {
    const Picture& picture = result.pictures[index];
    const auto text = metadata(options, request, index);
    examples::write_png(examples::numbered(options.output, index, result.pictures.size()),
                        Image<const std::uint8_t>{picture.rgb.data(), 1, picture.height, picture.width, 3}, text);
  }
}

}  // namespace detail

/// The whole program. Tables and nothing else go to `out`; progress and warnings go to standard error.
/// @throws Error, examples::Interrupted
inline void run(const Options& options, std::ostream& out) {
  Request request = detail::request_of(options);
  examples::Run<Pipeline> run(options, request, [&] {
    if (!options.compare) detail::check_output(options, request);
    examples::check_writable(options.output_latents);
  });
  if (options.compare) return run.compare(request, out);

  const Result result = run.run(request);
  detail::write_pictures(options, request, result);
  if (!options.output_latents.empty()) {
    const Batch& latents = result.latents;
    examples::write_values(options.output_latents, "latents", Shape{latents.items, latents.tokens, latents.channels},
                           latents.values);
  }
  run.report(
      result,
      {{"height", request.height}, {"width", request.width}, {"steps", request.steps}, {"batch", request.batch()}});
}

}  // namespace ebb::flux
