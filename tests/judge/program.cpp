#include "judge/program.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "common/y4m.hpp"
#include "judge/drawn.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;

namespace {

struct Outcome {
  int status;
  std::string out, errors;
};

Outcome judged(std::initializer_list<std::string> arguments) {
  std::vector<const char*> argv{"judge"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::ostringstream out, errors;
  const int status = judge::run(static_cast<int>(argv.size()), argv.data(), out, errors);
  return {status, out.str(), errors.str()};
}

}  // namespace

TEST_CASE("status and output") {
  const testing::TemporaryDirectory directory;
  const auto drawn = testing::drawn_pictures();
  const std::string picture = directory.path() / "picture.png", expect = directory.path() / "expect.json";
  examples::write_png(picture, drawn[0].picture.view());
  std::ofstream(expect) << nlohmann::json::parse(
      std::ifstream(std::filesystem::path(EBB_GOLDEN_DIR) / "judge/descriptions.json"))["pictures"][0];

  const auto seen = judged({picture});
  CHECK(seen.status == 0);
  CHECK(nlohmann::json::parse(seen.out).at("seen").at("objects").size() == drawn[0].description.objects.size());
  CHECK_FALSE(nlohmann::json::parse(seen.out).contains("verdict"));

  for (const auto& asked : {judged({picture, "--prompt", drawn[0].prompt}), judged({picture, "--expect", expect})}) {
    CHECK(asked.status == 0);
    CHECK(nlohmann::json::parse(asked.out).at("verdict").at("exact") == true);
  }
  const auto wrong = judged({picture, "--prompt", drawn[1].prompt});
  CHECK(wrong.status == 1);
  CHECK(nlohmann::json::parse(wrong.out).at("verdict").at("right") == false);
  CHECK(wrong.errors.empty());
}

TEST_CASE("status and output for videos") {
  const testing::TemporaryDirectory directory;
  const auto clips = testing::drawn_clips();
  const std::string frames = directory.path() / "frames", video = directory.path() / "video.y4m",
                    expect = directory.path() / "expect.json";
  std::filesystem::create_directory(frames);
  examples::Y4mWriter writer(video, {.width = 96, .height = 96, .frames_per_second = {8, 1}});
  for (std::size_t i = 0; i < clips[0].frames.size(); ++i) {
    examples::write_png(std::filesystem::path(frames) / (std::to_string(i) + ".png"), clips[0].frames[i].view());
    writer.write(clips[0].frames[i].view());
  }
  writer.finish();
  std::ofstream(expect) << clips[0].json;
  for (const std::string& path : {frames, video}) {
    CHECK(judged({path}).status == 0);
    for (const auto& asked : {judged({path, "--prompt", clips[0].prompt}), judged({path, "--expect", expect})}) {
      CHECK(asked.status == 0);
      CHECK(nlohmann::json::parse(asked.out).at("verdict").at("exact") == true);
    }
    const auto wrong = judged({path, "--prompt", clips[1].prompt});
    CHECK(wrong.status == 1);
    CHECK(nlohmann::json::parse(wrong.out).at("verdict").at("right") == false);
  }
}

TEST_CASE("errors have status 2 and say why") {
  const testing::TemporaryDirectory directory;
  const std::string picture = directory.path() / "picture.png", text = directory.path() / "text.png";
  examples::write_png(picture, testing::drawn_pictures()[0].picture.view());
  std::ofstream(text) << "no picture";
  const auto fails = [](std::initializer_list<std::string> arguments, const char* why) {
    const auto outcome = judged(arguments);
    CAPTURE(outcome.errors);
    CHECK(outcome.status == 2);
    CHECK(outcome.out.empty());
    CHECK(outcome.errors.find(why) != std::string::npos);
  };
  fails({directory.path() / "none.png"}, "none.png: cannot be read");
  fails({text}, "text.png: no valid PNG");
  fails({picture, "--prompt", "a cat"}, "judge: prompt: word 2: expected");
  fails({picture, "--prompt", ""}, "judge: prompt: word 1");
  fails({picture, "--expect", directory.path() / "none.json"}, "none.json: cannot open the file: No such file");
  fails({picture, "--expect", "x", "--prompt", "y"}, "excludes");
  fails({}, "path is required");
  fails({directory.path()}, "text.png: no valid PNG");
  fails({directory.path() / "none.y4m"}, "none.y4m: cannot be read");
}
