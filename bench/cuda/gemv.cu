// y = x weight^T for a few tokens with an NF4 weight (block 64): microseconds by replay of a CUDA graph over rotating
// weights, so that neither launches nor the L2 cache count, and the rate of the packed bytes. Peer: peer.py linear.
#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "ebb/cuda/gemv.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/epilogue/stages.hpp"
#include "ebb/format/nf4.hpp"

namespace {

using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;

/// Microseconds of one of `count` calls of `run`, which enqueues them all.
template <class Run>
double median_us(cudaStream_t stream, int count, Run run) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  run();
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < 35; ++i) {
    check(cudaEventRecord(begin, stream));
    check(cudaGraphLaunch(executable, stream));
    check(cudaEventRecord(end, stream));
    check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 10) times.push_back(ms * 1000 / static_cast<float>(count));
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void measure(cudaStream_t stream, std::size_t n, std::size_t k, ebb::DoubleQuantization nested) {
  const std::size_t elements = n * k;
  const std::size_t blocks = elements / 64;
  const auto copies = static_cast<int>(std::max<std::size_t>(4, 200'000'000 / (elements / 2)));
  std::mt19937 random(1);
  std::vector<std::uint32_t> codes(elements / 8);
  for (auto& word : codes) word = static_cast<std::uint32_t>(random());
  std::vector<float> scales(blocks, 0.01f), map(256, 0.5f);
  const auto upload = [](const auto& values) {
    DeviceBuffer<typename std::remove_cvref_t<decltype(values)>::value_type> buffer(values.size());
    buffer.upload(values);
    return buffer;
  };
  std::vector<DeviceBuffer<std::uint32_t>> device_codes;
  std::vector<DeviceBuffer<float>> device_scales;
  std::vector<DeviceBuffer<std::uint8_t>> device_scale_codes;
  for (int i = 0; i < copies; ++i) {
    device_codes.push_back(upload(codes));
    device_scales.push_back(upload(scales));
    device_scale_codes.push_back(upload(std::vector<std::uint8_t>(blocks, 7)));
  }
  const auto device_map = upload(map);
  const DeviceBuffer<float> bias(n);
  check(cudaMemset(bias.data(), 0, n * sizeof(float)));
  const double bytes = static_cast<double>(elements) / 2 +
                       static_cast<double>(blocks) * (nested == ebb::DoubleQuantization::off ? 4.0 : 1.0 + 4.0 / 256);
  std::printf("%6zu x %6zu  nf4%s, us (TB/s):", n, k, nested == ebb::DoubleQuantization::off ? "   " : " dq");
  for (const std::size_t m : {1, 4, 8, 16}) {
    std::vector<ebb::bfloat16> values(m * k);
    for (auto& value : values) value = ebb::bfloat16(static_cast<float>(random() % 2001) * 1e-3f - 1.0f);
    const auto x = upload(values);
    const DeviceBuffer<ebb::bfloat16> y(m * n);
    const double us = median_us(stream, copies, [&] {
      for (std::size_t i = 0; i < static_cast<std::size_t>(copies); ++i) {
        ebb::cuda::BlockwiseTensor tensor;
        tensor.codes = reinterpret_cast<const std::uint8_t*>(device_codes[i].data());
        tensor.elements = elements;
        tensor.nested = nested;
        tensor.scales = device_scales[i].data();
        tensor.scale_codes = device_scale_codes[i].data();
        tensor.nested_map = device_map.data();
        tensor.nested_scales = device_scales[i].data();
        tensor.nested_mean = device_map.data();
        check(ebb::cuda::launch_gemv<ebb::NF4>(ebb::Matrix<const ebb::bfloat16>(x.data(), m, k), tensor,
                                               ebb::Bias{bias.data()}, ebb::Matrix<ebb::bfloat16>(y.data(), m, n),
                                               stream));
      }
    });
    std::printf("  M=%zu %6.2f (%.2f)", m, us, bytes / us * 1e-6);
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream = nullptr;
  check(cudaStreamCreate(&stream));
  constexpr std::size_t moved = std::size_t{1} << 30;
  const DeviceBuffer<std::byte> from(moved), to(moved);
  const double copy_us = median_us(stream, 4, [&] {
    for (int i = 0; i < 4; ++i) check(cudaMemcpyAsync(to.data(), from.data(), moved, cudaMemcpyDeviceToDevice, stream));
  });
  std::printf("%s, bf16; copy %.2f TB/s (read and written)\n", properties.name, 2.0 * moved / copy_us * 1e-6);
  for (const auto& [n, k] : {std::pair{3072, 3072}, {12288, 3072}, {3072, 12288}, {18432, 3072}, {8192, 8192}})
    measure(stream, static_cast<std::size_t>(n), static_cast<std::size_t>(k), ebb::DoubleQuantization::off);
  measure(stream, 18432, 3072, ebb::DoubleQuantization::on);
  check(cudaStreamDestroy(stream));
}
