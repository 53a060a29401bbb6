// A GPU as a machine for Flux.
#include "common/cuda_engine.cuh"
#include "flux/pipeline.hpp"

template bool ebb::examples::cuda_available<ebb::flux::Pipeline>(std::string&);
template std::unique_ptr<ebb::examples::Machine<ebb::flux::Pipeline>> ebb::examples::cuda_machine<ebb::flux::Pipeline>(
    int, std::size_t);
