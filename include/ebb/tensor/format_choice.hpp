#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/tensor/any_of.hpp"

namespace ebb {

/// A format and its options as a value: what a command line or a configuration chooses at run time.
struct FormatChoice {
  enum class Kind { dense, nf4, fp4, int8, fp8 };
  static constexpr std::array<std::string_view, 5> names{"none", "nf4", "fp4", "int8", "fp8"};

  Kind kind = Kind::dense;
  BlockOptions block = {};  // of nf4 and fp4
  Int8Options int8 = {};

  std::string_view name() const { return names[static_cast<std::size_t>(kind)]; }

  /// @throws ConfigError for an unknown name; lists the known ones
  static Kind parse_kind(std::string_view name) {
    for (std::size_t index = 0; index < names.size(); ++index)
      if (names[index] == name) return static_cast<Kind>(index);
    std::string known;
    for (const std::string_view each : names) known += (known.empty() ? "" : ", ") + std::string(each);
    throw ConfigError(concat("unknown format '", name, "': expected one of ", known));
  }
};

/// Makes `tensor` an unbound tensor of the chosen format. `dense` leaves the choice of the element type to
/// the caller and is an error here. @throws ConfigError for impossible options
inline void emplace(AnyTensor& tensor, const Shape& shape, const FormatChoice& choice) {
  switch (choice.kind) {
    case FormatChoice::Kind::nf4:
      tensor.emplace<NF4>(shape, choice.block);
      return;
    case FormatChoice::Kind::fp4:
      tensor.emplace<FP4>(shape, choice.block);
      return;
    case FormatChoice::Kind::int8:
      tensor.emplace<INT8>(shape, choice.int8);
      return;
    case FormatChoice::Kind::fp8:
      tensor.emplace<FP8>(shape);
      return;
    case FormatChoice::Kind::dense:
      break;
  }
  throw ConfigError("a dense tensor needs an element type, not a quantized format");
}

/// The same for plain arrays. @throws ConfigError when `type` is no floating-point activation type
template <class AnyFormat>
void emplace_dense(AnyFormat& tensor, const Shape& shape, DType type) {
  switch (type) {
    case DType::f32:
      tensor.template emplace<F32>(shape);
      return;
    case DType::f16:
      tensor.template emplace<F16>(shape);
      return;
    case DType::bf16:
      tensor.template emplace<BF16>(shape);
      return;
    default:
      throw ConfigError(concat("expected a tensor of F32, F16 or BF16, found ", name_of(type)));
  }
}

}  // namespace ebb
