#include "ebb/host/softmax.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "support/error.hpp"
#include "support/random.hpp"

using namespace ebb;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

template <Element T>
struct Run {
  Workspace workspace;
  host::Context<T> ctx{workspace, 2};
};

/// In place, between gaps that stay as they are, with some entries that weigh nothing.
template <Element T>
void check_rows(testing::Random& random, std::size_t rows, std::size_t columns, std::size_t gap, float scale) {
  CAPTURE(rows);
  CAPTURE(columns);
  Run<T> run;
  const std::size_t stride = columns + gap;
  auto x = random.normal<T>(rows * stride, 4.0f);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (columns > 1 && i % stride != 0 && random.below(4) == 0) x[i] = static_cast<T>(-infinity);
  const std::vector<T> given = x;
  softmax(run.ctx, Matrix<const T>(x.data(), rows, columns, stride), scale, Matrix<T>(x.data(), rows, columns, stride));
  std::vector<T> found;
  std::vector<double> expected;
  for (std::size_t row = 0; row < rows; ++row) {
    const auto at = [&](std::size_t i) {
      return static_cast<double>(static_cast<float>(given[row * stride + i])) * static_cast<double>(scale);
    };
    double largest = at(0), sum = 0.0;
    for (std::size_t i = 1; i < columns; ++i) largest = std::max(largest, at(i));
    for (std::size_t i = 0; i < columns; ++i) sum += std::exp(at(i) - largest);
    for (std::size_t i = 0; i < columns; ++i) {
      found.push_back(x[row * stride + i]);
      expected.push_back(std::exp(at(i) - largest) / sum);
    }
    for (std::size_t i = columns; i < stride; ++i)
      CHECK(static_cast<float>(x[row * stride + i]) == static_cast<float>(given[row * stride + i]));
  }
  CHECK(testing::relative_error(found, expected) < testing::operation_bound<T>);
}

}  // namespace

TEST_CASE_TEMPLATE("softmax agrees with double precision", T, float, bfloat16, float16) {
  testing::Random random(91);
  for (const std::size_t rows : {1, 2, 37})
    for (const std::size_t columns : {1, 2, 33, 1000, 3001})
      for (const float scale : {1.0f, 0.125f}) check_rows<T>(random, rows, columns, rows % 2 == 0 ? 8 : 0, scale);
}

TEST_CASE("softmax of large numbers does not overflow; of nothing but -infinity, or of NaN, it is NaN") {
  Run<float> run;
  std::vector<float> x{3e38f, 3e38f,         -3e38f, -infinity, -infinity, -infinity,
                       0.0f,  std::nanf(""), 1.0f,   -infinity, 5.0f,      -infinity};
  softmax(run.ctx, Matrix<const float>(x.data(), 4, 3), 1.0f, Matrix<float>(x.data(), 4, 3));
  CHECK(std::vector<float>(x.begin(), x.begin() + 3) == std::vector<float>{0.5f, 0.5f, 0.0f});
  for (std::size_t i = 3; i < 9; ++i) CHECK(std::isnan(x[i]));
  CHECK(std::vector<float>(x.begin() + 9, x.end()) == std::vector<float>{0.0f, 1.0f, 0.0f});
  softmax(run.ctx, Matrix<const float>(x.data(), 4, 0), 1.0f, Matrix<float>(x.data(), 4, 0));
  CHECK_THROWS_AS(softmax(run.ctx, Matrix<const float>(x.data(), 4, 3), 1.0f, Matrix<float>(x.data(), 3, 4)),
                  ShapeError);
}
