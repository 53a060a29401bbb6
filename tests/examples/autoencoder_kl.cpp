#include "common/autoencoder_kl.hpp"

#include <doctest/doctest.h>

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/golden.hpp"
#include "support/loaded.hpp"
#include "support/random.hpp"
#include "support/stored_weight.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;
using examples::AutoencoderConfig;
using examples::AutoencoderDecoder;
using examples::ConfigFile;
using examples::Slicing;
using examples::Tiling;

namespace {

/// [n, c, h, w] -> [n, h, w, c]
std::vector<float> channels_last(const std::vector<float>& values, const Shape& shape) {
  std::vector<float> result(values.size());
  for (std::size_t n = 0; n < shape[0]; ++n)
    for (std::size_t c = 0; c < shape[1]; ++c)
      for (std::size_t pixel = 0; pixel < shape[2] * shape[3]; ++pixel)
        result[(n * shape[2] * shape[3] + pixel) * shape[1] + c] =
            values[(n * shape[1] + c) * shape[2] * shape[3] + pixel];
  return result;
}

std::vector<float> decoded(const testing::Golden& golden, Slicing slicing, Tiling tiling) {
  const auto directory = golden.directory() / "vae";
  const testing::Loaded<AutoencoderDecoder> model(
      AutoencoderDecoder::make(AutoencoderConfig::read(ConfigFile::open(directory / "config.json"))), directory);
  testing::Host<float> host;
  const Shape in = golden.shape("decode.latents");
  const Shape out = golden.shape("decode.plain");
  const auto latents = channels_last(golden.floats("decode.latents"), in);
  std::vector<float> picture(out.elements());
  decode(host.ctx, *model, Image<const float>{latents.data(), in[0], in[2], in[3], in[1]}, slicing, tiling,
         Image<float>{picture.data(), out[0], out[2], out[3], out[1]});
  return picture;
}

}  // namespace

TEST_CASE("the decoder equals diffusers'") {
  for (const char* name : {"dev", "schnell", "three_heads", "wide"}) {
    CAPTURE(name);
    const testing::Golden golden(name);
    const Shape out = golden.shape("decode.plain");
    const auto expected = channels_last(golden.floats("decode.plain"), out);
    const auto plain = decoded(golden, Slicing::off, Tiling::off);
    CHECK(testing::relative_error(plain, expected) < 1e-5);
    // Rounding only: how pixels are grouped into tiles of a product depends on the batch.
    CHECK(testing::relative_error(decoded(golden, Slicing::on, Tiling::off), plain) < 1e-6);
    if (golden.has("decode.tiled")) {
      const auto tiled = decoded(golden, Slicing::off, Tiling::on);
      CHECK(testing::relative_error(tiled, channels_last(golden.floats("decode.tiled"), out)) < 1e-5);
      CHECK(testing::relative_error(tiled, expected) > 1e-4);  // tiling was really on
    }
  }
}

TEST_CASE("latents may be wider than every other activation") {
  AutoencoderConfig config{.channels = {4},
                           .layers_per_block = 1,
                           .groups = 2,
                           .latent_channels = 16,
                           .picture_channels = 3,
                           .sample_size = 32,
                           .scaling = 1.0f,
                           .shift = 0.0f,
                           .post_quant_conv = true,
                           .mid_attention = true};
  auto with_identity = AutoencoderDecoder::make(config);
  config.post_quant_conv = false;
  auto without = AutoencoderDecoder::make(config);

  testing::TensorSet weights;
  testing::Random random(1);
  for_each_parameter(without, [&](const std::string& name, auto& parameter, auto&) {
    const Shape& shape = parameter.shape();  // of convolutions: channels last, in files they come first
    const auto values = random.normal(shape.elements());
    weights.put(name, DType::f32, shape.rank() == 4 ? Shape{shape[0], shape[3], shape[1], shape[2]} : shape,
                std::as_bytes(std::span(values)));
  });
  const testing::TemporaryDirectory directory;
  const auto path = directory / "diffusion_pytorch_model.safetensors";
  weights.save(path);
  const auto latents = random.normal(2 * 9 * 11 * 16);
  const auto decoded_by = [&](AutoencoderDecoder model) {
    const testing::Loaded<AutoencoderDecoder> loaded(std::move(model), directory.path());
    testing::Host<float> host;
    std::vector<float> picture(2 * 9 * 11 * 3);
    decode(host.ctx, *loaded, Image<const float>{latents.data(), 2, 9, 11, 16}, Slicing::off, Tiling::off,
           Image<float>{picture.data(), 2, 9, 11, 3});
    return picture;
  };
  const auto expected = decoded_by(std::move(without));

  std::vector<float> identity(16 * 16, 0.0f);
  for (std::size_t channel = 0; channel < 16; ++channel) identity[channel * 17] = 1.0f;
  weights.put("post_quant_conv.weight", DType::f32, {16, 16, 1, 1}, std::as_bytes(std::span(identity)));
  weights.put("post_quant_conv.bias", DType::f32, {16}, std::as_bytes(std::span(identity).subspan(1, 16)));
  weights.save(path);
  CHECK(testing::relative_error(decoded_by(std::move(with_identity)), expected) < 1e-6);
}
