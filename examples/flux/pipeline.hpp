#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/torch_random.hpp"
#include "ebb/module/call.hpp"
#include "flux/latents.hpp"
#include "flux/model.hpp"
#include "flux/request.hpp"

namespace ebb::flux {

/// Told of each finished piece of work: phase ("text", "denoise", "decode"), pieces done, pieces in all.
using Progress = std::function<void(const char* phase, std::size_t done, std::size_t of)>;

namespace detail {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// The prompt as both encoders see it: T5 states [batch, tokens, text_width] and CLIP's pooled [batch, pooled_width].
template <class T>
struct Encoded {
  std::size_t tokens = 0;
  std::vector<T> states, pooled;
};

/// Each of `count` rows of `size` elements `times` times, neighbours: row 0, row 0, row 1, row 1, ...
template <class T>
std::vector<T> repeat_rows(const std::vector<T>& rows, std::size_t count, std::size_t times) {
  const std::size_t size = count == 0 ? 0 : rows.size() / count;
  std::vector<T> result;
  result.reserve(rows.size() * times);
  for (std::size_t row = 0; row < count; ++row)
    for (std::size_t time = 0; time < times; ++time)
      result.insert(result.end(), rows.begin() + static_cast<std::ptrdiff_t>(row * size),
                    rows.begin() + static_cast<std::ptrdiff_t>((row + 1) * size));
  return result;
}

template <class T>
std::vector<T> rounded(const std::vector<float>& values) {
  std::vector<T> result(values.size());
  std::transform(values.begin(), values.end(), result.begin(), [](float value) { return static_cast<T>(value); });
  return result;
}

}  // namespace detail

/// Fits a request to a model: sizes are rounded down to whole tokens (with a warning), everything else that does
/// not fit is an error. @throws ConfigError, ShapeError
inline void check(Request& request, const Model& model, std::vector<std::string>& warnings) {
  const std::size_t step = model.token_pixels();
  for (auto [name, pixels] : {std::pair{"height", &request.height}, std::pair{"width", &request.width}}) {
    if (*pixels < step || *pixels > 32768)
      throw ConfigError(concat(name, ": expected ", step, " to 32768 pixels, found ", *pixels));
    if (*pixels % step != 0) {
      warnings.push_back(concat(name, " ", *pixels, " is not a multiple of ", step, ": ", *pixels / step * step,
                                " is used"));
      *pixels = *pixels / step * step;
    }
  }
  if (request.steps < 1 || request.steps > 10000)
    throw ConfigError(concat("steps: expected 1 to 10000, found ", request.steps));
  if (request.images_per_prompt < 1 || request.images_per_prompt > 1024)
    throw ConfigError(concat("num-images: expected 1 to 1024, found ", request.images_per_prompt));
  if (request.max_sequence_length < 1 || request.max_sequence_length > 512)
    throw ConfigError(concat("max-sequence-length: expected 1 to 512, found ", request.max_sequence_length));
  if (!std::isfinite(request.guidance) || !std::isfinite(request.true_cfg))
    throw ConfigError("guidance and true-cfg must be finite numbers");
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
  if (!request.negative_prompts.empty() && request.true_cfg <= 1.0)
    warnings.push_back("a negative prompt has no effect without --true-cfg above 1");
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

/// Runs both text encoders. `ctx_t5` is the context of T5, whose residual stream does not fit float16.
template <class Context, class T5Context>
detail::Encoded<typename Context::element> encode_prompts(Context& ctx, T5Context& ctx_t5, const Model& model,
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
      warnings.push_back(concat(name, " reads only ", length, " tokens; this was cut off: ",
                                encoding.truncated_text.substr(0, 200),
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
  call(ctx, model.text_encoder, std::span<const std::int32_t>(clip_ids), batch,
       Matrix<T>(encoded.pooled.data(), batch, pooled_width));
  using Wide = typename T5Context::element;
  std::vector<Wide> states(t5_ids.size() * text_width);
  call(ctx_t5, model.text_encoder_2, std::span<const std::int32_t>(t5_ids), batch,
       Matrix<Wide>(states.data(), t5_ids.size(), text_width));
  if constexpr (std::is_same_v<Wide, T>) {
    encoded.states = std::move(states);
  } else {
    encoded.states.resize(states.size());
    std::transform(states.begin(), states.end(), encoded.states.begin(),
                   [](Wide value) { return static_cast<T>(static_cast<float>(value)); });
  }
  return encoded;
}

/// FluxPipeline's `__call__`: text, noise, denoising loop, decoding. Weights must be loaded and reachable through
/// `ctx.enter`; `ctx_t5` is the context of T5 (the same, or float32 where activations are float16). `progress` may
/// throw to stop the run. @throws ConfigError, ShapeError
template <class Context, class T5Context>
Result generate(Context& ctx, T5Context& ctx_t5, const Model& model, Request request, const Progress& progress) {
  using T = typename Context::element;
  Result result;
  check(request, model, result.warnings);
  const TransformerConfig& config = model.transformer.config;
  const std::size_t batch = request.batch();
  const std::size_t rows = request.height / model.token_pixels();
  const std::size_t columns = request.width / model.token_pixels();
  const std::size_t tokens = rows * columns;

  progress("text", 0, 1);
  const detail::Stopwatch text_watch;
  detail::Encoded<T> positive, negative;
  if (request.embeds.empty()) {
    positive = encode_prompts(ctx, ctx_t5, model, request.prompts,
                              request.prompts_2.empty() ? request.prompts : request.prompts_2,
                              request.max_sequence_length, result.warnings);
  } else {
    positive = {request.embeds.tokens, detail::rounded<T>(request.embeds.values),
                detail::rounded<T>(request.pooled.values)};
  }
  if (request.uses_cfg()) {
    std::vector<std::string> prompts = request.negative_prompts;
    prompts.resize(request.prompt_count(), prompts.front());
    negative =
        encode_prompts(ctx, ctx_t5, model, prompts, prompts, request.max_sequence_length, result.warnings);
  }
  for (detail::Encoded<T>* encoded : {&positive, &negative}) {
    encoded->states = detail::repeat_rows(encoded->states, request.prompt_count(), request.images_per_prompt);
    encoded->pooled = detail::repeat_rows(encoded->pooled, request.prompt_count(), request.images_per_prompt);
  }
  result.text_seconds = text_watch.seconds();
  progress("text", 1, 1);

  const detail::Stopwatch denoise_watch;
  std::vector<T> latents(checked_product(batch * tokens, config.channels));
  const Matrix<T> packed(latents.data(), batch * tokens, config.channels);
  if (request.latents.empty()) {
    std::vector<T> noise(latents.size());
    examples::TorchGenerator(request.seed).randn(std::span<T>(noise));
    pack_latents<T>(noise, batch, config.channels / 4, rows, columns, packed);
  } else {
    std::transform(request.latents.values.begin(), request.latents.values.end(), latents.begin(),
                   [](float value) { return static_cast<T>(value); });
  }
  auto scheduler = model.scheduler;
  scheduler.set_timesteps(request.steps, tokens);
  const auto sequence_of = [&](const detail::Encoded<T>& encoded, const RotaryTables& rotary) {
    return Sequence{batch, encoded.tokens, tokens, rotary};
  };
  const RotaryTables rotary = RotaryTables::make(config, positive.tokens, rows, columns);
  const RotaryTables negative_rotary = request.uses_cfg() && negative.tokens != positive.tokens
                                           ? RotaryTables::make(config, negative.tokens, rows, columns)
                                           : rotary;
  std::vector<T> velocity(latents.size()), unconditional(request.uses_cfg() ? latents.size() : 0);
  const auto predict = [&](const detail::Encoded<T>& encoded, const RotaryTables& tables, float timestep,
                           std::vector<T>& out) {
    // t / 1000 in the activation type, as the reference passes it
    const float passed =
        static_cast<float>(static_cast<T>(static_cast<float>(static_cast<T>(timestep)) / 1000.0f));
    call(ctx, model.transformer, sequence_of(encoded, tables), packed,
         Matrix<const T>(encoded.states.data(), batch * encoded.tokens, config.text_width),
         Matrix<const T>(encoded.pooled.data(), batch, config.pooled_width), passed,
         static_cast<float>(request.guidance), Matrix<T>(out.data(), batch * tokens, config.channels));
  };
  progress("denoise", 0, request.steps);
  for (std::size_t step = 0; step < request.steps; ++step) {
    const detail::Stopwatch step_watch;
    const auto timestep = static_cast<float>(scheduler.timesteps()[step]);
    predict(positive, rotary, timestep, velocity);
    if (request.uses_cfg()) {
      predict(negative, negative_rotary, timestep, unconditional);
      const auto scale = static_cast<float>(request.true_cfg);
      for (std::size_t i = 0; i < velocity.size(); ++i) {
        const auto base = static_cast<float>(unconditional[i]);
        const auto difference = static_cast<float>(static_cast<T>(static_cast<float>(velocity[i]) - base));
        velocity[i] = static_cast<T>(base + static_cast<float>(static_cast<T>(scale * difference)));
      }
    }
    scheduler.template step<T>(step, velocity, latents);
    result.step_seconds.push_back(step_watch.seconds());
    progress("denoise", step + 1, request.steps);
  }
  result.latents = {batch, tokens, config.channels, std::vector<float>(latents.begin(), latents.end())};
  result.denoise_seconds = denoise_watch.seconds();

  const detail::Stopwatch decode_watch;
  progress("decode", 0, 1);
  {
    const auto frame = ctx.workspace().frame();
    const auto unpacked = ctx.image(batch, 2 * rows, 2 * columns, config.channels / 4);
    unpack_latents<T>(packed, rows, columns, model.vae.config.scaling, model.vae.config.shift, unpacked);
    const auto decoded = ctx.image(batch, request.height, request.width, 3);
    decode(ctx, model.vae, unpacked, request.slicing, request.tiling, decoded);
    for (std::size_t item = 0; item < batch; ++item) {
      Picture picture{request.width, request.height, std::vector<std::uint8_t>(request.height * request.width * 3)};
      const T* values = decoded.data + item * picture.rgb.size();
      for (std::size_t i = 0; i < picture.rgb.size(); ++i) {
        const float half = static_cast<float>(static_cast<T>(static_cast<float>(values[i]) * 0.5f));
        const float shifted = static_cast<float>(static_cast<T>(half + 0.5f));
        const float level = std::nearbyint(std::clamp(shifted, 0.0f, 1.0f) * 255.0f);
        picture.rgb[i] = static_cast<std::uint8_t>(level >= 0.0f ? level : 0.0f);  // NaN becomes black
      }
      result.pictures.push_back(std::move(picture));
    }
  }
  result.decode_seconds = decode_watch.seconds();
  progress("decode", 1, 1);
  return result;
}

}  // namespace ebb::flux
