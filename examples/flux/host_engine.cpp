// The CPU as a machine for Flux.
#include "common/host_engine.hpp"

#include "flux/pipeline.hpp"

template std::unique_ptr<ebb::examples::Machine<ebb::flux::Pipeline>> ebb::examples::host_machine<ebb::flux::Pipeline>(
    int);
