#pragma once

#include <concepts>
#include <cstddef>

namespace ebb {

/// Contract of repeat(ctx, count, prepare, body, done), the loop of a sampler. For each step in order:
///   prepare(step)         enqueues what differs from step to step, e.g. copies a row of a table to a fixed place
///   body()                enqueues the same work every time, with the same addresses: a backend may record it once
///   done(step, seconds)   is told that the step has run, perhaps while later ones are enqueued already; may throw to
///                         end the loop
/// What prepare and done take from the context's workspace they give back before they return, and they do not release
/// it. On return all steps have run.
template <class Prepare, class Body, class Done>
concept LoopParts =
    std::invocable<Prepare&, std::size_t> && std::invocable<Body&> && std::invocable<Done&, std::size_t, double>;

}  // namespace ebb
