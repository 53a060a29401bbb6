#include "common/video.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "common/interrupt.hpp"
#include "support/moving_shapes.hpp"
#include "support/temporary_directory.hpp"

namespace {

using ebb::examples::open_video;
using ebb::examples::VideoFormat;
using ebb::testing::first_missing;
using ebb::testing::message_of;
using ebb::testing::moving_shapes;
using ebb::testing::TemporaryDirectory;
namespace fs = std::filesystem;

constexpr std::size_t width = 64, height = 48;

/// A name of each kind that this program writes.
std::vector<std::string> names() {
  std::vector<std::string> kinds{"out.y4m", "frames/", "%04d.png"};
  if (ebb::examples::mp4_available()) kinds.emplace_back("out.mp4");
  return kinds;
}

TEST_CASE("the name decides what is written") {
  const TemporaryDirectory directory;
  for (const std::string& name : names()) {
    CAPTURE(name);
    const auto sink = open_video(directory / name, VideoFormat{width, height});
    CHECK(sink->path() == directory / name);
    sink->write(moving_shapes(width, height, 0).view());
    sink->finish();
  }
  CHECK(TemporaryDirectory::read(directory / "out.y4m").starts_with("YUV4MPEG2 "));
  CHECK(TemporaryDirectory::read(directory / "frames/0000.png").starts_with("\x89PNG"));
  CHECK(TemporaryDirectory::read(directory / "0000.png").starts_with("\x89PNG"));
  if (ebb::examples::mp4_available()) CHECK(TemporaryDirectory::read(directory / "out.mp4").substr(4, 4) == "ftyp");
  CHECK(directory.files() == names().size());
}

TEST_CASE("other names are refused") {
  const TemporaryDirectory directory;
  for (const char* name : {"out.avi", "out", "out.MP4", ".mp4", "out.png", "%04d.jpg"}) {
    CAPTURE(name);
    CHECK_THROWS_AS(open_video(directory / name, VideoFormat{width, height}), ebb::ConfigError);
  }
  const auto message = message_of<ebb::ConfigError>([] { open_video("out.avi", VideoFormat{width, height}); });
  CHECK(first_missing(message, {"\"out.avi\"", ".mp4", ".y4m", "%04d.png"}) == "");
  CHECK_THROWS_AS(open_video("", VideoFormat{width, height}), ebb::ConfigError);
  CHECK_THROWS_AS(open_video("/", VideoFormat{width, height}), ebb::ConfigError);
  CHECK(directory.files() == 0);
}

TEST_CASE("formats out of range are refused before a file is made") {
  const TemporaryDirectory directory;
  for (const std::string& name : names()) {
    CAPTURE(name);
    const std::vector<VideoFormat> bad{{0, height},
                                       {width, 0},
                                       {16386, height},
                                       {width, height, {0, 1}},
                                       {width, height, {16, 0}},
                                       {width, height, {-16, -1}},
                                       {width, height, {1'000'001, 1}},
                                       {width, height, {16, 1}, 0},
                                       {width, height, {16, 1}, 52},
                                       {width, height, {16, 1}, 18, std::string("a\0b", 3)},
                                       {width, height, {16, 1}, 18, "", std::string("a\0b", 3)}};
    for (const VideoFormat& format : bad) CHECK_THROWS_AS(open_video(directory / name, format), ebb::ConfigError);
  }
  CHECK(directory.files() == 0);
}

TEST_CASE("a frame of another size is refused and the video goes on") {
  const TemporaryDirectory directory;
  const auto sink = open_video(directory / "out.y4m", VideoFormat{width, height});
  const auto frame = moving_shapes(width, height, 0);
  sink->write(frame.view());
  const auto message = message_of<ebb::ShapeError>([&] { sink->write(moving_shapes(height, width, 0).view()); });
  CHECK(first_missing(message, {"out.y4m: frame 1: expected [1, 48, 64, 3], found [1, 64, 48, 3]"}) == "");
  CHECK_THROWS_AS(sink->write({frame.rgb.data(), 3, height, width, 1}), ebb::ShapeError);
  CHECK_THROWS_AS(sink->write({frame.rgb.data(), 1, height, width, 1}), ebb::ShapeError);
  sink->write(frame.view());
  sink->finish();
  CHECK_THROWS_AS(sink->write(frame.view()), ebb::ShapeError);
  CHECK_THROWS_AS(sink->finish(), ebb::ShapeError);
  const auto one = open_video(directory / "one.y4m", VideoFormat{width, height});
  CHECK_THROWS_AS(one->finish(), ebb::ShapeError);  // no frame
}

TEST_CASE("a path that cannot be written is an error that names it") {
  const TemporaryDirectory directory;
  for (const std::string& name : names()) {
    CAPTURE(name);
    const auto message = message_of<ebb::FileError>([&] {
      open_video(directory / ("missing/folder/" + name), VideoFormat{width, height});
    });
    CHECK(first_missing(message, {"missing/folder/" + name, "No such file or directory"}) == "");
  }
  fs::create_symlink("/dev/full", directory / "full.y4m");
  const auto message = message_of<ebb::FileError>([&] {
    open_video(directory / "full.y4m", VideoFormat{width, height});
  });
  CHECK(first_missing(message, {"full.y4m", "no regular file"}) == "");
}

TEST_CASE("a video that is interrupted leaves nothing, whatever has been written") {
  const TemporaryDirectory directory;
  for (const std::string& name : names()) {
    CAPTURE(name);
    const pid_t child = ::fork();
    if (child == 0) {
      int result = 1;
      try {
        const ebb::examples::InterruptGuard guard;
        const auto sink = open_video(directory / name, VideoFormat{width, height});
        for (std::size_t t = 0; t < 9; ++t) {
          ebb::examples::throw_if_interrupted();
          sink->write(moving_shapes(width, height, t).view());
          if (t == 4) ::raise(SIGINT);
        }
        sink->finish();
      } catch (const ebb::examples::Interrupted& interruption) {
        result = interruption.exit_code();
      } catch (...) {
      }
      ::_exit(result);
    }
    REQUIRE(child > 0);
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 130);
    CHECK(directory.files() == 0);
  }
}

}  // namespace
