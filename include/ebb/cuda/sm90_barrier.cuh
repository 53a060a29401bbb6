#pragma once

#include <cstdint>

namespace ebb::cuda::sm90 {

// Transaction barriers (mbarrier) by shared-memory address. A barrier's phases alternate between parity 0 and 1.

__device__ inline void barrier_init(std::uint32_t barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

/// Makes initialized barriers visible to the copy engine; a __syncthreads makes them visible to the block.
__device__ inline void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// Arrives, and holds the phase open until `bytes` more have been copied.
__device__ inline void barrier_expect(std::uint32_t barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ inline void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Returns once the phase of this parity has completed.
__device__ inline void barrier_wait(std::uint32_t barrier, unsigned parity) {
  std::uint32_t done;
  do {
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  } while (!done);
}

/// Orders this thread's shared-memory accesses before those that the copy engine or the tensor cores make later.
__device__ inline void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The sixteen named barriers of a thread block; 0 is __syncthreads.

__device__ inline void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Where use number `count` of a ring of buffers falls: its buffer, and the parity of its barriers' phase.
template <unsigned stages>
struct Turn {
  unsigned stage;
  unsigned parity;
  __device__ explicit Turn(unsigned count) : stage(count % stages), parity(count / stages & 1u) {}
};

}  // namespace ebb::cuda::sm90
