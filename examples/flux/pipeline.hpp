#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/finite.hpp"
#include "common/items.hpp"
#include "common/phase.hpp"
#include "common/torch_random.hpp"
#include "ebb/module/call.hpp"
#include "ebb/ops/loop.hpp"
#include "ebb/ops/transfer.hpp"
#include "flux/latents.hpp"
#include "flux/model.hpp"
#include "flux/request.hpp"

namespace ebb::flux {

namespace detail {

/// The prompt as both encoders see it: T5 states [batch, tokens, text_width] and CLIP's pooled [batch, pooled_width].
template <class T>
struct Encoded {
  std::size_t tokens = 0;
  std::vector<T> states, pooled;
};

}  // namespace detail

/// Fits a request to a model: sizes are rounded down to whole tokens, negative prompts without effect are left out
/// (each with a warning), everything else that does not fit is an error. A request that was fitted before gives no
/// warning.
/// @throws ConfigError, ShapeError
inline void check(Request& request, const Model& model, std::vector<std::string>& warnings) {
  const std::size_t step = model.token_pixels();
  constexpr std::size_t most = 16384;  // as many as a PNG file gets
  for (auto [name, pixels] : {std::pair{"height", &request.height}, std::pair{"width", &request.width}}) {
    if (*pixels < step || *pixels > most)
      throw ConfigError(concat(name, ": expected ", step, " to ", most, " pixels, found ", *pixels));
    if (*pixels % step != 0) {
      warnings.push_back(
          concat(name, " ", *pixels, " is not a multiple of ", step, ": ", *pixels / step * step, " is used"));
      *pixels = *pixels / step * step;
    }
  }
  if (request.steps < 1 || request.steps > 10000)
    throw ConfigError(concat("steps: expected 1 to 10000, found ", request.steps));
  if (request.images_per_prompt < 1 || request.images_per_prompt > 1024)
    throw ConfigError(concat("num-images: expected 1 to 1024, found ", request.images_per_prompt));
  if (request.max_sequence_length < 1 || request.max_sequence_length > 512)
    throw ConfigError(concat("max-sequence-length: expected 1 to 512, found ", request.max_sequence_length));
  for (auto [name, scale] : {std::pair{"guidance", request.guidance}, std::pair{"true-cfg", request.true_cfg}})
    if (!examples::is_finite_float(scale))
      throw ConfigError(concat(name, ": expected a finite float32 number, found ", scale));
  if (request.embeds.empty() != request.pooled.empty())
    throw ConfigError("prompt embeddings need both `prompt_embeds` and `pooled_prompt_embeds`");
  if (request.embeds.empty() == request.prompts.empty())
    throw ConfigError(request.prompts.empty() ? "give a prompt, or a file with prompt embeddings"
                                              : "give either a prompt or a file with prompt embeddings, not both");
  const auto count = [&](const char* what, std::size_t expected, std::size_t found) {
    if (expected != found) throw ConfigError(concat(what, ": expected ", expected, ", found ", found));
  };
  if (!request.prompts_2.empty()) count("number of --prompt-2", request.prompts.size(), request.prompts_2.size());
  if (request.negative_prompts.size() > 1)
    count("number of --negative-prompt", request.prompt_count(), request.negative_prompts.size());
  if (!request.negative_prompts.empty() && !request.uses_cfg()) {
    warnings.push_back("a negative prompt has no effect without --true-cfg above 1");
    request.negative_prompts.clear();
  }
  const TransformerConfig& config = model.transformer.config;
  if (!request.embeds.empty()) {
    count("prompt_embeds: channels", config.text_width, request.embeds.channels);
    count("pooled_prompt_embeds: channels", config.pooled_width, request.pooled.channels);
    count("pooled_prompt_embeds: items", request.embeds.items, request.pooled.items);
  }
  if (!request.latents.empty()) {
    count("latents: items", request.batch(), request.latents.items);
    count("latents: tokens", request.height / step * (request.width / step), request.latents.tokens);
    count("latents: channels", config.channels, request.latents.channels);
  }
}

/// Runs both text encoders.
template <class Context>
detail::Encoded<typename Context::element> encode_prompts(Context& ctx, const Model& model,
                                                          std::span<const std::string> prompts,
                                                          std::span<const std::string> prompts_2,
                                                          std::size_t max_sequence_length,
                                                          std::vector<std::string>& warnings) {
  using T = typename Context::element;
  const std::size_t batch = prompts.size();
  const auto encode = [&](const auto& tokenizer, std::size_t length, const std::string& prompt, const char* name,
                          std::vector<std::int32_t>& ids) {
    auto encoding = tokenizer.encode(prompt, length);
    if (!encoding.truncated_text.empty())
      warnings.push_back(concat(name, " reads only ", length,
                                " tokens; this was cut off: ", encoding.truncated_text.substr(0, 200),
                                encoding.truncated_text.size() > 200 ? "..." : ""));
    ids.insert(ids.end(), encoding.ids.begin(), encoding.ids.end());
  };
  std::vector<std::int32_t> clip_ids, t5_ids;
  const std::size_t clip_length =
      std::min(model.clip_tokenizer.model_max_length(), model.text_encoder.config.positions);
  for (std::size_t item = 0; item < batch; ++item) {
    encode(model.clip_tokenizer, clip_length, prompts[item], "CLIP", clip_ids);
    encode(model.t5_tokenizer, max_sequence_length, prompts_2[item], "T5", t5_ids);
  }
  detail::Encoded<T> encoded{.tokens = max_sequence_length, .states = {}, .pooled = {}};
  const std::size_t pooled_width = model.text_encoder.config.width;
  const std::size_t text_width = model.text_encoder_2.config.width;
  encoded.pooled.resize(batch * pooled_width);
  using Wide = std::conditional_t<std::is_same_v<T, float16>, float, T>;  // T5's residual stream overflows float16
  auto ctx_t5 = ctx.template as<Wide>();
  std::vector<Wide> states(t5_ids.size() * text_width);
  {
    const auto frame = ctx.workspace().frame();
    const auto pooled = ctx.matrix(batch, pooled_width);
    call(ctx, model.text_encoder, std::span<const std::int32_t>(clip_ids), batch, pooled);
    download(ctx, pooled.elements(), std::span(encoded.pooled));
    const auto last = ctx_t5.matrix(t5_ids.size(), text_width);
    call(ctx_t5, model.text_encoder_2, std::span<const std::int32_t>(t5_ids), batch, last);
    download(ctx_t5, last.elements(), std::span(states));
  }
  if constexpr (std::is_same_v<Wide, T>) {
    encoded.states = std::move(states);
  } else {
    encoded.states.resize(states.size());
    std::transform(states.begin(), states.end(), encoded.states.begin(),
                   [](Wide value) { return static_cast<T>(static_cast<float>(value)); });
  }
  return encoded;
}

namespace detail {

/// One side of classifier-free guidance during the loop: what the transformer reads, in the context's memory.
template <class T>
struct Branch {
  Sequence sequence;
  Matrix<const T> states;     // [batch * text_tokens, text_width]
  std::span<const T> pooled;  // [batch, pooled_width], in host memory
  Matrix<T> table;            // [steps_at_once * batch, modulation_width]
  Matrix<T> modulation;       // [batch, modulation_width]: the rows of the step that runs

  template <class Context>
  static Branch make(Context& ctx, const Transformer& transformer, const Encoded<T>& encoded, std::size_t batch,
                     std::size_t rows, std::size_t columns, std::size_t steps_at_once) {
    const TransformerConfig& config = transformer.config;
    return {
        .sequence = Sequence::make(ctx, config.rotary(encoded.tokens, rows, columns), batch, rows * columns),
        .states = {uploaded(ctx, std::span<const T>(encoded.states)).data(), batch * encoded.tokens, config.text_width},
        .pooled = encoded.pooled,
        .table = ctx.matrix(steps_at_once * batch, transformer.modulation_width()),
        .modulation = ctx.matrix(batch, transformer.modulation_width())};
  }

  /// Fills the table for steps of these timesteps (0..1).
  template <class Context>
  void modulate(Context& ctx, const Transformer& transformer, std::span<const float> timesteps, float guidance) const {
    const auto frame = ctx.workspace().frame();
    const std::size_t batch = modulation.rows;
    const std::size_t count = timesteps.size() * batch;
    std::vector<T> repeated;
    std::vector<float> each;
    for (const float timestep : timesteps) {
      repeated.insert(repeated.end(), pooled.begin(), pooled.end());
      each.insert(each.end(), batch, timestep);
    }
    const Matrix<const T> rows(uploaded(ctx, std::span<const T>(repeated)).data(), count,
                               transformer.config.pooled_width);
    transformer.modulate(ctx, each, std::vector<float>(count, guidance), rows, table.rows_from(0, count));
  }
};

}  // namespace detail

/// FluxPipeline's `__call__`: text, noise, denoising loop, decoding. Weights must be loaded and reachable through
/// `ctx.enter`. @throws ConfigError, ShapeError
template <class Context>
Result generate(Context& ctx, const Model& model, Request request, const examples::PhaseWatcher& watcher) {
  using T = typename Context::element;
  Result result;
  check(request, model, result.warnings);
  const TransformerConfig& config = model.transformer.config;
  const std::size_t batch = request.batch();
  const std::size_t rows = request.height / model.token_pixels();
  const std::size_t columns = request.width / model.token_pixels();
  const std::size_t tokens = rows * columns;

  watcher("text", 0, 1);
  ctx.workspace().release();
  const examples::PhaseMeter text_meter(ctx.workspace());
  detail::Encoded<T> positive, negative;
  if (request.embeds.empty()) {
    positive =
        encode_prompts(ctx, model, request.prompts, request.prompts_2.empty() ? request.prompts : request.prompts_2,
                       request.max_sequence_length, result.warnings);
  } else {
    positive = {request.embeds.tokens, examples::rounded<T>(request.embeds.values),
                examples::rounded<T>(request.pooled.values)};
  }
  if (request.uses_cfg()) {
    std::vector<std::string> prompts = request.negative_prompts;
    prompts.resize(request.prompt_count(), prompts.front());
    negative = encode_prompts(ctx, model, prompts, prompts, request.max_sequence_length, result.warnings);
  }
  for (detail::Encoded<T>* encoded : {&positive, &negative}) {
    encoded->states = examples::repeat_items(encoded->states, request.prompt_count(), request.images_per_prompt);
    encoded->pooled = examples::repeat_items(encoded->pooled, request.prompt_count(), request.images_per_prompt);
  }
  result.text = text_meter.cost();
  watcher("text", 1, 1);

  ctx.workspace().release();
  const examples::PhaseMeter denoise_meter(ctx.workspace());
  std::vector<T> host_latents(checked_product(batch * tokens, config.channels));
  const Matrix<T> packed(host_latents.data(), batch * tokens, config.channels);
  if (request.latents.empty()) {
    std::vector<T> noise(host_latents.size());
    examples::TorchGenerator(request.seed).randn(std::span<T>(noise));
    pack_latents<T>(noise, batch, config.channels / 4, rows, columns, packed);
  } else {
    std::transform(request.latents.values.begin(), request.latents.values.end(), host_latents.begin(),
                   [](float value) { return static_cast<T>(value); });
  }
  auto scheduler = model.scheduler;
  scheduler.set_timesteps(request.steps, tokens);
  {
    const auto frame = ctx.workspace().frame();
    // Conditioning for this many steps at a time: its table is small beside the weights that make it.
    const std::size_t steps_at_once = std::min(request.steps, std::max<std::size_t>(64 / batch, 1));
    std::vector<detail::Branch<T>> branches;
    for (const detail::Encoded<T>* encoded : {&positive, &negative})
      if (!encoded->states.empty())
        branches.push_back(
            detail::Branch<T>::make(ctx, model.transformer, *encoded, batch, rows, columns, steps_at_once));
    const Matrix<T> latents(uploaded(ctx, std::span<const T>(host_latents)).data(), packed.rows, packed.columns);
    std::vector<Matrix<T>> velocities(branches.size());
    for (auto& velocity : velocities) velocity = ctx.matrix(packed.rows, packed.columns);
    std::vector<float> step_widths;
    for (std::size_t step = 0; step < request.steps; ++step)
      step_widths.push_back(scheduler.template step_width<T>(step));
    const Matrix<const float> widths(uploaded(ctx, std::span<const float>(step_widths)).data(), request.steps, 1);
    const Matrix<float> width(ctx.template array<float>(1).data(), 1, 1);

    const auto prepare = [&](std::size_t step) {
      if (step % steps_at_once == 0) {
        std::vector<float> timesteps;  // t / 1000 in the activation type, as the reference passes it
        for (std::size_t at = step; at < std::min(step + steps_at_once, request.steps); ++at)
          timesteps.push_back(static_cast<float>(
              static_cast<T>(static_cast<float>(static_cast<T>(scheduler.timesteps()[at])) / 1000.0f)));
        for (const auto& branch : branches)
          branch.modulate(ctx, model.transformer, timesteps, static_cast<float>(request.guidance));
      }
      for (const auto& branch : branches)
        copy(ctx, branch.table.rows_from(step % steps_at_once * batch, batch), branch.modulation);
      copy(ctx, widths.rows_from(step, 1), width);
    };
    const auto body = [&] {
      for (std::size_t side = 0; side < branches.size(); ++side)
        call(ctx, model.transformer, branches[side].sequence, latents, branches[side].states, branches[side].modulation,
             velocities[side]);
      if (branches.size() == 2)
        guide(ctx, velocities[0], velocities[1], static_cast<float>(request.true_cfg), velocities[0]);
      add_scaled(ctx, velocities[0], width.elements(), latents);
    };
    watcher("denoise", 0, request.steps);
    repeat(ctx, request.steps, prepare, body, [&](std::size_t step, double seconds) {
      result.step_seconds.push_back(seconds);
      watcher("denoise", step + 1, request.steps);
    });
    download(ctx, latents.elements(), std::span(host_latents));
  }
  examples::check_finite<T>(host_latents, concat("denoise: the latents after step ", request.steps));
  result.latents = {batch, tokens, config.channels, std::vector<float>(host_latents.begin(), host_latents.end())};
  result.denoise = denoise_meter.cost();

  ctx.workspace().release();  // it has the size of the loop's activations
  const examples::PhaseMeter decode_meter(ctx.workspace());
  watcher("decode", 0, 1);
  std::vector<T> unpacked_values(host_latents.size());
  std::vector<T> decoded_values(checked_product(batch * request.height, request.width * 3));
  const Image<T> unpacked{unpacked_values.data(), batch, 2 * rows, 2 * columns, config.channels / 4};
  const Image<T> decoded{decoded_values.data(), batch, request.height, request.width, 3};
  unpack_latents<T>(packed, rows, columns, model.vae.config.scaling, model.vae.config.shift, unpacked);
  decode(ctx, model.vae, unpacked, request.slicing, request.tiling, decoded);
  examples::check_finite<T>(decoded_values, "decode: the pictures");
  for (std::size_t item = 0; item < batch; ++item) {
    Picture picture{request.width, request.height, std::vector<std::uint8_t>(request.height * request.width * 3)};
    const T* values = decoded.data + item * picture.rgb.size();
    for (std::size_t i = 0; i < picture.rgb.size(); ++i) {
      const float half = static_cast<float>(static_cast<T>(static_cast<float>(values[i]) * 0.5f));
      const float shifted = static_cast<float>(static_cast<T>(half + 0.5f));
      const float level = std::nearbyint(std::clamp(shifted, 0.0f, 1.0f) * 255.0f);
      picture.rgb[i] = static_cast<std::uint8_t>(level);
    }
    result.pictures.push_back(std::move(picture));
  }
  result.decode = decode_meter.cost();
  watcher("decode", 1, 1);
  return result;
}

/// What engines run.
struct Pipeline {
  using Model = flux::Model;
  using Request = flux::Request;
  using Result = flux::Result;
  static constexpr const char* denoiser = "transformer";

  template <class Context>
  static Result run(Context& ctx, const Model& model, const Request& request, const examples::PhaseWatcher& watcher) {
    return generate(ctx, model, request, watcher);
  }
};

}  // namespace ebb::flux
