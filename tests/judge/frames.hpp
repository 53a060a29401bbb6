#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "common/png.hpp"
#include "ebb/core/error.hpp"

namespace ebb::judge {

inline constexpr std::size_t most_frames = 1024;

namespace detail {

inline void check_frame(const std::filesystem::path& path, const examples::PngPicture& first,
                        const examples::PngPicture& frame) {
  if (frame.width != first.width || frame.height != first.height)
    throw ShapeError(concat(path.string(), ": expected ", first.width, " x ", first.height,
                            " pixels as in the first frame, found ", frame.width, " x ", frame.height));
}

inline std::vector<examples::PngPicture> read_png_frames(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> paths;
  std::error_code failure;
  for (std::filesystem::directory_iterator entry(directory, failure), end; !failure && entry != end;
       entry.increment(failure))
    if (entry->path().extension() == ".png") paths.push_back(entry->path());
  if (failure) throw FileError(concat(directory.string(), ": cannot be read: ", failure.message()));
  // 9.png comes before 10.png.
  std::sort(paths.begin(), paths.end(), [](const auto& a, const auto& b) {
    const std::string x = a.filename().string(), y = b.filename().string();
    return x.size() != y.size() ? x.size() < y.size() : x < y;
  });
  if (paths.size() > most_frames)
    throw FileError(concat(directory.string(), ": expected at most ", most_frames, " frames, found ", paths.size()));
  std::vector<examples::PngPicture> frames;
  for (const auto& path : paths) {
    frames.push_back(examples::read_png(path));
    check_frame(path, frames.front(), frames.back());
  }
  return frames;
}

/// sRGB of a sample of limited-range BT.601. Source: ITU-R BT.601, 2.5.
inline std::array<std::uint8_t, 3> rgb_of(std::uint8_t luma, std::uint8_t blue, std::uint8_t red) {
  const double y = 255 * (luma - 16) / 219.0, b = 255 * (blue - 128) / 224.0, r = 255 * (red - 128) / 224.0;
  const auto rounded = [](double value) {
    return static_cast<std::uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
  };
  return {rounded(y + 1.402 * r), rounded(y - (0.299 * 1.402 * r + 0.114 * 1.772 * b) / 0.587), rounded(y + 1.772 * b)};
}

inline std::vector<examples::PngPicture> read_y4m(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string header;
  if (!file || !std::getline(file, header)) throw FileError(concat(path.string(), ": cannot be read"));
  std::istringstream words(header);
  std::string word;
  words >> word;
  if (word != "YUV4MPEG2") throw FileError(concat(path.string(), ": no Y4M video: expected YUV4MPEG2"));
  std::size_t width = 0, height = 0;
  std::string chroma = "420";  // the format's default
  while (words >> word) {
    const std::string_view value = std::string_view(word).substr(1);
    const auto read = [&](std::size_t& number) { std::from_chars(value.data(), value.data() + value.size(), number); };
    if (word[0] == 'W') read(width);
    if (word[0] == 'H') read(height);
    if (word[0] == 'C') chroma = value;
  }
  if (width < 1 || height < 1 || width > 4096 || height > 4096)
    throw FileError(concat(path.string(), ": expected W and H from 1 to 4096, found \"", header, '"'));
  if (chroma != "444") throw FileError(concat(path.string(), ": expected C444 as wan writes it, found C", chroma));
  std::vector<examples::PngPicture> frames;
  const std::size_t pixels = width * height;
  std::vector<std::uint8_t> planes(3 * pixels);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("FRAME"))
      throw FileError(concat(path.string(), ": frame ", frames.size(), ": expected FRAME"));
    if (frames.size() == most_frames)
      throw FileError(concat(path.string(), ": expected at most ", most_frames, " frames"));
    if (!file.read(reinterpret_cast<char*>(planes.data()), static_cast<std::streamsize>(planes.size())))
      throw FileError(concat(path.string(), ": frame ", frames.size(), ": the file ends within it"));
    examples::PngPicture frame{
        .width = width, .height = height, .pixels = std::vector<std::uint8_t>(3 * pixels), .text = {}};
    for (std::size_t i = 0; i < pixels; ++i) {
      const auto rgb = rgb_of(planes[i], planes[pixels + i], planes[2 * pixels + i]);
      std::copy(rgb.begin(), rgb.end(), &frame.pixels[3 * i]);
    }
    frames.push_back(std::move(frame));
  }
  return frames;
}

}  // namespace detail

/// Whether a path names a video: a directory, or a file that ends in .y4m.
inline bool is_video(const std::filesystem::path& path) {
  return path.extension() == ".y4m" || std::filesystem::is_directory(path);
}

/// The frames of a directory of PNG files, in the order of their numbers, or of a Y4M video.
/// @throws FileError, ShapeError for frames of several sizes
inline std::vector<examples::PngPicture> read_frames(const std::filesystem::path& path) {
  auto frames = path.extension() == ".y4m" ? detail::read_y4m(path) : detail::read_png_frames(path);
  if (frames.empty()) throw FileError(concat(path.string(), ": expected frames, found none"));
  return frames;
}

}  // namespace ebb::judge
