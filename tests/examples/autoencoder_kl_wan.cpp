#include "common/autoencoder_kl_wan.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "support/golden.hpp"
#include "support/loaded.hpp"

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

testing::Loaded<WanDecoder> loaded(const testing::Golden& golden, DType compute = DType::f32,
                                   std::size_t pixels_at_once = 1) {
  const auto directory = golden.directory() / "vae";
  auto config = WanVaeConfig::read(ConfigFile::open(directory / "config.json"));
  config.pixels_at_once = pixels_at_once;
  if (const auto& tiling = golden.facts().at("tiling"); !tiling.is_null()) {
    config.tiles = {.height = tiling.at("tile_sample_min_height"),
                    .width = tiling.at("tile_sample_min_width"),
                    .stride_height = tiling.at("tile_sample_stride_height"),
                    .stride_width = tiling.at("tile_sample_stride_width")};
  }
  LoadOptions options;
  options.compute = compute;
  return testing::Loaded<WanDecoder>(WanDecoder::make(config), directory, options);
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

TEST_CASE("several latent frames at once give what one by one gives") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    const Shape shape = golden.shape("decode.latents"), out = golden.shape("decode.plain");
    if (shape[2] < 3) continue;
    const auto latents = golden.floats("decode.latents"), plain = golden.floats("decode.plain");
    const auto input = channels_last(std::span(latents).first(latents.size() / shape[0]), shape);
    const auto expected = channels_last(std::span(plain).first(plain.size() / shape[0]), out);
    for (const std::size_t at_once : {2, 3, 100}) {
      CAPTURE(at_once);
      const auto vae = loaded(golden, DType::f32, at_once * out[3] * out[4]);
      const auto found = decoded<float>(vae, input, shape, Tiling::off);
      CHECK(testing::relative_error(found.frames, expected) < 1e-5);
      CHECK(found.firsts.size() == 1 + ceil_divide(shape[2] - 1, at_once));
      CHECK(found.progress.size() == 1 + found.firsts.size());
      CHECK(found.progress.front() == std::pair{std::size_t{0}, shape[2]});
      CHECK(found.progress.back() == std::pair{shape[2], shape[2]});
    }
  }
}

TEST_CASE("a video decoded in tiles equals diffusers") {
  for (const char* name : {"two_blocks", "one_block"})
    for (const std::size_t pixels_at_once : {1, 1 << 18}) {
      CAPTURE(name);
      const testing::Golden golden(name, "wan");
      const auto vae = loaded(golden, DType::f32, pixels_at_once);
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
    const std::size_t scale = loaded(golden)->config.spatial_scale();
    const auto vae = loaded(golden, DType::f32, at_once * 4 * 6 * scale * scale);
    const auto peak = [&](std::size_t frames) {
      const Shape shape{1, vae->config.latent_channels, frames, 4, 6};
      return decoded<float>(vae, std::vector<float>(shape.elements(), 0.5f), shape, Tiling::off).peak_bytes;
    };
    CHECK(peak(3) == peak(6));
  }
}

TEST_CASE("a VAE of another model says which field") {
  const auto read = [](const nlohmann::json& change) {
    const auto path = std::filesystem::temp_directory_path() / "ebb-wan-vae-config.json";
    nlohmann::json config =
        nlohmann::json::parse(std::ifstream(std::filesystem::path(EBB_GOLDEN_DIR) / "wan/two_blocks/vae/config.json"));
    config.merge_patch(change);
    std::ofstream(path) << config;
    const auto file = ConfigFile::open(path);
    std::filesystem::remove(path);
    return WanVaeConfig::read(file);
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
