#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/png.hpp"
#include "judge/clip_description.hpp"
#include "judge/description.hpp"

namespace ebb::testing {

/// The part of a sheet at column and row of squares.
inline examples::PngPicture cut(const examples::PngPicture& sheet, std::size_t side, std::size_t column,
                                std::size_t row) {
  examples::PngPicture picture{
      .width = side, .height = side, .pixels = std::vector<std::uint8_t>(side * side * 3), .text = {}};
  for (std::size_t y = 0; y < side; ++y)
    std::memcpy(&picture.pixels[y * side * 3], &sheet.pixels[((row * side + y) * sheet.width + column * side) * 3],
                side * 3);
  return picture;
}

/// A picture that world.py drew, and what it drew.
struct Drawn {
  examples::PngPicture picture;
  judge::Description description;
  std::string prompt;
};

/// The pictures of tests/golden/data/judge, cut out of their sheet.
inline std::vector<Drawn> drawn_pictures() {
  const auto directory = std::filesystem::path(EBB_GOLDEN_DIR) / "judge";
  const auto index = nlohmann::json::parse(std::ifstream(directory / "descriptions.json"));
  const examples::PngPicture sheet = examples::read_png(directory / "pictures.png");
  const std::size_t side = index.at("side"), columns = index.at("columns");
  std::vector<Drawn> all;
  for (const auto& entry : index.at("pictures"))
    all.push_back({.picture = cut(sheet, side, all.size() % columns, all.size() / columns),
                   .description = judge::Description::from_json(entry, "descriptions.json"),
                   .prompt = entry.at("prompt")});
  return all;
}

/// A clip that moving_world.py drew, and what it drew.
struct DrawnClip {
  std::vector<examples::PngPicture> frames;
  judge::ClipDescription description;
  std::string prompt;
  nlohmann::json json;
};

/// The clips of tests/golden/data/judge, cut out of their sheet.
inline std::vector<DrawnClip> drawn_clips() {
  const auto directory = std::filesystem::path(EBB_GOLDEN_DIR) / "judge";
  const auto index = nlohmann::json::parse(std::ifstream(directory / "clips.json"));
  const examples::PngPicture sheet = examples::read_png(directory / "clips.png");
  const std::size_t side = index.at("side"), frames = index.at("frames");
  std::vector<DrawnClip> all;
  for (const auto& entry : index.at("clips")) {
    DrawnClip clip{.frames = {},
                   .description = judge::ClipDescription::from_json(entry, "clips.json"),
                   .prompt = entry.at("prompt"),
                   .json = entry};
    for (std::size_t frame = 0; frame < frames; ++frame) clip.frames.push_back(cut(sheet, side, frame, all.size()));
    all.push_back(std::move(clip));
  }
  return all;
}

}  // namespace ebb::testing
