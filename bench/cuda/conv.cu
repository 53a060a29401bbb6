// Convolutions of FLUX.1's decoder (1024 x 1024) and of Wan 2.1's (480 x 832, causal, one frame behind two of history),
// in bf16 with a bias: microseconds and TFLOP/s.
#include <cstddef>
#include <cstdio>

#include "ebb/cuda/conv.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/epilogue/stages.hpp"
#include "random.cuh"
#include "timing.hpp"

namespace {

using ebb::bfloat16;
using ebb::Image;
using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;

struct Shape {
  const char* name;
  std::size_t depth, kernel, frames, height, width, inputs, outputs;
};

void measure(const Shape& s) {
  const std::size_t pixels = s.height * s.width;
  const auto x = ebb::bench::random_values<bfloat16>((s.frames + s.depth - 1) * pixels * s.inputs, 1);
  const auto filter = ebb::bench::random_values<bfloat16>(s.outputs * s.depth * s.kernel * s.kernel * s.inputs, 2);
  const auto bias = ebb::bench::random_values<float>(s.outputs, 3);
  const DeviceBuffer<bfloat16> y(s.frames * pixels * s.outputs);
  const double us = ebb::bench::median_microseconds([&](int) {
    check(ebb::cuda::launch_conv3d(Image<const bfloat16>{x.data(), s.frames + s.depth - 1, s.height, s.width, s.inputs},
                                   filter.data(), s.depth, s.kernel, ebb::Bias{bias.data()},
                                   Image<bfloat16>{y.data(), s.frames, s.height, s.width, s.outputs}, nullptr));
  });
  const double flops = 2.0 * static_cast<double>(s.frames * pixels * s.outputs) *
                       static_cast<double>(s.depth * s.kernel * s.kernel * s.inputs);
  std::printf("%-5s %zu x %zu x %zu, %zu of %4zu x %4zu, %4zu -> %4zu: %9.1f us %6.0f TFLOP/s\n", s.name, s.depth,
              s.kernel, s.kernel, s.frames, s.height, s.width, s.inputs, s.outputs, us, flops / us * 1e-6);
  std::fflush(stdout);
}

}  // namespace

int main() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, bf16\n", properties.name);
  for (const Shape& shape : {Shape{"flux", 1, 3, 1, 128, 128, 512, 512},
                             {"flux", 1, 3, 1, 512, 512, 512, 256},
                             {"flux", 1, 3, 1, 1024, 1024, 128, 128},
                             {"flux", 1, 3, 1, 1024, 1024, 128, 3},
                             {"wan", 3, 3, 1, 60, 104, 384, 384},
                             {"wan", 3, 3, 2, 120, 208, 384, 384},
                             {"wan", 3, 3, 1, 240, 416, 192, 192},
                             {"wan", 3, 3, 1, 480, 832, 96, 96},
                             {"wan", 1, 3, 1, 480, 832, 192, 96},
                             {"wan", 3, 3, 1, 480, 832, 96, 3}})
    measure(shape);
}
