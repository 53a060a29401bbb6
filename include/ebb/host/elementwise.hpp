#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/epilogue/epilogue.hpp"
#include "ebb/host/context.hpp"
#include "ebb/ops/elementwise.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/dequantize.hpp"

namespace ebb::host {

/// See ops/elementwise.hpp.
template <Element T, class From, Epilogue Stage, Element To>
  requires Element<std::remove_const_t<From>>
void map(const Context<T>&, Matrix<From> x, Stage stage, Matrix<To> y) {
  check_same_extents("map", x, y);
  for (std::size_t row = 0; row < x.rows; ++row)
    for (std::size_t i = 0; i < x.columns; ++i)
      y(row, i) = static_cast<To>(stage(static_cast<float>(x(row, i)), row, i));
}

/// See ops/elementwise.hpp.
template <Element T>
void add(const Context<T>&, std::type_identity_t<Matrix<const T>> a, std::type_identity_t<Matrix<const T>> b,
         Matrix<T> y) {
  check_same_extents("add", a, y);
  check_same_extents("add", b, y);
  for (std::size_t row = 0; row < y.rows; ++row)
    for (std::size_t i = 0; i < y.columns; ++i)
      y(row, i) = static_cast<T>(static_cast<float>(a(row, i)) + static_cast<float>(b(row, i)));
}

namespace detail {

/// The product of two numbers, rounded to T: the store keeps a compiler from fusing it with a sum.
template <Element T>
float rounded_product(float a, float b) {
  const volatile float product = a * b;
  return static_cast<float>(static_cast<T>(static_cast<float>(product)));
}

}  // namespace detail

/// See ops/elementwise.hpp.
template <Element T>
void add_scaled(const Context<T>&, std::type_identity_t<Matrix<const T>> x, std::span<const float> factor,
                Matrix<T> y) {
  check_add_scaled(x, factor.size(), y);
  for (std::size_t row = 0; row < y.rows; ++row)
    for (std::size_t i = 0; i < y.columns; ++i)
      y(row, i) = static_cast<T>(static_cast<float>(y(row, i)) +
                                 detail::rounded_product<T>(factor[0], static_cast<float>(x(row, i))));
}

/// See ops/elementwise.hpp.
template <Element T>
void guide(const Context<T>&, std::type_identity_t<Matrix<const T>> conditional,
           std::type_identity_t<Matrix<const T>> unconditional, float scale, Matrix<T> y) {
  check_same_extents("guide", conditional, y);
  check_same_extents("guide", unconditional, y);
  for (std::size_t row = 0; row < y.rows; ++row)
    for (std::size_t i = 0; i < y.columns; ++i) {
      const auto base = static_cast<float>(unconditional(row, i));
      const auto difference = static_cast<float>(static_cast<T>(static_cast<float>(conditional(row, i)) - base));
      y(row, i) = static_cast<T>(base + detail::rounded_product<T>(scale, difference));
    }
}

/// See ops/elementwise.hpp.
template <Element T, std::size_t count>
void linear_combination(const Context<T>&, const std::array<Matrix<const T>, count>& inputs,
                        std::span<const float> coefficients, Matrix<T> y) {
  check_linear_combination(inputs, coefficients.size(), y);
  for (std::size_t row = 0; row < y.rows; ++row)
    for (std::size_t i = 0; i < y.columns; ++i) {
      float sum = 0.0f;
      for (std::size_t input = 0; input < count; ++input)
        sum += coefficients[input] * static_cast<float>(inputs[input](row, i));
      y(row, i) = static_cast<T>(sum);
    }
}

/// See ops/elementwise.hpp.
template <Element T>
void timestep_embedding(const Context<T>&, std::span<const float> timesteps, Matrix<T> y) {
  check_timestep_embedding(timesteps.size(), y);
  const std::size_t half = y.columns / 2;
  for (std::size_t row = 0; row < y.rows; ++row)
    for (std::size_t i = 0; i < half; ++i) {
      // float32 throughout, in the reference's order: the exponent divides before the exponential
      const float exponent = -9.210340371976184f * static_cast<float>(i) / static_cast<float>(half);
      const float angle = timesteps[row] * std::exp(exponent);
      y(row, i) = static_cast<T>(std::cos(angle));
      y(row, half + i) = static_cast<T>(std::sin(angle));
    }
}

/// See ops/elementwise.hpp.
template <Element T>
void gather_rows(const Context<T>&, const DenseTensor& table, std::span<const std::int32_t> ids, Matrix<T> y) {
  check_gather(table.shape(), ids, y);
  for (std::size_t row = 0; row < ids.size(); ++row)
    dequantize(table, static_cast<std::size_t>(ids[row]) * y.columns, std::span<T>(y.row(row), y.columns));
}

}  // namespace ebb::host
