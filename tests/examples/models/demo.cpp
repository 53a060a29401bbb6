// The weights in examples/models/demo, through the whole program.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/png.hpp"
#include "flux/program.hpp"
#include "judge/description.hpp"
#include "judge/sight.hpp"
#include "judge/verdict.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;

namespace {

const std::filesystem::path models = EBB_MODELS_DIR;

// Ten pictures take minutes there, and no path that the other cases do not take.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

std::vector<std::string> held_out(std::size_t count) {
  std::ifstream file(models / "held_out.txt");
  std::vector<std::string> prompts(count);
  for (std::string& prompt : prompts) REQUIRE(std::getline(file, prompt));
  return prompts;
}

/// As quickstart.sh and evaluate.sh draw. One thread: tests run beside each other.
std::vector<examples::PngPicture> drawn(const std::vector<std::string>& prompts, std::size_t steps) {
  const testing::TemporaryDirectory directory;
  flux::Options options;
  options.model = (models / "demo").string();
  options.prompts = prompts;
  options.height = options.width = 128;
  options.max_sequence_length = 40;
  options.steps = steps;
  options.device = "host";
  options.threads = 1;
  options.quiet = true;
  options.output = (directory.path() / "picture.png").string();
  std::ostringstream out;
  flux::run(options, out);
  std::vector<examples::PngPicture> pictures;
  for (std::size_t i = 0; i < prompts.size(); ++i)
    pictures.push_back(examples::read_png(examples::numbered(options.output, i, prompts.size())));
  return pictures;
}

}  // namespace

TEST_CASE("ten held-out prompts in NF4: at least eight pictures show what was asked for" * doctest::skip(sanitized)) {
  const auto prompts = held_out(10);
  const auto pictures = drawn(prompts, 28);
  std::size_t right = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto verdict = judge::compare(judge::look(pictures[i]), judge::Description::parse(prompts[i]));
    INFO(prompts[i]);
    WARN(verdict.right());
    right += verdict.right();
  }
  CHECK(right >= 8);
}

TEST_CASE("a prompt outside of the grammar gives a picture") {
  std::string long_prompt;
  for (int i = 0; i < 1000; ++i) long_prompt += i % 2 == 0 ? "a red ring " : "lighthouse, ";
  const std::vector<std::string> prompts{"", "a lighthouse at low tide",
                                         "\u00dcber dem Meer \u6708 \U0001f30a\u200d\u2728", "\xff\xfe broken \xc3",
                                         long_prompt};
  for (const auto& picture : drawn(prompts, 2)) {
    CHECK(picture.width == 128);
    CHECK(picture.height == 128);
    const auto [least, most] = std::minmax_element(picture.pixels.begin(), picture.pixels.end());
    CHECK(*most - *least > 10);  // not one colour, as it would be of NaNs
  }
}

TEST_CASE("the files are small enough for a repository") {
  std::uintmax_t total = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(models / "demo"))
    if (entry.is_regular_file()) {
      CHECK(entry.file_size() <= 10'000'000);
      total += entry.file_size();
    }
  CHECK(total > 1'000'000);
  CHECK(total <= 16'000'000);
}
