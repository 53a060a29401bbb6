#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "common/png.hpp"
#include "ebb/core/error.hpp"
#include "judge/silhouette.hpp"
#include "judge/world.hpp"

namespace ebb::judge {

/// An object as it is seen. Names are of the lists in world.hpp.
struct SeenObject {
  std::string_view shape, colour, size, texture;
  double x, y, radius;  // of the shape's own centre; parts of the picture's side
  double likeness;      // of the shape: intersection over union
};

/// What is seen in a picture.
struct Sight {
  std::vector<SeenObject> objects;                 // from the top, then from the left
  std::string_view ground_colour, ground_pattern;  // empty where no background is made out
  double strange = 0;                              // part of the pixels whose colour is none of the world's
};

/// The side of `other` on which `object` lies: an index of `relations`.
inline std::size_t relation_between(const SeenObject& object, const SeenObject& other) {
  const double x = object.x - other.x, y = object.y - other.y;
  if (std::abs(y) >= std::abs(x)) return y < 0 ? 0 : 1;
  return x < 0 ? 2 : 3;
}

namespace detail {

using Lab = std::array<double, 3>;

/// OKLab of an sRGB colour: distances in it are nearly as large as they look.
inline Lab lab_of(const Rgb& colour) {
  Rgb linear;
  for (std::size_t i = 0; i < 3; ++i) {
    const double value = std::clamp(colour[i] / 255.0, 0.0, 1.0);
    linear[i] = value <= 0.04045 ? value / 12.92 : std::pow((value + 0.055) / 1.055, 2.4);
  }
  const auto [r, g, b] = linear;
  const double l = std::cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const double m = std::cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const double s = std::cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return {0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
          1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
          0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s};
}

inline double distance(const Lab& a, const Lab& b) {
  const double l = a[0] - b[0], m = a[1] - b[1], n = a[2] - b[2];
  return std::sqrt(l * l + m * m + n * n);
}

inline Rgb rgb_at(const examples::PngPicture& picture, std::size_t pixel) {
  const std::uint8_t* p = &picture.pixels[3 * pixel];
  return {static_cast<double>(p[0]), static_cast<double>(p[1]), static_cast<double>(p[2])};
}

inline Rgb scaled(const Rgb& colour, double factor) {
  return {colour[0] * factor, colour[1] * factor, colour[2] * factor};
}

/// All the tones that one colour of an object, or of a background, takes: shading, shadow, texture, blur.
struct Family {
  std::vector<Lab> tones;

  double distance_to(const Lab& colour) const {
    double least = std::numeric_limits<double>::infinity();
    for (const Lab& tone : tones) least = std::min(least, distance(tone, colour));
    return least;
  }
};

inline Family object_family(std::size_t colour) {
  Family family;
  const auto& [first, second] = tones[colour];
  for (const double part : {0.0, 0.33, 0.67, 1.0})
    for (const double light : {0.92, 1.0, 1.08}) {
      Rgb mixed;
      for (std::size_t i = 0; i < 3; ++i) mixed[i] = light * (first[i] + part * (second[i] - first[i]));
      family.tones.push_back(lab_of(mixed));
    }
  return family;
}

inline Family ground_family(std::size_t colour) {
  Family family;
  for (double light = 1.10; light > 0.56; light -= 0.04)
    family.tones.push_back(lab_of(scaled(ground_tones[colour], light)));
  return family;
}

inline const std::vector<Family>& object_families() {
  static const std::vector<Family> families = [] {
    std::vector<Family> result;
    for (std::size_t i = 0; i < colours.size(); ++i) result.push_back(object_family(i));
    return result;
  }();
  return families;
}

inline const std::vector<Family>& ground_families() {
  static const std::vector<Family> families = [] {
    std::vector<Family> result;
    for (std::size_t i = 0; i < ground_colours.size(); ++i) result.push_back(ground_family(i));
    return result;
  }();
  return families;
}

struct Nearest {
  std::size_t index;
  double distance;
};

inline Nearest nearest(const std::vector<Family>& families, const Lab& colour) {
  Nearest best{0, std::numeric_limits<double>::infinity()};
  for (std::size_t i = 0; i < families.size(); ++i)
    if (const double found = families[i].distance_to(colour); found < best.distance) best = {i, found};
  return best;
}

/// Which of a background's patterns the brightness of its pixels has. `light` is NaN where there is no background.
inline std::size_t pattern_of(const std::vector<double>& light, std::size_t width, std::size_t height) {
  std::vector<double> xs, ys, values;
  for (std::size_t y = 0; y < height; ++y)
    for (std::size_t x = 0; x < width; ++x)
      if (const double value = light[y * width + x]; !std::isnan(value)) {
        xs.push_back(static_cast<double>(x));
        ys.push_back(static_cast<double>(y));
        values.push_back(value);
      }
  const auto count = static_cast<double>(values.size());
  if (count < 16) return no_name;
  const auto mean_of = [&](const std::vector<double>& of) {
    double sum = 0;
    for (const double value : of) sum += value;
    return sum / count;
  };
  const double mx = mean_of(xs), my = mean_of(ys), mean = mean_of(values);
  double xx = 0, xy = 0, yy = 0, xv = 0, yv = 0, total = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double dx = xs[i] - mx, dy = ys[i] - my, dv = values[i] - mean;
    xx += dx * dx, xy += dx * dy, yy += dy * dy, xv += dx * dv, yv += dy * dv, total += dv * dv;
  }
  if (std::sqrt(total / count) < 0.045 * mean) return index_of(patterns, "plain");
  // How much of the variance a plane explains: the normal equations of light = a + b x + c y.
  if (const double determinant = xx * yy - xy * xy; determinant > 0) {
    const double b = (xv * yy - yv * xy) / determinant, c = (yv * xx - xv * xy) / determinant;
    if ((b * xv + c * yv) / total > 0.75) return index_of(patterns, "gradient");
  }
  // How much of it depends on the position along one direction only.
  const auto side = static_cast<double>(std::max(width, height));
  for (const auto& [ax, ay] :
       {std::array{1.0, 0.0}, {0.0, 1.0}, {std::sqrt(0.5), std::sqrt(0.5)}, {std::sqrt(0.5), -std::sqrt(0.5)}}) {
    std::array<double, 256> sums{}, counts{};
    const auto bin_of = [&](std::size_t i) {
      const double along = (ax * xs[i] + ay * ys[i]) / side;  // -0.8 to 1.5
      return static_cast<std::size_t>(std::clamp((along + 1.0) * 90.0, 0.0, 255.0));
    };
    for (std::size_t i = 0; i < values.size(); ++i) sums[bin_of(i)] += values[i], counts[bin_of(i)] += 1;
    double within = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double d = values[i] - sums[bin_of(i)] / counts[bin_of(i)];
      within += d * d;
    }
    if (1 - within / total > 0.65) return index_of(patterns, "striped");
  }
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  const double dark = sorted[sorted.size() / 20], bright = sorted[sorted.size() - 1 - sorted.size() / 20];
  const auto below = std::lower_bound(sorted.begin(), sorted.end(), (dark + bright) / 2) - sorted.begin();
  return index_of(patterns, static_cast<double>(below) / count > 0.37 ? "checkered" : "dotted");
}

/// Which texture a patch has: how bright its pixels are between the two tones of its colour, after shading from top to
/// bottom is taken away.
inline std::size_t texture_of(const std::vector<Pixel>& patch, const std::vector<Lab>& labs, std::size_t colour,
                              std::size_t width, std::size_t height) {
  const double first = lab_of(tones[colour][0])[0], second = lab_of(tones[colour][1])[0];
  std::vector<double> ys, values;
  for (const Pixel& pixel : inner_pixels(patch, width, height)) {
    values.push_back((labs[pixel.y * width + pixel.x][0] - first) / (second - first));
    ys.push_back(static_cast<double>(pixel.y));
  }
  const auto count = static_cast<double>(values.size());
  const double my = std::accumulate(ys.begin(), ys.end(), 0.0) / count;
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double yy = 0, yv = 0, squares = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    yy += (ys[i] - my) * (ys[i] - my);
    yv += (ys[i] - my) * (values[i] - mean);
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] -= mean + (yy > 0 ? yv / yy * (ys[i] - my) : 0.0);
    squares += values[i] * values[i];
  }
  if (std::sqrt(squares / count) < 0.15) return index_of(textures, "plain");
  std::sort(values.begin(), values.end());
  const double low = values[values.size() / 20], high = values[values.size() - 1 - values.size() / 20];
  const auto above = values.end() - std::upper_bound(values.begin(), values.end(), (low + high) / 2);
  return index_of(textures, static_cast<double>(above) / count > 0.37 ? "striped" : "dotted");
}

/// What kind of pixel each one of a picture is.
struct Segments {
  std::size_t width, height;
  std::vector<Lab> labs;
  std::vector<std::size_t> colours;  // the object colour that is nearest
  std::vector<char> mask;            // whether it is nearer than the background; empty where there is no background
  std::size_t ground = no_name;      // of ground_colours
  double strange = 0;
};

/// @throws ShapeError for pictures that are too small or too large to look at
inline Segments segments_of(const examples::PngPicture& picture) {
  const std::size_t width = picture.width, height = picture.height, pixels = width * height;
  if (std::min(width, height) < 32 || std::max(width, height) > 4096)
    throw ShapeError(
        concat("judge: expected a picture with sides from 32 to 4096 pixels, found ", width, " x ", height));
  Segments result{.width = width, .height = height, .labs = {}, .colours = {}, .mask = {}};
  result.labs.resize(pixels);
  result.colours.resize(pixels);
  std::vector<double> object_distance(pixels);
  std::array<std::size_t, ground_colours.size()> votes{};
  std::size_t strange = 0;
  for (std::size_t at = 0; at < pixels; ++at) {
    result.labs[at] = lab_of(rgb_at(picture, at));
    const Nearest object = nearest(object_families(), result.labs[at]),
                  ground = nearest(ground_families(), result.labs[at]);
    object_distance[at] = object.distance;
    result.colours[at] = object.index;
    if (ground.distance <= object.distance) ++votes[ground.index];
    if (std::min(ground.distance, object.distance) > 0.09) ++strange;
  }
  result.strange = static_cast<double>(strange) / static_cast<double>(pixels);
  const auto ground = static_cast<std::size_t>(std::max_element(votes.begin(), votes.end()) - votes.begin());
  if (4 * votes[ground] < pixels) return result;
  result.ground = ground;
  result.mask.resize(pixels);
  for (std::size_t at = 0; at < pixels; ++at)
    result.mask[at] = ground_families()[ground].distance_to(result.labs[at]) > object_distance[at];
  return result;
}

/// What one patch of object pixels is. Its colour is what most of its pixels have; its outline is then drawn anew
/// between that colour and the background, because mixtures of the two are often nearest to a third.
inline SeenObject object_of(const std::vector<Pixel>& patch, const Segments& segments) {
  const std::size_t width = segments.width, height = segments.height;
  const std::vector<Lab>& labs = segments.labs;
  const Family& ground = ground_families()[segments.ground];
  std::array<std::size_t, colours.size()> votes{};
  for (const Pixel& pixel : inner_pixels(patch, width, height)) ++votes[segments.colours[pixel.y * width + pixel.x]];
  const auto colour = static_cast<std::size_t>(std::max_element(votes.begin(), votes.end()) - votes.begin());
  std::vector<Pixel> outlined;
  for (const Pixel& pixel : patch) {
    const Lab& lab = labs[pixel.y * width + pixel.x];
    if (object_families()[colour].distance_to(lab) < ground.distance_to(lab)) outlined.push_back(pixel);
  }
  if (outlined.empty()) outlined = patch;

  const Silhouette form = silhouette_of(outlined);
  const auto side = static_cast<double>(std::max(width, height));
  const double radius = form.radius / side;
  return {.shape = form.likeness < 0.6 ? std::string_view("unknown") : shapes[form.shape],
          .colour = colours[colour],
          .size = sizes[radius < size_limits[0]   ? 0
                        : radius < size_limits[1] ? 1
                                                  : 2],
          .texture = textures[texture_of(outlined, labs, colour, width, height)],
          .x = form.x / side,
          .y = form.y / side,
          .radius = radius,
          .likeness = form.likeness};
}

/// Whether a patch is more than a speck: the smallest object has 1 % of the picture.
inline bool is_large(const std::vector<Pixel>& patch, const Segments& segments) {
  return patch.size() * 1000 >= segments.mask.size() * 3;
}

/// The background's brightness, relative to its tone; NaN at objects, at their shadows and close to them.
inline std::vector<double> light_of(const examples::PngPicture& picture, const Segments& segments) {
  std::vector<double> light(segments.mask.size(), std::numeric_limits<double>::quiet_NaN());
  const std::size_t by = std::max(segments.width, segments.height) / 16;
  const std::vector<char> near = grown(segments.mask, segments.width, segments.height, by);
  const Rgb& tone = ground_tones[segments.ground];
  for (std::size_t at = 0; at < light.size(); ++at) {
    const auto [red, green, blue] = rgb_at(picture, at);
    if (!near[at]) light[at] = (red + green + blue) / (tone[0] + tone[1] + tone[2]);
  }
  return light;
}

}  // namespace detail

/// Looks at a picture of any size from 32 to 4096 pixels a side.
/// @throws ShapeError for other sizes
inline Sight look(const examples::PngPicture& picture) {
  using namespace detail;
  const Segments segments = segments_of(picture);
  Sight sight;
  sight.strange = segments.strange;
  if (segments.ground == no_name) return sight;
  sight.ground_colour = ground_colours[segments.ground];
  for (const std::vector<Pixel>& patch : patches(segments.mask, segments.width, segments.height))
    if (is_large(patch, segments)) sight.objects.push_back(object_of(patch, segments));
  std::sort(sight.objects.begin(), sight.objects.end(),
            [](const SeenObject& a, const SeenObject& b) { return a.y != b.y ? a.y < b.y : a.x < b.x; });
  const std::size_t pattern = pattern_of(light_of(picture, segments), segments.width, segments.height);
  if (pattern != no_name) sight.ground_pattern = patterns[pattern];
  return sight;
}

/// As `judge` prints it.
inline nlohmann::ordered_json to_json(const Sight& sight) {
  nlohmann::ordered_json json;
  json["objects"] = nlohmann::ordered_json::array();
  for (const SeenObject& object : sight.objects)
    json["objects"].push_back({{"shape", object.shape},
                               {"colour", object.colour},
                               {"size", object.size},
                               {"texture", object.texture},
                               {"centre", {object.x, object.y}},
                               {"radius", object.radius},
                               {"likeness", object.likeness}});
  json["relations"] = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < sight.objects.size(); ++i)
    for (std::size_t j = i + 1; j < sight.objects.size(); ++j)
      json["relations"].push_back({{"subject", i},
                                   {"relation", relations[relation_between(sight.objects[i], sight.objects[j])]},
                                   {"object", j}});
  json["background"] = {{"colour", sight.ground_colour}, {"pattern", sight.ground_pattern}};
  json["strange"] = sight.strange;
  return json;
}

}  // namespace ebb::judge
