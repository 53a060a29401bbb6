#pragma once

#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace ebb {

/// Base of everything that ebb throws on purpose. The message is written for the user of the program:
/// it names the thing, what was expected, what was found and, where there is one, what to do.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Extents that do not fit together; thrown before anything is enqueued.
struct ShapeError : Error {
  using Error::Error;
};

/// A file that is missing, truncated, malformed, hostile, or that cannot be written.
struct FileError : Error {
  using Error::Error;
};

/// A configuration value (file, option or argument) that is missing, out of range or not supported.
struct ConfigError : Error {
  using Error::Error;
};

/// A value that cannot be computed with, e.g. NaN or infinity in a weight that is to be quantized.
struct ValueError : Error {
  using Error::Error;
};

/// An arena, budget or device that is too small; the message says how much was asked and what would fit.
struct MemoryError : Error {
  using Error::Error;
};

/// Builds a message from anything that has `operator<<`.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return std::move(text).str();
}

/// Guards an invariant of the caller's own code. `what` should read as a sentence; the call site is added.
/// @throws ShapeError when `holds` is false
inline void require(bool holds, const char* what, std::source_location at = std::source_location::current()) {
  if (!holds) throw ShapeError(concat(what, " (", at.file_name(), ":", at.line(), ")"));
}

}  // namespace ebb
