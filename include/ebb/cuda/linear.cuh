#pragma once

#include <cstddef>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/cuda/blas.hpp"
#include "ebb/cuda/blockwise.cuh"
#include "ebb/cuda/check.hpp"
#include "ebb/cuda/context.hpp"
#include "ebb/cuda/dequantize.cuh"
#include "ebb/cuda/elementwise.cuh"
#include "ebb/cuda/gemm.cuh"
#include "ebb/cuda/gemv.cuh"
#include "ebb/cuda/int8_linear.cuh"
#include "ebb/epilogue/stages.hpp"
#include "ebb/ops/linear.hpp"
#include "ebb/tensor/any_of.hpp"

namespace ebb::cuda {

namespace detail {

/// An epilogue, cut into what cuBLASLt fuses behind a product and the rest, which runs in a pass of its own.
template <class Stage>
struct Split {
  static constexpr bool bias = false, gelu = false;
  using Rest = Stage;
  static const float* bias_of(const Stage&) { return nullptr; }
  static const Rest& rest(const Stage& stage) { return stage; }
};
template <>
struct Split<GeluTanh> {
  static constexpr bool bias = false, gelu = true;
  using Rest = Identity;
  static const float* bias_of(const GeluTanh&) { return nullptr; }
  static Rest rest(const GeluTanh&) { return {}; }
};
template <class After>
struct Split<Chain<GeluTanh, After>> {
  static constexpr bool bias = false, gelu = true;
  using Rest = After;
  static const float* bias_of(const Chain<GeluTanh, After>&) { return nullptr; }
  static const Rest& rest(const Chain<GeluTanh, After>& stage) { return stage.rest; }
};
template <>
struct Split<Bias> {
  static constexpr bool bias = true, gelu = false;
  using Rest = Identity;
  static const float* bias_of(const Bias& stage) { return stage.bias; }
  static Rest rest(const Bias&) { return {}; }
};
template <class After>
struct Split<Chain<Bias, After>> {
  static constexpr bool bias = true, gelu = Split<After>::gelu;
  using Rest = typename Split<After>::Rest;
  static const float* bias_of(const Chain<Bias, After>& stage) { return stage.first.bias; }
  static auto rest(const Chain<Bias, After>& stage) { return Split<After>::rest(stage.rest); }
};

template <class Stage>
inline constexpr bool begins_with_bias = false;
template <class After>
inline constexpr bool begins_with_bias<Chain<Bias, After>> = true;
template <class Stage>
inline constexpr bool is_residual = false;
template <class T>
inline constexpr bool is_residual<Residual<T>> = true;
template <class Stage>
inline constexpr bool is_gated_residual = false;
template <class Gate, class T>
inline constexpr bool is_gated_residual<GatedResidual<Gate, T>> = true;

/// The whole weight in T: itself where it is dense in T, else dequantized or converted into the workspace.
template <class T, class Format>
Matrix<const T> dense_weight(const Context<T>& ctx, const QuantizedTensor<Format>& weight, std::size_t rows,
                             std::size_t columns) {
  if constexpr (DenseFormat<Format>) {
    if constexpr (std::is_same_v<typename Format::Code, T>) {
      return {weight.values().data(), rows, columns};
    } else {
      const Matrix<T> dense = ctx.matrix(rows, columns);
      check(launch_map(Matrix<const typename Format::Code>(weight.values().data(), rows, columns), Identity{}, dense,
                       ctx.stream()));
      return dense;
    }
  } else {
    const Matrix<T> dense = ctx.matrix(rows, columns);
    if constexpr (BlockFormat<Format>)
      check(launch_dequantize<Format>(blockwise_tensor(weight), dense.data, ctx.stream()));
    else
      check(launch_dequantize<Format>(weight.codes().data(), weight.scales().data(), rows, columns, dense.data,
                                      ctx.stream()));
    return dense;
  }
}

/// Runs what cuBLASLt cannot fuse over its product. y = stage(product).
template <class T, class Stage>
void finish(const Context<T>& ctx, Matrix<const T> product, const Stage& stage, Matrix<T> y) {
  if constexpr (is_gated_residual<Stage>)
    check(launch_gated_residual(product, stage.gate, stage.rows_per_item, stage.residual, y, ctx.stream()));
  else if constexpr (is_residual<Stage>)
    check(launch_add(product, stage.residual, y, ctx.stream()));
  else
    check(launch_map(product, stage, y, ctx.stream()));
}

/// By cuBLASLt with a part of the epilogue, then the rest of it; by our own kernel where cuBLASLt has none, and where
/// few rows pass more than a bias: those are too few for the rounding of their product, or the cancellation in
/// cuBLASLt's GELU, to average out.
template <class T, class Stage>
void linear_dense(const Context<T>& ctx, Matrix<const T> x, Matrix<const T> weight, const Stage& stage, Matrix<T> y) {
  using Parts = Split<Stage>;
  using Rest = typename Parts::Rest;
  const bool fused = ctx.engine().fusion == Fusion::on;
  if constexpr (Parts::gelu || !std::is_same_v<Rest, Identity>)
    if (fused && y.rows <= gemv_most_tokens) return check(launch_gemm(x, weight, stage, y, ctx.stream()));
  const T* bias = nullptr;
  if constexpr (Parts::bias) {
    if constexpr (std::is_same_v<T, float>) {
      bias = Parts::bias_of(stage);
    } else {
      const Matrix<T> rounded = ctx.matrix(1, y.columns);
      check(launch_map(Matrix<const float>(Parts::bias_of(stage), 1, y.columns), Identity{}, rounded, ctx.stream()));
      bias = rounded.data;
    }
  }
  constexpr BlasEpilogue epilogue = Parts::bias ? (Parts::gelu ? BlasEpilogue::bias_gelu : BlasEpilogue::bias)
                                                : (Parts::gelu ? BlasEpilogue::gelu : BlasEpilogue::none);
  Blas& blas = ctx.engine().blas;
  if (!fused) {
    const Matrix<T> product = ctx.matrix(y.rows, y.columns);
    if (!blas.multiply(x, weight, BlasEpilogue::none, static_cast<const T*>(nullptr), static_cast<const T*>(nullptr),
                       product, ctx.stream()))
      check(launch_gemm(x, weight, Identity{}, product, ctx.stream()));
    check(launch_map(product, stage, y, ctx.stream()));
    return;
  }
  if constexpr (std::is_same_v<Rest, Identity>) {
    if (blas.multiply(x, weight, epilogue, bias, static_cast<const T*>(nullptr), y, ctx.stream())) return;
  } else {
    const auto rest = Parts::rest(stage);
    if constexpr (is_residual<Rest> && !Parts::gelu) {
      if constexpr (std::is_same_v<std::remove_const_t<decltype(rest.residual)>, Matrix<const T>>)
        if (rest.residual.stride == y.stride &&
            blas.multiply(x, weight, epilogue, bias, rest.residual.data, y, ctx.stream()))
          return;
    }
    const Matrix<T> product = ctx.matrix(y.rows, y.columns);
    if (blas.multiply(x, weight, epilogue, bias, static_cast<const T*>(nullptr), product, ctx.stream()))
      return finish<T>(ctx, product, rest, y);
  }
  check(launch_gemm(x, weight, stage, y, ctx.stream()));
}

/// The fewest passes over a 4-bit weight that few tokens need: one.
template <class Format, class T, class Stage>
void linear_few(const Context<T>& ctx, Matrix<const T> x, const BlockwiseTensor& weight, const Stage& stage,
                Matrix<T> y) {
  // One kernel each format and type, not one each epilogue: a few rows cost nothing to pass over again.
  if constexpr (std::is_same_v<Stage, Bias> || std::is_same_v<Stage, Identity>) {
    check(launch_gemv<Format>(x, weight, stage, y, ctx.stream()));
  } else if constexpr (begins_with_bias<Stage>) {
    const Matrix<T> product = ctx.matrix(y.rows, y.columns);
    check(launch_gemv<Format>(x, weight, stage.first, product, ctx.stream()));
    finish<T>(ctx, product, stage.rest, y);
  } else {
    const Matrix<T> product = ctx.matrix(y.rows, y.columns);
    check(launch_gemv<Format>(x, weight, Identity{}, product, ctx.stream()));
    finish<T>(ctx, product, stage, y);
  }
}

}  // namespace detail

/// See ops/linear.hpp. Few tokens read a 4-bit weight once, as it is; for more, it is dequantized into the workspace
/// and multiplied by cuBLASLt. Stages that cuBLASLt fuses cost nothing; behind others the product is rounded to T once
/// more.
template <Element T, Epilogue Stage, QuantFormat... Formats>
void linear(const Context<T>& ctx, std::type_identity_t<Matrix<const T>> x, const AnyOf<Formats...>& weight,
            Stage stage, Matrix<T> y) {
  check_linear(x, weight.shape(), y);
  if (y.size() == 0) return;
  const auto frame = ctx.workspace().frame();
  weight.visit([&]<class Format>(const QuantizedTensor<Format>& tensor) {
    if constexpr (std::is_same_v<Format, INT8>) {
      const auto scratch = ctx.template array<std::byte>(int8_linear_workspace_bytes(x.rows, x.columns));
      check(launch_int8_linear(x, tensor.codes().data(), tensor.scales().data(), tensor.options().outlier_threshold,
                               stage, y, scratch.data(), ctx.stream()));
    } else {
      if constexpr (BlockFormat<Format>)
        if (x.rows <= gemv_most_tokens) return detail::linear_few<Format>(ctx, x, blockwise_tensor(tensor), stage, y);
      detail::linear_dense<T>(ctx, x, detail::dense_weight(ctx, tensor, y.columns, x.columns), stage, y);
    }
  });
}

}  // namespace ebb::cuda
