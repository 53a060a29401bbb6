#include "ebb/format/rowwise.hpp"

#include <doctest/doctest.h>

#include "ebb/format/fp8.hpp"
#include "ebb/format/int8.hpp"

using namespace ebb;

TEST_CASE("rowwise: rows are the outermost extent, a vector is one row") {
  CHECK(rows_of(Shape{}) == 1);
  CHECK(columns_of(Shape{}) == 1);
  CHECK(rows_of(Shape{7}) == 1);
  CHECK(columns_of(Shape{7}) == 7);
  CHECK(rows_of(Shape{3, 5}) == 3);
  CHECK(columns_of(Shape{3, 5, 2}) == 10);
}

TEST_CASE("rowwise: one byte an element and one float a row") {
  CHECK(INT8::layout(Shape{3, 5}, {}).codes_bytes == 15);
  CHECK(INT8::layout(Shape{3, 5}, {}).scales_bytes == 12);
  CHECK(FP8::layout(Shape{3, 5}, {}) == INT8::layout(Shape{3, 5}, {}));
  CHECK(FP8::layout(Shape{3, 0}, {}).stored_bytes() == 0);
}
