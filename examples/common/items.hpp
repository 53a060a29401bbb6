#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace ebb::examples {

/// Each of `count` items of equal size `times` times, neighbours: item 0, item 0, item 1, item 1, ...
template <class T>
std::vector<T> repeat_items(const std::vector<T>& items, std::size_t count, std::size_t times) {
  const std::size_t size = count == 0 ? 0 : items.size() / count;
  std::vector<T> result;
  result.reserve(items.size() * times);
  for (std::size_t item = 0; item < count; ++item)
    for (std::size_t time = 0; time < times; ++time)
      result.insert(result.end(), items.begin() + static_cast<std::ptrdiff_t>(item * size),
                    items.begin() + static_cast<std::ptrdiff_t>((item + 1) * size));
  return result;
}

template <class T>
std::vector<T> rounded(const std::vector<float>& values) {
  std::vector<T> result(values.size());
  std::transform(values.begin(), values.end(), result.begin(), [](float value) { return static_cast<T>(value); });
  return result;
}

}  // namespace ebb::examples
