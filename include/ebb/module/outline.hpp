#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/module/level.hpp"
#include "ebb/module/members.hpp"
#include "ebb/module/unit.hpp"

namespace ebb {

/// A parameter without its type: enough to give it an address.
struct ParameterReference {
  void* object = nullptr;
  void (*bind_object)(void* object, const std::byte* segment) = nullptr;
  std::string name;         // the checkpoint's name
  std::size_t offset = 0;   // in the component's home arena
  std::size_t bytes = 0;    // of the segment, a multiple of segment_alignment
  bool stays_home = false;  // read where it lies (embedding tables): never moved to the device

  void bind(const std::byte* segment) const { bind_object(object, segment); }
};

/// The run-time picture of a model's members: what lies where in the component's home arena.
/// First come the parameters that stay at home, then those of hoisted modules, then all others; in each part they
/// follow one another in `members()` order, so that every module is one contiguous byte range. Holds pointers into the
/// model, which must not move.
struct Outline {
  std::string name;
  ModuleId id;
  Level level = Level::none;
  bool leaf = false;
  bool hoisted = false;           // computed before a loop, not in it; true for all modules inside such a one
  std::size_t hoisted_begin = 0;  // of the root: its hoisted modules are bytes [hoisted_begin, begin)
  std::size_t begin = 0;          // of what moves; excludes what stays at home and what is hoisted
  std::size_t end = 0;
  std::vector<Outline> children;
  std::vector<ParameterReference> parameters;  // of a leaf
  /// Whether this is a block that moves, or holds one.
  bool holds_blocks() const {
    if (hoisted) return false;
    if (level == Level::block) return begin != end;
    for (const Outline& child : children)
      if (child.holds_blocks()) return true;
    return false;
  }
};

/// "a" + "b" = "a.b"; an empty part adds nothing.
inline std::string join_path(std::string_view left, std::string_view right) {
  if (left.empty()) return std::string(right);
  if (right.empty()) return std::string(left);
  return std::string(left) + "." + std::string(right);
}

/// Calls `visit(path, parameter, owner)` for each parameter of `module` that is there, in `members()` order;
/// `owner` is the leaf module that holds it.
template <Module M, class Visit>
void for_each_parameter(M& module, Visit&& visit, const std::string& path = {}) {
  for_each_member(module, [&]<class Member>(std::string_view name, Member& member) {
    const std::string here = join_path(path, name);
    if constexpr (Parameter<Member>) {
      static_assert(LeafModule<M> || !Parameter<Member>,
                    "a module holds either parameters or modules: wrap the parameter in a leaf");
      visit(here, member, module);
    } else if constexpr (detail::is_repeat<Member>) {
      for (std::size_t index = 0; index < member.size(); ++index)
        for_each_parameter(member[index], visit, join_path(here, std::to_string(index)));
    } else {
      for_each_parameter(member, visit, here);
    }
  });
}

namespace detail {

/// A leaf's `static constexpr bool stays_home`, false where it has none.
template <Module M>
consteval bool stays_home() {
  if constexpr (requires { M::stays_home; })
    return M::stays_home;
  else
    return false;
}

template <Module M>
Outline outline_of(M& module, std::string path) {
  Outline node;
  node.name = std::move(path);
  node.id = id_of(module);
  if constexpr (requires { M::level; }) node.level = M::level;
  if constexpr (requires { M::hoisted; }) node.hoisted = M::hoisted;
  node.leaf = LeafModule<M>;
  for_each_member(module, [&]<class Member>(std::string_view name, Member& member) {
    const std::string here = join_path(node.name, name);
    if constexpr (Parameter<Member>) {
      node.parameters.push_back(
          {.object = &member,
           .bind_object = [](void* object, const std::byte* segment) { static_cast<Member*>(object)->bind(segment); },
           .name = here,
           .bytes = member.bytes(),
           .stays_home = stays_home<M>()});
    } else if constexpr (is_repeat<Member>) {
      for (std::size_t index = 0; index < member.size(); ++index)
        node.children.push_back(outline_of(member[index], join_path(here, std::to_string(index))));
    } else {
      node.children.push_back(outline_of(member, here));
    }
  });
  return node;
}

enum class Part { home, hoisted, moving };

inline void place(Outline& node, Part part, std::size_t& offset) {
  const bool here = part == (node.hoisted ? Part::hoisted : Part::moving);
  if (here) node.begin = offset;
  for (ParameterReference& parameter : node.parameters) {
    if (parameter.stays_home ? part != Part::home : !here) continue;
    parameter.offset = offset;
    offset += parameter.bytes;
  }
  for (Outline& child : node.children) {
    child.hoisted = child.hoisted || node.hoisted;
    place(child, part, offset);
  }
  if (here) node.end = offset;
}

}  // namespace detail

/// Lays out the home arena of `model`: formats and shapes of all parameters must be settled. The arena needs
/// `result.end` bytes; the first `result.hoisted_begin` of them stay at home.
template <Module M>
Outline outline_of(M& model, std::string name) {
  Outline root = detail::outline_of(model, std::string{});
  root.name = std::move(name);
  std::size_t offset = 0;
  detail::place(root, detail::Part::home, offset);
  root.hoisted_begin = offset;
  detail::place(root, detail::Part::hoisted, offset);
  detail::place(root, detail::Part::moving, offset);
  return root;
}

/// Calls `visit(const ParameterReference&)` for every parameter below `node`.
template <class Visit>
void for_each_reference(const Outline& node, Visit&& visit) {
  for (const ParameterReference& parameter : node.parameters) visit(parameter);
  for (const Outline& child : node.children) for_each_reference(child, visit);
}

namespace detail {

inline Unit unit_of(const Outline& node) { return {node.name, node.begin, node.end, {node.id}}; }

inline void cut(const Outline& node, Level level, std::size_t blocks_per_unit, std::vector<Unit>& units) {
  if (node.begin == node.end || node.hoisted) return;  // nothing that moves here
  if (node.leaf || level == Level::model || (level == Level::block && !node.holds_blocks())) {
    units.push_back(unit_of(node));
    return;
  }
  std::size_t in_unit = 0;  // blocks in the unit that is being filled; blocks of one list are neighbours
  std::string_view list;
  for (const Outline& child : node.children) {
    if (child.begin == child.end || child.hoisted) continue;
    if (level != Level::block || child.level != Level::block) {
      in_unit = 0;
      cut(child, level, blocks_per_unit, units);
      continue;
    }
    const std::string_view siblings = std::string_view(child.name).substr(0, child.name.rfind('.'));
    if (in_unit == 0 || in_unit == blocks_per_unit || siblings != list) {
      units.push_back(unit_of(child));
      in_unit = 1;
    } else {
      units.back().end = child.end;
      units.back().modules.push_back(child.id);
      ++in_unit;
    }
    list = siblings;
  }
}

}  // namespace detail

/// Cuts a component into the units that move as a whole: the component itself (model, none), runs of
/// `blocks_per_unit` neighbouring blocks and each part that holds no block (block), or every leaf (leaf).
/// Hoisted modules are in none of them, see hoisted_units_of.
/// @throws ConfigError for block level when no module that moves is marked as a block, for zero blocks, and for a model
/// that is hoisted as a whole
inline std::vector<Unit> units_of(const Outline& model, Level level, std::size_t blocks_per_unit = 1) {
  if (model.hoisted)
    throw ConfigError(concat("offload: ", model.name, " is hoisted as a whole, which only parts can be"));
  if (level == Level::block && blocks_per_unit == 0)
    throw ConfigError("block offload: the number of blocks in a unit must be at least 1, found 0");
  if (level == Level::block && !model.holds_blocks())
    throw ConfigError(concat("block offload: ", model.name, " has no repeated blocks; use leaf or model"));
  std::vector<Unit> units;
  if (level == Level::model || level == Level::none)
    units.push_back(detail::unit_of(model));
  else
    detail::cut(model, level, blocks_per_unit, units);
  return units;
}

/// The leaves of a model's hoisted modules; empty where there are none.
inline std::vector<Unit> hoisted_units_of(const Outline& model) {
  std::vector<Unit> units;
  const auto visit = [&](const auto& self, const Outline& node) -> void {
    if (node.hoisted && node.leaf && node.begin != node.end) units.push_back(detail::unit_of(node));
    for (const Outline& child : node.children) self(self, child);
  };
  visit(visit, model);
  return units;
}

}  // namespace ebb
