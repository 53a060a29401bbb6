// The weights in examples/models/demo_wan, through the whole program.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/items.hpp"
#include "judge/clip_description.hpp"
#include "judge/clip_sight.hpp"
#include "judge/clip_verdict.hpp"
#include "judge/frames.hpp"
#include "support/temporary_directory.hpp"
#include "wan/program.hpp"

using namespace ebb;

namespace {

const std::filesystem::path models = EBB_MODELS_DIR;

// Ten videos take minutes there, and no path that the other cases do not take.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

std::vector<std::string> held_out(std::size_t count) {
  std::ifstream file(models / "moving_held_out.txt");
  std::vector<std::string> prompts(count);
  for (std::string& prompt : prompts) REQUIRE(std::getline(file, prompt));
  return prompts;
}

/// The frames of a video of each prompt, as quickstart.sh and evaluate_wan.sh make them. One thread: tests run beside
/// each other.
std::vector<std::vector<examples::PngPicture>> drawn(const std::vector<std::string>& prompts, std::size_t steps) {
  const testing::TemporaryDirectory directory;
  wan::Options options;
  options.model = (models / "demo_wan").string();
  options.prompts = prompts;
  options.height = options.width = 96;
  options.num_frames = 17;
  options.fps = 8;
  options.steps = steps;
  options.guidance = 3;
  options.device = "host";
  options.threads = 1;
  options.quiet = true;
  options.output = (directory.path() / "video.y4m").string();
  std::ostringstream out;
  wan::run(options, out);
  std::vector<std::vector<examples::PngPicture>> videos;
  for (std::size_t i = 0; i < prompts.size(); ++i)
    videos.push_back(judge::read_frames(examples::numbered(options.output, i, prompts.size())));
  return videos;
}

}  // namespace

TEST_CASE("ten held-out prompts in NF4: at least eight videos show what was asked for" * doctest::skip(sanitized)) {
  const auto prompts = held_out(10);
  const auto videos = drawn(prompts, 20);
  std::size_t right = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto verdict = judge::compare(judge::watch(videos[i]), judge::ClipDescription::parse(prompts[i]));
    INFO(prompts[i]);
    WARN(verdict.right());
    right += verdict.right();
  }
  CHECK(right >= 8);
}

TEST_CASE("a prompt outside of the grammar gives a video") {
  for (const auto& video : drawn({"", "a lighthouse at low tide", "\xff\xfe broken \xc3"}, 2)) {
    REQUIRE(video.size() == 17);
    CHECK(video.front().width == 96);
    CHECK(video.front().height == 96);
    const auto [least, most] = std::minmax_element(video.back().pixels.begin(), video.back().pixels.end());
    CHECK(*most - *least > 10);  // not one colour, as it would be of NaNs
  }
}

TEST_CASE("the files are small enough for a repository") {
  std::uintmax_t total = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(models / "demo_wan"))
    if (entry.is_regular_file()) {
      CHECK(entry.file_size() <= 10'000'000);
      total += entry.file_size();
    }
  CHECK(total > 1'000'000);
  CHECK(total <= 16'000'000);
}
