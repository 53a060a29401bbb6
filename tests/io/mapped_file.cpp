#include "ebb/io/mapped_file.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>

#include "support/temporary_directory.hpp"

using ebb::MappedFile;
using ebb::testing::first_missing;
using ebb::testing::message_of;

TEST_CASE("MappedFile: the bytes of the file, also after a move and after the name is gone") {
  const ebb::testing::TemporaryDirectory directory;
  std::string content(100'000, 'x');
  content.back() = 'y';
  const auto path = directory.write("file", content);
  MappedFile file = MappedFile::open(path);
  std::filesystem::remove(path);
  const std::byte* address = file.bytes().data();
  MappedFile moved = std::move(file);
  CHECK(file.size() == 0);
  CHECK(moved.bytes().data() == address);
  REQUIRE(moved.size() == content.size());
  CHECK(moved.bytes().back() == std::byte{'y'});
  for (const auto access :
       {ebb::FileAccess::sequential, ebb::FileAccess::random, ebb::FileAccess::needed_soon, ebb::FileAccess::done}) {
    moved.advise(access);
    moved.advise(access, 5000, 10);
    moved.advise(access, 200'000, 10);
  }
  CHECK(moved.bytes()[5001] == std::byte{'x'});  // dropped pages come back
  file = std::move(moved);
  CHECK(file.bytes().data() == address);
}

TEST_CASE("MappedFile: an empty file has no bytes") {
  const ebb::testing::TemporaryDirectory directory;
  const MappedFile file = MappedFile::open(directory.write("empty", ""));
  CHECK(file.size() == 0);
  CHECK(file.bytes().empty());
  file.advise(ebb::FileAccess::sequential);
}

TEST_CASE("MappedFile: errors name the file") {
  const ebb::testing::TemporaryDirectory directory;
  CHECK(first_missing(message_of<ebb::FileError>([&] { MappedFile::open(directory / "none"); }),
                      {(directory / "none").string(), "cannot open", "No such file"}) == "");
  CHECK(first_missing(message_of<ebb::FileError>([&] { MappedFile::open(directory.path()); }),
                      {directory.path().string(), "expected a regular file", "a directory"}) == "");
  CHECK(first_missing(message_of<ebb::FileError>([] { MappedFile::open("/dev/null"); }),
                      {"/dev/null", "expected a regular file"}) == "");
}
