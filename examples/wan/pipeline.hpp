#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/finite.hpp"
#include "common/items.hpp"
#include "common/phase.hpp"
#include "common/prompt_cleaning.hpp"
#include "common/torch_random.hpp"
#include "common/wan_decoding.hpp"
#include "ebb/module/call.hpp"
#include "ebb/offload/hash.hpp"
#include "ebb/ops/loop.hpp"
#include "ebb/ops/transfer.hpp"
#include "wan/latents.hpp"
#include "wan/model.hpp"
#include "wan/request.hpp"

namespace ebb::wan {

/// Fits a request to a model as the reference does: sizes are multiples of 16, rounded down to whole tokens, frames are
/// rounded to whole latent frames, a negative prompt without effect is left out (each with a warning), everything else
/// that does not fit is an error. A request that was fitted before gives no warning. @throws ConfigError, ShapeError
inline void check(Request& request, const Model& model, std::vector<std::string>& warnings) {
  const TransformerConfig& config = model.transformer.config;
  // The reference refuses what is not divisible by 16, whatever its tokens' size; both are powers of two.
  constexpr std::size_t divisor = 16;
  const std::size_t step = std::max(model.token_pixels(), divisor);
  const std::size_t most = std::min<std::size_t>(16384, config.positions * model.token_pixels()) / step * step;
  for (auto [name, pixels] : {std::pair{"height", &request.height}, std::pair{"width", &request.width}}) {
    if (*pixels < step || *pixels > most)
      throw ConfigError(concat(name, ": expected ", step, " to ", most, " pixels, found ", *pixels));
    const std::size_t rounded = *pixels / step * step;
    if (*pixels % divisor != 0)
      throw ConfigError(concat(name, ": expected a multiple of ", divisor, ", found ", *pixels, "; the nearest are ",
                               rounded, " and ", rounded + step));
    if (rounded != *pixels)
      warnings.push_back(concat(name, " ", *pixels, " is not a multiple of ", step, ": ", rounded, " is used"));
    *pixels = rounded;
  }
  const std::size_t stride = model.vae.config.temporal_scale();
  const std::size_t most_frames = std::min<std::size_t>(10000, (config.positions - 1) * stride + 1);
  if (request.frames < 1 || request.frames > most_frames)
    throw ConfigError(concat("num-frames: expected 1 to ", most_frames, ", found ", request.frames));
  if (request.frames % stride != 1 % stride) {
    const std::size_t used = request.frames / stride * stride + 1;
    warnings.push_back(
        concat("num-frames ", request.frames, " is not 1 more than a multiple of ", stride, ": ", used, " are made"));
    request.frames = used;
  }
  if (request.steps < 1 || request.steps > 10000)
    throw ConfigError(concat("steps: expected 1 to 10000, found ", request.steps));
  if (request.videos_per_prompt < 1 || request.videos_per_prompt > 1024)
    throw ConfigError(concat("num-videos: expected 1 to 1024, found ", request.videos_per_prompt));
  if (request.max_sequence_length < 1 || request.max_sequence_length > 512)
    throw ConfigError(concat("max-sequence-length: expected 1 to 512, found ", request.max_sequence_length));
  if (!examples::is_finite_float(request.guidance))
    throw ConfigError(concat("guidance: expected a finite float32 number, found ", request.guidance));
  if (request.embeds.empty() == request.prompts.empty())
    throw ConfigError(request.prompts.empty() ? "give a prompt, or a file with prompt embeddings"
                                              : "give either a prompt or a file with prompt embeddings, not both");
  if (request.embeds.empty() && !request.negative_embeds.empty())
    throw ConfigError("negative prompt embeddings need `prompt_embeds` beside them");
  const auto same = [](const char* what, std::size_t expected, std::size_t found) {
    if (expected != found) throw ConfigError(concat(what, ": expected ", expected, ", found ", found));
  };
  if (request.negative_prompts.size() > 1)
    same("number of --negative-prompt", request.prompt_count(), request.negative_prompts.size());
  if (!request.negative_prompts.empty() && !request.negative_embeds.empty())
    throw ConfigError("give either a negative prompt or `negative_prompt_embeds` in the file, not both");
  if (!request.negative_prompts.empty() && !request.uses_guidance()) {
    warnings.push_back("a negative prompt has no effect without --guidance above 1");
    request.negative_prompts.clear();
  }
  for (const auto& [name, states] :
       {std::pair{"prompt_embeds", &request.embeds}, std::pair{"negative_prompt_embeds", &request.negative_embeds}}) {
    if (states->empty()) continue;
    same(concat(name, ": rank").c_str(), 3, states->shape.rank());
    same(concat(name, ": items").c_str(), request.prompt_count(), states->shape[0]);
    same(concat(name, ": tokens").c_str(), request.embeds.shape[1], states->shape[1]);
    same(concat(name, ": channels").c_str(), config.text_width, states->shape[2]);
  }
  (void)model.sampler.schedule(request.steps, request.flow_shift);  // throws where there is none
  if (!request.latents.empty()) {
    const std::array<std::size_t, 5> expected{request.batch(), config.channels, (request.frames - 1) / stride + 1,
                                              request.height / model.vae.config.spatial_scale(),
                                              request.width / model.vae.config.spatial_scale()};
    same("latents: rank", 5, request.latents.shape.rank());
    for (std::size_t axis = 0; axis < 5; ++axis)
      same(concat("latents: axis ", axis).c_str(), expected[axis], request.latents.shape[axis]);
  }
}

namespace detail {

/// Text states [prompts, tokens, text_width] of the encoder, cut to each prompt's length and padded with zeros. The
/// reference encodes padded prompts with a mask, which gives the same.
template <class Context>
std::vector<typename Context::element> encode_prompts(Context& ctx, const Model& model,
                                                      std::span<const std::string> prompts, std::size_t tokens,
                                                      std::vector<std::string>& warnings) {
  using T = typename Context::element;
  using Wide = std::conditional_t<std::is_same_v<T, float16>, float, T>;  // the residual stream overflows float16
  auto wide = ctx.template as<Wide>();
  const std::size_t width = model.text_encoder.config.width;
  std::vector<T> states(checked_product(prompts.size() * tokens, width), T(0.0f));
  for (std::size_t item = 0; item < prompts.size(); ++item) {
    const auto encoding = model.tokenizer.encode(examples::clean_prompt(prompts[item]), tokens);
    if (!encoding.truncated_text.empty())
      warnings.push_back(concat("the text encoder reads only ", tokens,
                                " tokens; this was cut off: ", encoding.truncated_text.substr(0, 200),
                                encoding.truncated_text.size() > 200 ? "..." : ""));
    const auto ids = std::span(encoding.ids).first(encoding.length);
    const auto frame = ctx.workspace().frame();
    const auto last = wide.matrix(ids.size(), width);
    call(wide, model.text_encoder, ids, std::size_t{1}, last);
    std::vector<Wide> rows(last.size());
    download(wide, last.elements(), std::span(rows));
    std::transform(rows.begin(), rows.end(), states.begin() + static_cast<std::ptrdiff_t>(item * tokens * width),
                   [](Wide value) { return static_cast<T>(static_cast<float>(value)); });
  }
  return states;
}

/// What the transformer reads in one forward of each step, in the context's memory.
template <class T>
struct Branch {
  Sequence sequence;
  std::vector<TextMemory<T>> memories;  // one a block

  /// states [items * text_tokens, text_width] in host memory
  template <class Context>
  static Branch make(Context& ctx, const Transformer& transformer, const RotaryTables& tables,
                     const std::vector<T>& states, std::size_t items) {
    const TransformerConfig& config = transformer.config;
    const std::size_t rows = states.size() / config.text_width;
    Branch branch{Sequence::make(ctx, tables, items, rows / items), {}};
    for (std::size_t block = 0; block < transformer.blocks.size(); ++block)
      branch.memories.push_back({ctx.matrix(rows, config.width()), ctx.matrix(rows, config.width())});
    const auto frame = ctx.workspace().frame();
    const Matrix<const T> words(uploaded(ctx, std::span<const T>(states)).data(), rows, config.text_width);
    transformer.read(ctx, words, std::span<const TextMemory<T>>(branch.memories));
    return branch;
  }
};

/// The state of the sampler in the context's memory: all of it float32, whatever the transformer computes in.
struct SamplerState {
  Matrix<float> sample, velocity, data, last;
  std::array<Matrix<float>, 3> older;  // data of one, two and three steps ago

  template <class Context>
  static SamplerState make(Context& wide, std::span<const float> noise, std::size_t rows, std::size_t columns) {
    const auto zeros = [&] {  // the first steps multiply what is not there yet by 0
      const auto matrix = wide.matrix(rows, columns);
      clear(wide, matrix);
      return matrix;
    };
    SamplerState state{zeros(), zeros(), zeros(), zeros(), {zeros(), zeros(), zeros()}};
    upload(wide, noise, state.sample.elements());
    return state;
  }

  /// sample, velocity -> the next sample; `coefficients` is a row of a SamplerSchedule
  template <class Context>
  void advance(Context& wide, std::span<const float> coefficients) const {
    const auto combine = [&]<std::size_t count>(const std::array<Matrix<const float>, count>& inputs, std::size_t first,
                                                const Matrix<float>& y) {
      linear_combination(wide, inputs, coefficients.subspan(first, count), y);
    };
    combine(std::array<Matrix<const float>, 2>{sample, velocity}, 0, data);
    combine(std::array<Matrix<const float>, 6>{last, older[0], older[1], older[2], data, sample}, 2, last);
    combine(std::array<Matrix<const float>, 4>{last, data, older[0], older[1]}, 8, sample);
    copy(wide, older[1], older[2]);
    copy(wide, older[0], older[1]);
    copy(wide, data, older[0]);
  }
};

/// Frames in -1 to 1 -> 8 bits, as the reference's arrays of floats become video: cut off, not rounded.
template <class T>
void to_bytes(std::span<const T> values, std::span<std::uint8_t> bytes) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float shifted = static_cast<float>(values[i]) * 0.5f + 0.5f;
    bytes[i] = static_cast<std::uint8_t>(std::clamp(shifted, 0.0f, 1.0f) * 255.0f);
  }
}

/// Hash of frames [n, height, width, 3] that follow others with the hash `before`: the same for any n at a time.
inline std::uint64_t hash_of(Image<const std::uint8_t> frames, std::uint64_t before) {
  std::uint64_t hash = before;
  const auto bytes = std::as_bytes(frames.elements());
  const std::size_t size = bytes.size() / frames.batch;
  for (std::size_t frame = 0; frame < frames.batch; ++frame) hash = hash64(bytes.subspan(frame * size, size), hash);
  return hash;
}

}  // namespace detail

/// WanPipeline's `__call__`: text, noise, denoising loop, decoding. Weights must be loaded and reachable through
/// `ctx.enter`. @throws ConfigError, ShapeError
template <class Context>
Result generate(Context& ctx, const Model& model, Request request, const examples::PhaseWatcher& watcher) {
  using T = typename Context::element;
  Result result;
  check(request, model, result.warnings);
  auto wide = ctx.template as<float>();
  const TransformerConfig& config = model.transformer.config;
  const LatentShape shape{.batch = request.batch(),
                          .channels = config.channels,
                          .frames = (request.frames - 1) / model.vae.config.temporal_scale() + 1,
                          .height = request.height / model.vae.config.spatial_scale(),
                          .width = request.width / model.vae.config.spatial_scale()};
  const std::size_t rows = shape.batch * shape.tokens();

  watcher("text", 0, 1);
  ctx.workspace().release();
  const examples::PhaseMeter text_meter(ctx.workspace());
  const std::size_t prompts = request.prompt_count();
  std::vector<T> positive, negative;
  if (request.embeds.empty())
    positive = detail::encode_prompts(ctx, model, request.prompts, request.max_sequence_length, result.warnings);
  else
    positive = examples::rounded<T>(request.embeds.values);
  if (request.uses_guidance()) {
    if (!request.negative_embeds.empty()) {
      negative = examples::rounded<T>(request.negative_embeds.values);
    } else {
      // One for all prompts is encoded once.
      std::vector<std::string> texts = request.negative_prompts;
      if (texts.empty()) texts.emplace_back();
      const std::size_t tokens = request.embeds.empty() ? request.max_sequence_length : request.embeds.shape[1];
      negative = detail::encode_prompts(ctx, model, texts, tokens, result.warnings);
      if (texts.size() == 1) negative = examples::repeat_items(negative, 1, prompts);
    }
  }
  positive = examples::repeat_items(positive, prompts, request.videos_per_prompt);
  negative = examples::repeat_items(negative, prompts, request.videos_per_prompt);
  result.text = text_meter.cost();
  watcher("text", 1, 1);

  ctx.workspace().release();
  const examples::PhaseMeter denoise_meter(ctx.workspace());
  std::vector<float> latents(shape.elements());
  std::vector<float> packed(latents.size());
  const Matrix<float> tokens(packed.data(), rows, shape.token_width());
  if (request.latents.empty())
    examples::TorchGenerator(request.seed).randn(std::span<float>(latents));
  else
    latents = request.latents.values;
  pack_latents(latents, shape, tokens);
  const SamplerSchedule schedule = model.sampler.schedule(request.steps, request.flow_shift);
  {
    const auto frame = ctx.workspace().frame();
    const bool guided = request.uses_guidance();
    const bool together = guided && request.guidance_order == Guidance::together;
    const std::size_t items = shape.batch * (together ? 2 : 1);
    const auto tables = config.rotary(shape.frames, shape.rows(), shape.columns());
    std::vector<detail::Branch<T>> branches;
    if (together) {
      auto both = positive;
      both.insert(both.end(), negative.begin(), negative.end());
      branches.push_back(detail::Branch<T>::make(ctx, model.transformer, tables, both, items));
    } else {
      branches.push_back(detail::Branch<T>::make(ctx, model.transformer, tables, positive, items));
      if (guided) branches.push_back(detail::Branch<T>::make(ctx, model.transformer, tables, negative, items));
    }
    const Matrix<T> conditions = ctx.matrix(request.steps, model.transformer.condition_width());
    model.transformer.condition(ctx, schedule.timesteps, conditions);
    const Matrix<T> condition = ctx.matrix(1, conditions.columns);
    const auto state = detail::SamplerState::make(wide, packed, rows, shape.token_width());
    const Matrix<const float> coefficient_table(uploaded(ctx, std::span<const float>(schedule.coefficients)).data(),
                                                request.steps, SamplerSchedule::coefficients_per_step);
    const Matrix<float> coefficients = wide.matrix(1, SamplerSchedule::coefficients_per_step);
    const Matrix<T> input = ctx.matrix(rows * (together ? 2 : 1), shape.token_width());
    std::vector<Matrix<T>> velocities(branches.size());
    for (auto& velocity : velocities) velocity = ctx.matrix(input.rows, input.columns);

    const auto prepare = [&](std::size_t step) {
      copy(ctx, conditions.rows_from(step, 1), condition);
      copy(ctx, coefficient_table.rows_from(step, 1), coefficients);
    };
    const auto body = [&] {
      for (std::size_t first = 0; first < input.rows; first += rows)
        map(ctx, state.sample, Identity{}, input.rows_from(first, rows));
      for (std::size_t side = 0; side < branches.size(); ++side)
        call(ctx, model.transformer, branches[side].sequence, input,
             std::span<const TextMemory<T>>(branches[side].memories), condition, velocities[side]);
      const Matrix<T> conditional = velocities.front().rows_from(0, rows);
      if (guided)
        guide(ctx, conditional, together ? velocities.front().rows_from(rows, rows) : velocities.back(),
              static_cast<float>(request.guidance), conditional);
      map(ctx, conditional, Identity{}, state.velocity);
      state.advance(wide, coefficients.elements());
    };
    watcher("denoise", 0, request.steps);
    repeat(ctx, request.steps, prepare, body, [&](std::size_t step, double seconds) {
      result.step_seconds.push_back(seconds);
      watcher("denoise", step + 1, request.steps);
    });
    download(ctx, state.sample.elements(), std::span(packed));
  }
  examples::check_finite<float>(packed, concat("denoise: the latents after step ", request.steps));
  unpack_latents(tokens, shape, latents);
  result.latents = {Shape{shape.batch, shape.channels, shape.frames, shape.height, shape.width}, latents};
  result.denoise = denoise_meter.cost();
  if (!request.sink) return result;

  ctx.workspace().release();  // it has the size of the loop's activations
  const examples::PhaseMeter decode_meter(ctx.workspace());
  std::vector<std::uint8_t> bytes;
  for (std::size_t item = 0; item < shape.batch; ++item) {
    const std::size_t size = latents.size() / shape.batch;
    const auto values = examples::unnormalized<T>(model.vae.config, std::span(latents).subspan(item * size, size),
                                                  shape.frames, shape.height, shape.width);
    const Image<const T> video{values.data(), shape.frames, shape.height, shape.width, shape.channels};
    const auto take = [&](std::size_t, Image<const T> frames) {
      examples::check_finite<T>(frames.elements(), "decode: the frames");
      bytes.resize(frames.size());
      detail::to_bytes<T>(frames.elements(), bytes);
      const Image<const std::uint8_t> levels{bytes.data(), frames.batch, frames.height, frames.width, frames.channels};
      result.frames_hash = detail::hash_of(levels, result.frames_hash);
      request.sink(item, levels);
    };
    examples::decode(ctx, model.vae, video, request.tiling, take, [&](std::size_t done, std::size_t of) {
      if (done > 0 || item == 0) watcher("decode", item * of + done, shape.batch * of);
    });
  }
  result.decode = decode_meter.cost();
  return result;
}

/// What engines run.
struct Pipeline {
  using Model = wan::Model;
  using Request = wan::Request;
  using Result = wan::Result;
  static constexpr const char* denoiser = "transformer";

  template <class Context>
  static Result run(Context& ctx, const Model& model, const Request& request, const examples::PhaseWatcher& watcher) {
    return generate(ctx, model, request, watcher);
  }
};

}  // namespace ebb::wan
