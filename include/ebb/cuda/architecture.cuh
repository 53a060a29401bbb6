#pragma once

namespace ebb::cuda::detail {

/// The compute capability that device code is being compiled for, 90 for 9.0, where limits of a kernel differ between
/// GPUs. The host sees 0: nothing that it computes with may depend on this.
#ifdef __CUDA_ARCH__
inline constexpr int compiled_capability = __CUDA_ARCH__ / 10;
#else
inline constexpr int compiled_capability = 0;
#endif

/// The blocks that each multiprocessor must have room for, where ptxas may decide: 0 says nothing, but for 12.0 ptxas
/// spills to make room for another one unless it is told that one is enough.
inline constexpr int any_blocks = compiled_capability >= 120 ? 1 : 0;

}  // namespace ebb::cuda::detail
