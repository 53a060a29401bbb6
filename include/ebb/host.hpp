#pragma once
// The CPU backend: ebb.hpp and the operations in Eigen. Its first product turns off the threads of Eigen itself, for
// the whole process (Eigen::setNbThreads(1)): contexts bring their own.
//
// All sources of one program that include headers of host/ are compiled with equal flags: OpenMP, which ebb::host links
// and without which headers with parallel loops are an error, and the same -march and Eigen macros. The kernels take
// the vector instructions that the compiler may use, and the linker keeps one version of each.

#include "ebb/ebb.hpp"
#include "ebb/host/attention.hpp"
#include "ebb/host/context.hpp"
#include "ebb/host/conv.hpp"
#include "ebb/host/elementwise.hpp"
#include "ebb/host/linear.hpp"
#include "ebb/host/loop.hpp"
#include "ebb/host/norm.hpp"
#include "ebb/host/quantize.hpp"
#include "ebb/host/softmax.hpp"
#include "ebb/host/stream.hpp"
#include "ebb/host/transfer.hpp"
