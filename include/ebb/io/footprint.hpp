#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

#include "ebb/format/format.hpp"

namespace ebb {

/// Bytes of one format's tensors, counted by part; padding is the difference to what is allocated.
struct FormatBytes {
  std::size_t tensors = 0;
  std::size_t codes = 0;   // dense formats: the elements themselves
  std::size_t scales = 0;  // absmax, or its 8-bit codes under double quantization
  std::size_t nested = 0;  // the state of double quantization
  std::size_t stored() const { return codes + scales + nested; }
};

/// What a component's weights cost. Unlike `get_memory_footprint` of diffusers it counts the scales too.
class Footprint {
 public:
  void add(std::string_view format, const SegmentLayout& layout) {
    FormatBytes& bytes = formats_[std::string(format)];
    ++bytes.tensors;
    bytes.codes += layout.codes_bytes;
    bytes.scales += layout.scales_bytes;
    bytes.nested += layout.nested_bytes;
    allocated_ += layout.bytes;
  }
  const std::map<std::string, FormatBytes>& formats() const { return formats_; }
  /// Sum of all parts of all formats.
  std::size_t stored() const {
    std::size_t total = 0;
    for (const auto& [name, bytes] : formats_) total += bytes.stored();
    return total;
  }
  /// The same with the padding of segments: the size of the home arena.
  std::size_t allocated() const { return allocated_; }

 private:
  std::map<std::string, FormatBytes> formats_;
  std::size_t allocated_ = 0;
};

}  // namespace ebb
