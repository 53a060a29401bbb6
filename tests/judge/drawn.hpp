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
#include "judge/description.hpp"

namespace ebb::testing {

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
  for (const auto& entry : index.at("pictures")) {
    const std::size_t left = all.size() % columns * side, top = all.size() / columns * side;
    Drawn drawn{.picture = {.width = side, .height = side, .pixels = std::vector<std::uint8_t>(side * side * 3), .text = {}},
                .description = judge::Description::from_json(entry, "descriptions.json"),
                .prompt = entry.at("prompt")};
    for (std::size_t y = 0; y < side; ++y)
      std::memcpy(&drawn.picture.pixels[y * side * 3], &sheet.pixels[((top + y) * sheet.width + left) * 3], side * 3);
    all.push_back(std::move(drawn));
  }
  return all;
}

}  // namespace ebb::testing
