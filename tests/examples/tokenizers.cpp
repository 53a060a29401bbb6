#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "common/clip_tokenizer.hpp"
#include "common/t5_tokenizer.hpp"
#include "support/golden.hpp"

using namespace ebb;
using examples::ClipTokenizer;
using examples::T5Tokenizer;

namespace {

const std::filesystem::path pipelines = std::filesystem::path(EBB_GOLDEN_DIR) / "pipelines";

std::string text_of(const nlohmann::json& test) {
  if (test.contains("text")) return test.at("text");
  std::string text;
  for (int i = 0; i < test.at("count").get<int>(); ++i) text += test.at("repeat").get<std::string>();
  return text;
}

/// A directory that disappears with its scope.
struct Scratch {
  std::filesystem::path path = std::filesystem::temp_directory_path() / "ebb-tokenizer-test";
  Scratch() {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~Scratch() { std::filesystem::remove_all(path); }
};

nlohmann::json read_json(const std::filesystem::path& path) { return nlohmann::json::parse(std::ifstream(path)); }

}  // namespace

TEST_CASE("both tokenizers equal transformers' on hard texts, from the files of transformers 4 and 5") {
  const auto tokens = read_json(pipelines / "tokens.json");
  const auto clip_length = tokens.at("clip_max_length").get<std::size_t>();
  const auto t5_length = tokens.at("t5_max_length").get<std::size_t>();
  for (const char* name : {"dev", "schnell"}) {
    CAPTURE(name);
    const auto clip = ClipTokenizer::load(pipelines / name / "tokenizer");
    const auto t5 = T5Tokenizer::load(pipelines / name / "tokenizer_2");
    CHECK(clip.model_max_length() == clip_length);
    for (const auto& test : tokens.at("cases")) {
      const std::string text = text_of(test);
      CAPTURE(text.substr(0, 80));
      auto expected = test.at("clip_ids").get<std::vector<std::int32_t>>();
      expected.resize(clip_length, tokens.at("clip_pad").get<std::int32_t>());
      CHECK(clip.encode(text, clip_length).ids == expected);
      expected = test.at("t5_ids").get<std::vector<std::int32_t>>();
      expected.resize(t5_length, tokens.at("t5_pad").get<std::int32_t>());
      CHECK(t5.encode(text, t5_length).ids == expected);
    }
  }
}

TEST_CASE("the pipelines' own prompts") {
  for (const char* name : {"dev", "schnell", "three_heads", "wide"}) {
    CAPTURE(name);
    const testing::Golden golden(name);
    const auto clip = ClipTokenizer::load(golden.directory() / "tokenizer");
    const auto t5 = T5Tokenizer::load(golden.directory() / "tokenizer_2");
    const auto list = [&](const char* key) {
      const auto& value = golden.call().at(key);
      return value.is_string() ? std::vector<std::string>{value.get<std::string>()}
                               : value.get<std::vector<std::string>>();
    };
    const auto length = golden.call().at("max_sequence_length").get<std::size_t>();
    std::vector<std::int32_t> clip_ids, t5_ids;
    for (const auto& prompt : list("prompt")) {
      const auto ids = clip.encode(prompt, clip.model_max_length()).ids;
      clip_ids.insert(clip_ids.end(), ids.begin(), ids.end());
    }
    for (const auto& prompt : list(golden.call().at("prompt_2").is_null() ? "prompt" : "prompt_2")) {
      const auto ids = t5.encode(prompt, length).ids;
      t5_ids.insert(t5_ids.end(), ids.begin(), ids.end());
    }
    CHECK(clip_ids == golden.ids("clip.ids"));
    CHECK(t5_ids == golden.ids("t5.ids"));
  }
}

TEST_CASE("what does not fit is named") {
  const auto clip = ClipTokenizer::load(pipelines / "dev" / "tokenizer");
  const auto t5 = T5Tokenizer::load(pipelines / "dev" / "tokenizer_2");
  CHECK(clip.encode("a cat", 77).truncated_text.empty());
  CHECK(clip.encode("the cat and the dog", 4).truncated_text.ends_with("and the dog "));
  CHECK(t5.encode("the cat and the dog", 3).truncated_text.ends_with("the dog"));
}

TEST_CASE("broken UTF-8 and ten thousand words are no trouble") {
  const auto clip = ClipTokenizer::load(pipelines / "dev" / "tokenizer");
  const auto t5 = T5Tokenizer::load(pipelines / "dev" / "tokenizer_2");
  for (const std::string& text : {std::string("\xff\xfe a"), std::string("a\xc3"), std::string("\xed\xa0\x80"),
                                  std::string("\xf8\x88\x80\x80\x80"), std::string(1, '\0')}) {
    CHECK(clip.encode(text, 77).ids.size() == 77);
    CHECK(t5.encode(text, 32).ids.size() == 32);
  }
  std::string words, one;
  for (int i = 0; i < 10000; ++i) words += "word ";
  for (int i = 0; i < 200000; ++i) one += "abcdefg"[i % 7];
  CHECK(clip.encode(words, 77).ids.size() == 77);
  CHECK(t5.encode(words, 512).ids.size() == 512);
  CHECK(clip.encode(one, 77).ids.size() == 77);
}

TEST_CASE("damaged tokenizer files name the file and the field") {
  const Scratch scratch;
  const auto source = read_json(pipelines / "dev" / "tokenizer" / "tokenizer.json");
  const auto clip_with = [&](const std::function<void(nlohmann::json&)>& change) {
    auto json = source;
    change(json);
    std::ofstream(scratch.path / "tokenizer.json") << json;
    return ClipTokenizer::load(scratch.path);
  };
  CHECK_THROWS_WITH_AS(ClipTokenizer::load(scratch.path), doctest::Contains("vocab.json"), FileError);
  CHECK_THROWS_WITH_AS(clip_with([](auto& json) { json.erase("model"); }), doctest::Contains("model"), FileError);
  CHECK_THROWS_WITH_AS(clip_with([](auto& json) { json["model"]["vocab"]["a"] = -1; }), doctest::Contains("'a'"),
                       FileError);
  CHECK_THROWS_WITH_AS(clip_with([](auto& json) { json["model"]["vocab"]["a"] = 4000000000u; }),
                       doctest::Contains("'a'"), FileError);
  CHECK_THROWS_WITH_AS(clip_with([](auto& json) { json["model"]["vocab"]["a"] = 1; }), doctest::Contains("twice"),
                       FileError);
  CHECK_THROWS_WITH_AS(clip_with([](auto& json) {
                         json["model"]["merges"][3] = {"zq", "xx"};
                       }),
                       doctest::Contains("not in the vocabulary"), FileError);
  CHECK_THROWS_WITH_AS(clip_with([](auto& json) { json["model"]["merges"][3] = 7; }), doctest::Contains("merge 3"),
                       FileError);
  CHECK_THROWS_WITH_AS(clip_with([](auto& json) { json["added_tokens"][0].erase("id"); }),
                       doctest::Contains("added_tokens"), FileError);
  std::ofstream(scratch.path / "tokenizer.json") << std::string(200, '[') + std::string(200, ']');
  CHECK_THROWS_WITH_AS(ClipTokenizer::load(scratch.path), doctest::Contains("deeper"), FileError);
  // Flat, whatever its strings say; in quadratic time it would take minutes.
  std::string many = R"({"[[[\"[[[": [{})";
  for (int i = 0; i < 300000; ++i) many += ",{}";
  std::ofstream(scratch.path / "tokenizer.json") << many << "]}";
  CHECK_THROWS_WITH_AS(ClipTokenizer::load(scratch.path), doctest::Contains("\"model\""), FileError);

  const auto t5_source = read_json(pipelines / "dev" / "tokenizer_2" / "tokenizer.json");
  const auto t5_with = [&](const std::function<void(nlohmann::json&)>& change) {
    auto json = t5_source;
    change(json);
    std::ofstream(scratch.path / "tokenizer.json") << json;
    return T5Tokenizer::load(scratch.path);
  };
  CHECK_NOTHROW(t5_with([](auto&) {}));
  CHECK_THROWS_WITH_AS(t5_with([](auto& json) { json["model"]["unk_id"] = 100000; }), doctest::Contains("unk_id"),
                       FileError);
  CHECK_THROWS_WITH_AS(t5_with([](auto& json) { json["model"]["vocab"][5] = "x"; }), doctest::Contains("vocab"),
                       FileError);
  CHECK_THROWS_WITH_AS(t5_with([](auto& json) { json["normalizer"]["precompiled_charsmap"] = "?!"; }),
                       doctest::Contains("base64"), FileError);
  std::filesystem::remove(scratch.path / "tokenizer.json");
  std::ofstream(scratch.path / "spiece.model") << "not a model";
  CHECK_THROWS_WITH_AS(T5Tokenizer::load(scratch.path), doctest::Contains("spiece.model"), FileError);
}
