// Puts pictures of one size beside each other on one sheet, in rows, with white lines between them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "common/png.hpp"

namespace {

using ebb::examples::PngPicture;

constexpr std::size_t line = 4;

/// Scaled to a smaller width, so that every pixel is the mean of what it covers.
PngPicture shrunk(const PngPicture& picture, std::size_t width) {
  if (width > picture.width)
    throw ebb::ValueError(
        ebb::concat("--width ", width, ": expected at most ", picture.width, ", the pictures' width"));
  const double scale = static_cast<double>(picture.width) / static_cast<double>(width);
  const std::size_t height = picture.height * width / picture.width;
  PngPicture result{.width = width, .height = height, .pixels = {}, .text = {}};
  // How much of the old pixel `at` the new one covers, along one side.
  const auto share = [&](std::size_t pixel, std::size_t at) {
    const double begin = static_cast<double>(pixel) * scale, place = static_cast<double>(at);
    return std::max(0.0, std::min(begin + scale, place + 1) - std::max(begin, place));
  };
  const auto first = [&](std::size_t pixel) { return static_cast<std::size_t>(static_cast<double>(pixel) * scale); };
  for (std::size_t y = 0; y < height; ++y)
    for (std::size_t x = 0; x < width; ++x)
      for (std::size_t channel = 0; channel < 3; ++channel) {
        double sum = 0;
        for (std::size_t from_y = first(y); from_y < picture.height && share(y, from_y) > 0; ++from_y)
          for (std::size_t from_x = first(x); from_x < picture.width && share(x, from_x) > 0; ++from_x)
            sum +=
                share(y, from_y) * share(x, from_x) * picture.pixels[(from_y * picture.width + from_x) * 3 + channel];
        result.pixels.push_back(static_cast<std::uint8_t>(std::lround(sum / (scale * scale))));
      }
  return result;
}

void run(const std::vector<std::string>& names, std::size_t columns, std::size_t wanted_width,
         const std::string& output) {
  std::vector<PngPicture> pictures;
  for (const std::string& name : names) {
    pictures.push_back(ebb::examples::read_png(name));
    const PngPicture &first = pictures.front(), &last = pictures.back();
    if (last.width != first.width || last.height != first.height)
      throw ebb::ShapeError(ebb::concat(name, ": expected ", first.width, " x ", first.height, " pixels as in ",
                                        names.front(), ", found ", last.width, " x ", last.height));
  }
  if (wanted_width > 0)
    for (PngPicture& picture : pictures) picture = shrunk(picture, wanted_width);
  const std::size_t width = pictures[0].width, height = pictures[0].height;
  const std::size_t across = std::min(columns, pictures.size()), rows = (pictures.size() + columns - 1) / columns;
  PngPicture sheet{
      .width = across * (width + line) + line, .height = rows * (height + line) + line, .pixels = {}, .text = {}};
  sheet.pixels.assign(sheet.width * sheet.height * 3, 255);
  for (std::size_t i = 0; i < pictures.size(); ++i)
    for (std::size_t y = 0; y < height; ++y) {
      const std::size_t top = i / columns * (height + line) + line + y, left = i % columns * (width + line) + line;
      std::copy_n(&pictures[i].pixels[y * width * 3], width * 3, &sheet.pixels[(top * sheet.width + left) * 3]);
    }
  ebb::examples::write_png(output, sheet.view());
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> pictures;
  std::size_t columns = 8, width = 0;
  std::string output = "sheet.png";
  CLI::App app("Puts PNG pictures of one size on one sheet.", "contact_sheet");
  app.add_option("pictures", pictures, "PNG files, row by row")->required();
  app.add_option("--columns", columns, "pictures in a row")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--width", width, "pixels to shrink each picture to")->check(CLI::PositiveNumber);
  app.add_option("--output", output, "PNG file to write")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    run(pictures, columns, width, output);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "contact_sheet: %s\n", error.what());
    return 1;
  }
}
