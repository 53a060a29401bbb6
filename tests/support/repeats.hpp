#pragma once

#include <cstddef>
#include <cstdlib>

namespace ebb::testing {

/// How often a test does what is alike each time: `usual`, or EBB_PERCENT of it, at least once. tests/cuda/sanitize.sh
/// sets that, for under its tools a launch takes a hundred times as long.
inline std::size_t repeats(std::size_t usual) {
  const char* percent = std::getenv("EBB_PERCENT");
  const std::size_t some = percent == nullptr ? usual : usual * std::strtoul(percent, nullptr, 10) / 100;
  return some == 0 ? 1 : some;
}

}  // namespace ebb::testing
