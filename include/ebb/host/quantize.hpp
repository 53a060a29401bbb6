#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/host/context.hpp"
#include "ebb/ops/quantize.hpp"
#include "ebb/tensor/dequantize.hpp"
#include "ebb/tensor/quantize.hpp"
#include "ebb/tensor/quantized_tensor.hpp"

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

}  // namespace ebb::host
