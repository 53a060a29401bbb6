#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "common/config_file.hpp"
#include "ebb/module/call.hpp"
#include "ebb/nn/embedding.hpp"
#include "ebb/nn/linear.hpp"
#include "ebb/nn/norm.hpp"
#include "ebb/ops/attention.hpp"
#include "ebb/ops/transfer.hpp"

namespace ebb::examples {

/// What `text_encoder/config.json` says of a CLIPTextModel.
struct ClipConfig {
  enum class Activation { quick_gelu, gelu };
  std::size_t vocabulary, width, layers, heads, hidden, positions;
  std::int32_t end_of_text;  // 2 marks checkpoints that pool at the largest id instead (a bug kept for them)
  float epsilon;
  Activation activation;

  static ClipConfig read(const ConfigFile& file) {
    const std::string activation = file.string("hidden_act", "quick_gelu");
    if (activation != "quick_gelu" && activation != "gelu")
      throw ConfigError(concat(file.path().string(), ": field \"hidden_act\": expected \"quick_gelu\" or ",
                               "\"gelu\", found \"", activation, "\""));
    ClipConfig config{.vocabulary = file.size("vocab_size", 1, 1u << 24),
                      .width = file.size("hidden_size", 1, 1u << 16),
                      .layers = file.size("num_hidden_layers", 1, 1024),
                      .heads = file.size("num_attention_heads", 1, 1024),
                      .hidden = file.size("intermediate_size", 1, 1u << 18),
                      .positions = file.size("max_position_embeddings", 1, 1u << 16),
                      .end_of_text = static_cast<std::int32_t>(file.size("eos_token_id", 0, 1u << 24, 49407)),
                      .epsilon = static_cast<float>(file.number("layer_norm_eps", 1e-5)),
                      .activation = activation == "gelu" ? Activation::gelu : Activation::quick_gelu};
    if (config.width % config.heads != 0)
      throw ConfigError(concat(file.path().string(), ": hidden_size ", config.width,
                               " is not a multiple of num_attention_heads ", config.heads));
    return config;
  }
};

/// Pre-norm transformer layer with causal self-attention.
struct ClipLayer {
  static constexpr Level level = Level::block;
  nn::LayerNorm norm1;
  nn::Linear query, key, value, output;
  nn::LayerNorm norm2;
  nn::Linear fc1, fc2;

  static consteval auto members() {
    using L = ClipLayer;
    return std::tuple{field{"layer_norm1", &L::norm1},
                      field{"self_attn.q_proj", &L::query},
                      field{"self_attn.k_proj", &L::key},
                      field{"self_attn.v_proj", &L::value},
                      field{"self_attn.out_proj", &L::output},
                      field{"layer_norm2", &L::norm2},
                      field{"mlp.fc1", &L::fc1},
                      field{"mlp.fc2", &L::fc2}};
  }
  static ClipLayer make(const ClipConfig& config) {
    const auto square = nn::Linear::make(config.width, config.width);
    const auto norm = nn::LayerNorm::make(config.width, config.epsilon);
    return {norm,
            square,
            square,
            square,
            square,
            norm,
            nn::Linear::make(config.width, config.hidden),
            nn::Linear::make(config.hidden, config.width)};
  }

  /// x [batch * tokens, width], updated in place
  template <class Context>
  void forward(Context& ctx, const ClipConfig& config, std::size_t batch, Matrix<typename Context::element> x) const {
    const auto frame = ctx.workspace().frame();
    const auto normed = ctx.matrix(x.rows, x.columns);
    call(ctx, norm1, x, normed);
    const auto q = ctx.matrix(x.rows, x.columns);
    const auto k = ctx.matrix(x.rows, x.columns);
    const auto v = ctx.matrix(x.rows, x.columns);
    call(ctx, query, normed, q);
    call(ctx, key, normed, k);
    call(ctx, value, normed, v);
    const AttentionShape shape{.batch = batch,
                               .heads = config.heads,
                               .head_dim = config.width / config.heads,
                               .query_tokens = x.rows / batch,
                               .key_tokens = x.rows / batch};
    const float scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    attention(ctx, q, k, v, shape, scale, AttentionMask::causal, {}, normed);
    call(ctx, output, normed, x, Residual{x});
    call(ctx, norm2, x, normed);
    const auto hidden = ctx.matrix(x.rows, config.hidden);
    if (config.activation == ClipConfig::Activation::quick_gelu)
      call(ctx, fc1, normed, hidden, QuickGelu{});
    else
      call(ctx, fc1, normed, hidden, GeluErf{});
    call(ctx, fc2, hidden, x, Residual{x});
  }
};

/// CLIPTextModel of transformers, reduced to what Flux takes from it: the pooled output.
struct ClipTextModel {
  static constexpr Level level = Level::model;
  static constexpr std::string_view optional_prefix = "text_model.";  // transformers 5 writes names without it
  static constexpr std::array<std::string_view, 2> unused_prefixes{"text_model.embeddings.position_ids",
                                                                   "embeddings.position_ids"};
  nn::Embedding tokens, positions;
  Repeat<ClipLayer> layers;
  nn::LayerNorm final_norm;
  ClipConfig config;

  static consteval auto members() {
    using M = ClipTextModel;
    return std::tuple{field{"text_model.embeddings.token_embedding", &M::tokens},
                      field{"text_model.embeddings.position_embedding", &M::positions},
                      field{"text_model.encoder.layers", &M::layers},
                      field{"text_model.final_layer_norm", &M::final_norm}};
  }
  static ClipTextModel make(const ClipConfig& config) {
    ClipTextModel model{nn::Embedding::make(config.vocabulary, config.width),
                        nn::Embedding::make(config.positions, config.width),
                        {},
                        nn::LayerNorm::make(config.width, config.epsilon),
                        config};
    for (std::size_t layer = 0; layer < config.layers; ++layer) model.layers.push_back(ClipLayer::make(config));
    return model;
  }

  /// ids [batch * tokens] -> pooled [batch, width]: the final norm's row at each prompt's end-of-text token.
  template <class Context>
  void forward(Context& ctx, std::span<const std::int32_t> ids, std::size_t batch,
               Matrix<typename Context::element> pooled) const {
    require(batch > 0 && ids.size() % batch == 0, "CLIP: ids must be a whole number of tokens per prompt");
    require(pooled.rows == batch && pooled.columns == config.width, "CLIP: pooled must be [batch, width]");
    const std::size_t count = ids.size() / batch;
    if (count > config.positions)
      throw ShapeError(concat("CLIP: ", count, " tokens, but the model has ", config.positions, " positions"));
    const auto frame = ctx.workspace().frame();
    const auto x = ctx.matrix(ids.size(), config.width);
    const auto places = ctx.matrix(ids.size(), config.width);
    std::vector<std::int32_t> order(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) order[i] = static_cast<std::int32_t>(i % count);
    call(ctx, tokens, ids, x);
    call(ctx, positions, order, places);
    add(ctx, x, places, x);
    for (const ClipLayer& layer : layers) call(ctx, layer, config, batch, x);
    call(ctx, final_norm, x, places);
    for (std::size_t item = 0; item < batch; ++item) {
      const auto prompt = ids.subspan(item * count, count);
      const auto at = config.end_of_text == 2 ? std::max_element(prompt.begin(), prompt.end())
                                              : std::find(prompt.begin(), prompt.end(), config.end_of_text);
      const auto token = at == prompt.end() ? 0 : static_cast<std::size_t>(at - prompt.begin());
      copy(ctx, places.rows_from(item * count + token, 1), pooled.rows_from(item, 1));
    }
  }
};
static_assert(Module<ClipLayer> && Module<ClipTextModel>);

}  // namespace ebb::examples
