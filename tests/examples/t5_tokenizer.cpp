#include "common/t5_tokenizer.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/temporary_directory.hpp"

using namespace ebb;
using examples::T5Tokenizer;
using Ids = std::vector<std::int32_t>;

namespace {

const std::filesystem::path pipelines = std::filesystem::path(EBB_GOLDEN_DIR) / "pipelines";

/// A copy of a golden tokenizer, one of whose files is changed.
struct Changed : testing::TemporaryDirectory {
  explicit Changed(const char* pipeline) { std::filesystem::copy(pipelines / pipeline / "tokenizer_2", path()); }
  Changed(const char* pipeline, const char* file, const std::function<void(nlohmann::json&)>& change)
      : Changed(pipeline) {
    json(file, change);
  }
  Changed& json(const char* file, const std::function<void(nlohmann::json&)>& change) {
    auto value = nlohmann::json::parse(std::ifstream(path() / file));
    change(value);
    return text(file, value.dump());
  }
  Changed& text(const char* file, const std::string& content) {
    std::filesystem::remove(path() / file);
    std::ofstream(path() / file, std::ios::binary) << content;
    return *this;
  }
  Ids ids(const char* prompt) const {
    auto ids = T5Tokenizer::load(path()).encode(prompt, 64).ids;
    while (ids.back() == 0) ids.pop_back();
    return ids;
  }
};

nlohmann::json token(const char* content, bool normalized, bool single_word) {
  return {{"content", content}, {"normalized", normalized}, {"single_word", single_word},
          {"lstrip", false},    {"rstrip", false},          {"special", false}};
}

}  // namespace

// The ids in these cases are those of transformers 5.23 with the same files.
TEST_CASE("white space of every kind, U+2581 in the text, special tokens that only the normalization makes") {
  for (const char* name : {"dev", "schnell"}) {
    CAPTURE(name);
    const Changed files(name);
    CHECK(files.ids("over\xc2\x85the cat") == Ids{20, 21, 7, 32, 22, 1});
    CHECK(files.ids("\xe2\x96\x81"
                    "a cat") == Ids{4, 32, 22, 1});
    CHECK(files.ids("a\xe2\x96\x81"
                    "cat") == Ids{4, 32, 22, 1});
    CHECK(files.ids("  a \n\t cat ") == Ids{4, 32, 22, 1});
    CHECK(files.ids("a <extra_id_0> cat</s>") == Ids{4, 419, 32, 22, 1, 1});
    CHECK(files.ids("\xef\xbc\x9c/s\xef\xbc\x9e a") == Ids{3, 1, 4, 1});
    CHECK(files.ids("\xef\xbc\x9c"
                    "extra_id_3>") == Ids{3, 416, 1});
  }
}

TEST_CASE("a tokenizer.json without normalization still splits at white space") {
  Changed files("dev");
  files.json("tokenizer.json", [](auto& json) { json["normalizer"] = nullptr; });
  CHECK(files.ids("  a \n\t cat ") == Ids{4, 32, 22, 1});
  CHECK(files.ids("a\tcat\xe3\x80\x80\xef\xac\x81") == Ids{4, 32, 22, 3, 2, 1});
}

TEST_CASE("the normalization is found in a sequence, as transformers 4 writes it") {
  Changed files("dev");
  files.json("tokenizer.json", [](auto& json) {
    const nlohmann::json map = json["normalizer"];
    json["normalizer"] = {{"type", "Sequence"},
                          {"normalizers", {map, {{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}}}}};
  });
  CHECK(files.ids("\xef\xbc\x9c/s\xef\xbc\x9e a") == Ids{3, 1, 4, 1});
}

TEST_CASE("as many extra ids as tokenizer_config.json says") {
  Changed files("schnell");
  files.json("tokenizer_config.json", [](auto& json) {
    json.erase("added_tokens_decoder");
    json["extra_ids"] = 5;
  });
  CHECK(files.ids("<extra_id_4>") == Ids{320, 1});
  CHECK(files.ids("<extra_id_5>") == Ids{3, 2, 183, 64, 2, 56, 17, 2, 118, 2, 1});
}

TEST_CASE("more extra ids than can be compared with each other are refused at once") {
  const Changed many("dev", "tokenizer.json", [](auto& json) {
    for (int id = 1000; id < 1000 + 4097; ++id) json["model"]["vocab"].push_back({concat("<extra_id_", id, ">"), 0});
  });
  CHECK_THROWS_WITH_AS(T5Tokenizer::load(many.path()), doctest::Contains("at most 4096 pieces"), FileError);
}

TEST_CASE("files that cannot be looked at or read are refused by name") {
  const auto linked = [](const char* pipeline, const char* file, const char* target) {
    Changed files(pipeline);
    std::filesystem::remove(files.path() / file);
    std::filesystem::create_symlink(target, files.path() / file);
    CHECK_THROWS_WITH_AS(T5Tokenizer::load(files.path()), doctest::Contains(file), FileError);
  };
  for (const char* target : {"spiece.model", "/proc/self/mem"}) linked("schnell", "spiece.model", target);
  for (const char* target : {"tokenizer.json", "/proc/self/mem"}) linked("dev", "tokenizer.json", target);
}

TEST_CASE("added tokens behind the vocabulary, alone between words or anywhere") {
  Changed files("schnell");
  files.json("tokenizer_config.json", [](auto& json) {
    json["added_tokens_decoder"]["420"] = token("Quux", true, true);
    json["added_tokens_decoder"]["421"] = token("<zebra>", false, false);
  });
  CHECK(files.ids("Quux") == Ids{420, 1});
  CHECK(files.ids("aQuux") == Ids{4, 266, 25, 25, 226, 1});
  CHECK(files.ids("a Quux!") == Ids{4, 420, 3, 255, 1});
  CHECK(files.ids("a<zebra>b") == Ids{4, 421, 39, 1});
}

TEST_CASE("forty thousand words with special tokens take no quadratic time") {
  const auto tokenizer = T5Tokenizer::load(pipelines / "dev" / "tokenizer_2");
  std::string text;
  for (int i = 0; i < 10000; ++i) text += "</s> <extra_id_5> <|endoftext|> word ";
  const auto start = std::chrono::steady_clock::now();
  CHECK(tokenizer.encode(text, 512).ids.size() == 512);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
}

TEST_CASE("a compiled normalization that leads outside of itself is refused, not followed") {
  const auto with = [](const char* base64) {
    return Changed("dev", "tokenizer.json", [&](auto& json) { json["normalizer"]["precompiled_charsmap"] = base64; });
  };
  const auto refused = [](const Changed& files) {
    CHECK_THROWS_WITH_AS(T5Tokenizer::load(files.path()).encode("a", 8), doctest::Contains("tokenizer.json"),
                         FileError);
  };
  refused(with("AQ=="));              // shorter than its size field
  refused(with("/////wAAAABhAA=="));  // a trie larger than the file
  refused(with("BAAAAAAAAABh"));      // replacements without their zero byte
  refused(with("BAAAAAD8/39hAA=="));  // a root whose children lie outside
  refused(with("A"));
  refused(with("AQ=A"));
  // One unit of the trie: the root, whose child for 'a' would be unit 0x61. All is well until a text asks for it.
  CHECK_NOTHROW(T5Tokenizer::load(with("BAAAAAAAAABhAA==").path()));
  refused(with("BAAAAAAAAABhAA=="));
}

TEST_CASE("malformed files are refused with file and field, whatever the type found") {
  const auto refused = [](const Changed& files, const char* words) {
    CHECK_THROWS_WITH_AS(T5Tokenizer::load(files.path()), doctest::Contains(words), FileError);
  };
  using Json = nlohmann::json;
  const auto with = [](const std::function<void(Json&)>& change) { return Changed("dev", "tokenizer.json", change); };
  refused(with([](Json& json) { json["model"]["type"] = Json::array({1}); }), "model.type");
  refused(with([](Json& json) { json["model"]["vocab"] = "x"; }), "model.vocab");
  refused(with([](Json& json) { json["model"]["vocab"].push_back({"qq", 1e300}); }), "score");
  refused(with([](Json& json) { json["model"]["vocab"].push_back(json["model"]["vocab"][9]); }), "twice");
  refused(with([](Json& json) { json["model"]["vocab"].push_back({"", 0}); }), "zero bytes");
  refused(with([](Json& json) { json["model"]["vocab"].push_back({std::string("a\0b", 3), 0}); }), "zero bytes");
  refused(with([](Json& json) { json["normalizer"] = "x"; }), "normalizer");
  refused(with([](Json& json) { json["normalizer"]["precompiled_charsmap"] = 7; }), "precompiled_charsmap");
  refused(with([](Json& json) { json["added_tokens"][4]["id"] = 2000000000; }), "expected an id from 0 to");
  refused(with([](Json& json) { json["added_tokens"][0]["id"] = 1; }), "two tokens");
  refused(with([](Json& json) { json["added_tokens"][0]["id"] = 50; }), "the vocabulary says 0");
  Changed config("schnell");
  config.json("tokenizer_config.json", [](Json& json) { json["extra_ids"] = 1000000; });
  refused(config, "extra_ids");
}

TEST_CASE("a spiece.model that ends early is refused wherever it ends") {
  std::ifstream stream(pipelines / "schnell" / "tokenizer_2" / "spiece.model", std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(stream), {}};
  REQUIRE(whole.size() > 10000);
  Changed files("schnell");
  std::vector<std::size_t> sizes{whole.size() / 2, whole.size() - 1};
  for (std::size_t size = 0; size < 200; ++size) sizes.push_back(size);
  for (const std::size_t size : sizes) {
    CAPTURE(size);
    files.text("spiece.model", whole.substr(0, size));
    CHECK_THROWS_WITH_AS(T5Tokenizer::load(files.path()), doctest::Contains("spiece.model"), FileError);
  }
  files.text("spiece.model", whole);
  CHECK_NOTHROW(T5Tokenizer::load(files.path()));
}
