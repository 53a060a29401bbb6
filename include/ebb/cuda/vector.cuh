#pragma once

#include <cstddef>
#include <cstdint>

#include "ebb/core/dtype.hpp"
#include "ebb/core/view.hpp"
#include "ebb/cuda/element.cuh"

namespace ebb::cuda {

/// Elements of one 16-byte access.
template <class T>
inline constexpr int vector_width = static_cast<int>(16 / sizeof(T));

/// Whether every row of every matrix is made of whole, aligned 16-byte vectors.
template <class... T>
constexpr bool vectorizable(const Matrix<T>&... matrices) {
  return ((reinterpret_cast<std::uintptr_t>(matrices.data) % 16 == 0 && matrices.stride * sizeof(T) % 16 == 0 &&
           matrices.columns * sizeof(T) % 16 == 0) &&
          ...);
}

/// `width` consecutive elements as float32.
template <int width, class T>
__device__ inline void load_floats(float (&to)[width], const T* from) {
  const auto pack = *reinterpret_cast<const Pack<T, width>*>(from);
#pragma unroll
  for (int i = 0; i < width; ++i) to[i] = static_cast<float>(pack.values[i]);
}
/// float32 values whose addresses are aligned to 16 bytes where `width` is a multiple of four.
template <int width>
__device__ inline void load_floats(float (&to)[width], const float* from) {
  constexpr int step = width % 4 == 0 ? 4 : 1;
#pragma unroll
  for (int i = 0; i < width; i += step) {
    const auto pack = *reinterpret_cast<const Pack<float, step>*>(from + i);
#pragma unroll
    for (int j = 0; j < step; ++j) to[i + j] = pack.values[j];
  }
}

/// Rounds and stores `width` consecutive elements.
template <int width, class T>
__device__ inline void store_floats(T* to, const float (&from)[width]) {
  Pack<T, width> pack;
#pragma unroll
  for (int i = 0; i < width; ++i) pack.values[i] = static_cast<T>(from[i]);
  *reinterpret_cast<Pack<T, width>*>(to) = pack;
}

}  // namespace ebb::cuda
