#include "ebb/core/shape.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

TEST_CASE("a shape counts its elements and prints itself") {
  const ebb::Shape shape{3, 0x10, 2};
  CHECK(shape.rank() == 3);
  CHECK(shape.elements() == 96);
  CHECK(shape.text() == "[3, 16, 2]");
  CHECK(ebb::Shape{}.elements() == 1);
  CHECK(shape == ebb::Shape{3, 16, 2});
  CHECK(shape != ebb::Shape{3, 16});
}

TEST_CASE("sizes that overflow are refused") {
  CHECK_THROWS_AS((void)ebb::checked_product(SIZE_MAX, 2), ebb::ShapeError);
  CHECK(ebb::checked_product(SIZE_MAX, 1) == SIZE_MAX);
  CHECK(ebb::checked_product(SIZE_MAX, 0) == 0);
  CHECK(ebb::ceil_divide(SIZE_MAX, 2) == SIZE_MAX / 2 + 1);
  const std::vector<std::size_t> huge{std::size_t{1} << 40, std::size_t{1} << 40};
  CHECK_THROWS_AS((void)ebb::Shape(huge).elements(), ebb::ShapeError);
  const std::vector<std::size_t> six(6, 1);
  CHECK_THROWS_AS((void)ebb::Shape(six), ebb::ShapeError);
}
