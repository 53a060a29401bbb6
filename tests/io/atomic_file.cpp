#include "ebb/io/atomic_file.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <span>
#include <string>
#include <utility>

#include "support/file_size_limit.hpp"
#include "support/temporary_directory.hpp"

using ebb::AtomicFile;
using ebb::testing::first_missing;
using ebb::testing::message_of;
using ebb::testing::TemporaryDirectory;

TEST_CASE("AtomicFile: appears with commit, replaces what was there") {
  const TemporaryDirectory directory;
  const auto path = directory.write("file", "before");
  AtomicFile file(path);
  file.write_at(2, std::as_bytes(std::span("cd", 2)));
  file.write_at(0, std::as_bytes(std::span("ab", 2)));
  CHECK(TemporaryDirectory::read(path) == "before");
  CHECK(directory.files() == 2);
  AtomicFile moved = std::move(file);
  moved.commit();
  CHECK(TemporaryDirectory::read(path) == "abcd");
  CHECK(directory.files() == 1);
}

TEST_CASE("AtomicFile: without commit nothing changes and nothing is left") {
  const TemporaryDirectory directory;
  const auto path = directory.write("file", "before");
  { AtomicFile(path).write_at(0, std::as_bytes(std::span("after", 5))); }
  CHECK(TemporaryDirectory::read(path) == "before");
  CHECK(directory.files() == 1);
}

TEST_CASE("AtomicFile: a full disk is an error with path and reason, and leaves nothing") {
  const TemporaryDirectory directory;
  const auto path = directory / "file";
  const ebb::testing::FileSizeLimit limit(1000);
  const std::string message = message_of<ebb::FileError>([&] { AtomicFile::write(path, std::string(5000, 'x')); });
  CHECK(first_missing(message, {path.string(), "cannot write", "File too large"}) == "");
  CHECK(directory.files() == 0);
}

TEST_CASE("AtomicFile: a directory that does not exist or is none") {
  const TemporaryDirectory directory;
  CHECK(first_missing(message_of<ebb::FileError>([&] { AtomicFile(directory.path() / "none" / "file"); }),
                      {"none/file", "cannot create", "No such file or directory"}) == "");
  directory.write("plain", "");
  CHECK(first_missing(message_of<ebb::FileError>([&] { AtomicFile(directory.path() / "plain" / "file"); }),
                      {"plain/file", "cannot create", "Not a directory"}) == "");
}

TEST_CASE("AtomicFile: a directory in the place of the file") {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "file");
  CHECK(first_missing(message_of<ebb::FileError>([&] { AtomicFile::write(directory / "file", "x"); }),
                      {(directory / "file").string(), "cannot rename", "Is a directory"}) == "");
  CHECK(directory.files() == 1);
}

TEST_CASE("AtomicFile: a directory that must not be written") {
  // Root may write to every directory but those that the kernel makes up.
  CHECK(first_missing(message_of<ebb::FileError>([] { AtomicFile("/proc/file"); }), {"/proc/file", "cannot create"}) ==
        "");
  if (::geteuid() == 0) return;
  const TemporaryDirectory directory;
  std::filesystem::permissions(directory.path(),
                               std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  CHECK(first_missing(message_of<ebb::FileError>([&] { AtomicFile(directory / "file"); }),
                      {"cannot create", "Permission denied"}) == "");
}
