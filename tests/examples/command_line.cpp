#include "common/command_line.hpp"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "support/temporary_directory.hpp"

namespace {

using ebb::examples::run_command_line;
using ebb::testing::first_missing;
using ebb::testing::TemporaryDirectory;

struct Options {
  std::vector<std::string> prompts;
  std::string output = "default";
  std::uint64_t seed = 0;
  double guidance = 1;

  void declare(CLI::App& app) {
    app.add_option("--prompt", prompts)->take_all()->expected(1);
    app.add_option("--output", output);
    app.add_option("--seed", seed)->check(ebb::examples::whole_number());
    app.add_option("--guidance", guidance)->check(ebb::examples::number());
  }
};

struct Ended {
  int status = -1;
  std::string out, error;  // what it printed
};

/// A program with these arguments in a child process. `before` runs first and may close streams.
template <class Before, class Run>
Ended ended(std::vector<const char*> arguments, Before before, Run run) {
  const TemporaryDirectory directory;
  std::cout.flush();  // what this process has still to print is not the child's
  const pid_t child = ::fork();
  if (child == 0) {
    const auto redirect = [&](const char* name, int stream) {
      const int file = ::open((directory / name).c_str(), O_WRONLY | O_CREAT, 0600);
      ::dup2(file, stream);
      ::close(file);
    };
    redirect("out", STDOUT_FILENO);
    redirect("error", STDERR_FILENO);
    before();
    arguments.insert(arguments.begin(), "program");
    Options options;
    CLI::App app("A program.", "program");
    options.declare(app);
    const int status = run_command_line(app, static_cast<int>(arguments.size()), arguments.data(),
                                        [&] { run(static_cast<const Options&>(options)); });
    ::_exit(status);
  }
  REQUIRE(child > 0);
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return {WEXITSTATUS(status), TemporaryDirectory::read(directory / "out"),
          TemporaryDirectory::read(directory / "error")};
}

template <class Run>
Ended ended(std::vector<const char*> arguments, Run run) {
  return ended(
      std::move(arguments), [] {}, run);
}

TEST_CASE("an empty value after = is a value, and the next argument is not") {
  const auto shown = [](std::vector<const char*> arguments) {
    return ended(std::move(arguments), [](const Options& options) {
      for (const std::string& prompt : options.prompts) std::cout << "[" << prompt << "]";
      std::cout << " " << options.output;
    });
  };
  CHECK(shown({"--prompt=", "--output", "o.png"}).out == "[] o.png");
  CHECK(shown({"--prompt", "", "--prompt=a=", "--output=o"}).out == "[][a=] o");
  CHECK(shown({"--output=", "--prompt", "p"}).out == "[p] ");
}

TEST_CASE("a command line that does not parse ends with status 1 and one line") {
  const auto refused = [](std::vector<const char*> arguments, const std::vector<std::string>& words) {
    const Ended end = ended(std::move(arguments), [](const Options&) {});
    CHECK(end.status == 1);
    CHECK(end.out == "");
    CHECK(end.error.starts_with("program: "));
    CHECK(end.error.find('\n') == end.error.size() - 1);
    CHECK(first_missing(end.error, words) == "");
  };
  refused({"--nothing"}, {"--nothing", "--help"});
  refused({"--output"}, {"--output"});
  for (const char* number : {"-1", "18446744073709551616", "010", "1.5", "x", ""}) {
    CAPTURE(number);
    refused({"--seed", number}, {"--seed", "18446744073709551615", std::string("'") + number + "'"});
  }
  refused({"--guidance="}, {"--guidance", "''"});
  refused({"--guidance", "x"}, {"--guidance", "x"});
  const Ended largest =
      ended({"--seed", "18446744073709551615"}, [](const Options& options) { std::cout << options.seed; });
  CHECK(largest.status == 0);
  CHECK(largest.out == "18446744073709551615");
}

TEST_CASE("an exception ends with its status and one line") {
  const auto after = [](auto exception) { return ended({}, [&](const Options&) { throw exception; }); };
  CHECK(after(ebb::FileError("f: gone")).error == "program: f: gone\n");
  CHECK(after(ebb::FileError("f: gone")).status == 1);
  CHECK(after(ebb::examples::Interrupted(SIGINT)).status == 130);
  CHECK(after(ebb::examples::Interrupted(SIGINT)).error == "program: stopped\n");
  CHECK(after(std::bad_alloc()).error.starts_with("program: out of memory"));
  // A name out of a file that would colour the terminal, ring its bell and begin a second line.
  CHECK(after(ebb::ConfigError("f: \x1b[31m\a\xc3\xa9\nx\x7f\xc2\x9b\xff")).error ==
        "program: f: \xef\xbf\xbd[31m\xef\xbf\xbd\xc3\xa9\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\n");
  const auto thread = after(std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again)));
  CHECK(first_missing(thread.error, {"thread", "--threads"}) == "");
}

TEST_CASE("what cannot be printed is an error") {
  const auto full = [] { ::dup2(::open("/dev/full", O_WRONLY), STDOUT_FILENO); };
  const auto closed = [] { ::close(STDOUT_FILENO); };
  const auto print = [](const Options&) { std::cout << "table\n"; };
  for (const Ended& end : {ended({}, full, print), ended({}, closed, print), ended({"--help"}, full, print)}) {
    CHECK(end.status == 1);
    CHECK(end.error == "program: standard output: cannot be written\n");
  }
  CHECK(ended({}, closed, [](const Options&) {}).status == 0);
  CHECK(ended({"--help"}, print).out.find("--prompt") != std::string::npos);
}

TEST_CASE("no file gets the number of a standard stream that is closed") {
  const TemporaryDirectory directory;
  const Ended end = ended(
      {},
      [] {
        for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::close(stream);
      },
      [&](const Options&) {
        const int file = ::open((directory / "video").c_str(), O_WRONLY | O_CREAT, 0600);
        if (file <= STDERR_FILENO) throw ebb::FileError("a standard stream's number");
        std::cerr << "progress\n" << std::flush;
      });
  CHECK(end.status == 0);
  CHECK(TemporaryDirectory::read(directory / "video") == "");
}

}  // namespace
