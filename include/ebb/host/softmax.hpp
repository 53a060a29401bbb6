#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/host/context.hpp"
#include "ebb/host/norm.hpp"
#include "ebb/ops/softmax.hpp"

namespace ebb::host {

/// See ops/softmax.hpp.
template <Element T>
void softmax(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, float scale, Matrix<T> y) {
  check_softmax(x, y);
  detail::for_each_row(ctx, x.rows, x.size(), [&](std::size_t row) {
    const auto scaled = [&](std::size_t i) { return static_cast<float>(x(row, i)) * scale; };
    float largest = -std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < x.columns; ++i) largest = std::max(largest, scaled(i));
    double sum = 0.0;
    for (std::size_t i = 0; i < x.columns; ++i) sum += std::exp(scaled(i) - largest);
    const auto inverse = static_cast<float>(1.0 / sum);
    for (std::size_t i = 0; i < x.columns; ++i) y(row, i) = static_cast<T>(std::exp(scaled(i) - largest) * inverse);
  });
}

}  // namespace ebb::host
