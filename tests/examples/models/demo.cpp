// The weights in examples/models/demo, through the whole program.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "support/demo.hpp"

using namespace ebb;

namespace {

// Ten pictures take minutes there, and no path that the other cases do not take.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

}  // namespace

TEST_CASE("ten held-out prompts in NF4: at least eight pictures show what was asked for" * doctest::skip(sanitized)) {
  const auto prompts = testing::held_out(10);
  CHECK(testing::right(testing::drawn(prompts, 28, "host"), prompts) >= 8);
}

TEST_CASE("a prompt outside of the grammar gives a picture") {
  std::string long_prompt;
  for (int i = 0; i < 1000; ++i) long_prompt += i % 2 == 0 ? "a red ring " : "lighthouse, ";
  const std::vector<std::string> prompts{"", "a lighthouse at low tide",
                                         "\u00dcber dem Meer \u6708 \U0001f30a\u200d\u2728", "\xff\xfe broken \xc3",
                                         long_prompt};
  for (const auto& picture : testing::drawn(prompts, 2, "host")) {
    CHECK(picture.width == 128);
    CHECK(picture.height == 128);
    const auto [least, most] = std::minmax_element(picture.pixels.begin(), picture.pixels.end());
    CHECK(*most - *least > 10);  // not one colour, as it would be of NaNs
  }
}

TEST_CASE("the files are small enough for a repository") {
  std::uintmax_t total = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(testing::models / "demo"))
    if (entry.is_regular_file()) {
      CHECK(entry.file_size() <= 10'000'000);
      total += entry.file_size();
    }
  CHECK(total > 1'000'000);
  CHECK(total <= 16'000'000);
}
