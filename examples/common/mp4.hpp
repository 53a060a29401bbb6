#pragma once

#include <filesystem>
#include <memory>

#include "common/video_sink.hpp"

namespace ebb::examples {

/// Whether this program was built with FFmpeg: mp4_ffmpeg.cpp, or mp4_missing.cpp in its place.
bool mp4_available();

/// H.264 in MP4: 4:2:0, BT.709 in limited range, x264's preset medium at the format's quality, the index in front so
/// that a browser starts before it has all. Title and parameters become "title" and "comment". As many threads encode
/// on every machine, so that equal frames give an equal file wherever the libraries are the same.
/// @throws ConfigError for a format out of range, an odd width or height, or where FFmpeg or its H.264 encoder is
///   missing; FileError when the file cannot be created
std::unique_ptr<VideoSink> open_mp4(const std::filesystem::path& path, const VideoFormat& format);

}  // namespace ebb::examples
