#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "ebb/core/dtype.hpp"

namespace ebb::testing {

/// Bound on the relative Frobenius error of one operation that computes in float32 and rounds once to T. A rounding
/// errs by at most 2^-8 of a number in bfloat16 and 2^-11 in float16: an eighth of it, and so of its bound.
template <Element T>
inline constexpr double operation_bound = dtype_of<T> == DType::f32   ? 1e-5
                                          : dtype_of<T> == DType::f16 ? 5e-4
                                                                      : 4e-3;
static_assert(operation_bound<bfloat16> > 0x1p-8 && operation_bound<float16> > 0x1p-11);

/// ||found - expected|| / ||expected||, in double; ||found|| where nothing but zeros is expected. NaN, which is not
/// below any bound, where a number is NaN or the sizes differ.
template <class Found, class Expected>
double relative_error(std::span<const Found> found, std::span<const Expected> expected) {
  if (found.size() != expected.size()) return std::nan("");
  double difference = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto wanted = static_cast<double>(expected[i]);
    const double delta = static_cast<double>(static_cast<float>(found[i])) - wanted;
    difference += delta * delta;
    norm += wanted * wanted;
  }
  return norm == 0.0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}
template <class Found, class Expected>
double relative_error(const std::vector<Found>& found, const std::vector<Expected>& expected) {
  return relative_error(std::span<const Found>(found), std::span<const Expected>(expected));
}

}  // namespace ebb::testing
