#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/check.hpp"
#include "ebb/cuda/resource.hpp"

namespace ebb::bench {

namespace detail {

template <class T>
__global__ void fill_random(T* values, std::size_t count, std::uint64_t seed) {
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < count;
       i += std::size_t{gridDim.x} * blockDim.x) {
    std::uint64_t bits = (i + seed) * 0x9e3779b97f4a7c15u;  // SplitMix64
    bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
    values[i] = static_cast<T>(static_cast<float>(bits >> 40) * 0x1p-23f - 1.0f);
  }
}

}  // namespace detail

/// `count` numbers, even in [-1, 1). How much power a product takes, and so how fast it runs, depends on its data:
/// constants flatter.
template <Element T>
cuda::DeviceBuffer<T> random_values(std::size_t count, std::uint64_t seed) {
  cuda::DeviceBuffer<T> values(count);
  detail::fill_random<<<1024, 256>>>(values.data(), count, seed << 40);
  cuda::check(cudaGetLastError());
  cuda::check(cudaDeviceSynchronize());
  return values;
}

}  // namespace ebb::bench
