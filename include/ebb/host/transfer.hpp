#pragma once

#include <algorithm>
#include <span>
#include <type_traits>

#include "ebb/core/dtype.hpp"
#include "ebb/host/context.hpp"
#include "ebb/ops/transfer.hpp"

namespace ebb::host {

/// See ops/transfer.hpp.
template <Element T, class U>
void copy(const Context<T>&, std::type_identity_t<Matrix<const U>> from, Matrix<U> to) {
  check_copy(from, to);
  for (std::size_t row = 0; row < from.rows; ++row) std::copy_n(from.row(row), from.columns, to.row(row));
}

/// See ops/transfer.hpp.
template <Element T, class U>
void clear(const Context<T>&, Matrix<U> to) {
  for (std::size_t row = 0; row < to.rows; ++row) std::fill_n(to.row(row), to.columns, U{});
}

/// See ops/transfer.hpp.
template <Element T, class U>
void upload(const Context<T>&, std::type_identity_t<std::span<const U>> from, std::span<U> to) {
  check_transfer(from.size(), to.size());
  std::copy(from.begin(), from.end(), to.begin());
}

/// See ops/transfer.hpp.
template <Element T, class U>
void download(const Context<T>&, std::type_identity_t<std::span<const U>> from, std::span<U> to) {
  check_transfer(from.size(), to.size());
  std::copy(from.begin(), from.end(), to.begin());
}

}  // namespace ebb::host
