#include "ebb/host/attention.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "support/error.hpp"
#include "support/random.hpp"

using namespace ebb;

namespace {

template <Element T>
void check_attention_case(testing::Random& random, const AttentionShape& shape, AttentionMask mask, bool biased) {
  CAPTURE(shape.query_tokens);
  CAPTURE(shape.key_tokens);
  CAPTURE(shape.head_dim);
  const std::size_t width = shape.heads * shape.head_dim;
  const std::size_t stride = width + 3;  // slices of wider rows
  const auto q = random.normal<T>(shape.batch * shape.query_tokens * stride);
  const auto k = random.normal<T>(shape.batch * shape.key_tokens * stride);
  const auto v = random.normal<T>(shape.batch * shape.key_tokens * stride);
  const auto bias = random.normal(shape.heads * shape.query_tokens * shape.key_tokens);
  const float scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  std::vector<T> y(shape.batch * shape.query_tokens * width);
  Workspace workspace;
  const host::Context<T> ctx(workspace, 2);
  const Matrix<const float> bias_view =
      biased ? Matrix<const float>(bias.data(), shape.heads * shape.query_tokens, shape.key_tokens)
             : Matrix<const float>();
  attention(ctx, {q.data(), shape.batch * shape.query_tokens, width, stride},
            {k.data(), shape.batch * shape.key_tokens, width, stride},
            {v.data(), shape.batch * shape.key_tokens, width, stride}, shape, scale, mask, bias_view,
            Matrix<T>(y.data(), shape.batch * shape.query_tokens, width));
  std::vector<double> expected(y.size());
  const auto at = [&](const std::vector<T>& from, std::size_t row, std::size_t column) {
    return static_cast<double>(static_cast<float>(from[row * stride + column]));
  };
  for (std::size_t item = 0; item < shape.batch; ++item)
    for (std::size_t head = 0; head < shape.heads; ++head)
      for (std::size_t query = 0; query < shape.query_tokens; ++query) {
        const std::size_t seen =
            mask == AttentionMask::causal ? query + 1 + shape.key_tokens - shape.query_tokens : shape.key_tokens;
        std::vector<double> scores(seen);
        for (std::size_t key = 0; key < seen; ++key) {
          double sum = 0;
          for (std::size_t i = 0; i < shape.head_dim; ++i)
            sum += at(q, item * shape.query_tokens + query, head * shape.head_dim + i) *
                   at(k, item * shape.key_tokens + key, head * shape.head_dim + i);
          scores[key] = sum * scale;
          if (biased) scores[key] += bias[(head * shape.query_tokens + query) * shape.key_tokens + key];
        }
        const double largest = *std::max_element(scores.begin(), scores.end());
        double total = 0;
        for (double& score : scores) total += score = std::exp(score - largest);
        for (std::size_t i = 0; i < shape.head_dim; ++i) {
          double sum = 0;
          for (std::size_t key = 0; key < seen; ++key)
            sum += scores[key] / total * at(v, item * shape.key_tokens + key, head * shape.head_dim + i);
          expected[(item * shape.query_tokens + query) * width + head * shape.head_dim + i] = sum;
        }
      }
  CHECK(testing::relative_error(y, expected) < testing::operation_bound<T>);
}

}  // namespace

TEST_CASE("attention equals plain loops") {
  testing::Random random(31);
  const AttentionShape shapes[] = {{1, 1, 1, 1, 1},    {1, 2, 16, 7, 7},    {2, 3, 18, 33, 65}, {1, 4, 64, 130, 130},
                                   {3, 1, 8, 64, 200}, {1, 1, 512, 50, 50}, {1, 2, 128, 1, 300}};
  for (const auto& shape : shapes)
    for (const auto mask : {AttentionMask::none, AttentionMask::causal})
      for (const bool biased : {false, true}) {
        check_attention_case<float>(random, shape, mask, biased);
        check_attention_case<bfloat16>(random, shape, mask, biased);
      }
}

TEST_CASE("keys that the bias hides weigh nothing; a query that sees none is NaN") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  const std::vector<float> q(3 * 2, 1.0f), k(2 * 2, 1.0f), v{1, 2, 3, 4};
  const std::vector<float> bias{0, -infinity, -infinity, -infinity, -infinity, 0};
  std::vector<float> y(3 * 2);
  attention(ctx, {q.data(), 3, 2}, {k.data(), 2, 2}, {v.data(), 2, 2}, {1, 1, 2, 3, 2}, 1.0f, AttentionMask::none,
            {bias.data(), 3, 2}, Matrix<float>(y.data(), 3, 2));
  CHECK(std::vector<float>{y[0], y[1], y[4], y[5]} == v);
  CHECK(std::isnan(y[2]));
  CHECK(std::isnan(y[3]));
}

TEST_CASE("attention refuses extents that do not fit") {
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  std::vector<float> m(64);
  const auto run = [&](std::size_t keys, std::size_t bias_rows, AttentionMask mask) {
    attention(ctx, {m.data(), 4, 8}, {m.data(), keys, 8}, {m.data(), keys, 8}, {1, 2, 4, 4, 3}, 1.0f, mask,
              bias_rows ? Matrix<const float>(m.data(), bias_rows, 3) : Matrix<const float>(),
              Matrix<float>(m.data() + 32, 4, 8));
  };
  CHECK_NOTHROW(run(3, 8, AttentionMask::none));
  CHECK_THROWS_AS(run(4, 0, AttentionMask::none), ShapeError);
  CHECK_THROWS_AS(run(3, 4, AttentionMask::none), ShapeError);
  CHECK_THROWS_WITH_AS(run(3, 0, AttentionMask::causal), doctest::Contains("causal"), ShapeError);
}
