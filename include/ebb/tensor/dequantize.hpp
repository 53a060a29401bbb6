#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/format/fp8.hpp"
#include "ebb/format/packing.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/quantized_tensor.hpp"

namespace ebb {

namespace detail {
/// Both values of each packed byte.
template <BlockFormat Format>
inline constexpr auto values_of_byte = [] {
  std::array<std::array<float, 2>, 256> table{};
  for (std::size_t byte = 0; byte < table.size(); ++byte)
    table[byte] = {Format::values[byte >> 4], Format::values[byte & 0xfu]};
  return table;
}();

inline constexpr auto values_of_fp8 = [] {
  std::array<float, 256> table{};
  for (std::size_t code = 0; code < table.size(); ++code) table[code] = FP8::value_of(static_cast<std::uint8_t>(code));
  return table;
}();

/// Unscaled values of elements [first, first + count) of packed codes.
template <BlockFormat Format>
void unpack(const std::uint8_t* codes, std::size_t first, std::size_t count, float* out) {
  const auto& table = values_of_byte<Format>;
  std::size_t i = 0;
  if (first % 2 != 0 && count != 0) out[i++] = table[codes[first / 2]][1];
  for (const std::uint8_t* byte = codes + (first + i) / 2; i + 1 < count; i += 2, ++byte)
    std::memcpy(out + i, table[*byte].data(), 2 * sizeof(float));
  if (i < count) out[i] = table[codes[(first + i) / 2]][0];
}

/// Elements [first, first + out.size()), all of one group with scale `scale`.
template <ScaledFormat Format, Element T>
void dequantize_run(std::span<const typename Format::Code> codes, std::size_t first, float scale, std::span<T> out) {
  if constexpr (BlockFormat<Format>) {
    alignas(64) std::array<float, 256> buffer;
    for (std::size_t begin = 0; begin < out.size(); begin += buffer.size()) {
      const std::size_t count = std::min(buffer.size(), out.size() - begin);
      unpack<Format>(codes.data(), first + begin, count, buffer.data());
      for (std::size_t i = 0; i < count; ++i) out[begin + i] = T(buffer[i] * scale);
    }
  } else if constexpr (std::is_same_v<Format, FP8>) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = T(values_of_fp8[codes[first + i]] * scale);
  } else {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = T(Format::decode(codes[first + i], scale));
  }
}
}  // namespace detail

/// Elements [first_element, first_element + out.size()) of a bound host tensor: value * scale in float32,
/// rounded once to T. Any range, any alignment; calls may run in parallel.
/// @throws ShapeError when the range leaves the tensor, MemoryError when the tensor is not bound
template <QuantFormat Format, Element T>
void dequantize(const QuantizedTensor<Format>& tensor, std::size_t first_element, std::span<T> out) {
  if (first_element > tensor.elements() || out.size() > tensor.elements() - first_element)
    throw ShapeError(concat("dequantize: elements ", first_element, " to ", first_element + out.size(),
                            " of a tensor of shape ", tensor.shape().text()));
  if constexpr (DenseFormat<Format>) {
    const auto values = tensor.values().subspan(first_element);
    if constexpr (std::is_same_v<typename Format::Code, T>)
      std::copy_n(values.begin(), out.size(), out.begin());
    else
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = T(Format::decode(values[i]));
  } else {
    const auto codes = tensor.codes();
    std::size_t done = 0;
    while (done < out.size()) {
      const std::size_t element = first_element + done;
      const std::size_t group = element / tensor.group();
      const std::size_t count = std::min(out.size() - done, (group + 1) * tensor.group() - element);
      detail::dequantize_run<Format>(codes, element, tensor.scale(group), out.subspan(done, count));
      done += count;
    }
  }
}

/// The same for a tensor whose format was chosen at run time.
template <Element T, QuantFormat... Formats>
void dequantize(const AnyOf<Formats...>& tensor, std::size_t first_element, std::span<T> out) {
  tensor.visit([&](const auto& chosen) { dequantize(chosen, first_element, out); });
}

}  // namespace ebb
