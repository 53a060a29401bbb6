// In place of cuda_engine.cu where the program is built without CUDA.
#include "flux/engine.hpp"

namespace ebb::flux {

bool cuda_available() { return false; }

std::unique_ptr<Machine> cuda_machine(int, std::size_t) {
  throw ConfigError("--device cuda: this program was built without CUDA; configure with -D EBB_CUDA=ON, or use host");
}

}  // namespace ebb::flux
