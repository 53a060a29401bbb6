#include "common/png_sequence.hpp"

#include <doctest/doctest.h>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "support/file_size_limit.hpp"
#include "support/moving_shapes.hpp"
#include "support/temporary_directory.hpp"

namespace {

using ebb::examples::FrameNames;
using ebb::examples::PngSequence;
using ebb::examples::PngText;
using ebb::examples::read_png;
using ebb::examples::VideoFormat;
using ebb::testing::first_missing;
using ebb::testing::message_of;
using ebb::testing::moving_shapes;
using ebb::testing::TemporaryDirectory;
namespace fs = std::filesystem;

constexpr std::size_t width = 37, height = 21;

void write_frames(PngSequence& sequence, std::size_t count) {
  for (std::size_t t = 0; t < count; ++t) sequence.write(moving_shapes(width, height, t).view());
}

std::size_t entries(const fs::path& directory) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

TEST_CASE("names count up from 0 and keep their digits") {
  CHECK(FrameNames("%d.png")(0) == "0.png");
  CHECK(FrameNames("shot-%d-.png")(12) == "shot-12-.png");
  CHECK(FrameNames("%04d.png")(7) == "0007.png");
  CHECK(FrameNames("a%02d.png")(123) == "a123.png");
  for (const char* bad : {"x.png", "", "%s.png", "%.png", "%4d.png", "%00d.png", "%012d.png", "%d%d.png", "%d%n.png",
                          "%%d.png", "%d.jpg", "%d", "%04dpng", "a/%d.png"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(FrameNames{bad}, ebb::ConfigError);
  }
}

TEST_CASE("frames come back exactly, with their text, after finish and not before") {
  const TemporaryDirectory directory;
  const VideoFormat format{width, height, {16, 1}, 18, "a cat", "a cat\nSteps: 4"};
  const auto whole = [&](const fs::path& folder) {
    for (std::size_t t = 0; t < 9; ++t) {
      const auto frame = read_png(folder / ("000" + std::to_string(t) + ".png"));
      CHECK(frame.width == width);
      CHECK(frame.pixels == moving_shapes(width, height, t).rgb);
      CHECK(frame.text == std::vector<PngText>{{"Title", "a cat"}, {"parameters", "a cat\nSteps: 4"}});
    }
  };
  SUBCASE("a directory that appears") {
    PngSequence sequence(directory / "new/", format);
    write_frames(sequence, 9);
    CHECK_FALSE(fs::exists(directory / "new"));
    sequence.finish();
    whole(directory / "new");
    CHECK(entries(directory / "new") == 9);
    CHECK(entries(directory.path()) == 1);
  }
  SUBCASE("one that is there, with frames of an earlier video") {
    fs::create_directory(directory / "old");
    directory.write("old/0001.png", "earlier");
    directory.write("old/0042.png", "earlier");
    PngSequence sequence(directory / "old/%04d.png", format);
    write_frames(sequence, 9);
    CHECK_FALSE(fs::exists(directory / "old/0000.png"));
    CHECK(TemporaryDirectory::read(directory / "old/0001.png") == "earlier");
    sequence.finish();
    whole(directory / "old");
    CHECK(TemporaryDirectory::read(directory / "old/0042.png") == "earlier");
    CHECK(entries(directory / "old") == 10);
  }
}

TEST_CASE("without finish, and where it cannot write, nothing is left") {
  const TemporaryDirectory directory;
  fs::create_directory(directory / "old");
  for (const char* name : {"new/", "old/", "old/%d.png"}) {
    CAPTURE(name);
    PngSequence sequence(directory / name, VideoFormat{width, height});
    write_frames(sequence, 2);
    const ebb::testing::FileSizeLimit limit(100);
    const auto message = message_of<ebb::FileError>([&] { write_frames(sequence, 1); });
    CHECK(first_missing(message, {"cannot be written: File too large"}) == "");
    CHECK_THROWS_AS(sequence.finish(), ebb::Error);
  }
  CHECK(entries(directory.path()) == 1);
  CHECK(entries(directory / "old") == 0);

  directory.write("file", "");
  const auto opened = [&](const fs::path& path) {
    return message_of<ebb::FileError>([&] { PngSequence(path, VideoFormat{width, height}); });
  };
  CHECK(first_missing(opened(directory / "file/%d.png"), {"file/%d.png", "Not a directory"}) == "");
  CHECK(first_missing(opened(directory / "missing/frames/"), {"missing/frames/", "No such file"}) == "");
  CHECK(first_missing(opened("/dev/full/"), {"/dev/full/", "Not a directory"}) == "");
}

TEST_CASE("two sequences of one process share a directory") {
  const TemporaryDirectory directory;
  PngSequence first(directory / "a%d.png", VideoFormat{width, height});
  PngSequence second(directory / "b%d.png", VideoFormat{width, height});
  write_frames(first, 1);
  write_frames(second, 2);
  first.finish();
  second.finish();
  CHECK(fs::exists(directory / "a0.png"));
  CHECK(fs::exists(directory / "b1.png"));
}

TEST_CASE("two sequences of one process share a directory that appears") {
  const TemporaryDirectory directory;
  PngSequence first(directory / "new/a%d.png", VideoFormat{width, height});
  PngSequence second(directory / "new/b%d.png", VideoFormat{width, height});
  write_frames(first, 1);
  write_frames(second, 2);
  first.finish();
  CHECK(entries(directory / "new") == 1);
  second.finish();
  CHECK(entries(directory / "new") == 3);
  CHECK(read_png(directory / "new/b1.png").pixels == moving_shapes(width, height, 1).rgb);
  CHECK(entries(directory.path()) == 1);
}

}  // namespace
