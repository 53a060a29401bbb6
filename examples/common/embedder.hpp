#pragma once

#include <cstddef>
#include <tuple>

#include "ebb/module/call.hpp"
#include "ebb/nn/linear.hpp"

namespace ebb::examples {

/// Two linears with SiLU between them.
struct Embedder {
  nn::Linear linear_1, linear_2;

  static consteval auto members() {
    return std::tuple{field{"linear_1", &Embedder::linear_1}, field{"linear_2", &Embedder::linear_2}};
  }
  static Embedder make(std::size_t inputs, std::size_t outputs) {
    return {nn::Linear::make(inputs, outputs), nn::Linear::make(outputs, outputs)};
  }
  /// x [batch, inputs] -> y [batch, outputs], or y += with `Residual{y}`
  template <class Context, class... Stages>
  void forward(Context& ctx, Matrix<const typename Context::element> x, Matrix<typename Context::element> y,
               Stages... stages) const {
    const auto frame = ctx.workspace().frame();
    const auto hidden = ctx.matrix(x.rows, linear_1.outputs());
    call(ctx, linear_1, x, hidden, Silu{});
    call(ctx, linear_2, hidden, y, stages...);
  }
};
static_assert(Module<Embedder>);

}  // namespace ebb::examples
