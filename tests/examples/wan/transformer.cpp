#include "wan/transformer.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "common/items.hpp"
#include "support/golden.hpp"
#include "support/loaded.hpp"
#include "support/temporary_directory.hpp"
#include "wan/latents.hpp"

using namespace ebb;
using examples::ConfigFile;

namespace {

const char* const pipelines[] = {"two_blocks", "one_block", "three_blocks"};

/// A transformer and the golden's inputs to one forward of it. `prefix` names whose text states are read ("", "bf16.").
template <Element T>
struct Forward {
  testing::Loaded<wan::Transformer> model;
  testing::Host<T> host = {};
  wan::LatentShape shape = {};
  Matrix<T> latents = {}, states = {}, condition = {};
  wan::Sequence sequence = {};
  std::vector<wan::TextMemory<T>> memories = {};

  explicit Forward(const testing::Golden& golden, LoadOptions options = {}, const std::string& prefix = "")
      : model(wan::Transformer::make(wan::TransformerConfig::read(ConfigFile::open(directory(golden) / "config.json"))),
              directory(golden), computing(options)) {
    const auto& config = model->config;
    const Shape noise = golden.shape("noise"), text = golden.shape(prefix + "umt5.states");
    shape = {noise[0], noise[1], noise[2], noise[3], noise[4]};
    auto packed = host.ctx.template as<float>().matrix(shape.batch * shape.tokens(), shape.token_width());
    wan::pack_latents(golden.floats("noise"), shape, packed);
    latents = host.ctx.matrix(packed.rows, packed.columns);
    map(host.ctx, packed, Identity{}, latents);
    auto words = golden.floats(prefix + "umt5.states");
    states = host.ctx.matrix(text[0] * text[1], text[2]);
    map(host.ctx, Matrix<float>(words.data(), states.rows, states.columns), Identity{}, states);
    sequence =
        wan::Sequence::make(host.ctx, config.rotary(shape.frames, shape.rows(), shape.columns()), shape.batch, text[1]);
    for (std::size_t block = 0; block < config.blocks; ++block)
      memories.push_back({host.ctx.matrix(states.rows, config.width()), host.ctx.matrix(states.rows, config.width())});
    const auto step = golden.facts().at("forward").at("step").get<std::size_t>();
    const std::vector<float> timesteps{golden.numbers("scheduler.timesteps").at(step)};
    condition = host.ctx.matrix(1, model->condition_width());
    model->condition(host.ctx, timesteps, condition);
    model->read(host.ctx, states, all_memories());
  }

  std::span<const wan::TextMemory<T>> all_memories() const { return memories; }

  std::vector<float> velocity() {
    const auto out = host.ctx.matrix(latents.rows, latents.columns);
    call(host.ctx, *model, sequence, latents, all_memories(), condition, out);
    auto packed = floats(out);
    std::vector<float> result(shape.elements());
    wan::unpack_latents(Matrix<const float>(packed.data(), out.rows, out.columns), shape, result);
    return result;
  }
  static std::vector<float> floats(Matrix<const T> values) {
    std::vector<float> result;
    for (std::size_t row = 0; row < values.rows; ++row)
      result.insert(result.end(), values.row(row), values.row(row) + values.columns);
    return result;
  }

 private:
  static std::filesystem::path directory(const testing::Golden& golden) { return golden.directory() / "transformer"; }
  static LoadOptions computing(LoadOptions options) {
    options.compute = dtype_of<T>;
    return options;
  }
};

}  // namespace

TEST_CASE("one forward of Wan equals diffusers'") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    CHECK(testing::relative_error(Forward<float>(golden).velocity(), golden.floats("forward.velocity")) < 1e-5);
    CHECK(testing::relative_error(Forward<bfloat16>(golden, {}, "bf16.").velocity(),
                                  golden.floats("bf16.forward.velocity")) < 2e-2);
  }
}

TEST_CASE("what one forward of Wan computes on its way equals diffusers'") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    Forward<float> forward(golden);
    auto& ctx = forward.host.ctx;
    const wan::Transformer& model = *forward.model;
    const std::size_t width = model.config.width(), items = forward.shape.batch;
    const auto equals = [&](const char* key, const std::vector<float>& found) {
      CAPTURE(key);
      CHECK(testing::relative_error(found, golden.floats(key)) < 1e-5);
    };
    const auto of_timestep = [&](const char* key, std::size_t first, std::size_t columns) {
      const auto row = forward.floats(forward.condition.columns_from(first, columns));
      equals(key, examples::repeat_items(row, 1, items));
    };
    of_timestep("forward.timestep_projection", 0, 6 * width);
    of_timestep("forward.temb", 6 * width, width);
    of_timestep("forward.temb", 7 * width, width);

    const auto text = ctx.matrix(forward.states.rows, width);
    call(ctx, model.conditioning.text_embedder, forward.states, text);
    const std::size_t tokens = golden.shape("forward.text")[1];  // the first of each prompt
    std::vector<float> first_tokens;
    for (std::size_t item = 0; item < items; ++item) {
      const auto some = forward.floats(text.rows_from(item * forward.sequence.text_tokens, tokens));
      first_tokens.insert(first_tokens.end(), some.begin(), some.end());
    }
    equals("forward.text", first_tokens);

    const auto x = ctx.matrix(forward.latents.rows, width);
    call(ctx, model.patch_embedding, forward.latents, x);
    equals("forward.patches", forward.floats(x));
    for (std::size_t block = 0; block < model.config.blocks; ++block) {
      call(ctx, model.blocks[block], model.config, forward.sequence, forward.condition.columns_from(0, 6 * width),
           forward.memories[block], x);
      equals(concat("forward.block_", block).c_str(), forward.floats(x));
    }
  }
}

TEST_CASE("one forward of Wan in 4 bits equals diffusers on bitsandbytes' dequantized weights") {
  const testing::Golden golden("three_blocks", "wan");
  CHECK(testing::relative_error(Forward<float>(golden, testing::quantized(FormatChoice::Kind::nf4)).velocity(),
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
    const testing::TemporaryDirectory directory;
    nlohmann::json config = nlohmann::json::parse(
        std::ifstream(std::filesystem::path(EBB_GOLDEN_DIR) / "wan/two_blocks/transformer/config.json"));
    config.merge_patch(change);
    return wan::TransformerConfig::read(ConfigFile::open(directory.write("config.json", config.dump())));
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
