#include "common/interrupt.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace {

using ebb::AtomicFile;
using ebb::examples::Interrupted;
using ebb::examples::interrupted;
using ebb::examples::InterruptGuard;
using ebb::examples::throw_if_interrupted;
namespace fs = std::filesystem;

/// Runs `action` in a child process; its wait status.
template <class Action>
int in_child(Action&& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    int result = 99;
    try {
      result = action();
    } catch (const Interrupted& interruption) {
      result = interruption.exit_code();
    } catch (...) {
    }
    ::_exit(result);
  }
  REQUIRE(child > 0);
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

fs::path target() { return fs::temp_directory_path() / ("ebb-interrupt-" + std::to_string(::getpid())); }

bool traces_of(const fs::path& path) {
  for (const auto& entry : fs::directory_iterator(path.parent_path()))
    if (entry.path().filename().string().starts_with(path.filename().string())) return true;
  return false;
}

TEST_CASE("the first signal becomes an exception with the shell's exit code, and destructors clean up") {
  const fs::path path = target();
  const auto run = [&](int signal) {
    return in_child([&]() -> int {
      const InterruptGuard guard;
      AtomicFile file(path);
      throw_if_interrupted();
      ::raise(signal);
      if (!interrupted()) return 1;
      throw_if_interrupted();
      return 2;
    });
  };
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    CAPTURE(signal);
    const int status = run(signal);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 128 + signal);
    CHECK_FALSE(traces_of(path));
  }
  CHECK(Interrupted(SIGINT).exit_code() == 130);
}

TEST_CASE("the second signal ends the process and deletes its partial files") {
  const fs::path path = target();
  const int status = in_child([&] {
    const InterruptGuard guard;
    AtomicFile file(path);
    file.write("half", 4);
    if (!traces_of(path)) return 1;
    ::raise(SIGTERM);
    ::raise(SIGINT);
    return 2;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
  CHECK_FALSE(traces_of(path));
}

TEST_CASE("a reader of the output who leaves does not end the process") {
  const int status = in_child([] {
    {
      const InterruptGuard guard;
      ::raise(SIGPIPE);
      if (interrupted()) return 1;
    }
    ::raise(SIGPIPE);
    return 2;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGPIPE);
}

TEST_CASE("a signal that was ignored stays ignored, and the guard restores what it found") {
  const int status = in_child([] {
    ::signal(SIGHUP, SIG_IGN);
    ::signal(SIGTERM, SIG_DFL);
    {
      const InterruptGuard guard;
      ::raise(SIGHUP);
      if (interrupted()) return 1;
      ::raise(SIGTERM);
      if (!interrupted()) return 2;
    }
    if (interrupted()) return 3;
    ::raise(SIGTERM);
    return 4;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGTERM);
}

}  // namespace
