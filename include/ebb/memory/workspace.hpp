#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "ebb/core/shape.hpp"
#include "ebb/memory/storage.hpp"

namespace ebb {

/// A bump arena for activations in memory of type `Buffer` (constructed from a size in bytes, 256-byte aligned).
/// `frame()` marks a point; destroying the frame gives back everything that was
/// taken since. Memory is kept for the next forward, so that a steady state allocates nothing and addresses
/// repeat from step to step. Not thread-safe: one workspace a stream.
template <class Buffer>
class BasicWorkspace {
 public:
  BasicWorkspace() = default;
  BasicWorkspace(const BasicWorkspace&) = delete;
  BasicWorkspace& operator=(const BasicWorkspace&) = delete;

  /// Gives back what was allocated during its lifetime. Frames nest.
  class [[nodiscard]] Frame {
   public:
    explicit Frame(BasicWorkspace& workspace)
        : workspace_(workspace), chunk_(workspace.chunk_), used_(workspace.used_) {}
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    ~Frame() {
      workspace_.chunk_ = chunk_;
      workspace_.used_ = used_;
    }

   private:
    BasicWorkspace& workspace_;
    std::size_t chunk_;
    std::size_t used_;
  };

  Frame frame() { return Frame(*this); }

  /// `count` uninitialised objects, 256-byte aligned, valid until the enclosing frame ends.
  /// @throws MemoryError when the system refuses, ShapeError when the size overflows
  template <class T>
  T* allocate(std::size_t count) {
    const std::size_t asked = checked_product(count, sizeof(T));
    const std::size_t bytes = (asked + AlignedBuffer::alignment - 1) / AlignedBuffer::alignment *
                              AlignedBuffer::alignment;
    while (chunk_ < chunks_.size() && chunks_[chunk_].size() - used_ < bytes) {
      ++chunk_;
      used_ = 0;
    }
    if (chunk_ == chunks_.size()) {
      const std::size_t last = chunks_.empty() ? 0 : chunks_.back().size();
      chunks_.emplace_back(std::max({bytes, minimum_chunk_bytes, std::min(2 * last, maximum_growth_bytes)}));
    }
    std::byte* memory = chunks_[chunk_].data() + used_;
    used_ += bytes;
    std::size_t in_use = used_;
    for (std::size_t full = 0; full < chunk_; ++full) in_use += chunks_[full].size();
    peak_bytes_ = std::max(peak_bytes_, in_use);
    return reinterpret_cast<T*>(memory);
  }

  /// Most bytes that were ever in use at once, tails of skipped chunks included.
  std::size_t peak_bytes() const { return peak_bytes_; }
  void reset_peak() { peak_bytes_ = 0; }
  /// Returns all memory to the system. No frame may be open.
  void release() {
    chunks_.clear();
    chunk_ = used_ = 0;
  }

 private:
  static constexpr std::size_t minimum_chunk_bytes = std::size_t{1} << 20;
  static constexpr std::size_t maximum_growth_bytes = std::size_t{256} << 20;

  std::vector<Buffer> chunks_;
  std::size_t chunk_ = 0;  // the chunk that is being filled
  std::size_t used_ = 0;   // bytes used in it
  std::size_t peak_bytes_ = 0;
};

/// Activations in RAM.
using Workspace = BasicWorkspace<AlignedBuffer>;

}  // namespace ebb
