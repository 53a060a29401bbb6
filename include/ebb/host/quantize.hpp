#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/host/context.hpp"
#include "ebb/ops/quantize.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/dequantize.hpp"
#include "ebb/tensor/quantize.hpp"

namespace ebb::host {

/// See ops/quantize.hpp.
template <Element T, QuantFormat Format>
void quantize(const Context<T>&, std::type_identity_t<std::span<const T>> values, const QuantizedTensor<Format>& target,
              std::span<std::byte> segment, std::string_view tensor_name) {
  check_quantize(tensor_name, values.size(), target.shape(), target.bytes(), segment.data(), segment.size());
  ebb::quantize(values, target, segment, tensor_name);
}

/// See ops/quantize.hpp.
template <Element T, QuantFormat Format>
void dequantize(const Context<T>&, const QuantizedTensor<Format>& tensor, std::type_identity_t<std::span<T>> out) {
  check_dequantize(tensor.shape(), out.data(), out.size());
  ebb::dequantize(tensor, 0, out);
}

/// The same for tensors whose format was chosen at run time.
template <Element T, QuantFormat... Formats>
void quantize(const Context<T>& ctx, std::type_identity_t<std::span<const T>> values, const AnyOf<Formats...>& target,
              std::span<std::byte> segment, std::string_view tensor_name) {
  target.visit([&](const auto& tensor) { quantize(ctx, values, tensor, segment, tensor_name); });
}
template <Element T, QuantFormat... Formats>
void dequantize(const Context<T>& ctx, const AnyOf<Formats...>& tensor, std::type_identity_t<std::span<T>> out) {
  tensor.visit([&](const auto& chosen) { dequantize(ctx, chosen, out); });
}

}  // namespace ebb::host
