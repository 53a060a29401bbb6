#pragma once

#include <cstddef>
#include <tuple>

#include "ebb/core/view.hpp"
#include "ebb/module/members.hpp"
#include "ebb/ops/norm.hpp"

namespace ebb::nn {

struct NormConfig {
  float epsilon = 1e-6f;
};

/// LayerNorm with affine parameters over the last axis (biased variance).
struct LayerNorm {
  Vector weight;  // [width]
  Vector bias;    // [width]
  NormConfig config;

  static consteval auto members() {
    return std::tuple{field{"weight", &LayerNorm::weight}, field{"bias", &LayerNorm::bias}};
  }
  static LayerNorm make(std::size_t width, float epsilon) {
    return {Vector(Shape{width}), Vector(Shape{width}), {epsilon}};
  }
  template <class Context>
  void forward(Context& ctx, Matrix<const typename Context::element> x, Matrix<typename Context::element> y) const {
    layer_norm(ctx, x, weight.values(), bias.values(), config.epsilon, y);
  }
};
static_assert(LeafModule<LayerNorm>);

/// Root-mean-square norm over the last axis, times a weight.
struct RMSNorm {
  Vector weight;  // [width]
  NormConfig config;

  static consteval auto members() { return std::tuple{field{"weight", &RMSNorm::weight}}; }
  static RMSNorm make(std::size_t width, float epsilon) { return {Vector(Shape{width}), {epsilon}}; }
  template <class Context>
  void forward(Context& ctx, Matrix<const typename Context::element> x, Matrix<typename Context::element> y) const {
    rms_norm(ctx, x, weight.values(), config.epsilon, Activation::none, y);
  }
};
static_assert(LeafModule<RMSNorm>);

/// RMSNorm followed by the rotary embedding, in place: what diffusion transformers do to queries and keys. Each head by
/// itself (Flux), or all of them together (Wan): as long as the weight is.
struct HeadNorm {
  Vector weight;  // [head_dim] or [heads * head_dim]
  NormConfig config;

  static consteval auto members() { return std::tuple{field{"weight", &HeadNorm::weight}}; }
  static HeadNorm make(std::size_t width, float epsilon) { return {Vector(Shape{width}), {epsilon}}; }
  /// x [tokens * batch, heads * head_dim] in place; cosines, sines [tokens, head_dim]
  template <class Context>
  void forward(Context& ctx, Matrix<typename Context::element> x, Matrix<const float> cosines,
               Matrix<const float> sines) const {
    rms_norm_rope(ctx, x, weight.values(), config.epsilon, cosines, sines);
  }
};
static_assert(LeafModule<HeadNorm>);

/// GroupNorm over NHWC images with an activation fused behind it.
struct GroupNorm {
  struct Config {
    std::size_t groups = 32;
    float epsilon = 1e-6f;
  };
  Vector weight;  // [channels]
  Vector bias;    // [channels]
  Config config;

  static consteval auto members() {
    return std::tuple{field{"weight", &GroupNorm::weight}, field{"bias", &GroupNorm::bias}};
  }
  static GroupNorm make(std::size_t channels, std::size_t groups, float epsilon) {
    return {Vector(Shape{channels}), Vector(Shape{channels}), {groups, epsilon}};
  }
  template <class Context>
  void forward(Context& ctx, Image<const typename Context::element> x, Activation activation,
               Image<typename Context::element> y) const {
    group_norm(ctx, x, config.groups, weight.values(), bias.values(), config.epsilon, activation, y);
  }
};
static_assert(LeafModule<GroupNorm>);

}  // namespace ebb::nn
