#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/t5.hpp"
#include "support/golden.hpp"
#include "support/loaded.hpp"

using namespace ebb;
using examples::ConfigFile;
using examples::T5Config;
using examples::T5EncoderModel;

namespace {

T5Config config_of(const testing::Golden& golden) {
  return T5Config::read(ConfigFile::open(golden.directory() / "text_encoder" / "config.json"));
}

/// What Wan's transformer gets: the states of each prompt's true tokens, encoded alone, then zeros.
template <Element T>
std::vector<T> states(const testing::Golden& golden, const std::string& prefix = "", LoadOptions options = {}) {
  options.compute = dtype_of<T>;
  const testing::Loaded<T5EncoderModel> model(T5EncoderModel::make(config_of(golden)),
                                              golden.directory() / "text_encoder", options);
  testing::Host<T> host;
  const auto ids = golden.ids(prefix + "umt5.ids");
  const auto lengths = golden.ids(prefix + "umt5.lengths");
  const Shape shape = golden.shape(prefix + "umt5.states");
  std::vector<T> result(shape.elements(), T(0.0f));
  for (std::size_t prompt = 0; prompt < shape[0]; ++prompt) {
    const auto tokens = static_cast<std::size_t>(lengths[prompt]);
    call(host.ctx, *model, std::span(ids).subspan(prompt * shape[1], tokens), std::size_t{1},
         Matrix<T>(result.data() + prompt * shape[1] * shape[2], tokens, shape[2]));
  }
  return result;
}

constexpr const char* pipelines[]{"two_blocks", "one_block", "three_blocks"};

}  // namespace

TEST_CASE("UMT5's states of true tokens equal those that transformers computes beside masked padding") {
  for (const char* name : pipelines) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    CHECK(testing::relative_error(states<float>(golden), golden.floats("umt5.states")) < 1e-5);
    CHECK(testing::relative_error(states<bfloat16>(golden), golden.floats("bf16.umt5.states")) < 2e-2);
    if (golden.has("negative.umt5.ids"))
      CHECK(testing::relative_error(states<float>(golden, "negative."), golden.floats("negative.umt5.states")) < 1e-5);
  }
}

TEST_CASE("quantized UMT5 equals transformers on bitsandbytes' dequantized weights; wo stays as it is") {
  const testing::Golden golden("three_blocks", "wan");
  CHECK(testing::relative_error(states<float>(golden, "", testing::quantized(FormatChoice::Kind::nf4)),
                                golden.floats("nf4.umt5.states")) < 1e-5);
}

TEST_CASE("every layer of UMT5 has its own relative bias, in T5 the first one's serves all") {
  const auto config = config_of(testing::Golden("one_block", "wan"));
  REQUIRE(config.layers == 3);
  CHECK(config.relative_bias == T5Config::RelativeBias::per_layer);
  for (const auto& block : T5EncoderModel::make(config).blocks) CHECK(block.relative);
  auto shared = config;
  shared.relative_bias = T5Config::RelativeBias::shared;
  std::size_t biases = 0;
  for (const auto& block : T5EncoderModel::make(shared).blocks) biases += block.relative ? 1 : 0;
  CHECK(biases == 1);
}

TEST_CASE("an encoder of another kind is refused by its model_type") {
  const auto path = std::filesystem::temp_directory_path() / ("ebb-umt5-" + std::to_string(getpid()) + ".json");
  std::ofstream(path) << R"({"model_type": "mt5", "feed_forward_proj": "gated-gelu", "vocab_size": 8, "d_model": 8,
                             "num_layers": 1, "num_heads": 1, "d_kv": 8, "d_ff": 8})";
  CHECK_THROWS_WITH_AS(T5Config::read(ConfigFile::open(path)), doctest::Contains("\"model_type\""), ConfigError);
  std::filesystem::remove(path);
}
