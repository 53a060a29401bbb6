#include "ebb/cuda/norm.cuh"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "ebb/cuda/group_norm.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/epilogue/stages.hpp"
#include "random.hpp"

namespace {

using ebb::Matrix;
using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;

constexpr float epsilon = 1e-6f;

std::vector<double> as_doubles(const auto& values) {
  std::vector<double> result;
  for (const auto value : values) result.push_back(static_cast<double>(static_cast<float>(value)));
  return result;
}

struct Moments {
  double mean = 0.0;
  double variance = 0.0;
};

/// Of `count` values, `stride` apart.
Moments moments(const double* values, std::size_t count) {
  Moments result;
  for (std::size_t i = 0; i < count; ++i) result.mean += values[i] / static_cast<double>(count);
  for (std::size_t i = 0; i < count; ++i)
    result.variance += (values[i] - result.mean) * (values[i] - result.mean) / static_cast<double>(count);
  return result;
}

template <class T>
struct Rows {
  std::size_t rows, columns, stride;
  std::vector<double> values;
  DeviceBuffer<T> memory;
  Rows(std::size_t row_count, std::size_t column_count, std::size_t padding, unsigned seed, float offset = 0.0f)
      : rows(row_count), columns(column_count), stride(column_count + padding) {
    auto raw = random_values<T>(rows * stride, seed);
    for (T& value : raw) value = T(static_cast<float>(value) + offset);
    values = as_doubles(raw);
    memory = on_device(raw);
  }
  Matrix<T> matrix() const { return {memory.data(), rows, columns, stride}; }
  double operator()(std::size_t row, std::size_t column) const { return values[row * stride + column]; }
};

/// The contiguous output agrees with `expected(row, column)`.
template <class T, class Expected>
void agrees(const DeviceBuffer<T>& y, std::size_t rows, std::size_t columns, Expected expected) {
  std::vector<double> reference;
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t column = 0; column < columns; ++column) reference.push_back(expected(row, column));
  CHECK(relative_error(on_host(y), reference) <= largest_error<T>);
}

template <class T>
void check_row_norms() {
  unsigned seed = 1;
  for (const std::size_t columns : {1, 7, 64, 96, 100, 384, 1024, 3072, 5120, 9000, 9003})
    for (const std::size_t rows : {1, 6, 66}) {
      CAPTURE(columns);
      CAPTURE(rows);
      for (const std::size_t padding : {0, 8}) {
        const Rows<T> x(rows, columns, padding, ++seed, 3.0f), shift(2, columns, padding, ++seed),
            scale(2, columns, padding, ++seed);
        const auto gamma = random_values<float>(columns, ++seed), beta = random_values<float>(columns, ++seed);
        const auto device_gamma = on_device(gamma), device_beta = on_device(beta);
        std::vector<Moments> of_row;
        std::vector<double> mean_square;
        for (std::size_t row = 0; row < rows; ++row) {
          of_row.push_back(moments(x.values.data() + row * x.stride, columns));
          mean_square.push_back(of_row[row].variance + of_row[row].mean * of_row[row].mean);
        }
        const auto normed = [&](std::size_t row, std::size_t column) {
          return (x(row, column) - of_row[row].mean) / std::sqrt(of_row[row].variance + static_cast<double>(epsilon));
        };
        auto y = poisoned<T>(rows * columns);
        const Matrix<T> out(y.data(), rows, columns);
        check(ebb::cuda::launch_layer_norm(x.matrix(), device_gamma.data(), device_beta.data(), epsilon, out, nullptr));
        agrees(y, rows, columns, [&](std::size_t row, std::size_t column) {
          return normed(row, column) * static_cast<double>(gamma[column]) + static_cast<double>(beta[column]);
        });
        const std::size_t rows_per_item = rows == 1 ? 1 : rows / 2;
        y = poisoned<T>(rows * columns);
        check(ebb::cuda::launch_layer_norm_modulate(x.matrix(), shift.matrix(), scale.matrix(), rows_per_item, epsilon,
                                                    Matrix<T>(y.data(), rows, columns), nullptr));
        agrees(y, rows, columns, [&](std::size_t row, std::size_t column) {
          const std::size_t item = row / rows_per_item;
          return normed(row, column) * (1.0 + scale(item, column)) + shift(item, column);
        });
        const Rows<float> wide_shift(2, columns, padding, ++seed), wide_scale(2, columns, padding, ++seed);
        y = poisoned<T>(rows * columns);
        check(ebb::cuda::launch_layer_norm_modulate(x.matrix(), wide_shift.matrix(), wide_scale.matrix(), rows_per_item,
                                                    epsilon, Matrix<T>(y.data(), rows, columns), nullptr));
        agrees(y, rows, columns, [&](std::size_t row, std::size_t column) {
          const std::size_t item = row / rows_per_item;
          return normed(row, column) * (1.0 + wide_scale(item, column)) + wide_shift(item, column);
        });
        y = poisoned<T>(rows * columns);
        const auto scaled = [&](std::size_t row, std::size_t column) {
          return x(row, column) / std::sqrt(mean_square[row] + static_cast<double>(epsilon)) *
                 static_cast<double>(gamma[column]);
        };
        check(ebb::cuda::launch_rms_norm(x.matrix(), device_gamma.data(), epsilon, ebb::Identity{},
                                         Matrix<T>(y.data(), rows, columns), nullptr));
        agrees(y, rows, columns, scaled);
        y = poisoned<T>(rows * columns);
        check(ebb::cuda::launch_rms_norm(x.matrix(), device_gamma.data(), epsilon, ebb::Silu{},
                                         Matrix<T>(y.data(), rows, columns), nullptr));
        agrees(y, rows, columns, [&](std::size_t row, std::size_t column) {
          const double value = scaled(row, column);
          return value / (1.0 + std::exp(-value));
        });
      }
    }
}

template <class T>
void check_rope(bool together) {
  unsigned seed = 500;
  for (const std::size_t head_dim : {2, 6, 64, 96, 128, 320})
    for (const std::size_t heads : {1, 5, 24, 40}) {
      CAPTURE(head_dim);
      CAPTURE(heads);
      const std::size_t group = together ? heads * head_dim : head_dim;  // columns that are normalized together
      constexpr std::size_t tokens = 5, batch = 2;
      const std::size_t width = heads * head_dim;
      const Rows<T> x(batch * tokens, width, head_dim == 64 ? (together ? 2 : 3) : 8, ++seed);
      const auto gamma = random_values<float>(group, ++seed);
      const auto cosines = random_values<float>(tokens * head_dim, ++seed);
      const auto sines = random_values<float>(tokens * head_dim, ++seed);
      const auto device_gamma = on_device(gamma), device_cosines = on_device(cosines), device_sines = on_device(sines);
      check(ebb::cuda::launch_rms_norm_rope(x.matrix(), device_gamma.data(), group, epsilon,
                                            Matrix<const float>(device_cosines.data(), tokens, head_dim),
                                            Matrix<const float>(device_sines.data(), tokens, head_dim), nullptr));
      const auto found = on_host(x.memory);
      std::vector<T> samples;
      std::vector<double> expected;
      std::size_t touched = 0;
      for (std::size_t row = 0; row < x.rows; ++row) {
        for (std::size_t column = 0; column < width; ++column) {
          const std::size_t first = column / group * group;
          double squares = 0.0;
          for (std::size_t i = 0; i < group; ++i) squares += x(row, first + i) * x(row, first + i);
          const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(group) + static_cast<double>(epsilon));
          const auto normed = [&](std::size_t at) {
            const double value = x(row, at) * inverse * static_cast<double>(gamma[at - first]);
            return static_cast<double>(static_cast<float>(T(static_cast<float>(value))));
          };
          const std::size_t table = row % tokens * head_dim + column % head_dim;
          const double other = column % 2 == 0 ? -normed(column + 1) : normed(column - 1);
          expected.push_back(normed(column) * static_cast<double>(cosines[table]) +
                             other * static_cast<double>(sines[table]));
          samples.push_back(found[row * x.stride + column]);
        }
        for (std::size_t i = row * x.stride + width; i < (row + 1) * x.stride; ++i)
          touched += static_cast<double>(static_cast<float>(found[i])) != x.values[i];
      }
      CHECK(relative_error(samples, expected) <= largest_error<T>);
      CHECK(touched == 0);
    }
}

struct Picture {
  std::size_t batch, height, width, channels, groups;
};

template <class T, class Activation>
void check_group_norm(Activation activation) {
  unsigned seed = 900;
  for (const Picture& p :
       {Picture{1, 1, 1, 32, 32}, Picture{2, 7, 9, 64, 32}, Picture{1, 40, 33, 128, 32}, Picture{1, 19, 31, 512, 32},
        Picture{2, 5, 5, 6, 3}, Picture{1, 3, 2, 2560, 32}, Picture{1, 300, 500, 8, 2}}) {
    CAPTURE(p.channels);
    const std::size_t pixels = p.height * p.width;
    const std::size_t group_width = p.channels / p.groups;
    const Rows<T> x(p.batch * pixels, p.channels, 0, ++seed, 5.0f);
    const auto gamma = random_values<float>(p.channels, ++seed), beta = random_values<float>(p.channels, ++seed);
    const auto device_gamma = on_device(gamma), device_beta = on_device(beta);
    const auto workspace =
        poisoned<std::byte>(ebb::cuda::group_norm_workspace_bytes(p.batch, pixels, p.channels, p.groups));
    const auto y = poisoned<T>(x.values.size());
    check(ebb::cuda::launch_group_norm(ebb::Image<const T>{x.memory.data(), p.batch, p.height, p.width, p.channels},
                                       p.groups, device_gamma.data(), device_beta.data(), epsilon, activation,
                                       ebb::Image<T>{y.data(), p.batch, p.height, p.width, p.channels},
                                       workspace.data(), nullptr));
    std::vector<Moments> of_group;
    for (std::size_t item = 0; item < p.batch; ++item)
      for (std::size_t group = 0; group < p.groups; ++group) {
        std::vector<double> members;
        for (std::size_t pixel = 0; pixel < pixels; ++pixel)
          for (std::size_t i = 0; i < group_width; ++i)
            members.push_back(x(item * pixels + pixel, group * group_width + i));
        of_group.push_back(moments(members.data(), members.size()));
      }
    agrees(y, x.rows, p.channels, [&](std::size_t row, std::size_t column) {
      const Moments& group = of_group[row / pixels * p.groups + column / group_width];
      const double value = (x(row, column) - group.mean) / std::sqrt(group.variance + static_cast<double>(epsilon)) *
                               static_cast<double>(gamma[column]) +
                           static_cast<double>(beta[column]);
      return std::is_same_v<Activation, ebb::Silu> ? value / (1.0 + std::exp(-value)) : value;
    });
  }
}

}  // namespace

TEST_CASE_TEMPLATE("row norms agree with double precision", T, float, ebb::bfloat16, ebb::float16) {
  check_row_norms<T>();
}

TEST_CASE_TEMPLATE("rms_norm_rope agrees with double precision", T, float, ebb::bfloat16, ebb::float16) {
  check_rope<T>(false);
  check_rope<T>(true);
}

TEST_CASE_TEMPLATE("group_norm agrees with double precision", T, float, ebb::bfloat16, ebb::float16) {
  check_group_norm<T>(ebb::Identity{});
  check_group_norm<T>(ebb::Silu{});
}

TEST_CASE("norms refuse what does not fit together") {
  const DeviceBuffer<float> memory(64);
  const Matrix<float> x(memory.data(), 2, 8);
  CHECK(ebb::cuda::launch_rms_norm_rope(x, memory.data(), 3, epsilon, Matrix<const float>(memory.data(), 1, 3),
                                        Matrix<const float>(memory.data(), 1, 3), nullptr) == cudaErrorInvalidValue);
  CHECK(ebb::cuda::launch_rms_norm_rope(x, memory.data(), 6, epsilon, Matrix<const float>(memory.data(), 1, 4),
                                        Matrix<const float>(memory.data(), 1, 4), nullptr) == cudaErrorInvalidValue);
  CHECK(ebb::cuda::launch_layer_norm_modulate(x, x, x, 0, epsilon, x, nullptr) == cudaErrorInvalidValue);
  const ebb::Image<float> image{memory.data(), 1, 1, 1, 5};
  CHECK(ebb::cuda::launch_group_norm(image, 2, memory.data(), memory.data(), epsilon, ebb::Identity{}, image,
                                     memory.data(), nullptr) == cudaErrorInvalidValue);
}
