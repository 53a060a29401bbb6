#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/config_file.hpp"
#include "ebb/core/error.hpp"
#include "judge/description.hpp"
#include "judge/world.hpp"

namespace ebb::judge {

/// An object of a clip as it is asked for. Indices of the lists in world.hpp.
struct AskedMover {
  std::size_t shape = 0, colour = 0, size = 0;
};

/// What stands still, and whether the other passes behind it or in front of it: an index of `orders`.
struct AskedStill {
  AskedMover object;
  std::size_t order = 0;
};

/// What must be seen in a clip.
struct ClipDescription {
  AskedMover moving;
  std::size_t motion = 0;
  std::optional<AskedStill> still;
  std::size_t ground_kind = 0, ground_colour = 0, ground_pattern = 0;

  /// Reads what moving_world.py wrote beside a clip. @throws FileError, ConfigError
  static ClipDescription read(const std::filesystem::path& path);

  /// The same from parsed JSON; `where` names it in messages. @throws ConfigError
  static ClipDescription from_json(const nlohmann::json& json, const std::string& where);

  /// Reads a caption of moving_world.py's grammar. @throws ConfigError that names the word where it leaves the grammar
  static ClipDescription parse(std::string_view prompt);
};

namespace detail {

inline AskedMover parse_mover(Caption& caption) {
  AskedMover object;
  caption.expect_article();
  object.size = caption.accept("large") ? 1 : 0;
  object.colour = caption.expect_one(colours);
  object.shape = caption.expect_one(clip_shapes);
  return object;
}

inline std::size_t parse_motion(Caption& caption) {
  if (caption.accept("rises")) return 2;
  if (caption.accept("falls")) return 3;
  if (caption.accept("bounces")) {
    if (caption.accept("up")) caption.expect("and"), caption.expect("down");
    return 4;
  }
  if (!caption.accept("moves")) caption.fail("moves, rises, falls or bounces");
  if (caption.accept("to")) {
    caption.expect("the");
    return caption.expect_one(std::array<std::string_view, 2>{motions[0], motions[1]});
  }
  return caption.expect_one(std::array<std::string_view, 4>{motions[0], motions[1], motions[2], motions[3]});
}

inline void parse_moving(Caption& caption, ClipDescription& description) {
  description.moving = parse_mover(caption);
  description.motion = parse_motion(caption);
  if (caption.accept("behind")) {
    description.still = AskedStill{.object = parse_mover(caption), .order = 0};
  } else if (caption.accept("in")) {
    caption.expect("front");
    caption.expect("of");
    description.still = AskedStill{.object = parse_mover(caption), .order = 1};
  }
}

inline void parse_clip_ground(Caption& caption, ClipDescription& description) {
  caption.expect_article();
  description.ground_pattern = caption.accept_one(patterns).value_or(0);
  description.ground_colour = caption.expect_one(ground_colours);
  description.ground_kind = caption.expect_one(ground_kinds);
}

}  // namespace detail

inline ClipDescription ClipDescription::parse(std::string_view prompt) {
  using namespace detail;
  Caption caption(prompt);
  ClipDescription description;
  if (caption.accept("on")) {
    parse_clip_ground(caption, description);
    caption.expect(",");
    parse_moving(caption, description);
  } else {
    parse_moving(caption, description);
    caption.expect("on");
    parse_clip_ground(caption, description);
  }
  if (!caption.at_end()) caption.fail("the end");
  return description;
}

inline ClipDescription ClipDescription::read(const std::filesystem::path& path) {
  return from_json(examples::ConfigFile::open(path).json(), path.string());
}

inline ClipDescription ClipDescription::from_json(const nlohmann::json& json, const std::string& where) {
  using namespace detail;
  const auto object = [&](const char* field) {
    const auto found = json.value(field, nlohmann::json());
    return AskedMover{.shape = named_in(where, found, "shape", clip_shapes),
                      .colour = named_in(where, found, "colour", colours),
                      .size = named_in(where, found, "size", clip_sizes)};
  };
  ClipDescription description{.moving = object("moving"), .motion = 0, .still = {}};
  description.motion = named_in(where, json.value("moving", nlohmann::json()), "motion", motions);
  if (json.contains("still"))
    description.still = AskedStill{.object = object("still"), .order = named_in(where, json, "order", orders)};
  const auto ground = json.value("ground", nlohmann::json());
  description.ground_kind = named_in(where, ground, "kind", ground_kinds);
  description.ground_colour = named_in(where, ground, "colour", ground_colours);
  description.ground_pattern = named_in(where, ground, "pattern", patterns);
  return description;
}

}  // namespace ebb::judge
