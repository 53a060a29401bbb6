#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "common/autoencoder_kl_wan.hpp"
#include "common/background.hpp"
#include "common/tiling.hpp"
#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/core/view.hpp"
#include "ebb/epilogue/epilogue.hpp"
#include "ebb/module/call.hpp"
#include "ebb/ops/transfer.hpp"

namespace ebb::examples {

/// The values that a picture holds: -1 to 1.
struct ClampToPicture {
  EBB_HOST_DEVICE float operator()(float value, std::size_t, std::size_t) const {
    return value < -1.0f ? -1.0f : value > 1.0f ? 1.0f : value;
  }
};

/// One video, chunk by chunk: the first latent frame, then as many at a time as make `pixels_at_once`. Calls
/// `sink(first_frame, Image<const T> frames)` for each in order, on another thread while the next chunk is decoded,
/// with frames [n, h * scale, w * scale, 3] in host memory, valid during the call; `stage` has run on their values. All
/// calls have ended on return. Calls `progress(latent_frames)` after each chunk. Memory grows with the number of
/// frames until they fill a chunk, and then no more. latents [frames, h, w, latent_channels], at least one frame, in
/// host memory, as `unnormalized` makes them. @throws what the two throw
template <class Context, class Stage, class Sink, class Progress>
void decode_whole(Context& ctx, const WanDecoder& decoder, Image<const typename Context::element> latents, Stage stage,
                  Sink sink, Progress progress) {
  using T = typename Context::element;
  const WanVaeConfig& config = decoder.config;
  const auto frame = ctx.workspace().frame();
  auto state = decoder.start(ctx, latents.batch, latents.height, latents.width);
  const std::size_t height = latents.height * config.spatial_scale(), width = latents.width * config.spatial_scale();
  const auto chunk = ctx.image(state.at_once, latents.height, latents.width, latents.channels);
  const auto picture = ctx.image(state.at_once * config.temporal_scale(), height, width, config.picture_channels);
  std::array<std::vector<T>, 2> buffers;  // one is filled while the sink reads the other
  Background handing;                     // ends before what it reads
  for (std::size_t index = 0; index < latents.batch;) {
    const std::size_t taken = index == 0 ? 1 : std::min(state.at_once, latents.batch - index);
    const Image<T> input = detail::frames_of(chunk, 0, taken);
    upload(ctx, detail::frames_of(latents, index, taken).elements(), input.elements());
    const std::size_t first = config.frames(index);
    const Image<T> decoded = detail::frames_of(picture, 0, config.frames(index + taken) - first);
    call(ctx, decoder, state, input, decoded, stage);
    std::swap(buffers[0], buffers[1]);
    buffers[0].resize(decoded.size());
    download(ctx, decoded.elements(), std::span(buffers[0]));
    const Image<const T> frames{buffers[0].data(), decoded.batch, height, width, config.picture_channels};
    handing.run([&sink, first, frames] { sink(first, frames); });
    index += taken;
    progress(index);
  }
  handing.finish();
}

/// The same in overlapping tiles, each of them through all frames, blended as the reference does. The device holds what
/// one tile needs; the host holds the whole video and two rows of tiles. Calls `progress(done, of)` first with nothing
/// done, then after each chunk of a tile, and then after each call of `sink`, which gets one latent frame's frames.
template <class Context, class Sink, class Progress>
void decode_tiled(Context& ctx, const WanDecoder& decoder, Image<const typename Context::element> latents, Sink sink,
                  Progress progress) {
  using T = typename Context::element;
  const WanVaeConfig& config = decoder.config;
  const std::size_t scale = config.spatial_scale(), channels = config.picture_channels;
  const TileSize& tiles = config.tiles;
  const auto latents_of = [&](std::size_t pixels) { return std::max<std::size_t>(pixels / scale, 1); };
  const std::size_t frames = config.frames(latents.batch);
  const Image<T> video{nullptr, frames, latents.height * scale, latents.width * scale, channels};
  std::vector<T> result;
  std::vector<std::vector<T>> above, row;  // decoded tiles of the previous row and of this one
  std::vector<Image<T>> above_views, row_views;
  Background blending;  // of one tile while the next one is decoded; ends before what it reads
  blending.run([&result, &video] { result.resize(video.size()); });
  const std::size_t tile_count = ceil_divide(latents.height, latents_of(tiles.stride_height)) *
                                 ceil_divide(latents.width, latents_of(tiles.stride_width));
  const std::size_t of = latents.batch * (tile_count + 1);
  std::size_t done = 0;
  progress(done, of);
  for (std::size_t y = 0, i = 0; y < latents.height; y += latents_of(tiles.stride_height), ++i) {
    row.clear();
    row_views.clear();
    for (std::size_t x = 0, j = 0; x < latents.width; x += latents_of(tiles.stride_width), ++j) {
      const std::size_t height = std::min(latents_of(tiles.height), latents.height - y);
      const std::size_t width = std::min(latents_of(tiles.width), latents.width - x);
      std::vector<T> part;
      part.reserve(latents.batch * height * width * latents.channels);
      for (std::size_t frame = 0; frame < latents.batch; ++frame)
        for (std::size_t line = 0; line < height; ++line) {
          const T* from = &latents(frame, y + line, x, 0);
          part.insert(part.end(), from, from + width * latents.channels);
        }
      std::vector<T>& tile = row.emplace_back();
      decode_whole(
          ctx, decoder, Image<const T>{part.data(), latents.batch, height, width, latents.channels}, Identity{},
          [&](std::size_t first, Image<const T> chunk) {
            if (first == 0) tile.reserve(frames * chunk.size());
            tile.insert(tile.end(), chunk.elements().begin(), chunk.elements().end());
          },
          [&](std::size_t latent_frames) { progress(done + latent_frames, of); });
      done += latents.batch;
      const Image<T> decoded{tile.data(), frames, height * scale, width * scale, channels};
      row_views.push_back(decoded);
      const Image<T> upper = i > 0 ? above_views[j] : Image<T>{}, left = j > 0 ? row_views[j - 1] : Image<T>{};
      blending.run([&result, &video, &tiles, decoded, upper, left, frames, channels, top = y * scale,
                    start = x * scale] {
        if (upper.data != nullptr) detail::blend<T>(upper, decoded, tiles.height - tiles.stride_height, true);
        if (left.data != nullptr) detail::blend<T>(left, decoded, tiles.width - tiles.stride_width, false);
        const std::size_t lines = std::min({tiles.stride_height, decoded.height, video.height - top});
        const std::size_t columns = std::min({tiles.stride_width, decoded.width, video.width - start});
        for (std::size_t frame = 0; frame < frames; ++frame)
          for (std::size_t line = 0; line < lines; ++line) {
            const T* from = &decoded(frame, line, 0, 0);
            T* to = result.data() + ((frame * video.height + top + line) * video.width + start) * channels;
            std::transform(from, from + columns * channels, to,
                           [](T value) { return static_cast<T>(ClampToPicture{}(static_cast<float>(value), 0, 0)); });
          }
      });
    }
    blending.finish();
    std::swap(above, row);
    std::swap(above_views, row_views);
  }
  const Image<const T> whole{result.data(), frames, video.height, video.width, channels};
  for (std::size_t index = 0, first = 0; index < latents.batch; ++index) {
    const std::size_t count = index == 0 ? 1 : config.temporal_scale();
    sink(first, detail::frames_of(whole, first, count));
    first += count;
    progress(++done, of);
  }
}

/// One video, whole or in tiles, cut to -1 to 1; see `decode_whole`. Where one tile holds all, it is decoded whole.
/// Calls `progress(done, of)` first with nothing done and then after each chunk, with the latent frames of the video,
/// or of all tiles and then of the video. @throws ShapeError where there are no latents, or of other channels, at once
template <class Context, class Sink, class Progress>
void decode(Context& ctx, const WanDecoder& decoder, Image<const typename Context::element> latents, Tiling tiling,
            Sink sink, Progress progress) {
  const WanVaeConfig& config = decoder.config;
  require(latents.size() > 0 && latents.channels == config.latent_channels,
          "Wan VAE: latents must be [frames, height, width, z_dim] with something in them");
  const bool fits = latents.height * config.spatial_scale() <= config.tiles.height &&
                    latents.width * config.spatial_scale() <= config.tiles.width;
  if (tiling == Tiling::on && !fits) return decode_tiled(ctx, decoder, latents, sink, progress);
  progress(0, latents.batch);
  decode_whole(ctx, decoder, latents, ClampToPicture{}, sink,
               [&](std::size_t latent_frames) { progress(latent_frames, latents.batch); });
}

}  // namespace ebb::examples
