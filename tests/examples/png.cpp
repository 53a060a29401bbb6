#include "common/png.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

namespace {

using ebb::examples::PngPicture;
using ebb::examples::PngText;
using ebb::examples::read_png;
using ebb::examples::write_png;
namespace fs = std::filesystem;

class Directory {
 public:
  Directory() {
    std::string pattern = (fs::temp_directory_path() / "ebb-png-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  fs::path operator/(const char* name) const { return path_ / name; }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  fs::path path_;
};

PngPicture noise(std::size_t height, std::size_t width) {
  PngPicture picture{
      .width = width, .height = height, .pixels = std::vector<std::uint8_t>(height * width * 3), .text = {}};
  std::mt19937 random(7);
  for (std::uint8_t& value : picture.pixels) value = static_cast<std::uint8_t>(random());
  return picture;
}

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void put(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

std::string refusal(const fs::path& path) {
  try {
    read_png(path);
  } catch (const ebb::FileError& error) {
    return error.what();
  }
  return "accepted";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string big_endian(std::uint32_t value) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(value >> shift & 0xffu);
  return text;
}

std::string chunk(const std::string& type, const std::string& data) {
  std::uint32_t check = 0xffffffffu;
  for (const char c : type + data) {
    check ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) check = check >> 1 ^ (0xedb88320u & (0u - (check & 1u)));
  }
  return big_endian(static_cast<std::uint32_t>(data.size())) + type + data + big_endian(~check);
}

std::string header(std::uint32_t width, std::uint32_t height) {
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", big_endian(width) + big_endian(height) + std::string("\x08\x02\0\0\0", 5));
}

TEST_CASE("pixels and text survive the round trip") {
  const Directory directory;
  const PngPicture picture = noise(13, 17);
  const std::vector<PngText> text{
      {"parameters", "a cat, a hat\nSteps: 28, Seed: 1"}, {"ebb", R"({"seed": 1})"}, {"Comment", "caf\u00e9 \u732b"}};
  write_png(directory / "out.png", picture.view(), text);
  CHECK(directory.files() == 1);
  const PngPicture read = read_png(directory / "out.png");
  CHECK(read.width == 17);
  CHECK(read.height == 13);
  CHECK(read.pixels == picture.pixels);
  CHECK(read.text == text);
  const std::string bytes = content(directory / "out.png");
  CHECK(contains(bytes, "tEXtparameters"));  // plain readers find the prompt
  CHECK(contains(bytes, "iTXtComment"));
  CHECK(bytes.find("tEXtparameters") < bytes.find("IDAT"));
}

TEST_CASE("the smallest picture and one without text") {
  const Directory directory;
  const PngPicture picture = noise(1, 1);
  write_png(directory / "out.png", picture.view());
  const PngPicture read = read_png(directory / "out.png");
  CHECK(read.pixels == picture.pixels);
  CHECK(read.text.empty());
}

TEST_CASE("what is no RGB picture, or no PNG text, is refused before a file is made") {
  const Directory directory;
  const PngPicture picture = noise(4, 4);
  CHECK_THROWS_AS(write_png(directory / "o.png", {picture.pixels.data(), 1, 4, 3, 4}), ebb::ShapeError);
  CHECK_THROWS_AS(write_png(directory / "o.png", {picture.pixels.data(), 2, 2, 4, 3}), ebb::ShapeError);
  CHECK_THROWS_AS(write_png(directory / "o.png", {picture.pixels.data(), 1, 0, 4, 3}), ebb::ShapeError);
  for (const PngText& bad : {PngText{"", "x"}, PngText{std::string(80, 'k'), "x"}, PngText{" k", "x"},
                             PngText{"k\n", "x"}, PngText{"k", std::string("a\0b", 3)}})
    CHECK_THROWS_AS(write_png(directory / "o.png", picture.view(), std::vector{bad}), ebb::ConfigError);
  CHECK(directory.files() == 0);
}

TEST_CASE("a write error names the file and the reason, and leaves nothing behind") {
  const Directory directory;
  put(directory / "out.png", "previous");
  const PngPicture picture = noise(64, 64);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = 4096, .rlim_max = 4096};
    int result = 1;
    try {
      if (::setrlimit(RLIMIT_FSIZE, &limit) == 0) write_png(directory / "out.png", picture.view());
    } catch (const ebb::FileError& error) {
      result = contains(error.what(), "out.png: cannot be written: File too large") ? 0 : 2;
    }
    ::_exit(result);
  }
  REQUIRE(child > 0);
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(directory.files() == 1);
  CHECK(content(directory / "out.png") == "previous");
  CHECK_THROWS_AS(write_png(directory / "missing" / "out.png", picture.view()), ebb::FileError);
  CHECK_THROWS_AS(write_png("/dev/full", picture.view()), ebb::FileError);
}

TEST_CASE("truncated and damaged files are errors at every length") {
  const Directory directory;
  write_png(directory / "good.png", noise(6, 5).view(), std::vector<PngText>{{"parameters", "x"}});
  const std::string good = content(directory / "good.png");
  REQUIRE(good.size() > 100);
  for (std::size_t length = 0; length < good.size(); ++length) {
    CAPTURE(length);
    put(directory / "bad.png", good.substr(0, length));
    CHECK(contains(refusal(directory / "bad.png"), "bad.png: no valid PNG: "));
  }
  std::string damaged = good;
  damaged[damaged.find("IDAT") + 10] ^= 0x20;
  put(directory / "bad.png", damaged);
  CHECK(contains(refusal(directory / "bad.png"), "bad.png: no valid PNG: "));
  CHECK(contains(refusal(directory / "missing.png"), "cannot be read"));
}

TEST_CASE("a chunk longer than its file is refused before memory is taken") {
  const Directory directory;
  put(directory / "long.png", header(1, 1) + big_endian(1u << 30) + "tEXt" + chunk("IEND", ""));
  CHECK(contains(refusal(directory / "long.png"), "long.png: no valid PNG: a chunk is longer than the file"));
  // What follows the end is no chunk.
  write_png(directory / "good.png", noise(6, 5).view());
  put(directory / "more.png", content(directory / "good.png") + "\xff\xff\xff\xff and more");
  CHECK(read_png(directory / "more.png").pixels == read_png(directory / "good.png").pixels);
}

TEST_CASE("a header that promises too many pixels is refused before memory is taken") {
  const Directory directory;
  put(directory / "wide.png", header(16385, 1) + chunk("IDAT", "") + chunk("IEND", ""));
  CHECK(contains(refusal(directory / "wide.png"), "no valid PNG: Invalid IHDR"));
  put(directory / "many.png", header(16384, 16384) + chunk("IDAT", "") + chunk("IEND", ""));
  CHECK(contains(refusal(directory / "many.png"), "more than 64 Mi"));
}

TEST_CASE("grey pictures are read as RGB") {
  const Directory directory;
  // One grey pixel of value 0x42: stored deflate block of the filter byte and the pixel.
  const std::string ihdr = big_endian(1) + big_endian(1) + std::string("\x08\0\0\0\0", 5);
  const std::string idat("\x78\x01\x01\x02\x00\xfd\xff\x00\x42\x00\x44\x00\x43", 13);
  put(directory / "grey.png", "\x89PNG\r\n\x1a\n" + chunk("IHDR", ihdr) + chunk("IDAT", idat) + chunk("IEND", ""));
  CHECK(read_png(directory / "grey.png").pixels == std::vector<std::uint8_t>{0x42, 0x42, 0x42});
}

}  // namespace
