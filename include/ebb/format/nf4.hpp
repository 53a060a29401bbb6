#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "ebb/core/config.hpp"
#include "ebb/format/blockwise.hpp"

namespace ebb {

/// 4-bit NormalFloat: sixteen quantiles of the normal distribution, scaled to the largest magnitude of each
/// block (Dettmers et al., QLoRA, 2023). Codes, packing and scales are those of bitsandbytes.
///
/// Rounding is that of its CUDA kernels: y = x * (1 / absmax) in float32, and a tie goes to the lower code.
/// A block of zeros gives y = 0 * infinity = NaN, for which every comparison fails: code 0 (bytes 0x00) with
/// absmax 0, which decodes to -0. The CPU backend of bitsandbytes writes code 7 (bytes 0x77) there and, in a
/// block cut short by the end of the tensor, absmax 1e-38 instead of 0; both are read. Its CUDA kernels take
/// an approximate reciprocal, so that a code may still be the neighbouring one where y lies within 2 ulp of a
/// threshold.
struct NF4 : detail::Blockwise4 {
  static constexpr std::string_view name = "nf4";

  static constexpr std::array<float, 16> values = {-1.0f,
                                                   -0.6961928009986877f,
                                                   -0.5250730514526367f,
                                                   -0.39491748809814453f,
                                                   -0.28444138169288635f,
                                                   -0.18477343022823334f,
                                                   -0.09105003625154495f,
                                                   0.0f,
                                                   0.07958029955625534f,
                                                   0.16093020141124725f,
                                                   0.24611230194568634f,
                                                   0.33791524171829224f,
                                                   0.44070982933044434f,
                                                   0.5626170039176941f,
                                                   0.7229568362236023f,
                                                   1.0f};

  /// Where code i ends: between the values of codes i and i + 1. These are the literals of the CUDA kernel.
  /// Four of the exact midpoints (0, 8, 12, 14) lie halfway between two float32 numbers, and there the
  /// literals round to the other one than float32 arithmetic, and with it the CPU backend, does.
  static constexpr std::array<float, 15> thresholds = {
      -0.8480964004993439f,  -0.6106329262256622f,   -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
      -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
      0.2920137718319893f,   0.3893125355243683f,    0.5016634166240692f,  0.6427869200706482f,   0.8614784181118011f};

  /// Code of `value`, whose block has 1 / absmax = `inverse`. Branch-free: the number of thresholds below.
  EBB_HOST_DEVICE static constexpr std::uint8_t encode(float value, float inverse) {
    return rank(value * inverse, std::make_index_sequence<15>());
  }
  /// Host only: device code reads the table its own way.
  static constexpr float decode(std::uint8_t code, float scale) { return values[code & 0xfu] * scale; }

 private:
  template <std::size_t I>
  static constexpr float threshold = thresholds[I];
  template <std::size_t... I>
  EBB_HOST_DEVICE static constexpr std::uint8_t rank(float y, std::index_sequence<I...>) {
    return static_cast<std::uint8_t>((static_cast<unsigned>(y > threshold<I>) + ...));
  }
};
static_assert(ScaledFormat<NF4>);

}  // namespace ebb
