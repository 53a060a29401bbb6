#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>
#include <utility>

#include "ebb/core/error.hpp"

namespace ebb {

/// Owned, uninitialised bytes whose address is a multiple of `alignment`, in pages that nothing else lives in, so that
/// they can be pinned. Move-only; a moved-from buffer is empty.
class AlignedBuffer {
 public:
  static constexpr std::size_t alignment = 256;

  AlignedBuffer() = default;
  /// @throws MemoryError when the system refuses; says how much was asked
  explicit AlignedBuffer(std::size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    const std::size_t padded = (bytes + page - 1) / page * page;
    data_.reset(padded < bytes ? nullptr : static_cast<std::byte*>(std::aligned_alloc(page, padded)));
    if (!data_)
      throw MemoryError(concat("cannot allocate ", bytes, " bytes of memory; use a smaller format or a disk tier"));
  }

  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::move(other.data_)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }

  std::byte* data() const { return data_.get(); }
  std::size_t size() const { return bytes_; }
  std::span<std::byte> bytes() const { return {data_.get(), bytes_}; }

 private:
  static constexpr std::size_t page = 4096;
  static_assert(page % alignment == 0);
  struct Free {
    void operator()(std::byte* memory) const noexcept { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t bytes_ = 0;
};

}  // namespace ebb
