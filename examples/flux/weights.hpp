#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ebb/io/checkpoint.hpp"
#include "ebb/io/load.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/offload/disk.hpp"
#include "flux/model.hpp"
#include "flux/pipeline.hpp"
#include "flux/report.hpp"

namespace ebb::flux {

/// What to make of the files.
struct WeightOptions {
  QuantizationPlan plan;
  DType compute = DType::f32;
  int threads = 1;
  std::filesystem::path disk_directory;  // empty: weights live in RAM
};

/// All weights of a model in home memory: one arena a component, in RAM or in a file that is mapped.
class Weights {
 public:
  struct Home {
    Outline outline;
    const std::byte* bytes = nullptr;
  };

  /// Settles formats, then reads, rounds and quantizes each component straight into its arena. `model` must stay
  /// where it is. @throws FileError, ConfigError, ValueError, MemoryError
  Weights(Model& model, const WeightOptions& options) {
    const detail::Stopwatch watch;
    const std::vector<std::string> names(Model::component_names.begin(), Model::component_names.end());
    options.plan.check_components(names);
    model.for_each_component([&](const std::string& name, auto& component) {
      const Checkpoint checkpoint = Checkpoint::open(model.directory / name);
      LoadOptions load;
      load.format = options.plan.format_of(name);
      load.skip = options.plan.skip();
      load.compute = options.compute;
      load.threads = options.threads;
      const Loader loader(component, name, checkpoint, load);
      warnings_.insert(warnings_.end(), loader.warnings().begin(), loader.warnings().end());
      report_.components.emplace_back(name, loader.footprint());
      const detail::Stopwatch fill_watch;
      homes_.push_back({loader.outline(), keep(name, loader, checkpoint, options)});
      report_.quantize_seconds += fill_watch.seconds();
    });
    report_.seconds = watch.seconds();
  }

  /// In the pipeline's order.
  std::span<const Home> homes() const { return homes_; }
  const LoadReport& report() const { return report_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  const std::byte* keep(const std::string& name, const Loader& loader, const Checkpoint& checkpoint,
                        const WeightOptions& options) {
    if (options.disk_directory.empty()) {
      buffers_.emplace_back(loader.bytes());
      loader.fill(buffers_.back().bytes());
      return buffers_.back().data();
    }
    files_.push_back(DiskArena::open_or_create(options.disk_directory, name, hash_of(loader.layout_text()),
                                               checkpoint.content_hash(), loader.bytes(),
                                               [&](std::span<std::byte> arena) { loader.fill(arena); }));
    return files_.back().data();
  }

  std::vector<AlignedBuffer> buffers_;
  std::vector<DiskArena> files_;
  std::vector<Home> homes_;
  LoadReport report_;
  std::vector<std::string> warnings_;
};

}  // namespace ebb::flux
