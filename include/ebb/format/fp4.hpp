#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "ebb/core/config.hpp"
#include "ebb/format/blockwise.hpp"

namespace ebb {

/// The 4-bit float of bitsandbytes: bit 3 is the sign, the other three name the magnitudes
/// 0, 1/192, 2/3, 1, 1/3, 1/2, 1/6, 1/4 in this (bit, not value) order, scaled to the largest magnitude of a
/// block.
///
/// Rounding is that of its CUDA kernels: y = x * (1 / absmax) in float32 is compared with literal pivots that
/// lie up to 14 ulp off the midpoints; ties go to the smaller magnitude and the sign is that of y < 0, so
/// that -0 becomes +0 but a small negative number -0. A block of zeros gives y = NaN and thus code 0. The CPU
/// backend of bitsandbytes uses the midpoints and orders the values, so that it differs next to the pivots,
/// where it sends exact ties to the lower *value* (a negative tie to the larger magnitude), and may write
/// zero and what rounds to it as code 0 or 8.
struct FP4 : detail::Blockwise4 {
  static constexpr std::string_view name = "fp4";

  static constexpr std::array<float, 16> values = {
      0.0f,  0.005208333333f,  0.66666667f,  1.0f,  0.33333333f,  0.5f,  0.16666667f,  0.25f,
      -0.0f, -0.005208333333f, -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f};

  /// Pivots of CUDA between neighbouring magnitudes, ascending.
  static constexpr std::array<float, 7> pivots = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                                  0.4166667f,  0.583333f,  0.8333333f};

  /// Code of `value`, whose block has 1 / absmax = `inverse`. Free of branches and tables: the number of
  /// pivots below the magnitude, 0 to 7, names the magnitude bits 0, 1, 6, 7, 4, 5, 2, 3, which are the low
  /// bit of that rank and the negated other two.
  EBB_HOST_DEVICE static constexpr std::uint8_t encode(float value, float inverse) {
    const float y = value * inverse;
    const std::uint32_t sign = y < 0.0f ? 8u : 0u;
    const auto magnitude = std::bit_cast<float>(std::bit_cast<std::uint32_t>(y) & 0x7fffffffu);
    const std::uint32_t below = rank(magnitude, std::make_index_sequence<7>());
    return static_cast<std::uint8_t>(((0u - (below & 6u)) & 6u) | (below & 1u) | sign);
  }
  /// Host only: device code reads the table its own way.
  static constexpr float decode(std::uint8_t code, float scale) { return values[code & 0xfu] * scale; }

 private:
  template <std::size_t I>
  static constexpr float pivot = pivots[I];
  template <std::size_t... I>
  EBB_HOST_DEVICE static constexpr std::uint32_t rank(float magnitude, std::index_sequence<I...>) {
    return (static_cast<std::uint32_t>(magnitude > pivot<I>) + ...);
  }
};
static_assert(ScaledFormat<FP4>);

}  // namespace ebb
