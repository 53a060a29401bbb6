#pragma once

#include <algorithm>
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

/// What one phase took.
struct PhaseCost {
  double seconds = 0;
  std::size_t workspace_bytes = 0;  // activations, at their peak
};

/// Measures a phase from its construction on. The workspace's peak begins anew.
template <class Workspace>
class PhaseMeter {
 public:
  explicit PhaseMeter(Workspace& workspace) : workspace_(workspace) { workspace.reset_peak(); }
  PhaseCost cost() const { return {watch_.seconds(), workspace_.peak_bytes()}; }

 private:
  Workspace& workspace_;
  Stopwatch watch_;
};

/// The phases of one call of a pipeline, and what its user should know.
struct Phases {
  PhaseCost text, denoise, decode;
  std::vector<double> step_seconds;
  std::vector<std::string> warnings;

  double seconds() const { return text.seconds + denoise.seconds + decode.seconds; }
  /// Most bytes of activations that were in use at once.
  std::size_t workspace_bytes() const {
    return std::max({text.workspace_bytes, denoise.workspace_bytes, decode.workspace_bytes});
  }
};

}  // namespace ebb::examples
