#pragma once

#include <compare>
#include <cstddef>
#include <string>
#include <vector>

namespace ebb {

namespace detail {
template <class Module>
inline constexpr char type_tag = 0;
}  // namespace detail

/// Identity of a module object. A struct and its first member share an address, so the type is part of it.
struct ModuleId {
  const void* address = nullptr;
  const void* type = nullptr;
  auto operator<=>(const ModuleId&) const = default;
};

/// The identity of `module`; valid as long as the object stays where it is.
template <class Module>
ModuleId id_of(const Module& module) {
  return {&module, &detail::type_tag<Module>};
}

/// What moves as a whole: a contiguous byte range [begin, end) of a component's home arena, needed from the
/// call of any of `modules` on.
struct Unit {
  std::string name;       // dotted path of the (first) module, for messages, traces and reports
  std::size_t begin = 0;  // byte offset in the home arena
  std::size_t end = 0;    // one past the last byte
  std::vector<ModuleId> modules;
  std::size_t bytes() const { return end - begin; }
};

}  // namespace ebb
