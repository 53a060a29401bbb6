#pragma once

#include <cuda_runtime_api.h>

#include <source_location>

#include "ebb/core/error.hpp"

namespace ebb::cuda {

/// A CUDA call that failed; `status` tells which way.
struct CudaError : Error {
  CudaError(cudaError_t failed, const std::string& message) : Error(message), status(failed) {}
  cudaError_t status;
};

/// Turns a failed status into an exception that says what to do where there is something to do.
/// @throws CudaError
inline void check(cudaError_t status, std::source_location at = std::source_location::current()) {
  if (status == cudaSuccess) return;
  const char* advice = "";
  switch (status) {
    case cudaErrorNoDevice:
      advice = "; no GPU was found: check nvidia-smi, or use --device host";
      break;
    case cudaErrorInsufficientDriver:
      advice = "; the driver is older than the CUDA runtime of this build: update the driver";
      break;
    case cudaErrorNoKernelImageForDevice:
      advice = "; this build has no code for this GPU: add its architecture to CMAKE_CUDA_ARCHITECTURES";
      break;
    case cudaErrorMemoryAllocation:
      advice = "; the device has too little free memory: offload more (--offload leaf), or free what others hold";
      break;
    default:
      break;
  }
  throw CudaError(status, concat(cudaGetErrorName(status), ": ", cudaGetErrorString(status), advice, " (",
                                 at.file_name(), ":", at.line(), ")"));
}

}  // namespace ebb::cuda
