#include "ebb/format/format.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace ebb;

TEST_CASE("format: alignment and sums refuse to wrap") {
  constexpr std::size_t huge = std::numeric_limits<std::size_t>::max();
  CHECK(align_up(0, 256) == 0);
  CHECK(align_up(1, 256) == 256);
  CHECK(align_up(256, 256) == 256);
  CHECK_THROWS_AS(align_up(huge - 3, 256), ShapeError);
  CHECK_THROWS_AS(checked_sum(huge, 1), ShapeError);
  CHECK(checked_sum(huge - 1, 1) == huge);
}

TEST_CASE("format: an empty tensor has an empty segment") { CHECK(layout_of_parts(0).bytes == 0); }
