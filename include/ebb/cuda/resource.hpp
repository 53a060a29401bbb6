#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

#include "ebb/core/error.hpp"
#include "ebb/cuda/check.hpp"

namespace ebb::cuda {

/// Owned device memory, 256-byte aligned, move-only. For set-up: allocation synchronizes the device.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// @throws CudaError; for memory that is not there it says how much was asked and how much is free
  explicit DeviceBuffer(std::size_t count) : count_(count) {
    if (count == 0) return;
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, count * sizeof(T));
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      std::size_t free = 0;
      std::size_t total = 0;
      check(cudaMemGetInfo(&free, &total));
      throw CudaError(status,
                      concat("device memory: asked for ", count * sizeof(T), " bytes, ", free, " of ", total,
                             " are free: free what other processes hold, or keep fewer weights there (--offload)"),
                      count * sizeof(T));
    }
    check(status);
    data_.reset(static_cast<T*>(memory));
  }

  DeviceBuffer(DeviceBuffer&& other) noexcept : data_(std::move(other.data_)), count_(std::exchange(other.count_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    count_ = std::exchange(other.count_, 0);
    return *this;
  }

  T* data() const { return data_.get(); }
  std::size_t size() const { return count_; }
  std::span<T> bytes() const
    requires std::is_same_v<T, std::byte>
  {
    return {data_.get(), count_};
  }

  /// Copies to the device and waits. `values` has `size()` elements.
  void upload(std::span<const T> values) const {
    require(values.size() == count_, "upload: the sizes differ");
    check(cudaMemcpy(data(), values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
    check(cudaStreamSynchronize(nullptr));  // small copies are staged, and other streams do not wait for their end
  }
  /// Copies to the host and waits, but not for non-blocking streams (`Streams`): synchronize with what writes the data
  /// first. `values` has `size()` elements.
  void download(std::span<T> values) const {
    require(values.size() == count_, "download: the sizes differ");
    check(cudaMemcpy(values.data(), data(), count_ * sizeof(T), cudaMemcpyDeviceToHost));
  }

 private:
  struct Free {
    void operator()(T* memory) const noexcept { cudaFree(memory); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t count_ = 0;
};

/// Host memory that is pinned while this lives, so that transfers from it run beside everything else. Move-only.
class PinnedRegion {
 public:
  PinnedRegion() = default;
  /// Pins `memory`, which outlives this. Where the system refuses, `pinned()` is false, `status()` says why, and
  /// transfers are merely slower.
  explicit PinnedRegion(std::span<const std::byte> memory) {
    if (memory.empty()) return;
    void* address = const_cast<std::byte*>(memory.data());  // only its pages are touched
    status_ = cudaHostRegister(address, memory.size(), cudaHostRegisterDefault);
    // Read-only pages need the other flag, which not every GPU knows: a lack of memory is the better reason then.
    if (status_ != cudaSuccess && status_ != cudaErrorMemoryAllocation)
      status_ = cudaHostRegister(address, memory.size(), cudaHostRegisterReadOnly);
    if (status_ == cudaSuccess) memory_.reset(address);
    (void)cudaGetLastError();
  }
  bool pinned() const { return memory_ != nullptr; }
  /// What the system answered; cudaSuccess also where nothing was asked.
  cudaError_t status() const { return status_; }

 private:
  struct Unpin {
    void operator()(void* memory) const noexcept { cudaHostUnregister(memory); }
  };
  std::unique_ptr<void, Unpin> memory_;
  cudaError_t status_ = cudaSuccess;
};

}  // namespace ebb::cuda
