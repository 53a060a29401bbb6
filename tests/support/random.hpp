#pragma once

#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

#include "ebb/core/dtype.hpp"

namespace ebb::testing {

/// Fresh numbers in every run would hide failures; fresh numbers in every case are what tests need.
class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}

  template <Element T = float>
  std::vector<T> normal(std::size_t count, float deviation = 1.0f) {
    std::normal_distribution<float> distribution(0.0f, deviation);
    std::vector<T> values(count);
    for (T& value : values) value = static_cast<T>(distribution(engine_));
    return values;
  }
  std::size_t below(std::size_t limit) { return engine_() % limit; }

 private:
  std::mt19937 engine_;
};

/// Bound on the relative Frobenius error of one operation that computes in float32 and rounds once to T.
template <Element T>
inline constexpr double operation_bound = dtype_of<T> == DType::f32 ? 1e-5 : dtype_of<T> == DType::f16 ? 1e-3 : 4e-3;

/// ||found - expected|| / ||expected||; NaN when sizes differ.
template <class T>
double error_of(const std::vector<T>& found, const std::vector<double>& expected) {
  if (found.size() != expected.size()) return std::nan("");
  double difference = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double delta = static_cast<double>(static_cast<float>(found[i])) - expected[i];
    difference += delta * delta;
    norm += expected[i] * expected[i];
  }
  return norm == 0.0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

}  // namespace ebb::testing
