// Row norms at the shapes of FLUX.1 (1024 x 1024) and Wan 2.1 (480 x 832, 81 frames) in bf16: microseconds, and the
// rate of the bytes read and written beside that of a copy. Each call takes the next of several buffers, more than the
// L2 cache holds.
#include <algorithm>
#include <cstdio>

#include "ebb/cuda/norm.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/epilogue/stages.hpp"
#include "timing.hpp"

namespace {

using ebb::bfloat16;
using ebb::Matrix;
using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;

/// `launch(x, y)` on [rows, columns], out of place.
template <class Launch>
void measure(const char* name, double copy_rate, std::size_t rows, std::size_t columns, Launch launch) {
  const std::size_t elements = rows * columns;
  const std::size_t copies = std::max<std::size_t>(2, 200'000'000 / (4 * elements));
  const DeviceBuffer<bfloat16> x(elements * copies), y(elements * copies);
  check(cudaMemset(x.data(), 0x3c, elements * copies * sizeof(bfloat16)));
  const double us = ebb::bench::median_microseconds([&](int i) {
    const std::size_t first = static_cast<std::size_t>(i) % copies * elements;
    check(launch(Matrix<bfloat16>(x.data() + first, rows, columns), Matrix<bfloat16>(y.data() + first, rows, columns)));
  });
  const double rate = 4.0 * static_cast<double>(elements) / us;
  std::printf("%-34s %8zu x %5zu %9.1f us %6.2f TB/s %4.0f %%\n", name, rows, columns, us, rate * 1e-6,
              100 * rate / copy_rate);
  std::fflush(stdout);
}

}  // namespace

int main() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0));
  const double copy_rate = ebb::bench::copy_rate();
  std::printf("%s, bf16; copy %.2f TB/s (read and written)\n", properties.name, copy_rate * 1e-6);
  constexpr float epsilon = 1e-6f;
  constexpr std::size_t widest = 5120, tokens = 32760, head = 128;
  const DeviceBuffer<float> gamma(widest), modulation(2 * widest), tables(2 * tokens * head);
  check(cudaMemset(gamma.data(), 0, widest * sizeof(float)));
  check(cudaMemset(modulation.data(), 0, 2 * widest * sizeof(float)));
  check(cudaMemset(tables.data(), 0, 2 * tokens * head * sizeof(float)));

  // Wan's decoder: a chunk of one frame, and of the chunk before the last upsampling.
  for (const auto& [rows, columns] : {std::pair{480 * 832, 96}, {4 * 240 * 416, 192}, {2 * 120 * 208, 384}})
    measure("rms_norm, SiLU", copy_rate, static_cast<std::size_t>(rows), static_cast<std::size_t>(columns),
            [&](const Matrix<bfloat16>& x, const Matrix<bfloat16>& y) {
              return ebb::cuda::launch_rms_norm(x, gamma.data(), epsilon, ebb::Silu{}, y, nullptr);
            });
  for (const auto& [rows, columns] : {std::pair{4608, 3072}, {32760, 5120}}) {
    const auto width = static_cast<std::size_t>(columns), count = static_cast<std::size_t>(rows);
    measure("layer_norm_modulate, float32", copy_rate, count, width,
            [&](const Matrix<bfloat16>& x, const Matrix<bfloat16>& y) {
              const Matrix<const float> shift(modulation.data(), 1, width), scale(modulation.data() + width, 1, width);
              return ebb::cuda::launch_layer_norm_modulate(x, shift, scale, count, epsilon, y, nullptr);
            });
    // FLUX.1 normalizes each head, Wan all heads together; in place.
    const std::size_t together = columns == 3072 ? head : width;
    measure("rms_norm_rope", copy_rate, count, width, [&](const Matrix<bfloat16>& x, const Matrix<bfloat16>&) {
      const Matrix<const float> cosines(tables.data(), count, head), sines(tables.data() + count * head, count, head);
      return ebb::cuda::launch_rms_norm_rope(x, gamma.data(), together, epsilon, cosines, sines, nullptr);
    });
  }
}
