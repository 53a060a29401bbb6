#pragma once

#include <chrono>
#include <cstddef>

#include "ebb/core/dtype.hpp"
#include "ebb/host/context.hpp"
#include "ebb/ops/loop.hpp"

namespace ebb::host {

/// See ops/loop.hpp.
template <Element T, class Prepare, class Body, class Done>
  requires LoopParts<Prepare, Body, Done>
void repeat(const Context<T>&, std::size_t count, Prepare prepare, Body body, Done done) {
  for (std::size_t step = 0; step < count; ++step) {
    const auto start = std::chrono::steady_clock::now();
    prepare(step);
    body();
    done(step, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
}

}  // namespace ebb::host
