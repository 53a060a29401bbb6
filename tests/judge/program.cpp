#include "judge/program.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

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
  fails({picture, "--expect", directory.path() / "none.json"}, "none.json: cannot be read");
  fails({picture, "--expect", "x", "--prompt", "y"}, "excludes");
  fails({}, "picture is required");
}
