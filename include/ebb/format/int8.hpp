#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ebb/core/config.hpp"
#include "ebb/format/rowwise.hpp"

namespace ebb {

/// Options of LLM.int8. `outlier_threshold`: an activation column with a magnitude at or above it is
/// multiplied in 16 bits instead of 8; 0 turns the decomposition off. It does not influence the stored
/// weight.
struct Int8Options {
  float outlier_threshold = 6.0f;
  constexpr bool operator==(const Int8Options&) const = default;
};

namespace detail {
/// float(float16(value)) without branches, so that loops over it vectorize. Magnitudes below 2^-14 are
/// rounded to a multiple of 2^-24 by adding 1.5 * 2^-1, whose last bit that is; the others by cutting 13
/// bits.
EBB_HOST_DEVICE constexpr float round_to_float16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t cut = (magnitude + 0xfffu + ((magnitude >> 13) & 1u)) & ~0x1fffu;
  const std::uint32_t normal = magnitude > 0x7f800000u ? 0x7fc00000u : cut >= 0x47800000u ? 0x7f800000u : cut;
  const float small = (std::bit_cast<float>(magnitude) + 0.75f) - 0.75f;
  const std::uint32_t rounded = magnitude < 0x38800000u ? std::bit_cast<std::uint32_t>(small) : normal;
  return std::bit_cast<float>(rounded | (bits & 0x80000000u));
}
}  // namespace detail

/// Row-wise 8-bit integers of LLM.int8 (Dettmers et al., 2022), equal to bitsandbytes: the weight is cast to
/// float16 first (`prepare`), the stored scale is the largest magnitude of the row (its name there: SCB), and
/// codes are x * (127 * (1 / absmax)), in float32, rounded to the nearest integer with ties to even. A row of
/// zeros gets codes 0 and scale 0. Its CUDA kernel takes an approximate reciprocal, so that codes next to a
/// tie may differ by one.
struct INT8 {
  using Options = Int8Options;
  using Code = std::int8_t;
  static constexpr std::string_view name = "int8";
  static constexpr std::size_t bits = 8;

  static constexpr std::size_t group(const Shape& shape, const Options&) { return columns_of(shape); }
  static constexpr SegmentLayout layout(const Shape& shape, const Options&) { return detail::rowwise_layout(shape); }

  /// What is quantized in place of `value`: its float16 neighbour.
  EBB_HOST_DEVICE static constexpr float prepare(float value) { return detail::round_to_float16(value); }

  EBB_HOST_DEVICE static constexpr float scale_of(float absmax) { return absmax; }
  EBB_HOST_DEVICE static constexpr float inverse_of(float absmax) {
    return absmax == 0.0f ? 0.0f : 127.0f * (1.0f / absmax);
  }
  /// value * inverse rounded to the nearest integer, ties to even; its magnitude must be below 127.5. Only
  /// compares: an addition could be fused with the product, which would round once instead of twice.
  EBB_HOST_DEVICE static constexpr std::int8_t encode(float value, float inverse) {
    const auto pattern = std::bit_cast<std::uint32_t>(value * inverse);
    const auto magnitude = std::bit_cast<float>(pattern & 0x7fffffffu);
    const auto floor = static_cast<std::int32_t>(magnitude);
    const float tie = static_cast<float>(floor) + 0.5f;
    const std::int32_t above = magnitude > tie ? 1 : 0;
    const std::int32_t at = magnitude == tie ? 1 : 0;
    const std::int32_t rounded = floor + (above | (at & floor));
    const std::int32_t sign = -static_cast<std::int32_t>(pattern >> 31);  // 0 or -1
    return static_cast<std::int8_t>((rounded ^ sign) - sign);
  }
  /// code * scale * (1 / 127), each product rounded to float32.
  EBB_HOST_DEVICE static constexpr float decode(std::int8_t code, float scale) {
    return static_cast<float>(code) * scale * 7.874015718698502e-3f;
  }
};
static_assert(ScaledFormat<INT8>);
static_assert(INT8::encode(2.5f, 1.0f) == 2 && INT8::encode(3.5f, 1.0f) == 4 && INT8::encode(-127.0f, 1.0f) == -127);

}  // namespace ebb
