#pragma once

#include <cuda_runtime_api.h>

#include "ebb/cuda/check.hpp"

namespace ebb::cuda {

namespace detail {

template <class = void>  // a template, so that several translation units may have it
__global__ void probe_kernel() {}

}  // namespace detail

/// A kernel that does nothing: whether it runs says whether this build has code for the current device.
inline cudaError_t launch_probe(cudaStream_t stream) noexcept {
  detail::probe_kernel<><<<1, 1, 0, stream>>>();
  return cudaGetLastError();
}

/// Runs a kernel on the current device and waits for it, so that what keeps this build from using the device is said
/// before anything else is done with it.
/// @throws CudaError that says what to do where this build has no code for the device, or the device cannot be used
inline void probe() {
  check(launch_probe(nullptr));
  check(cudaStreamSynchronize(nullptr));
}

}  // namespace ebb::cuda
