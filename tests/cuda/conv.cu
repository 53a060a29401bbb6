#include "ebb/cuda/conv.cuh"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "ebb/cuda/resource.hpp"
#include "ebb/epilogue/stages.hpp"
#include "random.hpp"

namespace {

using ebb::Image;
using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;

struct Picture {
  std::size_t batch, height, width, inputs, outputs, kernel, depth = 1;
  std::size_t pixels() const { return batch * height * width; }
  std::size_t read_pixels() const { return (batch + depth - 1) * height * width; }
};

double as_double(auto value) { return static_cast<double>(static_cast<float>(value)); }

template <class T>
double convolved(const Picture& p, const T* x, const T* filter, std::size_t pixel, std::size_t output) {
  const std::size_t column = pixel % p.width, line = pixel / p.width % p.height, pad = p.kernel / 2;
  const std::size_t frame = pixel / (p.width * p.height);
  double sum = 0.0;
  for (std::size_t dz = 0; dz < p.depth; ++dz)
    for (std::size_t dy = 0; dy < p.kernel; ++dy)
      for (std::size_t dx = 0; dx < p.kernel; ++dx) {
        if (line + dy < pad || line + dy >= p.height + pad || column + dx < pad || column + dx >= p.width + pad)
          continue;
        const T* tap = x + (((frame + dz) * p.height + line + dy - pad) * p.width + column + dx - pad) * p.inputs;
        const T* weights = filter + (((output * p.depth + dz) * p.kernel + dy) * p.kernel + dx) * p.inputs;
        for (std::size_t i = 0; i < p.inputs; ++i) sum += as_double(tap[i]) * as_double(weights[i]);
      }
  return sum;
}

/// Every `step`-th pixel of y, with a bias and with a residual in place; `offset` elements before x and the filter.
template <class T>
void check_picture(const Picture& p, std::size_t offset, std::size_t step, unsigned seed) {
  CAPTURE(p.height);
  CAPTURE(p.width);
  CAPTURE(p.inputs);
  CAPTURE(p.outputs);
  CAPTURE(p.kernel);
  CAPTURE(p.depth);
  CAPTURE(offset);
  const auto x = random_values<T>(offset + p.read_pixels() * p.inputs, seed);
  const auto filter = random_values<T>(offset + p.outputs * p.depth * p.kernel * p.kernel * p.inputs, seed + 1);
  const auto residual = random_values<T>(p.pixels() * p.outputs, seed + 2);
  const auto bias = random_values<float>(p.outputs, seed + 3);
  const auto device_x = on_device(x), device_filter = on_device(filter), in_place = on_device(residual);
  const auto device_bias = on_device(bias);
  const auto y = poisoned<T>(residual.size());
  const auto picture = [&](T* data, std::size_t channels) {
    return Image<T>{data, p.batch, p.height, p.width, channels};
  };
  const auto launch = [&](const auto& stage, Image<T> out) {
    auto frames = picture(device_x.data() + offset, p.inputs);
    frames.batch += p.depth - 1;
    const T* taps = device_filter.data() + offset;
    if (p.depth == 1)
      check(ebb::cuda::launch_conv2d(frames, taps, p.kernel, stage, out, nullptr));
    else
      check(ebb::cuda::launch_conv3d(frames, taps, p.depth, p.kernel, stage, out, nullptr));
  };
  const auto agrees = [&](const DeviceBuffer<T>& memory, auto expected) {
    const auto found = on_host(memory);
    std::vector<T> samples;
    std::vector<double> reference;
    for (std::size_t pixel = 0; pixel < p.pixels(); pixel += step)
      for (std::size_t output = 0; output < p.outputs; ++output) {
        samples.push_back(found[pixel * p.outputs + output]);
        reference.push_back(
            expected(pixel, output, convolved(p, x.data() + offset, filter.data() + offset, pixel, output)));
      }
    CHECK(relative_error(samples, reference) <= largest_error<T>);
  };
  const ebb::Bias stage{device_bias.data()};
  launch(stage, picture(y.data(), p.outputs));
  agrees(y, [&](std::size_t, std::size_t output, double sum) { return sum + as_double(bias[output]); });
  const auto first = on_host(y);
  launch(stage, picture(y.data(), p.outputs));
  CHECK(std::memcmp(on_host(y).data(), first.data(), first.size() * sizeof(T)) == 0);

  launch(ebb::chain(stage, ebb::Residual{picture(in_place.data(), p.outputs).pixels()}),
         picture(in_place.data(), p.outputs));
  agrees(in_place, [&](std::size_t pixel, std::size_t output, double sum) {
    return sum + as_double(bias[output]) + as_double(residual[pixel * p.outputs + output]);
  });
}

}  // namespace

TEST_CASE_TEMPLATE("conv2d agrees with double precision", T, float, ebb::bfloat16, ebb::float16) {
  unsigned seed = 1;
  for (const Picture& p : {Picture{1, 1, 1, 1, 1, 1}, Picture{1, 1, 1, 8, 3, 3}, Picture{2, 5, 7, 5, 6, 3},
                           Picture{1, 13, 9, 16, 24, 3}, Picture{2, 6, 5, 64, 3, 3}, Picture{1, 7, 11, 24, 70, 1},
                           Picture{1, 9, 6, 3, 10, 3}, Picture{3, 4, 5, 8, 8, 5}, Picture{1, 2, 3, 40, 9, 7}})
    for (const std::size_t offset : {0, 1}) check_picture<T>(p, offset, 1, seed += 10);
}

TEST_CASE_TEMPLATE("conv2d agrees with double precision where y fills the device", T, float, ebb::bfloat16,
                   ebb::float16) {
  check_picture<T>({1, 150, 151, 40, 200, 3}, 0, 397, 1000);
  check_picture<T>({2, 77, 99, 72, 256, 1}, 0, 397, 2000);
  check_picture<T>({1, 90, 91, 5, 320, 3}, 0, 397, 3000);
  check_picture<T>({4, 60, 52, 32, 96, 3, 3}, 0, 397, 4000);
}

TEST_CASE_TEMPLATE("conv3d agrees with double precision", T, float, ebb::bfloat16, ebb::float16) {
  unsigned seed = 5000;
  for (const Picture& p : {Picture{1, 1, 1, 1, 1, 1, 3}, Picture{1, 5, 7, 8, 6, 3, 3}, Picture{4, 6, 5, 16, 24, 3, 3},
                           Picture{2, 3, 4, 5, 7, 3, 3}, Picture{3, 9, 8, 64, 32, 1, 3}, Picture{2, 4, 5, 8, 9, 5, 2},
                           Picture{1, 2, 3, 24, 70, 3, 4}})
    for (const std::size_t offset : {0, 1}) check_picture<T>(p, offset, 1, seed += 10);
}

TEST_CASE("conv2d without inputs is the epilogue of zero") {
  const auto bias = random_values<float>(6, 1);
  const auto device_bias = on_device(bias);
  const auto y = poisoned<float>(12 * 6);
  check(ebb::cuda::launch_conv2d(Image<const float>{nullptr, 1, 3, 4, 0}, static_cast<const float*>(nullptr), 3,
                                 ebb::Bias{device_bias.data()}, Image<float>{y.data(), 1, 3, 4, 6}, nullptr));
  std::vector<double> expected;
  for (std::size_t i = 0; i < 12 * 6; ++i) expected.push_back(static_cast<double>(bias[i % 6]));
  CHECK(relative_error(on_host(y), expected) == 0.0);
}

TEST_CASE("conv2d does nothing without pixels and refuses what does not fit together") {
  const DeviceBuffer<float> memory(64);
  const auto launch = [&](Image<float> x, std::size_t kernel, Image<float> y) {
    return ebb::cuda::launch_conv2d(x, static_cast<const float*>(memory.data()), kernel, ebb::Identity{}, y, nullptr);
  };
  const Image<float> x{memory.data(), 1, 2, 2, 1}, none{memory.data(), 0, 2, 2, 1}, wide{memory.data(), 1, 1, 40000, 1};
  CHECK(launch(none, 3, none) == cudaSuccess);
  CHECK(launch(x, 2, x) == cudaErrorInvalidValue);
  CHECK(launch(x, 3, none) == cudaErrorInvalidValue);
  CHECK(ebb::cuda::launch_conv3d(x, static_cast<const float*>(memory.data()), 2, 1, ebb::Identity{}, x, nullptr) ==
        cudaErrorInvalidValue);
  CHECK(launch(wide, 3, wide) == cudaErrorInvalidValue);
}
