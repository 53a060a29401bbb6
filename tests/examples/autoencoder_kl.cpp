#include "common/autoencoder_kl.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/golden.hpp"
#include "support/loaded.hpp"

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
