#pragma once
// In place of cuda_engine.cuh where the program is built without CUDA.

#include <cstddef>
#include <memory>
#include <string>

#include "common/engine.hpp"
#include "ebb/core/error.hpp"

namespace ebb::examples {

template <Pipeline P>
bool cuda_available(std::string&) {
  return false;
}

template <Pipeline P>
std::unique_ptr<Machine<P>> cuda_machine(int, std::size_t) {
  throw ConfigError("--device cuda: this program was built without CUDA; configure with -D EBB_CUDA=ON, or use host");
}

}  // namespace ebb::examples
