#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/format/dynamic8.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/dequantize.hpp"
#include "ebb/tensor/quantized_tensor.hpp"

namespace ebb {

/// Writes one tensor into its segment piece by piece: `encode` for every group (from any number of threads,
/// each group once), then `finish` once. Nothing is allocated but, under double quantization, one float a
/// block.
template <QuantFormat Format>
class Quantizer {
 public:
  /// `target` gives shape and options and need not be bound; `segment` receives `target.bytes()` bytes and
  /// must be aligned for float; both and `tensor_name` (for messages) outlive the quantizer.
  /// @throws ShapeError when the segment is too small or misaligned
  Quantizer(const QuantizedTensor<Format>& target, std::span<std::byte> segment, std::string_view tensor_name)
      : target_(target), segment_(segment), tensor_name_(tensor_name) {
    if (segment.size() < target.bytes())
      throw ShapeError(concat("tensor '", tensor_name, "': shape ", target.shape().text(), " in ", Format::name,
                              " needs a segment of ", target.bytes(), " bytes, found ", segment.size()));
    if (reinterpret_cast<std::uintptr_t>(segment.data()) % alignof(float) != 0)
      throw ShapeError(concat("tensor '", tensor_name, "': the segment is not aligned to ", alignof(float), " bytes"));
    if (nested()) absmax_.resize(target.groups());
  }

  std::size_t groups() const { return target_.groups(); }

  /// Encodes consecutive elements that start with group `first_group`; they must fill whole groups or reach
  /// the end of the tensor. Calls for disjoint groups may run at the same time.
  /// @throws ShapeError for a range that is not whole groups, ValueError for NaN or infinity
  template <Element T>
  void encode(std::size_t first_group, std::span<const T> values) {
    const std::size_t size = target_.group();
    check_range(first_group, values.size());
    if constexpr (DenseFormat<Format>) {
      auto* out = reinterpret_cast<typename Format::Code*>(segment_.data()) + first_group;
      for (std::size_t i = 0; i < values.size(); ++i) out[i] = Format::encode(values[i]);
    } else {
      for (std::size_t group = first_group, begin = 0; begin < values.size(); ++group, begin += size)
        encode_group(group, values.subspan(begin, std::min(size, values.size() - begin)));
    }
  }

  /// Quantizes the scales where the format asks for it and clears the padding, so that equal tensors have
  /// equal segments.
  void finish() {
    const SegmentLayout& layout = target_.layout();
    if constexpr (BlockFormat<Format>) {
      if (nested()) {
        std::byte* state = segment_.data() + layout.nested_offset;
        const float mean = mean_of_scales(absmax_);
        std::memcpy(state + nested_map_at, dynamic_map.data(), sizeof(dynamic_map));
        std::memcpy(state + nested_mean_at(layout), &mean, sizeof(mean));
        quantize_scales(absmax_, mean,
                        {reinterpret_cast<std::uint8_t*>(segment_.data() + layout.scales_offset), groups()},
                        {reinterpret_cast<float*>(state + nested_scales_at), ceil_divide(groups(), nested_block_size)});
      }
    }
    clear(layout.codes_offset + layout.codes_bytes, layout.scales_offset);
    clear(layout.scales_offset + layout.scales_bytes, layout.nested_offset);
    clear(layout.nested_offset + layout.nested_bytes, layout.bytes);
  }

 private:
  static constexpr std::size_t chunk = 4096;  // elements converted at a time; the largest block

  bool nested() const { return target_.nested(); }

  void check_range(std::size_t first_group, std::size_t count) const {
    const std::size_t size = target_.group();
    const bool inside =
        first_group <= groups() && count <= target_.elements() - std::min(target_.elements(), first_group * size);
    if (!inside || (count != 0 && count % size != 0 && first_group * size + count != target_.elements()))
      throw ShapeError(concat("tensor '", tensor_name_, "': ", count, " values from group ", first_group,
                              " on do not make whole groups of ", size, " in a tensor of shape ",
                              target_.shape().text()));
  }

  void clear(std::size_t begin, std::size_t end) {
    std::fill(segment_.begin() + static_cast<std::ptrdiff_t>(begin),
              segment_.begin() + static_cast<std::ptrdiff_t>(end), std::byte{0});
  }

  template <Element T>
  static void load(std::span<const T> values, float* out) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if constexpr (PreparingFormat<Format>)
        out[i] = Format::prepare(values[i]);
      else
        out[i] = values[i];
    }
  }

  /// Largest magnitude as bits, which order like the magnitudes, with infinity and NaN on top.
  static std::uint32_t largest_bits(const float* values, std::size_t count) {
    std::uint32_t largest = 0;
    for (std::size_t i = 0; i < count; ++i)
      largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffu);
    return largest;
  }

  template <Element T>
  void encode_group(std::size_t group, std::span<const T> values) {
    constexpr std::uint32_t infinity = 0x7f800000u;
    alignas(64) std::array<float, chunk> buffer;
    std::uint32_t largest = 0;
    for (std::size_t begin = 0; begin < values.size(); begin += chunk) {
      const auto part = values.subspan(begin, std::min(chunk, values.size() - begin));
      load(part, buffer.data());
      largest = std::max(largest, largest_bits(buffer.data(), part.size()));
      if (largest >= infinity) throw_not_finite(group * target_.group() + begin, part);
    }
    const auto absmax = std::bit_cast<float>(largest);
    const float scale = Format::scale_of(absmax);
    const float inverse = Format::inverse_of(absmax);
    if (nested())
      absmax_[group] = scale;
    else
      reinterpret_cast<float*>(segment_.data() + target_.layout().scales_offset)[group] = scale;

    const std::size_t first = group * target_.group();
    for (std::size_t begin = 0; begin < values.size(); begin += chunk) {
      const auto part = values.subspan(begin, std::min(chunk, values.size() - begin));
      if (values.size() > chunk) load(part, buffer.data());
      if constexpr (Format::bits == 4)
        store_nibbles(buffer.data(), part.size(), inverse, first + begin);
      else
        store_bytes(buffer.data(), part.size(), inverse, first + begin);
    }
  }

  void store_bytes(const float* values, std::size_t count, float inverse, std::size_t first) {
    auto* out = reinterpret_cast<typename Format::Code*>(segment_.data()) + first;
    for (std::size_t i = 0; i < count; ++i) out[i] = Format::encode(values[i], inverse);
  }

  /// `first` is even: blocks have even sizes.
  void store_nibbles(const float* values, std::size_t count, float inverse, std::size_t first) {
    std::array<std::uint8_t, chunk> codes;
    for (std::size_t i = 0; i < count; ++i) codes[i] = Format::encode(values[i], inverse);
    if (count % 2 != 0) codes[count] = Format::encode(0.0f, inverse);
    auto* out = reinterpret_cast<std::uint8_t*>(segment_.data()) + first / 2;
    for (std::size_t i = 0; i < packed_bytes(count); ++i) out[i] = pack_nibbles(codes[2 * i], codes[2 * i + 1]);
  }

  template <Element T>
  [[noreturn]] void throw_not_finite(std::size_t first, std::span<const T> values) const {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float value = values[i];
      float prepared = value;
      if constexpr (PreparingFormat<Format>) prepared = Format::prepare(value);
      if ((std::bit_cast<std::uint32_t>(prepared) & 0x7fffffffu) < 0x7f800000u) continue;
      throw ValueError(concat("tensor '", tensor_name_, "': element ", first + i, " is ", value, ", which ",
                              Format::name, " cannot hold: expected finite numbers",
                              prepared == value || value != value ? "" : " that fit float16",
                              "; check the checkpoint or exclude the tensor from quantization"));
    }
    throw ValueError(concat("tensor '", tensor_name_, "' changed while it was quantized"));
  }

  const QuantizedTensor<Format>& target_;
  std::span<std::byte> segment_;
  std::string_view tensor_name_;
  std::vector<float> absmax_;
};

/// Quantizes a whole tensor (row-major `values`) into `segment`; see `Quantizer` for the arguments and for a
/// variant that works in parts.
/// @throws ShapeError when sizes do not match, ValueError (with tensor and index) for NaN or infinity
template <QuantFormat Format, Element T>
void quantize(std::span<const T> values, const QuantizedTensor<Format>& target, std::span<std::byte> segment,
              std::string_view tensor_name) {
  if (values.size() != target.elements())
    throw ShapeError(concat("tensor '", tensor_name, "': shape ", target.shape().text(), " has ", target.elements(),
                            " elements, found ", values.size()));
  Quantizer<Format> quantizer(target, segment, tensor_name);
  quantizer.encode(0, values);
  quantizer.finish();
}

/// The same for a tensor whose format was chosen at run time.
template <Element T, QuantFormat... Formats>
void quantize(std::span<const T> values, const AnyOf<Formats...>& target, std::span<std::byte> segment,
              std::string_view tensor_name) {
  target.visit([&](const auto& tensor) { quantize(values, tensor, segment, tensor_name); });
}

}  // namespace ebb
