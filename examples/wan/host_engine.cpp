// The CPU as a machine for Wan.
#include "common/host_engine.hpp"

#include "wan/pipeline.hpp"

template std::unique_ptr<ebb::examples::Machine<ebb::wan::Pipeline>> ebb::examples::host_machine<ebb::wan::Pipeline>(
    int);
