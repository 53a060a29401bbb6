#include "ebb/cuda/gemm.cuh"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ebb/cuda/resource.hpp"
#include "ebb/epilogue/stages.hpp"
#include "random.hpp"

namespace {

using ebb::Matrix;
using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;

/// How rows lie in memory: elements before the first one, and between the end of one and the next.
struct Layout {
  std::size_t offset;
  std::size_t padding;
};
constexpr Layout layouts[] = {{0, 0}, {8, 8}, {0, 3}, {1, 0}};

/// Random rows with NaN around them.
template <class T>
struct Rows {
  std::size_t rows, columns, stride, offset;
  std::vector<T> values;
  DeviceBuffer<T> memory;
  Rows(std::size_t row_count, std::size_t column_count, Layout layout, unsigned seed)
      : rows(row_count), columns(column_count), stride(column_count + layout.padding), offset(layout.offset) {
    values.assign(offset + rows * stride, T(std::numeric_limits<float>::quiet_NaN()));
    const auto random = random_values<T>(rows * columns, seed);
    for (std::size_t i = 0; i < random.size(); ++i) values[offset + i / columns * stride + i % columns] = random[i];
    memory = on_device(values);
  }
  Matrix<T> matrix() const { return {memory.data() + offset, rows, columns, stride}; }
  double operator()(std::size_t row, std::size_t column) const {
    return static_cast<double>(static_cast<float>(values[offset + row * stride + column]));
  }
};

template <class T>
double product(const Rows<T>& x, const Rows<T>& weight, std::size_t row, std::size_t column) {
  double sum = 0.0;
  for (std::size_t k = 0; k < x.columns; ++k) sum += x(row, k) * weight(column, k);
  return sum;
}

/// What `y` holds now agrees with `expected(row, column)` in every `step`-th row; nothing around it has changed.
template <class T, class Expected>
void agrees(const Rows<T>& y, std::size_t step, Expected expected) {
  const auto found = on_host(y.memory);
  std::vector<T> samples;
  std::vector<double> reference;
  for (std::size_t row = 0; row < y.rows; row += step)
    for (std::size_t column = 0; column < y.columns; ++column) {
      samples.push_back(found[y.offset + row * y.stride + column]);
      reference.push_back(expected(row, column));
    }
  CHECK(relative_error(samples, reference) <= largest_error<T>);
  std::size_t touched = 0;
  for (std::size_t i = 0; i < found.size(); ++i)
    if (i < y.offset || (i - y.offset) % y.stride >= y.columns)
      touched += std::memcmp(&found[i], &y.values[i], sizeof(T)) != 0;
  CHECK(touched == 0);
}

struct Shape {
  std::size_t m, n, k;
};

template <class T>
void check_shape(const Shape& shape, const Layout& layout, std::size_t step, unsigned seed) {
  const auto [m, n, k] = shape;
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(layout.offset);
  CAPTURE(layout.padding);
  const Rows<T> x(m, k, layout, seed), weight(n, k, layout, seed + 1), y(m, n, layout, seed + 2);
  const Rows<T> gate(2, n, {0, 0}, seed + 3), residual(m, n, layout, seed + 4);
  const auto bias = random_values<float>(n, seed + 5);
  const auto device_bias = on_device(bias);
  const std::size_t rows_per_item = (m + 1) / 2;
  check(ebb::cuda::launch_gemm(x.matrix(), weight.matrix(), ebb::Identity{}, y.matrix(), nullptr));
  agrees(y, step, [&](std::size_t row, std::size_t column) { return product(x, weight, row, column); });
  const auto first = on_host(y.memory);
  check(ebb::cuda::launch_gemm(x.matrix(), weight.matrix(), ebb::Identity{}, y.matrix(), nullptr));
  CHECK(std::memcmp(on_host(y.memory).data(), first.data(), first.size() * sizeof(T)) == 0);

  check(ebb::cuda::launch_gemm(
      x.matrix(), weight.matrix(),
      ebb::chain(ebb::Bias{device_bias.data()}, ebb::GatedResidual{gate.matrix(), rows_per_item, residual.matrix()}),
      residual.matrix(), nullptr));
  agrees(residual, step, [&](std::size_t row, std::size_t column) {
    return residual(row, column) +
           gate(row / rows_per_item, column) * (product(x, weight, row, column) + static_cast<double>(bias[column]));
  });
}

}  // namespace

TEST_CASE_TEMPLATE("gemm agrees with double precision at any extents and alignment", T, float, ebb::bfloat16,
                   ebb::float16) {
  unsigned seed = 1;
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{1, 70, 8}, Shape{3, 5, 7}, Shape{64, 64, 32}, Shape{65, 63, 33},
                             Shape{17, 130, 1}, Shape{70, 1, 40}, Shape{128, 96, 72}, Shape{130, 67, 200}})
    for (const Layout& layout : layouts) check_shape<T>(shape, layout, 1, seed += 10);
}

TEST_CASE_TEMPLATE("gemm agrees with double precision where y fills the device", T, float, ebb::bfloat16,
                   ebb::float16) {
  check_shape<T>({1669, 1701, 136}, {0, 0}, 97, 1000);
  check_shape<T>({1793, 1792, 40}, {8, 8}, 97, 2000);
  check_shape<T>({1669, 1701, 33}, {1, 0}, 97, 3000);
}

TEST_CASE_TEMPLATE("gemm of depth zero is the epilogue of zero", T, float, ebb::bfloat16, ebb::float16) {
  constexpr std::size_t m = 5, n = 70;
  const auto bias = random_values<float>(n, 1);
  const auto device_bias = on_device(bias);
  const Rows<T> y(m, n, {0, 0}, 2);
  check(ebb::cuda::launch_gemm(Matrix<const T>(nullptr, m, 0), Matrix<const T>(nullptr, n, 0),
                               ebb::Bias{device_bias.data()}, y.matrix(), nullptr));
  agrees(y, 1, [&](std::size_t, std::size_t column) { return static_cast<double>(bias[column]); });
}

TEST_CASE("gemm does nothing without elements and refuses what does not fit together") {
  const DeviceBuffer<float> memory(64);
  const Matrix<float> x(memory.data(), 2, 8), none(memory.data(), 0, 8);
  const Matrix<float> y(memory.data(), 2, 2);
  const auto launch = [](auto... matrices) {
    return ebb::cuda::launch_gemm<float>(matrices..., ebb::Identity{}, Matrix<float>(nullptr, 0, 2), nullptr);
  };
  CHECK(launch(none, x) == cudaSuccess);
  CHECK(launch(x, x) == cudaErrorInvalidValue);
  CHECK(ebb::cuda::launch_gemm(x, Matrix<float>(memory.data(), 2, 7), ebb::Identity{}, y, nullptr) ==
        cudaErrorInvalidValue);
  CHECK(ebb::cuda::launch_gemm(x, Matrix<float>(memory.data(), 3, 8), ebb::Identity{}, y, nullptr) ==
        cudaErrorInvalidValue);
}
