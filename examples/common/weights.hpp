#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/phase.hpp"
#include "common/report.hpp"
#include "common/unused_skips.hpp"
#include "ebb/io/checkpoint.hpp"
#include "ebb/io/load.hpp"
#include "ebb/io/stored_quantization.hpp"
#include "ebb/memory/storage.hpp"
#include "ebb/offload/disk.hpp"
#include "ebb/offload/hash.hpp"

namespace ebb::examples {

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
  template <class Model>
  Weights(Model& model, const WeightOptions& options) {
    const Stopwatch watch;
    const std::vector<std::string> names(Model::component_names.begin(), Model::component_names.end());
    options.plan.check_components(names);
    UnusedSkips unused(options.plan.skip());
    model.for_each_component([&](const std::string& name, auto& component) {
      const Checkpoint checkpoint = Checkpoint::open(model.directory / name);
      LoadOptions load;
      load.format = options.plan.format_of(name);
      load.skip = options.plan.skip();
      load.compute = options.compute;
      load.threads = options.threads;
      if (const auto stored = StoredQuantization::from_file(model.directory / name / "config.json")) {
        if (load.format.kind != FormatChoice::Kind::dense)
          warnings_.push_back(concat(name, ": its config.json says how it is quantized, which wins over the ",
                                     load.format.name(), " asked for"));
        load.format.kind = FormatChoice::Kind::dense;
        load.format.int8.outlier_threshold = stored->outlier_threshold;
      }
      if (load.format.kind != FormatChoice::Kind::dense) unused.visit(component);
      const Loader loader(component, name, checkpoint, load);
      warnings_.insert(warnings_.end(), loader.warnings().begin(), loader.warnings().end());
      report_.components.emplace_back(name, loader.footprint());
      const Stopwatch fill_watch;
      homes_.push_back({loader.outline(), keep(name, loader, checkpoint, options)});
      report_.quantize_seconds += fill_watch.seconds();
    });
    for (std::string& sentence : unused.warnings()) warnings_.push_back(std::move(sentence));
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
    const std::string layout = loader.layout_text();
    const HomeFileKey key{.component = name,
                          .layout_hash = hash64(std::as_bytes(std::span(layout))),
                          .source_hash = source_hash(checkpoint, options),
                          .bytes = loader.bytes()};
    files_.push_back(
        HomeFile::open_or_create(options.disk_directory, key, [&](std::span<std::byte> arena) { loader.fill(arena); }));
    if (!files_.back().reason().empty()) warnings_.push_back(files_.back().reason());
    return files_.back().bytes().data();
  }

  /// Of the contents of all files, and of what they are rounded to.
  static std::uint64_t source_hash(const Checkpoint& checkpoint, const WeightOptions& options) {
    std::uint64_t hash = static_cast<std::uint64_t>(options.compute);
    for (const SafetensorsFile& file : checkpoint.files()) hash = hash64(file.map().bytes(), hash);
    return hash;
  }

  std::vector<AlignedBuffer> buffers_;
  std::vector<HomeFile> files_;
  std::vector<Home> homes_;
  LoadReport report_;
  std::vector<std::string> warnings_;
};

}  // namespace ebb::examples
