#include "ebb/io/quantization_plan.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

using ebb::FormatChoice;
using ebb::QuantizationPlan;

TEST_CASE("one format for all components, or one each") {
  const auto all = QuantizationPlan::parse("nf4", {}, {});
  CHECK(all.format_of("transformer").kind == FormatChoice::Kind::nf4);
  CHECK(all.format_of("vae").kind == FormatChoice::Kind::nf4);
  FormatChoice options;
  options.block.block_size = 128;
  const auto some = QuantizationPlan::parse("transformer=nf4,text_encoder_2=int8", options, {});
  CHECK(some.format_of("transformer").kind == FormatChoice::Kind::nf4);
  CHECK(some.format_of("transformer").block.block_size == 128);
  CHECK(some.format_of("text_encoder_2").kind == FormatChoice::Kind::int8);
  CHECK(some.format_of("vae").kind == FormatChoice::Kind::dense);
  CHECK(QuantizationPlan{}.format_of("transformer").kind == FormatChoice::Kind::dense);
}

TEST_CASE("what cannot be parsed says what exists") {
  CHECK_THROWS_WITH_AS(QuantizationPlan::parse("nf5", {}, {}), doctest::Contains("none, nf4, fp4, int8, fp8"),
                       ebb::ConfigError);
  CHECK_THROWS_WITH_AS(QuantizationPlan::parse("a=nf4,a=fp4", {}, {}), doctest::Contains("'a'"), ebb::ConfigError);
  CHECK_THROWS_AS(QuantizationPlan::parse("a=nf4,fp4", {}, {}), ebb::ConfigError);
  CHECK_THROWS_AS(QuantizationPlan::parse("=nf4", {}, {}), ebb::ConfigError);
  CHECK_THROWS_AS(QuantizationPlan::parse("a=", {}, {}), ebb::ConfigError);
  const std::array<std::string, 2> existing{"transformer", "vae"};
  CHECK_THROWS_WITH_AS(QuantizationPlan::parse("unet=nf4", {}, {}).check_components(existing),
                       doctest::Contains("transformer, vae"), ebb::ConfigError);
  CHECK_NOTHROW(QuantizationPlan::parse("vae=nf4", {}, {}).check_components(existing));
}

TEST_CASE("modules are skipped by diffusers' rule") {
  const auto skipped = [](const char* path, std::vector<std::string> names) { return ebb::is_skipped(path, names); };
  CHECK(skipped("transformer_blocks.0.attn.to_q", {"to_q"}));  // last part
  CHECK(!skipped("transformer_blocks.0.attn.to_q", {"to"}));   // not a part
  CHECK(skipped("transformer_blocks.0.attn.to_q", {"attn"}));  // a part before the last
  CHECK(skipped("transformer_blocks.0.attn.to_q", {"transformer_blocks.0"}));
  CHECK(!skipped("transformer_blocks.0.attn.to_q", {"transformer_blocks.1"}));
  CHECK(skipped("single_transformer_blocks.0.proj", {"transformer_blocks.0"}));  // the reference's substring rule
  CHECK(skipped("proj_out", {"proj_out"}));
  CHECK(skipped("attn.to_out.0", {"0"}));
  CHECK(!skipped("proj_out", {}));
  CHECK(!skipped("transformer_blocks.0.attn.to_q", {""}));
}

TEST_CASE("kept modules match any part of the path") {
  const std::array<std::string, 1> kept{"wo"};
  CHECK(ebb::has_path_part("encoder.block.0.layer.1.DenseReluDense.wo.weight", kept));
  CHECK(!ebb::has_path_part("encoder.block.0.layer.1.DenseReluDense.wo_1.weight", kept));
}
