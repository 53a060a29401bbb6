// Dequantization and quantization of one weight, against a device-to-device copy of the same number of bytes.
// Weights rotate over more copies than fit the L2 cache. Prints the median of event-timed runs.
#include <cstdio>
#include <random>
#include <vector>

#include "ebb/cuda/dequantize.cuh"
#include "ebb/cuda/quantize.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/format/fp8.hpp"
#include "ebb/format/int8.hpp"
#include "ebb/format/nf4.hpp"
#include "random.cuh"
#include "timing.hpp"

namespace {

using ebb::bench::median_microseconds;
using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;

void measure(std::size_t n, std::size_t k) {
  const std::size_t elements = n * k;
  constexpr int copies = 8;
  std::vector<ebb::bfloat16> values(elements);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (auto& value : values) value = ebb::bfloat16(normal(random));
  DeviceBuffer<ebb::bfloat16> source(elements), out(elements * copies);
  source.upload(values);
  DeviceBuffer<std::uint8_t> codes(elements / 2 * copies);
  DeviceBuffer<float> scales(elements / 64 * copies);
  DeviceBuffer<unsigned long long> bad(1);
  bad.upload(std::vector{ebb::cuda::all_finite});
  const auto quantize = [&](int i) {
    check(ebb::cuda::launch_quantize<ebb::NF4>(source.data(), elements, 6u, codes.data() + i % copies * (elements / 2),
                                               scales.data() + i % copies * (elements / 64), bad.data(), nullptr));
  };
  for (int i = 0; i < copies; ++i) quantize(i);
  const auto dequantize = [&](int i) {
    ebb::cuda::BlockwiseTensor tensor;
    tensor.codes = codes.data() + i % copies * (elements / 2);
    tensor.scales = scales.data() + i % copies * (elements / 64);
    tensor.elements = elements;
    check(ebb::cuda::launch_dequantize<ebb::NF4>(tensor, out.data() + i % copies * elements, nullptr));
  };
  const double bytes = static_cast<double>(elements) * (0.5 + 4.0 / 64 + 2);
  const double t_dequantize = median_microseconds(dequantize);
  const double t_quantize = median_microseconds(quantize);
  const auto moved = static_cast<std::size_t>(bytes / 2);
  DeviceBuffer<std::byte> from(moved * copies), to(moved * copies);
  const double t_copy = median_microseconds([&](int i) {
    check(cudaMemcpyAsync(to.data() + i % copies * moved, from.data() + i % copies * moved, moved,
                          cudaMemcpyDeviceToDevice, nullptr));
  });
  std::printf(
      "%6zu x %6zu  dequantize %7.1f us (%.2f TB/s)  quantize %7.1f us (%.2f TB/s)  copy %7.1f us (%.2f TB/s)\n", n, k,
      t_dequantize, bytes / t_dequantize / 1e6, t_quantize, bytes / t_quantize / 1e6, t_copy, bytes / t_copy / 1e6);
}

/// INT8 or FP8, a scale a row.
template <class Format>
void measure_rowwise(std::size_t n, std::size_t k) {
  using Code = typename Format::Code;
  const std::size_t elements = n * k;
  constexpr std::size_t copies = 8;
  const auto source = ebb::bench::random_values<ebb::bfloat16>(elements, 1);
  const DeviceBuffer<Code> codes(elements * copies);
  const DeviceBuffer<float> scales(n);
  const DeviceBuffer<ebb::bfloat16> out(elements * copies);
  DeviceBuffer<unsigned long long> bad(1);
  bad.upload(std::vector{ebb::cuda::all_finite});
  const auto quantize = [&](int i) {
    check(ebb::cuda::launch_quantize<Format>(source.data(), n, k,
                                             codes.data() + static_cast<std::size_t>(i) % copies * elements,
                                             scales.data(), bad.data(), nullptr));
  };
  for (int i = 0; i < static_cast<int>(copies); ++i) quantize(i);
  const double us = median_microseconds([&](int i) {
    const std::size_t first = static_cast<std::size_t>(i) % copies * elements;
    check(ebb::cuda::launch_dequantize<Format>(codes.data() + first, scales.data(), n, k, out.data() + first, nullptr));
  });
  const double t_quantize = median_microseconds(quantize);
  const double bytes = static_cast<double>(elements) * 3;
  std::printf("%6zu x %6zu  dequantize %7.1f us (%.2f TB/s)  quantize %7.1f us\n", n, k, us, bytes / us / 1e6,
              t_quantize);
}

}  // namespace

int main() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, NF4, block 64, bf16\n", properties.name);
  for (const auto& [n, k] : {std::pair{3072, 3072}, {12288, 3072}, {3072, 12288}, {3072, 15360}, {13824, 5120}})
    measure(static_cast<std::size_t>(n), static_cast<std::size_t>(k));
  std::printf("INT8, bf16\n");
  measure_rowwise<ebb::INT8>(12288, 3072);
  std::printf("FP8, bf16\n");
  measure_rowwise<ebb::FP8>(12288, 3072);
}
