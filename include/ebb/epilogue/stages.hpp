#pragma once

#include <cmath>
#include <cstddef>
#include <type_traits>

#include "ebb/core/config.hpp"
#include "ebb/core/view.hpp"
#include "ebb/epilogue/epilogue.hpp"

namespace ebb {

/// value + bias[column]
struct Bias {
  const float* bias;  // [columns]
  EBB_HOST_DEVICE float operator()(float value, std::size_t, std::size_t column) const { return value + bias[column]; }
};
static_assert(Epilogue<Bias>);

/// GELU in its tanh form: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))); "gelu_new" of transformers. Computed as
/// x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), which is the same, but where x is negative 1 + tanh cancels.
struct GeluTanh {
  EBB_HOST_DEVICE float operator()(float x, std::size_t, std::size_t) const {
    return x / (1.0f + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
  }
};
static_assert(Epilogue<GeluTanh>);

/// GELU in its exact form: x times the normal distribution function.
struct GeluErf {
  EBB_HOST_DEVICE float operator()(float x, std::size_t, std::size_t) const {
    return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
  }
};
static_assert(Epilogue<GeluErf>);

/// x sigmoid(1.702 x): CLIP's approximation of GELU.
struct QuickGelu {
  EBB_HOST_DEVICE float operator()(float x, std::size_t, std::size_t) const { return x / (1.0f + expf(-1.702f * x)); }
};
static_assert(Epilogue<QuickGelu>);

/// x sigmoid(x)
struct Silu {
  EBB_HOST_DEVICE float operator()(float x, std::size_t, std::size_t) const {
#ifdef __CUDA_ARCH__
    return __fdividef(x, 1.0f + __expf(-x));  // exact division branches for each value, which norms wait for
#else
    return x / (1.0f + expf(-x));
#endif
  }
};
static_assert(Epilogue<Silu>);

/// value + residual(row, column); the residual may be the target itself.
template <class T>
struct Residual {
  Matrix<const T> residual;  // [rows, columns]
  EBB_HOST_DEVICE float operator()(float value, std::size_t row, std::size_t column) const {
    return value + static_cast<float>(residual(row, column));
  }
};
template <class T>
Residual(Matrix<T>) -> Residual<std::remove_const_t<T>>;
static_assert(Epilogue<Residual<float>>);

/// value * factor(row, column), e.g. the gated feed-forward of T5.
template <class T>
struct Multiply {
  Matrix<const T> factor;  // [rows, columns]
  EBB_HOST_DEVICE float operator()(float value, std::size_t row, std::size_t column) const {
    return value * static_cast<float>(factor(row, column));
  }
};
template <class T>
Multiply(Matrix<T>) -> Multiply<std::remove_const_t<T>>;
static_assert(Epilogue<Multiply<float>>);

/// residual(row, column) + gate(item, column) * value, where `rows_per_item` consecutive rows belong to one item of the
/// batch: how a diffusion transformer's block adds to its stream. The residual may be the target itself.
template <class Gate, class T>
struct GatedResidual {
  Matrix<const Gate> gate;    // [batch, columns]
  std::size_t rows_per_item;  // tokens of one item
  Matrix<const T> residual;   // [rows, columns]
  EBB_HOST_DEVICE float operator()(float value, std::size_t row, std::size_t column) const {
    return static_cast<float>(residual(row, column)) + static_cast<float>(gate(row / rows_per_item, column)) * value;
  }
};
template <class Gate, class T>
GatedResidual(Matrix<Gate>, std::size_t, Matrix<T>) -> GatedResidual<std::remove_const_t<Gate>, std::remove_const_t<T>>;
static_assert(Epilogue<GatedResidual<float, float>>);

}  // namespace ebb
