#pragma once

// Without OpenMP the code below would be another one under the same names: a source that has it and one that has not,
// linked into one program, would share whichever the linker takes.
#ifndef _OPENMP
#error "ebb/host needs OpenMP in every source: link ebb::host, or compile with -fopenmp (nvcc: -Xcompiler=-fopenmp)"
#endif

#include <omp.h>

#include <cstddef>

#include "ebb/host/context.hpp"

namespace ebb::host::detail {

/// Threads for `operations` multiply-adds: starting more than one costs about as much as this many take.
template <class T>
int threads_for(const Context<T>& ctx, std::size_t operations) {
  return operations < (std::size_t{1} << 18) ? 1 : ctx.threads();
}

/// The calling thread's place among those of its parallel region.
inline std::size_t thread_number() { return static_cast<std::size_t>(omp_get_thread_num()); }

}  // namespace ebb::host::detail
