#include "judge/verdict.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "judge/drawn.hpp"

using namespace ebb;
using judge::Description;

namespace {

/// Convolved with [1 2 1] / 4 `times` times each way: a Gaussian of standard deviation sqrt(times / 2).
examples::PngPicture blurred(examples::PngPicture picture, int times) {
  const auto pass = [&](std::size_t step, std::size_t stride, std::size_t length) {
    const auto before = picture.pixels;
    for (std::size_t i = 0; i < before.size(); ++i) {
      const std::size_t at = i / stride % length;
      const int here = before[i], low = at > 0 ? before[i - step] : here, high = at + 1 < length ? before[i + step] : here;
      picture.pixels[i] = static_cast<std::uint8_t>((low + 2 * here + high + 2) / 4);
    }
  };
  for (int i = 0; i < times; ++i) {
    pass(3, 3, picture.width);
    pass(3 * picture.width, 3 * picture.width, picture.height);
  }
  return picture;
}

examples::PngPicture changed(examples::PngPicture picture, double factor, double noise) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal(0.0, 1.0);
  for (auto& value : picture.pixels)
    value = static_cast<std::uint8_t>(std::clamp(std::lround(factor * value + noise * normal(random)), 0l, 255l));
  return picture;
}

bool right(const examples::PngPicture& picture, const Description& description) {
  return judge::compare(judge::look(picture), description).right();
}

}  // namespace

TEST_CASE("what was drawn is right in every detail, and is no other picture") {
  const auto all = testing::drawn_pictures();
  REQUIRE(all.size() == 60);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CAPTURE(all[i].prompt);
    const judge::Sight sight = judge::look(all[i].picture);
    CHECK(judge::compare(sight, all[i].description).exact());
    for (std::size_t j = 0; j < all.size(); ++j)
      if (j != i) CHECK_FALSE(judge::compare(sight, all[j].description).exact());
  }
}

TEST_CASE("one wrong word is noticed") {
  for (const auto& drawn : testing::drawn_pictures()) {
    CAPTURE(drawn.prompt);
    const judge::Sight sight = judge::look(drawn.picture);
    const auto verdict = [&](auto change) {
      Description description = drawn.description;
      change(description);
      return judge::compare(sight, description);
    };
    for (std::size_t i = 0; i < drawn.description.objects.size(); ++i) {
      for (std::size_t by = 1; by < judge::shapes.size(); ++by)
        CHECK_FALSE(verdict([&](auto& d) { d.objects[i].shape = (d.objects[i].shape + by) % judge::shapes.size(); }).right());
      for (std::size_t by = 1; by < judge::colours.size(); ++by)
        CHECK_FALSE(
            verdict([&](auto& d) { d.objects[i].colour = (d.objects[i].colour + by) % judge::colours.size(); }).right());
      const auto resized = verdict([&](auto& d) { d.objects[i].size = (d.objects[i].size + 1) % 3; });
      CHECK(resized.right());
      CHECK_FALSE(resized.exact());
      CHECK_FALSE(verdict([&](auto& d) { d.objects[i].texture = (d.objects[i].texture + 1) % 3; }).exact());
    }
    for (std::size_t i = 0; i < drawn.description.relations.size(); ++i)
      for (std::size_t by = 1; by < 4; ++by)
        CHECK_FALSE(verdict([&](auto& d) { d.relations[i].relation = (d.relations[i].relation + by) % 4; }).right());
    CHECK_FALSE(verdict([](auto& d) { d.objects.push_back({}); }).right());
    if (drawn.description.objects.size() > 1)
      CHECK_FALSE(verdict([](auto& d) { d.objects.pop_back(), d.relations.clear(); }).right());
    CHECK_FALSE(verdict([](auto& d) { d.ground_colour = (d.ground_colour + 1) % 8; }).exact());
    CHECK_FALSE(verdict([](auto& d) { d.ground_pattern = (d.ground_pattern + 1) % 5; }).exact());
  }
}

TEST_CASE("blur, brightness and noise of a small model do not change the verdict") {
  for (const auto& drawn : testing::drawn_pictures()) {
    CAPTURE(drawn.prompt);
    CHECK(right(blurred(drawn.picture, 2), drawn.description));
    CHECK(right(changed(drawn.picture, 1.08, 0), drawn.description));
    CHECK(right(changed(drawn.picture, 0.92, 0), drawn.description));
    CHECK(right(changed(drawn.picture, 1.0, 8), drawn.description));
  }
}

TEST_CASE("noise shows nothing that was asked for, nor does a picture that noise covers") {
  for (const auto& drawn : testing::drawn_pictures()) {
    CHECK_FALSE(right(changed(drawn.picture, 0, 80), drawn.description));
    CHECK_FALSE(right(changed(drawn.picture, 1, 90), drawn.description));
  }
}
