#include "judge/sight.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <string_view>
#include <utility>

#include "judge/drawn.hpp"

using namespace ebb;

namespace {

examples::PngPicture plain(std::size_t width, std::size_t height, std::array<std::uint8_t, 3> colour) {
  examples::PngPicture picture{.width = width, .height = height, .pixels = {}, .text = {}};
  for (std::size_t i = 0; i < width * height; ++i)
    picture.pixels.insert(picture.pixels.end(), colour.begin(), colour.end());
  return picture;
}

}  // namespace

TEST_CASE("the committed pictures show every shape, colour, size, texture, background and relation") {
  std::set<std::pair<std::string_view, std::string_view>> seen;
  for (const auto& drawn : testing::drawn_pictures()) {
    const judge::Sight sight = judge::look(drawn.picture);
    CHECK(sight.strange < 0.005);
    for (const auto& object : sight.objects) {
      CHECK(object.likeness > 0.8);
      seen.insert(
          {{"shape", object.shape}, {"colour", object.colour}, {"size", object.size}, {"texture", object.texture}});
    }
    seen.insert({{"ground", sight.ground_colour}, {"pattern", sight.ground_pattern}});
  }
  CHECK(seen.size() == judge::shapes.size() + judge::colours.size() + judge::sizes.size() + judge::textures.size() +
                           judge::ground_colours.size() + judge::patterns.size());
}

TEST_CASE("a lone background has no objects") {
  const auto sight = judge::look(plain(100, 60, {158, 186, 236}));
  CHECK(sight.objects.empty());
  CHECK(sight.ground_colour == "blue");
  CHECK(sight.ground_pattern == "plain");
}

TEST_CASE("noise and colours that are no background show nothing") {
  auto noise = plain(128, 128, {0, 0, 0});
  std::mt19937 random(3);
  for (auto& value : noise.pixels) value = static_cast<std::uint8_t>(random());
  CHECK(judge::look(noise).strange > 0.1);
  CHECK(judge::look(plain(64, 64, {220, 40, 40})).ground_colour.empty());
  CHECK(judge::look(plain(64, 64, {0, 0, 0})).ground_colour.empty());
}

TEST_CASE("a rectangle of no world's shape is unknown") {
  auto picture = plain(128, 128, {162, 162, 168});
  for (std::size_t y = 60; y < 68; ++y)
    for (std::size_t x = 10; x < 110; ++x) {
      const std::array<std::uint8_t, 3> red{220, 40, 40};
      std::copy(red.begin(), red.end(), &picture.pixels[3 * (y * 128 + x)]);
    }
  const auto sight = judge::look(picture);
  REQUIRE(sight.objects.size() == 1);
  CHECK(sight.objects[0].shape == "unknown");
  CHECK(sight.objects[0].colour == "red");
  CHECK(sight.objects[0].x == doctest::Approx(60.0 / 128).epsilon(0.01));
  CHECK(sight.objects[0].y == doctest::Approx(0.5).epsilon(0.01));
}

TEST_CASE("pictures that are too small or too large to look at") {
  CHECK_THROWS_AS(judge::look(plain(31, 64, {1, 2, 3})), ShapeError);
  CHECK_THROWS_AS(judge::look(plain(64, 0, {1, 2, 3})), ShapeError);
  CHECK_THROWS_AS(judge::look(plain(4097, 32, {1, 2, 3})), ShapeError);
}
