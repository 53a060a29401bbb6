#pragma once
// The library's only macros, and its version.

/// Marks a function that both the host and the device compiler build.
#ifdef __CUDACC__
#define EBB_HOST_DEVICE __host__ __device__
#else
#define EBB_HOST_DEVICE
#endif

namespace ebb {

inline constexpr int version_major = 0;
inline constexpr int version_minor = 1;
inline constexpr int version_patch = 0;

}  // namespace ebb
