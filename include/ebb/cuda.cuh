#pragma once
// The CUDA kernels, for nvcc with --expt-relaxed-constexpr. The rest of the library is for the host compiler.

#include "ebb/cuda/attention.cuh"
#include "ebb/cuda/check.hpp"
#include "ebb/cuda/dequantize.cuh"
#include "ebb/cuda/elementwise.cuh"
#include "ebb/cuda/gemv.cuh"
#include "ebb/cuda/group_norm.cuh"
#include "ebb/cuda/norm.cuh"
#include "ebb/cuda/quantize.cuh"
#include "ebb/cuda/resource.hpp"
