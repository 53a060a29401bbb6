#include "judge/frames.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/y4m.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;

namespace {

/// Frame number `n` of a gradient in all colours.
examples::PngPicture gradient(std::size_t n, std::size_t width = 40, std::size_t height = 32) {
  examples::PngPicture picture{.width = width, .height = height, .pixels = {}, .text = {}};
  for (std::size_t i = 0; i < width * height; ++i)
    for (const std::size_t value : {6 * (i % width), 7 * (i / width), 10 * n})
      picture.pixels.push_back(static_cast<std::uint8_t>(value));
  return picture;
}

std::string refusal(const std::filesystem::path& path) {
  try {
    (void)judge::read_frames(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("a directory's frames come in the order of their numbers") {
  const testing::TemporaryDirectory directory;
  for (const std::size_t n : {10, 0, 9, 2})
    examples::write_png(directory.path() / (std::to_string(n) + ".png"), gradient(n).view());
  std::ofstream(directory.path() / "notes.txt") << "no frame";
  const auto frames = judge::read_frames(directory.path());
  REQUIRE(frames.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) CHECK(frames[i].pixels == gradient(std::array{0, 2, 9, 10}[i]).pixels);
}

TEST_CASE("a Y4M video comes back but for rounding") {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "video.y4m";
  {
    examples::Y4mWriter writer(path, {.width = 40, .height = 32, .frames_per_second = {8, 1}});
    for (std::size_t n = 0; n < 3; ++n) writer.write(gradient(n).view());
    writer.finish();
  }
  const auto frames = judge::read_frames(path);
  REQUIRE(frames.size() == 3);
  for (std::size_t n = 0; n < 3; ++n) {
    REQUIRE(frames[n].pixels.size() == gradient(n).pixels.size());
    int largest = 0;
    for (std::size_t i = 0; i < frames[n].pixels.size(); ++i)
      largest = std::max(largest, std::abs(frames[n].pixels[i] - gradient(n).pixels[i]));
    CHECK(largest <= 2);
  }
}

TEST_CASE("what is no video") {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "video.y4m";
  const auto with = [&](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    return refusal(path);
  };
  const std::string frame(3 * 4, 'x');
  CHECK(with("YUV4MPEG2 W2 H2 F8:1 C444\nFRAME\n" + frame) == "accepted");
  CHECK(with("YUV4MPEG2 W2 H2 F8:1 C444\n").ends_with("expected frames, found none"));
  CHECK(with("YUV4MPEG2 W2 H2 F8:1 C444\nFRAME\n" + frame + "FRAME\nxx").ends_with("frame 1: the file ends within it"));
  CHECK(with("YUV4MPEG2 W2 H2 F8:1 C444\nFRAME\n" + frame + "xx\n").ends_with("frame 1: expected FRAME"));
  CHECK(with("YUV4MPEG2 W2 H2 F8:1\nFRAME\n" + frame).ends_with("expected C444 as wan writes it, found C420"));
  CHECK(with("YUV4MPEG2 W2 C444\nFRAME\n").find("expected W and H from 1 to 4096") != std::string::npos);
  CHECK(with("YUV4MPEG2 W99999999999999999999 H2 C444\n").find("expected W and H") != std::string::npos);
  CHECK(with("YUV4MPEG2 W-2 H2 C444\n").find("expected W and H") != std::string::npos);
  CHECK(with("RIFF").ends_with("expected YUV4MPEG2"));
  CHECK(with("").ends_with("cannot be read"));
  CHECK(refusal(directory.path() / "none.y4m").ends_with("cannot be read"));

  const auto frames = directory.path() / "frames";
  std::filesystem::create_directory(frames);
  CHECK(refusal(frames).ends_with("expected frames, found none"));
  examples::write_png(frames / "0.png", gradient(0).view());
  examples::write_png(frames / "1.png", gradient(1, 41).view());
  CHECK(refusal(frames).ends_with("1.png: expected 40 x 32 pixels as in the first frame, found 41 x 32"));
  CHECK_FALSE(judge::is_video(frames / "0.png"));
  CHECK(judge::is_video(frames));
  CHECK(judge::is_video(path));
}
