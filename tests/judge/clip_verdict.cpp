#include "judge/clip_verdict.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "judge/drawn.hpp"
#include "judge/worn.hpp"

using namespace ebb;
using judge::ClipDescription;

namespace {

using Frames = std::vector<examples::PngPicture>;

bool right(const Frames& frames, const ClipDescription& description) {
  return judge::compare(judge::watch(frames), description).right();
}

Frames each(Frames frames, const std::function<examples::PngPicture(const examples::PngPicture&)>& change) {
  for (auto& frame : frames) frame = change(frame);
  return frames;
}

}  // namespace

TEST_CASE("what was drawn is right in every detail, and is no other clip") {
  const auto all = testing::drawn_clips();
  REQUIRE(all.size() == 14);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CAPTURE(all[i].prompt);
    const judge::ClipSight sight = judge::watch(all[i].frames);
    for (std::size_t j = 0; j < all.size(); ++j) CHECK(judge::compare(sight, all[j].description).exact() == (i == j));
  }
}

TEST_CASE("one wrong word about a clip is noticed") {
  for (const auto& clip : testing::drawn_clips()) {
    CAPTURE(clip.prompt);
    const judge::ClipSight sight = judge::watch(clip.frames);
    const auto verdict = [&](auto change) {
      ClipDescription description = clip.description;
      change(description);
      return judge::compare(sight, description);
    };
    const auto next = [](std::size_t& value, std::size_t by, std::size_t count) { value = (value + by) % count; };
    for (std::size_t by = 1; by < judge::clip_shapes.size(); ++by)
      CHECK_FALSE(verdict([&](auto& d) { next(d.moving.shape, by, judge::clip_shapes.size()); }).right());
    for (std::size_t by = 1; by < judge::colours.size(); ++by)
      CHECK_FALSE(verdict([&](auto& d) { next(d.moving.colour, by, judge::colours.size()); }).right());
    for (std::size_t by = 1; by < judge::motions.size(); ++by)
      CHECK_FALSE(verdict([&](auto& d) { next(d.motion, by, judge::motions.size()); }).right());
    const auto resized = verdict([&](auto& d) { next(d.moving.size, 1, 2); });
    CHECK(resized.right());
    CHECK_FALSE(resized.exact());
    CHECK_FALSE(verdict([&](auto& d) { next(d.ground_kind, 1, 2); }).exact());
    CHECK_FALSE(verdict([&](auto& d) { next(d.ground_colour, 1, judge::ground_colours.size()); }).exact());
    CHECK_FALSE(verdict([&](auto& d) { next(d.ground_pattern, 1, judge::patterns.size()); }).exact());
    if (clip.description.still) {
      CHECK_FALSE(verdict([&](auto& d) { d.still.reset(); }).right());
      CHECK_FALSE(verdict([&](auto& d) { std::swap(d.moving, d.still->object); }).right());
      CHECK_FALSE(verdict([&](auto& d) { next(d.still->object.shape, 3, judge::clip_shapes.size()); }).right());
      const auto reordered = verdict([&](auto& d) { next(d.still->order, 1, 2); });
      CHECK(reordered.right());
      CHECK_FALSE(reordered.exact());
    } else {
      CHECK_FALSE(verdict([&](auto& d) { d.still.emplace(); }).right());
    }
  }
}

TEST_CASE("blur, brightness and noise of a small model do not change the verdict on a clip") {
  for (const auto& clip : testing::drawn_clips()) {
    CAPTURE(clip.prompt);
    const auto still_right = [&](const auto& change) { CHECK(right(each(clip.frames, change), clip.description)); };
    still_right([](const auto& frame) { return testing::blurred(frame, 2); });
    still_right([](const auto& frame) { return testing::changed(frame, 1.08, 0); });
    still_right([](const auto& frame) { return testing::changed(frame, 0.92, 0); });
    still_right([](const auto& frame) { return testing::changed(frame, 1.0, 8); });
  }
}

TEST_CASE("a clip backwards, one that stops halfway, one whose object vanishes, and noise are not right") {
  for (const auto& clip : testing::drawn_clips()) {
    CAPTURE(clip.prompt);
    const std::size_t frames = clip.frames.size();
    Frames backwards(clip.frames.rbegin(), clip.frames.rend());
    const bool bounces = judge::motions[clip.description.motion] == "bounce";
    CHECK(right(backwards, clip.description) == bounces);
    Frames stops = clip.frames;
    std::fill(stops.begin() + 3, stops.end(), stops[2]);
    CHECK_FALSE(right(stops, clip.description));
    Frames vanishes = clip.frames;
    for (std::size_t i = 0; i < frames; i += 2) {  // the ground's colour, from a corner where nothing is
      auto& pixels = vanishes[i].pixels;
      for (std::size_t at = 3; at < pixels.size(); ++at) pixels[at] = pixels[at - 3];
    }
    CHECK_FALSE(right(vanishes, clip.description));
    CHECK_FALSE(
        right(each(clip.frames, [](const auto& frame) { return testing::changed(frame, 1, 90); }), clip.description));
  }
}
