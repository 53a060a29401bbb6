#include "ebb/cuda/softmax.cuh"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ebb/cuda/resource.hpp"
#include "ebb/host/softmax.hpp"
#include "random.hpp"

namespace {

using ebb::Matrix;
using ebb::cuda::check;

constexpr float infinity = std::numeric_limits<float>::infinity();

template <class T>
void check_rows(std::size_t rows, std::size_t columns, std::size_t padding, float scale, unsigned seed) {
  CAPTURE(rows);
  CAPTURE(columns);
  CAPTURE(padding);
  const std::size_t stride = columns + padding;
  auto x = random_values<T>(rows * stride, seed, 4.0f);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (i % stride != 0 && i * 2654435761u % 5 == 0) x[i] = T(-infinity);
  std::vector<float> wide(x.begin(), x.end());
  ebb::Workspace workspace;
  const ebb::host::Context<float> host(workspace, 1);
  softmax(host, Matrix<const float>(wide.data(), rows, columns, stride), scale,
          Matrix<float>(wide.data(), rows, columns, stride));
  std::vector<float> expected;
  for (std::size_t row = 0; row < rows; ++row)
    expected.insert(expected.end(), wide.begin() + static_cast<std::ptrdiff_t>(row * stride),
                    wide.begin() + static_cast<std::ptrdiff_t>(row * stride + columns));

  const auto device_x = on_device(x);
  const Matrix<T> input(device_x.data(), rows, columns, stride);
  const auto y = poisoned<T>(rows * columns);
  check(ebb::cuda::launch_softmax(input, scale, Matrix<T>(y.data(), rows, columns), nullptr));
  const std::vector<T> first = on_host(y);
  CHECK(relative_error(first, expected) < operation_bound<T>);

  check(ebb::cuda::launch_softmax(input, scale, input, nullptr));  // in place: the same bits, and nothing between rows
  const std::vector<T> second = on_host(device_x);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < second.size(); ++i) {
    const T wanted = i % stride < columns ? first[i / stride * columns + i % stride] : x[i];
    wrong += std::memcmp(&second[i], &wanted, sizeof(T)) != 0;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE_TEMPLATE("softmax agrees with the host's, any width, strided and in place", T, float, ebb::bfloat16,
                   ebb::float16) {
  unsigned seed = 0;
  for (const std::size_t rows : {1, 7, 8, 66})
    for (const std::size_t columns : {1, 2, 31, 33, 64, 1000, 1023, 1024, 1025, 4097})
      for (const std::size_t padding : {0, 3})
        for (const float scale : {1.0f, 0.125f}) check_rows<T>(rows, columns, padding, scale, ++seed);
}

TEST_CASE("rows of nothing but -infinity, or with NaN, are NaN; large numbers do not overflow; sizes are checked") {
  for (const std::size_t columns : {3, 2000}) {
    CAPTURE(columns);
    std::vector<float> x(4 * columns, -infinity);
    std::fill_n(x.begin(), columns, 3e38f);
    x[3 * columns - 1] = std::nanf("");
    x[3 * columns + 1] = 5.0f;
    const auto memory = on_device(x);
    const Matrix<float> matrix(memory.data(), 4, columns);
    check(ebb::cuda::launch_softmax(matrix, 1.0f, matrix, nullptr));
    const std::vector<float> found = on_host(memory);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < columns; ++i) {
      wrong += std::abs(found[i] * static_cast<float>(columns) - 1.0f) > 1e-5f;
      wrong += !std::isnan(found[columns + i]) || !std::isnan(found[2 * columns + i]);
      wrong += found[3 * columns + i] != (i == 1 ? 1.0f : 0.0f);
    }
    CHECK(wrong == 0);
    CHECK(ebb::cuda::launch_softmax(Matrix<float>(nullptr, 4, 0), 1.0f, Matrix<float>(nullptr, 4, 0), nullptr) ==
          cudaSuccess);
    CHECK(ebb::cuda::launch_softmax(matrix, 1.0f, Matrix<float>(memory.data(), columns, 4), nullptr) ==
          cudaErrorInvalidValue);
  }
}
