#pragma once

namespace ebb {

/// How finely a model is cut into the units that move: not at all, by leaf module (one linear, one norm), by block
/// (one transformer layer), or as a whole component.
enum class Level { none, leaf, block, model };

}  // namespace ebb
