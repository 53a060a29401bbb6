#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <type_traits>

#include "ebb/core/config.hpp"

namespace ebb {

/// Element types that occur in checkpoints; the names are those of the safetensors header.
enum class DType : std::uint8_t { f32, f16, bf16, f8_e4m3, i8, u8, i64 };

/// Bytes of one element.
constexpr std::size_t size_of(DType type) {
  switch (type) {
    case DType::i64:
      return 8;
    case DType::f32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::f8_e4m3:
    case DType::i8:
    case DType::u8:
      return 1;
  }
  return 0;
}

/// The safetensors spelling, e.g. "BF16".
constexpr std::string_view name_of(DType type) {
  switch (type) {
    case DType::f32:
      return "F32";
    case DType::f16:
      return "F16";
    case DType::bf16:
      return "BF16";
    case DType::f8_e4m3:
      return "F8_E4M3";
    case DType::i8:
      return "I8";
    case DType::u8:
      return "U8";
    case DType::i64:
      return "I64";
  }
  return "?";
}

/// float32 to bfloat16 bits, round to nearest even; every NaN becomes the quiet NaN 0x7fc0 (as PyTorch does).
EBB_HOST_DEVICE constexpr std::uint16_t bfloat16_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// bfloat16 bits to float32, exact.
EBB_HOST_DEVICE constexpr float bfloat16_value(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// float32 to IEEE binary16 bits, round to nearest even, overflow to infinity, subnormals kept.
EBB_HOST_DEVICE constexpr std::uint16_t float16_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds past 65504
  if (magnitude < 0x38800000u) {  // subnormal result: align the significand to 2^-24 and round once
    if (magnitude < 0x33000000u) return sign;
    const std::uint32_t exponent = magnitude >> 23;
    const std::uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u;
    const std::uint32_t shift = 126u - exponent;  // 14 .. 24
    const std::uint32_t kept = significand >> shift;
    const std::uint32_t rest = significand & ((1u << shift) - 1u);
    const std::uint32_t half = 1u << (shift - 1u);
    const std::uint32_t up = (rest > half || (rest == half && (kept & 1u))) ? 1u : 0u;
    return static_cast<std::uint16_t>(sign | (kept + up));
  }
  const std::uint32_t rebased = magnitude - 0x38000000u;
  return static_cast<std::uint16_t>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
}

/// IEEE binary16 bits to float32, exact.
EBB_HOST_DEVICE constexpr float float16_value(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t significand = bits & 0x3ffu;
  if (exponent == 31u) return std::bit_cast<float>(sign | 0x7f800000u | (significand << 13));
  if (exponent != 0u) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (significand << 13));
  const float magnitude = static_cast<float>(significand) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

/// bfloat16 storage with exact conversion to float and round-to-nearest-even conversion from it.
struct bfloat16 {
  std::uint16_t bits;
  bfloat16() = default;
  EBB_HOST_DEVICE constexpr explicit bfloat16(float value) : bits(bfloat16_bits(value)) {}
  EBB_HOST_DEVICE constexpr operator float() const { return bfloat16_value(bits); }
  static constexpr bfloat16 from_bits(std::uint16_t bits) {
    bfloat16 value;
    value.bits = bits;
    return value;
  }
};

/// IEEE binary16 storage with exact conversion to float and round-to-nearest-even conversion from it.
struct float16 {
  std::uint16_t bits;
  float16() = default;
  EBB_HOST_DEVICE constexpr explicit float16(float value) : bits(float16_bits(value)) {}
  EBB_HOST_DEVICE constexpr operator float() const { return float16_value(bits); }
  static constexpr float16 from_bits(std::uint16_t bits) {
    float16 value;
    value.bits = bits;
    return value;
  }
};

static_assert(std::is_trivially_copyable_v<bfloat16> && sizeof(bfloat16) == 2);
static_assert(std::is_trivially_copyable_v<float16> && sizeof(float16) == 2);
static_assert(float16(65504.0f).bits == 0x7bff && float16(65520.0f).bits == 0x7c00);
static_assert(float16(0x1p-24f).bits == 1 && float16(0x1p-25f).bits == 0 && float16(0x1.8p-25f).bits == 1);
static_assert(bfloat16(1.00390625f).bits == 0x3f80 && bfloat16(1.01171875f).bits == 0x3f82);

/// An element that activations can be made of.
template <class T>
concept Element = std::is_same_v<T, float> || std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

/// The DType of an activation element.
template <Element T>
inline constexpr DType dtype_of = std::is_same_v<T, float>      ? DType::f32
                                  : std::is_same_v<T, bfloat16> ? DType::bf16
                                                                : DType::f16;

}  // namespace ebb
