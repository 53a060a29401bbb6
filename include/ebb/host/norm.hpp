#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/host/context.hpp"
#include "ebb/host/threads.hpp"  // refuses a compiler without OpenMP
#include "ebb/ops/norm.hpp"

namespace ebb::host {

namespace detail {

inline constexpr std::size_t parallel_elements = 65536;  // below this starting threads costs more than it saves

/// Calls `row(index)` for each row, on the context's threads where it is worth it.
template <class T, class Row>
void for_each_row(const Context<T>& ctx, std::size_t rows, std::size_t elements, Row row) {
#pragma omp parallel for num_threads(ctx.threads()) schedule(static) if (elements > parallel_elements)
  for (std::size_t index = 0; index < rows; ++index) row(index);
}

/// The mean is kept in two floats, so that a large one costs no digits of what is left after it.
struct Moments {
  float mean;
  float mean_rest;
  float inverse_deviation;

  float normalized(float value) const { return (value - mean - mean_rest) * inverse_deviation; }
};

inline Moments moments_of(double mean, double variance, float epsilon) {
  const auto rounded = static_cast<float>(mean);
  return {rounded, static_cast<float>(mean - double{rounded}), static_cast<float>(1.0 / std::sqrt(variance + epsilon))};
}

/// Two passes: the variance of what is left after the mean.
template <class T>
Moments moments(const T* values, std::size_t count, float epsilon) {
  double sum = 0.0;
  for (std::size_t i = 0; i < count; ++i) sum += static_cast<float>(values[i]);
  const double mean = sum / static_cast<double>(count);
  double squares = 0.0;
  for (std::size_t i = 0; i < count; ++i) {
    const double difference = static_cast<float>(values[i]) - mean;
    squares += difference * difference;
  }
  return moments_of(mean, squares / static_cast<double>(count), epsilon);
}

template <class T>
float inverse_root_mean_square(const T* values, std::size_t count, float epsilon) {
  double squares = 0.0;
  for (std::size_t i = 0; i < count; ++i) {
    const double value = static_cast<float>(values[i]);
    squares += value * value;
  }
  return static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(count) + epsilon));
}

inline float activated(float value, Activation activation) {
  return activation == Activation::silu ? value / (1.0f + std::exp(-value)) : value;
}

}  // namespace detail

/// See ops/norm.hpp.
template <Element T>
void layer_norm(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, std::span<const float> gamma,
                std::span<const float> beta, float epsilon, Matrix<T> y) {
  check_row_norm("layer_norm", x, gamma.size(), y);
  require(beta.size() == gamma.size(), "layer_norm: gamma and beta differ in size");
  detail::for_each_row(ctx, x.rows, x.size(), [&](std::size_t row) {
    const detail::Moments moments = detail::moments(x.row(row), x.columns, epsilon);
    for (std::size_t i = 0; i < x.columns; ++i)
      y(row, i) = static_cast<T>(moments.normalized(static_cast<float>(x(row, i))) * gamma[i] + beta[i]);
  });
}

/// See ops/norm.hpp.
template <Element T, class Modulation>
  requires Element<std::remove_const_t<Modulation>>
void layer_norm_modulate(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, Matrix<Modulation> shift,
                         Matrix<Modulation> scale, std::size_t rows_per_item, float epsilon, Matrix<T> y) {
  check_row_norm("layer_norm_modulate", x, x.columns, y);
  check_modulation("layer_norm_modulate: shift", x, shift, rows_per_item);
  check_modulation("layer_norm_modulate: scale", x, scale, rows_per_item);
  detail::for_each_row(ctx, x.rows, x.size(), [&](std::size_t row) {
    const detail::Moments moments = detail::moments(x.row(row), x.columns, epsilon);
    const Modulation* shifts = shift.row(row / rows_per_item);
    const Modulation* scales = scale.row(row / rows_per_item);
    for (std::size_t i = 0; i < x.columns; ++i) {
      const float normed = moments.normalized(static_cast<float>(x(row, i)));
      y(row, i) = static_cast<T>(normed * (1.0f + static_cast<float>(scales[i])) + static_cast<float>(shifts[i]));
    }
  });
}

/// See ops/norm.hpp.
template <Element T>
void rms_norm(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, std::span<const float> gamma,
              float epsilon, Activation activation, Matrix<T> y) {
  check_row_norm("rms_norm", x, gamma.size(), y);
  detail::for_each_row(ctx, x.rows, x.size(), [&](std::size_t row) {
    const float inverse = detail::inverse_root_mean_square(x.row(row), x.columns, epsilon);
    for (std::size_t i = 0; i < x.columns; ++i)
      y(row, i) = static_cast<T>(detail::activated(static_cast<float>(x(row, i)) * inverse * gamma[i], activation));
  });
}

/// See ops/norm.hpp.
template <Element T>
void rms_norm_rope(const Context<T>& ctx, Matrix<T> x, std::span<const float> gamma, float epsilon,
                   Matrix<const float> cosines, Matrix<const float> sines) {
  check_rope(x, gamma.size(), cosines, sines);
  const std::size_t head_dim = cosines.columns;
  detail::for_each_row(ctx, x.rows, x.size(), [&](std::size_t row) {
    const float* cosine = cosines.row(row % cosines.rows);
    const float* sine = sines.row(row % cosines.rows);
    T* values = x.row(row);
    for (std::size_t first = 0; first < x.columns; first += gamma.size()) {
      const float inverse = detail::inverse_root_mean_square(values + first, gamma.size(), epsilon);
      const auto normed = [&](std::size_t i) {
        // Rounded before the rotation: the norm is an operation of its own in the reference.
        return static_cast<float>(static_cast<T>(static_cast<float>(values[first + i]) * inverse * gamma[i]));
      };
      for (std::size_t i = 0; i < gamma.size(); i += 2) {
        const float even = normed(i);
        const float odd = normed(i + 1);
        const std::size_t at = (first + i) % head_dim;
        values[first + i] = static_cast<T>(even * cosine[at] - odd * sine[at]);
        values[first + i + 1] = static_cast<T>(odd * cosine[at + 1] + even * sine[at + 1]);
      }
    }
  });
}

/// See ops/norm.hpp.
template <Element T>
void group_norm(const Context<T>& ctx, std::type_identity_t<Image<const T>> x, std::size_t groups,
                std::span<const float> gamma, std::span<const float> beta, float epsilon, Activation activation,
                Image<T> y) {
  check_group_norm(x, groups, gamma.size(), beta.size(), y);
  const std::size_t pixels = x.height * x.width;
  const std::size_t width = x.channels / groups;
  detail::for_each_row(ctx, x.batch * groups, x.size(), [&](std::size_t number) {
    const std::size_t item = number / groups;
    const std::size_t first = number % groups * width;
    const T* in = x.data + item * pixels * x.channels + first;
    T* out = y.data + item * pixels * x.channels + first;
    double sum = 0.0;
    for (std::size_t pixel = 0; pixel < pixels; ++pixel)
      for (std::size_t c = 0; c < width; ++c) sum += static_cast<float>(in[pixel * x.channels + c]);
    const double mean = sum / static_cast<double>(pixels * width);
    double squares = 0.0;
    for (std::size_t pixel = 0; pixel < pixels; ++pixel)
      for (std::size_t c = 0; c < width; ++c) {
        const double difference = static_cast<float>(in[pixel * x.channels + c]) - mean;
        squares += difference * difference;
      }
    const auto moments = detail::moments_of(mean, squares / static_cast<double>(pixels * width), epsilon);
    for (std::size_t pixel = 0; pixel < pixels; ++pixel)
      for (std::size_t c = 0; c < width; ++c) {
        const float value = static_cast<float>(in[pixel * x.channels + c]);
        const float normed = moments.normalized(value) * gamma[first + c] + beta[first + c];
        out[pixel * x.channels + c] = static_cast<T>(detail::activated(normed, activation));
      }
  });
}

}  // namespace ebb::host
