#pragma once

#include <cstddef>
#include <tuple>

#include "ebb/core/view.hpp"
#include "ebb/epilogue/stages.hpp"
#include "ebb/module/members.hpp"

namespace ebb::nn {

/// y = x W^T + b, followed by any epilogue stages. The format of W is chosen at load.
struct Linear {
  AnyTensor weight;  // [outputs, inputs]
  Vector bias;       // [outputs]

  static consteval auto members() { return std::tuple{field{"weight", &Linear::weight}, field{"bias", &Linear::bias}}; }
  static Linear make(std::size_t inputs, std::size_t outputs) {
    return {AnyTensor(Shape{outputs, inputs}), Vector(Shape{outputs})};
  }
  std::size_t inputs() const { return weight.shape()[1]; }
  std::size_t outputs() const { return weight.shape()[0]; }

  /// x [tokens, inputs] -> y [tokens, outputs]; `stages` run in order on each value after the bias.
  template <class Context, class... Stages>
  void forward(Context& ctx, Matrix<const typename Context::element> x, Matrix<typename Context::element> y,
               Stages... stages) const {
    linear(ctx, x, weight, chain(Bias{bias.values().data()}, stages...), y);
  }
};
static_assert(LeafModule<Linear>);

/// y = x W^T without a bias, followed by any epilogue stages.
struct Projection {
  AnyTensor weight;  // [outputs, inputs]

  static consteval auto members() { return std::tuple{field{"weight", &Projection::weight}}; }
  static Projection make(std::size_t inputs, std::size_t outputs) { return {AnyTensor(Shape{outputs, inputs})}; }
  std::size_t outputs() const { return weight.shape()[0]; }

  /// x [tokens, inputs] -> y [tokens, outputs]
  template <class Context, class... Stages>
  void forward(Context& ctx, Matrix<const typename Context::element> x, Matrix<typename Context::element> y,
               Stages... stages) const {
    linear(ctx, x, weight, chain(stages...), y);
  }
};
static_assert(LeafModule<Projection>);

}  // namespace ebb::nn
