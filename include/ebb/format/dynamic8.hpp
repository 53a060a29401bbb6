#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ebb/core/config.hpp"
#include "ebb/format/blockwise.hpp"

namespace ebb {

namespace detail {
/// Signed dynamic map as bitsandbytes' `create_dynamic_map()` computes it: for each of seven decimal
/// exponents a ladder of 2^i midpoints between evenly spaced boundaries from 0.1 to 1, both signs, and 0
/// and 1. The boundaries are those of a float32 `linspace` with fused multiply-add, counted from the nearer
/// end; the double arithmetic below is exact up to the one rounding to float.
constexpr std::array<float, nested_map_size> make_dynamic_map() {
  constexpr std::array<float, 7> power_of_ten = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
  std::array<float, nested_map_size> map{};
  std::size_t size = 0;
  for (std::size_t exponent = 0; exponent < power_of_ten.size(); ++exponent) {
    const std::size_t items = std::size_t{1} << exponent;
    const float step = (1.0f - 0.1f) / static_cast<float>(items);
    const auto boundary = [=](std::size_t index) {
      const double wide = step;
      if (index < (items + 1) / 2) return static_cast<float>(double{0.1f} + wide * static_cast<double>(index));
      return static_cast<float>(1.0 - wide * static_cast<double>(items - index));
    };
    for (std::size_t item = 0; item < items; ++item) {
      const float middle = power_of_ten[exponent] * ((boundary(item) + boundary(item + 1)) / 2.0f);
      map[size++] = middle;
      map[size++] = -middle;
    }
  }
  map[size++] = 0.0f;
  map[size++] = 1.0f;
  std::sort(map.begin(), map.end());
  return map;
}
}  // namespace detail

/// The 256 values, ascending, of an 8-bit code for numbers in [-1, 1] that keeps relative precision over
/// seven decades (Dettmers, 8-Bit Approximations for Parallelism in Deep Learning, 2015). Bit-equal to
/// bitsandbytes.
inline constexpr std::array<float, nested_map_size> dynamic_map = detail::make_dynamic_map();
static_assert(dynamic_map[0] == -0.99296875f && dynamic_map[127] == 0.0f && dynamic_map[255] == 1.0f);

/// Index of the entry of `map` (256 values, ascending) nearest to `y`, found by the search of bitsandbytes'
/// CUDA kernel: which way an exact tie goes depends on the path, and NaN ends at code 0.
EBB_HOST_DEVICE constexpr std::uint8_t dynamic_code(float y, const float* map) {
  int pivot = 127;
  int above = 255;
  int below = 0;
  for (int step = 64; step > 0; step >>= 1) {
    if (y > map[pivot]) {
      below = pivot;
      pivot += step;
    } else {
      above = pivot;
      pivot -= step;
    }
  }
  const float value = map[pivot];
  if (y > value) return static_cast<std::uint8_t>(y > (map[above] + value) * 0.5f ? above : pivot);
  return static_cast<std::uint8_t>(y < (map[below] + value) * 0.5f ? below : pivot);
}

/// Mean of block scales, as it is subtracted before they are quantized. PyTorch sums in float32 in an order
/// that depends on its vector width and on the device; here the sum is in double and rounded once, so that
/// the result may differ from a given PyTorch build in the last bits.
constexpr float mean_of_scales(std::span<const float> scales) {
  if (scales.empty()) return 0.0f;
  double sum = 0.0;
  for (const float scale : scales) sum += scale;
  return static_cast<float>(sum / static_cast<double>(scales.size()));
}

/// Double quantization: one 8-bit code for each scale, one float32 for each 256 of them, with the arithmetic
/// of bitsandbytes' CUDA kernel. `codes` has the size of `scales`, `nested_scales` one entry for each
/// (started) 256. 256 scales that all equal `mean` get codes and nested scale 0, and decode to `mean`.
constexpr void quantize_scales(std::span<const float> scales, float mean, std::span<std::uint8_t> codes,
                               std::span<float> nested_scales) {
  for (std::size_t block = 0; block < nested_scales.size(); ++block) {
    const std::size_t begin = block * nested_block_size;
    const std::size_t end = std::min(begin + nested_block_size, scales.size());
    float largest = 0.0f;
    for (std::size_t i = begin; i < end; ++i) {
      const float residual = scales[i] - mean;
      largest = std::max(largest, residual < 0.0f ? -residual : residual);
    }
    nested_scales[block] = largest;
    if (largest == 0.0f) {
      std::fill(codes.begin() + static_cast<std::ptrdiff_t>(begin), codes.begin() + static_cast<std::ptrdiff_t>(end),
                std::uint8_t{0});
      continue;
    }
    const float inverse = 1.0f / largest;
    for (std::size_t i = begin; i < end; ++i) codes[i] = dynamic_code((scales[i] - mean) * inverse, dynamic_map.data());
  }
}

}  // namespace ebb
