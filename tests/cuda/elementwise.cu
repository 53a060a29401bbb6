#include "ebb/cuda/elementwise.cuh"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "ebb/cuda/resource.hpp"
#include "ebb/epilogue/stages.hpp"
#include "random.hpp"

namespace {

using ebb::Matrix;
using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;

double as_double(auto value) { return static_cast<double>(static_cast<float>(value)); }

/// More rows than a grid is high.
template <class T>
void check_many_rows() {
  constexpr std::size_t rows = 70000;
  const auto x = random_values<T>(rows * 8, 5);
  const auto device_x = on_device(x);
  const auto y = poisoned<T>(rows * 8);
  check(ebb::cuda::launch_add(Matrix<const T>(device_x.data(), rows, 8), Matrix<const T>(device_x.data(), rows, 8),
                              Matrix<T>(y.data(), rows, 8), nullptr));
  const auto found = on_host(y);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < found.size(); ++i) wrong += as_double(found[i]) != 2 * as_double(x[i]);
  CHECK(wrong == 0);
}

template <class T>
void check_arithmetic() {
  unsigned seed = 1;
  for (const std::size_t columns : {1, 7, 64, 1000, 3072})
    for (const std::size_t padding : {0, 8, 1}) {
      CAPTURE(columns);
      CAPTURE(padding);
      constexpr std::size_t rows = 6;
      const std::size_t stride = columns + padding;
      const auto a = random_values<T>(rows * stride, ++seed, 3.0f), b = random_values<T>(rows * stride, ++seed, 3.0f),
                 gate = random_values<T>(2 * stride, ++seed);
      const auto device_a = on_device(a), device_b = on_device(b), device_gate = on_device(gate);
      const Matrix<T> left(device_a.data(), rows, columns, stride), right(device_b.data(), rows, columns, stride);
      const auto agrees = [&](auto launch, auto expected) {
        const auto y = poisoned<T>(rows * columns);
        check(launch(Matrix<T>(y.data(), rows, columns)));
        std::vector<double> reference;
        for (std::size_t row = 0; row < rows; ++row)
          for (std::size_t column = 0; column < columns; ++column)
            reference.push_back(expected(as_double(a[row * stride + column]), as_double(b[row * stride + column]),
                                         as_double(gate[row / 3 * stride + column])));
        CHECK(relative_error(on_host(y), reference) <= largest_error<T>);
      };
      const Matrix<T> gates(device_gate.data(), 2, columns, stride);
      agrees([&](Matrix<T> y) { return ebb::cuda::launch_map(left, ebb::Silu{}, y, nullptr); },
             [](double x, double, double) { return x / (1.0 + std::exp(-x)); });
      agrees(
          [&](Matrix<T> y) {
            return ebb::cuda::launch_map(left, ebb::GatedResidual{gates, 3, right}, y, nullptr);
          },
          [](double x, double residual, double g) { return residual + g * x; });
      agrees([&](Matrix<T> y) { return ebb::cuda::launch_add(left, right, y, nullptr); },
             [](double x, double z, double) { return x + z; });
      agrees([&](Matrix<T> y) { return ebb::cuda::launch_gated_residual(left, gates, 3, right, y, nullptr); },
             [](double x, double residual, double g) { return residual + g * x; });
      const auto wide_gate = on_device(std::vector<float>(gate.begin(), gate.end()));
      agrees(
          [&](Matrix<T> y) {
            return ebb::cuda::launch_gated_residual(left, Matrix<float>(wide_gate.data(), 2, columns, stride), 3, right,
                                                    y, nullptr);
          },
          [](double x, double residual, double g) { return residual + g * x; });
      const auto factors = on_device(std::vector<float>{0.25f, -2.0f});
      agrees(
          [&](Matrix<T> y) {
            return ebb::cuda::launch_linear_combination(std::array<Matrix<const T>, 2>{left, right}, factors.data(), y,
                                                        nullptr);
          },
          [](double x, double z, double) { return 0.25 * x - 2.0 * z; });
      const auto floats = poisoned<float>(rows * columns);
      check(ebb::cuda::launch_map(left, ebb::Identity{}, Matrix<float>(floats.data(), rows, columns), nullptr));
      agrees(
          [&](Matrix<T> y) {
            return ebb::cuda::launch_map(Matrix<float>(floats.data(), rows, columns), ebb::Identity{}, y, nullptr);
          },
          [](double x, double, double) { return x; });
      // in place, padding untouched
      check(ebb::cuda::launch_add(left, right, left, nullptr));
      const auto found = on_host(device_a);
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < found.size(); ++i) {
        const T expected = i % stride < columns ? T(static_cast<float>(a[i]) + static_cast<float>(b[i])) : a[i];
        wrong += std::memcmp(&found[i], &expected, sizeof(T)) != 0;
      }
      CHECK(wrong == 0);
    }
}

template <class T>
void check_upsampling() {
  for (const std::size_t channels : {1, 3, 16, 512}) {
    CAPTURE(channels);
    constexpr std::size_t batch = 2, height = 5, width = 7;
    const auto x = random_values<T>(batch * height * width * channels, 3);
    const auto device_x = on_device(x);
    const auto y = poisoned<T>(4 * x.size());
    check(ebb::cuda::launch_upsample_nearest(ebb::Image<T>{device_x.data(), batch, height, width, channels},
                                             ebb::Image<T>{y.data(), batch, 2 * height, 2 * width, channels}, nullptr));
    const auto found = on_host(y);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const std::size_t pixel = i / channels;
      const std::size_t column = pixel % (2 * width) / 2, row = pixel / (2 * width) % (2 * height) / 2;
      const std::size_t item = pixel / (4 * width * height);
      const T expected = x[((item * height + row) * width + column) * channels + i % channels];
      wrong += std::memcmp(&found[i], &expected, sizeof(T)) != 0;
    }
    CHECK(wrong == 0);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("maps and sums agree with double precision, strided and in place", T, float, ebb::bfloat16,
                   ebb::float16) {
  check_arithmetic<T>();
}

TEST_CASE_TEMPLATE("more rows than a grid is high", T, float, ebb::bfloat16, ebb::float16) { check_many_rows<T>(); }

TEST_CASE_TEMPLATE("upsampling copies exactly", T, float, ebb::bfloat16, ebb::float16) { check_upsampling<T>(); }

TEST_CASE_TEMPLATE("timestep embeddings agree with double precision", T, float, ebb::bfloat16, ebb::float16) {
  const std::vector<float> timesteps{0.0f, 1.0f, 17.25f, 999.0f};
  const auto device_timesteps = on_device(timesteps);
  const auto y = poisoned<T>(timesteps.size() * 256);
  check(ebb::cuda::launch_timestep_embedding(device_timesteps.data(), Matrix<T>(y.data(), timesteps.size(), 256),
                                             nullptr));
  std::vector<double> expected;
  for (const float t : timesteps)
    for (int i = 0; i < 256; ++i) {
      const double angle = static_cast<double>(t) * std::exp(-std::log(10000.0) * (i % 128) / 128.0);
      expected.push_back(i < 128 ? std::cos(angle) : std::sin(angle));
    }
  // float32 angles near 1000 carry an error of 6e-5 into the sines
  CHECK(relative_error(on_host(y), expected) <= std::max(largest_error<T>, 1e-4));
  CHECK(ebb::cuda::launch_timestep_embedding(device_timesteps.data(), Matrix<T>(y.data(), 1, 5), nullptr) ==
        cudaErrorInvalidValue);
}
