#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#include "ebb/core/dtype.hpp"

namespace ebb::host::detail {

/// Expands packed 4-bit codes, first element in the high nibble, to table[code] * scale. `table` has 16 entries,
/// `count` is even and elements start at a byte. The product is rounded once, as `ebb::dequantize` does.
inline void decode_nibbles(const std::uint8_t* codes, std::size_t count, const float* table, float scale, float* out) {
  std::size_t i = 0;
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  const __m512 values = _mm512_mul_ps(_mm512_loadu_ps(table), _mm512_set1_ps(scale));
  for (; i + 32 <= count; i += 32) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i / 2));
    const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
    const __m128i low = _mm_and_si128(bytes, _mm_set1_epi8(15));
    const __m512i first = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(high, low));
    const __m512i second = _mm512_cvtepu8_epi32(_mm_unpackhi_epi8(high, low));
    _mm512_storeu_ps(out + i, _mm512_permutexvar_ps(first, values));
    _mm512_storeu_ps(out + i + 16, _mm512_permutexvar_ps(second, values));
  }
#elif defined(__AVX2__)
  const __m256 factor = _mm256_set1_ps(scale);
  const __m256 lower = _mm256_mul_ps(_mm256_loadu_ps(table), factor);
  const __m256 upper = _mm256_mul_ps(_mm256_loadu_ps(table + 8), factor);
  for (; i + 16 <= count; i += 16) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i / 2));
    const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
    const __m128i low = _mm_and_si128(bytes, _mm_set1_epi8(15));
    const __m128i order = _mm_unpacklo_epi8(high, low);
    for (int half = 0; half < 2; ++half) {
      const __m256i index = _mm256_cvtepu8_epi32(half == 0 ? order : _mm_srli_si128(order, 8));
      const __m256 from_lower = _mm256_permutevar8x32_ps(lower, index);
      const __m256 from_upper = _mm256_permutevar8x32_ps(upper, index);
      const __m256 choice = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));  // bit 3 of the code as the sign
      _mm256_storeu_ps(out + i + static_cast<std::size_t>(half) * 8, _mm256_blendv_ps(from_lower, from_upper, choice));
    }
  }
#endif
  for (; i < count; i += 2) {
    const unsigned byte = codes[i / 2];
    out[i] = table[byte >> 4] * scale;
    out[i + 1] = table[byte & 15u] * scale;
  }
}

/// Sum of table[code] * scale * x over `blocks` blocks of `block` elements (a multiple of 32, starting at a byte);
/// `scale(number)` is the factor of a block. The products with the scale are rounded as `decode_nibbles` rounds them.
template <class Scale>
float dot_blocks(const std::uint8_t* codes, std::size_t blocks, std::size_t block, const float* table, Scale scale,
                 const float* x) {
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  const __m512 values = _mm512_loadu_ps(table);
  __m512 first_sum = _mm512_setzero_ps();
  __m512 second_sum = _mm512_setzero_ps();
  for (std::size_t number = 0; number < blocks; ++number) {
    const __m512 scaled = _mm512_mul_ps(values, _mm512_set1_ps(scale(number)));
    for (std::size_t i = 0; i < block; i += 32, codes += 16, x += 32) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
      const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
      // The permutation reads four bits of an index, so that the low nibbles need no mask.
      const __m512i first = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(high, bytes));
      const __m512i second = _mm512_cvtepu8_epi32(_mm_unpackhi_epi8(high, bytes));
      first_sum = _mm512_fmadd_ps(_mm512_permutexvar_ps(first, scaled), _mm512_loadu_ps(x), first_sum);
      second_sum = _mm512_fmadd_ps(_mm512_permutexvar_ps(second, scaled), _mm512_loadu_ps(x + 16), second_sum);
    }
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(first_sum, second_sum));
#else
  float sum = 0.0f;
  float decoded[32];
  for (std::size_t number = 0; number < blocks; ++number) {
    const float factor = scale(number);
    for (std::size_t i = 0; i < block; i += 32, codes += 16, x += 32) {
      decode_nibbles(codes, 32, table, factor, decoded);
      float lanes[8] = {};
      for (std::size_t k = 0; k < 32; ++k) lanes[k % 8] += decoded[k] * x[k];
      for (const float lane : lanes) sum += lane;
    }
  }
  return sum;
#endif
}

/// Rounds to the nearest float16, in float32.
inline void round_to_float16(const float* from, std::size_t count, float* to) {
  std::size_t i = 0;
#if defined(__AVX2__) && defined(__F16C__)
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT)));
#endif
  for (; i < count; ++i) to[i] = static_cast<float>(float16(from[i]));
}

}  // namespace ebb::host::detail
