#include "common/y4m.hpp"

#include <doctest/doctest.h>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "support/file_size_limit.hpp"
#include "support/moving_shapes.hpp"
#include "support/temporary_directory.hpp"
#ifdef EBB_TEST_FFMPEG
#include "support/ffmpeg_reader.hpp"
#endif

namespace {

using ebb::examples::to_yuv;
using ebb::examples::VideoFormat;
using ebb::examples::Y4mWriter;
using ebb::testing::first_missing;
using ebb::testing::Frame;
using ebb::testing::message_of;
using ebb::testing::moving_shapes;
using ebb::testing::TemporaryDirectory;

std::array<int, 3> yuv(std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
  const auto [y, u, v] = to_yuv(red, green, blue);
  return {y, u, v};
}

/// BT.601's own formula, backwards, in floating point.
std::array<double, 3> rgb_of(std::array<int, 3> sample) {
  const double y = (sample[0] - 16) / 219.0, b = (sample[1] - 128) / 224.0, r = (sample[2] - 128) / 224.0;
  const double red = y + 1.402 * r, blue = y + 1.772 * b;
  return {255 * red, 255 * (y - 0.299 * red - 0.114 * blue) / 0.587, 255 * blue};
}

TEST_CASE("colours are those of BT.601") {
  CHECK(yuv(0, 0, 0) == std::array{16, 128, 128});
  CHECK(yuv(255, 255, 255) == std::array{235, 128, 128});
  CHECK(yuv(255, 0, 0) == std::array{81, 90, 240});
  CHECK(yuv(0, 255, 0) == std::array{145, 54, 34});
  CHECK(yuv(0, 0, 255) == std::array{41, 240, 110});
  for (int grey = 0; grey < 256; ++grey) {
    const auto value = static_cast<std::uint8_t>(grey);
    CHECK(yuv(value, value, value) == std::array{static_cast<int>(std::lround(16 + grey * 219 / 255.0)), 128, 128});
  }
}

TEST_CASE("no colour comes back further away than rounding allows") {
  // Half a step of Y (255/219) and half a step of Cr or Cb (255/224, times 1.402 or 1.772) at the most: 1.4, 1.2, 1.6;
  // the coefficients' own rounding is below 0.01.
  std::array<double, 3> largest{};
  for (int red = 0; red < 256; red += 3)
    for (int green = 0; green < 256; green += 3)
      for (int blue = 0; blue < 256; ++blue) {
        const auto back = rgb_of(
            yuv(static_cast<std::uint8_t>(red), static_cast<std::uint8_t>(green), static_cast<std::uint8_t>(blue)));
        const std::array<int, 3> given{red, green, blue};
        for (std::size_t c = 0; c < 3; ++c) largest[c] = std::max(largest[c], std::abs(back[c] - given[c]));
      }
  CHECK(largest[0] < 1.39);
  CHECK(largest[1] < 1.19);
  CHECK(largest[2] < 1.60);
}

TEST_CASE("header, frames and planes are where the format has them") {
  const TemporaryDirectory directory;
  constexpr std::size_t width = 37, height = 21, frames = 9, plane = width * height;
  Y4mWriter writer(directory / "out.y4m", VideoFormat{width, height, {30000, 1001}, 18, "a title", "parameters"});
  for (std::size_t t = 0; t < frames; ++t) writer.write(moving_shapes(width, height, t).view());
  writer.finish();
  CHECK(directory.files() == 1);
  std::string bytes = TemporaryDirectory::read(directory / "out.y4m");
  const std::string header = "YUV4MPEG2 W37 H21 F30000:1001 Ip A1:1 C444 XCOLORRANGE=LIMITED\n";
  REQUIRE(bytes.starts_with(header));
  bytes.erase(0, header.size());
  REQUIRE(bytes.size() == frames * (6 + 3 * plane));
  for (std::size_t t = 0; t < frames; ++t) {
    const std::string frame = bytes.substr(t * (6 + 3 * plane), 6 + 3 * plane);
    REQUIRE(frame.starts_with("FRAME\n"));
    const Frame given = moving_shapes(width, height, t);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < plane; ++i) {
      const auto at = [&](std::size_t p) { return int{static_cast<std::uint8_t>(frame[6 + p * plane + i])}; };
      wrong += yuv(given.rgb[3 * i], given.rgb[3 * i + 1], given.rgb[3 * i + 2]) != std::array{at(0), at(1), at(2)};
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("a full disk is an error that names the file and the reason, and leaves nothing behind") {
  const TemporaryDirectory directory;
  const Frame frame = moving_shapes(64, 48, 0);
  {
    Y4mWriter writer(directory / "out.y4m", VideoFormat{64, 48});
    const ebb::testing::FileSizeLimit limit(1000);
    const auto message = message_of<ebb::FileError>([&] { writer.write(frame.view()); });
    CHECK(first_missing(message, {"out.y4m: cannot be written: File too large"}) == "");
    CHECK_THROWS_AS(writer.finish(), ebb::Error);
  }
  CHECK(directory.files() == 0);
}

#ifdef EBB_TEST_FFMPEG
TEST_CASE("FFmpeg reads the frames, and takes their colours for what they are") {
  const TemporaryDirectory directory;
  Y4mWriter writer(directory / "out.y4m", VideoFormat{38, 22, {16, 1}});
  for (std::size_t t = 0; t < 9; ++t) writer.write(moving_shapes(38, 22, t).view());
  writer.finish();
  const auto video = ebb::testing::decode_video(directory / "out.y4m");
  CHECK(video.rate.num == 16);
  CHECK(video.rate.den == 1);
  CHECK(video.pixels == AV_PIX_FMT_YUV444P);
  CHECK(video.range == AVCOL_RANGE_MPEG);
  REQUIRE(video.frames.size() == 9);
  for (std::size_t t = 0; t < 9; ++t) {
    const Frame given = moving_shapes(38, 22, t);
    int largest = 0;
    REQUIRE(video.frames[t].rgb.size() == given.rgb.size());
    for (std::size_t i = 0; i < given.rgb.size(); ++i)
      largest = std::max(largest, std::abs(int{video.frames[t].rgb[i]} - int{given.rgb[i]}));
    CHECK(largest <= 3);  // two of the rounding above and one of FFmpeg's
  }
}
#endif

}  // namespace
