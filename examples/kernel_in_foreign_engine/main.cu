// One kernel header of ebb inside an engine that has its own memory, streams and errors: raw pointers in, a status out,
// nothing allocated, nothing thrown. Dequantizes an NF4 weight that the engine holds in bitsandbytes' layout.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <vector>

#include "ebb/cuda/dequantize.cuh"
#include "ebb/format/nf4.hpp"

namespace {

bool failed(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return false;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
  return true;
}

}  // namespace

int main() {
  constexpr std::size_t elements = 1 << 20, block = 64;
  std::vector<std::uint8_t> codes(elements / 2);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i * 37);
  const std::vector<float> scales(elements / block, 0.5f);

  std::uint8_t* device_codes = nullptr;
  float* device_scales = nullptr;
  ebb::bfloat16* out = nullptr;
  cudaStream_t stream = nullptr;
  if (failed(cudaStreamCreate(&stream), "stream") || failed(cudaMalloc(&device_codes, codes.size()), "codes") ||
      failed(cudaMalloc(&device_scales, scales.size() * sizeof(float)), "scales") ||
      failed(cudaMalloc(&out, elements * sizeof(ebb::bfloat16)), "out"))
    return 1;
  cudaMemcpyAsync(device_codes, codes.data(), codes.size(), cudaMemcpyHostToDevice, stream);
  cudaMemcpyAsync(device_scales, scales.data(), scales.size() * sizeof(float), cudaMemcpyHostToDevice, stream);

  ebb::cuda::BlockwiseTensor weight;
  weight.codes = device_codes;
  weight.scales = device_scales;
  weight.elements = elements;
  weight.block_shift = 6;  // blocks of 64
  if (failed(ebb::cuda::launch_dequantize<ebb::NF4>(weight, out, stream), "dequantize")) return 1;

  std::vector<ebb::bfloat16> values(elements);
  cudaMemcpyAsync(values.data(), out, elements * sizeof(ebb::bfloat16), cudaMemcpyDeviceToHost, stream);
  if (failed(cudaStreamSynchronize(stream), "synchronize")) return 1;
  std::printf("element 2 has code %d and value %g\n", codes[1] >> 4, static_cast<float>(values[2]));
  cudaFree(out);
  cudaFree(device_scales);
  cudaFree(device_codes);
  cudaStreamDestroy(stream);
}
