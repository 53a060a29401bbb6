#include "common/clip_tokenizer.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/temporary_directory.hpp"

using namespace ebb;
using examples::ClipTokenizer;
using Ids = std::vector<std::int32_t>;

namespace {

const std::filesystem::path pipelines = std::filesystem::path(EBB_GOLDEN_DIR) / "pipelines";

/// A copy of a golden tokenizer, one of whose files is changed.
struct Changed : testing::TemporaryDirectory {
  explicit Changed(const char* pipeline) { std::filesystem::copy(pipelines / pipeline / "tokenizer", path()); }
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
    auto ids = ClipTokenizer::load(path()).encode(prompt, 77).ids;
    while (ids.size() > 1 && ids[ids.size() - 2] == ids.back()) ids.pop_back();  // padding
    return ids;
  }
};

nlohmann::json token(const char* content, bool normalized, bool single_word) {
  return {{"content", content}, {"normalized", normalized}, {"single_word", single_word},
          {"lstrip", false},    {"rstrip", false},          {"special", false}};
}

}  // namespace

// The ids in these cases are those of transformers 5.23 with the same files.
TEST_CASE("a literal token with \"normalized\" is found after lower-casing, another one as it is written") {
  const Ids spelled{732, 320, 27, 347, 519, 531, 83, 570, 83, 68, 87, 339, 91, 285, 580, 733};
  const Ids found{732, 320, 732, 580, 733};
  CHECK(Changed("dev").ids("a <|StartOfText|> cat") == spelled);
  CHECK(Changed("schnell").ids("a <|StartOfText|> cat") == found);
  Changed older("schnell");  // before added_tokens_decoder, special_tokens_map.json has the flags
  older.json("tokenizer_config.json", [](auto& json) { json.erase("added_tokens_decoder"); });
  CHECK(older.ids("a <|StartOfText|> cat") == found);
  older.json("special_tokens_map.json", [](auto& json) { json["bos_token"]["normalized"] = false; });
  CHECK(older.ids("a <|StartOfText|> cat") == spelled);
}

TEST_CASE("added tokens behind the vocabulary, alone between words or anywhere") {
  Changed four("schnell"), five("dev");
  four.json("tokenizer_config.json", [](auto& json) {
    json["added_tokens_decoder"]["734"] = token("Quux", true, true);
    json["added_tokens_decoder"]["735"] = token("<zebra>", false, false);
  });
  five.json("tokenizer.json", [](auto& json) {
    for (auto [id, entry] : {std::pair{734, token("Quux", true, true)}, {735, token("<zebra>", false, false)}}) {
      entry["id"] = id;
      json["added_tokens"].push_back(entry);
    }
  });
  for (const Changed* files : {&four, &five}) {
    CHECK(files->ids("Quux") == Ids{732, 734, 733});
    CHECK(files->ids("a quux, b") == Ids{732, 320, 734, 267, 321, 733});
    CHECK(files->ids("Quux!") == Ids{732, 734, 256, 733});
    CHECK(files->ids("aQuux") == Ids{732, 64, 691, 84, 343, 733});
    CHECK(files->ids("Quuxb") == Ids{732, 691, 84, 87, 321, 733});
    CHECK(files->ids("a<zebra>b") == Ids{732, 320, 735, 321, 733});
    CHECK(files->ids("<Zebra>") == Ids{732, 283, 89, 68, 65, 81, 320, 285, 733});
  }
}

TEST_CASE("a padding token that is a word is found in the text, too") {
  Changed files("schnell");
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"})
    files.json(file, [](auto& json) { json["pad_token"] = "!"; });
  auto ids = ClipTokenizer::load(files.path()).encode("a cat! a dog!!", 12).ids;
  CHECK(ids == Ids{732, 320, 580, 0, 320, 585, 0, 0, 733, 0, 0, 0});
}

TEST_CASE("\"no limit\" is the 77 tokens that CLIP has positions for") {
  Changed files("dev");
  files.json("tokenizer_config.json", [](auto& json) { json["model_max_length"] = 1e30; });
  CHECK(ClipTokenizer::load(files.path()).model_max_length() == 77);
  files.json("tokenizer_config.json", [](auto& json) { json["model_max_length"] = 20; });
  CHECK(ClipTokenizer::load(files.path()).model_max_length() == 20);
  std::filesystem::remove(files.path() / "tokenizer_config.json");
  CHECK(ClipTokenizer::load(files.path()).model_max_length() == 77);
}

TEST_CASE("forty thousand words with special tokens take no quadratic time") {
  const auto tokenizer = ClipTokenizer::load(pipelines / "dev" / "tokenizer");
  std::string text;
  for (int i = 0; i < 10000; ++i) text += "<|startoftext|> <extra_id_5> <|endoftext|> word ";
  const auto start = std::chrono::steady_clock::now();
  CHECK(tokenizer.encode(text, 77).ids.size() == 77);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
}

TEST_CASE("more added tokens than can be compared with each other are refused at once") {
  const Changed many("dev", "tokenizer_config.json", [](auto& json) {
    for (int id = 0; id < 4097; ++id)
      json["added_tokens_decoder"][std::to_string(id)] = token(concat("token ", id).c_str(), false, false);
  });
  CHECK_THROWS_WITH_AS(ClipTokenizer::load(many.path()), doctest::Contains("at most 4096 added tokens"), FileError);
}

TEST_CASE("files that cannot be looked at or read are refused by name") {
  const auto linked = [](const char* file, const char* target) {
    Changed files("schnell");
    std::filesystem::remove(files.path() / file);
    std::filesystem::create_symlink(target, files.path() / file);
    CHECK_THROWS_WITH_AS(ClipTokenizer::load(files.path()), doctest::Contains(file), FileError);
  };
  for (const char* file : {"vocab.json", "merges.txt", "tokenizer_config.json"}) {
    CAPTURE(file);
    linked(file, file);              // a circle
    linked(file, "/proc/self/mem");  // a file whose first byte cannot be read
  }
}

TEST_CASE("malformed files are refused with file and field, whatever the type found") {
  const auto refused = [](const Changed& files, const char* words) {
    CHECK_THROWS_WITH_AS(ClipTokenizer::load(files.path()), doctest::Contains(words), FileError);
  };
  using Json = nlohmann::json;
  const auto with = [](const std::function<void(Json&)>& change) { return Changed("dev", "tokenizer.json", change); };
  refused(with([](Json& json) { json["model"]["type"] = 5; }), "model.type");
  refused(with([](Json& json) { json["model"] = "BPE"; }), "\"model\"");
  refused(with([](Json& json) { json["added_tokens"] = "x"; }), "added_tokens");
  refused(with([](Json& json) { json["added_tokens"][0]["id"] = 2000000000; }), "expected an id from 0 to");
  refused(with([](Json& json) { json["added_tokens"][0]["id"] = -1; }), "expected an id from 0 to");
  refused(with([](Json& json) { json["added_tokens"][0]["id"] = 733; }), "two tokens");
  refused(with([](Json& json) { json["added_tokens"][0]["id"] = 5; }), "the vocabulary says 732");
  refused(with([](Json& json) { json["added_tokens"][0]["normalized"] = "yes"; }), "\"normalized\"");
  refused(with([](Json& json) { json["model"]["merges"].push_back(json["model"]["merges"][0]); }), "twice");
  const auto config = [](const char* field, const Json& value) {
    return Changed("schnell", "tokenizer_config.json", [&](Json& json) { json[field] = value; });
  };
  refused(config("model_max_length", "x"), "model_max_length");
  refused(config("model_max_length", 1), "model_max_length");
  refused(config("model_max_length", -3.5), "model_max_length");
  refused(config("bos_token", Json::array()), "bos_token");
  refused(config("pad_token", "<nowhere>"), "pad_token");
  refused(config("added_tokens_decoder", "x"), "added_tokens_decoder");
  refused(config("added_tokens_decoder", {{"12x", token("Quux", false, false)}}), "12x");
  refused(config("added_tokens_decoder", {{"99999999", token("Quux", false, false)}}), "Quux");
  Changed lines("schnell");
  refused(lines.text("merges.txt", "#version: 0.2\na\n"), "merge 0");
  refused(lines.text("merges.txt", "#version: 0.2\nzq xx\n"), "merges.txt");
  refused(lines.text("vocab.json", "[1]"), "vocab.json");
}
