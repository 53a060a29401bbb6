#include "ebb/io/stored_quantization.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "support/temporary_directory.hpp"

using ebb::ConfigError;
using ebb::DType;
using ebb::Json;
using ebb::JsonParser;
using ebb::StoredQuantization;
using Kind = ebb::FormatChoice::Kind;
using ebb::testing::first_missing;
using ebb::testing::message_of;

namespace {

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(EBB_GOLDEN_DIR) / "checkpoints" / name / "config.json";
}

}  // namespace

TEST_CASE("StoredQuantization: what diffusers and transformers write is read") {
  const auto plain = StoredQuantization::from_file(golden("transformer_nf4")).value();
  CHECK(plain == StoredQuantization{});
  const auto nested = StoredQuantization::from_file(golden("text_encoder_2_nf4_dq")).value();
  CHECK(nested.kind == Kind::nf4);
  CHECK(nested.nested == ebb::DoubleQuantization::on);
  CHECK(nested.compute == DType::bf16);
  CHECK(StoredQuantization::from_file(golden("transformer_fp4_bs128"))->kind == Kind::fp4);
  CHECK(StoredQuantization::from_file(golden("transformer_int8"))->kind == Kind::int8);
  CHECK(StoredQuantization::from_file(golden("transformer_nf4_storage_bf16"))->skip ==
        std::vector<std::string>{"time_text_embed"});
  CHECK_FALSE(
      StoredQuantization::from_file(std::filesystem::path(EBB_GOLDEN_DIR) / "pipelines/dev/transformer/config.json"));
}

TEST_CASE("StoredQuantization: what diffusers and transformers write is what we write") {
  for (const char* name : {"transformer_nf4", "transformer_nf4_dq", "transformer_fp4_bs128", "transformer_int8",
                           "text_encoder_2_nf4_dq"}) {
    CAPTURE(name);
    const Json config = JsonParser::parse_file(golden(name));
    const Json& stored = *config.find("quantization_config");
    CHECK(StoredQuantization::from_config(config, name)->to_json().text(2) == stored.text(2));
  }
  const Json config = JsonParser::parse_file(golden("transformer_nf4_storage_bf16"));
  const StoredQuantization read = StoredQuantization::from_config(config, "config").value();
  Json::Object again;
  again.emplace_back("quantization_config", read.to_json());
  CHECK(StoredQuantization::from_config(Json(again), "config") == read);
  StoredQuantization fp8;
  fp8.kind = Kind::fp8;
  CHECK(first_missing(message_of<ConfigError>([&] { fp8.to_json(); }), {"nf4, fp4 or int8", "found fp8"}) == "");
}

TEST_CASE("StoredQuantization: older files name fewer fields") {
  const auto read = [](const std::string& text) {
    return StoredQuantization::from_config(JsonParser::parse(text, "config"), "config").value();
  };
  const auto old = read(R"({"quantization_config": {"quant_method": "bitsandbytes", "_load_in_4bit": true}})");
  CHECK(old.kind == Kind::fp4);  // bitsandbytes' default
  CHECK(old.compute == DType::f32);
  CHECK(old.outlier_threshold == 6.0f);
  const auto odd = read(
      R"({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": true, "llm_int8_threshold": 5,
          "bnb_4bit_compute_dtype": "torch.float16", "llm_int8_skip_modules": ["a", "b"], "future": 1}})");
  CHECK(odd.outlier_threshold == 5.0f);
  CHECK(odd.compute == DType::f16);
  CHECK(odd.skip.size() == 2);
}

TEST_CASE("StoredQuantization: what cannot be loaded is refused with the file and what can") {
  const auto refused = [](const std::string& fields, const std::vector<std::string>& parts) {
    CAPTURE(fields);
    auto expected = parts;
    expected.push_back("some/config.json: quantization_config");
    const Json config = JsonParser::parse("{\"quantization_config\": " + fields + "}", "config");
    CHECK(first_missing(message_of<ConfigError>([&] { StoredQuantization::from_config(config, "some/config.json"); }),
                        expected) == "");
  };
  const auto fields = [](const std::string& more) { return R"({"quant_method": "bitsandbytes", )" + more + "}"; };
  refused("1", {"an object", "an integer"});
  refused(R"({"quant_method": "torchao"})", {"\"torchao\"", "not supported", "bitsandbytes", "nf4", "LLM.int8"});
  refused("{}", {"\"none\"", "bitsandbytes"});
  refused(R"({"quant_method": 7})", {"quant_method", "a string"});
  refused(R"({"quant_method": "bitsandbytes"})", {"load_in_4bit", "load_in_8bit", "found neither"});
  refused(fields(R"("load_in_4bit": true, "load_in_8bit": true)"), {"found both"});
  refused(fields(R"("load_in_4bit": "yes")"), {"load_in_4bit", "true or false", "a string"});
  refused(fields(R"("load_in_4bit": true, "bnb_4bit_quant_type": "af4")"),
          {"bnb_4bit_quant_type", "'nf4' or 'fp4'", "\"af4\""});
  refused(fields(R"("load_in_4bit": true, "bnb_4bit_compute_dtype": "float64")"),
          {"bnb_4bit_compute_dtype", "float64"});
  refused(fields(R"("load_in_8bit": true, "llm_int8_threshold": "6")"), {"llm_int8_threshold", "a number", "a string"});
  refused(fields(R"("load_in_8bit": true, "llm_int8_skip_modules": "a")"),
          {"llm_int8_skip_modules", "array of strings"});
  refused(fields(R"("load_in_8bit": true, "llm_int8_skip_modules": [1])"), {"llm_int8_skip_modules", "an integer"});
}
