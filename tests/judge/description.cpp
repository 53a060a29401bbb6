#include "judge/description.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "judge/drawn.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;
using judge::Description;

namespace {

std::string text_of(const Description& description) {
  std::string text;
  for (const auto& object : description.objects)
    text += concat(judge::sizes[object.size], ' ', judge::textures[object.texture], ' ', judge::colours[object.colour],
                   ' ', judge::shapes[object.shape], "; ");
  for (const auto& [subject, relation, object] : description.relations)
    text += concat(subject, ' ', judge::relations[relation], ' ', object, "; ");
  return text +
         concat(judge::patterns[description.ground_pattern], ' ', judge::ground_colours[description.ground_colour]);
}

std::string refusal(const std::function<void()>& read) {
  try {
    read();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("captions say what the descriptions beside them say") {
  for (const auto& drawn : testing::drawn_pictures()) {
    CAPTURE(drawn.prompt);
    CHECK(text_of(Description::parse(drawn.prompt)) == text_of(drawn.description));
  }
}

TEST_CASE("every form of a caption") {
  const auto read = [](const char* prompt) { return text_of(Description::parse(prompt)); };
  CHECK(read("a red circle on a blue background") == "medium plain red circle; plain blue");
  CHECK(read("on a gradient gray background, a large dotted white star") == "large dotted white star; gradient gray");
  CHECK(read("an orange background with an orange ring to the left of a small black cross") ==
        "medium plain orange ring; small plain black cross; 0 left 1; plain orange");
  CHECK(read("a pink heart with a cyan square under it on a striped green background") ==
        "medium plain cyan square; medium plain pink heart; 0 below 1; striped green");
  CHECK(read("a red ring over a blue ring and right of a green ring on a checkered pink background") ==
        "medium plain red ring; medium plain blue ring; medium plain green ring; 0 above 1; 0 right 2; checkered pink");
  CHECK(read("a red ring, a blue ring and a green ring on a dotted cyan background") ==
        "medium plain red ring; medium plain blue ring; medium plain green ring; dotted cyan");
}

TEST_CASE("a caption outside of the grammar is refused where it leaves it") {
  const auto refused = [](const char* prompt) { return refusal([&] { (void)Description::parse(prompt); }); };
  CHECK(refused("") == "prompt: word 1: expected \"a\" or \"an\", found the end");
  CHECK(refused("a red horse on a blue background").starts_with("prompt: word 3: expected one of circle, square"));
  CHECK(refused("a red circle on a brown background").starts_with("prompt: word 6: expected one of orange, yellow"));
  CHECK(refused("a red circle") == "prompt: word 4: expected \"on\", found the end");
  CHECK(refused("a red circle on a blue background today") == "prompt: word 8: expected the end, found \"today\"");
  CHECK(refused("a red circle to a blue ring on a blue background").starts_with("prompt: word 5: expected \"the\""));
}

TEST_CASE("a description that lacks something, or names nothing of the world, is refused") {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "description.json";
  const nlohmann::json good{{"objects",
                             {{{"shape", "circle"}, {"colour", "red"}, {"size", "small"}, {"texture", "plain"}},
                              {{"shape", "ring"}, {"colour", "blue"}, {"size", "large"}, {"texture", "dotted"}}}},
                            {"relations", {{{"subject", 0}, {"relation", "above"}, {"object", 1}}}},
                            {"background", {{"colour", "gray"}, {"pattern", "plain"}}}};
  const auto with = [&](const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json changed = good;
    change(changed);
    std::ofstream(path) << changed;
    return refusal([&] { (void)Description::read(path); });
  };
  CHECK(with([](auto&) {}) == "accepted");
  CHECK(with([](auto& json) { json.erase("objects"); }).ends_with("\"objects\": expected a list of 1 to 3"));
  CHECK(with([](auto& json) { json["objects"] = nlohmann::json::array(); }).ends_with("expected a list of 1 to 3"));
  CHECK(with([](auto& json) { json["objects"][1]["shape"] = "horse"; }).find("\"shape\": expected one of circle") !=
        std::string::npos);
  CHECK(with([](auto& json) { json["objects"][0] = 7; }).find("\"shape\": expected one of") != std::string::npos);
  CHECK(with([](auto& json) { json["relations"][0]["object"] = 2; }).ends_with("the number of an object, below 2"));
  CHECK(with([](auto& json) { json["relations"][0]["object"] = 0; }).ends_with("relates object 0 to itself"));
  CHECK(with([](auto& json) { json["background"] = "gray"; }).find("\"colour\": expected one of") != std::string::npos);
  std::ofstream(path) << "[]";
  CHECK_THROWS_AS(Description::read(path), FileError);
  CHECK_THROWS_AS(Description::read(directory.path() / "none.json"), FileError);
}
