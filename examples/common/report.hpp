#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/phase.hpp"
#include "ebb/io/atomic_file.hpp"
#include "ebb/io/footprint.hpp"
#include "ebb/offload/group.hpp"

namespace ebb::examples {

/// What the device tier did during one run.
struct Traffic {
  std::size_t arena_bytes = 0;          // weights: the device arena, at its peak
  std::size_t workspace_bytes = 0;      // activations: the workspace, at its peak
  std::size_t bytes_moved = 0;          // home to device, all passes
  std::size_t denoise_bytes_moved = 0;  // of these, during the denoising loop
  std::size_t copies = 0;               // transfers
  std::size_t misses = 0;               // units that had not been fetched ahead

  struct Host {
    std::size_t stalls = 0;    // times that compute waited for a transfer
    double stall_seconds = 0;  // how long in all
  };
  struct Gpu {
    std::size_t driver_peak_bytes = 0;  // what the driver had less of at the end of a phase, at most
    std::size_t graph_launches = 0;     // steps that ran as a graph
  };
  std::optional<Host> host = {};  // what only one of the devices can tell
  std::optional<Gpu> gpu = {};

  /// Counts what happened between two states of an offload group.
  void count(const OffloadStatistics& before, const OffloadStatistics& after) {
    bytes_moved = after.bytes_moved - before.bytes_moved;
    copies = after.copies - before.copies;
    misses = after.misses - before.misses;
  }
};

/// How the weights came into memory.
struct LoadReport {
  double seconds = 0;           // opening, reading and quantizing, all components
  double quantize_seconds = 0;  // of these, filling the home arenas: read, round, quantize, write
  std::vector<std::pair<std::string, Footprint>> components;
};

/// How a run was set up, as the report says it.
struct RunDescription {
  std::string device, offload, compute;
  int threads = 1;
};

/// One run as JSON, without what its pipeline alone knows; the fields are described in examples/flux/README.md.
inline nlohmann::json to_json(const RunDescription& run, const LoadReport& load, const Phases& phases,
                              const Traffic& traffic) {
  nlohmann::json weights = nlohmann::json::object();
  for (const auto& [component, footprint] : load.components) {
    nlohmann::json formats = nlohmann::json::object();
    for (const auto& [format, bytes] : footprint.formats())
      formats[format] = {{"tensors", bytes.tensors},
                         {"codes_bytes", bytes.codes},
                         {"scales_bytes", bytes.scales},
                         {"nested_bytes", bytes.nested}};
    weights[component] = {
        {"formats", formats}, {"stored_bytes", footprint.stored()}, {"allocated_bytes", footprint.allocated()}};
  }
  nlohmann::json report = {{"device", run.device},
                           {"threads", run.threads},
                           {"compute", run.compute},
                           {"offload", run.offload},
                           {"load_seconds", load.seconds},
                           {"quantize_seconds", load.quantize_seconds},
                           {"text_seconds", phases.text.seconds},
                           {"denoise_seconds", phases.denoise.seconds},
                           {"decode_seconds", phases.decode.seconds},
                           {"step_seconds", phases.step_seconds},
                           {"weights", weights},
                           {"device_peak_bytes", traffic.arena_bytes + traffic.workspace_bytes},
                           {"arena_peak_bytes", traffic.arena_bytes},
                           {"workspace_peak_bytes", traffic.workspace_bytes},
                           {"text_workspace_bytes", phases.text.workspace_bytes},
                           {"denoise_workspace_bytes", phases.denoise.workspace_bytes},
                           {"decode_workspace_bytes", phases.decode.workspace_bytes},
                           {"bytes_moved", traffic.bytes_moved},
                           {"bytes_moved_per_step",
                            phases.step_seconds.empty() ? 0 : traffic.denoise_bytes_moved / phases.step_seconds.size()},
                           {"copies", traffic.copies},
                           {"misses", traffic.misses},
                           {"warnings", phases.warnings}};
  if (traffic.host) report.update({{"stalls", traffic.host->stalls}, {"stall_seconds", traffic.host->stall_seconds}});
  if (traffic.gpu)
    report.update(
        {{"driver_peak_bytes", traffic.gpu->driver_peak_bytes}, {"graph_launches", traffic.gpu->graph_launches}});
  return report;
}

/// Writes `report` as indented JSON; the file appears complete or not at all. @throws FileError
inline void write_report(const std::filesystem::path& path, const nlohmann::json& report) {
  AtomicFile::write_text(path, report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace ebb::examples
