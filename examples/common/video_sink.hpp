#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "ebb/core/error.hpp"
#include "ebb/core/view.hpp"

namespace ebb::examples {

/// A positive fraction.
struct Rational {
  int numerator = 1;
  int denominator = 1;
};

/// What a video file is told before its first frame.
struct VideoFormat {
  std::size_t width = 0;
  std::size_t height = 0;
  Rational frames_per_second = {16, 1};
  int quality = 18;             ///< .mp4 only: the constant rate factor of x264, from 1 (best, largest) to 51
  std::string title = {};       ///< UTF-8, stored where the format has a place for it: the prompt
  std::string parameters = {};  ///< UTF-8, likewise: how the video was made, in the words of a PNG's "parameters"
};

/// Takes the frames of one video in their order. Nothing has the video's name before finish() has returned; a sink that
/// dies without finish() leaves nothing.
class VideoSink {
 public:
  VideoSink(const VideoSink&) = delete;
  VideoSink& operator=(const VideoSink&) = delete;
  virtual ~VideoSink() = default;

  const std::filesystem::path& path() const { return path_; }
  const VideoFormat& format() const { return format_; }

  /// The next frame, [1, height, width, 3], 8 bits of sRGB; copied before the call returns.
  /// @throws ShapeError for another size, after which the video goes on; FileError when it cannot be written, after
  ///   which it cannot be finished
  void write(Image<const std::uint8_t> frame) {
    require(state_ == State::open, "VideoSink::write: the video is finished, or failed before");
    if (frame.batch != 1 || frame.height != format_.height || frame.width != format_.width || frame.channels != 3)
      throw ShapeError(concat(path_.string(), ": frame ", frames_, ": expected [1, ", format_.height, ", ",
                              format_.width, ", 3], found [", frame.batch, ", ", frame.height, ", ", frame.width, ", ",
                              frame.channels, "]"));
    state_ = State::closed;
    append(frame, frames_++);
    state_ = State::open;
  }

  /// Completes the video and gives it its name. @throws FileError, after which the name is as it was before
  void finish() {
    require(state_ == State::open, "VideoSink::finish: the video is finished, or failed before");
    require(frames_ > 0, "VideoSink::finish: a video has at least one frame");
    state_ = State::closed;
    complete();
  }

 protected:
  /// @throws ConfigError for values that no format takes
  VideoSink(std::filesystem::path path, VideoFormat format) : path_(std::move(path)), format_(std::move(format)) {
    const auto fail = [&](const auto&... parts) { throw ConfigError(concat(path_.string(), ": ", parts...)); };
    if (format_.width < 1 || format_.height < 1 || format_.width > maximum_side || format_.height > maximum_side)
      fail("expected frames with sides from 1 to ", maximum_side, ", found ", format_.width, " x ", format_.height);
    const auto [numerator, denominator] = format_.frames_per_second;
    if (numerator < 1 || denominator < 1 || numerator > maximum_rate_part || denominator > maximum_rate_part)
      fail("expected frames per second as a fraction of numbers from 1 to ", maximum_rate_part, ", found ", numerator,
           "/", denominator);
    if (format_.quality < 1 || format_.quality > 51)
      fail("expected a quality from 1 (best) to 51, found ", format_.quality);
    for (const std::string* text : {&format_.title, &format_.parameters})
      if (text->find('\0') != std::string::npos) fail("title and parameters cannot contain a NUL character");
  }

 private:
  enum class State { open, closed };
  static constexpr std::size_t maximum_side = 16384;
  static constexpr int maximum_rate_part = 1'000'000;

  virtual void append(Image<const std::uint8_t> frame, std::size_t index) = 0;
  virtual void complete() = 0;

  std::filesystem::path path_;
  VideoFormat format_;
  std::size_t frames_ = 0;
  State state_ = State::open;
};

}  // namespace ebb::examples
