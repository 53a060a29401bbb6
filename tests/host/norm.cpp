#include "ebb/host/norm.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

#include "support/error.hpp"
#include "support/random.hpp"

using namespace ebb;

namespace {

template <Element T>
struct Run {
  Workspace workspace;
  host::Context<T> ctx{workspace, 2};
};

template <class T>
double at(const std::vector<T>& values, std::size_t index) {
  return static_cast<double>(static_cast<float>(values[index]));
}

struct Statistics {
  double mean, deviation, root;
};
template <class Value>
Statistics statistics(std::size_t count, Value value) {
  double sum = 0, squares = 0, root = 0;
  for (std::size_t i = 0; i < count; ++i) sum += value(i);
  const double mean = sum / static_cast<double>(count);
  for (std::size_t i = 0; i < count; ++i) {
    squares += (value(i) - mean) * (value(i) - mean);
    root += value(i) * value(i);
  }
  return {mean, std::sqrt(squares / static_cast<double>(count) + 1e-6),
          std::sqrt(root / static_cast<double>(count) + 1e-6)};
}

template <Element T>
void check_rows(testing::Random& random, std::size_t rows, std::size_t width, std::size_t items, float offset) {
  CAPTURE(rows);
  CAPTURE(width);
  Run<T> run;
  auto x = random.normal<T>(rows * items * width);
  for (T& value : x) value = static_cast<T>(static_cast<float>(value) + offset);
  const auto gamma = random.normal(width), beta = random.normal(width);
  const auto shift = random.normal<T>(items * width), scale = random.normal<T>(items * width);
  const std::vector<float> wide_shift(shift.begin(), shift.end()), wide_scale(scale.begin(), scale.end());
  std::vector<T> plain(x.size()), modulated(x.size()), by_floats(x.size()), rms(x.size()), active(x.size());
  const std::size_t count = rows * items;
  layer_norm(run.ctx, {x.data(), count, width}, gamma, beta, 1e-6f, Matrix<T>(plain.data(), count, width));
  layer_norm_modulate(run.ctx, {x.data(), count, width}, Matrix<const T>(shift.data(), items, width),
                      Matrix<const T>(scale.data(), items, width), rows, 1e-6f,
                      Matrix<T>(modulated.data(), count, width));
  layer_norm_modulate(run.ctx, {x.data(), count, width}, Matrix<const float>(wide_shift.data(), items, width),
                      Matrix<const float>(wide_scale.data(), items, width), rows, 1e-6f,
                      Matrix<T>(by_floats.data(), count, width));
  CHECK(std::memcmp(by_floats.data(), modulated.data(), modulated.size() * sizeof(T)) == 0);
  rms_norm(run.ctx, {x.data(), count, width}, gamma, 1e-6f, Activation::none, Matrix<T>(rms.data(), count, width));
  rms_norm(run.ctx, {x.data(), count, width}, gamma, 1e-6f, Activation::silu, Matrix<T>(active.data(), count, width));
  std::vector<double> want_plain, want_modulated, want_rms, want_active;
  for (std::size_t row = 0; row < count; ++row) {
    const auto s = statistics(width, [&](std::size_t i) { return at(x, row * width + i); });
    for (std::size_t i = 0; i < width; ++i) {
      const double normed = (at(x, row * width + i) - s.mean) / s.deviation;
      want_plain.push_back(normed * gamma[i] + beta[i]);
      want_modulated.push_back(normed * (1 + at(scale, row / rows * width + i)) + at(shift, row / rows * width + i));
      want_rms.push_back(at(x, row * width + i) / s.root * gamma[i]);
      want_active.push_back(want_rms.back() / (1 + std::exp(-want_rms.back())));
    }
  }
  CHECK(testing::relative_error(plain, want_plain) < testing::operation_bound<T>);
  CHECK(testing::relative_error(modulated, want_modulated) < testing::operation_bound<T>);
  CHECK(testing::relative_error(rms, want_rms) < testing::operation_bound<T>);
  CHECK(testing::relative_error(active, want_active) < testing::operation_bound<T>);
}

template <Element T>
void check_rope(testing::Random& random, std::size_t batch, std::size_t tokens, std::size_t heads, std::size_t dim,
                std::size_t heads_together = 1) {
  Run<T> run;
  const std::size_t normed = heads_together * dim;
  auto x = random.normal<T>(batch * tokens * heads * dim);
  const auto original = x;
  const auto gamma = random.normal(normed), angles = random.normal(tokens * dim / 2, 3.0f);
  std::vector<float> cosines(tokens * dim), sines(tokens * dim);
  for (std::size_t i = 0; i < cosines.size(); ++i) {
    cosines[i] = std::cos(angles[i / 2]);
    sines[i] = std::sin(angles[i / 2]);
  }
  rms_norm_rope(run.ctx, Matrix<T>(x.data(), batch * tokens, heads * dim), gamma, 1e-6f, {cosines.data(), tokens, dim},
                {sines.data(), tokens, dim});
  std::vector<double> expected;
  for (std::size_t first = 0; first < original.size(); first += normed) {
    const auto s = statistics(normed, [&](std::size_t i) { return at(original, first + i); });
    const std::size_t token = first / (heads * dim) % tokens;
    for (std::size_t i = 0; i < normed; i += 2) {
      const double even = at(original, first + i) / s.root * gamma[i];
      const double odd = at(original, first + i + 1) / s.root * gamma[i + 1];
      const double c = cosines[token * dim + i % dim], si = sines[token * dim + i % dim];
      expected.push_back(even * c - odd * si);
      expected.push_back(odd * c + even * si);
    }
  }
  // 16 bits are rounded twice here, as in the reference.
  CHECK(testing::relative_error(x, expected) < 1.5 * testing::operation_bound<T>);
}

template <Element T>
void check_groups(testing::Random& random, std::size_t batch, std::size_t side, std::size_t channels,
                  std::size_t groups) {
  Run<T> run;
  const auto x = random.normal<T>(batch * side * (side + 1) * channels);
  const auto gamma = random.normal(channels), beta = random.normal(channels);
  for (const auto activation : {Activation::none, Activation::silu}) {
    std::vector<T> y(x.size());
    group_norm(run.ctx, {x.data(), batch, side, side + 1, channels}, groups, gamma, beta, 1e-6f, activation,
               Image<T>{y.data(), batch, side, side + 1, channels});
    std::vector<double> expected(x.size());
    const std::size_t pixels = side * (side + 1), width = channels / groups;
    for (std::size_t item = 0; item < batch; ++item)
      for (std::size_t group = 0; group < groups; ++group) {
        const auto index = [&](std::size_t i) {
          return (item * pixels + i / width) * channels + group * width + i % width;
        };
        const auto s = statistics(pixels * width, [&](std::size_t i) { return at(x, index(i)); });
        for (std::size_t i = 0; i < pixels * width; ++i) {
          const std::size_t channel = index(i) % channels;
          const double normed = (at(x, index(i)) - s.mean) / s.deviation * gamma[channel] + beta[channel];
          expected[index(i)] = activation == Activation::silu ? normed / (1 + std::exp(-normed)) : normed;
        }
      }
    CHECK(testing::relative_error(y, expected) < testing::operation_bound<T>);
  }
}

}  // namespace

TEST_CASE("row norms equal plain loops, also far from zero") {
  testing::Random random(21);
  for (const float offset : {0.0f, 100.0f})
    for (const std::size_t width : {1, 2, 31, 64, 3072})
      for (const std::size_t rows : {1, 5, 33}) check_rows<float>(random, rows, width == 1 ? 2 : width, 2, offset);
  check_rows<bfloat16>(random, 7, 129, 3, 0.0f);
  check_rows<float16>(random, 7, 129, 3, 0.0f);
}

TEST_CASE("head norm and rotation equal plain loops") {
  testing::Random random(22);
  check_rope<float>(random, 1, 1, 1, 2);
  check_rope<float>(random, 2, 7, 3, 18);
  check_rope<float>(random, 1, 200, 24, 128);
  check_rope<bfloat16>(random, 2, 33, 4, 64);
}

TEST_CASE("a norm across all heads and the rotation of each equal plain loops") {
  testing::Random random(24);
  check_rope<float>(random, 1, 1, 2, 2, 2);
  check_rope<float>(random, 2, 7, 3, 18, 3);
  check_rope<float>(random, 1, 50, 12, 128, 12);
  check_rope<bfloat16>(random, 2, 33, 4, 64, 4);
}

TEST_CASE("group norm equals plain loops, with and without SiLU") {
  testing::Random random(23);
  check_groups<float>(random, 1, 1, 8, 2);
  check_groups<float>(random, 3, 5, 12, 4);
  check_groups<float>(random, 1, 33, 64, 32);
  check_groups<bfloat16>(random, 2, 9, 16, 16);
}

TEST_CASE("norms refuse extents that do not fit") {
  Run<float> run;
  std::vector<float> x(64), y(64), g(8), h(7);
  CHECK_THROWS_AS(layer_norm(run.ctx, {x.data(), 4, 8}, g, h, 1e-6f, Matrix<float>(y.data(), 4, 8)), ShapeError);
  CHECK_THROWS_AS(rms_norm(run.ctx, {x.data(), 4, 8}, h, 1e-6f, Activation::none, Matrix<float>(y.data(), 4, 8)),
                  ShapeError);
  CHECK_THROWS_AS(layer_norm_modulate(run.ctx, {x.data(), 4, 8}, Matrix<float>(g.data(), 1, 8),
                                      Matrix<float>(g.data(), 1, 8), 3, 1e-6f, Matrix<float>(y.data(), 4, 8)),
                  ShapeError);
  CHECK_THROWS_AS(rms_norm_rope(run.ctx, Matrix<float>(x.data(), 4, 8), g, 1e-6f, {x.data(), 3, 8}, {y.data(), 3, 8}),
                  ShapeError);
  CHECK_THROWS_AS(rms_norm_rope(run.ctx, Matrix<float>(x.data(), 4, 16), g, 1e-6f, {x.data(), 4, 4}, {y.data(), 4, 4}),
                  ShapeError);
  CHECK_THROWS_AS(
      group_norm(run.ctx, {x.data(), 1, 2, 4, 8}, 3, g, g, 1e-6f, Activation::none, Image<float>{y.data(), 1, 2, 4, 8}),
      ShapeError);
}
