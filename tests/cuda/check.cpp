// What failures of CUDA tell the user to do. Needs no GPU.
#include "ebb/cuda/check.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>

#include "ebb/cuda/blas.hpp"

using namespace ebb;

namespace {

std::string message(cudaError_t status) {
  try {
    cuda::check(status);
  } catch (const cuda::CudaError& error) {
    CHECK(error.status == status);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("each failure that a user can do something about says what") {
  CHECK(message(cudaSuccess) == "");
  const std::pair<cudaError_t, const char*> cases[] = {
      {cudaErrorNoDevice, "no GPU was found: check nvidia-smi, or use --device host"},
      {cudaErrorInsufficientDriver, "update the driver, or use --device host"},
      {cudaErrorNoKernelImageForDevice, "add its architecture to CMAKE_CUDA_ARCHITECTURES"},
      {cudaErrorInvalidDeviceFunction, "add its architecture to CMAKE_CUDA_ARCHITECTURES"},
      {cudaErrorUnsupportedPtxVersion, "architecture to CMAKE_CUDA_ARCHITECTURES, or update the driver"},
      {cudaErrorSystemDriverMismatch, "reboot after an update of the driver"},
      {cudaErrorDevicesUnavailable, "end that process (see nvidia-smi)"},
      {cudaErrorMemoryAllocation, "free what other processes hold (see nvidia-smi), or keep fewer weights"},
  };
  for (const auto& [status, advice] : cases) {
    const std::string text = message(status);
    CHECK_MESSAGE(text.find(advice) != std::string::npos, text);
    CHECK_MESSAGE(text.starts_with(cudaGetErrorName(status)), text);
    CHECK_MESSAGE(text.find("check.cpp:") != std::string::npos, text);
  }
  CHECK(message(cudaErrorInvalidValue).find(';') == std::string::npos);
}

TEST_CASE("cuBLASLt without memory says so") {
  CHECK_NOTHROW(cuda::check_blas(CUBLAS_STATUS_SUCCESS, "call"));
  try {
    cuda::check_blas(CUBLAS_STATUS_ALLOC_FAILED, "cublasLtCreate");
    FAIL("did not throw");
  } catch (const cuda::BlasError& error) {
    CHECK(error.out_of_memory);
    const std::string text = error.what();
    CHECK(text.starts_with("cublasLtCreate: "));
    CHECK_MESSAGE(text.find("the device has too little free memory") != std::string::npos, text);
    CHECK_MESSAGE(text.find("free what other processes hold") != std::string::npos, text);
  }
  try {
    cuda::check_blas(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul");
    FAIL("did not throw");
  } catch (const cuda::BlasError& error) {
    CHECK(!error.out_of_memory);
  }
}
