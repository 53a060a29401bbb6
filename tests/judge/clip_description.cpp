#include "judge/clip_description.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "judge/drawn.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;
using judge::ClipDescription;

namespace {

std::string text_of(const ClipDescription& description) {
  const auto object = [](const judge::AskedMover& asked) {
    return concat(judge::clip_sizes[asked.size], ' ', judge::colours[asked.colour], ' ',
                  judge::clip_shapes[asked.shape]);
  };
  std::string text = concat(object(description.moving), ' ', judge::motions[description.motion]);
  if (description.still)
    text += concat(' ', judge::orders[description.still->order], ' ', object(description.still->object));
  return text + concat("; ", judge::patterns[description.ground_pattern], ' ',
                       judge::ground_colours[description.ground_colour], ' ',
                       judge::ground_kinds[description.ground_kind]);
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

TEST_CASE("captions of clips say what the descriptions beside them say") {
  for (const auto& clip : testing::drawn_clips()) {
    CAPTURE(clip.prompt);
    CHECK(text_of(ClipDescription::parse(clip.prompt)) == text_of(clip.description));
  }
}

TEST_CASE("every form of a clip's caption") {
  const auto read = [](const char* prompt) { return text_of(ClipDescription::parse(prompt)); };
  CHECK(read("a red ball bounces on a striped blue floor") == "medium red ball bounce; striped blue floor");
  CHECK(read("on an orange floor, a large red ball bounces up and down") ==
        "large red ball bounce; plain orange floor");
  CHECK(read("a blue square moves left behind a green ring on a gray background") ==
        "medium blue square left behind medium green ring; plain gray background");
  CHECK(read("on a dotted pink background, a cyan star moves to the right in front of a white cross") ==
        "medium cyan star right in front medium white cross; dotted pink background");
  CHECK(read("a black heart rises on a gray background") == "medium black heart up; plain gray background");
  CHECK(read("a black heart moves up on a gray background") == "medium black heart up; plain gray background");
  CHECK(read("a black heart falls on a gray background") == "medium black heart down; plain gray background");
  CHECK(read("a black heart moves down on a gray background") == "medium black heart down; plain gray background");
}

TEST_CASE("a clip's caption outside of the grammar is refused where it leaves it") {
  const auto refused = [](const char* prompt) { return refusal([&] { (void)ClipDescription::parse(prompt); }); };
  CHECK(refused("a red circle moves left on a gray background").starts_with("prompt: word 3: expected one of ball"));
  CHECK(refused("a red ball on a gray background") ==
        "prompt: word 4: expected moves, rises, falls or bounces, found \"on\"");
  CHECK(
      refused("a red ball moves away on a gray floor").starts_with("prompt: word 5: expected one of left, right, up"));
  CHECK(refused("a red ball moves to the top on a gray floor")
            .starts_with("prompt: word 7: expected one of left, right,"));
  CHECK(refused("a red ball rises in a blue ring on a gray floor").starts_with("prompt: word 6: expected \"front\""));
  CHECK(refused("a red ball rises on a gray ceiling").starts_with("prompt: word 8: expected one of background, floor"));
  CHECK(refused("a red ball rises on a gray floor now") == "prompt: word 9: expected the end, found \"now\"");
}

TEST_CASE("a clip's description that lacks something, or names nothing of the world, is refused") {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "description.json";
  const nlohmann::json good{{"moving", {{"shape", "ball"}, {"colour", "red"}, {"size", "large"}, {"motion", "left"}}},
                            {"still", {{"shape", "ring"}, {"colour", "blue"}, {"size", "medium"}}},
                            {"order", "behind"},
                            {"ground", {{"kind", "background"}, {"colour", "gray"}, {"pattern", "plain"}}}};
  const auto with = [&](const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json changed = good;
    change(changed);
    std::ofstream(path) << changed;
    return refusal([&] { (void)ClipDescription::read(path); });
  };
  CHECK(with([](auto&) {}) == "accepted");
  CHECK(with([](auto& json) { json.erase("still"), json.erase("order"); }) == "accepted");
  CHECK(with([](auto& json) { json.erase("moving"); }).find("\"shape\": expected one of ball") != std::string::npos);
  CHECK(with([](auto& json) { json["moving"] = 7; }).find("\"shape\": expected one of ball") != std::string::npos);
  CHECK(with([](auto& json) { json["moving"]["motion"] = "away"; }).find("\"motion\": expected one of left") !=
        std::string::npos);
  CHECK(with([](auto& json) { json["still"]["colour"] = 1; }).find("\"colour\": expected one of red") !=
        std::string::npos);
  CHECK(with([](auto& json) { json.erase("order"); }).find("\"order\": expected one of behind") != std::string::npos);
  CHECK(with([](auto& json) { json["ground"]["kind"] = "sea"; }).find("\"kind\": expected one of background") !=
        std::string::npos);
  CHECK(with([](auto& json) { json.erase("ground"); }).find("\"kind\": expected one of") != std::string::npos);
  std::ofstream(path) << "[]";
  CHECK_THROWS_AS(ClipDescription::read(path), FileError);
  CHECK_THROWS_AS(ClipDescription::read(directory.path() / "none.json"), FileError);
}
