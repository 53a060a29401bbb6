#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <optional>
#include <random>
#include <span>
#include <type_traits>

#include "ebb/core/dtype.hpp"

namespace ebb::examples {

/// The numbers of PyTorch's generator for the CPU: the same seed gives the noise, and so the picture, that a
/// diffusers pipeline gets from `torch.Generator("cpu").manual_seed(seed)`.
///
/// Successive calls continue one stream, as they do in PyTorch. What is reproduced, checked against
/// PyTorch 2.15 on x86-64 with AVX2:
/// * the random bits: MT19937, seeded with the low 32 bits of the seed. PyTorch ignores the high ones;
/// * 16 values and more: bit for bit in every dtype. Box-Muller over blocks of 16 with the single-precision
///   logarithm, sine and cosine of the Cephes library (S. Moshier), fused where PyTorch's build fuses;
/// * fewer than 16 values: Box-Muller in double precision with the C library's functions, one value of
///   each pair kept for the next such call. Bit for bit with glibc; another C library may differ where a
///   value lies next to a rounding boundary of the result.
/// Not reproduced: PyTorch for machines without AVX2 (ARM), which takes its C library's functions for the
/// long path as well and differs in the last bits, and older releases' 16-bit numbers, which were made from
/// 16-bit uniforms and are another stream altogether.
class TorchGenerator {
 public:
  explicit TorchGenerator(std::uint64_t seed) : engine_(static_cast<std::uint32_t>(seed & 0xffffffffu)) {}

  /// `torch.randn(values.size(), dtype=torch.float32)`: independent standard normal values.
  void randn(std::span<float> values) { fill(values); }
  /// `torch.randn(values.size(), dtype=torch.bfloat16)`: float32's values rounded, except that of a size
  /// above 16 that is no multiple of 16 the last 16 values, and all that is drawn later, are others.
  void randn(std::span<bfloat16> values) { fill(values); }
  /// `torch.randn(values.size(), dtype=torch.float16)`; see bfloat16.
  void randn(std::span<float16> values) { fill(values); }

  /// The next 32 random bits of the stream.
  std::uint32_t bits() { return static_cast<std::uint32_t>(engine_()); }

 private:
  static constexpr std::size_t block_size = 16;
  using Block = std::array<float, block_size>;

  struct SineCosine {
    float sine;
    float cosine;
  };

  /// One of 2^24 equidistant values in [0, 1).
  float uniform() { return static_cast<float>(bits() & 0xffffffu) * 0x1p-24f; }

  /// One of 2^53 equidistant values in [0, 1).
  double uniform_double() {
    const std::uint64_t high = bits();
    const std::uint64_t low = bits();
    return static_cast<double>(((high << 32) | low) & 0x1fffffffffffffu) * 0x1p-53;
  }

  template <Element T>
  void fill(std::span<T> values) {
    if (values.size() < block_size) {
      for (T& value : values) value = T(static_cast<float>(single_normal()));
      return;
    }
    const std::size_t whole = values.size() / block_size * block_size;
    if constexpr (std::is_same_v<T, float>) {
      // float32 draws every uniform first, a ragged tail's too, although that is drawn again below.
      for (float& value : values) value = uniform();
      for (std::size_t first = 0; first < whole; first += block_size) {
        Block block;
        std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(first), block_size, block.begin());
        store(box_muller(block), values.subspan(first, block_size));
      }
    } else {
      for (std::size_t first = 0; first < whole; first += block_size)
        store(box_muller(uniform_block()), values.subspan(first, block_size));
    }
    if (whole != values.size()) store(box_muller(uniform_block()), values.last(block_size));
  }

  Block uniform_block() {
    Block block;
    for (float& value : block) value = uniform();
    return block;
  }

  template <Element T>
  static void store(const Block& block, std::span<T> values) {
    for (std::size_t i = 0; i < block_size; ++i) values[i] = T(block[i]);
  }

  /// 16 uniforms in [0, 1) to 16 normals; values j and j + 8 make a pair.
  static Block box_muller(const Block& uniforms) {
    constexpr float two_pi = 2.0f * std::numbers::pi_v<float>;
    constexpr std::size_t pairs = block_size / 2;
    Block normals;
    for (std::size_t j = 0; j < pairs; ++j) {
      const float radius = std::sqrt(-2.0f * logarithm(1.0f - uniforms[j]));
      const SineCosine direction = sine_cosine(two_pi * uniforms[j + pairs]);
      // PyTorch scales by 1 and adds a mean of 0, which turns a negative zero into a positive one.
      normals[j] = radius * direction.cosine + 0.0f;
      normals[j + pairs] = radius * direction.sine + 0.0f;
    }
    return normals;
  }

  double single_normal() {
    if (kept_) {
      const double value = *kept_;
      kept_.reset();
      return value;
    }
    const double turn = uniform_double();
    const double radius = std::sqrt(-2.0 * std::log1p(-uniform_double()));
    const double angle = 2.0 * std::numbers::pi * turn;
    kept_ = radius * std::sin(angle);
    return radius * std::cos(angle);
  }

  // std::fma wherever a product meets a sum: the result must not depend on what the compiler contracts.

  /// Natural logarithm of a normal positive number, Cephes `logf`.
  static float logarithm(float value) {
    constexpr float sqrt_half = 0.707106781186547524f;
    constexpr std::array coefficients{7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                                      -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                                      2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    constexpr float ln2_low = -2.12194440e-4f;
    constexpr float ln2_high = 0.693359375f;
    const auto bits = std::bit_cast<std::uint32_t>(value);
    float exponent = static_cast<float>(static_cast<int>(bits >> 23) - 126);
    float x = std::bit_cast<float>((bits & 0x007fffffu) | 0x3f000000u);  // in [0.5, 1)
    if (x < sqrt_half) {
      exponent -= 1.0f;
      x = (x - 1.0f) + x;
    } else {
      x -= 1.0f;
    }
    const float square = x * x;
    float sum = coefficients[0];
    for (std::size_t i = 1; i < coefficients.size(); ++i) sum = std::fma(sum, x, coefficients[i]);
    sum *= x;
    sum = std::fma(sum, square, exponent * ln2_low);
    sum = std::fma(-square, 0.5f, sum);
    return std::fma(exponent, ln2_high, x + sum);
  }

  /// Sine and cosine of an angle in [0, 8192), Cephes `sinf` and `cosf`.
  static SineCosine sine_cosine(float angle) {
    constexpr float four_over_pi = 1.27323954473516f;
    const std::uint32_t octant = (static_cast<std::uint32_t>(angle * four_over_pi) + 1u) & ~1u;
    const auto multiple = static_cast<float>(octant);
    float x = std::fma(multiple, -0.78515625f, angle);  // pi/4 in three parts
    x = std::fma(multiple, -2.4187564849853515625e-4f, x);
    x = std::fma(multiple, -3.77489497744594108e-8f, x);
    const float square = x * x;

    float even = std::fma(2.443315711809948e-5f, square, -1.388731625493765e-3f);
    even = std::fma(even, square, 4.166664568298827e-2f) * square;
    even = std::fma(even, square, -(square * 0.5f)) + 1.0f;

    float odd = std::fma(-1.9515295891e-4f, square, 8.3321608736e-3f);
    odd = std::fma(odd, square, -1.6666654611e-1f) * square;
    odd = std::fma(odd, x, x);

    const bool swapped = (octant & 2u) != 0;
    const bool sine_negative = (octant & 4u) != 0;
    const bool cosine_negative = sine_negative != swapped;
    const float sine = swapped ? even : odd;
    const float cosine = swapped ? odd : even;
    return {sine_negative ? -sine : sine, cosine_negative ? -cosine : cosine};
  }

  std::mt19937 engine_;
  std::optional<double> kept_;
};

}  // namespace ebb::examples
