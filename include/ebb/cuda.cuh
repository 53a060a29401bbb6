#pragma once
// The CUDA kernels, for nvcc with --expt-relaxed-constexpr.

#include "ebb/cuda/check.hpp"
#include "ebb/cuda/dequantize.cuh"
#include "ebb/cuda/quantize.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/ebb.hpp"
