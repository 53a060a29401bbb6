#pragma once

#include <concepts>
#include <cstddef>
#include <limits>
#include <string_view>
#include <type_traits>

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"

namespace ebb {

/// Every quantized tensor starts at a multiple of this many bytes and occupies a multiple of it.
inline constexpr std::size_t segment_alignment = 256;

/// Every part inside a segment (codes, scales, nested state) starts at a multiple of this many bytes:
/// one cache line, and more than any vector or bulk load needs.
inline constexpr std::size_t part_alignment = 128;

/// Sum that refuses to wrap. @throws ShapeError on overflow
constexpr std::size_t checked_sum(std::size_t a, std::size_t b) {
  if (b > std::numeric_limits<std::size_t>::max() - a)
    throw ShapeError("a size overflows 64 bits: the file or configuration that names it is damaged");
  return a + b;
}

/// The smallest multiple of `alignment` (a power of two) that is not below `bytes`. @throws ShapeError on
/// overflow
constexpr std::size_t align_up(std::size_t bytes, std::size_t alignment) {
  return checked_sum(bytes, alignment - 1) & ~(alignment - 1);
}

/// Where the parts of one quantized tensor lie inside its one contiguous segment; all in bytes.
/// The `*_bytes` count what is stored, without padding, and so serve as footprint counters;
/// `bytes` is the whole segment, padding included, a multiple of `segment_alignment`.
struct SegmentLayout {
  std::size_t codes_offset = 0;
  std::size_t codes_bytes = 0;
  std::size_t scales_offset = 0;
  std::size_t scales_bytes = 0;
  std::size_t nested_offset = 0;
  std::size_t nested_bytes = 0;
  std::size_t bytes = 0;

  constexpr bool operator==(const SegmentLayout&) const = default;

  /// Codes + scales + nested state without padding: what the format costs.
  constexpr std::size_t stored_bytes() const { return codes_bytes + scales_bytes + nested_bytes; }
};

/// Lays the three parts out one after the other, each at a multiple of `part_alignment`.
/// @throws ShapeError when the sizes overflow
constexpr SegmentLayout layout_of_parts(std::size_t codes_bytes, std::size_t scales_bytes = 0,
                                        std::size_t nested_bytes = 0) {
  SegmentLayout layout;
  layout.codes_bytes = codes_bytes;
  layout.scales_offset = align_up(codes_bytes, part_alignment);
  layout.scales_bytes = scales_bytes;
  layout.nested_offset = align_up(checked_sum(layout.scales_offset, scales_bytes), part_alignment);
  layout.nested_bytes = nested_bytes;
  layout.bytes = align_up(checked_sum(layout.nested_offset, nested_bytes), segment_alignment);
  return layout;
}

/// Storage arithmetic of weights: how a number becomes a code and back, and where the parts lie. No memory,
/// no backend. `bits` is the width of a code; `Code` the type in which codes travel (for dense formats the
/// element itself); `group(shape, options)` the number of consecutive elements (row-major) that are encoded
/// together, which for scaled formats share one scale. `encode(x, inverse)` and `decode(code, scale)` treat
/// one element; dense formats ignore the second argument.
template <class Format>
concept QuantFormat =
    std::default_initializable<typename Format::Options> && std::equality_comparable<typename Format::Options> &&
    requires(const Shape& shape, const typename Format::Options& options, float x, typename Format::Code code) {
      { Format::name } -> std::convertible_to<std::string_view>;
      { Format::bits } -> std::convertible_to<std::size_t>;
      { Format::layout(shape, options) } -> std::same_as<SegmentLayout>;
      { Format::group(shape, options) } -> std::same_as<std::size_t>;
      { Format::encode(x, x) } -> std::same_as<typename Format::Code>;
      { Format::decode(code, x) } -> std::same_as<float>;
    };

/// A format with one scale a group: `scale_of(absmax)` is what is stored, `inverse_of(absmax)` the factor
/// that brings the group's elements into the range of `encode`.
template <class Format>
concept ScaledFormat = QuantFormat<Format> && requires(float absmax) {
  { Format::scale_of(absmax) } -> std::same_as<float>;
  { Format::inverse_of(absmax) } -> std::same_as<float>;
};

/// A scaled format that does not quantize a weight itself but what `prepare` makes of each element.
template <class Format>
concept PreparingFormat = ScaledFormat<Format> && requires(float x) {
  { Format::prepare(x) } -> std::same_as<float>;
};

/// A format that stores the elements themselves.
template <class Format>
concept DenseFormat = QuantFormat<Format> && !ScaledFormat<Format>;

}  // namespace ebb
