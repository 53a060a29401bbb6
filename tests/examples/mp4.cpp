#include "common/mp4.hpp"

#include <doctest/doctest.h>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "support/file_size_limit.hpp"
#include "support/moving_shapes.hpp"
#include "support/temporary_directory.hpp"
#ifdef EBB_TEST_FFMPEG
#include "support/ffmpeg_reader.hpp"
#endif

namespace {

using ebb::examples::mp4_available;
using ebb::examples::open_mp4;
using ebb::examples::Rational;
using ebb::examples::VideoFormat;
using ebb::testing::first_missing;
using ebb::testing::message_of;
using ebb::testing::moving_shapes;
using ebb::testing::TemporaryDirectory;
namespace fs = std::filesystem;

#ifndef EBB_TEST_FFMPEG

TEST_CASE("a program without FFmpeg says what to do") {
  const TemporaryDirectory directory;
  CHECK_FALSE(mp4_available());
  const auto message = message_of<ebb::ConfigError>([&] { open_mp4(directory / "out.mp4", VideoFormat{64, 48}); });
  CHECK(first_missing(message, {"out.mp4", "libavformat-dev", ".y4m"}) == "");
  CHECK(directory.files() == 0);
}

#else

constexpr std::size_t width = 208, height = 112, frames = 9;

void write_video(const fs::path& path, const VideoFormat& format) {
  const auto sink = open_mp4(path, format);
  for (std::size_t t = 0; t < frames; ++t) sink->write(moving_shapes(format.width, format.height, t).view());
  CHECK_FALSE(fs::exists(path));
  sink->finish();
}

/// The names of the boxes at a file's top.
std::vector<std::string> boxes(const std::string& bytes) {
  std::vector<std::string> names;
  for (std::size_t at = 0; at + 8 <= bytes.size();) {
    std::size_t size = 0;
    for (std::size_t i = 0; i < 4; ++i) size = size << 8 | static_cast<std::uint8_t>(bytes[at + i]);
    names.push_back(bytes.substr(at + 4, 4));
    if (size < 8) break;
    at += size;
  }
  return names;
}

TEST_CASE("FFmpeg decodes what was written, with its rate, colours and description") {
  CHECK(mp4_available());
  const TemporaryDirectory directory;
  const std::string parameters = "a caf\u00e9, \u732b\nNegative prompt: blur\nSteps: 50, Seed: 1";
  for (const Rational rate : {Rational{16, 1}, Rational{30000, 1001}}) {
    CAPTURE(rate.numerator);
    const auto path = directory / (std::to_string(rate.numerator) + ".mp4");
    write_video(path, VideoFormat{width, height, rate, 18, "a caf\u00e9", parameters});
    const auto video = ebb::testing::decode_video(path);
    CHECK(video.rate.num == rate.numerator);
    CHECK(video.rate.den == rate.denominator);
    CHECK(video.seconds == doctest::Approx(9.0 * rate.denominator / rate.numerator).epsilon(0.01));
    CHECK(video.pixels == AV_PIX_FMT_YUV420P);
    CHECK(video.matrix == AVCOL_SPC_BT709);
    CHECK(video.primaries == AVCOL_PRI_BT709);
    CHECK(video.transfer == AVCOL_TRC_BT709);
    CHECK(video.range == AVCOL_RANGE_MPEG);
    CHECK(video.metadata.at("title") == "a caf\u00e9");
    CHECK(video.metadata.at("comment") == parameters);
    REQUIRE(video.frames.size() == frames);
    for (std::size_t t = 0; t < frames; ++t) {
      CAPTURE(t);
      CHECK(video.frames[t].width == width);
      CHECK(video.frames[t].height == height);
      CHECK(ebb::testing::psnr(video.frames[t].rgb, moving_shapes(width, height, t).rgb) >= 35);
    }
  }
  CHECK(directory.files() == 2);
}

TEST_CASE("the index comes first") {
  const TemporaryDirectory directory;
  write_video(directory / "out.mp4", VideoFormat{width, height});
  const auto found = boxes(TemporaryDirectory::read(directory / "out.mp4"));
  CHECK(found == std::vector<std::string>{"ftyp", "moov", "free", "mdat"});
}

TEST_CASE("colours are those of BT.709 in limited range") {
  const TemporaryDirectory directory;
  struct Color {
    std::array<std::uint8_t, 3> rgb;
    std::array<int, 3> yuv;
  };
  for (const Color& color :
       {Color{{0, 0, 0}, {16, 128, 128}}, Color{{255, 255, 255}, {235, 128, 128}}, Color{{255, 0, 0}, {63, 102, 240}},
        Color{{0, 255, 0}, {173, 42, 26}}, Color{{0, 0, 255}, {32, 240, 118}}}) {
    const auto sink = open_mp4(directory / "out.mp4", VideoFormat{64, 48, {16, 1}, 1});
    sink->write(ebb::testing::solid(64, 48, color.rgb).view());
    sink->finish();
    const auto video = ebb::testing::decode_video(directory / "out.mp4");
    REQUIRE(video.first_samples.size() == 1);
    CHECK(video.seconds == doctest::Approx(1 / 16.0).epsilon(0.01));  // an MP4 counts milliseconds
    for (std::size_t c = 0; c < 3; ++c) {
      CAPTURE(c);
      CHECK(video.first_samples[0][c] >= color.yuv[c] - 1);
      CHECK(video.first_samples[0][c] <= color.yuv[c] + 1);
    }
  }
}

TEST_CASE("equal frames give equal files, and a lower quality a smaller one") {
  const TemporaryDirectory directory;
  write_video(directory / "a.mp4", VideoFormat{width, height});
  write_video(directory / "b.mp4", VideoFormat{width, height});
  write_video(directory / "c.mp4", VideoFormat{width, height, {16, 1}, 40});
  CHECK(TemporaryDirectory::read(directory / "a.mp4") == TemporaryDirectory::read(directory / "b.mp4"));
  CHECK(fs::file_size(directory / "c.mp4") < fs::file_size(directory / "a.mp4"));
}

TEST_CASE("a size that is no multiple of a macroblock, and a path that looks like an address") {
  const TemporaryDirectory directory;
  const auto folder = directory / "http:x";
  fs::create_directory(folder);
  write_video(folder / "50%.mp4", VideoFormat{50, 34});
  const auto video = ebb::testing::decode_video(folder / "50%.mp4");
  REQUIRE(video.frames.size() == frames);
  CHECK(video.frames[0].width == 50);
  CHECK(video.frames[0].height == 34);
}

TEST_CASE("odd sizes are refused before a file is made") {
  const TemporaryDirectory directory;
  for (const auto& format : {VideoFormat{49, 34}, VideoFormat{50, 33}}) {
    const auto message = message_of<ebb::ConfigError>([&] { open_mp4(directory / "out.mp4", format); });
    CHECK(first_missing(message, {"out.mp4", "even", ".y4m"}) == "");
  }
  CHECK_THROWS_AS(open_mp4(directory / "out.mp4", VideoFormat{0, 0}), ebb::ConfigError);
  CHECK(directory.files() == 0);
}

TEST_CASE("a full disk is an error that names the file and the reason, wherever it fills") {
  const TemporaryDirectory directory;
  write_video(directory / "whole.mp4", VideoFormat{width, height});
  const auto whole = fs::file_size(directory / "whole.mp4");
  const std::string before = TemporaryDirectory::read(directory.write("out.mp4", "previous"));
  for (const auto limit_bytes : {std::uintmax_t{0}, std::uintmax_t{40}, whole / 2, whole - 1}) {
    CAPTURE(limit_bytes);
    const auto message = message_of<ebb::FileError>([&] {
      const ebb::testing::FileSizeLimit limit(limit_bytes);
      const auto sink = open_mp4(directory / "out.mp4", VideoFormat{width, height});
      for (std::size_t t = 0; t < frames; ++t) sink->write(moving_shapes(width, height, t).view());
      sink->finish();
    });
    CHECK(first_missing(message, {"out.mp4: cannot be written: File too large"}) == "");
    CHECK(directory.files() == 2);
    CHECK(TemporaryDirectory::read(directory / "out.mp4") == before);
  }
}

#endif

}  // namespace
