#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace ebb::examples {

/// Seconds since it was made.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Told of each finished piece of work: phase ("text", "denoise", "decode"), pieces done, pieces in all. May throw to
/// end the run.
using PhaseWatcher = std::function<void(const char* phase, std::size_t done, std::size_t of)>;

/// Seconds by phase of one call of a pipeline, and what its user should know.
struct Phases {
  double text_seconds = 0, denoise_seconds = 0, decode_seconds = 0;
  std::vector<double> step_seconds;
  std::vector<std::string> warnings;
};

}  // namespace ebb::examples
