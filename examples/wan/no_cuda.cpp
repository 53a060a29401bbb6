// In place of cuda_engine.cu where the program is built without CUDA.
#include "common/no_cuda.hpp"
#include "wan/pipeline.hpp"

template bool ebb::examples::cuda_available<ebb::wan::Pipeline>(std::string&);
template std::unique_ptr<ebb::examples::Machine<ebb::wan::Pipeline>> ebb::examples::cuda_machine<ebb::wan::Pipeline>(
    int, std::size_t);
