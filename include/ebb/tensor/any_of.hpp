#pragma once

#include <concepts>
#include <cstddef>
#include <string_view>
#include <utility>
#include <variant>

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/format/dense.hpp"
#include "ebb/format/fp4.hpp"
#include "ebb/format/fp8.hpp"
#include "ebb/format/int8.hpp"
#include "ebb/format/nf4.hpp"
#include "ebb/tensor/quantized_tensor.hpp"

namespace ebb {

/// A tensor whose format, one of `Formats`, is chosen at run time: by an option, a skip list or a checkpoint
/// that is already quantized. A closed sum, resolved once a call by `visit`. Default-constructed: empty, in
/// the first format.
template <QuantFormat... Formats>
class AnyOf {
 public:
  template <class Format>
  static constexpr bool can_hold = (std::same_as<Format, Formats> || ...);

  AnyOf() = default;

  /// An unbound tensor in the first format: a shape that waits for a loader to choose the real format.
  explicit AnyOf(Shape shape) : tensor_(std::in_place_index<0>, shape) {}

  /// Makes this an unbound tensor of `Format`. @throws ConfigError for impossible options
  template <QuantFormat Format>
    requires can_hold<Format>
  QuantizedTensor<Format>& emplace(Shape shape, typename Format::Options options = {}) {
    return tensor_.template emplace<QuantizedTensor<Format>>(shape, options);
  }

  const Shape& shape() const {
    return visit([](const auto& tensor) -> const Shape& { return tensor.shape(); });
  }
  const SegmentLayout& layout() const {
    return visit([](const auto& tensor) -> const SegmentLayout& { return tensor.layout(); });
  }
  std::size_t bytes() const { return layout().bytes; }
  std::size_t elements() const {
    return visit([](const auto& tensor) { return tensor.elements(); });
  }
  /// "nf4", "bf16", ...
  std::string_view format_name() const {
    return visit([]<class Format>(const QuantizedTensor<Format>&) { return std::string_view(Format::name); });
  }

  void bind(const std::byte* segment) {
    std::visit([segment](auto& tensor) { tensor.bind(segment); }, tensor_);
  }
  bool bound() const {
    return visit([](const auto& tensor) { return tensor.bound(); });
  }
  /// @throws MemoryError when no segment is bound
  const std::byte* segment() const {
    return visit([](const auto& tensor) { return tensor.segment(); });
  }

  template <class Format>
    requires can_hold<Format>
  bool holds() const {
    return std::holds_alternative<QuantizedTensor<Format>>(tensor_);
  }
  /// @throws ConfigError when the tensor has another format
  template <class Format>
    requires can_hold<Format>
  const QuantizedTensor<Format>& get() const {
    if (const auto* tensor = std::get_if<QuantizedTensor<Format>>(&tensor_)) return *tensor;
    throw ConfigError(concat("a tensor of shape ", shape().text(), " has format ", format_name(), " where ",
                             Format::name, " was expected"));
  }

  /// Calls `function` with the `QuantizedTensor<Format>` that this is; all formats must return the same type.
  template <class Function>
  decltype(auto) visit(Function&& function) const {
    return std::visit(std::forward<Function>(function), tensor_);
  }

 private:
  std::variant<QuantizedTensor<Formats>...> tensor_;
};

/// Any weight of a linear layer.
using AnyTensor = AnyOf<F32, F16, BF16, NF4, FP4, INT8, FP8>;

/// A weight that stays a plain array: convolutions, embeddings, modulation tables.
using DenseTensor = AnyOf<F32, F16, BF16>;

}  // namespace ebb
