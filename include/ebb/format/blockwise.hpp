#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/format/format.hpp"
#include "ebb/format/packing.hpp"

namespace ebb {

/// Whether the block scales of a 4-bit format are themselves quantized to 8 bits (see dynamic8.hpp).
enum class DoubleQuantization { off, on };

/// Options of the block-wise 4-bit formats. Blocks run over the flattened row-major tensor and may straddle
/// rows.
struct BlockOptions {
  std::size_t block_size = 64;  // elements a scale; a power of two from 32 to 4096
  DoubleQuantization nested = DoubleQuantization::off;
  constexpr bool operator==(const BlockOptions&) const = default;
};

/// Scales that share one nested scale under double quantization.
inline constexpr std::size_t nested_block_size = 256;
/// Entries of the map that decodes a nested scale.
inline constexpr std::size_t nested_map_size = 256;

// Where the members of the nested part lie, in bytes from SegmentLayout::nested_offset:
// the float32 map [256], the float32 nested scales [ceil(blocks / 256)], the float32 mean that was
// subtracted.
inline constexpr std::size_t nested_map_at = 0;
inline constexpr std::size_t nested_scales_at = nested_map_size * sizeof(float);
constexpr std::size_t nested_mean_at(const SegmentLayout& layout) { return layout.nested_bytes - sizeof(float); }

/// Block sizes that bitsandbytes accepts for 4-bit formats.
constexpr bool is_block_size(std::size_t size) { return size >= 32 && size <= 4096 && std::has_single_bit(size); }

/// @throws ConfigError for a block size that is not a power of two from 32 to 4096
constexpr void check_block_size(std::size_t size) {
  if (!is_block_size(size))
    throw ConfigError(concat("block size ", size, ": expected one of 32, 64, 128, 256, 512, 1024, 2048, 4096"));
}

namespace detail {
/// Layout shared by the 4-bit formats: packed codes; one float32 scale a block, or with double quantization
/// one 8-bit scale code a block plus the nested state.
struct Blockwise4 {
  using Options = BlockOptions;
  using Code = std::uint8_t;
  static constexpr std::size_t bits = 4;

  static constexpr std::size_t group(const Shape&, const Options& options) {
    check_block_size(options.block_size);
    return options.block_size;
  }
  static constexpr SegmentLayout layout(const Shape& shape, const Options& options) {
    check_block_size(options.block_size);
    const std::size_t elements = shape.elements();
    const std::size_t blocks = ceil_divide(elements, options.block_size);
    if (options.nested == DoubleQuantization::off)
      return layout_of_parts(packed_bytes(elements), checked_product(blocks, sizeof(float)));
    const std::size_t nested_scales = ceil_divide(blocks, nested_block_size);
    return layout_of_parts(packed_bytes(elements), blocks, (nested_map_size + nested_scales + 1) * sizeof(float));
  }

  /// The stored scale is the largest magnitude of the block.
  EBB_HOST_DEVICE static constexpr float scale_of(float absmax) { return absmax; }
  /// Infinity for a zero block, see `encode`.
  EBB_HOST_DEVICE static constexpr float inverse_of(float absmax) {
    return absmax == 0.0f ? std::numeric_limits<float>::infinity() : 1.0f / absmax;
  }
};
}  // namespace detail

/// A 4-bit format with one scale a block, optionally double quantized.
template <class Format>
concept BlockFormat = ScaledFormat<Format> && std::same_as<typename Format::Options, BlockOptions>;

/// A block's scale from its nested parts: map value * nested scale + mean, each operation rounded to float32
/// as in bitsandbytes. `volatile` keeps compilers from contracting the two into one fused operation.
inline float nested_scale(float map_value, float scale, float mean) {
  const volatile float product = map_value * scale;
  return product + mean;
}

}  // namespace ebb
