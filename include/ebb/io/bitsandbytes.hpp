#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/format/dynamic8.hpp"
#include "ebb/format/packing.hpp"
#include "ebb/io/bitsandbytes_keys.hpp"
#include "ebb/io/checkpoint.hpp"
#include "ebb/io/json_parser.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/format_choice.hpp"
#include "ebb/tensor/quantized_tensor.hpp"

namespace ebb::bitsandbytes {

namespace detail {
/// One quantized weight of a checkpoint; checks everything that is said about it before bytes are used.
class StoredWeight {
 public:
  StoredWeight(const Checkpoint& checkpoint, std::string_view name, const Shape& shape)
      : checkpoint_(checkpoint), name_(name), shape_(shape) {}

  /// @throws FileError
  std::optional<FormatChoice> choice() {
    const auto parts = checkpoint_.names_with_prefix(name_ + ".");
    if (!checkpoint_.contains(name_)) return std::nullopt;
    if (!parts.empty()) {
      read_state(parts);
      check_sizes();
      return choice_;
    }
    if (checkpoint_.contains(scales_name())) {
      check_int8();
      choice_.kind = FormatChoice::Kind::int8;
      return choice_;
    }
    refuse_codes_without_scales();
    return std::nullopt;
  }

  template <FourBitFormat Format>
  void copy(const QuantizedTensor<Format>& target, std::span<std::byte> segment) {
    const SegmentLayout& layout = target.layout();
    check_map(concat(name_, key::quant_map), stored_map<Format>);
    place(segment, layout.codes_offset, layout.codes_bytes, name_);
    place(segment, layout.scales_offset, layout.scales_bytes, concat(name_, key::absmax));
    if (!target.nested()) {
      check_finite(segment, layout.scales_offset, target.groups(), concat(name_, key::absmax));
      return;
    }
    const std::size_t scales = ceil_divide(target.groups(), nested_block_size);
    check_map(concat(name_, key::nested_quant_map), dynamic_map);
    std::memcpy(segment.data() + layout.nested_offset + nested_map_at, dynamic_map.data(), sizeof(dynamic_map));
    place(segment, layout.nested_offset + nested_scales_at, scales * sizeof(float), concat(name_, key::nested_absmax));
    check_finite(segment, layout.nested_offset + nested_scales_at, scales, concat(name_, key::nested_absmax));
    std::memcpy(segment.data() + layout.nested_offset + nested_mean_at(layout), &nested_offset_, sizeof(float));
  }

  void copy(const QuantizedTensor<INT8>& target, std::span<std::byte> segment) const {
    const SegmentLayout& layout = target.layout();
    place(segment, layout.codes_offset, layout.codes_bytes, name_);
    place(segment, layout.scales_offset, layout.scales_bytes, scales_name());
    check_finite(segment, layout.scales_offset, target.groups(), scales_name());
  }

 private:
  template <class... Parts>
  [[noreturn]] void fail(std::string_view tensor, const Parts&... parts) const {
    throw FileError(concat(checkpoint_.file_of(name_).string(), ": tensor '", tensor, "': ", parts...));
  }

  std::string module_name() const { return name_.substr(0, name_.size() - key::weight.size()); }
  std::string scales_name() const {
    return name_.ends_with(key::weight) ? concat(module_name(), key::int8_scales) : std::string();
  }

  void read_state(std::span<const std::string> parts) {
    std::vector<std::string_view> states;
    for (const std::string& part : parts) {
      const auto suffix = std::string_view(part).substr(name_.size());
      if (suffix.find("quant_state") != suffix.npos) {
        states.push_back(part);
      } else if (suffix != key::absmax && suffix != key::quant_map && suffix != key::nested_absmax &&
                 suffix != key::nested_quant_map) {
        fail(part, "is no part of a 4-bit weight: expected ", name_, key::absmax, ", ", key::quant_map, ", ",
             key::nested_absmax, ", ", key::nested_quant_map, " or ", key::quant_state,
             "nf4 (only the packed form of quant_state can be read: save the model again with save_pretrained)");
      }
    }
    if (states.size() != 1)
      fail(name_, "expected exactly one ", key::quant_state, "nf4 or ", key::quant_state, "fp4, found ", states.size());
    state_name_ = states[0];
    const std::string_view suffix = std::string_view(state_name_).substr(name_.size());
    std::string_view format;
    for (const std::string_view known : {NF4::name, FP4::name})
      if (suffix == concat(key::quant_state, known)) format = known;
    if (format.empty()) fail(state_name_, "expected a name that ends in bitsandbytes__nf4 or bitsandbytes__fp4");
    choice_.kind = FormatChoice::parse_kind(format);
    const auto bytes = checkpoint_.bytes_of(state_name_);
    parse_state(format, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }

  void parse_state(std::string_view format, std::string_view text) {
    const std::string source = concat(checkpoint_.file_of(state_name_).string(), ": tensor '", state_name_, "'");
    const Json state = JsonParser::parse(text, source);
    if (!state.object()) fail(state_name_, "expected a JSON object, found ", state.type_name());
    for (const auto& [name, value] : *state.object()) {
      constexpr std::array<std::string_view, 7> known{"quant_type",       "blocksize",    "dtype",        "shape",
                                                      "nested_blocksize", "nested_dtype", "nested_offset"};
      if (std::find(known.begin(), known.end(), name) == known.end())
        fail(state_name_, "the entry ", Json::quoted(name), " is not known");
    }
    expect(state, "quant_type", Json(format));
    const Json* block_size = state.find("blocksize");
    if (!block_size || !block_size->integer() || *block_size->integer() < 0 ||
        !is_block_size(static_cast<std::size_t>(*block_size->integer())))
      fail(state_name_, "blocksize: expected one of 32, 64, 128, 256, 512, 1024, 2048, 4096, found ",
           text_of(block_size));
    choice_.block.block_size = static_cast<std::size_t>(*block_size->integer());
    const Json* dtype = state.find("dtype");
    if (!dtype || (*dtype != Json("float32") && *dtype != Json("float16") && *dtype != Json("bfloat16")))
      fail(state_name_, "dtype: expected \"float32\", \"float16\" or \"bfloat16\", found ", text_of(dtype));
    Json::Array extents;
    for (const std::size_t extent : shape_) extents.emplace_back(extent);
    expect(state, "shape", Json(std::move(extents)));

    const bool nested = checkpoint_.contains(concat(name_, key::nested_absmax));
    if (nested != (state.find("nested_offset") != nullptr))
      fail(state_name_, "expected nested_offset and ", name_, key::nested_absmax, " together, found ",
           nested ? "the tensor" : "nested_offset", " alone");
    if (!nested) return;
    choice_.block.nested = DoubleQuantization::on;
    expect(state, "nested_blocksize", Json(nested_block_size));
    expect(state, "nested_dtype", Json("float32"));
    const Json* offset = state.find("nested_offset");
    nested_offset_ = offset->is_number() ? static_cast<float>(offset->number(0.0)) : HUGE_VALF;
    if (!std::isfinite(nested_offset_))
      fail(state_name_, "nested_offset: expected a finite float32, found ", text_of(offset));
  }

  static std::string text_of(const Json* value) { return value ? value->text() : "none"; }
  void expect(const Json& state, std::string_view name, const Json& expected) const {
    const Json* value = state.find(name);
    if (!value || *value != expected)
      fail(state_name_, name, ": expected ", expected.text(), ", found ", text_of(value));
  }

  /// Counts of all parts, so that a header alone tells whether the weight can be read.
  void check_sizes() const {
    const std::size_t elements = shape_.elements();
    const std::size_t blocks = ceil_divide(elements, choice_.block.block_size);
    const bool nested = choice_.block.nested == DoubleQuantization::on;
    const std::size_t codes = checkpoint_.bytes_of(name_).size();
    if (codes != packed_bytes(elements))
      fail(name_, "expected ", packed_bytes(elements), " bytes of packed codes for shape ", shape_.text(), ", found ",
           codes);
    expect_part(key::absmax, nested ? DType::u8 : DType::f32, blocks);
    expect_part(key::quant_map, DType::f32, 16);
    if (nested) {
      expect_part(key::nested_absmax, DType::f32, ceil_divide(blocks, nested_block_size));
      expect_part(key::nested_quant_map, DType::f32, nested_map_size);
    } else if (checkpoint_.contains(concat(name_, key::nested_quant_map))) {
      fail(concat(name_, key::nested_quant_map), "expected ", name_, key::nested_absmax, " beside it, found none");
    }
  }

  void expect_part(std::string_view suffix, DType dtype, std::size_t count) const {
    expect_tensor(concat(name_, suffix), dtype, count);
  }
  void expect_tensor(const std::string& name, DType dtype, std::size_t count) const {
    const TensorView* part = checkpoint_.find(name);
    if (part == nullptr) fail(name, "is missing: expected ", name_of(dtype), " [", count, "] beside '", name_, "'");
    if (part->dtype != dtype) fail(name, "expected dtype ", name_of(dtype), ", found ", name_of(part->dtype));
    if (part->shape.elements() != count)
      fail(name, "expected ", count, " elements for a weight of shape ", shape_.text(), ", found ",
           part->shape.elements());
  }

  void check_int8() const {
    const TensorView& codes = checkpoint_.at(name_);
    if (codes.dtype != DType::i8)
      fail(name_, "expected dtype I8 because '", scales_name(), "' exists, found ", name_of(codes.dtype));
    if (codes.shape != shape_) fail(name_, "expected shape ", shape_.text(), ", found ", codes.shape.text());
    expect_tensor(scales_name(), DType::f32, shape_.elements() == 0 ? 0 : rows_of(shape_));
    const std::string layout = concat(module_name(), key::int8_layout);
    if (!checkpoint_.contains(layout)) return;
    expect_tensor(layout, DType::u8, 1);
    if (const auto found = element<std::uint8_t>(checkpoint_.at(layout), 0); found != 0)
      fail(layout, "expected 0 (row-major), found ", static_cast<int>(found),
           ": a layout of old GPUs, save the model again with a newer bitsandbytes");
  }

  void refuse_codes_without_scales() const {
    const DType dtype = checkpoint_.at(name_).dtype;
    if (dtype == DType::u8)
      fail(name_, "is packed (U8), but its scales are missing: expected ", name_, key::quant_state, "nf4 and ", name_,
           key::absmax, ", found neither");
    if (dtype == DType::i8)
      fail(name_, "is I8, but its scales are missing: expected '", scales_name(), "', found none");
  }

  template <std::size_t Size>
  void check_map(const std::string& name, const std::array<float, Size>& expected) const {
    const TensorView& map = checkpoint_.at(name);
    for (std::size_t i = 0; i < Size; ++i)
      if (const auto value = element<float>(map, i); !(value == expected[i]))
        fail(name, "entry ", i, ": expected ", Json::digits(static_cast<double>(expected[i])), ", found ",
             Json::digits(static_cast<double>(value)), ": the codes mean something else than in bitsandbytes");
  }

  void check_finite(std::span<const std::byte> segment, std::size_t offset, std::size_t count,
                    const std::string& name) const {
    for (std::size_t i = 0; i < count; ++i) {
      float value = 0.0f;
      std::memcpy(&value, segment.data() + offset + i * sizeof(float), sizeof(float));
      if (!std::isfinite(value)) fail(name, "entry ", i, ": expected a finite number, found ", value);
    }
  }

  void place(std::span<std::byte> segment, std::size_t offset, std::size_t bytes, const std::string& name) const {
    const auto source = checkpoint_.bytes_of(name);
    if (source.size() != bytes) fail(name, "expected ", bytes, " bytes, found ", source.size());
    if (bytes != 0) std::memcpy(segment.data() + offset, source.data(), bytes);
  }

  const Checkpoint& checkpoint_;
  std::string name_;
  Shape shape_;
  std::string state_name_;
  FormatChoice choice_;
  float nested_offset_ = 0.0f;
};
}  // namespace detail

/// How the weight `name`, which the model expects in `shape`, is quantized in the checkpoint: format, block size and
/// nesting; nothing when it is a plain tensor or missing. Checks names, dtypes and sizes of all its parts, but reads no
/// weights. @throws FileError (names file, tensor, expected, found)
inline std::optional<FormatChoice> stored_choice(const Checkpoint& checkpoint, std::string_view name,
                                                 const Shape& shape) {
  return detail::StoredWeight(checkpoint, name, shape).choice();
}

/// Copies a stored weight into the segment of `target` (of `target.bytes()` bytes, see QuantizedTensor) as it is:
/// codes, scales and nested state keep every bit. `target` need not be bound; it must have the format and block
/// options that `stored_choice` returns. @throws FileError for damaged parts, ConfigError when the formats differ,
/// ShapeError when the segment is too small
template <QuantFormat Format>
  requires FourBitFormat<Format> || std::is_same_v<Format, INT8>
void read_into(const Checkpoint& checkpoint, std::string_view name, const QuantizedTensor<Format>& target,
               std::span<std::byte> segment) {
  if (segment.size() < target.bytes())
    throw ShapeError(concat("tensor '", name, "': shape ", target.shape().text(), " in ", Format::name,
                            " needs a segment of ", target.bytes(), " bytes, found ", segment.size()));
  detail::StoredWeight stored(checkpoint, name, target.shape());
  const auto choice = stored.choice();
  bool same = choice && choice->name() == Format::name;
  if constexpr (FourBitFormat<Format>) same = same && choice->block == target.options();
  if (!same)
    throw ConfigError(concat("tensor '", name, "' is stored as ", choice ? choice->name() : "a plain tensor",
                             choice ? concat(" with block size ", choice->block.block_size) : std::string(),
                             ", which does not fit the target, ", Format::name));
  stored.copy(target, segment);
  const SegmentLayout& layout = target.layout();
  const auto clear = [segment](std::size_t begin, std::size_t end) {  // equal tensors have equal segments
    std::fill(segment.begin() + static_cast<std::ptrdiff_t>(begin), segment.begin() + static_cast<std::ptrdiff_t>(end),
              std::byte{0});
  };
  clear(layout.codes_offset + layout.codes_bytes, layout.scales_offset);
  clear(layout.scales_offset + layout.scales_bytes, layout.nested_offset);
  clear(layout.nested_offset + layout.nested_bytes, layout.bytes);
}

/// The same for a tensor whose format was chosen at run time. @throws ConfigError for dense tensors and
/// formats that bitsandbytes lacks
template <QuantFormat... Formats>
void read_into(const Checkpoint& checkpoint, std::string_view name, const AnyOf<Formats...>& target,
               std::span<std::byte> segment) {
  target.visit([&]<class Format>(const QuantizedTensor<Format>& tensor) {
    if constexpr (FourBitFormat<Format> || std::is_same_v<Format, INT8>)
      read_into(checkpoint, name, tensor, segment);
    else
      throw ConfigError(concat("tensor '", name, "': bitsandbytes stores no ", Format::name, " weights"));
  });
}

}  // namespace ebb::bitsandbytes
