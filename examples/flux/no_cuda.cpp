// In place of cuda_engine.cu where the program is built without CUDA.
#include "common/no_cuda.hpp"
#include "flux/pipeline.hpp"

template bool ebb::examples::cuda_available<ebb::flux::Pipeline>(std::string&);
template std::unique_ptr<ebb::examples::Machine<ebb::flux::Pipeline>> ebb::examples::cuda_machine<ebb::flux::Pipeline>(
    int, std::size_t);
