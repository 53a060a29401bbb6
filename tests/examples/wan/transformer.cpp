#include "wan/transformer.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <string>
#include <vector>

#include "support/golden.hpp"
#include "support/loaded.hpp"
#include "wan/latents.hpp"

using namespace ebb;
using examples::ConfigFile;

namespace {

const char* const pipelines[] = {"two_blocks", "one_block", "three_blocks"};

/// One forward on the golden's inputs. `prefix` names whose text states are read ("", "bf16.").
template <Element T>
std::vector<float> velocity(const testing::Golden& golden, LoadOptions options = {}, const std::string& prefix = "") {
  const auto directory = golden.directory() / "transformer";
  options.compute = dtype_of<T>;
  const testing::Loaded<wan::Transformer> model(
      wan::Transformer::make(wan::TransformerConfig::read(ConfigFile::open(directory / "config.json"))), directory,
      options);
  testing::Host<T> host;
  const auto& config = model->config;
  const Shape noise = golden.shape("noise");
  const wan::LatentShape shape{noise[0], noise[1], noise[2], noise[3], noise[4]};
  const std::size_t rows = shape.batch * shape.tokens();
  std::vector<float> packed(noise.elements());
  wan::pack_latents(golden.floats("noise"), shape, Matrix<float>(packed.data(), rows, shape.token_width()));
  const auto latents = host.ctx.matrix(rows, shape.token_width());
  map(host.ctx, Matrix<float>(packed.data(), rows, shape.token_width()), Identity{}, latents);
  auto words = golden.floats(prefix + "umt5.states");
  const Shape text = golden.shape(prefix + "umt5.states");
  const auto states = host.ctx.matrix(text[0] * text[1], text[2]);
  map(host.ctx, Matrix<float>(words.data(), states.rows, states.columns), Identity{}, states);

  const auto sequence =
      wan::Sequence::make(host.ctx, config.rotary(shape.frames, shape.rows(), shape.columns()), shape.batch, text[1]);
  std::vector<wan::TextMemory<T>> memories;
  for (std::size_t block = 0; block < config.blocks; ++block)
    memories.push_back({host.ctx.matrix(states.rows, config.width()), host.ctx.matrix(states.rows, config.width())});
  const std::span<const wan::TextMemory<T>> all(memories);
  model->read(host.ctx, states, all);
  const auto step = golden.facts().at("forward").at("step").get<std::size_t>();
  const std::vector<float> timesteps{golden.numbers("scheduler.timesteps").at(step)};
  const auto condition = host.ctx.matrix(1, model->condition_width());
  model->condition(host.ctx, timesteps, condition);
  const auto out = host.ctx.matrix(rows, shape.token_width());
  call(host.ctx, *model, sequence, latents, all, condition, out);
  map(host.ctx, out, Identity{}, Matrix<float>(packed.data(), rows, shape.token_width()));
  std::vector<float> result(noise.elements());
  wan::unpack_latents(Matrix<const float>(packed.data(), rows, shape.token_width()), shape, result);
  return result;
}

}  // namespace

TEST_CASE("one forward of Wan equals diffusers'") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    CHECK(testing::relative_error(velocity<float>(golden), golden.floats("forward.velocity")) < 1e-5);
    CHECK(testing::relative_error(velocity<bfloat16>(golden, {}, "bf16."), golden.floats("bf16.forward.velocity")) <
          2e-2);
  }
}

TEST_CASE("one forward of Wan in 4 bits equals diffusers on bitsandbytes' dequantized weights") {
  const testing::Golden golden("three_blocks", "wan");
  CHECK(testing::relative_error(velocity<float>(golden, testing::quantized(FormatChoice::Kind::nf4)),
                                golden.floats("nf4.forward.velocity")) < 1e-5);
}

TEST_CASE("Wan's latents become tokens and latents again") {
  const wan::LatentShape shape{2, 3, 2, 4, 6};
  std::vector<float> latents(shape.elements()), tokens(latents.size()), back(latents.size());
  for (std::size_t i = 0; i < latents.size(); ++i) latents[i] = static_cast<float>(i);
  const Matrix<float> packed(tokens.data(), shape.batch * shape.tokens(), shape.token_width());
  wan::pack_latents(latents, shape, packed);
  // item 1, frame 1, row 3, column 2, channel 2: token (1, 1, 1, 1), corner (1, 0)
  CHECK(packed(((1 * 2 + 1) * 2 + 1) * 3 + 1, (1 * 2 + 0) * 3 + 2) == latents[(((1 * 3 + 2) * 2 + 1) * 4 + 3) * 6 + 2]);
  wan::unpack_latents(packed, shape, back);
  CHECK(back == latents);
  CHECK_THROWS_AS(wan::pack_latents(std::span(latents).first(5), shape, packed), ShapeError);
}

TEST_CASE("a configuration of another transformer than Wan's says which field") {
  const auto read = [](const nlohmann::json& change) {
    const auto path = std::filesystem::temp_directory_path() / "ebb-wan-transformer-config.json";
    nlohmann::json config = nlohmann::json::parse(
        std::ifstream(std::filesystem::path(EBB_GOLDEN_DIR) / "wan/two_blocks/transformer/config.json"));
    config.merge_patch(change);
    std::ofstream(path) << config;
    const auto file = ConfigFile::open(path);
    std::filesystem::remove(path);
    return wan::TransformerConfig::read(file);
  };
  CHECK_NOTHROW(read(nlohmann::json::object()));
  CHECK_NOTHROW(read({{"out_channels", nullptr}}));
  CHECK_THROWS_WITH_AS(read({{"image_dim", 1280}}), doctest::Contains("image-to-video"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"added_kv_proj_dim", 5120}}), doctest::Contains("added_kv_proj_dim"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"patch_size", {1, 1, 1}}}), doctest::Contains("patch_size"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"qk_norm", "layer_norm"}}), doctest::Contains("qk_norm"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"out_channels", 3}}), doctest::Contains("out_channels"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"attention_head_dim", 13}}), doctest::Contains("attention_head_dim"), ConfigError);
  CHECK_THROWS_WITH_AS(read({{"num_layers", 0}}), doctest::Contains("num_layers"), ConfigError);
}
