#include "ebb/host/elementwise.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ebb/epilogue/stages.hpp"
#include "ebb/tensor/format_choice.hpp"
#include "ebb/tensor/quantize.hpp"
#include "support/random.hpp"

using namespace ebb;

TEST_CASE("maps and sums") {
  testing::Random random(51);
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  const auto a = random.normal(35, 4.0f), b = random.normal(35);
  std::vector<float> active(35), sum(35);
  map(ctx, Matrix<const float>(a.data(), 5, 7), Silu{}, Matrix<float>(active.data(), 5, 7));
  add(ctx, {a.data(), 5, 7}, {b.data(), 5, 7}, Matrix<float>(sum.data(), 5, 7));
  for (std::size_t i = 0; i < 35; ++i) {
    CHECK(active[i] == doctest::Approx(a[i] / (1 + std::exp(-double{a[i]}))).epsilon(1e-6));
    CHECK(sum[i] == a[i] + b[i]);
  }
  CHECK_THROWS_AS(map(ctx, Matrix<const float>(a.data(), 5, 7), Silu{}, Matrix<float>(active.data(), 7, 5)),
                  ShapeError);
}

TEST_CASE("a map converts between types") {
  testing::Random random(53);
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  const auto x = random.normal(24);
  std::vector<bfloat16> rounded(24);
  std::vector<float> back(24);
  map(ctx, Matrix<const float>(x.data(), 4, 6), Identity{}, Matrix<bfloat16>(rounded.data(), 4, 6));
  map(ctx, Matrix<bfloat16>(rounded.data(), 4, 6), Identity{}, Matrix<float>(back.data(), 4, 6));
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(back[i] == static_cast<float>(bfloat16(x[i])));
}

TEST_CASE("a linear combination is summed from left to right, also into one of its inputs") {
  testing::Random random(54);
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  const auto a = random.normal(12), b = random.normal(12), c = random.normal(12);
  auto y = c;
  const std::vector<float> factors{0.5f, -3.0f, 0.0f};
  const std::array<Matrix<const float>, 3> inputs{
      Matrix<const float>(a.data(), 3, 4), Matrix<const float>(b.data(), 3, 4), Matrix<const float>(y.data(), 3, 4)};
  linear_combination(ctx, inputs, factors, Matrix<float>(y.data(), 3, 4));
  for (std::size_t i = 0; i < y.size(); ++i) CHECK(y[i] == doctest::Approx(0.5 * a[i] - 3.0 * b[i]).epsilon(1e-6));
  CHECK_THROWS_AS(linear_combination(ctx, inputs, std::span(factors).first(2), Matrix<float>(y.data(), 3, 4)),
                  ShapeError);
  CHECK_THROWS_AS(linear_combination(ctx, inputs, factors, Matrix<float>(y.data(), 4, 3)), ShapeError);
}

TEST_CASE("timesteps become cosines, then sines, of falling frequencies") {
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  const std::vector<float> t{0.0f, 1.0f, 731.5f, 1000.0f};
  std::vector<float> y(4 * 256);
  timestep_embedding(ctx, t, Matrix<float>(y.data(), 4, 256));
  for (std::size_t row = 0; row < 4; ++row)
    for (std::size_t i = 0; i < 128; ++i) {
      const double angle = t[row] * std::exp(-std::log(10000.0) * static_cast<double>(i) / 128);
      // float32 keeps about 1e-4 of an angle of 1000
      CHECK(std::abs(y[row * 256 + i] - std::cos(angle)) < 2e-4);
      CHECK(std::abs(y[row * 256 + 128 + i] - std::sin(angle)) < 2e-4);
    }
  CHECK_THROWS_AS(timestep_embedding(ctx, t, Matrix<float>(y.data(), 4, 255)), ShapeError);
}

TEST_CASE("rows are gathered by id, and ids outside the table are errors") {
  testing::Random random(52);
  Workspace workspace;
  const host::Context<bfloat16> ctx(workspace, 1);
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    DenseTensor table;
    emplace_dense(table, {10, 6}, type);
    AlignedBuffer segment(table.bytes());
    const auto values = random.normal(60);
    quantize(std::span<const float>(values), table, segment.bytes(), "table");
    table.bind(segment.data());
    const std::vector<std::int32_t> ids{9, 0, 3, 3};
    std::vector<bfloat16> y(24);
    gather_rows(ctx, table, ids, Matrix<bfloat16>(y.data(), 4, 6));
    for (std::size_t row = 0; row < 4; ++row)
      for (std::size_t i = 0; i < 6; ++i)
        CHECK(float(y[row * 6 + i]) ==
              doctest::Approx(values[static_cast<std::size_t>(ids[row]) * 6 + i]).epsilon(8e-3));
    for (const std::int32_t bad : {-1, 10})
      CHECK_THROWS_WITH_AS(gather_rows(ctx, table, std::vector<std::int32_t>{0, bad}, Matrix<bfloat16>(y.data(), 2, 6)),
                           doctest::Contains("outside"), ShapeError);
  }
}
