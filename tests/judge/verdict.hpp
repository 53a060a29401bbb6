#pragma once

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "judge/description.hpp"
#include "judge/sight.hpp"

namespace ebb::judge {

/// One thing that a description asks for.
struct Check {
  std::string what;
  bool held;
  std::string_view aspect = {};  // "shape", "colour", ...: what a Tally counts it as
};

/// Whether a picture shows what was asked for.
struct Verdict {
  std::vector<Check> content;  // number, shapes and colours of the objects, stated relations
  std::vector<Check> style;    // sizes, textures, colour and pattern of the background

  /// Every object's shape and colour and every stated relation is as asked for, and there is no other object.
  bool right() const { return all(content); }
  /// Sizes, textures and the background too.
  bool exact() const { return right() && all(style); }

 private:
  static bool all(const std::vector<Check>& checks) {
    return std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.held; });
  }
};

namespace detail {

/// The verdict when asked object i is taken to be seen object `seen[i]`.
inline Verdict verdict_for(const Sight& sight, const Description& asked, const std::vector<std::size_t>& seen) {
  Verdict verdict;
  const auto name = [&](std::size_t i) {
    return concat("the ", colours[asked.objects[i].colour], " ", shapes[asked.objects[i].shape]);
  };
  verdict.content.push_back(
      {concat(asked.objects.size(), " objects"), sight.objects.size() == asked.objects.size(), "number"});
  verdict.content.push_back({"only colours of the world", sight.strange < 0.1, "colour"});
  for (std::size_t i = 0; i < asked.objects.size(); ++i) {
    const AskedObject& object = asked.objects[i];
    const SeenObject* found = seen[i] < sight.objects.size() ? &sight.objects[seen[i]] : nullptr;
    verdict.content.push_back({concat(name(i), ": its shape"), found && found->shape == shapes[object.shape], "shape"});
    verdict.content.push_back(
        {concat(name(i), ": its colour"), found && found->colour == colours[object.colour], "colour"});
    verdict.style.push_back(
        {concat(name(i), " is ", sizes[object.size]), found && found->size == sizes[object.size], "size"});
    verdict.style.push_back({concat(name(i), " is ", textures[object.texture]),
                             found && found->texture == textures[object.texture], "texture"});
  }
  for (const auto& [subject, relation, object] : asked.relations) {
    const std::size_t a = seen[subject], b = seen[object];
    const bool both = a < sight.objects.size() && b < sight.objects.size();
    verdict.content.push_back({concat(name(subject), ": ", relations[relation], ": ", name(object)),
                               both && relation_between(sight.objects[a], sight.objects[b]) == relation, "relation"});
  }
  verdict.style.push_back({concat("background is ", ground_colours[asked.ground_colour]),
                           sight.ground_colour == ground_colours[asked.ground_colour], "background"});
  verdict.style.push_back({concat("background is ", patterns[asked.ground_pattern]),
                           sight.ground_pattern == patterns[asked.ground_pattern], "background"});
  return verdict;
}

}  // namespace detail

/// Compares, with the assignment of seen to asked objects under which most holds. More than six objects are a mess
/// that no assignment is looked for in.
inline Verdict compare(const Sight& sight, const Description& asked) {
  std::vector<std::size_t> order(std::max(sight.objects.size(), asked.objects.size()));
  std::iota(order.begin(), order.end(), std::size_t{0});
  Verdict best = detail::verdict_for(sight, asked, order);
  if (order.size() > 6) return best;
  const auto held = [](const Verdict& verdict) {
    const auto count = [](const std::vector<Check>& checks) {
      return std::count_if(checks.begin(), checks.end(), [](const Check& check) { return check.held; });
    };
    return std::pair{count(verdict.content), count(verdict.style)};
  };
  do {
    if (Verdict verdict = detail::verdict_for(sight, asked, order); held(verdict) > held(best)) best = verdict;
  } while (std::next_permutation(order.begin(), order.end()));
  return best;
}

/// As `judge` prints it.
inline nlohmann::ordered_json to_json(const Verdict& verdict) {
  nlohmann::ordered_json json{{"right", verdict.right()}, {"exact", verdict.exact()}};
  for (const auto& [key, checks] : {std::pair{"content", &verdict.content}, {"style", &verdict.style}}) {
    json[key] = nlohmann::ordered_json::array();
    for (const Check& check : *checks) json[key].push_back({{"what", check.what}, {"held", check.held}});
  }
  return json;
}

}  // namespace ebb::judge
