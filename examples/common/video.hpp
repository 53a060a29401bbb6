#pragma once

#include <filesystem>
#include <memory>

#include "common/mp4.hpp"
#include "common/png_sequence.hpp"
#include "common/video_sink.hpp"
#include "common/y4m.hpp"

namespace ebb::examples {

/// Opens what the path's name says: FILE.mp4 (open_mp4), FILE.y4m (Y4mWriter), numbered PNG files for a pattern such as
/// frames/%04d.png or a directory that ends in '/' (PngSequence).
/// @throws ConfigError for any other name or a format that the file cannot hold, FileError when it cannot be created
inline std::unique_ptr<VideoSink> open_video(const std::filesystem::path& path, const VideoFormat& format) {
  const auto extension = path.extension();
  const bool directory = !path.has_filename() && path.has_relative_path();
  if (directory || extension == ".png") return std::make_unique<PngSequence>(path, format);
  if (extension == ".mp4") return open_mp4(path, format);
  if (extension == ".y4m") return std::make_unique<Y4mWriter>(path, format);
  throw ConfigError(concat("\"", path.string(), "\": expected FILE.mp4, FILE.y4m, a pattern for PNG frames such as ",
                           "frames/%04d.png, or a directory for them that ends in '/'"));
}

}  // namespace ebb::examples
