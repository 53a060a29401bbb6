#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/config_file.hpp"
#include "common/embedder.hpp"
#include "common/rotary.hpp"
#include "ebb/module/call.hpp"
#include "ebb/nn/linear.hpp"
#include "ebb/nn/norm.hpp"
#include "ebb/ops/attention.hpp"
#include "ebb/ops/transfer.hpp"

namespace ebb::flux {

using examples::ConfigFile;
using examples::Embedder;
using examples::RotaryTables;

/// What `transformer/config.json` says of a FluxTransformer2DModel.
struct TransformerConfig {
  std::size_t channels, out_channels, double_blocks, single_blocks, heads, head_dim, text_width, pooled_width;
  std::array<std::size_t, 3> rope_axes;
  bool guidance;

  std::size_t width() const { return heads * head_dim; }

  static TransformerConfig read(const ConfigFile& file) {
    file.expect("patch_size", 1);
    const std::size_t channels = file.size("in_channels", 4, 1u << 16);
    TransformerConfig config{.channels = channels,
                             .out_channels = file.size("out_channels", 4, 1u << 16, channels),
                             .double_blocks = file.size("num_layers", 0, 1024),
                             .single_blocks = file.size("num_single_layers", 0, 1024),
                             .heads = file.size("num_attention_heads", 1, 1024),
                             .head_dim = file.size("attention_head_dim", 2, 4096),
                             .text_width = file.size("joint_attention_dim", 1, 1u << 16),
                             .pooled_width = file.size("pooled_projection_dim", 1, 1u << 16),
                             .rope_axes = {},
                             .guidance = file.flag("guidance_embeds", false)};
    const auto axes = file.sizes("axes_dims_rope", 3, 3, 2, 4096);
    std::copy(axes.begin(), axes.end(), config.rope_axes.begin());
    if (axes[0] + axes[1] + axes[2] != config.head_dim || axes[0] % 2 || axes[1] % 2 || axes[2] % 2)
      throw ConfigError(concat(file.path().string(), ": field \"axes_dims_rope\": expected three even numbers ",
                               "that sum to attention_head_dim ", config.head_dim, ", found [", axes[0], ", ", axes[1],
                               ", ", axes[2], "]"));
    if (config.channels % 4 != 0 || config.out_channels != config.channels)
      throw ConfigError(concat(file.path().string(), ": in_channels must be a multiple of 4 and equal ",
                               "out_channels, found ", config.channels, " and ", config.out_channels));
    return config;
  }

  /// Text tokens sit at (0, 0, 0), the image token in row y and column x at (0, y, x).
  RotaryTables rotary(std::size_t text_tokens, std::size_t rows, std::size_t columns) const {
    return RotaryTables::make(rope_axes, text_tokens + rows * columns, [&](std::size_t token) {
      return token < text_tokens
                 ? std::array<std::size_t, 3>{}
                 : std::array{std::size_t{0}, (token - text_tokens) / columns, (token - text_tokens) % columns};
    });
  }
};

/// Extents and tables that all blocks share in one forward. Text comes before image in each item.
struct Sequence {
  std::size_t batch = 0;
  std::size_t text_tokens = 0;
  std::size_t image_tokens = 0;
  Matrix<const float> cosines, sines;  // [tokens, head_dim], in the context's memory
  std::size_t tokens() const { return text_tokens + image_tokens; }

  /// Copies the tables to the context's workspace, where they live until the enclosing frame ends.
  template <class Context>
  static Sequence make(Context& ctx, const RotaryTables& tables, std::size_t batch, std::size_t image_tokens) {
    const auto table = [&](const std::vector<float>& values) {
      return Matrix<const float>(uploaded(ctx, std::span<const float>(values)).data(), tables.tokens, tables.head_dim);
    };
    const Matrix<const float> cosines = table(tables.cosines);
    return {batch, tables.tokens - image_tokens, image_tokens, cosines, table(tables.sines)};
  }
};

/// float16 only: the reference clips residual streams to the largest finite value.
struct ClipToFloat16 {
  EBB_HOST_DEVICE float operator()(float value, std::size_t, std::size_t) const {
    return value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value;
  }
};
template <class T>
auto residual_clip() {
  if constexpr (std::is_same_v<T, float16>)
    return ClipToFloat16{};
  else
    return Identity{};
}

/// Sum of the embeddings of timestep, guidance (dev only) and pooled text.
struct Conditioning {
  static constexpr bool hoisted = true;
  Embedder timestep;
  Maybe<Embedder> guidance;
  Embedder text;

  static consteval auto members() {
    using C = Conditioning;
    return std::tuple{field{"timestep_embedder", &C::timestep}, field{"guidance_embedder", &C::guidance},
                      field{"text_embedder", &C::text}};
  }
  /// timesteps, guidances [rows] in host memory, both already times 1000; pooled [rows, pooled_width] -> y [rows,
  /// width]
  template <class Context>
  void forward(Context& ctx, std::span<const float> timesteps, std::span<const float> guidances,
               Matrix<const typename Context::element> pooled, Matrix<typename Context::element> y) const {
    const auto frame = ctx.workspace().frame();
    const auto waves = ctx.matrix(y.rows, sinusoids);
    timestep_embedding(ctx, timesteps, waves);
    call(ctx, timestep, waves, y);
    if (guidance) {
      timestep_embedding(ctx, guidances, waves);
      call(ctx, *guidance, waves, y, Residual{y});
    }
    call(ctx, text, pooled, y, Residual{y});
  }
  static constexpr std::size_t sinusoids = 256;
};

/// The linear that turns the conditioning into shifts, scales and gates (AdaLN). These linears are more than a quarter
/// of FLUX.1's weights and depend on nothing that changes within a step, so that they run before the loop.
struct Modulation {
  static constexpr bool hoisted = true;
  nn::Linear linear;

  static consteval auto members() { return std::tuple{field{"linear", &Modulation::linear}}; }
  static Modulation make(std::size_t width, std::size_t chunks) { return {nn::Linear::make(width, chunks * width)}; }
  /// active [batch, width], the conditioning after SiLU -> y [batch, chunks * width]
  template <class Context>
  void forward(Context& ctx, Matrix<const typename Context::element> active,
               Matrix<typename Context::element> y) const {
    call(ctx, linear, active, y);
  }
};

/// Linear, GELU (tanh), linear.
struct FeedForward {
  nn::Linear up, down;

  static consteval auto members() {
    return std::tuple{field{"net.0.proj", &FeedForward::up}, field{"net.2", &FeedForward::down}};
  }
  static FeedForward make(std::size_t width) {
    return {nn::Linear::make(width, 4 * width), nn::Linear::make(4 * width, width)};
  }
  template <class Context, class... Stages>
  void forward(Context& ctx, Matrix<const typename Context::element> x, Matrix<typename Context::element> y,
               Stages... stages) const {
    const auto frame = ctx.workspace().frame();
    const auto hidden = ctx.matrix(x.rows, up.outputs());
    call(ctx, up, x, hidden, GeluTanh{});
    call(ctx, down, hidden, y, stages...);
  }
};

/// x [batch * tokens, width] -> rows [first, first + tokens) of each item's queries, keys and values
template <class Context>
void project(Context& ctx, const nn::Linear& query, const nn::Linear& key, const nn::Linear& value,
             const nn::HeadNorm& query_norm, const nn::HeadNorm& key_norm, const Sequence& sequence, std::size_t first,
             std::size_t tokens, Matrix<const typename Context::element> x, Matrix<typename Context::element> q,
             Matrix<typename Context::element> k, Matrix<typename Context::element> v) {
  const auto each = [&](const auto& layer, auto& target) {
    for (std::size_t item = 0; item < sequence.batch; ++item)
      call(ctx, layer, x.rows_from(item * tokens, tokens), target.rows_from(item * sequence.tokens() + first, tokens));
  };
  const auto turn = [&](const nn::HeadNorm& norm, auto& target) {
    for (std::size_t item = 0; item < sequence.batch; ++item)
      call(ctx, norm, target.rows_from(item * sequence.tokens() + first, tokens),
           sequence.cosines.rows_from(first, tokens), sequence.sines.rows_from(first, tokens));
  };
  each(query, q);
  each(key, k);
  each(value, v);
  turn(query_norm, q);
  turn(key_norm, k);
}

inline AttentionShape attention_shape(const TransformerConfig& config, const Sequence& sequence) {
  return {.batch = sequence.batch,
          .heads = config.heads,
          .head_dim = config.head_dim,
          .query_tokens = sequence.tokens(),
          .key_tokens = sequence.tokens()};
}

/// FluxTransformerBlock: image and text streams with weights of their own and one joint attention.
struct DoubleBlock {
  static constexpr Level level = Level::block;
  Modulation image_modulation, text_modulation;
  nn::Linear query, key, value;
  nn::HeadNorm query_norm, key_norm;
  nn::Linear text_query, text_key, text_value;
  nn::HeadNorm text_query_norm, text_key_norm;
  nn::Linear image_out, text_out;
  FeedForward image_feed_forward, text_feed_forward;

  static consteval auto members() {
    using B = DoubleBlock;
    return std::tuple{field{"norm1", &B::image_modulation},
                      field{"norm1_context", &B::text_modulation},
                      field{"attn.to_q", &B::query},
                      field{"attn.to_k", &B::key},
                      field{"attn.to_v", &B::value},
                      field{"attn.norm_q", &B::query_norm},
                      field{"attn.norm_k", &B::key_norm},
                      field{"attn.add_q_proj", &B::text_query},
                      field{"attn.add_k_proj", &B::text_key},
                      field{"attn.add_v_proj", &B::text_value},
                      field{"attn.norm_added_q", &B::text_query_norm},
                      field{"attn.norm_added_k", &B::text_key_norm},
                      field{"attn.to_out.0", &B::image_out},
                      field{"attn.to_add_out", &B::text_out},
                      field{"ff", &B::image_feed_forward},
                      field{"ff_context", &B::text_feed_forward}};
  }
  static DoubleBlock make(const TransformerConfig& config) {
    const auto square = nn::Linear::make(config.width(), config.width());
    const auto norm = nn::HeadNorm::make(config.head_dim, 1e-6f);
    const auto modulation = Modulation::make(config.width(), 6);
    const auto feed_forward = FeedForward::make(config.width());
    return {modulation, modulation, square, square, square, norm,   norm,         square,
            square,     square,     norm,   norm,   square, square, feed_forward, feed_forward};
  }

  static constexpr std::size_t modulation_chunks = 12;  // of width columns: image, then text
  /// active [rows, width], the conditioning after SiLU -> modulation [rows, modulation_chunks * width]
  template <class Context>
  void modulate(Context& ctx, Matrix<const typename Context::element> active,
                Matrix<typename Context::element> modulation) const {
    const std::size_t half = modulation.columns / 2;
    call(ctx, image_modulation, active, modulation.columns_from(0, half));
    call(ctx, text_modulation, active, modulation.columns_from(half, half));
  }

  /// image [batch * image_tokens, width] and text [batch * text_tokens, width], updated in place;
  /// modulation [batch, modulation_chunks * width]
  template <class Context>
  void forward(Context& ctx, const TransformerConfig& config, const Sequence& sequence,
               Matrix<const typename Context::element> modulation, Matrix<typename Context::element> image,
               Matrix<typename Context::element> text) const {
    const auto frame = ctx.workspace().frame();
    const std::size_t width = config.width();
    const auto mod_image = modulation.columns_from(0, 6 * width);
    const auto mod_text = modulation.columns_from(6 * width, 6 * width);
    const auto chunk = [&](const auto& chunks, std::size_t index) { return chunks.columns_from(index * width, width); };
    const auto image_normed = ctx.matrix(image.rows, width);
    const auto text_normed = ctx.matrix(text.rows, width);
    layer_norm_modulate(ctx, image, chunk(mod_image, 0), chunk(mod_image, 1), sequence.image_tokens, 1e-6f,
                        image_normed);
    layer_norm_modulate(ctx, text, chunk(mod_text, 0), chunk(mod_text, 1), sequence.text_tokens, 1e-6f, text_normed);
    {
      const auto attention_frame = ctx.workspace().frame();
      const std::size_t rows = sequence.batch * sequence.tokens();
      const auto q = ctx.matrix(rows, width);
      const auto k = ctx.matrix(rows, width);
      const auto v = ctx.matrix(rows, width);
      const auto attended = ctx.matrix(rows, width);
      project(ctx, query, key, value, query_norm, key_norm, sequence, sequence.text_tokens, sequence.image_tokens,
              image_normed, q, k, v);
      project(ctx, text_query, text_key, text_value, text_query_norm, text_key_norm, sequence, 0, sequence.text_tokens,
              text_normed, q, k, v);
      attention(ctx, q, k, v, attention_shape(config, sequence), 1.0f / std::sqrt(static_cast<float>(config.head_dim)),
                AttentionMask::none, {}, attended);
      const auto finish = [&](const nn::Linear& out, auto& stream, auto& chunks, std::size_t first,
                              std::size_t tokens) {
        for (std::size_t item = 0; item < sequence.batch; ++item) {
          const auto target = stream.rows_from(item * tokens, tokens);
          call(ctx, out, attended.rows_from(item * sequence.tokens() + first, tokens), target,
               GatedResidual{chunk(chunks, 2).rows_from(item, 1), tokens, target});
        }
      };
      finish(image_out, image, mod_image, sequence.text_tokens, sequence.image_tokens);
      finish(text_out, text, mod_text, 0, sequence.text_tokens);
    }
    layer_norm_modulate(ctx, image, chunk(mod_image, 3), chunk(mod_image, 4), sequence.image_tokens, 1e-6f,
                        image_normed);
    call(ctx, image_feed_forward, image_normed, image,
         GatedResidual{chunk(mod_image, 5), sequence.image_tokens, image});
    layer_norm_modulate(ctx, text, chunk(mod_text, 3), chunk(mod_text, 4), sequence.text_tokens, 1e-6f, text_normed);
    call(ctx, text_feed_forward, text_normed, text, GatedResidual{chunk(mod_text, 5), sequence.text_tokens, text},
         residual_clip<typename Context::element>());
  }
};

/// FluxSingleTransformerBlock: attention and feed-forward side by side on the joint sequence.
struct SingleBlock {
  static constexpr Level level = Level::block;
  Modulation modulation;
  nn::Linear up;
  nn::Linear query, key, value;
  nn::HeadNorm query_norm, key_norm;
  nn::Linear out;

  static consteval auto members() {
    using B = SingleBlock;
    return std::tuple{field{"norm", &B::modulation},      field{"proj_mlp", &B::up},
                      field{"attn.to_q", &B::query},      field{"attn.to_k", &B::key},
                      field{"attn.to_v", &B::value},      field{"attn.norm_q", &B::query_norm},
                      field{"attn.norm_k", &B::key_norm}, field{"proj_out", &B::out}};
  }
  static SingleBlock make(const TransformerConfig& config) {
    const std::size_t width = config.width();
    const auto square = nn::Linear::make(width, width);
    const auto norm = nn::HeadNorm::make(config.head_dim, 1e-6f);
    return {Modulation::make(width, 3),        nn::Linear::make(width, 4 * width), square, square, square, norm, norm,
            nn::Linear::make(5 * width, width)};
  }

  static constexpr std::size_t modulation_chunks = 3;  // of width columns: shift, scale, gate

  /// joint [batch * tokens, width] in place, text before image in each item; mod [batch, modulation_chunks * width]
  template <class Context>
  void forward(Context& ctx, const TransformerConfig& config, const Sequence& sequence,
               Matrix<const typename Context::element> mod, Matrix<typename Context::element> joint) const {
    const auto frame = ctx.workspace().frame();
    const std::size_t width = config.width();
    const auto normed = ctx.matrix(joint.rows, width);
    layer_norm_modulate(ctx, joint, mod.columns_from(0, width), mod.columns_from(width, width), sequence.tokens(),
                        1e-6f, normed);
    const auto both = ctx.matrix(joint.rows, 5 * width);  // [attention | feed-forward]: the concatenation is free
    call(ctx, up, normed, both.columns_from(width, 4 * width), GeluTanh{});
    const auto q = ctx.matrix(joint.rows, width);
    const auto k = ctx.matrix(joint.rows, width);
    const auto v = ctx.matrix(joint.rows, width);
    project(ctx, query, key, value, query_norm, key_norm, sequence, 0, sequence.tokens(), normed, q, k, v);
    attention(ctx, q, k, v, attention_shape(config, sequence), 1.0f / std::sqrt(static_cast<float>(config.head_dim)),
              AttentionMask::none, {}, both.columns_from(0, width));
    call(ctx, out, both, joint, GatedResidual{mod.columns_from(2 * width, width), sequence.tokens(), joint},
         residual_clip<typename Context::element>());
  }
};

/// FluxTransformer2DModel of diffusers.
struct Transformer {
  static constexpr Level level = Level::model;
  nn::Linear image_in;
  Conditioning conditioning;
  nn::Linear text_in;
  Repeat<DoubleBlock> double_blocks;
  Repeat<SingleBlock> single_blocks;
  Modulation norm_out;
  nn::Linear image_out;
  TransformerConfig config;

  static consteval auto members() {
    using M = Transformer;
    return std::tuple{field{"x_embedder", &M::image_in},
                      field{"time_text_embed", &M::conditioning},
                      field{"context_embedder", &M::text_in},
                      field{"transformer_blocks", &M::double_blocks},
                      field{"single_transformer_blocks", &M::single_blocks},
                      field{"norm_out", &M::norm_out},
                      field{"proj_out", &M::image_out}};
  }
  static Transformer make(const TransformerConfig& config) {
    const std::size_t width = config.width();
    Transformer model{nn::Linear::make(config.channels, width),
                      {Embedder::make(Conditioning::sinusoids, width), {}, Embedder::make(config.pooled_width, width)},
                      nn::Linear::make(config.text_width, width),
                      {},
                      {},
                      Modulation::make(width, 2),
                      nn::Linear::make(width, config.out_channels),
                      config};
    if (config.guidance) model.conditioning.guidance.emplace(Embedder::make(Conditioning::sinusoids, width));
    for (std::size_t block = 0; block < config.double_blocks; ++block)
      model.double_blocks.push_back(DoubleBlock::make(config));
    for (std::size_t block = 0; block < config.single_blocks; ++block)
      model.single_blocks.push_back(SingleBlock::make(config));
    return model;
  }

  /// Columns of a modulation: the shifts, scales and gates of all blocks and of the last norm, in their order.
  std::size_t modulation_width() const {
    return (double_blocks.size() * DoubleBlock::modulation_chunks +
            single_blocks.size() * SingleBlock::modulation_chunks + 2) *
           config.width();
  }

  /// Runs all that depends on (timestep, guidance, pooled text) alone, for any number of steps at once. timesteps
  /// [rows] in 0..1 and guidance scales [rows] in host memory; pooled [rows, pooled_width] -> modulation
  /// [rows, modulation_width()]
  template <class Context>
  void modulate(Context& ctx, std::span<const float> timesteps, std::span<const float> guidances,
                Matrix<const typename Context::element> pooled, Matrix<typename Context::element> modulation) const {
    using T = typename Context::element;
    require(timesteps.size() == pooled.rows && guidances.size() == pooled.rows && modulation.rows == pooled.rows &&
                pooled.columns == config.pooled_width && modulation.columns == modulation_width(),
            "Flux: pooled must be [rows, pooled_projection_dim], modulation [rows, modulation_width]");
    const auto frame = ctx.workspace().frame();
    const std::size_t width = config.width();
    // The reference rounds both to the activation type before and after the factor 1000.
    const auto thousand = [](std::span<const float> values) {
      std::vector<float> result;
      for (const float value : values)
        result.push_back(static_cast<float>(static_cast<T>(static_cast<float>(static_cast<T>(value)) * 1000.0f)));
      return result;
    };
    const auto active = ctx.matrix(pooled.rows, width);
    call(ctx, conditioning, thousand(timesteps), thousand(guidances), pooled, active);
    map(ctx, active, Silu{}, active);
    std::size_t next = 0;
    const auto columns = [&](std::size_t chunks) {
      return modulation.columns_from(std::exchange(next, next + chunks * width), chunks * width);
    };
    for (const DoubleBlock& block : double_blocks) block.modulate(ctx, active, columns(DoubleBlock::modulation_chunks));
    for (const SingleBlock& block : single_blocks)
      call(ctx, block.modulation, active, columns(SingleBlock::modulation_chunks));
    call(ctx, norm_out, active, columns(2));
  }

  /// Predicts the velocity. latents, velocity [batch * image_tokens, channels];
  /// text [batch * text_tokens, text_width]; modulation [batch, modulation_width()]
  template <class Context>
  void forward(Context& ctx, const Sequence& sequence, Matrix<const typename Context::element> latents,
               Matrix<const typename Context::element> text, Matrix<const typename Context::element> modulation,
               Matrix<typename Context::element> velocity) const {
    require(latents.rows == sequence.batch * sequence.image_tokens && latents.columns == config.channels,
            "Flux: latents must be [batch * image_tokens, in_channels]");
    require(text.rows == sequence.batch * sequence.text_tokens && text.columns == config.text_width,
            "Flux: text must be [batch * text_tokens, joint_attention_dim]");
    require(modulation.rows == sequence.batch && modulation.columns == modulation_width(),
            "Flux: modulation must be [batch, modulation_width]");
    require(sequence.cosines.rows == sequence.tokens(), "Flux: the rotary tables have another length");
    const auto frame = ctx.workspace().frame();
    const std::size_t width = config.width();
    const std::size_t batch = sequence.batch;
    std::size_t next = 0;
    const auto columns = [&](std::size_t chunks) {
      return modulation.columns_from(std::exchange(next, next + chunks * width), chunks * width);
    };
    const auto joint = ctx.matrix(batch * sequence.tokens(), width);
    {
      const auto stream_frame = ctx.workspace().frame();
      const auto image = ctx.matrix(latents.rows, width);
      call(ctx, image_in, latents, image);
      const auto words = ctx.matrix(text.rows, width);
      call(ctx, text_in, text, words);
      for (const DoubleBlock& block : double_blocks)
        call(ctx, block, config, sequence, columns(DoubleBlock::modulation_chunks), image, words);
      for (std::size_t item = 0; item < batch; ++item) {
        const auto rows = joint.rows_from(item * sequence.tokens(), sequence.tokens());
        copy(ctx, words.rows_from(item * sequence.text_tokens, sequence.text_tokens),
             rows.rows_from(0, sequence.text_tokens));
        copy(ctx, image.rows_from(item * sequence.image_tokens, sequence.image_tokens),
             rows.rows_from(sequence.text_tokens, sequence.image_tokens));
      }
    }
    for (const SingleBlock& block : single_blocks)
      call(ctx, block, config, sequence, columns(SingleBlock::modulation_chunks), joint);
    const auto mod = columns(2);
    const auto normed = ctx.matrix(latents.rows, width);
    for (std::size_t item = 0; item < batch; ++item)
      layer_norm_modulate(ctx, joint.rows_from(item * sequence.tokens() + sequence.text_tokens, sequence.image_tokens),
                          mod.columns_from(width, width).rows_from(item, 1),
                          mod.columns_from(0, width).rows_from(item, 1), sequence.image_tokens, 1e-6f,
                          normed.rows_from(item * sequence.image_tokens, sequence.image_tokens));
    call(ctx, image_out, normed, velocity);
  }
};
static_assert(Module<DoubleBlock> && Module<SingleBlock> && Module<Transformer>);

}  // namespace ebb::flux
