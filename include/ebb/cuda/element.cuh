#pragma once

namespace ebb::cuda {

/// `count` elements that move as one vector access.
template <class T, int count>
struct alignas(sizeof(T) * count) Pack {
  T values[count];
};

}  // namespace ebb::cuda
