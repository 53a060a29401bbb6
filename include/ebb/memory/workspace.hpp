#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/memory/storage.hpp"

namespace ebb {

/// A bump arena for activations in memory of type `Buffer` (constructed from a size in bytes, 256-byte aligned).
/// `frame()` marks a point; destroying the frame gives back everything that was taken since. Memory is kept for the
/// next forward: the first pass over a model makes it, in one piece for all that a frame needs at once, and from then
/// on nothing is allocated and addresses repeat from pass to pass. Not thread-safe: one workspace a stream.
template <class Buffer>
class BasicWorkspace {
  struct Mark {
    std::size_t chunk = 0;   // the chunk that is being filled
    std::size_t used = 0;    // bytes used in it
    std::size_t in_use = 0;  // bytes used in all, ends of full chunks left out
  };

 public:
  BasicWorkspace() = default;
  BasicWorkspace(const BasicWorkspace&) = delete;
  BasicWorkspace& operator=(const BasicWorkspace&) = delete;

  /// Gives back what was allocated during its lifetime. Frames nest.
  class [[nodiscard]] Frame {
   public:
    explicit Frame(BasicWorkspace& workspace) : workspace_(workspace), mark_(workspace.at_) {}
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    ~Frame() { workspace_.return_to(mark_); }

   private:
    BasicWorkspace& workspace_;
    Mark mark_;
  };

  Frame frame() { return Frame(*this); }

  /// `count` uninitialised objects, 256-byte aligned, valid until the enclosing frame ends.
  /// @throws MemoryError when the system refuses, ShapeError when the size overflows
  template <class T>
  T* allocate(std::size_t count) {
    const std::size_t asked = checked_product(count, sizeof(T));
    if (asked > std::numeric_limits<std::size_t>::max() / 2) throw ShapeError("a workspace that large does not exist");
    const std::size_t bytes =
        (asked + AlignedBuffer::alignment - 1) / AlignedBuffer::alignment * AlignedBuffer::alignment;
    while (at_.chunk < chunks_.size() && chunks_[at_.chunk].size() - at_.used < bytes) {
      ++at_.chunk;
      at_.used = 0;
    }
    if (at_.chunk == chunks_.size()) {
      const std::size_t last = chunks_.empty() ? 0 : chunks_.back().size();
      add_chunk(std::max({bytes, minimum_chunk_bytes, std::min(2 * last, maximum_growth_bytes)}));
    }
    std::byte* memory = chunks_[at_.chunk].data() + at_.used;
    at_.used += bytes;
    at_.in_use += bytes;
    most_in_use_ = std::max(most_in_use_, at_.in_use);
    return reinterpret_cast<T*>(memory);
  }

  /// Another number after every change of the memory behind the workspace. While it stays, a frame that begins at the
  /// same place gives the same addresses.
  std::size_t generation() const { return generation_; }

  /// Most bytes that were held at once since `reset_peak`.
  std::size_t peak_bytes() const { return peak_bytes_; }
  void reset_peak() { peak_bytes_ = held_bytes(); }
  /// Returns all memory to the system. No frame may be open.
  void release() {
    chunks_.clear();
    ++generation_;
    at_ = {};
    most_in_use_ = 0;
  }

 private:
  static constexpr std::size_t minimum_chunk_bytes = std::size_t{1} << 20;
  static constexpr std::size_t maximum_growth_bytes = std::size_t{32} << 20;

  std::size_t held_bytes() const {
    std::size_t bytes = 0;
    for (const Buffer& chunk : chunks_) bytes += chunk.size();
    return bytes;
  }
  void add_chunk(std::size_t bytes) {
    chunks_.emplace_back(bytes);
    ++generation_;
    peak_bytes_ = std::max(peak_bytes_, held_bytes());
  }
  /// Where several chunks lie behind the mark, one takes their place: what comes next has other sizes and would leave
  /// holes in them.
  void return_to(const Mark& mark) noexcept {
    at_ = mark;
    const std::size_t first = mark.used == 0 ? mark.chunk : mark.chunk + 1;
    if (chunks_.size() <= first + 1) return;
    chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(first), chunks_.end());
    ++generation_;
    try {
      add_chunk(most_in_use_ - mark.in_use);
    } catch (...) {  // whoever allocates next hears of it
    }
  }

  std::vector<Buffer> chunks_;
  Mark at_;
  std::size_t most_in_use_ = 0;  // since the last release
  std::size_t peak_bytes_ = 0;
  std::size_t generation_ = 0;
};

/// Activations in RAM.
using Workspace = BasicWorkspace<AlignedBuffer>;

}  // namespace ebb
