#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "common/config_file.hpp"
#include "ebb/module/call.hpp"
#include "ebb/nn/embedding.hpp"
#include "ebb/nn/linear.hpp"
#include "ebb/nn/norm.hpp"
#include "ebb/ops/attention.hpp"

namespace ebb::examples {

/// What `config.json` says of a T5EncoderModel (v1.1: gated GELU, no biases) or a UMT5EncoderModel, which differs in
/// that every layer has its own relative attention bias.
struct T5Config {
  enum class RelativeBias { shared, per_layer };

  std::size_t vocabulary, width, layers, heads, head_dim, hidden, buckets, maximum_distance;
  float epsilon;
  RelativeBias relative_bias;

  static T5Config read(const ConfigFile& file) {
    file.expect("feed_forward_proj", "gated-gelu");
    const auto type = file.string("model_type", "t5");
    if (type != "t5" && type != "umt5")
      throw ConfigError(
          concat(file.path().string(), ": field \"model_type\": expected \"t5\" or \"umt5\", found \"", type, '"'));
    T5Config config{.vocabulary = file.size("vocab_size", 1, 1u << 24),
                    .width = file.size("d_model", 1, 1u << 16),
                    .layers = file.size("num_layers", 1, 1024),
                    .heads = file.size("num_heads", 1, 1024),
                    .head_dim = file.size("d_kv", 1, 4096),
                    .hidden = file.size("d_ff", 1, 1u << 18),
                    .buckets = file.size("relative_attention_num_buckets", 4, 4096, 32),
                    .maximum_distance = file.size("relative_attention_max_distance", 4, 1u << 20, 128),
                    .epsilon = static_cast<float>(file.number("layer_norm_epsilon", 1e-6)),
                    .relative_bias = type == "umt5" ? RelativeBias::per_layer : RelativeBias::shared};
    // The distances that have a bucket of their own; the others' is a logarithm's share of a logarithm.
    if (const std::size_t exact = config.buckets / 2 / 2; config.maximum_distance <= exact)
      throw ConfigError(concat(file.path().string(), ": field \"relative_attention_max_distance\": expected more than ",
                               exact, ", a quarter of relative_attention_num_buckets, found ",
                               config.maximum_distance));
    return config;
  }
};

/// Bucket of a relative position (key minus query), bidirectional: half of the buckets a direction, the first
/// half of those exact, the others logarithmic up to `maximum_distance`. float32 as in transformers.
inline std::size_t relative_position_bucket(std::ptrdiff_t relative, std::size_t buckets,
                                            std::size_t maximum_distance) {
  const std::size_t half = buckets / 2;
  const std::size_t base = relative > 0 ? half : 0;
  const auto distance = static_cast<std::size_t>(relative < 0 ? -relative : relative);
  const std::size_t exact = half / 2;
  if (distance < exact) return base + distance;
  const float ratio = std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(maximum_distance) / static_cast<double>(exact)));
  const auto logarithmic = exact + static_cast<std::size_t>(ratio * static_cast<float>(half - exact));
  return base + std::min(logarithmic, half - 1);
}

/// One learned number per bucket and head. T5 has one for all layers, in the first.
struct RelativeAttentionBias {
  Vector weight;  // [buckets, heads]

  static consteval auto members() { return std::tuple{field{"weight", &RelativeAttentionBias::weight}}; }

  /// -> bias [heads * tokens, tokens]: what is added to the scores of each head
  template <class Context>
  void forward(Context& ctx, const T5Config& config, std::size_t tokens, Matrix<float> bias) const {
    std::vector<std::int32_t> buckets;  // by key minus query, from 1 - tokens on
    for (std::size_t at = 1; at < 2 * tokens; ++at)
      buckets.push_back(static_cast<std::int32_t>(
          relative_position_bucket(static_cast<std::ptrdiff_t>(at) - static_cast<std::ptrdiff_t>(tokens),
                                   config.buckets, config.maximum_distance)));
    relative_bias(ctx, weight, buckets, bias);
  }
};

/// Pre-norm layer: self-attention without scaling, then the gated GELU feed-forward.
struct T5Block {
  static constexpr Level level = Level::block;
  Maybe<RelativeAttentionBias> relative;  // in T5 in the first block only
  nn::RMSNorm attention_norm;
  nn::Projection query, key, value, output;
  nn::RMSNorm feed_forward_norm;
  nn::Projection gate, up, down;

  static consteval auto members() {
    using B = T5Block;
    return std::tuple{field{"layer.0.SelfAttention.relative_attention_bias", &B::relative},
                      field{"layer.0.layer_norm", &B::attention_norm},
                      field{"layer.0.SelfAttention.q", &B::query},
                      field{"layer.0.SelfAttention.k", &B::key},
                      field{"layer.0.SelfAttention.v", &B::value},
                      field{"layer.0.SelfAttention.o", &B::output},
                      field{"layer.1.layer_norm", &B::feed_forward_norm},
                      field{"layer.1.DenseReluDense.wi_0", &B::gate},
                      field{"layer.1.DenseReluDense.wi_1", &B::up},
                      field{"layer.1.DenseReluDense.wo", &B::down}};
  }
  static T5Block make(const T5Config& config, bool first) {
    const auto norm = nn::RMSNorm::make(config.width, config.epsilon);
    const std::size_t inner = config.heads * config.head_dim;
    const auto in = nn::Projection::make(config.width, inner);
    T5Block block{{},
                  norm,
                  in,
                  in,
                  in,
                  nn::Projection::make(inner, config.width),
                  norm,
                  nn::Projection::make(config.width, config.hidden),
                  nn::Projection::make(config.width, config.hidden),
                  nn::Projection::make(config.hidden, config.width)};
    if (first || config.relative_bias == T5Config::RelativeBias::per_layer)
      block.relative.emplace({Vector(Shape{config.buckets, config.heads})});
    return block;
  }

  /// x [batch * tokens, width] in place; bias [heads * tokens, tokens], filled by blocks that have one
  template <class Context>
  void forward(Context& ctx, const T5Config& config, std::size_t batch, Matrix<float> bias,
               Matrix<typename Context::element> x) const {
    const auto frame = ctx.workspace().frame();
    const std::size_t tokens = x.rows / batch;
    if (relative) call(ctx, *relative, config, tokens, bias);
    const auto normed = ctx.matrix(x.rows, x.columns);
    call(ctx, attention_norm, x, normed);
    const std::size_t inner = config.heads * config.head_dim;
    const auto q = ctx.matrix(x.rows, inner);
    const auto k = ctx.matrix(x.rows, inner);
    const auto v = ctx.matrix(x.rows, inner);
    const auto attended = ctx.matrix(x.rows, inner);
    call(ctx, query, normed, q);
    call(ctx, key, normed, k);
    call(ctx, value, normed, v);
    const AttentionShape shape{.batch = batch,
                               .heads = config.heads,
                               .head_dim = config.head_dim,
                               .query_tokens = tokens,
                               .key_tokens = tokens};
    attention(ctx, q, k, v, shape, 1.0f, AttentionMask::none, bias, attended);
    call(ctx, output, attended, x, Residual{x});
    call(ctx, feed_forward_norm, x, normed);
    const auto gated = ctx.matrix(x.rows, config.hidden);
    const auto hidden = ctx.matrix(x.rows, config.hidden);
    call(ctx, gate, normed, gated, GeluTanh{});
    call(ctx, up, normed, hidden, Multiply{gated});
    call(ctx, down, hidden, x, Residual{x});
  }
};

/// T5EncoderModel and UMT5EncoderModel of transformers, without an attention mask: Flux lets padding attend and be
/// attended. What a mask would hide, as Wan has it, is to be left out of `ids`: a prompt's true tokens then have the
/// states that they have beside masked padding.
struct T5EncoderModel {
  static constexpr Level level = Level::model;
  /// The reference never quantizes these, nor stores them in float16: the residual stream overflows there.
  static constexpr std::array<std::string_view, 1> keep_in_fp32{"wo"};
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 1> aliases{
      {{"shared.weight", "encoder.embed_tokens.weight"}}};
  nn::Embedding shared;
  Repeat<T5Block> blocks;
  nn::RMSNorm final_norm;
  T5Config config;

  static consteval auto members() {
    using M = T5EncoderModel;
    return std::tuple{field{"shared", &M::shared}, field{"encoder.block", &M::blocks},
                      field{"encoder.final_layer_norm", &M::final_norm}};
  }
  static T5EncoderModel make(const T5Config& config) {
    T5EncoderModel model{nn::Embedding::make(config.vocabulary, config.width),
                         {},
                         nn::RMSNorm::make(config.width, config.epsilon),
                         config};
    for (std::size_t layer = 0; layer < config.layers; ++layer)
      model.blocks.push_back(T5Block::make(config, layer == 0));
    return model;
  }

  /// ids [batch * tokens] -> states [batch * tokens, width]
  template <class Context>
  void forward(Context& ctx, std::span<const std::int32_t> ids, std::size_t batch,
               Matrix<typename Context::element> states) const {
    require(batch > 0 && ids.size() % batch == 0, "T5: ids must be a whole number of tokens per prompt");
    require(states.rows == ids.size() && states.columns == config.width, "T5: states must be [ids, width]");
    const auto frame = ctx.workspace().frame();
    const std::size_t tokens = ids.size() / batch;
    const auto x = ctx.matrix(ids.size(), config.width);
    const Matrix<float> bias(ctx.template array<float>(config.heads * tokens * tokens).data(), config.heads * tokens,
                             tokens);
    call(ctx, shared, ids, x);
    for (const T5Block& block : blocks) call(ctx, block, config, batch, bias, x);
    call(ctx, final_norm, x, states);
  }
};
static_assert(Module<T5Block> && Module<T5EncoderModel>);

}  // namespace ebb::examples
