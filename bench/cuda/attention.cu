// Attention of the models' shapes: the sm_90 kernel, the portable one, and where asked the plain one. Warm-up of half a
// second, then the median of event-timed batches. Peer in the same run: bench/cuda/peer.py.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "ebb/cuda/attention.cuh"
#include "ebb/cuda/resource.hpp"

namespace {

using ebb::cuda::check;
using ebb::cuda::DeviceBuffer;
using Arguments = ebb::cuda::AttentionArguments<ebb::bfloat16>;

/// Milliseconds a launch.
template <class Run>
double median_ms(int batch, Run run) {
  const auto begin_warm = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin_warm < std::chrono::milliseconds(500)) {
    run();
    check(cudaDeviceSynchronize());
  }
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < 15; ++i) {
    check(cudaEventRecord(begin, nullptr));
    for (int j = 0; j < batch; ++j) run();
    check(cudaEventRecord(end, nullptr));
    check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end));
    times.push_back(ms / static_cast<float>(batch));
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void measure(const char* name, const ebb::AttentionShape& shape, bool portable, bool bias = false) {
  const std::size_t width = shape.heads * shape.head_dim;
  const std::size_t queries = shape.batch * shape.query_tokens;
  const std::size_t keys = shape.batch * shape.key_tokens;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto random_buffer = [&](std::size_t count) {
    std::vector<ebb::bfloat16> values(count);
    for (std::size_t i = 0; i < std::min(count, std::size_t{1} << 20); ++i) values[i] = ebb::bfloat16(normal(random));
    for (std::size_t i = std::size_t{1} << 20; i < count; ++i) values[i] = values[i * 7919 % (std::size_t{1} << 20)];
    DeviceBuffer<ebb::bfloat16> buffer(count);
    buffer.upload(values);
    return buffer;
  };
  const auto q = random_buffer(queries * width), k = random_buffer(keys * width), v = random_buffer(keys * width);
  const DeviceBuffer<ebb::bfloat16> y(queries * width);
  const DeviceBuffer<float> offsets(bias ? shape.heads * shape.query_tokens * shape.key_tokens : 1);
  check(cudaMemset(offsets.data(), 0, offsets.size() * sizeof(float)));
  int multiprocessors = 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  const auto bytes = ebb::cuda::sm90_attention_workspace(multiprocessors);
  const DeviceBuffer<std::byte> scratch(bytes.scratch);
  const DeviceBuffer<unsigned> flags(bytes.flags / sizeof(unsigned));
  check(cudaMemset(flags.data(), 0, bytes.flags));
  Arguments a;
  a.query = q.data();
  a.key = k.data();
  a.value = v.data();
  a.output = y.data();
  a.query_stride = a.key_stride = a.value_stride = a.output_stride = width;
  a.shape = shape;
  a.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  a.bias = bias ? offsets.data() : nullptr;
  a.scratch = scratch.data();
  a.flags = flags.data();
  const double flop = 4.0 * static_cast<double>(queries) * static_cast<double>(shape.key_tokens * width);
  const int batch = std::max(1, static_cast<int>(1e13 / flop));
  const auto print = [&](const char* kernel, double ms) {
    std::printf("%-22s %-9s %9.4f ms %6.0f TFLOP/s\n", name, kernel, ms, flop / ms * 1e-9);
    std::fflush(stdout);
  };
  if (ebb::cuda::fits_sm90_attention(a))
    print("sm90", median_ms(batch, [&] { check(ebb::cuda::launch_sm90_attention(a, nullptr)); }));
  if (portable) print("portable", median_ms(batch, [&] { check(ebb::cuda::launch_portable_attention(a, nullptr)); }));
}

}  // namespace

int main() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, bf16\n", properties.name);
  measure("Flux 24 x 4608", {1, 24, 128, 4608, 4608}, true);
  measure("Wan 40 x 32760", {1, 40, 128, 32760, 32760}, false);
  measure("Wan cross 32760 x 512", {1, 40, 128, 32760, 512}, true);
  measure("T5 64 x 512 bias", {1, 64, 64, 512, 512}, true, true);
}
