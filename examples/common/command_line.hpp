#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "common/interrupt.hpp"
#include "common/one_line.hpp"
#include "ebb/core/error.hpp"

namespace ebb::examples {

/// For options of unsigned types: CLI11 takes -1 for the largest number, what is too large likewise, and 010 for 8.
inline CLI::Validator whole_number() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        std::uint64_t value = 0;
        const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (status == std::errc{} && end == text.data() + text.size() && std::to_string(value) == text) return {};
        return concat("expected a whole number from 0 to ", UINT64_MAX, " without leading zeros, found '", text, "'");
      },
      "");
}

/// For options of floating-point types: CLI11 takes an empty text for 0.
inline CLI::Validator number() {
  return CLI::Validator(
      [](std::string& text) -> std::string { return text.empty() ? "expected a number, found ''" : std::string(); },
      "");
}

namespace detail {

/// Occupies the numbers of standard streams that are closed: a file that got one would take what is printed for its
/// content. The streams are opened the wrong way round, so that whoever uses them still gets an error.
inline void occupy_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(stream, F_GETFD) == -1)
      (void)::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);  // gets the lowest number, this one
}

/// The arguments as `CLI::App::parse` takes them: the last one first. `--name=` becomes `--name` and an empty argument,
/// because CLI11 would take the next option for the value.
inline std::vector<std::string> reversed_arguments(const CLI::App& app, int argc, const char* const* argv) {
  std::vector<std::string> arguments;
  for (int i = argc - 1; i > 0; --i) {
    std::string argument = argv[i];
    if (argument.starts_with("--") && argument.find('=') == argument.size() - 1 &&
        app.get_option_no_throw(argument.substr(0, argument.size() - 1)) != nullptr) {
      arguments.emplace_back();
      argument.pop_back();
    }
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

/// @throws FileError when something that was printed is lost
inline void flush_standard_output() {
  std::cout.flush();
  if (!std::cout) throw FileError("standard output: cannot be written");
}

}  // namespace detail

/// A whole `main`: parses the command line into what was declared on `app`, then calls `run()`. Returns the status to
/// exit with: 0; 128 and the number of the signal that stopped it; 1 after any other failure, with one line on standard
/// error that begins with the program's name. Call it before threads start.
template <class Run>
int run_command_line(CLI::App& app, int argc, const char* const* argv, Run run) {
  detail::occupy_standard_streams();
  const InterruptGuard interrupts;
  const auto fail = [&](const std::string& why) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), one_line(why).c_str());
    return 1;
  };
  try {
    try {
      app.parse(detail::reversed_arguments(app, argc, argv));
    } catch (const CLI::Success& help) {
      app.exit(help);
      detail::flush_standard_output();
      return 0;
    } catch (const CLI::ParseError& error) {
      return fail(concat(error.what(), " (see --help)"));
    }
    run();
    detail::flush_standard_output();
    return 0;
  } catch (const Interrupted& stop) {
    fail("stopped");
    return stop.exit_code();
  } catch (const std::bad_alloc&) {
    return fail("out of memory: the system gave no more");
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::resource_unavailable_try_again) return fail(error.what());
    return fail(concat("a thread cannot be started: ", error.what(), "; use fewer --threads, or raise ulimit -u"));
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}

}  // namespace ebb::examples
