#pragma once

#include <cstddef>
#include <tuple>

#include "ebb/core/view.hpp"
#include "ebb/epilogue/stages.hpp"
#include "ebb/module/members.hpp"

namespace ebb::nn {

/// A two-dimensional convolution of stride 1 that keeps the picture's size, NHWC. Checkpoints store the filter as
/// [outputs, inputs, height, width]; in memory it is [outputs, height, width, inputs], which is a GEMM operand.
struct Conv2d {
  DenseTensor weight;  // [outputs, kernel, kernel, inputs]
  Vector bias;         // [outputs]
  static constexpr bool stored_channels_first = true;

  static consteval auto members() { return std::tuple{field{"weight", &Conv2d::weight}, field{"bias", &Conv2d::bias}}; }
  static Conv2d make(std::size_t inputs, std::size_t outputs, std::size_t kernel) {
    return {DenseTensor(Shape{outputs, kernel, kernel, inputs}), Vector(Shape{outputs})};
  }
  std::size_t outputs() const { return weight.shape()[0]; }

  /// x [n, h, w, inputs] -> y [n, h, w, outputs]; `stages` run on each value after the bias, row = pixel.
  template <class Context, class... Stages>
  void forward(Context& ctx, Image<const typename Context::element> x, Image<typename Context::element> y,
               Stages... stages) const {
    conv2d(ctx, x, weight, chain(Bias{bias.values().data()}, stages...), y);
  }
};
static_assert(LeafModule<Conv2d>);

/// A three-dimensional convolution of stride 1 over the frames of a video, channels last; see ops/conv.hpp for what it
/// does at the borders. Checkpoints store the filter as [outputs, inputs, depth, height, width].
struct Conv3d {
  DenseTensor weight;  // [outputs, depth, kernel, kernel, inputs]
  Vector bias;         // [outputs]
  static constexpr bool stored_channels_first = true;

  static consteval auto members() { return std::tuple{field{"weight", &Conv3d::weight}, field{"bias", &Conv3d::bias}}; }
  static Conv3d make(std::size_t inputs, std::size_t outputs, std::size_t depth, std::size_t kernel) {
    return {DenseTensor(Shape{outputs, depth, kernel, kernel, inputs}), Vector(Shape{outputs})};
  }
  std::size_t depth() const { return weight.shape()[1]; }
  std::size_t inputs() const { return weight.shape()[4]; }
  std::size_t outputs() const { return weight.shape()[0]; }

  /// x [frames + depth - 1, h, w, inputs] -> y [frames, h, w, outputs]; `stages` run on each value after the bias.
  template <class Context, class... Stages>
  void forward(Context& ctx, Image<const typename Context::element> x, Image<typename Context::element> y,
               Stages... stages) const {
    conv3d(ctx, x, weight, chain(Bias{bias.values().data()}, stages...), y);
  }
};
static_assert(LeafModule<Conv3d>);

}  // namespace ebb::nn
