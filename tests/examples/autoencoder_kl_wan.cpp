#include "common/autoencoder_kl_wan.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <span>
#include <utility>
#include <vector>

#include "common/wan_decoding.hpp"
#include "support/golden.hpp"
#include "support/loaded.hpp"
#include "support/random.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;
using examples::ConfigFile;
using examples::Tiling;
using examples::WanDecoder;
using examples::WanVaeConfig;

namespace {

const char* const pipelines[] = {"two_blocks", "one_block", "three_blocks"};

/// [channels, frames, height, width] -> [frames, height, width, channels], of one item.
std::vector<float> channels_last(std::span<const float> values, const Shape& shape) {
  std::vector<float> result(values.size());
  const std::size_t channels = shape[1], pixels = shape[2] * shape[3] * shape[4];
  for (std::size_t c = 0; c < channels; ++c)
    for (std::size_t pixel = 0; pixel < pixels; ++pixel) result[pixel * channels + c] = values[c * pixels + pixel];
  return result;
}

struct Decoded {
  std::vector<float> frames;
  std::vector<std::size_t> firsts;
  std::vector<std::pair<std::size_t, std::size_t>> progress;
  std::size_t peak_bytes = 0;
};

template <Element T>
Decoded decoded(const testing::Loaded<WanDecoder>& vae, const std::vector<float>& latents, const Shape& shape,
                Tiling tiling) {
  testing::Host<T> host;
  std::vector<T> rounded(latents.begin(), latents.end());
  Decoded result;
  examples::decode(
      host.ctx, *vae, Image<const T>{rounded.data(), shape[2], shape[3], shape[4], shape[1]}, tiling,
      [&](std::size_t first, Image<const T> frames) {
        result.firsts.push_back(first);
        result.frames.insert(result.frames.end(), frames.elements().begin(), frames.elements().end());
      },
      [&](std::size_t done, std::size_t of) { result.progress.emplace_back(done, of); });
  result.peak_bytes = host.workspace.peak_bytes();
  return result;
}

/// With the golden's tiles.
WanVaeConfig config_of(const testing::Golden& golden, std::size_t pixels_at_once = 1) {
  auto config = WanVaeConfig::read(ConfigFile::open(golden.directory() / "vae" / "config.json"));
  config.pixels_at_once = pixels_at_once;
  if (const auto& tiling = golden.facts().at("tiling"); !tiling.is_null())
    config.tiles = {.height = tiling.at("tile_sample_min_height"),
                    .width = tiling.at("tile_sample_min_width"),
                    .stride_height = tiling.at("tile_sample_stride_height"),
                    .stride_width = tiling.at("tile_sample_stride_width")};
  return config;
}

testing::Loaded<WanDecoder> loaded(const testing::Golden& golden, const WanVaeConfig& config,
                                   DType compute = DType::f32) {
  LoadOptions options;
  options.compute = compute;
  return testing::Loaded<WanDecoder>(WanDecoder::make(config), golden.directory() / "vae", options);
}
testing::Loaded<WanDecoder> loaded(const testing::Golden& golden, DType compute = DType::f32) {
  return loaded(golden, config_of(golden), compute);
}

/// Chunks of a video of these extents, in latents.
std::size_t chunks(const WanVaeConfig& config, std::size_t frames, std::size_t height, std::size_t width) {
  const std::size_t scale = config.spatial_scale();
  return 1 + ceil_divide(frames - 1, config.frames_at_once(height * scale * width * scale));
}

}  // namespace

TEST_CASE("a video decoded latent frame by latent frame equals diffusers") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    const auto vae = loaded(golden);
    const auto half = loaded(golden, DType::bf16);
    const Shape shape = golden.shape("decode.latents"), out = golden.shape("decode.plain");
    const auto latents = golden.floats("decode.latents"), plain = golden.floats("decode.plain");
    for (std::size_t item = 0; item < shape[0]; ++item) {
      const std::size_t size = latents.size() / shape[0], pixels = plain.size() / shape[0];
      const auto input = channels_last(std::span(latents).subspan(item * size, size), shape);
      const auto expected = channels_last(std::span(plain).subspan(item * pixels, pixels), out);
      const auto found = decoded<float>(vae, input, shape, Tiling::off);
      CHECK(testing::relative_error(found.frames, expected) < 1e-5);
      CHECK(found.firsts.size() == shape[2]);
      CHECK(found.firsts.back() + (shape[2] == 1 ? 1 : vae->config.temporal_scale()) == out[2]);
      // Some twenty convolutions in a row, each rounded to 8 bits.
      CHECK(testing::relative_error(decoded<bfloat16>(half, input, shape, Tiling::off).frames, expected) < 5e-2);
    }
  }
}

TEST_CASE("several latent frames at once give what one by one gives, whole and in tiles") {
  constexpr std::size_t frames = 6;
  // In latents; the last tile of a row or a column is smaller.
  constexpr std::size_t tile = 3, tile_rows = 2, tile_columns = 2;
  struct Size {
    std::size_t height, width;
  };
  for (const char* name : pipelines)
    for (const auto& [height, width] : {Size{2, 4}, Size{3, 5}}) {
      CAPTURE(name);
      CAPTURE(height);
      const testing::Golden golden(name, "wan");
      auto config = config_of(golden);
      const std::size_t scale = config.spatial_scale();
      config.tiles = {tile * scale, tile * scale, tile_rows * scale, tile_columns * scale};
      const Shape shape{1, config.latent_channels, frames, height, width};
      const auto latents = testing::Random(1).normal<float>(shape.elements());
      for (const Tiling tiling : {Tiling::off, Tiling::on}) {
        const bool tiled = tiling == Tiling::on;
        CAPTURE(tiled);
        const std::size_t pixels = scale * scale * (tiled ? tile * tile : height * width);
        std::vector<float> one_by_one;
        for (const std::size_t at_once : {1, 2, 3, 4, 100}) {
          CAPTURE(at_once);
          config.pixels_at_once = at_once * pixels;
          const auto found = decoded<float>(loaded(golden, config), latents, shape, tiling);
          if (at_once == 1) one_by_one = found.frames;
          CHECK(found.frames.size() == config.frames(frames) * height * width * scale * scale * 3);
          // Not bit for bit: the host multiplies the last few of a convolution's pixels in another order, and with
          // other frames beside them these are other pixels.
          CHECK(testing::relative_error(found.frames, one_by_one) < 5e-6);
          std::vector<std::size_t> firsts;
          std::size_t calls = 0, of = frames;
          if (tiled) {
            for (std::size_t frame = 0; frame < frames; ++frame) firsts.push_back(config.frames(frame));
            for (std::size_t y = 0; y < height; y += tile_rows)
              for (std::size_t x = 0; x < width; x += tile_columns) {
                calls += chunks(config, frames, std::min(tile, height - y), std::min(tile, width - x));
                of += frames;
              }
          } else {
            firsts.push_back(0);
            for (std::size_t frame = 1; frame < frames; frame += at_once) firsts.push_back(config.frames(frame));
            CHECK(firsts.size() == chunks(config, frames, height, width));
          }
          calls += firsts.size();
          CHECK(found.firsts == firsts);
          CHECK(found.progress.size() == 1 + calls);
          CHECK(found.progress.front() == std::pair{std::size_t{0}, of});
          CHECK(found.progress.back() == std::pair{of, of});
          CHECK(std::is_sorted(found.progress.begin(), found.progress.end()));
        }
      }
    }
}

TEST_CASE("latents without a frame or a pixel, or of other channels, are refused") {
  const testing::Golden golden("two_blocks", "wan");
  const auto vae = loaded(golden);
  for (const Tiling tiling : {Tiling::off, Tiling::on})
    for (const Shape& shape :
         {Shape{1, 16, 0, 4, 6}, Shape{1, 16, 2, 0, 6}, Shape{1, 16, 2, 4, 0}, Shape{1, 4, 2, 4, 6}})
      CHECK_THROWS_AS(decoded<float>(vae, std::vector<float>(shape.elements()), shape, tiling), ShapeError);
}

TEST_CASE("a video decoded in tiles equals diffusers") {
  for (const char* name : {"two_blocks", "one_block"})
    for (const std::size_t pixels_at_once : {1, 1 << 18}) {
      CAPTURE(name);
      const testing::Golden golden(name, "wan");
      const auto vae = loaded(golden, config_of(golden, pixels_at_once));
      const Shape shape = golden.shape("decode.latents");
      const auto input = channels_last(golden.floats("decode.latents"), shape);
      const auto expected = channels_last(golden.floats("decode.tiled"), golden.shape("decode.tiled"));
      const auto found = decoded<float>(vae, input, shape, Tiling::on);
      CHECK(testing::relative_error(found.frames, expected) < 1e-5);
      CHECK(found.progress.front().first == 0);
      CHECK(found.progress.back().first == found.progress.back().second);  // all tiles
    }
}

TEST_CASE("the decoder's memory does not grow with the number of frames") {
  const testing::Golden golden("two_blocks", "wan");
  for (const std::size_t at_once : {1, 2}) {
    const std::size_t scale = config_of(golden).spatial_scale();
    const auto vae = loaded(golden, config_of(golden, at_once * 4 * 6 * scale * scale));
    const auto peak = [&](std::size_t frames) {
      const Shape shape{1, vae->config.latent_channels, frames, 4, 6};
      return decoded<float>(vae, std::vector<float>(shape.elements(), 0.5f), shape, Tiling::off).peak_bytes;
    };
    CHECK(peak(3) == peak(6));
  }
}

TEST_CASE("a VAE of another model says which field") {
  const auto read = [](const nlohmann::json& change) {
    const testing::TemporaryDirectory directory;
    nlohmann::json config =
        nlohmann::json::parse(std::ifstream(std::filesystem::path(EBB_GOLDEN_DIR) / "wan/two_blocks/vae/config.json"));
    config.merge_patch(change);
    return WanVaeConfig::read(ConfigFile::open(directory.write("config.json", config.dump())));
  };
  CHECK_NOTHROW(read(nlohmann::json::object()));
  CHECK_THROWS_WITH_AS(read({{"is_residual", true}}), doctest::Contains("is_residual"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"patch_size", 2}}), doctest::Contains("patch_size"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"attn_scales", {1.0}}}), doctest::Contains("attn_scales"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"dim_mult", {1, 2}}}), doctest::Contains("temperal_downsample"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"latents_std", {1.0, 2.0}}}), doctest::Contains("latents_std"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"latents_mean", nullptr}}), doctest::Contains("latents_mean"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"scale_factor_temporal", 8}}), doctest::Contains("scale_factor_temporal"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"z_dim", 0}}), doctest::Contains("z_dim"), ConfigError);
}
