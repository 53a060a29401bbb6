#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ebb/core/config.hpp"
#include "ebb/core/dtype.hpp"
#include "ebb/format/rowwise.hpp"

namespace ebb {

/// 8-bit floats (E4M3 of Micikevicius et al., FP8 Formats for Deep Learning, 2022: no infinities, largest
/// 448) with one float32 scale a row, absmax / 448. Codes are those of PyTorch's cast to float8_e4m3fn.
struct FP8 {
  struct Options {
    constexpr bool operator==(const Options&) const = default;
  };
  using Code = std::uint8_t;
  static constexpr std::string_view name = "fp8";
  static constexpr std::size_t bits = 8;
  static constexpr float largest = 448.0f;

  static constexpr std::size_t group(const Shape& shape, const Options&) { return columns_of(shape); }
  static constexpr SegmentLayout layout(const Shape& shape, const Options&) { return detail::rowwise_layout(shape); }

  EBB_HOST_DEVICE static constexpr float scale_of(float absmax) { return absmax / largest; }
  /// 0, and thus codes 0, for a row of zeros or of numbers so small (2^-119) that the quotient could
  /// overflow.
  EBB_HOST_DEVICE static constexpr float inverse_of(float absmax) {
    return absmax < 0x1p-119f ? 0.0f : largest / absmax;
  }
  EBB_HOST_DEVICE static constexpr std::uint8_t encode(float value, float inverse) { return bits_of(value * inverse); }
  EBB_HOST_DEVICE static constexpr float decode(std::uint8_t code, float scale) { return value_of(code) * scale; }

  /// float32 to E4M3FN bits: round to nearest even, saturating at 448; NaN becomes 0x7f with its sign.
  EBB_HOST_DEVICE static constexpr std::uint8_t bits_of(float value) {
    const auto raw = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (raw >> 24) & 0x80u;
    const std::uint32_t magnitude = raw & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<std::uint8_t>(sign | 0x7fu);
    if (magnitude >= 0x43e00000u) return static_cast<std::uint8_t>(sign | 0x7eu);  // 448 and above
    if (magnitude < 0x3c800000u) {  // below 2^-6: multiples of 2^-9, rounded by adding 1.5 * 2^(23 - 9)
      const float shifted = std::bit_cast<float>(magnitude) + 0x1.8p14f;
      return static_cast<std::uint8_t>(sign | (std::bit_cast<std::uint32_t>(shifted) & 0xfu));
    }
    const std::uint32_t rebased = magnitude - 0x3c000000u;  // exponent bias 127 -> 7
    return static_cast<std::uint8_t>(sign | ((rebased + 0x7ffffu + ((rebased >> 20) & 1u)) >> 20));
  }

  /// E4M3FN bits to float32, exact.
  EBB_HOST_DEVICE static constexpr float value_of(std::uint8_t code) {
    const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80u) << 24;
    const std::uint32_t magnitude = code & 0x7fu;
    if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
    if (magnitude < 8u) {
      const float small = static_cast<float>(magnitude) * 0x1p-9f;
      return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(small));
    }
    return std::bit_cast<float>(sign | ((magnitude << 20) + 0x3c000000u));
  }
};
static_assert(ScaledFormat<FP8>);
static_assert(FP8::bits_of(448.0f) == 0x7e && FP8::bits_of(1.0f) == 0x38 && FP8::bits_of(-0x1p-9f) == 0x81);
static_assert(FP8::value_of(0x7e) == 448.0f && FP8::value_of(0x01) == 0x1p-9f);

}  // namespace ebb
