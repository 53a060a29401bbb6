#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "common/config_file.hpp"
#include "common/tiling.hpp"
#include "ebb/module/call.hpp"
#include "ebb/nn/conv.hpp"
#include "ebb/nn/linear.hpp"
#include "ebb/nn/norm.hpp"
#include "ebb/ops/attention.hpp"
#include "ebb/ops/transfer.hpp"

namespace ebb::examples {

/// What `vae/config.json` says of an AutoencoderKL; only the decoder is built.
struct AutoencoderConfig {
  std::vector<std::size_t> channels;  // block_out_channels, of the encoder's order
  std::size_t layers_per_block, groups, latent_channels, picture_channels, sample_size;
  float scaling, shift;
  bool post_quant_conv, mid_attention;

  /// Pixels of the picture for one of the latent, each way.
  std::size_t scale() const { return std::size_t{1} << (channels.size() - 1); }

  static AutoencoderConfig read(const ConfigFile& file) {
    file.expect("act_fn", "silu");
    AutoencoderConfig config{.channels = file.sizes("block_out_channels", 1, 8, 1, 1u << 14),
                             .layers_per_block = file.size("layers_per_block", 1, 64, 1),
                             .groups = file.size("norm_num_groups", 1, 1024, 32),
                             .latent_channels = file.size("latent_channels", 1, 1024, 4),
                             .picture_channels = file.size("out_channels", 3, 3, 3),
                             .sample_size = file.size("sample_size", 1, 1u << 16, 32),
                             .scaling = static_cast<float>(file.number("scaling_factor", 0.18215)),
                             .shift = static_cast<float>(file.number("shift_factor", 0.0)),
                             .post_quant_conv = file.flag("use_post_quant_conv", true),
                             .mid_attention = file.flag("mid_block_add_attention", true)};
    if (config.scaling == 0.0f)
      throw ConfigError(concat(file.path().string(), ": field \"scaling_factor\": expected not 0"));
    for (const std::size_t channels : config.channels)
      if (channels % config.groups != 0)
        throw ConfigError(concat(file.path().string(), ": block_out_channels ", channels,
                                 " is not a multiple of norm_num_groups ", config.groups));
    if (file.has("up_block_types"))
      for (const auto& type : file.json().at("up_block_types"))
        if (type != "UpDecoderBlock2D")
          throw ConfigError(concat(file.path().string(), ": field \"up_block_types\": expected ",
                                   "\"UpDecoderBlock2D\", found ", type.dump()));
    return config;
  }
};

/// norm, SiLU, 3x3 convolution, twice, plus the input (through a 1x1 convolution where the width changes).
struct ResnetBlock {
  static constexpr Level level = Level::block;
  nn::GroupNorm norm1;
  nn::Conv2d conv1;
  nn::GroupNorm norm2;
  Maybe<nn::Conv2d> shortcut;
  nn::Conv2d conv2;

  static consteval auto members() {
    using B = ResnetBlock;
    return std::tuple{field{"norm1", &B::norm1}, field{"conv1", &B::conv1}, field{"norm2", &B::norm2},
                      field{"conv_shortcut", &B::shortcut}, field{"conv2", &B::conv2}};
  }
  static ResnetBlock make(std::size_t inputs, std::size_t outputs, std::size_t groups) {
    ResnetBlock block{nn::GroupNorm::make(inputs, groups, 1e-6f),
                      nn::Conv2d::make(inputs, outputs, 3),
                      nn::GroupNorm::make(outputs, groups, 1e-6f),
                      {},
                      nn::Conv2d::make(outputs, outputs, 3)};
    if (inputs != outputs) block.shortcut.emplace(nn::Conv2d::make(inputs, outputs, 1));
    return block;
  }

  /// x [n, h, w, inputs] -> [n, h, w, outputs], in the place of x, or, where the width changes, in `spare`, which has
  /// room for either. At full size a picture's activations are hundreds of megabytes each, so none is kept for longer.
  template <class Context>
  Image<typename Context::element> forward(Context& ctx, Image<typename Context::element> x,
                                           typename Context::element* spare) const {
    using T = typename Context::element;
    const auto frame = ctx.workspace().frame();
    const Image<T> normed{spare, x.batch, x.height, x.width, x.channels};
    call(ctx, norm1, x, Activation::silu, normed);
    const auto hidden = ctx.image(x.batch, x.height, x.width, conv1.outputs());
    call(ctx, conv1, normed, hidden);
    call(ctx, norm2, hidden, Activation::silu, hidden);
    Image<T> y = x;
    if (shortcut) {
      y = {spare, x.batch, x.height, x.width, conv1.outputs()};
      call(ctx, *shortcut, x, y);
    }
    call(ctx, conv2, hidden, y, Residual{y.pixels()});
    return y;
  }
};

/// Self-attention over the pixels of a picture, one head.
struct PixelAttention {
  static constexpr Level level = Level::block;
  nn::GroupNorm norm;
  nn::Linear query, key, value, output;

  static consteval auto members() {
    using A = PixelAttention;
    return std::tuple{field{"group_norm", &A::norm}, field{"to_q", &A::query}, field{"to_k", &A::key},
                      field{"to_v", &A::value}, field{"to_out.0", &A::output}};
  }
  static PixelAttention make(std::size_t channels, std::size_t groups) {
    const auto square = nn::Linear::make(channels, channels);
    return {nn::GroupNorm::make(channels, groups, 1e-6f), square, square, square, square};
  }

  /// x [n, h, w, channels] in place
  template <class Context>
  void forward(Context& ctx, Image<typename Context::element> x) const {
    const auto frame = ctx.workspace().frame();
    const auto normed = ctx.image(x.batch, x.height, x.width, x.channels);
    call(ctx, norm, x, Activation::none, normed);
    const auto pixels = normed.pixels();
    const auto q = ctx.matrix(pixels.rows, x.channels);
    const auto k = ctx.matrix(pixels.rows, x.channels);
    const auto v = ctx.matrix(pixels.rows, x.channels);
    call(ctx, query, pixels, q);
    call(ctx, key, pixels, k);
    call(ctx, value, pixels, v);
    const AttentionShape shape{.batch = x.batch,
                               .heads = 1,
                               .head_dim = x.channels,
                               .query_tokens = x.height * x.width,
                               .key_tokens = x.height * x.width};
    attention(ctx, q, k, v, shape, 1.0f / std::sqrt(static_cast<float>(x.channels)), AttentionMask::none, {}, pixels);
    call(ctx, output, pixels, x.pixels(), Residual{x.pixels()});
  }
};

/// resnet, attention, resnet at the coarsest level.
struct MiddleBlock {
  Repeat<ResnetBlock> resnets;
  Repeat<PixelAttention> attentions;

  static consteval auto members() {
    return std::tuple{field{"resnets", &MiddleBlock::resnets}, field{"attentions", &MiddleBlock::attentions}};
  }

  /// x [n, h, w, channels] in place; `spare` has as much room
  template <class Context>
  void forward(Context& ctx, Image<typename Context::element> x, typename Context::element* spare) const {
    call(ctx, resnets[0], x, spare);
    for (const PixelAttention& attention : attentions) call(ctx, attention, x);
    call(ctx, resnets[1], x, spare);
  }
};

/// Nearest doubling, then a 3x3 convolution.
struct Upsampler {
  nn::Conv2d conv;

  static consteval auto members() { return std::tuple{field{"conv", &Upsampler::conv}}; }

  /// x [n, h, w, c] -> y [n, 2h, 2w, c]
  template <class Context>
  void forward(Context& ctx, Image<const typename Context::element> x, Image<typename Context::element> y) const {
    const auto frame = ctx.workspace().frame();
    const auto doubled = ctx.image(y.batch, y.height, y.width, x.channels);
    upsample_nearest(ctx, x, doubled);
    call(ctx, conv, doubled, y);
  }
};

/// One level of the decoder.
struct UpBlock {
  Repeat<ResnetBlock> resnets;
  Repeat<Upsampler> upsamplers;  // one, or none at the finest level

  static consteval auto members() {
    return std::tuple{field{"resnets", &UpBlock::resnets}, field{"upsamplers", &UpBlock::upsamplers}};
  }
  std::size_t outputs() const { return resnets[0].conv1.outputs(); }
};

/// Decoder half of diffusers' AutoencoderKL.
struct AutoencoderDecoder {
  static constexpr Level level = Level::model;
  static constexpr std::array<std::string_view, 2> unused_prefixes{"encoder.", "quant_conv."};
  Maybe<nn::Conv2d> post_quant;
  nn::Conv2d conv_in;
  MiddleBlock middle;
  Repeat<UpBlock> up_blocks;
  nn::GroupNorm norm_out;
  nn::Conv2d conv_out;
  AutoencoderConfig config;

  static consteval auto members() {
    using D = AutoencoderDecoder;
    return std::tuple{field{"post_quant_conv", &D::post_quant},     field{"decoder.conv_in", &D::conv_in},
                      field{"decoder.mid_block", &D::middle},       field{"decoder.up_blocks", &D::up_blocks},
                      field{"decoder.conv_norm_out", &D::norm_out}, field{"decoder.conv_out", &D::conv_out}};
  }
  static AutoencoderDecoder make(const AutoencoderConfig& config) {
    const std::size_t top = config.channels.back();
    AutoencoderDecoder decoder{{},
                               nn::Conv2d::make(config.latent_channels, top, 3),
                               {},
                               {},
                               nn::GroupNorm::make(config.channels.front(), config.groups, 1e-6f),
                               nn::Conv2d::make(config.channels.front(), config.picture_channels, 3),
                               config};
    if (config.post_quant_conv)
      decoder.post_quant.emplace(nn::Conv2d::make(config.latent_channels, config.latent_channels, 1));
    for (int half = 0; half < 2; ++half) decoder.middle.resnets.push_back(ResnetBlock::make(top, top, config.groups));
    if (config.mid_attention) decoder.middle.attentions.push_back(PixelAttention::make(top, config.groups));
    std::size_t width = top;
    for (std::size_t depth = config.channels.size(); depth-- > 0;) {
      UpBlock block;
      for (std::size_t layer = 0; layer <= config.layers_per_block; ++layer) {
        block.resnets.push_back(ResnetBlock::make(width, config.channels[depth], config.groups));
        width = config.channels[depth];
      }
      if (depth > 0) block.upsamplers.push_back({nn::Conv2d::make(width, width, 3)});
      decoder.up_blocks.push_back(std::move(block));
    }
    return decoder;
  }

  /// latents [n, h, w, latent_channels], already unscaled -> picture [n, h * scale, w * scale, 3], about [-1, 1]
  template <class Context>
  void forward(Context& ctx, Image<const typename Context::element> latents,
               Image<typename Context::element> picture) const {
    using T = typename Context::element;
    require(latents.channels == config.latent_channels, "VAE: latents have the wrong number of channels");
    require(picture.batch == latents.batch && picture.height == latents.height * config.scale() &&
                picture.width == latents.width * config.scale() && picture.channels == config.picture_channels,
            "VAE: picture must be [n, h * scale, w * scale, 3]");
    const auto frame = ctx.workspace().frame();
    // Two buffers of the largest activation take turns: [level input, level output]. The latents may be wider than all.
    std::size_t largest = latents.channels;
    std::size_t side = 1;
    for (std::size_t at = 0; at < up_blocks.size(); ++at) {
      const std::size_t inputs = at == 0 ? config.channels.back() : up_blocks[at - 1].outputs();
      largest = std::max(largest, side * side * std::max(inputs, up_blocks[at].outputs()));
      if (up_blocks[at].upsamplers.size() > 0) {
        side *= 2;
        largest = std::max(largest, side * side * up_blocks[at].outputs());
      }
    }
    const std::size_t pixels = latents.batch * latents.height * latents.width;
    T* now = ctx.template array<T>(checked_product(pixels, largest)).data();
    T* next = ctx.template array<T>(checked_product(pixels, largest)).data();
    Image<T> x{now, latents.batch, latents.height, latents.width, config.channels.back()};
    if (post_quant) {
      const Image<T> z{next, latents.batch, latents.height, latents.width, latents.channels};
      call(ctx, *post_quant, latents, z);
      call(ctx, conv_in, z, x);
    } else {
      call(ctx, conv_in, latents, x);
    }
    call(ctx, middle, x, next);
    for (const UpBlock& block : up_blocks) {
      for (const ResnetBlock& resnet : block.resnets) {
        x = call(ctx, resnet, x, next);
        if (x.data == next) std::swap(now, next);
      }
      for (const Upsampler& upsampler : block.upsamplers) {
        const Image<T> y{next, x.batch, x.height * 2, x.width * 2, x.channels};
        std::swap(now, next);
        call(ctx, upsampler, x, y);
        x = y;
      }
    }
    const Image<T> normed{next, x.batch, x.height, x.width, x.channels};
    call(ctx, norm_out, x, Activation::silu, normed);
    call(ctx, conv_out, normed, picture);
  }
};
static_assert(Module<ResnetBlock> && Module<PixelAttention> && Module<UpBlock> && Module<AutoencoderDecoder>);

/// How a batch of latents is decoded: at once, or one picture at a time with less memory.
enum class Slicing { off, on };

/// latents -> picture, both in host memory
template <class Context>
void decode_whole(Context& ctx, const AutoencoderDecoder& decoder, Image<const typename Context::element> latents,
                  Image<typename Context::element> picture) {
  const auto frame = ctx.workspace().frame();
  const auto z = ctx.image(latents.batch, latents.height, latents.width, latents.channels);
  const auto decoded = ctx.image(picture.batch, picture.height, picture.width, picture.channels);
  upload(ctx, latents.elements(), z.elements());
  call(ctx, decoder, z, decoded);
  download(ctx, decoded.elements(), picture.elements());
}

/// AutoencoderKL's tiled decode of one picture: tiles of sample_size pixels that overlap by a quarter, each
/// blended with the (already blended) tiles above and to the left, then cropped.
/// latents [1, h, w, c] -> picture [1, h * scale, w * scale, 3], both in host memory
template <class Context>
void decode_tiled(Context& ctx, const AutoencoderDecoder& decoder, Image<const typename Context::element> latents,
                  Image<typename Context::element> picture) {
  using T = typename Context::element;
  const AutoencoderConfig& config = decoder.config;
  const std::size_t scale = config.scale();
  const std::size_t latent_tile = config.sample_size / scale;
  if (latent_tile < 4)
    throw ConfigError(concat("VAE tiling: sample_size ", config.sample_size, " gives tiles of ", latent_tile,
                             " latents; at least 4 are needed"));
  const std::size_t stride = latent_tile * 3 / 4;
  const std::size_t extent = config.sample_size / 4;
  const std::size_t limit = config.sample_size - extent;
  std::vector<std::vector<T>> above, row;  // decoded tiles of the previous row and of this one
  std::vector<Image<T>> above_views, row_views;
  for (std::size_t y = 0, i = 0; y < latents.height; y += stride, ++i) {
    row.clear();
    row_views.clear();
    for (std::size_t x = 0, j = 0; x < latents.width; x += stride, ++j) {
      const std::size_t height = std::min(latent_tile, latents.height - y);
      const std::size_t width = std::min(latent_tile, latents.width - x);
      row.emplace_back(height * width * scale * scale * config.picture_channels);
      const Image<T> tile{row.back().data(), 1, height * scale, width * scale, config.picture_channels};
      std::vector<T> part(height * width * latents.channels);
      for (std::size_t line = 0; line < height; ++line)
        std::copy_n(&latents(0, y + line, x, 0), width * latents.channels, &part[line * width * latents.channels]);
      decode_whole(ctx, decoder, Image<const T>{part.data(), 1, height, width, latents.channels}, tile);
      if (i > 0) detail::blend<T>(above_views[j], tile, extent, true);
      if (j > 0) detail::blend<T>(row_views[j - 1], tile, extent, false);
      row_views.push_back(tile);
      const std::size_t top = i * limit;
      const std::size_t left = j * limit;
      if (top >= picture.height || left >= picture.width) continue;
      const std::size_t lines = std::min({limit, tile.height, picture.height - top});
      const std::size_t columns = std::min({limit, tile.width, picture.width - left});
      for (std::size_t line = 0; line < lines; ++line)
        std::copy_n(&tile(0, line, 0, 0), columns * tile.channels, &picture(0, top + line, left, 0));
    }
    std::swap(above, row);
    std::swap(above_views, row_views);
  }
}

/// latents [n, h, w, c], already unscaled -> picture [n, h * scale, w * scale, 3], both in host memory
template <class Context>
void decode(Context& ctx, const AutoencoderDecoder& decoder, Image<const typename Context::element> latents,
            Slicing slicing, Tiling tiling, Image<typename Context::element> picture) {
  using T = typename Context::element;
  const std::size_t latent_tile = decoder.config.sample_size / decoder.config.scale();
  const bool tiled = tiling == Tiling::on && std::max(latents.height, latents.width) > latent_tile;
  if (!tiled && (slicing == Slicing::off || latents.batch == 1)) return decode_whole(ctx, decoder, latents, picture);
  for (std::size_t item = 0; item < latents.batch; ++item) {
    const Image<const T> one{&latents(item, 0, 0, 0), 1, latents.height, latents.width, latents.channels};
    const Image<T> out{&picture(item, 0, 0, 0), 1, picture.height, picture.width, picture.channels};
    if (tiled)
      decode_tiled(ctx, decoder, one, out);
    else
      decode_whole(ctx, decoder, one, out);
  }
}

}  // namespace ebb::examples
