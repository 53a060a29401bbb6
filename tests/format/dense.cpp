#include "ebb/format/dense.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace ebb;

TEST_CASE("dense: a segment is the elements") {
  CHECK(F32::layout(Shape{3, 5}, {}).codes_bytes == 60);
  CHECK(F16::layout(Shape{3, 5}, {}).codes_bytes == 30);
  CHECK(BF16::layout(Shape{3, 5}, {}).stored_bytes() == 30);
  CHECK(F32::layout(Shape{3, 5}, {}).bytes == segment_alignment);
  CHECK(F32::layout(Shape{}, {}).codes_bytes == 4);
  CHECK_THROWS_AS((F32::layout(Shape{std::numeric_limits<std::size_t>::max() / 2}, {})), ShapeError);
}

TEST_CASE("dense: one rounding in, exact out") {
  CHECK(F16::decode(F16::encode(1.0f + 0x1p-11f)) == 1.0f);  // a tie, to even
  CHECK(BF16::decode(BF16::encode(1.0f + 0x1p-8f)) == 1.0f);
  CHECK(F32::decode(F32::encode(0.1f)) == 0.1f);
}
