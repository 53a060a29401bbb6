#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/png.hpp"
#include "ebb/core/error.hpp"
#include "judge/motion.hpp"
#include "judge/sight.hpp"
#include "judge/world.hpp"

namespace ebb::judge {

/// An object that is followed through a clip, by its colour.
struct SeenMover {
  std::string_view shape, colour, size, motion;
  double likeness;           // of the shape, where nothing touches it: intersection over union
  double hidden;             // the largest part of it that is out of sight in a frame
  std::size_t frames;        // in which some of it is seen
  std::vector<Moment> path;  // of the middle of what is seen, where that is most of it
};

/// What is seen in a clip.
struct ClipSight {
  std::vector<SeenMover> objects;  // in the order of `colours`
  std::size_t frames = 0;
  std::string_view ground_kind, ground_colour, ground_pattern;  // empty where none is made out
  double strange = 0;  // part of the pixels whose colour is none of the world's
};

namespace detail {

/// Pixels of one colour in one frame, and the middle of them.
struct Stain {
  double size = 0, x = 0, y = 0;
};

/// Where at least seven of the nine pixels around one have its colour and are no background: outlines, whose mixed
/// colours are often nearest to a third one, are too thin for that.
inline std::vector<std::size_t> cores(const Segments& segments) {
  const std::size_t width = segments.width;
  std::vector<std::size_t> result(segments.mask.size(), no_name);
  for (std::size_t y = 1; y + 1 < segments.height; ++y)
    for (std::size_t x = 1; x + 1 < width; ++x) {
      const std::size_t at = y * width + x;
      if (!segments.mask[at]) continue;
      int same = 0;
      for (const std::size_t row : {at - width, at, at + width})
        for (const std::size_t near : {row - 1, row, row + 1})
          same += segments.mask[near] && segments.colours[near] == segments.colours[at];
      if (same >= 7) result[at] = segments.colours[at];
    }
  return result;
}

inline std::array<Stain, colours.size()> stains(const std::vector<std::size_t>& core, std::size_t width) {
  std::array<Stain, colours.size()> result;
  for (std::size_t at = 0; at < core.size(); ++at)
    if (core[at] != no_name) {
      Stain& stain = result[core[at]];
      stain.size += 1;
      stain.x += static_cast<double>(at % width) + 0.5;
      stain.y += static_cast<double>(at / width) + 0.5;
    }
  for (Stain& stain : result)
    if (stain.size > 0) stain.x /= stain.size, stain.y /= stain.size;
  return result;
}

/// The value that a quarter of the others exceed.
inline double upper_quartile(std::vector<double> values) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(3 * (values.size() - 1) / 4);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

/// What the frames in which nothing touches an object say about its shape and size.
struct Ballot {
  std::array<double, shapes.size()> likeness{}, radius{};  // sums
  std::array<std::size_t, shapes.size()> votes{};

  void add(const SeenObject& object) {
    const std::size_t shape = index_of(shapes, object.shape);
    if (shape == no_name) return;
    likeness[shape] += object.likeness;
    radius[shape] += object.radius;
    ++votes[shape];
  }
};

/// Sums and numbers of a background's brightness over the frames in which it is seen.
struct Plate {
  std::vector<double> sums, counts;

  explicit Plate(std::size_t pixels) : sums(pixels), counts(pixels) {}
  void add(const std::vector<double>& light) {
    for (std::size_t at = 0; at < light.size(); ++at)
      if (!std::isnan(light[at])) sums[at] += light[at], counts[at] += 1;
  }
  /// Rows `from` up to `to`, as `pattern_of` takes them.
  std::vector<double> rows(std::size_t from, std::size_t to, std::size_t width) const {
    std::vector<double> light;
    for (std::size_t at = from * width; at < to * width; ++at)
      light.push_back(counts[at] > 0 ? sums[at] / counts[at] : std::numeric_limits<double>::quiet_NaN());
    return light;
  }
};

/// Mean and standard deviation of what is no NaN.
inline std::pair<double, double> spread(const std::vector<double>& light) {
  double sum = 0, squares = 0, count = 0;
  for (const double value : light)
    if (!std::isnan(value)) sum += value, squares += value * value, count += 1;
  const double mean = sum / std::max(count, 1.0);
  return {mean, std::sqrt(std::max(0.0, squares / std::max(count, 1.0) - mean * mean))};
}

/// Kind and pattern of the ground: a floor lies darker under a plain wall.
inline void see_ground(const Plate& plate, std::size_t width, std::size_t height, ClipSight& sight) {
  const auto row = [&](double part) { return static_cast<std::size_t>(part * static_cast<double>(height)); };
  const auto [wall, unevenness] = spread(plate.rows(0, row(horizon - 0.03), width));
  const double above = spread(plate.rows(row(horizon - 0.09), row(horizon - 0.03), width)).first;
  const double below = spread(plate.rows(row(horizon + 0.03), row(horizon + 0.13), width)).first;
  const bool floor = unevenness < 0.035 * wall && below < 0.95 * above;
  sight.ground_kind = ground_kinds[floor ? 1 : 0];
  const std::size_t begin = floor ? row(horizon + 0.02) : 0;
  const std::size_t pattern = pattern_of(plate.rows(begin, height, width), width, height - begin);
  if (pattern != no_name) sight.ground_pattern = patterns[pattern];
}

}  // namespace detail

/// Looks at the frames of a clip, five or more, each as `look` takes them and all of one size.
/// @throws ShapeError for fewer frames and for other sizes
inline ClipSight watch(const std::vector<examples::PngPicture>& frames) {
  using namespace detail;
  if (frames.size() < 5) throw ShapeError(concat("judge: expected a clip of at least 5 frames, found ", frames.size()));
  const std::size_t width = frames[0].width, height = frames[0].height, pixels = width * height;
  const auto side = static_cast<double>(std::max(width, height));

  ClipSight sight;
  sight.frames = frames.size();
  std::vector<Segments> segments;
  std::vector<std::vector<std::size_t>> core;
  std::vector<std::array<Stain, colours.size()>> seen;
  std::array<std::size_t, ground_colours.size()> grounds{};
  Plate plate(pixels);
  for (const examples::PngPicture& frame : frames) {
    segments.push_back(segments_of(frame));
    sight.strange += segments.back().strange / static_cast<double>(frames.size());
    if (segments.back().ground == no_name) {
      segments.pop_back();
      continue;
    }
    ++grounds[segments.back().ground];
    plate.add(light_of(frame, segments.back()));
    core.push_back(cores(segments.back()));
    seen.push_back(stains(core.back(), width));
  }
  if (2 * segments.size() < frames.size()) return sight;
  sight.ground_colour =
      ground_colours[static_cast<std::size_t>(std::max_element(grounds.begin(), grounds.end()) - grounds.begin())];
  see_ground(plate, width, height, sight);

  // Colours that are more than a speck in a quarter of the frames are objects.
  std::array<double, colours.size()> usual{};
  for (std::size_t colour = 0; colour < colours.size(); ++colour) {
    std::vector<double> sizes_seen;
    for (const auto& stain : seen) sizes_seen.push_back(stain[colour].size);
    usual[colour] = upper_quartile(sizes_seen);
    if (usual[colour] < 0.007 * static_cast<double>(pixels)) usual[colour] = 0;
  }
  std::array<Ballot, colours.size()> ballots;
  for (std::size_t frame = 0; frame < segments.size(); ++frame)
    for (const std::vector<Pixel>& patch : patches(segments[frame].mask, width, height)) {
      if (!is_large(patch, segments[frame])) continue;
      std::array<std::size_t, colours.size()> counts{};
      for (const Pixel& pixel : patch)
        if (const std::size_t colour = core[frame][pixel.y * width + pixel.x]; colour != no_name && usual[colour] > 0)
          ++counts[colour];
      const auto most = std::max_element(counts.begin(), counts.end());
      std::size_t all = 0;
      for (const std::size_t count : counts) all += count;
      if (20 * *most < 19 * all || all == 0) continue;  // several objects that touch
      ballots[static_cast<std::size_t>(most - counts.begin())].add(object_of(patch, segments[frame]));
    }
  for (std::size_t colour = 0; colour < colours.size(); ++colour) {
    if (usual[colour] == 0) continue;
    const Ballot& ballot = ballots[colour];
    const auto shape = static_cast<std::size_t>(std::max_element(ballot.likeness.begin(), ballot.likeness.end()) -
                                                ballot.likeness.begin());
    const auto votes = static_cast<double>(std::max<std::size_t>(ballot.votes[shape], 1));
    SeenMover mover{.shape = ballot.votes[shape] > 0 ? clip_shapes[shape] : std::string_view("unknown"),
                    .colour = colours[colour],
                    .size = clip_sizes[ballot.radius[shape] / votes < clip_size_limit ? 0 : 1],
                    .motion = {},
                    .likeness = ballot.likeness[shape] / votes,
                    .hidden = 0,
                    .frames = 0,
                    .path = {}};
    for (std::size_t frame = 0; frame < seen.size(); ++frame) {
      const Stain& stain = seen[frame][colour];
      const double part = stain.size / usual[colour];
      mover.hidden = std::max(mover.hidden, 1 - part);
      if (part > 0.1) ++mover.frames;
      if (part > 0.75) mover.path.push_back({.frame = frame, .x = stain.x / side, .y = stain.y / side});
    }
    mover.motion = motion_of(mover.path);
    sight.objects.push_back(std::move(mover));
  }
  return sight;
}

/// As `judge` prints it.
inline nlohmann::ordered_json to_json(const ClipSight& sight) {
  nlohmann::ordered_json json;
  json["frames"] = sight.frames;
  json["objects"] = nlohmann::ordered_json::array();
  for (const SeenMover& object : sight.objects) {
    nlohmann::ordered_json path = nlohmann::ordered_json::array();
    for (const Moment& moment : object.path) path.push_back({moment.frame, moment.x, moment.y});
    json["objects"].push_back({{"shape", object.shape},
                               {"colour", object.colour},
                               {"size", object.size},
                               {"motion", object.motion},
                               {"likeness", object.likeness},
                               {"hidden", object.hidden},
                               {"frames", object.frames},
                               {"path", path}});
  }
  json["ground"] = {{"kind", sight.ground_kind}, {"colour", sight.ground_colour}, {"pattern", sight.ground_pattern}};
  json["strange"] = sight.strange;
  return json;
}

}  // namespace ebb::judge
