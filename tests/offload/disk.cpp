#include "ebb/offload/disk.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

/// An empty directory that goes away with its scope.
struct TemporaryDirectory {
  fs::path path;
  TemporaryDirectory() {
    std::string name = (fs::temp_directory_path() / "ebb-disk-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TemporaryDirectory() {
    std::error_code status;
    fs::permissions(path, fs::perms::owner_all, status);
    fs::remove_all(path, status);
  }
  std::size_t files() const {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(path)) ++count;
    return count;
  }
};

const ebb::HomeFileKey key{.component = "transformer", .layout_hash = 11, .source_hash = 22, .bytes = 10240};

void pattern(std::span<std::byte> target) {
  for (std::size_t i = 0; i < target.size(); ++i) target[i] = static_cast<std::byte>(i * 31 >> 3);
}
bool holds_pattern(std::span<const std::byte> bytes) {
  std::vector<std::byte> expected(bytes.size());
  pattern(expected);
  return std::memcmp(expected.data(), bytes.data(), bytes.size()) == 0;
}
void never(std::span<std::byte>) { FAIL("a good file was written again"); }

void overwrite(const fs::path& path, std::size_t offset, char value) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(value);
}

/// What `open` says about the file.
std::string complaint(const fs::path& path, const ebb::HomeFileKey& expected = key) {
  try {
    ebb::HomeFile::open(path, expected);
  } catch (const ebb::FileError& error) {
    const std::string text = error.what();
    CHECK(text.starts_with(path.string() + ": "));
    return text.substr(path.string().size() + 2);
  }
  return "";
}

}  // namespace

TEST_CASE("a home file is made once and then reused") {
  TemporaryDirectory directory;
  const fs::path nested = directory.path / "a" / "b";
  {
    const auto made = ebb::HomeFile::open_or_create(nested, key, pattern);
    CHECK(made.origin() == ebb::HomeFile::Origin::created);
    CHECK(made.bytes().size() == key.bytes);
    CHECK(holds_pattern(made.bytes()));
    CHECK(reinterpret_cast<std::uintptr_t>(made.bytes().data()) % 256 == 0);
  }
  auto again = ebb::HomeFile::open_or_create(nested, key, never);
  CHECK(again.origin() == ebb::HomeFile::Origin::reused);
  const auto moved = std::move(again);
  CHECK(holds_pattern(moved.bytes()));
  CHECK(moved.path() == ebb::HomeFile::path_of(nested, key));
  const ebb::HomeFileKey empty{.component = "none", .bytes = 0};
  CHECK(ebb::HomeFile::open_or_create(nested, empty, pattern).bytes().empty());
  CHECK(ebb::HomeFile::open_or_create(nested, empty, never).bytes().empty());
}

TEST_CASE("other sources, layouts and components have files of their own; names stay in the directory") {
  TemporaryDirectory directory;
  ebb::HomeFileKey source = key, layout = key, component = key, hostile = key;
  source.source_hash = 23;
  layout.layout_hash = 12;
  component.component = "vae";
  hostile.component = "../../etc/passwd";
  for (const auto& each : {key, source, layout, component, hostile}) {
    const auto made = ebb::HomeFile::open_or_create(directory.path, each, pattern);
    CHECK(made.origin() == ebb::HomeFile::Origin::created);
    CHECK(made.path().parent_path() == directory.path);
  }
  CHECK(directory.files() == 5);
}

TEST_CASE("stale, truncated and damaged files each say so, and are made again") {
  TemporaryDirectory directory;
  const fs::path path = ebb::HomeFile::open_or_create(directory.path, key, pattern).path();
  const auto remade = [&] {
    const auto file = ebb::HomeFile::open_or_create(directory.path, key, pattern);
    CHECK(file.origin() == ebb::HomeFile::Origin::replaced);
    CHECK(file.reason() != "");
    CHECK(holds_pattern(file.bytes()));
    CHECK(complaint(path) == "");
  };
  overwrite(path, ebb::HomeFile::header_bytes + 5000, 'x');
  CHECK(complaint(path) == "the weights are damaged: their hash does not match");
  remade();
  fs::resize_file(path, ebb::HomeFile::header_bytes + 10239);
  CHECK(complaint(path) == "the file is truncated: expected 10240 bytes after the header, found 10239");
  remade();
  fs::resize_file(path, ebb::HomeFile::header_bytes + 10241);
  CHECK(complaint(path) == "the file is truncated: expected 10240 bytes after the header, found 10241");
  remade();
  fs::resize_file(path, 100);
  CHECK(complaint(path) == "the file is truncated: its header has 4096 bytes, found 100");
  remade();
  fs::resize_file(path, 0);
  CHECK(complaint(path) == "the file is truncated: its header has 4096 bytes, found 0");
  remade();
  overwrite(path, 0, 'x');
  CHECK(complaint(path) == "this is not a home file of an offloaded component");
  remade();
  overwrite(path, 8, 2);
  CHECK(complaint(path) == "expected version 1 of the home file format, found 2");
  remade();
  overwrite(path, 41, 'x');
  CHECK(complaint(path) == "the header is damaged: its hash does not match");
  remade();
  ebb::HomeFileKey other = key;
  other.source_hash = 23;
  CHECK(complaint(path, other) == "the file was made from another checkpoint or with other options");
  other = key;
  other.bytes = 9984;
  CHECK(complaint(path, other) ==
        "the file was written for another layout of transformer (10240 bytes, expected 9984)");
  CHECK(directory.files() == 1);
  CHECK(complaint(directory.path / "missing") != "");
}

TEST_CASE("a failure while the file is made leaves nothing behind, and an old file in place") {
  TemporaryDirectory directory;
  const auto broken = [](std::span<std::byte> target) {
    target[0] = std::byte{1};
    throw ebb::ValueError("cannot quantize");
  };
  CHECK_THROWS_AS(ebb::HomeFile::open_or_create(directory.path, key, broken), ebb::ValueError);
  CHECK(directory.files() == 0);
  const fs::path path = ebb::HomeFile::open_or_create(directory.path, key, pattern).path();
  overwrite(path, ebb::HomeFile::header_bytes + 5000, 'x');  // so that it is made again
  const auto bytes_of = [](const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  };
  const std::string before = bytes_of(path);
  CHECK_THROWS_AS(ebb::HomeFile::open_or_create(directory.path, key, broken), ebb::ValueError);
  CHECK(directory.files() == 1);
  CHECK(bytes_of(path) == before);
}

TEST_CASE("a signal handler deletes the file that is being made, and only that one") {
  const TemporaryDirectory directory;
  const auto listed = [] {
    int count = 0;
    for (const auto& slot : ebb::detail::partial_files.slots)
      count += slot.state.load() != ebb::detail::PartialFiles::State::free;
    return count;
  };
  const auto interrupted = [&](std::span<std::byte>) {
    CHECK(listed() == 1);
    CHECK(directory.files() == 1);
    ebb::unlink_partial_files();
    CHECK(directory.files() == 0);
    throw ebb::ValueError("interrupted");
  };
  CHECK_THROWS_AS(ebb::HomeFile::open_or_create(directory.path, key, interrupted), ebb::ValueError);
  CHECK(listed() == 0);
  ebb::HomeFile::open_or_create(directory.path, key, pattern);
  CHECK(listed() == 0);
  ebb::unlink_partial_files();
  CHECK(directory.files() == 1);
}

TEST_CASE("a disk that is full and a directory that is none") {
  TemporaryDirectory directory;
  rlimit old_limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old_limit) == 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old_limit;
  small.rlim_cur = 8192;  // behaves like a disk with two blocks
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string message;
  try {
    ebb::HomeFile::open_or_create(directory.path, key, never);
  } catch (const ebb::FileError& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  CHECK(message.find("the disk cannot take 14336 bytes of offloaded weights (") != std::string::npos);
  CHECK(message.find("choose another directory or a smaller format") != std::string::npos);
  CHECK(directory.files() == 0);

  const fs::path file = directory.path / "file";
  std::ofstream(file) << "x";
  CHECK_THROWS_WITH_AS(ebb::HomeFile::open_or_create(file, key, never),
                       doctest::Contains("cannot create the directory"), ebb::FileError);
  CHECK_THROWS_WITH_AS(ebb::HomeFile::open_or_create(fs::path("/proc"), key, never),
                       doctest::Contains("cannot write to the directory for offloaded weights"), ebb::FileError);
  ebb::HomeFileKey huge = key;
  huge.bytes = ~std::size_t{0};
  CHECK_THROWS_WITH_AS(ebb::HomeFile::open_or_create(directory.path, huge, never),
                       doctest::Contains("more than a file can hold"), ebb::FileError);
}
