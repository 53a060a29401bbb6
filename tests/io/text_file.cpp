#include "ebb/io/text_file.hpp"

#include <doctest/doctest.h>

#include <string>

#include "support/temporary_directory.hpp"

namespace {

using ebb::read_text;
using ebb::testing::first_missing;
using ebb::testing::message_of;

TEST_CASE("read_text: the bytes as they are, up to the limit") {
  const ebb::testing::TemporaryDirectory directory;
  const std::string bytes("a\r\n\0\xff", 5);
  CHECK(read_text(directory.write("a", bytes), 5, "a text") == bytes);
  CHECK(read_text(directory.write("empty", ""), 0, "a text").empty());
  CHECK(first_missing(message_of<ebb::FileError>([&] { read_text(directory / "a", 4, "a text"); }),
                      {"/a: expected a text of at most 4 bytes, found 5"}) == "");
}

TEST_CASE("read_text: what cannot be read is a FileError that names it") {
  const ebb::testing::TemporaryDirectory directory;
  CHECK(first_missing(message_of<ebb::FileError>([&] { read_text(directory / "none", 9, "a text"); }),
                      {"none", "cannot open", "No such file"}) == "");
  CHECK_THROWS_AS(read_text(directory.path(), 9, "a text"), ebb::FileError);
  CHECK_THROWS_AS(read_text("/dev/zero", 9, "a text"), ebb::FileError);
  // A file whose first byte cannot be read, and one whose size is not known before it is read.
  CHECK(first_missing(message_of<ebb::FileError>([] { read_text("/proc/self/mem", 9, "a text"); }),
                      {"/proc/self/mem", "cannot read the file"}) == "");
  CHECK(first_missing(message_of<ebb::FileError>([] { read_text("/proc/self/status", 5, "a text"); }),
                      {"/proc/self/status", "at most 5"}) == "");
}

}  // namespace
