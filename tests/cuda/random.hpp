#pragma once

#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/resource.hpp"

/// Largest relative Frobenius error of results that were accumulated in float32, against double arithmetic on the
/// rounded inputs.
template <ebb::Element T>
inline constexpr double largest_error = sizeof(T) == 4                         ? 2e-6
                                        : ebb::dtype_of<T> == ebb::DType::bf16 ? 4e-3
                                                                               : 6e-4;

template <ebb::Element T>
std::vector<T> random_values(std::size_t count, unsigned seed, float amplitude = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, amplitude);
  std::vector<T> values(count);
  for (T& value : values) value = T(normal(random));
  return values;
}

template <class T>
ebb::cuda::DeviceBuffer<T> on_device(const std::vector<T>& values) {
  ebb::cuda::DeviceBuffer<T> buffer(values.size());
  buffer.upload(values);
  return buffer;
}

/// A buffer full of NaN.
template <class T>
ebb::cuda::DeviceBuffer<T> poisoned(std::size_t count) {
  ebb::cuda::DeviceBuffer<T> buffer(count);
  ebb::cuda::check(cudaMemset(buffer.data(), 0xff, count * sizeof(T)));
  return buffer;
}

template <class T>
std::vector<T> on_host(const ebb::cuda::DeviceBuffer<T>& buffer) {
  std::vector<T> values(buffer.size());
  buffer.download(values);
  return values;
}

/// ||found - expected|| / ||expected||; NaN where anything is.
template <class T>
double relative_error(const std::vector<T>& found, const std::vector<double>& expected) {
  double difference = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double distance = static_cast<double>(static_cast<float>(found[i])) - expected[i];
    difference += distance * distance;
    norm += expected[i] * expected[i];
  }
  return norm == 0.0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}
