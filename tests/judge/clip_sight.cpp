#include "judge/clip_sight.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "judge/drawn.hpp"

using namespace ebb;

namespace {

std::vector<examples::PngPicture> plain(std::size_t frames, std::size_t side) {
  examples::PngPicture picture{.width = side, .height = side, .pixels = {}, .text = {}};
  for (std::size_t i = 0; i < side * side; ++i)
    for (const int value : {158, 186, 236}) picture.pixels.push_back(static_cast<std::uint8_t>(value));
  return std::vector(frames, picture);
}

}  // namespace

TEST_CASE("the committed clips show every shape, colour, size, motion, order, ground kind and pattern") {
  std::set<std::pair<std::string_view, std::string_view>> seen;
  for (const auto& clip : testing::drawn_clips()) {
    const judge::ClipSight sight = judge::watch(clip.frames);
    CHECK(sight.frames == 17);
    CHECK(sight.strange < 0.005);
    for (const auto& object : sight.objects) {
      CHECK(object.likeness > 0.8);
      for (const auto& fact : {std::pair{"shape", object.shape},
                               {"colour", object.colour},
                               {"size", object.size},
                               {"motion", object.motion}})
        seen.insert(fact);
    }
    seen.insert({"kind", sight.ground_kind});
    seen.insert({"pattern", sight.ground_pattern});
  }
  CHECK(seen.size() == judge::clip_shapes.size() + judge::colours.size() + judge::clip_sizes.size() +
                           judge::motions.size() + 1 /* still */ + judge::ground_kinds.size() + judge::patterns.size());
}

TEST_CASE("positions are those of the middle, in parts of the side") {
  auto frames = plain(5, 100);
  for (std::size_t frame = 0; frame < 5; ++frame)
    for (std::size_t y = 40; y < 60; ++y)
      for (std::size_t x = 10 + 15 * frame; x < 30 + 15 * frame; ++x) {
        const std::array<std::uint8_t, 3> red{220, 40, 40};
        std::copy(red.begin(), red.end(), &frames[frame].pixels[3 * (y * 100 + x)]);
      }
  const auto sight = judge::watch(frames);
  REQUIRE(sight.objects.size() == 1);
  CHECK(sight.objects[0].shape == "square");
  CHECK(sight.objects[0].colour == "red");
  CHECK(sight.objects[0].motion == "right");
  REQUIRE(sight.objects[0].path.size() == 5);
  for (const auto& moment : sight.objects[0].path) {
    CHECK(moment.x == doctest::Approx(0.2 + 0.15 * static_cast<double>(moment.frame)));
    CHECK(moment.y == doctest::Approx(0.5));
  }
}

TEST_CASE("a lone background has no objects, and noise shows nothing") {
  auto frames = plain(5, 64);
  const auto sight = judge::watch(frames);
  CHECK(sight.objects.empty());
  CHECK(sight.ground_kind == "background");
  CHECK(sight.ground_colour == "blue");
  CHECK(sight.ground_pattern == "plain");
  std::mt19937 random(3);
  for (auto& frame : frames)
    for (auto& value : frame.pixels) value = static_cast<std::uint8_t>(random());
  CHECK(judge::watch(frames).strange > 0.1);
  for (auto& frame : frames) std::fill(frame.pixels.begin(), frame.pixels.end(), std::uint8_t{0});
  CHECK(judge::watch(frames).ground_colour.empty());
}

TEST_CASE("clips that are too short or too small to watch") {
  CHECK_THROWS_WITH_AS(judge::watch(plain(4, 64)), doctest::Contains("at least 5 frames, found 4"), ShapeError);
  CHECK_THROWS_AS(judge::watch(plain(5, 31)), ShapeError);
}
