#include "ebb/io/atomic_file.hpp"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <array>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using ebb::AtomicFile;
namespace fs = std::filesystem;

class Directory {
 public:
  Directory() {
    std::string pattern = (fs::temp_directory_path() / "ebb-output-XXXXXX").string();
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
  const fs::path& path() const { return path_; }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  fs::path path_;
};

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class Action>
std::string message_of(Action&& action) {
  try {
    action();
  } catch (const ebb::FileError& error) {
    return error.what();
  }
  return "no FileError";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("the file appears at commit, complete, and not before") {
  const Directory directory;
  AtomicFile file(directory / "out.bin");
  file.write("hello ", 6);
  file.write("world", 5);
  CHECK_FALSE(fs::exists(directory / "out.bin"));
  CHECK(file.partial() == directory / ("out.bin.partial-" + std::to_string(::getpid())).c_str());
  CHECK(content(file.partial()) == "hello world");
  file.write_at(0, std::as_bytes(std::span("J", 1)));
  file.commit();
  CHECK(content(directory / "out.bin") == "Jello world");
  CHECK(directory.files() == 1);
  CHECK(contains(message_of([&] { file.write("more", 4); }), "out.bin"));
  CHECK(contains(message_of([&] { file.commit(); }), "out.bin"));
}

TEST_CASE("without commit nothing is left and the previous file stays") {
  const Directory directory;
  std::ofstream(directory / "out.bin") << "previous";
  try {
    AtomicFile file(directory / "out.bin");
    file.write("new", 3);
    CHECK(directory.files() == 2);
    throw std::runtime_error("the model failed");
  } catch (const std::runtime_error&) {
  }
  CHECK(directory.files() == 1);
  CHECK(content(directory / "out.bin") == "previous");
  AtomicFile file(directory / "out.bin");
  file.write("new", 3);
  file.commit();
  CHECK(content(directory / "out.bin") == "new");
}

TEST_CASE("two files of one process may share a target, and a stale partial file is no obstacle") {
  const Directory directory;
  AtomicFile first(directory / "out.bin");
  AtomicFile second(directory / "out.bin");
  CHECK(first.partial() != second.partial());
  first.write("1", 1);
  second.write("2", 1);
  second.commit();
  first.commit();
  CHECK(content(directory / "out.bin") == "1");
  CHECK(directory.files() == 1);
}

TEST_CASE("a flushed file takes no more bytes and waits for commit under its partial name") {
  const Directory directory;
  {
    AtomicFile file(directory / "out.bin");
    file.write("x", 1);
    file.flush();
    file.flush();
    CHECK(contains(message_of([&] { file.write("y", 1); }), "cannot be written"));
    CHECK(content(file.partial()) == "x");
    CHECK_FALSE(fs::exists(directory / "out.bin"));
    file.commit();
    CHECK(contains(message_of([&] { file.flush(); }), "out.bin"));
  }
  CHECK(content(directory / "out.bin") == "x");
  { AtomicFile(directory / "abandoned").flush(); }
  CHECK(directory.files() == 1);
}

TEST_CASE("a moved-from file owns nothing") {
  const Directory directory;
  {
    AtomicFile source(directory / "out.bin");
    AtomicFile target(std::move(source));
    target.write("x", 1);
    target.commit();
  }
  CHECK(content(directory / "out.bin") == "x");
}

TEST_CASE("a change of the working directory does not move the target") {
  const Directory directory;
  const fs::path before = fs::current_path();
  fs::current_path(directory.path());
  AtomicFile file("out.bin");
  fs::current_path(before);
  file.commit();
  CHECK(fs::exists(directory / "out.bin"));
}

TEST_CASE("places that cannot be written are named, with the reason") {
  const Directory directory;
  const std::string missing = message_of([&] { AtomicFile(directory / "no" / "out.bin"); });
  CHECK(contains(missing, "out.bin"));
  CHECK(contains(missing, "No such file"));
  CHECK(contains(message_of([&] { AtomicFile(directory.path()); }), "no regular file"));
  // Renaming over a device node would remove it.
  CHECK(contains(message_of([&] { AtomicFile("/dev/full"); }), "no regular file"));
  CHECK(contains(message_of([&] { AtomicFile("/dev/stdout"); }), "no regular file"));  // whatever it leads to now
  CHECK(contains(message_of([&] { AtomicFile(directory / (std::string(300, 'n')).c_str()); }), "too long"));
  CHECK(contains(message_of([&] { AtomicFile(""); }), "cannot be written"));
  CHECK(contains(message_of([&] { AtomicFile("/proc/out.bin"); }), "/proc/out.bin"));
}

/// Runs `action` in a child process; its wait status.
template <class Action>
int in_child(Action&& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    int result = 99;
    try {
      result = action();
    } catch (...) {
    }
    ::_exit(result);
  }
  REQUIRE(child > 0);
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

TEST_CASE("a full disk is an error, and leaves neither a partial file nor a damaged target") {
  const Directory directory;
  std::ofstream(directory / "out.bin") << "previous";
  const int status = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = 1000, .rlim_max = 1000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
    const std::vector<std::byte> bytes(4096);
    const std::string message = message_of([&] {
      AtomicFile file(directory / "out.bin");
      file.write(bytes);
      file.commit();
    });
    return contains(message, "out.bin: cannot be written: File too large") ? 0 : 2;
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(directory.files() == 1);
  CHECK(content(directory / "out.bin") == "previous");
}

TEST_CASE("a rename that fails is an error and leaves no partial file") {
  const Directory directory;
  AtomicFile file(directory / "out.bin");
  file.write("x", 1);
  fs::create_directory(directory / "out.bin");
  CHECK(contains(message_of([&] { file.commit(); }), "out.bin"));
  CHECK(directory.files() == 1);
}

TEST_CASE("partial files are listed for the signal handler exactly while they exist") {
  using State = ebb::detail::PartialFiles::State;
  const auto listed = [] {
    int count = 0;
    for (const auto& slot : ebb::detail::partial_files.slots) count += slot.state.load() != State::free;
    return count;
  };
  const Directory directory;
  REQUIRE(listed() == 0);
  {
    AtomicFile abandoned(directory / "a");
    AtomicFile committed(directory / "b");
    CHECK(listed() == 2);
    committed.commit();
    CHECK(listed() == 1);
    ebb::unlink_partial_files();
    CHECK(directory.files() == 1);
    CHECK(fs::exists(directory / "b"));
  }
  CHECK(listed() == 0);
  std::vector<AtomicFile> many;  // more than there are slots: still written, still cleaned up
  for (int i = 0; i < 70; ++i) many.emplace_back(directory / ("m" + std::to_string(i)).c_str());
  CHECK(listed() == 64);
  many.clear();
  CHECK(listed() == 0);
  CHECK(directory.files() == 1);
}

}  // namespace
