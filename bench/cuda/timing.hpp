#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "ebb/cuda/check.hpp"
#include "ebb/cuda/resource.hpp"

namespace ebb::bench {

/// Median of 200 event-timed calls `run(i)` on the default stream, in microseconds, after 20 that are not counted.
template <class Run>
double median_microseconds(Run run) {
  constexpr int before = 20, counted = 200;
  cudaEvent_t begin = nullptr, end = nullptr;
  cuda::check(cudaEventCreate(&begin));
  cuda::check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < before + counted; ++i) {
    cuda::check(cudaEventRecord(begin, nullptr));
    run(i);
    cuda::check(cudaEventRecord(end, nullptr));
    cuda::check(cudaEventSynchronize(end));
    float milliseconds = 0;
    cuda::check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i >= before) times.push_back(milliseconds * 1000);
  }
  cuda::check(cudaEventDestroy(begin));
  cuda::check(cudaEventDestroy(end));
  std::nth_element(times.begin(), times.begin() + counted / 2, times.end());
  return times[counted / 2];
}

/// Bytes read and written a microsecond by a copy within the device.
inline double copy_rate() {
  constexpr std::size_t moved = std::size_t{1} << 30;
  const cuda::DeviceBuffer<std::byte> from(moved), to(moved);
  return 2.0 * static_cast<double>(moved) / median_microseconds([&](int) {
           cuda::check(cudaMemcpyAsync(to.data(), from.data(), moved, cudaMemcpyDeviceToDevice, nullptr));
         });
}

}  // namespace ebb::bench
