#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <source_location>
#include <string>

#include "ebb/core/error.hpp"

namespace ebb::cuda {

/// A CUDA call that failed; `status` tells which way.
struct CudaError : Error {
  CudaError(cudaError_t failed, const std::string& message, std::size_t bytes = 0)
      : Error(message), status(failed), asked(bytes) {}
  cudaError_t status;
  std::size_t asked;  // bytes of device memory, where a request for so many failed; else 0
};

/// What a failed status means, and what to do where there is something to do.
inline std::string describe(cudaError_t status) {
  const char* advice = "";
  switch (status) {
    case cudaErrorNoDevice:
      advice = "; no GPU was found: check nvidia-smi, or use --device host";
      break;
    case cudaErrorInsufficientDriver:
      advice =
          "; there is no NVIDIA driver, or it is older than the CUDA runtime of this build: update the driver, or use "
          "--device host";
      break;
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      advice =
          "; this build has no code for this GPU: add its architecture to CMAKE_CUDA_ARCHITECTURES, or use --device "
          "host";
      break;
    case cudaErrorUnsupportedPtxVersion:
      advice =
          "; this build has no code for this GPU, and the driver is too old to compile its PTX: add the GPU's "
          "architecture to CMAKE_CUDA_ARCHITECTURES, or update the driver";
      break;
    case cudaErrorSystemDriverMismatch:
      advice =
          "; the driver's kernel module and its libraries have different versions: reboot after an update of the "
          "driver; in a container, use the libraries of the host's driver";
      break;
    case cudaErrorDevicesUnavailable:
      advice =
          "; another process has the GPU for itself, or its compute mode forbids this one: end that process (see "
          "nvidia-smi), set the mode with nvidia-smi -c DEFAULT, or take another GPU (--device cuda:1)";
      break;
    case cudaErrorMemoryAllocation:
      advice =
          "; the device has too little free memory: free what other processes hold (see nvidia-smi), or keep fewer "
          "weights on it (--offload)";
      break;
    default:
      break;
  }
  return concat(cudaGetErrorName(status), ": ", cudaGetErrorString(status), advice);
}

/// Turns a failed status into an exception that says what to do where there is something to do.
/// @throws CudaError
inline void check(cudaError_t status, std::source_location at = std::source_location::current()) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // who asks after a later launch should not hear of this one
  throw CudaError(status, concat(describe(status), " (", at.file_name(), ":", at.line(), ")"));
}

}  // namespace ebb::cuda
