#pragma once

#include <cstddef>
#include <random>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/resource.hpp"
#include "support/error.hpp"

using ebb::testing::operation_bound;
using ebb::testing::relative_error;

/// Bound on the relative error of a kernel against loops in double precision: in float32 narrower than that of an
/// operation against the host's, which sums in another order as well.
template <ebb::Element T>
inline constexpr double largest_error = sizeof(T) == 4 ? 2e-6 : operation_bound<T>;

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
