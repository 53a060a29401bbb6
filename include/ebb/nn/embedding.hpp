#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>

#include "ebb/core/view.hpp"
#include "ebb/module/members.hpp"

namespace ebb::nn {

/// A table of rows that are looked up by id. It stays in home memory under every offload policy: a prompt needs
/// a few hundred of its rows.
struct Embedding {
  DenseTensor weight;  // [rows, width]
  static constexpr bool stays_home = true;

  static consteval auto members() { return std::tuple{field{"weight", &Embedding::weight}}; }
  static Embedding make(std::size_t rows, std::size_t width) { return {DenseTensor(Shape{rows, width})}; }
  std::size_t rows() const { return weight.shape()[0]; }

  /// ids [tokens] -> y [tokens, width]. @throws ShapeError for an id outside the table
  template <class Context>
  void forward(Context& ctx, std::span<const std::int32_t> ids, Matrix<typename Context::element> y) const {
    gather_rows(ctx, weight, ids, y);
  }
};
static_assert(LeafModule<Embedding>);

}  // namespace ebb::nn
