#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/video_sink.hpp"
#include "ebb/io/atomic_file.hpp"

namespace ebb::examples {

/// Luma and the two colour differences of one pixel, 8 bits each.
struct Yuv {
  std::uint8_t y, u, v;
};

namespace detail {

/// Rows of the matrix from full-range RGB to limited-range Y, Cb, Cr of BT.601, in 1/65536. The rows of Cb and Cr sum
/// to exactly 0, so that grey has no colour.
inline constexpr auto bt601 = [] {
  constexpr double one = 65536.0, red = 0.299, green = 0.587, blue = 0.114;
  constexpr double luma = one * 219 / 255, chroma = one * 224 / 255;
  const auto rounded = [](double value) { return static_cast<std::int32_t>(value < 0 ? value - 0.5 : value + 0.5); };
  std::array<std::array<std::int32_t, 3>, 3> rows{{
      {rounded(luma * red), rounded(luma * green), rounded(luma * blue)},
      {rounded(chroma * -0.5 * red / (1 - blue)), 0, rounded(chroma * 0.5)},
      {rounded(chroma * 0.5), 0, rounded(chroma * -0.5 * blue / (1 - red))},
  }};
  rows[1][1] = -rows[1][0] - rows[1][2];
  rows[2][1] = -rows[2][0] - rows[2][2];
  return rows;
}();

}  // namespace detail

/// BT.601, limited range (Y from 16 to 235, Cb and Cr from 16 to 240), rounded to nearest. Source: ITU-R BT.601, 2.5.
inline constexpr Yuv to_yuv(std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
  const auto row = [&](std::size_t index, std::int32_t offset) {
    const auto& [r, g, b] = detail::bt601[index];
    return static_cast<std::uint8_t>((r * red + g * green + b * blue + (offset << 16) + (1 << 15)) >> 16);
  };
  return {row(0, 16), row(1, 128), row(2, 128)};
}

/// Uncompressed video (YUV4MPEG2) that every video tool reads: 4:4:4, so no colour is lost to subsampling, and BT.601
/// in limited range, which readers assume because the format cannot name a matrix. Title and parameters have no place
/// in it.
class Y4mWriter final : public VideoSink {
 public:
  /// @throws ConfigError for a format out of range, FileError when the file cannot be created
  Y4mWriter(const std::filesystem::path& path, VideoFormat format) : VideoSink(path, std::move(format)), file_(path) {
    const auto [numerator, denominator] = this->format().frames_per_second;
    const std::string header = concat("YUV4MPEG2 W", this->format().width, " H", this->format().height, " F", numerator,
                                      ":", denominator, " Ip A1:1 C444 XCOLORRANGE=LIMITED\n");
    file_.write(header.data(), header.size());
  }

 private:
  void append(Image<const std::uint8_t> frame, std::size_t) override {
    const std::size_t pixels = frame.height * frame.width;
    planes_.resize(3 * pixels);
    for (std::size_t i = 0; i < pixels; ++i) {
      const std::uint8_t* rgb = frame.data + 3 * i;
      const Yuv yuv = to_yuv(rgb[0], rgb[1], rgb[2]);
      planes_[i] = yuv.y;
      planes_[pixels + i] = yuv.u;
      planes_[2 * pixels + i] = yuv.v;
    }
    file_.write("FRAME\n", 6);
    file_.write(std::as_bytes(std::span(planes_)));
  }
  void complete() override { file_.commit(); }

  AtomicFile file_;
  std::vector<std::uint8_t> planes_;
};

}  // namespace ebb::examples
