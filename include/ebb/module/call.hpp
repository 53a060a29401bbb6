#pragma once

#include <utility>

namespace ebb {

/// Runs `module.forward(ctx, arguments...)`: the one place where offload happens. `ctx.enter(module)` makes the
/// compute stream wait until the module's weights have arrived and starts the transfer of what comes next.
template <class Context, class Module, class... Arguments>
decltype(auto) call(Context& ctx, const Module& module, Arguments&&... arguments) {
  [[maybe_unused]] const auto lease = ctx.enter(module);
  return module.forward(ctx, std::forward<Arguments>(arguments)...);
}

}  // namespace ebb
