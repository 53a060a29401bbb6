#include "ebb/host/linear.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "ebb/epilogue/stages.hpp"
#include "ebb/tensor/format_choice.hpp"
#include "ebb/tensor/quantize.hpp"
#include "support/error.hpp"
#include "support/random.hpp"

using namespace ebb;

namespace {

/// A weight in some format, and the float32 numbers that it stands for.
struct Weight {
  AnyTensor tensor;
  AlignedBuffer segment;
  std::vector<float> values;

  Weight(testing::Random& random, const Shape& shape, const FormatChoice& choice, DType dense = DType::f32) {
    if (choice.kind == FormatChoice::Kind::dense)
      emplace_dense(tensor, shape, dense);
    else
      emplace(tensor, shape, choice);
    segment = AlignedBuffer(tensor.bytes());
    const auto source = random.normal(shape.elements());
    quantize(std::span<const float>(source), tensor, segment.bytes(), "weight");
    tensor.bind(segment.data());
    values.resize(shape.elements());
    dequantize(tensor, 0, std::span(values));
  }
};

template <Element T>
void check_product(testing::Random& random, const FormatChoice& choice, DType dense, std::size_t m, std::size_t n,
                   std::size_t k, int threads, Fusion fusion) {
  CAPTURE(choice.name());
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(threads);
  const Weight weight(random, {n, k}, choice, dense);
  const std::size_t x_stride = k + random.below(3), y_stride = n + random.below(3);
  const auto x = random.normal<T>(m * x_stride), residual = random.normal<T>(m * n);
  const auto bias = random.normal(n);
  const T poison = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
  std::vector<T> y(m * y_stride, poison);
  Workspace workspace;
  const host::Context<T> ctx(workspace, threads, nullptr, fusion);
  linear(ctx, {x.data(), m, k, x_stride}, weight.tensor,
         chain(Bias{bias.data()}, Residual{Matrix<const T>(residual.data(), m, n)}),
         Matrix<T>(y.data(), m, n, y_stride));
  std::vector<T> found;
  std::vector<double> expected;
  for (std::size_t row = 0; row < m; ++row) {
    for (std::size_t column = 0; column < n; ++column) {
      double sum = bias[column] + static_cast<double>(static_cast<float>(residual[row * n + column]));
      for (std::size_t i = 0; i < k; ++i)
        sum += static_cast<double>(static_cast<float>(x[row * x_stride + i])) * weight.values[column * k + i];
      expected.push_back(sum);
      found.push_back(y[row * y_stride + column]);
    }
    for (std::size_t gap = n; gap < y_stride; ++gap) CHECK(std::isnan(static_cast<float>(y[row * y_stride + gap])));
  }
  CHECK(testing::relative_error(found, expected) < testing::operation_bound<T>);
}

FormatChoice choice_of(FormatChoice::Kind kind, std::size_t block = 64,
                       DoubleQuantization nested = DoubleQuantization::off) {
  FormatChoice choice;
  choice.kind = kind;
  choice.block = {block, nested};
  return choice;
}

}  // namespace

TEST_CASE("a linear in every format equals plain loops over the dequantized weight") {
  using Kind = FormatChoice::Kind;
  testing::Random random(11);
  const std::size_t shapes[][3] = {{1, 1, 1},     {1, 70, 33},   {1, 129, 256}, {2, 5, 64},    {4, 130, 96},
                                   {5, 257, 100}, {17, 128, 31}, {40, 300, 65}, {530, 9, 160}, {3, 64, 4096}};
  for (const auto& [m, n, k] : shapes)
    for (const int threads : {1, 2}) {
      const auto fusion = random.below(4) == 0 ? Fusion::off : Fusion::on;
      for (const DType dense : {DType::f32, DType::f16, DType::bf16})
        check_product<float>(random, choice_of(Kind::dense), dense, m, n, k, threads, fusion);
      for (const Kind kind : {Kind::nf4, Kind::fp4})
        for (const std::size_t block : {32, 64, 512})
          for (const auto nested : {DoubleQuantization::off, DoubleQuantization::on})
            check_product<float>(random, choice_of(kind, block, nested), DType::f32, m, n, k, threads, fusion);
      check_product<float>(random, choice_of(Kind::fp8), DType::f32, m, n, k, threads, fusion);
      check_product<bfloat16>(random, choice_of(Kind::nf4), DType::f32, m, n, k, threads, fusion);
      check_product<float16>(random, choice_of(Kind::dense), DType::bf16, m, n, k, threads, fusion);
    }
}

TEST_CASE("decoding a panel is bit-equal to dequantizing it, wherever it begins") {
  testing::Random random(12);
  for (const std::size_t columns : {31, 32, 64, 75, 200}) {
    QuantizedTensor<NF4> tensor({40, columns}, {.block_size = 64});
    AlignedBuffer segment(tensor.bytes());
    const auto values = random.normal(tensor.elements());
    quantize(std::span<const float>(values), tensor, segment.bytes(), "weight");
    tensor.bind(segment.data());
    for (int trial = 0; trial < 50; ++trial) {
      const std::size_t first = random.below(tensor.elements());
      const std::size_t count = 1 + random.below(tensor.elements() - first);
      std::vector<float> found(count), expected(count);
      host::detail::decode(tensor, first, std::span(found));
      dequantize(tensor, first, std::span(expected));
      REQUIRE(found == expected);
    }
  }
}

TEST_CASE("LLM.int8 multiplies outlier columns in 16 bits and the rest exactly in 8") {
  testing::Random random(13);
  for (const float threshold : {0.0f, 6.0f})
    for (const auto [m, n, k] : std::vector<std::array<std::size_t, 3>>{
             {1, 131, 2100}, {3, 131, 2100}, {40, 131, 2100}, {520, 3, 1100}, {600, 140, 200}}) {
      FormatChoice choice = choice_of(FormatChoice::Kind::int8);
      choice.int8.outlier_threshold = threshold;
      const Weight weight(random, {n, k}, choice);
      auto x = random.normal(m * k);
      for (std::size_t i = 0; i < 5; ++i) x[random.below(m * k)] = 9.0f;
      std::vector<float> y(m * n);
      Workspace workspace;
      const host::Context<float> ctx(workspace, 2);
      linear(ctx, {x.data(), m, k}, weight.tensor, Identity{}, Matrix<float>(y.data(), m, n));
      std::vector<bool> outlier(k);
      for (std::size_t i = 0; i < m * k; ++i)
        if (threshold > 0 && std::abs(float(float16(x[i]))) >= threshold) outlier[i % k] = true;
      const auto& stored = weight.tensor.get<INT8>();
      std::vector<double> expected;
      for (std::size_t row = 0; row < m; ++row) {
        float largest = 0.0f;
        for (std::size_t i = 0; i < k; ++i) {
          const float magnitude = std::abs(float(float16(x[row * k + i])));
          if (!(threshold > 0 && magnitude >= threshold)) largest = std::max(largest, magnitude);
        }
        for (std::size_t column = 0; column < n; ++column) {
          long long sum = 0;
          double rest = 0.0;
          for (std::size_t i = 0; i < k; ++i) {
            const float value = float16(x[row * k + i]);
            if (outlier[i])
              rest += static_cast<double>(value) * weight.values[column * k + i];
            else
              sum +=
                  static_cast<long long>(std::nearbyint(value * (127.0f / largest))) * stored.codes()[column * k + i];
          }
          expected.push_back(static_cast<double>(sum) * largest * stored.scale(column) / (127.0 * 127.0) + rest);
        }
      }
      CHECK(testing::relative_error(y, expected) < 1e-5);
    }
}

TEST_CASE("a linear refuses extents that do not fit") {
  testing::Random random(14);
  const Weight weight(random, {8, 16}, choice_of(FormatChoice::Kind::nf4));
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  std::vector<float> x(64), y(64);
  const auto run = [&](std::size_t xr, std::size_t xc, std::size_t yr, std::size_t yc) {
    linear(ctx, {x.data(), xr, xc}, weight.tensor, Identity{}, Matrix<float>(y.data(), yr, yc));
  };
  CHECK_NOTHROW(run(2, 16, 2, 8));
  CHECK_NOTHROW(run(0, 16, 0, 8));
  CHECK_THROWS_WITH_AS(run(2, 15, 2, 8), doctest::Contains("[2, 15]"), ShapeError);
  CHECK_THROWS_AS(run(2, 16, 3, 8), ShapeError);
  CHECK_THROWS_AS(run(2, 16, 2, 9), ShapeError);
  AnyTensor unbound;
  emplace(unbound, {8, 16}, choice_of(FormatChoice::Kind::nf4));
  CHECK_THROWS_AS(linear(ctx, {x.data(), 2, 16}, unbound, Identity{}, Matrix<float>(y.data(), 2, 8)), MemoryError);
}
