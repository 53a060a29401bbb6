#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "flux/request.hpp"

namespace ebb::testing {

/// The largest difference of a result's pictures from the ones that diffusers drew, in levels of 255; 256 where these
/// are more.
inline int largest_difference(const flux::Result& result, const std::vector<std::uint8_t>& expected) {
  std::size_t at = 0;
  int largest = 0;
  for (const auto& picture : result.pictures)
    for (const std::uint8_t value : picture.rgb)
      largest = std::max(largest, std::abs(int{value} - int{expected.at(at++)}));
  return at == expected.size() ? largest : 256;
}

}  // namespace ebb::testing
