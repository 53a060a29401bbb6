#pragma once
// The CUDA backend, for nvcc with --expt-relaxed-constexpr: the kernels, and the operations on a context that use them.
// The rest of the library is for the host compiler too.

#include "ebb/cuda/attention.cuh"
#include "ebb/cuda/blas.hpp"
#include "ebb/cuda/check.hpp"
#include "ebb/cuda/context.hpp"
#include "ebb/cuda/conv.cuh"
#include "ebb/cuda/dequantize.cuh"
#include "ebb/cuda/elementwise.cuh"
#include "ebb/cuda/gemm.cuh"
#include "ebb/cuda/gemv.cuh"
#include "ebb/cuda/group_norm.cuh"
#include "ebb/cuda/int8_linear.cuh"
#include "ebb/cuda/linear.cuh"
#include "ebb/cuda/loop.hpp"
#include "ebb/cuda/norm.cuh"
#include "ebb/cuda/ops.cuh"
#include "ebb/cuda/quantize.cuh"
#include "ebb/cuda/resource.hpp"
#include "ebb/cuda/softmax.cuh"
#include "ebb/cuda/stream.hpp"
#include "ebb/cuda/trace.hpp"
