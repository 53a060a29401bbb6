#pragma once

#include <concepts>
#include <cstddef>
#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "ebb/module/level.hpp"
#include "ebb/tensor/any_of.hpp"
#include "ebb/tensor/quantized_tensor.hpp"

namespace ebb {

/// One line of a `members()` list: the name that the member has in a checkpoint, and where it is in the struct.
/// A name may be a dotted path ("attn.to_q"); an empty name adds nothing to the path.
template <class Owner, class Member>
struct field {
  using type = Member;
  using Pointer = Member Owner::*;  // by its name: nvcc adds parentheses to the declarator, of which GCC warns
  std::string_view name;
  Pointer pointer;
};
template <class Owner, class Member>
field(const char*, Member Owner::*) -> field<Owner, Member>;

/// A run of equal modules, "name.0", "name.1", ... Its length comes from the configuration.
template <class Module>
class Repeat {
 public:
  Repeat() = default;
  void push_back(Module module) { items_.push_back(std::move(module)); }
  std::size_t size() const { return items_.size(); }
  Module& operator[](std::size_t index) { return items_[index]; }
  const Module& operator[](std::size_t index) const { return items_[index]; }
  auto begin() { return items_.begin(); }
  auto end() { return items_.end(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

 private:
  std::vector<Module> items_;
};

/// A module or parameter that some configurations do not have.
template <class Member>
class Maybe {
 public:
  Maybe() = default;
  void emplace(Member member) { member_.emplace(std::move(member)); }
  explicit operator bool() const { return member_.has_value(); }
  Member& operator*() { return *member_; }
  const Member& operator*() const { return *member_; }
  Member* operator->() { return &*member_; }
  const Member* operator->() const { return &*member_; }

 private:
  std::optional<Member> member_;
};

namespace detail {

template <class T>
inline constexpr bool is_parameter = false;
template <class Format>
inline constexpr bool is_parameter<QuantizedTensor<Format>> = true;
template <class... Formats>
inline constexpr bool is_parameter<AnyOf<Formats...>> = true;

template <class T>
inline constexpr bool is_repeat = false;
template <class T>
inline constexpr bool is_repeat<Repeat<T>> = true;

template <class T>
struct unwrap {
  using type = T;
  static constexpr bool maybe = false;
};
template <class T>
struct unwrap<Maybe<T>> {
  using type = T;
  static constexpr bool maybe = true;
};

template <class Fields>
inline constexpr bool all_parameters = false;
template <class... Field>
inline constexpr bool all_parameters<std::tuple<Field...>> =
    (is_parameter<typename unwrap<typename Field::type>::type> && ...);

struct anything {
  template <class T>
  constexpr operator T() const noexcept;
};
template <class T, std::size_t... Index>
consteval bool initializable(std::index_sequence<Index...>) {
  return requires { T{(void(Index), anything{})...}; };
}
inline constexpr std::size_t max_members = 64;
/// Number of members of an aggregate, at most `max_members`: the longest list that initializes it. Counted downwards,
/// because a shorter list need not initialize it: a member may have no default.
template <class T, std::size_t Count = max_members>
consteval std::size_t arity() {
  static_assert(Count != max_members || !initializable<T>(std::make_index_sequence<max_members + 1>{}),
                "a module has at most 64 members, its config included: make modules of some of them");
  if constexpr (Count == 0 || initializable<T>(std::make_index_sequence<Count>{}))
    return Count;
  else
    return arity<T, Count - 1>();
}

}  // namespace detail

/// A tensor that a checkpoint stores: a QuantizedTensor, or an AnyOf whose format is chosen at load.
template <class T>
concept Parameter = detail::is_parameter<std::remove_cv_t<T>>;

/// A struct whose members are its checkpoint. `members()` lists every one of them, in execution order; the only
/// member that it leaves out is a plain `config`, where there is one. A forgotten member does not compile, and neither
/// do more than 64.
template <class T>
concept Module =
    std::is_aggregate_v<T> && requires { T::members(); } &&
    (std::tuple_size_v<decltype(T::members())> + (requires(T module) { module.config; } ? 1 : 0) == detail::arity<T>());

/// A module that holds parameters, and nothing else: what leaf-level offload moves.
template <class T>
concept LeafModule = Module<T> && detail::all_parameters<decltype(T::members())>;

/// Calls `visit(name, member)` for each member that is there, `Maybe`s unwrapped.
template <Module M, class Visit>
  requires(!std::is_const_v<M>)
void for_each_member(M& module, Visit&& visit) {
  std::apply(
      [&](auto... fields) {
        const auto one = [&](auto described) {
          auto& member = module.*(described.pointer);
          if constexpr (detail::unwrap<typename decltype(described)::type>::maybe) {
            if (member) visit(described.name, *member);
          } else {
            visit(described.name, member);
          }
        };
        (one(fields), ...);
      },
      M::members());
}

}  // namespace ebb
