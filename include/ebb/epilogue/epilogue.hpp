#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include "ebb/core/config.hpp"

namespace ebb {

/// One step that each value of a result goes through on its way to memory, still in float32: a trivially copyable
/// value with `float operator()(float value, std::size_t row, std::size_t column) const`, callable on the device too.
/// A stage may read the element of the target that it is about to replace (in-place residuals), no other one.
template <class Stage>
concept Epilogue = std::is_trivially_copyable_v<Stage> && requires(const Stage& stage, float value, std::size_t at) {
  { stage(value, at, at) } -> std::same_as<float>;
};

/// Leaves the value as it is.
struct Identity {
  EBB_HOST_DEVICE float operator()(float value, std::size_t, std::size_t) const { return value; }
};
static_assert(Epilogue<Identity>);

/// Stages that run one after another.
template <Epilogue First, Epilogue Rest>
struct Chain {
  First first;
  Rest rest;
  EBB_HOST_DEVICE float operator()(float value, std::size_t row, std::size_t column) const {
    return rest(first(value, row, column), row, column);
  }
};

/// `chain(a, b, c)` applies a, then b, then c; `chain()` leaves values as they are.
EBB_HOST_DEVICE constexpr Identity chain() { return {}; }
template <Epilogue Only>
EBB_HOST_DEVICE constexpr Only chain(Only only) {
  return only;
}
template <Epilogue First, Epilogue... Rest>
EBB_HOST_DEVICE constexpr auto chain(First first, Rest... rest) {
  const auto tail = chain(rest...);
  return Chain<First, std::remove_const_t<decltype(tail)>>{first, tail};
}

}  // namespace ebb
