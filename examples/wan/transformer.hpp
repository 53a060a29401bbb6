#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "common/config_file.hpp"
#include "common/embedder.hpp"
#include "common/rotary.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/module/call.hpp"
#include "ebb/nn/linear.hpp"
#include "ebb/nn/norm.hpp"
#include "ebb/ops/attention.hpp"
#include "ebb/ops/transfer.hpp"

namespace ebb::wan {

using examples::ConfigFile;
using examples::RotaryTables;

/// What `transformer/config.json` says of a WanTransformer3DModel for text to video.
struct TransformerConfig {
  static constexpr std::size_t patch = 2;  // latents a side of one token; a token is one latent frame deep

  std::size_t channels, blocks, heads, head_dim, hidden, text_width, sinusoids, positions;
  float epsilon;
  bool cross_norm;

  std::size_t width() const { return heads * head_dim; }
  /// Columns of a token of latents: a patch in (y, x, channel) order.
  std::size_t token_width() const { return patch * patch * channels; }
  /// Columns of a head that turn with the frame, the row and the column.
  std::array<std::size_t, 3> rope_axes() const {
    const std::size_t side = 2 * (head_dim / 6);
    return {head_dim - 2 * side, side, side};
  }

  static TransformerConfig read(const ConfigFile& file) {
    file.expect("patch_size", std::array{1, 2, 2});
    file.expect("qk_norm", "rms_norm_across_heads");
    for (const char* field : {"image_dim", "added_kv_proj_dim", "pos_embed_seq_len"})
      if (file.has(field))
        throw ConfigError(
            concat(file.path().string(), ": field \"", field, "\" belongs to an image-to-video checkpoint; ",
                   "only text to video is supported: Wan-AI/Wan2.1-T2V-14B or -1.3B in the diffusers layout"));
    const std::size_t channels = file.size("in_channels", 1, 4096, 16);
    const TransformerConfig config{.channels = channels,
                                   .blocks = file.size("num_layers", 1, 1024, 40),
                                   .heads = file.size("num_attention_heads", 1, 1024, 40),
                                   .head_dim = file.size("attention_head_dim", 6, 4096, 128),
                                   .hidden = file.size("ffn_dim", 1, 1u << 18, 13824),
                                   .text_width = file.size("text_dim", 1, 1u << 16, 512),
                                   .sinusoids = file.size("freq_dim", 2, 1u << 16, 256),
                                   .positions = file.size("rope_max_seq_len", 1, 1u << 20, 1024),
                                   .epsilon = static_cast<float>(file.number("eps", 1e-6)),
                                   .cross_norm = file.flag("cross_attn_norm", true)};
    if (const std::size_t out = file.size("out_channels", 0, 4096, channels); out != 0 && out != channels)
      throw ConfigError(concat(file.path().string(), ": in_channels ", channels, " and out_channels ", out,
                               " differ: this is no text-to-video checkpoint"));
    if (config.head_dim % 2 != 0 || config.sinusoids % 2 != 0)
      throw ConfigError(concat(file.path().string(), ": attention_head_dim and freq_dim must be even, found ",
                               config.head_dim, " and ", config.sinusoids));
    return config;
  }

  /// Tokens run through columns, then rows, then frames.
  RotaryTables rotary(std::size_t frames, std::size_t rows, std::size_t columns) const {
    return RotaryTables::make(rope_axes(), frames * rows * columns, [&](std::size_t token) {
      return std::array{token / (rows * columns), token / columns % rows, token % columns};
    });
  }
};

/// Extents and tables that all blocks share in one forward.
struct Sequence {
  std::size_t batch = 0;
  std::size_t tokens = 0;              // of one video
  std::size_t text_tokens = 0;         // of one prompt
  Matrix<const float> cosines, sines;  // [tokens, head_dim], in the context's memory

  /// Copies the tables to the context's workspace, where they live until the enclosing frame ends.
  template <class Context>
  static Sequence make(Context& ctx, const RotaryTables& tables, std::size_t batch, std::size_t text_tokens) {
    const auto table = [&](const std::vector<float>& values) {
      return Matrix<const float>(uploaded(ctx, std::span<const float>(values)).data(), tables.tokens, tables.head_dim);
    };
    const Matrix<const float> cosines = table(tables.cosines);
    return {batch, tables.tokens, text_tokens, cosines, table(tables.sines)};
  }
};

/// What one block's cross-attention knows of the prompts, [batch * text_tokens, width] each.
template <class T>
struct TextMemory {
  Matrix<T> keys, values;
};

/// A convolution whose stride is its extent: one linear over the values of each patch. Checkpoints store
/// [outputs, channels, 1, patch, patch]; channels last in memory, a row of the weight has the order of a token.
struct PatchEmbedding {
  DenseTensor weight;  // [outputs, 1, patch, patch, channels]
  Vector bias;         // [outputs]
  static constexpr bool stored_channels_first = true;

  static consteval auto members() {
    return std::tuple{field{"weight", &PatchEmbedding::weight}, field{"bias", &PatchEmbedding::bias}};
  }
  static PatchEmbedding make(const TransformerConfig& config) {
    return {DenseTensor(Shape{config.width(), 1, config.patch, config.patch, config.channels}),
            Vector(Shape{config.width()})};
  }
  /// x [tokens, token_width] -> y [tokens, width]
  template <class Context>
  void forward(Context& ctx, Matrix<const typename Context::element> x, Matrix<typename Context::element> y) const {
    linear(ctx, x, weight, Bias{bias.values().data()}, y);
  }
};

/// Linear, GELU (tanh), linear: from the text encoder's states to the transformer's width.
struct TextEmbedder {
  nn::Linear linear_1, linear_2;

  static consteval auto members() {
    return std::tuple{field{"linear_1", &TextEmbedder::linear_1}, field{"linear_2", &TextEmbedder::linear_2}};
  }
  static TextEmbedder make(std::size_t inputs, std::size_t outputs) {
    return {nn::Linear::make(inputs, outputs), nn::Linear::make(outputs, outputs)};
  }
  template <class Context>
  void forward(Context& ctx, Matrix<const typename Context::element> x, Matrix<typename Context::element> y) const {
    const auto frame = ctx.workspace().frame();
    const auto hidden = ctx.matrix(x.rows, linear_1.outputs());
    call(ctx, linear_1, x, hidden, GeluTanh{});
    call(ctx, linear_2, hidden, y);
  }
};

/// What depends on the timestep alone, or on the prompt alone: computed before the loop.
struct Conditioning {
  static constexpr bool hoisted = true;
  examples::Embedder time_embedder;
  nn::Linear time_proj;
  TextEmbedder text_embedder;

  static consteval auto members() {
    using C = Conditioning;
    return std::tuple{field{"time_embedder", &C::time_embedder}, field{"time_proj", &C::time_proj},
                      field{"text_embedder", &C::text_embedder}};
  }
  static Conditioning make(const TransformerConfig& config) {
    const std::size_t width = config.width();
    return {examples::Embedder::make(config.sinusoids, width), nn::Linear::make(width, 6 * width),
            TextEmbedder::make(config.text_width, width)};
  }

  /// timesteps [rows] in host memory, 0 to 1000 -> embedding [rows, width] and its projection [rows, 6 * width]. The
  /// embedder computes in float32, as diffusers keeps it there.
  template <class Context>
  void forward(Context& ctx, std::span<const float> timesteps, Matrix<typename Context::element> embedding,
               Matrix<typename Context::element> projection) const {
    const auto frame = ctx.workspace().frame();
    auto wide = ctx.template as<float>();
    const auto waves = wide.matrix(timesteps.size(), time_embedder.linear_1.inputs());
    timestep_embedding(wide, timesteps, waves);
    const auto embedded = wide.matrix(embedding.rows, embedding.columns);
    call(wide, time_embedder, waves, embedded);
    map(ctx, embedded, Identity{}, embedding);
    const auto active = ctx.matrix(embedding.rows, embedding.columns);
    map(ctx, embedding, Silu{}, active);
    call(ctx, time_proj, active, projection);
  }
};

/// Learned shifts, scales and gates that the timestep's projection is added to.
struct ScaleShiftTable {
  Vector table;  // [1, chunks, width]

  static consteval auto members() { return std::tuple{field{"", &ScaleShiftTable::table}}; }
  static ScaleShiftTable make(std::size_t chunks, std::size_t width) { return {Vector(Shape{1, chunks, width})}; }
  /// projection [1, chunks * width] -> y [1, chunks * width]
  template <class Context>
  void forward(Context& ctx, Matrix<const typename Context::element> projection, Matrix<float> y) const {
    map(ctx, projection, Bias{table.values().data()}, y);
  }
};

/// Keys and values of the prompt for one block's cross-attention.
struct CrossMemory {
  static constexpr bool hoisted = true;
  nn::Linear key;
  nn::RMSNorm key_norm;
  nn::Linear value;

  static consteval auto members() {
    using M = CrossMemory;
    return std::tuple{field{"to_k", &M::key}, field{"norm_k", &M::key_norm}, field{"to_v", &M::value}};
  }
  static CrossMemory make(std::size_t width, float epsilon) {
    const auto square = nn::Linear::make(width, width);
    return {square, nn::RMSNorm::make(width, epsilon), square};
  }
  /// text [batch * text_tokens, width] -> memory
  template <class Context>
  void forward(Context& ctx, Matrix<const typename Context::element> text,
               TextMemory<typename Context::element> memory) const {
    call(ctx, key, text, memory.keys);
    call(ctx, key_norm, memory.keys, memory.keys);
    call(ctx, value, text, memory.values);
  }
};

/// WanTransformerBlock: self-attention, cross-attention with the prompt, feed-forward.
struct Block {
  static constexpr Level level = Level::block;
  ScaleShiftTable modulation;
  nn::Linear query, key, value;
  nn::HeadNorm query_norm, key_norm;
  nn::Linear out;
  Maybe<nn::LayerNorm> cross_norm;
  nn::Linear cross_query;
  nn::RMSNorm cross_query_norm;
  CrossMemory cross_memory;
  nn::Linear cross_out;
  nn::Linear up, down;

  static consteval auto members() {
    using B = Block;
    return std::tuple{field{"scale_shift_table", &B::modulation},
                      field{"attn1.to_q", &B::query},
                      field{"attn1.to_k", &B::key},
                      field{"attn1.to_v", &B::value},
                      field{"attn1.norm_q", &B::query_norm},
                      field{"attn1.norm_k", &B::key_norm},
                      field{"attn1.to_out.0", &B::out},
                      field{"norm2", &B::cross_norm},
                      field{"attn2.to_q", &B::cross_query},
                      field{"attn2.norm_q", &B::cross_query_norm},
                      field{"attn2", &B::cross_memory},
                      field{"attn2.to_out.0", &B::cross_out},
                      field{"ffn.net.0.proj", &B::up},
                      field{"ffn.net.2", &B::down}};
  }
  static Block make(const TransformerConfig& config) {
    const std::size_t width = config.width();
    const auto square = nn::Linear::make(width, width);
    const auto turned = nn::HeadNorm::make(width, config.epsilon);
    Block block{ScaleShiftTable::make(6, width),
                square,
                square,
                square,
                turned,
                turned,
                square,
                {},
                square,
                nn::RMSNorm::make(width, config.epsilon),
                CrossMemory::make(width, config.epsilon),
                square,
                nn::Linear::make(width, config.hidden),
                nn::Linear::make(config.hidden, width)};
    if (config.cross_norm) block.cross_norm.emplace(nn::LayerNorm::make(width, config.epsilon));
    return block;
  }

  /// x [batch * tokens, width], updated in place; projection [1, 6 * width] of the timestep
  template <class Context>
  void forward(Context& ctx, const TransformerConfig& config, const Sequence& sequence,
               Matrix<const typename Context::element> projection, TextMemory<typename Context::element> memory,
               Matrix<typename Context::element> x) const {
    const auto frame = ctx.workspace().frame();
    const std::size_t width = config.width();
    const auto wide = ctx.template as<float>().matrix(1, 6 * width);
    call(ctx, modulation, projection, wide);
    const auto chunk = [&](std::size_t index) { return wide.columns_from(index * width, width); };
    const auto gated = [&](std::size_t index) { return GatedResidual{chunk(index), x.rows, x}; };
    AttentionShape shape{.batch = sequence.batch,
                         .heads = config.heads,
                         .head_dim = config.head_dim,
                         .query_tokens = sequence.tokens,
                         .key_tokens = sequence.tokens};
    const float scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
    const auto normed = ctx.matrix(x.rows, width);  // what a layer reads, then what attention leaves
    layer_norm_modulate(ctx, x, chunk(0), chunk(1), x.rows, config.epsilon, normed);
    {
      const auto attention_frame = ctx.workspace().frame();
      const auto q = ctx.matrix(x.rows, width);
      const auto k = ctx.matrix(x.rows, width);
      const auto v = ctx.matrix(x.rows, width);
      call(ctx, query, normed, q);
      call(ctx, key, normed, k);
      call(ctx, value, normed, v);
      call(ctx, query_norm, q, sequence.cosines, sequence.sines);
      call(ctx, key_norm, k, sequence.cosines, sequence.sines);
      attention(ctx, q, k, v, shape, scale, AttentionMask::none, {}, normed);
    }
    call(ctx, out, normed, x, gated(2));
    {
      const auto attention_frame = ctx.workspace().frame();
      const auto q = ctx.matrix(x.rows, width);
      if (cross_norm) {
        call(ctx, *cross_norm, x, normed);
        call(ctx, cross_query, normed, q);
      } else {
        call(ctx, cross_query, x, q);
      }
      call(ctx, cross_query_norm, q, q);
      shape.key_tokens = sequence.text_tokens;
      attention(ctx, q, memory.keys, memory.values, shape, scale, AttentionMask::none, {}, normed);
    }
    call(ctx, cross_out, normed, x, Residual{x});
    layer_norm_modulate(ctx, x, chunk(3), chunk(4), x.rows, config.epsilon, normed);
    // In pieces, which with what they give need no more memory than attention did.
    const std::size_t most = std::max<std::size_t>(3 * x.rows * width / (config.hidden + width), 1);
    const std::size_t rows = ceil_divide(x.rows, ceil_divide(x.rows, most));
    const auto hidden = ctx.matrix(rows, config.hidden);
    for (std::size_t first = 0; first < x.rows; first += rows) {
      const std::size_t count = std::min(rows, x.rows - first);
      const auto part = x.rows_from(first, count);
      call(ctx, up, normed.rows_from(first, count), hidden.rows_from(0, count), GeluTanh{});
      call(ctx, down, hidden.rows_from(0, count), part, GatedResidual{chunk(5), count, part});
    }
  }
};

/// WanTransformer3DModel of diffusers, text to video.
struct Transformer {
  static constexpr Level level = Level::model;
  /// The reference neither quantizes these nor rounds them to the activations' type.
  static constexpr std::array<std::string_view, 5> keep_in_fp32{"time_embedder", "scale_shift_table", "norm1", "norm2",
                                                                "norm3"};
  PatchEmbedding patch_embedding;
  Conditioning conditioning;
  Repeat<Block> blocks;
  ScaleShiftTable modulation;
  nn::Linear out;
  TransformerConfig config;

  static consteval auto members() {
    using M = Transformer;
    return std::tuple{field{"patch_embedding", &M::patch_embedding}, field{"condition_embedder", &M::conditioning},
                      field{"blocks", &M::blocks}, field{"scale_shift_table", &M::modulation},
                      field{"proj_out", &M::out}};
  }
  static Transformer make(const TransformerConfig& config) {
    Transformer model{PatchEmbedding::make(config),
                      Conditioning::make(config),
                      {},
                      ScaleShiftTable::make(2, config.width()),
                      nn::Linear::make(config.width(), config.token_width()),
                      config};
    for (std::size_t block = 0; block < config.blocks; ++block) model.blocks.push_back(Block::make(config));
    return model;
  }

  /// Columns of what `condition` writes for one timestep: its projection, then its embedding twice (shift and scale).
  std::size_t condition_width() const { return 8 * config.width(); }

  /// timesteps [rows] in host memory, 0 to 1000 -> conditions [rows, condition_width()]
  template <class Context>
  void condition(Context& ctx, std::span<const float> timesteps, Matrix<typename Context::element> conditions) const {
    require(conditions.rows == timesteps.size() && conditions.columns == condition_width(),
            "Wan: conditions must be [timesteps, condition_width]");
    const std::size_t width = config.width();
    const auto embedding = conditions.columns_from(6 * width, width);
    call(ctx, conditioning, timesteps, embedding, conditions.columns_from(0, 6 * width));
    copy(ctx, embedding, conditions.columns_from(7 * width, width));
  }

  /// Keys and values for the cross-attention of every block; states [batch * text_tokens, text_width] of the prompts,
  /// padded with zeros. `memories` has one entry a block.
  template <class Context>
  void read(Context& ctx, Matrix<const typename Context::element> states,
            std::span<const TextMemory<typename Context::element>> memories) const {
    require(states.columns == config.text_width && memories.size() == blocks.size(),
            "Wan: states must be [batch * text_tokens, text_dim], memories one a block");
    const auto frame = ctx.workspace().frame();
    const auto text = ctx.matrix(states.rows, config.width());
    call(ctx, conditioning.text_embedder, states, text);
    for (std::size_t block = 0; block < blocks.size(); ++block)
      call(ctx, blocks[block].cross_memory, text, memories[block]);
  }

  /// Predicts the velocity. latents, velocity [batch * tokens, token_width()]; condition [1, condition_width()]
  template <class Context>
  void forward(Context& ctx, const Sequence& sequence, Matrix<const typename Context::element> latents,
               std::span<const TextMemory<typename Context::element>> memories,
               Matrix<const typename Context::element> condition, Matrix<typename Context::element> velocity) const {
    require(latents.rows == sequence.batch * sequence.tokens && latents.columns == config.token_width(),
            "Wan: latents must be [batch * tokens, 4 * in_channels]");
    require(condition.rows == 1 && condition.columns == condition_width(),
            "Wan: condition must be [1, condition_width]");
    require(memories.size() == blocks.size(), "Wan: one text memory a block");
    const auto frame = ctx.workspace().frame();
    const std::size_t width = config.width();
    const auto x = ctx.matrix(latents.rows, width);
    call(ctx, patch_embedding, latents, x);
    for (std::size_t block = 0; block < blocks.size(); ++block)
      call(ctx, blocks[block], config, sequence, condition.columns_from(0, 6 * width), memories[block], x);
    const auto wide = ctx.template as<float>().matrix(1, 2 * width);
    call(ctx, modulation, condition.columns_from(6 * width, 2 * width), wide);
    const auto normed = ctx.matrix(x.rows, width);
    layer_norm_modulate(ctx, x, wide.columns_from(0, width), wide.columns_from(width, width), x.rows, config.epsilon,
                        normed);
    call(ctx, out, normed, velocity);
  }
};
static_assert(Module<Block> && Module<Transformer>);

}  // namespace ebb::wan
