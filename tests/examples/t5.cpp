#include "common/t5.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/golden.hpp"
#include "support/loaded.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;
using examples::ConfigFile;
using examples::T5Config;
using examples::T5EncoderModel;

namespace {

template <Element T>
std::vector<T> states(const testing::Golden& golden, const std::string& ids_key, LoadOptions options = {}) {
  const auto directory = golden.directory() / "text_encoder_2";
  options.compute = dtype_of<T>;
  const testing::Loaded<T5EncoderModel> model(
      T5EncoderModel::make(T5Config::read(ConfigFile::open(directory / "config.json"))), directory, options);
  testing::Host<T> host;
  const auto ids = golden.ids(ids_key);
  const Shape shape = golden.shape("t5.last_hidden_state");
  std::vector<T> result(shape.elements());
  call(host.ctx, *model, std::span<const std::int32_t>(ids), shape[0],
       Matrix<T>(result.data(), shape[0] * shape[1], shape[2]));
  return result;
}

}  // namespace

TEST_CASE("T5's states equal transformers'") {
  for (const char* name : {"dev", "schnell", "three_heads", "wide"}) {
    CAPTURE(name);
    const testing::Golden golden(name);
    CHECK(testing::relative_error(states<float>(golden, "t5.ids"), golden.floats("t5.last_hidden_state")) < 1e-5);
    CHECK(testing::relative_error(states<bfloat16>(golden, "t5.ids"), golden.floats("bf16.t5.last_hidden_state")) <
          2e-2);
    if (golden.has("negative.t5.ids"))
      CHECK(testing::relative_error(states<float>(golden, "negative.t5.ids"),
                                    golden.floats("negative.t5.last_hidden_state")) < 1e-5);
  }
}

TEST_CASE("quantized T5 equals transformers on bitsandbytes' dequantized weights; wo stays as it is") {
  using Kind = FormatChoice::Kind;
  for (const char* name : {"dev", "schnell", "three_heads", "wide"}) {
    CAPTURE(name);
    const testing::Golden golden(name);
    CHECK(testing::relative_error(states<float>(golden, "t5.ids", testing::quantized(Kind::nf4)),
                                  golden.floats("nf4.t5.last_hidden_state")) < 1e-5);
  }
  const testing::Golden golden("dev");
  CHECK(testing::relative_error(
            states<float>(golden, "t5.ids", testing::quantized(Kind::nf4, {.nested = DoubleQuantization::on})),
            golden.floats("nf4_dq.t5.last_hidden_state")) < 1e-5);
  CHECK(testing::relative_error(states<float>(golden, "t5.ids", testing::quantized(Kind::nf4, {.block_size = 128})),
                                golden.floats("nf4_bs128.t5.last_hidden_state")) < 1e-5);
  CHECK(testing::relative_error(states<float>(golden, "t5.ids", testing::quantized(Kind::fp4)),
                                golden.floats("fp4.t5.last_hidden_state")) < 1e-5);
}

TEST_CASE("relative positions fall into T5's buckets") {
  using examples::relative_position_bucket;
  CHECK(relative_position_bucket(0, 32, 128) == 0);
  CHECK(relative_position_bucket(-7, 32, 128) == 7);
  CHECK(relative_position_bucket(7, 32, 128) == 23);
  CHECK(relative_position_bucket(-8, 32, 128) == 8);
  CHECK(relative_position_bucket(-127, 32, 128) == 15);
  CHECK(relative_position_bucket(100000, 32, 128) == 31);
}

TEST_CASE("a farthest distance within the exact buckets is refused: the logarithm between them has no base") {
  const testing::TemporaryDirectory directory;
  const auto read = [&](std::size_t buckets, std::size_t distance) {
    return examples::T5Config::read(examples::ConfigFile::open(directory.write(
        "config.json",
        concat("{\"vocab_size\": 8, \"d_model\": 8, \"num_layers\": 1, \"num_heads\": 1, \"d_kv\": 8, \"d_ff\": 8, ",
               "\"relative_attention_num_buckets\": ", buckets, ", \"relative_attention_max_distance\": ", distance,
               "}"))));
  };
  for (const std::size_t distance : {4, 15, 16})
    CHECK_THROWS_WITH_AS(read(64, distance), doctest::Contains("relative_attention_max_distance"), ConfigError);
  CHECK(read(64, 17).maximum_distance == 17);
  CHECK(read(4, 4).maximum_distance == 4);
}
