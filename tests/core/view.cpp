#include "ebb/core/view.hpp"

#include <doctest/doctest.h>

#include <numeric>
#include <vector>

TEST_CASE("row and column ranges of a matrix share its memory") {
  std::vector<int> memory(20);
  std::iota(memory.begin(), memory.end(), 0);
  const ebb::Matrix<int> matrix(memory.data(), 4, 5);
  const auto middle = matrix.rows_from(1, 2).columns_from(2, 3);
  CHECK(middle.rows == 2);
  CHECK(middle.columns == 3);
  CHECK(middle.stride == 5);
  CHECK(middle(1, 2) == 14);
  middle(0, 0) = -1;
  CHECK(matrix(1, 2) == -1);
  CHECK(!middle.contiguous());
  CHECK(matrix.rows_from(4, 0).rows == 0);
  CHECK_THROWS_AS((void)matrix.rows_from(3, 2), ebb::ShapeError);
  CHECK_THROWS_AS((void)matrix.columns_from(6, 0), ebb::ShapeError);
}

TEST_CASE("an image is a matrix of pixels") {
  std::vector<float> memory(2 * 3 * 4 * 5);
  const ebb::Image<float> image{memory.data(), 2, 3, 4, 5};
  image(1, 2, 3, 4) = 7.0f;
  CHECK(memory.back() == 7.0f);
  CHECK(image.pixels().rows == 24);
  CHECK(image.pixels()(23, 4) == 7.0f);
}
