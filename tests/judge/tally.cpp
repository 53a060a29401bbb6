#include "judge/tally.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <string>

#include "judge/drawn.hpp"

using namespace ebb;
using judge::Description;
using judge::Tally;

namespace {

/// Of one picture, when this much of its description is changed.
template <class Change>
Tally changed(const testing::Drawn& drawn, Change change) {
  Description asked = drawn.description;
  change(asked);
  Tally tally;
  tally.add(judge::compare(judge::look(drawn.picture), asked));
  return tally;
}

std::string row(const Tally& tally) { return tally.row("x"); }

}  // namespace

TEST_CASE("a wrong word is counted once, as what it is") {
  const auto all = testing::drawn_pictures();
  const auto drawn = *std::find_if(all.begin(), all.end(), [](const auto& one) {
    return one.description.objects.size() == 2 && one.description.relations.size() == 1;
  });
  CAPTURE(drawn.prompt);
  CHECK(row(changed(drawn, [](auto&) {})) == "| x | 1 of 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |\n");
  CHECK(row(changed(drawn, [](auto& d) { d.objects.push_back({}); })).starts_with("| x | 0 of 1 | 0 | 1 |"));
  const auto of = [&](const char* aspect, auto change) {
    const Tally tally = changed(drawn, change);
    CAPTURE(aspect);
    CHECK(tally.wrong(aspect) == 1);
    CHECK(tally.wrong("number") + tally.wrong("shape") + tally.wrong("colour") + tally.wrong("relation") +
              tally.wrong("size") + tally.wrong("texture") + tally.wrong("background") ==
          1);
    CHECK(tally.exact() == 0);
    return tally.right();
  };
  CHECK(of("shape", [](auto& d) { d.objects[1].shape = (d.objects[1].shape + 1) % judge::shapes.size(); }) == 0);
  CHECK(of("colour", [](auto& d) { d.objects[1].colour = (d.objects[1].colour + 1) % judge::colours.size(); }) == 0);
  CHECK(of("relation", [](auto& d) { d.relations[0].relation = (d.relations[0].relation + 1) % 4; }) == 0);
  CHECK(of("size", [](auto& d) { d.objects[0].size = (d.objects[0].size + 1) % 3; }) == 1);
  CHECK(of("texture", [](auto& d) { d.objects[0].texture = (d.objects[0].texture + 1) % 3; }) == 1);
  CHECK(of("background", [](auto& d) { d.ground_colour = (d.ground_colour + 1) % 8; }) == 1);
  CHECK(of("background", [](auto& d) { d.ground_pattern = (d.ground_pattern + 1) % 5; }) == 1);
}

TEST_CASE("sums and the table") {
  const auto all = testing::drawn_pictures();
  Tally tally;
  for (std::size_t i = 0; i < 10; ++i) tally.add(judge::compare(judge::look(all[i].picture), all[i].description));
  for (std::size_t i = 0; i < 3; ++i) tally.add(judge::compare(judge::look(all[i].picture), all[i + 1].description));
  CHECK(tally.pictures() == 13);
  CHECK(tally.right() == 10);
  CHECK(tally.exact() == 10);
  CHECK(tally.row("NF4").starts_with("| NF4 | 10 of 13 | 10 | "));
  CHECK(Tally::head() ==
        "| | right | exact | number wrong | shape wrong | colour wrong | relation wrong | size wrong | texture wrong | "
        "background wrong |\n|---|---|---|---|---|---|---|---|---|---|\n");
  CHECK_THROWS_AS((void)tally.wrong("horses"), ValueError);
}
