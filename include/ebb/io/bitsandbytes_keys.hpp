#pragma once

#include <array>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>

#include "ebb/core/error.hpp"
#include "ebb/format/blockwise.hpp"
#include "ebb/format/fp4.hpp"
#include "ebb/format/nf4.hpp"

/// Weights as bitsandbytes stores them in a checkpoint.
///
/// 4 bits, for a weight `p.weight`: the packed codes under its name, in any dtype (`bnb_4bit_quant_storage` only
/// reinterprets the bytes), and beside it `p.weight.absmax`, `p.weight.quant_map`, under double quantization
/// `p.weight.nested_absmax` and `p.weight.nested_quant_map`, and a JSON text in
/// `p.weight.quant_state.bitsandbytes__nf4` or `__fp4`.
/// 8 bits (LLM.int8): `p.weight` I8 [rows, columns], `p.SCB` F32 [rows], and `p.weight_format`, 0 for row-major.
namespace ebb::bitsandbytes {

namespace key {
inline constexpr std::string_view absmax = ".absmax";
inline constexpr std::string_view quant_map = ".quant_map";
inline constexpr std::string_view nested_absmax = ".nested_absmax";
inline constexpr std::string_view nested_quant_map = ".nested_quant_map";
inline constexpr std::string_view quant_state = ".quant_state.bitsandbytes__";  // + nf4 or fp4
inline constexpr std::string_view weight = ".weight";
inline constexpr std::string_view int8_scales = ".SCB";
inline constexpr std::string_view int8_layout = ".weight_format";
}  // namespace key

/// A 4-bit format that bitsandbytes has: no other may be written under names that only it would read.
template <class Format>
concept FourBitFormat = std::same_as<Format, NF4> || std::same_as<Format, FP4>;

/// The sixteen values as bitsandbytes writes them to `quant_map`: those of the format, with +0 where FP4 has -0.
template <FourBitFormat Format>
inline constexpr auto stored_map = [] {
  std::array<float, 16> map = Format::values;
  for (float& value : map) value += 0.0f;
  return map;
}();

/// The weight that the tensor `name` belongs to when it is a part of a quantized weight, e.g. "p.weight" for
/// "p.weight.absmax" and for "p.SCB".
inline std::optional<std::string> weight_of(std::string_view name) {
  const auto without = [&](std::string_view suffix) { return name.substr(0, name.size() - suffix.size()); };
  for (const std::string_view suffix : {key::absmax, key::quant_map, key::nested_absmax, key::nested_quant_map})
    if (name.ends_with(suffix)) return std::string(without(suffix));
  for (const std::string_view format : {NF4::name, FP4::name})
    if (const std::string suffix = concat(key::quant_state, format); name.ends_with(suffix))
      return std::string(without(suffix));
  for (const std::string_view suffix : {key::int8_scales, key::int8_layout})
    if (name.ends_with(suffix)) return concat(without(suffix), key::weight);
  return std::nullopt;
}

}  // namespace ebb::bitsandbytes
