#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "ebb/core/error.hpp"
#include "judge/clip_description.hpp"
#include "judge/clip_sight.hpp"
#include "judge/verdict.hpp"

namespace ebb::judge {

namespace detail {

/// Which of the two is behind the other where they meet: what is hidden more. An index of `orders`, or no_name.
inline std::size_t order_of(const SeenMover& moving, const SeenMover& still) {
  const double difference = moving.hidden - still.hidden;
  if (std::max(moving.hidden, still.hidden) < 0.2) return no_name;
  return difference > 0.1 ? 0 : difference < -0.1 ? 1 : no_name;
}

}  // namespace detail

/// Compares. Content: number, colours, shapes and motions of the objects, in nearly all frames. Style: which one is
/// behind, sizes, and the ground.
inline Verdict compare(const ClipSight& sight, const ClipDescription& asked) {
  Verdict verdict;
  const auto found = [&](const AskedMover& object) -> const SeenMover* {
    const auto at = std::find_if(sight.objects.begin(), sight.objects.end(),
                                 [&](const SeenMover& seen) { return seen.colour == colours[object.colour]; });
    return at == sight.objects.end() ? nullptr : &*at;
  };
  const auto check = [&](const AskedMover& object, std::string_view motion, std::size_t least_frames) {
    const SeenMover* seen = found(object);
    const std::string name = concat("the ", colours[object.colour], " ", clip_shapes[object.shape]);
    verdict.content.push_back({name, seen && seen->shape == clip_shapes[object.shape]});
    verdict.content.push_back({concat(name, ": ", motion), seen && seen->motion == motion});
    verdict.content.push_back({concat(name, " does not vanish"), seen && seen->frames >= least_frames});
    verdict.style.push_back(
        {concat(name, " is ", clip_sizes[object.size]), seen && seen->size == clip_sizes[object.size]});
    return seen;
  };
  const std::size_t objects = asked.still ? 2 : 1;
  verdict.content.push_back({concat(objects, " objects"), sight.objects.size() == objects});
  verdict.content.push_back({"only colours of the world", sight.strange < 0.1});
  // Behind something as large, an object is out of sight for a moment.
  const std::size_t all = 9 * sight.frames / 10, most = 2 * sight.frames / 3;
  const SeenMover* moving = check(asked.moving, motions[asked.motion], asked.still ? most : all);
  if (asked.still) {
    const SeenMover* still = check(asked.still->object, "still", most);
    verdict.style.push_back({concat("passes ", orders[asked.still->order]),
                             moving && still && detail::order_of(*moving, *still) == asked.still->order});
  }
  verdict.style.push_back(
      {concat("ground is ", ground_kinds[asked.ground_kind]), sight.ground_kind == ground_kinds[asked.ground_kind]});
  verdict.style.push_back({concat("ground is ", ground_colours[asked.ground_colour]),
                           sight.ground_colour == ground_colours[asked.ground_colour]});
  verdict.style.push_back(
      {concat("ground is ", patterns[asked.ground_pattern]), sight.ground_pattern == patterns[asked.ground_pattern]});
  return verdict;
}

}  // namespace ebb::judge
