#pragma once

#include <cstddef>
#include <string_view>

#include "ebb/core/dtype.hpp"
#include "ebb/format/format.hpp"

namespace ebb {

/// Dense formats have nothing to choose.
struct DenseOptions {
  constexpr bool operator==(const DenseOptions&) const = default;
};

namespace detail {
template <Element T>
struct Dense {
  using Options = DenseOptions;
  using Code = T;
  static constexpr std::size_t bits = 8 * sizeof(T);
  static constexpr DType dtype = dtype_of<T>;

  static constexpr std::size_t group(const Shape&, const Options&) { return 1; }
  static constexpr SegmentLayout layout(const Shape& shape, const Options&) {
    return layout_of_parts(checked_product(shape.elements(), sizeof(T)));
  }
  /// One rounding (nearest even) from float32.
  EBB_HOST_DEVICE static constexpr T encode(float value, float = 1.0f) { return T(value); }
  /// Exact.
  EBB_HOST_DEVICE static constexpr float decode(T value, float = 1.0f) { return value; }
};
}  // namespace detail

/// Elements stored as IEEE binary32.
struct F32 : detail::Dense<float> {
  static constexpr std::string_view name = "f32";
};
static_assert(DenseFormat<F32>);

/// Elements stored as IEEE binary16.
struct F16 : detail::Dense<float16> {
  static constexpr std::string_view name = "f16";
};
static_assert(DenseFormat<F16>);

/// Elements stored as bfloat16.
struct BF16 : detail::Dense<bfloat16> {
  static constexpr std::string_view name = "bf16";
};
static_assert(DenseFormat<BF16>);

}  // namespace ebb
