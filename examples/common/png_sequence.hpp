#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "common/png.hpp"
#include "common/video_sink.hpp"

namespace ebb::examples {

/// File names of numbered frames: "%04d.png" gives 0000.png, 0001.png, ...; "shot-%d.png" gives shot-0.png.
class FrameNames {
 public:
  /// `pattern` is a file name with one %d, or one %0Nd with N from 1 to 9. @throws ConfigError
  explicit FrameNames(std::string_view pattern) {
    const std::size_t begin = std::min(pattern.find('%'), pattern.size());
    std::string_view rest = pattern.substr(begin);
    if (rest.size() > 3 && rest[1] == '0' && rest[2] >= '1' && rest[2] <= '9' && rest[3] == 'd') {
      digits_ = static_cast<std::size_t>(rest[2] - '0');
      rest.remove_prefix(4);
    } else if (rest.starts_with("%d")) {
      rest.remove_prefix(2);
    } else {
      rest = "%";
    }
    if (rest.find('%') != std::string_view::npos || pattern.find('/') != std::string_view::npos ||
        !rest.ends_with(".png"))
      throw ConfigError(concat("\"", pattern, "\": expected one number, %d or %04d, in a name that ends in .png"));
    prefix_ = pattern.substr(0, begin);
    suffix_ = rest;
  }

  std::string operator()(std::size_t index) const {
    const std::string number = std::to_string(index);
    return prefix_ + std::string(digits_ - std::min(digits_, number.size()), '0') + number + suffix_;
  }

 private:
  std::string prefix_, suffix_;
  std::size_t digits_ = 1;
};

/// One PNG a frame, numbered from 0, each with title and parameters as its text. The frames wait in a folder of their
/// own until finish(), which gives them their names; a kill, or a second Ctrl-C, leaves that folder (its name ends in
/// `partial-<process id>`). In a directory that is there, files of the same names are replaced one by one, and others
/// stay.
class PngSequence final : public VideoSink {
 public:
  /// `path` is DIRECTORY/PATTERN (FrameNames), or DIRECTORY/ for DIRECTORY/%04d.png. A directory that is not there
  /// appears with finish(), whole; the one that it lies in must exist.
  /// @throws ConfigError for another pattern or a format out of range, FileError when the directory cannot be written
  PngSequence(const std::filesystem::path& path, VideoFormat format)
      : VideoSink(path, std::move(format)), names_(path.has_filename() ? path.filename().string() : "%04d.png") {
    std::error_code failure;
    const auto absolute = std::filesystem::absolute(path, failure);  // a later chdir must not matter
    if (failure) fail("cannot be written", failure);
    directory_ = absolute.parent_path();
    const auto status = std::filesystem::status(directory_, failure);
    if (std::filesystem::exists(status) && !std::filesystem::is_directory(status))
      fail("cannot be written", std::make_error_code(std::errc::not_a_directory));
    exists_ = std::filesystem::exists(status);
    make_staging();
  }
  ~PngSequence() override {
    std::error_code ignored;
    std::filesystem::remove_all(staging_, ignored);
  }

 private:
  void make_staging() {
    const std::string name = "partial-" + std::to_string(::getpid());
    const auto base = exists_ ? directory_ / name : std::filesystem::path(directory_.string() + "." + name);
    // Numbered when two sequences of this process share a directory, or a killed process of the same id left one.
    for (int attempt = 0; attempt < 100; ++attempt) {
      const auto candidate = attempt == 0 ? base : std::filesystem::path(base.string() + "-" + std::to_string(attempt));
      std::error_code failure;
      if (std::filesystem::create_directory(candidate, failure)) {
        staging_ = candidate;
        return;
      }
      if (failure) fail("cannot be created", failure);
    }
    fail("cannot be created", std::make_error_code(std::errc::file_exists));
  }

  void append(Image<const std::uint8_t> frame, std::size_t index) override {
    std::vector<PngText> text;
    if (!format().title.empty()) text.emplace_back("Title", format().title);
    if (!format().parameters.empty()) text.emplace_back("parameters", format().parameters);
    write_png(staging_ / names_(index), frame, text);
    frames_ = index + 1;
  }

  void complete() override {
    std::error_code failure;
    if (!exists_) {
      std::filesystem::rename(staging_, directory_, failure);
      if (!failure) return;
      std::error_code ignored;  // another sequence may have made the directory meanwhile
      if (!std::filesystem::is_directory(directory_, ignored)) fail("cannot be renamed into place", failure);
    }
    for (std::size_t index = 0; index < frames_; ++index) {
      std::filesystem::rename(staging_ / names_(index), directory_ / names_(index), failure);
      if (failure) fail("cannot be renamed into place", failure);
    }
    std::filesystem::remove(staging_, failure);
  }

  [[noreturn]] void fail(const char* what, const std::error_code& failure) const {
    throw FileError(concat(path().string(), ": ", what, ": ", failure.message()));
  }

  FrameNames names_;
  std::filesystem::path directory_;
  std::filesystem::path staging_;
  bool exists_ = false;
  std::size_t frames_ = 0;
};

}  // namespace ebb::examples
