#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "ebb/format/blockwise.hpp"

#ifdef __FAST_MATH__
#error "ebb's kernels reproduce IEEE arithmetic bit for bit: do not compile them with --use_fast_math"
#endif

namespace ebb::cuda {

/// What a kernel reads of a 4-bit tensor in bitsandbytes' layout; device pointers into its segment. No layout of our
/// own is made at load: products of few rows are as fast in this one (see gemv.cuh), those of many dequantize first,
/// and files, host and device share the bytes.
struct BlockwiseTensor {
  const std::uint8_t* codes = nullptr;  // two elements a byte, first element in the high nibble
  std::size_t elements = 0;
  unsigned block_shift = 6;  // log2 of the block size
  DoubleQuantization nested = DoubleQuantization::off;
  const float* scales = nullptr;              // one a block, without double quantization
  const std::uint8_t* scale_codes = nullptr;  // one a block, with it, and the three below
  const float* nested_map = nullptr;          // [256]
  const float* nested_scales = nullptr;       // one each 256 blocks
  const float* nested_mean = nullptr;         // one number
};

/// The parts of a bound tensor. `Tensor` is a QuantizedTensor of a block format.
template <class Tensor>
BlockwiseTensor blockwise_tensor(const Tensor& tensor) {
  BlockwiseTensor parts;
  parts.codes = tensor.codes().data();
  parts.elements = tensor.elements();
  parts.block_shift = static_cast<unsigned>(std::countr_zero(tensor.options().block_size));
  parts.nested = tensor.options().nested;
  if (parts.nested == DoubleQuantization::off) {
    parts.scales = tensor.scales().data();
  } else {
    parts.scale_codes = tensor.scale_codes().data();
    parts.nested_map = tensor.nested_map().data();
    parts.nested_scales = tensor.nested_scales().data();
    parts.nested_mean = tensor.nested_offset();
  }
  return parts;
}

/// float32 scale of one block; under double quantization map * scale + mean, each operation rounded.
template <DoubleQuantization nested>
__device__ inline float block_scale(const BlockwiseTensor& tensor, std::size_t block) {
  if constexpr (nested == DoubleQuantization::off) return __ldg(tensor.scales + block);
  const float value = __ldg(tensor.nested_map + __ldg(tensor.scale_codes + block));
  return __fadd_rn(__fmul_rn(value, __ldg(tensor.nested_scales + block / nested_block_size)),
                   __ldg(tensor.nested_mean));
}

}  // namespace ebb::cuda
