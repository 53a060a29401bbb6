#pragma once

#include <cstddef>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "common/config_file.hpp"
#include "common/engine.hpp"
#include "common/interrupt.hpp"
#include "common/one_line.hpp"
#include "common/progress.hpp"
#include "common/run_options.hpp"
#include "ebb/io/atomic_file.hpp"

namespace ebb::examples {

/// Reports progress to the terminal and stops the run when the user asks for it.
inline PhaseWatcher watcher(Progress& progress) {
  return [&progress, before = std::size_t{0}](const char* phase, std::size_t done, std::size_t of) mutable {
    throw_if_interrupted();
    if (done == 0)
      progress.begin(phase, of == 1 ? 0 : of);
    else
      progress.advance(done - before);
    before = done;
    if (done == of) progress.finish();
  };
}

/// "picture.png", or "picture-0.png", "picture-1.png" where there are several; "frames/" becomes "frames/0/".
inline std::filesystem::path numbered(const std::filesystem::path& path, std::size_t index, std::size_t count) {
  if (count == 1) return path;
  if (!path.has_filename()) return path / std::to_string(index) / "";
  auto result = path;
  return result.replace_filename(path.stem().string() + "-" + std::to_string(index) + path.extension().string());
}

/// Looks at all files that a run of `count` pictures or videos writes. @throws ConfigError where one would replace
/// another, or be the directory of another
inline void check_distinct(const RunOptions& options, const std::filesystem::path& output,
                           const std::filesystem::path& output_latents, std::size_t count) {
  std::map<std::filesystem::path, const char*> files, directories;
  const auto add = [&](const char* option, const std::filesystem::path& path) {
    if (path.empty()) return;
    auto name = std::filesystem::absolute(path).lexically_normal();
    if (!name.has_filename()) name = name.parent_path();  // "frames/" is "frames"
    const auto refuse_in = [&](const auto& others, const std::filesystem::path& here) {
      const auto other = others.find(here);
      if (other != others.end())
        throw ConfigError(concat(other->second, " and ", option, " name the same file: ", here.string()));
    };
    refuse_in(files, name);
    refuse_in(directories, name);
    files.emplace(name, option);
    for (auto parent = name.parent_path(); parent.has_relative_path(); parent = parent.parent_path()) {
      refuse_in(files, parent);
      directories.emplace(parent, option);
    }
  };
  for (std::size_t index = 0; index < count; ++index) add("--output", numbered(output, index, count));
  add("--output-latents", output_latents);
  add("--report", options.report);
  add("--trace", options.trace);
  add("--tune", options.tune);
}

/// The last part of a directory's name, as it stands in what is written.
inline std::string name_of_directory(const std::filesystem::path& directory) {
  return (directory.has_filename() ? directory : directory.parent_path()).filename().string();
}

/// An error before minutes of work, not after them. @throws FileError
inline void check_writable(const std::filesystem::path& path) {
  if (path.empty()) return;
  AtomicFile probe(path);
}

inline std::string in_mib(std::size_t bytes) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << static_cast<double>(bytes) / (1 << 20) << " MiB";
  return std::move(text).str();
}

/// Tells the user, unless `--quiet` asks for silence.
inline void warn(const RunOptions& options, const std::vector<std::string>& sentences) {
  if (options.quiet) return;
  for (const std::string& sentence : sentences) std::cerr << "warning: " << one_line(sentence) << '\n';
}

/// The rows of diffusers' guide (quantized, fused, offloaded), one after another, as a Markdown table. The last column
/// is `largest_difference` of a result and the second row's: 0 for all offload policies.
template <Pipeline P>
void compare(const RunOptions& options, typename P::Model& model, const Weights& weights,
             const typename P::Request& request, Machine<P>& machine, std::ostream& out) {
  struct Row {
    const char* label;
    OffloadSpec policy;
    Fusion fusion;
  };
  const std::vector<Row> rows{{"quantized", OffloadSpec(NoOffload{}), Fusion::off},
                              {"+ fused kernels", OffloadSpec(NoOffload{}), Fusion::on},
                              {"+ model offload", OffloadSpec(ModelOffload{}), Fusion::on},
                              {"+ group offload, block", OffloadSpec(BlockOffload{}), Fusion::on},
                              {"+ group offload, leaf", OffloadSpec(LeafOffload{}), Fusion::on}};
  std::vector<typename P::Result> results;
  std::vector<Traffic> traffic;
  const auto pins = machine.pin(weights);  // once for all rows
  warn(options, machine.warnings());
  Progress progress(std::cerr, options.quiet ? ProgressStyle::quiet : progress_style());
  for (const Row& row : rows) {
    if (!options.quiet) std::cerr << row.label << '\n';
    const auto engine = machine.engine(model, weights,
                                       {.placement = {row.policy, options.exclude},
                                        .compute = options.compute_type(),
                                        .fusion = row.fusion,
                                        .tuned = options.tune});
    results.push_back(engine->run(request, watcher(progress)));
    traffic.push_back(engine->traffic());
  }
  out << "| | text, s | denoise, s | decode, s | total, s | weights, peak | activations, peak | moved | difference |\n"
      << "|---|---|---|---|---|---|---|---|---|\n"
      << std::fixed << std::setprecision(3);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto& result = results[i];
    out << "| " << rows[i].label << " | " << result.text.seconds << " | " << result.denoise.seconds << " | "
        << result.decode.seconds << " | " << result.seconds() << " | " << in_mib(traffic[i].arena_bytes) << " | "
        << in_mib(traffic[i].workspace_bytes) << " | " << in_mib(traffic[i].bytes_moved) << " | "
        << concat(largest_difference(result, results[1])) << " |\n";  // all of its digits
  }
}

/// A model, its weights and a device: what all programs do before and after the call of their pipeline.
template <Pipeline P>
class Run {
 public:
  /// Opens the model, fits the request to it with the pipeline's `check`, calls `ready()`, which may throw before
  /// minutes of work, and loads the weights. @throws Error, Interrupted
  template <class Ready>
  Run(const RunOptions& options, typename P::Request& request, Ready ready)
      : options_(options), machine_(machine(options)), placement_(options.placement()) {
    machine_->check(engine_options());
    const auto plan = options.plan();
    check_excluded();
    check_writable(options.report);
    check_writable(options.trace);
    if (!is_there(options.tune)) check_writable(options.tune);
    model_ = std::make_unique<typename P::Model>(P::Model::open(options.model));
    std::vector<std::string> warnings = options.without_effect();
    check(request, *model_, warnings);
    ready();
    Progress progress(std::cerr, style());
    progress.begin("load");
    weights_ = std::make_unique<Weights>(
        *model_, WeightOptions{plan, options.compute_type(), options.thread_count(), options.offload_to_disk});
    progress.finish();
    warn(options_, warnings);
    warn(options_, weights_->warnings());
    throw_if_interrupted();
  }

  /// Prints the table of `--compare`.
  void compare(const typename P::Request& request, std::ostream& out) {
    examples::compare<P>(options_, *model_, *weights_, request, *machine_, out);
  }

  /// One call of the pipeline under the options' placement. @throws Error, Interrupted
  typename P::Result run(const typename P::Request& request) {
    const auto engine = machine_->engine(*model_, *weights_, engine_options());
    warn(options_, machine_->warnings());
    Progress progress(std::cerr, style());
    typename P::Result result = engine->run(request, watcher(progress));
    warn(options_, result.warnings);
    traffic_ = engine->traffic();
    return result;
  }

  /// Writes `--report`, where it is asked for: `own` are the pipeline's fields. @throws FileError
  void report(const Phases& phases, const nlohmann::json& own) const {
    if (options_.report.empty()) return;
    nlohmann::json report = to_json({.device = machine_->name(),
                                     .offload = placement_.policy.text(),
                                     .compute = options_.compute,
                                     .threads = options_.thread_count()},
                                    weights_->report(), phases, traffic_);
    report.update(own);
    write_report(options_.report, report);
  }

 private:
  EngineOptions engine_options() const {
    return {
        .placement = placement_, .compute = options_.compute_type(), .trace = options_.trace, .tuned = options_.tune};
  }
  /// @throws ConfigError
  void check_excluded() const {
    std::vector<Component> components;
    for (const char* name : P::Model::component_names) components.push_back({.name = name});
    exclude(components, placement_.excluded);
  }
  ProgressStyle style() const { return options_.quiet ? ProgressStyle::quiet : progress_style(); }
  static std::unique_ptr<Machine<P>> machine(const RunOptions& options) {
    std::vector<std::string> warnings;
    auto result = options.machine<P>(warnings);
    warn(options, warnings);
    return result;
  }

  const RunOptions& options_;
  std::unique_ptr<Machine<P>> machine_;
  Placement placement_;
  std::unique_ptr<typename P::Model> model_;
  std::unique_ptr<Weights> weights_;
  Traffic traffic_;
};

}  // namespace ebb::examples
