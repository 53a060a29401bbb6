// README.md shows what follows.
#include "ebb/cuda/dequantize.cuh"
#include "ebb/format/nf4.hpp"

cudaError_t dequantize(const std::uint8_t* codes, const float* scales, std::size_t elements, ebb::bfloat16* out,
                       cudaStream_t stream) {
  ebb::cuda::BlockwiseTensor weight;  // device pointers, as bitsandbytes lays a weight out
  weight.codes = codes;
  weight.scales = scales;
  weight.elements = elements;
  weight.block_shift = 6;  // blocks of 64
  return ebb::cuda::launch_dequantize<ebb::NF4>(weight, out, stream);
}
