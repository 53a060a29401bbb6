#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/prompt_cleaning.hpp"
#include "common/t5_tokenizer.hpp"
#include "support/golden.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;
using examples::clean_prompt;
using examples::T5Tokenizer;
using Ids = std::vector<std::int32_t>;

namespace {

const std::filesystem::path wan = std::filesystem::path(EBB_GOLDEN_DIR) / "wan";

/// A copy of a golden tokenizer, whose tokenizer.json is changed.
struct Changed : testing::TemporaryDirectory {
  Changed(const char* pipeline, const std::function<void(nlohmann::json&)>& change) {
    std::filesystem::copy(wan / pipeline / "tokenizer", path());
    auto json = nlohmann::json::parse(std::ifstream(path() / "tokenizer.json"));
    change(json);
    std::filesystem::remove(path() / "tokenizer.json");
    std::ofstream(path() / "tokenizer.json") << json;
  }
};

void check_cases(const T5Tokenizer& tokenizer, const char* kind) {
  const auto file = nlohmann::json::parse(std::ifstream(wan / "tokens.json"));
  const auto length = file.at("max_length").get<std::size_t>();
  REQUIRE(file.at("cases").size() >= 50);
  for (const auto& test : file.at("cases")) {
    const auto text = test.at("text").get<std::string>();
    CAPTURE(text.substr(0, 80));
    auto expected = test.at(kind).get<Ids>();
    const auto found = tokenizer.encode(text, length);
    CHECK(found.length == expected.size());
    expected.resize(length, 0);
    CHECK(found.ids == expected);
  }
}

}  // namespace

TEST_CASE("UMT5's ids equal those of the tokenizers library, wherever the sentinels are") {
  check_cases(T5Tokenizer::load(wan / "two_blocks" / "tokenizer"), "two_blocks");
  check_cases(T5Tokenizer::load(wan / "one_block" / "tokenizer"), "one_block");
}

TEST_CASE("spiece.model alone gives the ids of the tokenizer.json that transformers makes of it") {
  check_cases(T5Tokenizer::load(wan / "three_blocks" / "tokenizer"), "two_blocks");
  Changed inside("one_block", [](auto&) {});
  std::filesystem::remove(inside.path() / "tokenizer.json");
  check_cases(T5Tokenizer::load(inside.path()), "one_block");
}

TEST_CASE("with byte_fallback, text that no piece covers becomes its bytes") {
  const auto fall_back = [](auto& json) { json["model"]["byte_fallback"] = true; };
  check_cases(T5Tokenizer::load(Changed("two_blocks", fall_back).path()), "two_blocks_bytes");
  const auto refused = [](const std::function<void(nlohmann::json&)>& change) {
    CHECK_THROWS_WITH_AS(T5Tokenizer::load(Changed("two_blocks", change).path()),
                         doctest::Contains("model.byte_fallback"), FileError);
  };
  refused([](auto& json) { json["model"]["byte_fallback"] = 1; });
  refused([&](auto& json) {
    fall_back(json);
    json["model"]["vocab"][10][0] = "no byte";
  });
}

TEST_CASE("the pipelines' prompts: cleaned, padded, truncated, with their true lengths") {
  for (const char* name : {"two_blocks", "one_block", "three_blocks"}) {
    CAPTURE(name);
    const testing::Golden golden(name, "wan");
    const auto tokenizer = T5Tokenizer::load(golden.directory() / "tokenizer");
    const auto length = golden.call().at("max_sequence_length").get<std::size_t>();
    auto prompts = golden.call().at("prompt");
    if (prompts.is_string()) prompts = nlohmann::json::array({prompts});
    Ids ids, lengths;
    for (const auto& prompt : prompts) {
      const auto encoding = tokenizer.encode(clean_prompt(prompt.get<std::string>()), length);
      ids.insert(ids.end(), encoding.ids.begin(), encoding.ids.end());
      lengths.push_back(static_cast<std::int32_t>(encoding.length));
    }
    CHECK(ids == golden.ids("umt5.ids"));
    CHECK(lengths == golden.ids("umt5.lengths"));
  }
}

TEST_CASE("a literal padding token in the prompt counts, padding behind it does not") {
  const auto tokenizer = T5Tokenizer::load(wan / "two_blocks" / "tokenizer");
  const auto encoding = tokenizer.encode("<pad>", 8);
  CHECK(encoding.ids == Ids{0, 1, 0, 0, 0, 0, 0, 0});
  CHECK(encoding.length == 2);
  CHECK(tokenizer.encode("", 8).length == 1);
}
