#pragma once

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

}  // namespace ebb::testing
