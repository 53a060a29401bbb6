#include "judge/verdict.hpp"

#include <doctest/doctest.h>

#include <cstddef>

#include "judge/drawn.hpp"
#include "judge/worn.hpp"

using namespace ebb;
using judge::Description;
using testing::blurred;
using testing::changed;

namespace {

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
        CHECK_FALSE(
            verdict([&](auto& d) { d.objects[i].shape = (d.objects[i].shape + by) % judge::shapes.size(); }).right());
      for (std::size_t by = 1; by < judge::colours.size(); ++by)
        CHECK_FALSE(verdict([&](auto& d) {
                      d.objects[i].colour = (d.objects[i].colour + by) % judge::colours.size();
                    }).right());
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
