#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <span>

namespace ebb::testing {

/// How often a test does what is alike each time: `usual`, or EBB_PERCENT of it, at least once. tests/cuda/sanitize.sh
/// sets that, for under its tools a launch takes a hundred times as long.
inline std::size_t repeats(std::size_t usual) {
  const char* percent = std::getenv("EBB_PERCENT");
  const std::size_t some = percent == nullptr ? usual : usual * std::strtoul(percent, nullptr, 10) / 100;
  return some == 0 ? 1 : some;
}

/// The first of what is alike, as many as `repeats` says; put the one that says most first.
template <class T, std::size_t count>
std::span<const T> some_of(const std::array<T, count>& list) {
  return std::span<const T>(list).first(std::min(repeats(count), count));
}

}  // namespace ebb::testing
