#include "judge/score.hpp"

#include <doctest/doctest.h>

#include <array>
#include <fstream>
#include <initializer_list>
#include <sstream>
#include <string>
#include <vector>

#include "judge/drawn.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;

namespace {

struct Outcome {
  int status;
  std::string out, details;
};

Outcome scored(std::initializer_list<std::string> arguments) {
  std::vector<const char*> argv{"score"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::ostringstream out, details;
  const int status = judge::run_score(static_cast<int>(argv.size()), argv.data(), out, details);
  return {status, out.str(), details.str()};
}

/// A picture with a prompt in it, as flux writes that.
void write(const std::string& path, const testing::Drawn& drawn, const std::string& prompt) {
  const std::array<examples::PngText, 1> text{{{"parameters", prompt + "\nSteps: 28, Seed: 0"}}};
  examples::write_png(path, drawn.picture.view(), text);
}

}  // namespace

TEST_CASE("pictures are judged by the prompts in them") {
  const testing::TemporaryDirectory directory;
  const auto drawn = testing::drawn_pictures();
  const std::string good = directory.path() / "good.png", bad = directory.path() / "bad.png";
  write(good, drawn[0], drawn[0].prompt);
  write(bad, drawn[0], drawn[1].prompt);

  const auto one = scored({good, "--label", "NF4"});
  CHECK(one.status == 0);
  CHECK(one.out == "| NF4 | 1 of 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |\n");
  CHECK(one.details.empty());

  const auto both = scored({"--head", good, bad});
  CHECK(both.status == 0);
  CHECK(both.out.starts_with("| | right | exact |"));
  CHECK(both.out.find("\n|  | 1 of 2 | 1 |") != std::string::npos);
  CHECK(both.details.starts_with(bad + ": " + drawn[1].prompt + "\n  not: "));
}

TEST_CASE("errors have status 2 and say why") {
  const testing::TemporaryDirectory directory;
  const auto drawn = testing::drawn_pictures();
  const std::string silent = directory.path() / "silent.png", other = directory.path() / "other.png";
  examples::write_png(silent, drawn[0].picture.view());
  write(other, drawn[0], "a lighthouse");
  const auto fails = [](std::initializer_list<std::string> arguments, const char* why) {
    const auto outcome = scored(arguments);
    CAPTURE(outcome.details);
    CHECK(outcome.status == 2);
    CHECK(outcome.out.empty());
    CHECK(outcome.details.find(why) != std::string::npos);
  };
  fails({silent}, "silent.png: expected a text entry \"parameters\"");
  fails({other}, "other.png: prompt: word 2: expected");
  fails({directory.path() / "none.png"}, "none.png: cannot be read");
  fails({}, "pictures is required");
}
