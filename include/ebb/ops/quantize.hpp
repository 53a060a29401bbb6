#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/format/format.hpp"
#include "ebb/tensor/any_of.hpp"

namespace ebb {

/// Contract of quantize(ctx, values, target, segment, tensor_name): what `ebb::quantize` of tensor/quantize.hpp makes
/// of row-major values of the context's element type, byte for byte, double quantization and padding included, with
/// values and segment in the context's memory. For set-up: it may wait until all is done, to report what cannot be
/// quantized.
///   values [elements]; target gives shape, format and options and need not be bound; segment of target.bytes() bytes,
///   aligned to `segment_alignment`, which does not overlap values
/// @throws ShapeError; ValueError, which names the tensor and the first element, for NaN or infinity in a scaled format
inline void check_quantize(std::string_view tensor_name, std::size_t values, const Shape& target, std::size_t needed,
                           const std::byte* segment, std::size_t found) {
  if (values != target.elements())
    throw ShapeError(concat("tensor '", tensor_name, "': shape ", target.text(), " has ", target.elements(),
                            " elements, found ", values));
  if (found < needed || reinterpret_cast<std::uintptr_t>(segment) % segment_alignment != 0)
    throw ShapeError(concat("tensor '", tensor_name, "': shape ", target.text(), " needs a segment of ", needed,
                            " bytes, aligned to ", segment_alignment, ", found ", found));
}

/// Contract of dequantize(ctx, tensor, out): all elements of a bound tensor of the context's memory, row-major, as
/// `ebb::dequantize` of tensor/dequantize.hpp makes them, bit by bit: value * scale in float32, rounded once.
///   out [elements] of the context's element type, aligned to 16 bytes
/// @throws ShapeError, MemoryError when the tensor is not bound
inline void check_dequantize(const Shape& tensor, const void* out, std::size_t found) {
  if (found != tensor.elements())
    throw ShapeError(concat("dequantize: a tensor of shape ", tensor.text(), " has ", tensor.elements(),
                            " elements, there is room for ", found));
  require(reinterpret_cast<std::uintptr_t>(out) % 16 == 0, "dequantize: the result must be aligned to 16 bytes");
}

/// Both for tensors whose format was chosen at run time, on any context.
template <class Context, class Values, QuantFormat... Formats>
void quantize(const Context& ctx, const Values& values, const AnyOf<Formats...>& target, std::span<std::byte> segment,
              std::string_view tensor_name) {
  target.visit([&](const auto& tensor) { quantize(ctx, values, tensor, segment, tensor_name); });
}
template <class Context, class Values, QuantFormat... Formats>
void dequantize(const Context& ctx, const AnyOf<Formats...>& tensor, const Values& out) {
  tensor.visit([&](const auto& chosen) { dequantize(ctx, chosen, out); });
}

}  // namespace ebb
