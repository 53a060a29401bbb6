#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "common/config_file.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/module/call.hpp"
#include "ebb/nn/conv.hpp"
#include "ebb/ops/attention.hpp"
#include "ebb/ops/norm.hpp"
#include "ebb/ops/transfer.hpp"

namespace ebb::examples {

/// Extents of tiles and their distance, in pixels of the video.
struct TileSize {
  std::size_t height = 256, width = 256, stride_height = 192, stride_width = 192;
};

/// What `vae/config.json` says of an AutoencoderKLWan of Wan 2.1; only the decoder is built.
struct WanVaeConfig {
  std::size_t base, latent_channels, picture_channels, res_blocks;
  std::vector<std::size_t> multipliers;   // of `base`, in the encoder's order
  std::vector<bool> temporal_downsample;  // one fewer
  std::vector<float> mean, deviation;     // of the latents, by channel
  TileSize tiles = {};
  std::size_t pixels_at_once = std::size_t{1} << 18;  // that a pass takes of small frames, to fill a GPU with

  /// Frames of so many pixels that go through the decoder together.
  std::size_t frames_at_once(std::size_t pixels) const { return std::max<std::size_t>(pixels_at_once / pixels, 1); }
  /// Pixels of a frame for one of the latent, each way.
  std::size_t spatial_scale() const { return std::size_t{1} << (multipliers.size() - 1); }
  /// Frames for each latent frame but the first, which stands for one.
  std::size_t temporal_scale() const {
    return std::size_t{1} << std::count(temporal_downsample.begin(), temporal_downsample.end(), true);
  }
  std::size_t frames(std::size_t latent_frames) const {
    return latent_frames == 0 ? 0 : 1 + (latent_frames - 1) * temporal_scale();
  }
  /// Channels that up block `block` reads and writes, before its upsampler halves them.
  std::size_t inputs(std::size_t block) const { return block == 0 ? outputs(0) : outputs(block - 1) / 2; }
  std::size_t outputs(std::size_t block) const { return base * multipliers[multipliers.size() - 1 - block]; }

  static WanVaeConfig read(const ConfigFile& file) {
    const auto fail = [&](const char* field, const auto&... expected) {
      throw ConfigError(concat(file.path().string(), ": field \"", field, "\": expected ", expected...));
    };
    file.expect("is_residual", false);  // Wan 2.2
    if (file.has("patch_size")) fail("patch_size", "none, as Wan 2.1 has");
    if (file.has("attn_scales") && !file.json().at("attn_scales").empty()) fail("attn_scales", "none, as Wan 2.1 has");
    const std::size_t base = file.size("base_dim", 1, 1u << 12, 96);
    const std::size_t channels = file.size("z_dim", 1, 1024, 16);
    WanVaeConfig config{.base = file.size("decoder_base_dim", 1, 1u << 12, base),
                        .latent_channels = channels,
                        .picture_channels = file.size("out_channels", 3, 3, 3),
                        .res_blocks = file.size("num_res_blocks", 1, 64, 2),
                        .multipliers = {1, 2, 4, 4},
                        .temporal_downsample = {false, true, true},
                        .mean = {},
                        .deviation = {}};
    if (file.has("dim_mult")) config.multipliers = file.sizes("dim_mult", 1, 8, 1, 64);
    const auto list = [&](const char* field, std::size_t count, auto is, auto take) {
      if (!file.has(field)) fail(field, count, " values");
      const auto& values = file.json().at(field);
      if (!values.is_array() || values.size() != count || !std::all_of(values.begin(), values.end(), is))
        fail(field, "a list of ", count, " values, found ", values.dump());
      for (const auto& value : values) take(value);
    };
    if (file.has("temperal_downsample") || config.multipliers.size() != 4) {
      config.temporal_downsample.clear();
      list(
          "temperal_downsample", config.multipliers.size() - 1, [](const auto& value) { return value.is_boolean(); },
          [&](const auto& value) { config.temporal_downsample.push_back(value.template get<bool>()); });
    }
    const auto number = [](const auto& value) { return value.is_number(); };
    list("latents_mean", channels, number,
         [&](const auto& value) { config.mean.push_back(value.template get<float>()); });
    list("latents_std", channels, number,
         [&](const auto& value) { config.deviation.push_back(value.template get<float>()); });
    for (const float deviation : config.deviation)
      if (!(deviation > 0.0f)) fail("latents_std", "positive numbers, found ", deviation);
    for (const auto& [field, found] : {std::pair{"scale_factor_spatial", config.spatial_scale()},
                                       std::pair{"scale_factor_temporal", config.temporal_scale()}})
      if (file.has(field) && file.size(field, 1, 1024) != found)
        fail(field, found, ", which dim_mult and temperal_downsample say, found ", file.size(field, 1, 1024));
    for (std::size_t block = 0; block + 1 < config.multipliers.size(); ++block)
      if (config.outputs(block) % 2 != 0)
        fail("base_dim", "an even number of channels in every up block, found ", base);
    return config;
  }
};

/// Latents [channels, frames, height, width] as the transformer leaves them -> what the decoder reads, channels last:
/// x / (1 / deviation) + mean, each operation rounded to T, as the reference computes it.
template <class T>
std::vector<T> unnormalized(const WanVaeConfig& config, std::span<const float> latents, std::size_t frames,
                            std::size_t height, std::size_t width) {
  const std::size_t channels = config.latent_channels;
  const std::size_t pixels = frames * height * width;
  require(latents.size() == channels * pixels, "Wan VAE: latents must be [z_dim, frames, height, width]");
  const auto rounded = [](float value) { return static_cast<float>(static_cast<T>(value)); };
  std::vector<T> result(latents.size());
  for (std::size_t c = 0; c < channels; ++c) {
    const float inverse = rounded(1.0f / config.deviation[c]);
    const float mean = rounded(config.mean[c]);
    for (std::size_t pixel = 0; pixel < pixels; ++pixel)
      result[pixel * channels + c] = static_cast<T>(rounded(rounded(latents[c * pixels + pixel]) / inverse) + mean);
  }
  return result;
}

/// The last two input frames of one causal convolution: what it sees before the next chunk's first frame.
template <class T>
struct FrameHistory {
  static constexpr std::size_t frames = 2;
  Image<T> kept;
};

/// The histories of all causal convolutions of a decoder in their order, which a pass over a chunk walks through. Empty
/// histories are zeros: the reference pads the first chunk with them.
template <class T>
class FrameHistories {
 public:
  template <class Context>
  void add(Context& ctx, std::size_t height, std::size_t width, std::size_t channels) {
    histories_.push_back({ctx.image(FrameHistory<T>::frames, height, width, channels)});
    clear(ctx, histories_.back().kept.pixels());
  }
  std::size_t position() const { return next_; }
  void rewind(std::size_t position = 0) { next_ = position; }
  FrameHistory<T>& next() { return histories_.at(next_++); }
  void skip() { ++next_; }

 private:
  std::vector<FrameHistory<T>> histories_;
  std::size_t next_ = 0;
};

namespace detail {

/// Some frames of a video that lies in memory frame after frame.
template <class T>
Image<T> frames_of(const Image<T>& video, std::size_t first, std::size_t count) {
  return {video.data + first * video.height * video.width * video.channels, count, video.height, video.width,
          video.channels};
}

/// Room for a chunk behind the history that precedes it. `fill(chunk)` writes the chunk; then `run(all)` reads both,
/// and the last frames become the history.
template <class Context, class Fill, class Run>
void with_history(Context& ctx, FrameHistory<typename Context::element>& history, std::size_t chunk_frames, Fill fill,
                  Run run) {
  using T = typename Context::element;
  constexpr std::size_t before = FrameHistory<T>::frames;
  const auto frame = ctx.workspace().frame();
  const Image<T> all = ctx.image(before + chunk_frames, history.kept.height, history.kept.width, history.kept.channels);
  copy(ctx, history.kept.pixels(), frames_of(all, 0, before).pixels());
  fill(frames_of(all, before, chunk_frames));
  run(all);
  copy(ctx, frames_of(all, chunk_frames, before).pixels(), history.kept.pixels());
}

}  // namespace detail

/// WanRMS_norm: each pixel's channels divided by their root mean square, times gamma, with an activation behind.
struct ChannelNorm {
  Vector gamma;  // [channels, 1, 1] or [channels, 1, 1, 1]

  static consteval auto members() { return std::tuple{field{"gamma", &ChannelNorm::gamma}}; }
  static ChannelNorm make_for_videos(std::size_t channels) { return {Vector(Shape{channels, 1, 1, 1})}; }
  static ChannelNorm make_for_pictures(std::size_t channels) { return {Vector(Shape{channels, 1, 1})}; }

  template <class Context>
  void forward(Context& ctx, Image<const typename Context::element> x, Activation activation,
               Image<typename Context::element> y) const {
    // The reference divides by max(norm, 1e-12) and multiplies with sqrt(channels).
    const float epsilon = 1e-24f / static_cast<float>(x.channels);
    rms_norm(ctx, x.pixels(), gamma.values(), epsilon, activation, y.pixels());
  }
};
static_assert(LeafModule<ChannelNorm>);

/// norm, SiLU, causal 3x3x3 convolution, twice, plus the input (through a linear where the width changes).
struct WanResidualBlock {
  static constexpr Level level = Level::block;
  ChannelNorm norm1;
  nn::Conv3d conv1;
  ChannelNorm norm2;
  nn::Conv3d conv2;
  Maybe<nn::Conv3d> shortcut;

  static consteval auto members() {
    using B = WanResidualBlock;
    return std::tuple{field{"norm1", &B::norm1}, field{"conv1", &B::conv1}, field{"norm2", &B::norm2},
                      field{"conv2", &B::conv2}, field{"conv_shortcut", &B::shortcut}};
  }
  static WanResidualBlock make(std::size_t inputs, std::size_t outputs) {
    WanResidualBlock block{ChannelNorm::make_for_videos(inputs),
                           nn::Conv3d::make(inputs, outputs, 3, 3),
                           ChannelNorm::make_for_videos(outputs),
                           nn::Conv3d::make(outputs, outputs, 3, 3),
                           {}};
    if (inputs != outputs) block.shortcut.emplace(nn::Conv3d::make(inputs, outputs, 1, 1));
    return block;
  }
  template <class Context, class T>
  void reserve(Context& ctx, FrameHistories<T>& histories, std::size_t height, std::size_t width) const {
    histories.add(ctx, height, width, conv1.inputs());
    histories.add(ctx, height, width, conv2.inputs());
  }

  /// x [n, h, w, inputs] -> y [n, h, w, outputs], which may be x where the width stays
  template <class Context>
  void forward(Context& ctx, FrameHistories<typename Context::element>& histories, Image<typename Context::element> x,
               Image<typename Context::element> y) const {
    using T = typename Context::element;
    const auto frame = ctx.workspace().frame();
    const auto middle = ctx.image(x.batch, x.height, x.width, conv1.outputs());
    detail::with_history(
        ctx, histories.next(), x.batch, [&](Image<T> chunk) { call(ctx, norm1, x, Activation::silu, chunk); },
        [&](Image<T> all) { call(ctx, conv1, all, middle); });
    if (shortcut) call(ctx, *shortcut, x, y);
    const Image<T> residual = shortcut ? y : x;
    detail::with_history(
        ctx, histories.next(), x.batch, [&](Image<T> chunk) { call(ctx, norm2, middle, Activation::silu, chunk); },
        [&](Image<T> all) { call(ctx, conv2, all, y, Residual{residual.pixels()}); });
  }
};

/// Self-attention of one head among the pixels of each frame.
struct WanAttentionBlock {
  ChannelNorm norm;
  nn::Conv2d qkv, projection;

  static consteval auto members() {
    using B = WanAttentionBlock;
    return std::tuple{field{"norm", &B::norm}, field{"to_qkv", &B::qkv}, field{"proj", &B::projection}};
  }
  static WanAttentionBlock make(std::size_t channels) {
    return {ChannelNorm::make_for_pictures(channels), nn::Conv2d::make(channels, 3 * channels, 1),
            nn::Conv2d::make(channels, channels, 1)};
  }
  /// x [n, h, w, channels], in place
  template <class Context>
  void forward(Context& ctx, Image<typename Context::element> x) const {
    const auto frame = ctx.workspace().frame();
    const auto normed = ctx.image(x.batch, x.height, x.width, x.channels);
    const auto three = ctx.image(x.batch, x.height, x.width, 3 * x.channels);
    call(ctx, norm, x, Activation::none, normed);
    call(ctx, qkv, normed, three);
    const std::size_t pixels = x.height * x.width;
    const AttentionShape shape{
        .batch = x.batch, .heads = 1, .head_dim = x.channels, .query_tokens = pixels, .key_tokens = pixels};
    const auto part = [&](std::size_t index) { return three.pixels().columns_from(index * x.channels, x.channels); };
    attention(ctx, part(0), part(1), part(2), shape, 1.0f / std::sqrt(static_cast<float>(x.channels)),
              AttentionMask::none, {}, normed.pixels());
    call(ctx, projection, normed, x, Residual{x.pixels()});
  }
};

/// Residual block, attention, residual block, at the latents' size.
struct WanMiddleBlock {
  Repeat<WanResidualBlock> resnets;
  Repeat<WanAttentionBlock> attentions;

  static consteval auto members() {
    return std::tuple{field{"resnets", &WanMiddleBlock::resnets}, field{"attentions", &WanMiddleBlock::attentions}};
  }
  static WanMiddleBlock make(std::size_t channels) {
    WanMiddleBlock block;
    for (int half = 0; half < 2; ++half) block.resnets.push_back(WanResidualBlock::make(channels, channels));
    block.attentions.push_back(WanAttentionBlock::make(channels));
    return block;
  }
  /// x [n, h, w, channels], in place
  template <class Context>
  void forward(Context& ctx, FrameHistories<typename Context::element>& histories,
               Image<typename Context::element> x) const {
    call(ctx, resnets[0], histories, x, x);
    call(ctx, attentions[0], x);
    call(ctx, resnets[1], histories, x, x);
  }
};

/// Twice the rows and columns, half the channels; with `time_conv` also twice the frames, but for the first chunk.
struct WanUpsampler {
  nn::Conv2d conv;
  Maybe<nn::Conv3d> time_conv;

  static consteval auto members() {
    return std::tuple{field{"resample.1", &WanUpsampler::conv}, field{"time_conv", &WanUpsampler::time_conv}};
  }
  static WanUpsampler make(std::size_t channels, bool temporal) {
    WanUpsampler upsampler{nn::Conv2d::make(channels, channels / 2, 3), {}};
    if (temporal) upsampler.time_conv.emplace(nn::Conv3d::make(channels, 2 * channels, 3, 1));
    return upsampler;
  }
  template <class Context, class T>
  void reserve(Context& ctx, FrameHistories<T>& histories, std::size_t height, std::size_t width) const {
    if (time_conv) histories.add(ctx, height, width, time_conv->inputs());
  }

  /// x [n, h, w, channels] -> y [frames, 2h, 2w, channels / 2], where frames is n or 2n
  template <class Context>
  void forward(Context& ctx, const WanVaeConfig& config, FrameHistories<typename Context::element>& histories,
               Image<typename Context::element> x, Image<typename Context::element> y) const {
    using T = typename Context::element;
    const auto frame = ctx.workspace().frame();
    // Some frames at a time: before the convolution they are the largest images of all.
    const std::size_t together = std::min(config.frames_at_once(y.height * y.width), y.batch);
    const auto large = ctx.image(together, y.height, y.width, x.channels);
    const auto grow = [&](auto small) {
      for (std::size_t index = 0; index < y.batch; index += together) {
        const std::size_t count = std::min(together, y.batch - index);
        const Image<T> grown = detail::frames_of(large, 0, count);
        upsample_nearest(ctx, small(index, count), grown);
        call(ctx, conv, grown, detail::frames_of(y, index, count));
      }
    };
    if (y.batch == x.batch) {
      if (time_conv) histories.skip();
      grow([&](std::size_t index, std::size_t count) { return detail::frames_of(x, index, count); });
      return;
    }
    const auto pairs = ctx.image(x.batch, x.height, x.width, 2 * x.channels);  // two frames' channels in each pixel
    const auto several = ctx.image(together, x.height, x.width, x.channels);
    detail::with_history(
        ctx, histories.next(), x.batch, [&](Image<T> chunk) { copy(ctx, x.pixels(), chunk.pixels()); },
        [&](Image<T> all) { call(ctx, *time_conv, all, pairs); });
    grow([&](std::size_t first, std::size_t count) {
      for (std::size_t index = first; index < first + count; ++index)
        copy(ctx, detail::frames_of(pairs, index / 2, 1).pixels().columns_from(index % 2 * x.channels, x.channels),
             detail::frames_of(several, index - first, 1).pixels());
      return detail::frames_of(several, 0, count);
    });
  }
};

/// Residual blocks, then perhaps an upsampler.
struct WanUpBlock {
  Repeat<WanResidualBlock> resnets;
  Repeat<WanUpsampler> upsamplers;  // one or none

  static consteval auto members() {
    return std::tuple{field{"resnets", &WanUpBlock::resnets}, field{"upsamplers", &WanUpBlock::upsamplers}};
  }
  static WanUpBlock make(const WanVaeConfig& config, std::size_t index) {
    WanUpBlock block;
    const std::size_t outputs = config.outputs(index);
    for (std::size_t number = 0; number <= config.res_blocks; ++number)
      block.resnets.push_back(WanResidualBlock::make(number == 0 ? config.inputs(index) : outputs, outputs));
    const std::size_t upsampled = config.multipliers.size() - 1;
    if (index < upsampled)
      block.upsamplers.push_back(WanUpsampler::make(outputs, config.temporal_downsample[upsampled - 1 - index]));
    return block;
  }
  bool doubles_frames() const { return upsamplers.size() > 0 && upsamplers[0].time_conv; }

  /// Reads a chunk in `from` and leaves the result there; `other` is as large as any image on the way.
  template <class Context>
  void forward(Context& ctx, const WanVaeConfig& config, FrameHistories<typename Context::element>& histories,
               bool first_chunk, Image<typename Context::element>& from,
               Image<typename Context::element>& other) const {
    for (const WanResidualBlock& resnet : resnets) {
      if (!resnet.shortcut) {
        call(ctx, resnet, histories, from, from);
        continue;
      }
      other = {other.data, from.batch, from.height, from.width, resnet.conv1.outputs()};
      call(ctx, resnet, histories, from, other);
      std::swap(from, other);
    }
    if (upsamplers.size() == 0) return;
    const std::size_t frames = doubles_frames() && !first_chunk ? 2 * from.batch : from.batch;
    other = {other.data, frames, 2 * from.height, 2 * from.width, from.channels / 2};
    call(ctx, upsamplers[0], config, histories, from, other);
    std::swap(from, other);
  }
};

/// The decoder of AutoencoderKLWan, with the convolution in front of it.
struct WanDecoder {
  static constexpr Level level = Level::model;
  static constexpr std::array<std::string_view, 2> unused_prefixes{"encoder.", "quant_conv."};
  nn::Conv3d post_quant;
  nn::Conv3d conv_in;
  WanMiddleBlock middle;
  Repeat<WanUpBlock> up_blocks;
  ChannelNorm norm_out;
  nn::Conv3d conv_out;
  WanVaeConfig config;

  static consteval auto members() {
    using D = WanDecoder;
    return std::tuple{field{"post_quant_conv", &D::post_quant}, field{"decoder.conv_in", &D::conv_in},
                      field{"decoder.mid_block", &D::middle},   field{"decoder.up_blocks", &D::up_blocks},
                      field{"decoder.norm_out", &D::norm_out},  field{"decoder.conv_out", &D::conv_out}};
  }
  static WanDecoder make(const WanVaeConfig& config) {
    const std::size_t top = config.outputs(0), last = config.outputs(config.multipliers.size() - 1);
    WanDecoder decoder{nn::Conv3d::make(config.latent_channels, config.latent_channels, 1, 1),
                       nn::Conv3d::make(config.latent_channels, top, 3, 3),
                       WanMiddleBlock::make(top),
                       {},
                       ChannelNorm::make_for_videos(last),
                       nn::Conv3d::make(last, config.picture_channels, 3, 3),
                       config};
    for (std::size_t block = 0; block < config.multipliers.size(); ++block)
      decoder.up_blocks.push_back(WanUpBlock::make(config, block));
    return decoder;
  }

  /// Up blocks that a chunk passes through as a whole: all up to the last that doubles its frames. The others (the last
  /// block at least, which has no upsampler), whose images are the largest, take fewer frames at a time, which needs a
  /// quarter of the memory.
  std::size_t chunk_blocks() const {
    std::size_t count = 0;
    for (std::size_t block = 0; block < up_blocks.size(); ++block)
      if (up_blocks[block].doubles_frames()) count = block + 1;
    return count;
  }

  /// The memory that a pass over the chunks of one video needs besides its temporaries: histories of all causal
  /// convolutions, and two buffers that a chunk goes back and forth between, and two for the frames that the last
  /// blocks take at a time. Lives in the workspace until the enclosing frame ends.
  template <class T>
  struct State {
    FrameHistories<T> histories;
    std::array<std::span<T>, 2> chunk_buffers, frame_buffers;
    std::size_t height = 0, width = 0;  // of the latents
    std::size_t at_once = 0;            // latent frames of a chunk, and frames that the last blocks take, at most
    bool first_chunk = true;
  };
  /// For latents [frames, height, width, latent_channels]
  template <class Context>
  State<typename Context::element> start(Context& ctx, std::size_t frames, std::size_t height,
                                         std::size_t width) const {
    using T = typename Context::element;
    State<T> state{.histories = {}, .chunk_buffers = {}, .frame_buffers = {}, .height = height, .width = width};
    const std::size_t scale = config.spatial_scale();
    state.at_once = std::clamp<std::size_t>(frames - 1, 1, config.frames_at_once(height * scale * width * scale));
    state.histories.add(ctx, height, width, conv_in.inputs());
    for (const WanResidualBlock& resnet : middle.resnets) resnet.reserve(ctx, state.histories, height, width);
    std::size_t largest_chunk = height * width * conv_in.outputs(), largest_frame = 0, growth = 1;
    const std::size_t together = chunk_blocks();
    for (std::size_t index = 0; index < up_blocks.size(); ++index) {
      const WanUpBlock& block = up_blocks[index];
      const auto holds = [&](std::size_t channels) {
        if (index < together)
          largest_chunk = std::max(largest_chunk, growth * height * width * channels);
        else
          largest_frame = std::max(largest_frame, height * width * channels);
      };
      holds(block.resnets[0].conv1.inputs());
      for (const WanResidualBlock& resnet : block.resnets) {
        resnet.reserve(ctx, state.histories, height, width);
        holds(resnet.conv1.outputs());
      }
      for (const WanUpsampler& upsampler : block.upsamplers) upsampler.reserve(ctx, state.histories, height, width);
      if (block.upsamplers.size() > 0) {
        height *= 2, width *= 2;
        if (block.doubles_frames()) growth *= 2;
        holds(block.upsamplers[0].conv.outputs());
      }
    }
    state.histories.add(ctx, height, width, conv_out.inputs());
    for (auto& buffer : state.chunk_buffers) buffer = ctx.template array<T>(state.at_once * largest_chunk);
    for (auto& buffer : state.frame_buffers) buffer = ctx.template array<T>(state.at_once * largest_frame);
    return state;
  }

  /// Decodes the next n latent frames [n, h, w, latent_channels], at most `state.at_once`, to `picture`
  /// [n * temporal_scale, H, W, 3]; the first latent frame of a video comes alone and gives one frame. `stage` runs on
  /// the values.
  template <class Context, class Stage>
  void forward(Context& ctx, State<typename Context::element>& state, Image<const typename Context::element> latents,
               Image<typename Context::element> picture, Stage stage) const {
    using T = typename Context::element;
    require(latents.batch <= (state.first_chunk ? 1 : state.at_once), "WanDecoder: too many latent frames at once");
    state.histories.rewind();
    Image<T> from{state.chunk_buffers[0].data(), latents.batch, state.height, state.width, conv_in.outputs()};
    Image<T> other{state.chunk_buffers[1].data(), 0, 0, 0, 0};
    detail::with_history(
        ctx, state.histories.next(), latents.batch, [&](Image<T> chunk) { call(ctx, post_quant, latents, chunk); },
        [&](Image<T> all) { call(ctx, conv_in, all, from); });
    call(ctx, middle, state.histories, from);
    const std::size_t together = chunk_blocks();
    for (std::size_t block = 0; block < together; ++block)
      call(ctx, up_blocks[block], config, state.histories, state.first_chunk, from, other);
    const std::size_t position = state.histories.position();
    for (std::size_t index = 0; index < from.batch; index += state.at_once) {
      const std::size_t count = std::min(state.at_once, from.batch - index);
      state.histories.rewind(position);
      Image<T> some{state.frame_buffers[0].data(), count, from.height, from.width, from.channels};
      Image<T> spare{state.frame_buffers[1].data(), 0, 0, 0, 0};
      copy(ctx, detail::frames_of(from, index, count).pixels(), some.pixels());
      for (std::size_t block = together; block < up_blocks.size(); ++block)
        call(ctx, up_blocks[block], config, state.histories, state.first_chunk, some, spare);
      detail::with_history(
          ctx, state.histories.next(), count,
          [&](Image<T> chunk) { call(ctx, norm_out, some, Activation::silu, chunk); },
          [&](Image<T> all) { call(ctx, conv_out, all, detail::frames_of(picture, index, count), stage); });
    }
    state.first_chunk = false;
  }
};
static_assert(Module<WanResidualBlock> && Module<WanUpBlock> && Module<WanDecoder>);

}  // namespace ebb::examples
