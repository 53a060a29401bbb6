#include "ebb/epilogue/stages.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <type_traits>
#include <vector>

#include "ebb/core/dtype.hpp"

using namespace ebb;

TEST_CASE("activations equal their formulas in double") {
  for (float x = -12.0f; x <= 12.0f; x += 0.0625f) {
    const double d = x;
    CHECK(GeluTanh{}(x, 0, 0) ==
          doctest::Approx(0.5 * d * (1 + std::tanh(std::sqrt(2 / M_PI) * (d + 0.044715 * d * d * d)))).epsilon(1e-5));
    CHECK(GeluErf{}(x, 0, 0) == doctest::Approx(0.5 * d * (1 + std::erf(d / std::sqrt(2.0)))).epsilon(1e-5));
    CHECK(QuickGelu{}(x, 0, 0) == doctest::Approx(d / (1 + std::exp(-1.702 * d))).epsilon(1e-5));
    CHECK(Silu{}(x, 0, 0) == doctest::Approx(d / (1 + std::exp(-d))).epsilon(1e-5));
  }
}

TEST_CASE("GELU keeps its digits where it is nearly zero") {
  for (float x = -5.0f; x <= -1.0f; x += 0.0625f) {
    const double d = x;
    CHECK(GeluTanh{}(x, 0, 0) ==
          doctest::Approx(0.5 * d * (1 + std::tanh(std::sqrt(2 / M_PI) * (d + 0.044715 * d * d * d))))
              .scale(0.0)
              .epsilon(1e-5));
  }
}

TEST_CASE("a chain runs its stages in order") {
  const std::vector<float> bias{1, 2, 3}, factor{1, 2, 3, 4, 5, 6}, gate{10, 20, 30, 40, 50, 60};
  const Matrix<const float> matrix(factor.data(), 2, 3);
  CHECK(chain()(5.0f, 1, 2) == 5.0f);
  CHECK(chain(Bias{bias.data()})(5.0f, 1, 2) == 8.0f);
  CHECK(chain(Bias{bias.data()}, Multiply{matrix}, Residual{matrix})(5.0f, 1, 2) == 54.0f);
  CHECK(chain(Residual{matrix}, Multiply{matrix}, Bias{bias.data()})(5.0f, 1, 2) == 69.0f);
  const GatedResidual gated{Matrix<const float>(gate.data(), 2, 3), std::size_t{1}, matrix};
  CHECK(gated(2.0f, 1, 0) == 4.0f + 40.0f * 2.0f);
  CHECK(GatedResidual{Matrix<const float>(gate.data(), 1, 3), std::size_t{2}, matrix}(2.0f, 1, 0) ==
        4.0f + 10.0f * 2.0f);
}

TEST_CASE("stages are small values: kernels take them as arguments") {
  using Fused = decltype(chain(Bias{}, GeluTanh{}, Residual<bfloat16>{}));
  static_assert(std::is_trivially_copyable_v<Fused> && Epilogue<Fused>);
  static_assert(sizeof(Fused) <= 64);
}
