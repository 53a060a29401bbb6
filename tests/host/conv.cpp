#include "ebb/host/conv.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

#include "ebb/epilogue/stages.hpp"
#include "ebb/tensor/format_choice.hpp"
#include "ebb/tensor/quantize.hpp"
#include "support/error.hpp"
#include "support/random.hpp"

using namespace ebb;

namespace {

template <Element T>
void check_conv(testing::Random& random, std::size_t batch, std::size_t height, std::size_t width, std::size_t inputs,
                std::size_t outputs, std::size_t kernel, DType type, std::size_t depth = 1) {
  CAPTURE(kernel);
  CAPTURE(depth);
  CAPTURE(height);
  CAPTURE(width);
  DenseTensor filter;
  if (depth == 1)
    emplace_dense(filter, {outputs, kernel, kernel, inputs}, type);
  else
    emplace_dense(filter, {outputs, depth, kernel, kernel, inputs}, type);
  AlignedBuffer segment(filter.bytes());
  const auto source = random.normal(filter.elements());
  quantize(std::span<const float>(source), filter, segment.bytes(), "filter");
  filter.bind(segment.data());
  std::vector<float> weight(filter.elements());
  dequantize(filter, 0, std::span(weight));
  const auto x = random.normal<T>((batch + depth - 1) * height * width * inputs);
  const auto bias = random.normal(outputs);
  std::vector<T> y(batch * height * width * outputs);
  Workspace workspace;
  const host::Context<T> ctx(workspace, 2);
  const Image<T> out{y.data(), batch, height, width, outputs};
  if (depth == 1)
    conv2d(ctx, {x.data(), batch, height, width, inputs}, filter, Bias{bias.data()}, out);
  else
    conv3d(ctx, {x.data(), batch + depth - 1, height, width, inputs}, filter, Bias{bias.data()}, out);
  std::vector<double> expected;
  const auto pad = static_cast<std::ptrdiff_t>(kernel / 2);
  const auto inside = [](std::ptrdiff_t at, std::size_t size) {
    return at >= 0 && at < static_cast<std::ptrdiff_t>(size);
  };
  for (std::size_t n = 0; n < batch; ++n)
    for (std::size_t row = 0; row < height; ++row)
      for (std::size_t column = 0; column < width; ++column)
        for (std::size_t o = 0; o < outputs; ++o) {
          double sum = bias[o];
          for (std::size_t tap = 0; tap < depth * kernel; ++tap)
            for (std::size_t dx = 0; dx < kernel; ++dx) {
              const std::size_t dz = tap / kernel, dy = tap % kernel;
              const auto from_y = static_cast<std::ptrdiff_t>(row + dy) - pad;
              const auto from_x = static_cast<std::ptrdiff_t>(column + dx) - pad;
              if (!inside(from_y, height) || !inside(from_x, width)) continue;
              for (std::size_t i = 0; i < inputs; ++i)
                sum += static_cast<double>(
                           static_cast<float>(x[(((n + dz) * height + static_cast<std::size_t>(from_y)) * width +
                                                 static_cast<std::size_t>(from_x)) *
                                                    inputs +
                                                i])) *
                       weight[((o * depth * kernel + tap) * kernel + dx) * inputs + i];
            }
          expected.push_back(sum);
        }
  CHECK(testing::relative_error(y, expected) < testing::operation_bound<T>);
}

}  // namespace

TEST_CASE("convolutions over frames equal plain loops") {
  testing::Random random(42);
  check_conv<float>(random, 1, 1, 1, 1, 1, 1, DType::f32, 3);
  check_conv<float>(random, 2, 5, 7, 3, 4, 3, DType::f32, 3);
  check_conv<float>(random, 4, 6, 5, 8, 9, 1, DType::bf16, 3);
  check_conv<float>(random, 3, 9, 4, 5, 12, 3, DType::f32, 2);
  check_conv<bfloat16>(random, 2, 12, 11, 16, 8, 3, DType::bf16, 3);
}

TEST_CASE("convolutions equal plain loops") {
  testing::Random random(41);
  check_conv<float>(random, 1, 1, 1, 1, 1, 3, DType::f32);
  check_conv<float>(random, 2, 5, 7, 3, 4, 3, DType::f32);
  check_conv<float>(random, 1, 20, 13, 16, 40, 3, DType::bf16);
  check_conv<float>(random, 3, 9, 9, 8, 5, 1, DType::f16);
  check_conv<float>(random, 1, 6, 30, 4, 4, 5, DType::f32);
  check_conv<bfloat16>(random, 1, 17, 19, 8, 12, 3, DType::bf16);
}

TEST_CASE("nearest upsampling repeats pixels") {
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  std::vector<float> y(24);
  upsample_nearest(ctx, {x.data(), 1, 1, 3, 2}, Image<float>{y.data(), 1, 2, 6, 2});
  CHECK(y == std::vector<float>{1, 2, 1, 2, 3, 4, 3, 4, 5, 6, 5, 6, 1, 2, 1, 2, 3, 4, 3, 4, 5, 6, 5, 6});
  CHECK_THROWS_AS(upsample_nearest(ctx, {x.data(), 1, 1, 3, 2}, Image<float>{y.data(), 1, 2, 5, 2}), ShapeError);
}

TEST_CASE("convolutions refuse extents that do not fit") {
  Workspace workspace;
  const host::Context<float> ctx(workspace, 1);
  std::vector<float> m(256);
  DenseTensor filter;
  const auto run = [&](const Shape& shape, std::size_t outputs) {
    emplace_dense(filter, shape, DType::f32);
    conv2d(ctx, {m.data(), 1, 2, 2, 3}, filter, Identity{}, Image<float>{m.data() + 64, 1, 2, 2, outputs});
  };
  CHECK_THROWS_AS(run({4, 2, 2, 3}, 4), ShapeError);
  CHECK_THROWS_AS(run({4, 3, 3, 2}, 4), ShapeError);
  CHECK_THROWS_AS(run({4, 3, 3, 3}, 5), ShapeError);
}
