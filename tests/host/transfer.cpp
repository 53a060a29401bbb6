#include "ebb/host/transfer.hpp"

#include <doctest/doctest.h>

#include <span>
#include <vector>

using namespace ebb;

TEST_CASE("clear zeroes what it is given, nothing besides") {
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  std::vector<bfloat16> values(6, bfloat16(2.5f));
  clear(ctx, Matrix<bfloat16>(values.data(), 2, 3).columns_from(1, 1));
  std::vector<float> found;
  for (const bfloat16 value : values) found.push_back(static_cast<float>(value));
  CHECK(found == std::vector<float>{2.5f, 0, 2.5f, 2.5f, 0, 2.5f});
}

TEST_CASE("copy keeps the strides of both sides") {
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  const std::vector<float> from{1, 2, 3, 4, 5, 6};
  std::vector<float> to(4, 9.0f);
  copy(ctx, Matrix<const float>(from.data(), 2, 3).columns_from(1, 1),
       Matrix<float>(to.data(), 2, 2).columns_from(0, 1));
  CHECK(to == std::vector<float>{2, 9, 5, 9});
  CHECK_THROWS_AS(copy(ctx, Matrix<const float>(from.data(), 2, 3), Matrix<float>(to.data(), 2, 2)), ShapeError);
}
