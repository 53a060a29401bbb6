#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string_view>

#include "ebb/core/error.hpp"

namespace ebb::examples {

/// A picture of NaN would be a black one. `what` made them: "the latents after step 28".
/// @throws ValueError where one of `values` is NaN or infinite
template <class T>
void check_finite(std::span<const T> values, std::string_view what) {
  if (!std::ranges::all_of(values, [](T value) { return std::isfinite(static_cast<float>(value)); }))
    throw ValueError(concat(what,
                            " hold NaN or infinity; try a smaller guidance, more digits (--compute fp32, another "
                            "--quantize), and where that does not help, check the checkpoint's weights"));
}

/// Whether the float32 that computes with `value` is a finite number, too.
inline bool is_finite_float(double value) { return std::abs(value) <= double{std::numeric_limits<float>::max()}; }

}  // namespace ebb::examples
