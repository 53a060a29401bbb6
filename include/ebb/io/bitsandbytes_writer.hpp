#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/io/bitsandbytes.hpp"
#include "ebb/io/json.hpp"
#include "ebb/io/safetensors_writer.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/quantized_tensor.hpp"

namespace ebb::bitsandbytes {

/// A tensor that is ready to be written: its declaration and its bytes, most of them a view of the segment that it was
/// made from, which must outlive it.
struct StoredTensor {
  TensorDeclaration declaration;
  std::span<const std::byte> view;
  std::string text;  // the bytes, when this is the quant_state

  std::span<const std::byte> bytes() const { return text.empty() ? view : std::as_bytes(std::span(text)); }
};

/// PyTorch's name of a floating-point type, as quant_state and config.json use it: "bfloat16".
/// @throws ConfigError for other types
inline std::string_view torch_name(DType type) {
  switch (type) {
    case DType::f32:
      return "float32";
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    default:
      throw ConfigError(concat("expected F32, F16 or BF16, found ", name_of(type)));
  }
}

/// The type with this PyTorch name ("bfloat16", also "torch.bfloat16"). @throws ConfigError for other names
inline DType torch_dtype(std::string_view name) {
  constexpr std::string_view module = "torch.";
  const std::string_view plain = name.starts_with(module) ? name.substr(module.size()) : name;
  for (const DType type : {DType::f32, DType::f16, DType::bf16})
    if (torch_name(type) == plain) return type;
  throw ConfigError(concat("expected the type float32, float16 or bfloat16, found ", Json::quoted(name)));
}

/// The JSON text of quant_state, byte for byte as bitsandbytes writes it. `dtype` is the type of the weight that was
/// quantized, which bitsandbytes dequantizes to. Reads the nested offset: the tensor is bound to host memory.
template <FourBitFormat Format>
std::string quant_state(const QuantizedTensor<Format>& tensor, DType dtype) {
  Json::Array extents;
  for (const std::size_t extent : tensor.shape()) extents.emplace_back(extent);
  Json::Object state;
  state.emplace_back("quant_type", Format::name);
  state.emplace_back("blocksize", tensor.options().block_size);
  state.emplace_back("dtype", torch_name(dtype));
  state.emplace_back("shape", std::move(extents));
  if (tensor.nested()) {
    state.emplace_back("nested_blocksize", nested_block_size);
    state.emplace_back("nested_dtype", "float32");
    state.emplace_back("nested_offset", static_cast<double>(*tensor.nested_offset()));
  }
  return Json(std::move(state)).text();
}

/// The tensors that bitsandbytes saves for the 4-bit weight `name` ("p.weight"), in its order: codes, absmax,
/// quant_map, nested_absmax and nested_quant_map under double quantization, quant_state. Views the tensor's segment.
template <FourBitFormat Format>
std::vector<StoredTensor> stored_tensors(std::string_view name, const QuantizedTensor<Format>& tensor, DType dtype) {
  std::vector<StoredTensor> parts;
  const auto add = [&](std::string_view suffix, DType type, Shape shape, std::span<const std::byte> bytes) {
    parts.push_back({{concat(name, suffix), type, shape}, bytes, {}});
  };
  add({}, DType::u8, {tensor.codes().size(), 1}, std::as_bytes(tensor.codes()));
  if (tensor.nested())
    add(key::absmax, DType::u8, {tensor.groups()}, std::as_bytes(tensor.scale_codes()));
  else
    add(key::absmax, DType::f32, {tensor.groups()}, std::as_bytes(tensor.scales()));
  add(key::quant_map, DType::f32, {16}, std::as_bytes(std::span(stored_map<Format>)));
  if (tensor.nested()) {
    add(key::nested_absmax, DType::f32, {tensor.nested_scales().size()}, std::as_bytes(tensor.nested_scales()));
    add(key::nested_quant_map, DType::f32, {nested_map_size}, std::as_bytes(tensor.nested_map()));
  }
  std::string state = quant_state(tensor, dtype);
  add(concat(key::quant_state, Format::name), DType::u8, {state.size()}, {});
  parts.back().text = std::move(state);
  return parts;
}

/// The same for LLM.int8: `p.weight`, `p.SCB`, `p.weight_format`. `name` must end in ".weight".
inline std::vector<StoredTensor> stored_tensors(std::string_view name, const QuantizedTensor<INT8>& tensor, DType) {
  static constexpr std::uint8_t row_major = 0;
  if (!name.ends_with(key::weight))
    throw ConfigError(
        concat("tensor '", name, "': bitsandbytes stores an INT8 weight only under a name that ends in ", key::weight));
  const std::string_view module = name.substr(0, name.size() - key::weight.size());
  std::vector<StoredTensor> parts;
  parts.push_back({{std::string(name), DType::i8, tensor.shape()}, std::as_bytes(tensor.codes()), {}});
  parts.push_back(
      {{concat(module, key::int8_scales), DType::f32, {tensor.groups()}}, std::as_bytes(tensor.scales()), {}});
  parts.push_back({{concat(module, key::int8_layout), DType::u8, {}}, std::as_bytes(std::span(&row_major, 1)), {}});
  return parts;
}

/// A plain array is stored as it is.
template <DenseFormat Format>
std::vector<StoredTensor> stored_tensors(std::string_view name, const QuantizedTensor<Format>& tensor, DType) {
  return {{{std::string(name), Format::dtype, tensor.shape()}, std::as_bytes(tensor.values()), {}}};
}

/// The same for a tensor whose format was chosen at run time. @throws ConfigError for formats that bitsandbytes
/// lacks, such as FP8
template <QuantFormat... Formats>
std::vector<StoredTensor> stored_tensors(std::string_view name, const AnyOf<Formats...>& tensor, DType dtype) {
  return tensor.visit([&]<class Format>(const QuantizedTensor<Format>& chosen) -> std::vector<StoredTensor> {
    if constexpr (FourBitFormat<Format> || DenseFormat<Format> || std::is_same_v<Format, INT8>)
      return stored_tensors(name, chosen, dtype);
    else
      throw ConfigError(concat("tensor '", name, "': bitsandbytes stores no ", Format::name, " weights"));
  });
}

}  // namespace ebb::bitsandbytes
