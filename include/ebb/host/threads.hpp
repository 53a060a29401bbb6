#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include <cstddef>

#include "ebb/host/context.hpp"

namespace ebb::host::detail {

/// Threads for `operations` multiply-adds: starting more than one costs about as much as this many take.
template <class T>
int threads_for(const Context<T>& ctx, std::size_t operations) {
  return operations < (std::size_t{1} << 18) ? 1 : ctx.threads();
}

/// The calling thread's place among those of its parallel region.
inline std::size_t thread_number() {
#ifdef _OPENMP
  return static_cast<std::size_t>(omp_get_thread_num());
#else
  return 0;
#endif
}

}  // namespace ebb::host::detail
