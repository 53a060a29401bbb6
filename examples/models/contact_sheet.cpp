// Puts pictures of one size beside each other on one sheet, in rows, with white lines between them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "common/png.hpp"

namespace {

constexpr std::size_t line = 4;

void run(const std::vector<std::string>& names, std::size_t columns, const std::string& output) {
  using ebb::examples::PngPicture;
  std::vector<PngPicture> pictures;
  for (const std::string& name : names) {
    pictures.push_back(ebb::examples::read_png(name));
    const PngPicture &first = pictures.front(), &last = pictures.back();
    if (last.width != first.width || last.height != first.height)
      throw ebb::ShapeError(ebb::concat(name, ": expected ", first.width, " x ", first.height, " pixels as in ",
                                        names.front(), ", found ", last.width, " x ", last.height));
  }
  const std::size_t width = pictures[0].width, height = pictures[0].height;
  const std::size_t across = std::min(columns, pictures.size()), rows = (pictures.size() + columns - 1) / columns;
  PngPicture sheet{.width = across * (width + line) + line, .height = rows * (height + line) + line, .pixels = {}, .text = {}};
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
  std::size_t columns = 8;
  std::string output = "sheet.png";
  CLI::App app("Puts PNG pictures of one size on one sheet.", "contact_sheet");
  app.add_option("pictures", pictures, "PNG files, row by row")->required();
  app.add_option("--columns", columns, "pictures in a row")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--output", output, "PNG file to write")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    run(pictures, columns, output);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "contact_sheet: %s\n", error.what());
    return 1;
  }
}
