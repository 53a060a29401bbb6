#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <limits>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "common/interrupt.hpp"
#include "common/png.hpp"
#include "common/progress.hpp"
#include "ebb/io/atomic_file.hpp"
#include "ebb/io/safetensors.hpp"
#include "ebb/io/safetensors_writer.hpp"
#include "flux/engine.hpp"
#include "flux/options.hpp"

namespace ebb::flux {

namespace detail {

/// A float tensor [items, tokens, channels], or [items, channels], of a safetensors file. @throws FileError
inline Batch read_batch(const SafetensorsFile& file, std::string_view name) {
  const TensorView& tensor = file.at(name);
  const Shape& shape = tensor.shape;
  if ((shape.rank() != 2 && shape.rank() != 3) || shape.elements() == 0)
    throw FileError(concat(file.path().string(), ": tensor '", name,
                           "': expected shape [batch, tokens, channels] or [batch, channels], found ", shape.text()));
  if (tensor.dtype != DType::f32 && tensor.dtype != DType::f16 && tensor.dtype != DType::bf16)
    throw FileError(concat(file.path().string(), ": tensor '", name, "': expected F32, F16 or BF16, found ",
                           name_of(tensor.dtype)));
  Batch batch{shape[0], shape.rank() == 3 ? shape[1] : 1, shape[shape.rank() - 1], {}};
  batch.values.resize(shape.elements());
  copy_elements(tensor, std::span<float>(batch.values));
  if (!std::all_of(batch.values.begin(), batch.values.end(), [](float value) { return std::isfinite(value); }))
    throw FileError(concat(file.path().string(), ": tensor '", name, "' holds NaN or infinity"));
  return batch;
}

inline void write_latents(const std::filesystem::path& path, const Batch& latents) {
  const std::vector<TensorDeclaration> declared{
      {"latents", DType::f32, Shape{latents.items, latents.tokens, latents.channels}}};
  SafetensorsWriter writer(path, declared);
  writer.write("latents", std::as_bytes(std::span(latents.values)));
  writer.commit();
}

/// "picture.png", or "picture-0.png", "picture-1.png" where there are several.
inline std::filesystem::path numbered(const std::filesystem::path& path, std::size_t index, std::size_t count) {
  if (count == 1) return path;
  auto result = path;
  return result.replace_filename(path.stem().string() + "-" + std::to_string(index) + path.extension().string());
}

inline Request request_of(const Options& options) {
  Request request{.prompts = options.prompts,
                  .prompts_2 = options.prompts_2,
                  .negative_prompts = options.negative_prompts,
                  .true_cfg = options.true_cfg,
                  .height = options.height,
                  .width = options.width,
                  .steps = options.steps,
                  .guidance = options.guidance,
                  .seed = options.seed,
                  .images_per_prompt = options.num_images,
                  .max_sequence_length = options.max_sequence_length,
                  .slicing = options.vae_slicing ? examples::Slicing::on : examples::Slicing::off,
                  .tiling = options.vae_tiling ? examples::Tiling::on : examples::Tiling::off,
                  .latents = {},
                  .embeds = {},
                  .pooled = {}};
  if (!options.latents.empty()) request.latents = read_batch(SafetensorsFile::open(options.latents), "latents");
  if (!options.prompt_embeds.empty()) {
    const auto file = SafetensorsFile::open(options.prompt_embeds);
    request.embeds = read_batch(file, "prompt_embeds");
    request.pooled = read_batch(file, "pooled_prompt_embeds");
  }
  return request;
}

/// "parameters" as other programs write it, and the same as separate entries.
inline std::vector<examples::PngText> metadata(const Options& options, const Request& request, std::size_t index) {
  const std::size_t prompt = index / request.images_per_prompt;
  const std::string text = request.prompts.empty() ? "" : request.prompts[prompt];
  std::string negative;
  if (!request.negative_prompts.empty())
    negative = request.negative_prompts[std::min(prompt, request.negative_prompts.size() - 1)];
  std::string parameters = text;
  if (!negative.empty()) parameters += "\nNegative prompt: " + negative;
  parameters += concat("\nSteps: ", request.steps, ", Sampler: FlowMatchEuler, Guidance: ", request.guidance,
                       ", True CFG: ", request.true_cfg, ", Seed: ", request.seed, ", Image: ", index,
                       ", Size: ", request.width, "x", request.height,
                       ", Model: ", std::filesystem::path(options.model).filename().string(),
                       ", Quantization: ", options.quantize.empty() ? "none" : options.quantize,
                       ", Compute: ", options.compute, ", Version: ebb ", version_major, ".", version_minor, ".",
                       version_patch);
  return {{"parameters", parameters}, {"Software", "ebb flux"}};
}

inline void write_pictures(const Options& options, const Request& request, const Result& result) {
  for (std::size_t index = 0; index < result.pictures.size(); ++index) {
    const Picture& picture = result.pictures[index];
    const auto text = metadata(options, request, index);
    examples::write_png(numbered(options.output, index, result.pictures.size()),
                        Image<const std::uint8_t>{picture.rgb.data(), 1, picture.height, picture.width, 3}, text);
  }
}

/// An error before minutes of work, not after them. @throws FileError
inline void check_writable(const std::filesystem::path& path) {
  if (path.empty()) return;
  AtomicFile probe(path);
}

inline OffloadSpec policy_of(const Options& options) {
  return std::visit(
      [&]<class Policy>(Policy policy) {
        if constexpr (requires { policy.lookahead; })
          if (options.lookahead) policy.lookahead = *options.lookahead;
        return OffloadSpec(policy);
      },
      OffloadSpec::parse(options.offload).policy());
}

/// The device that the options name. @throws ConfigError
inline std::unique_ptr<Machine> machine_of(const Options& options, int threads) {
  const std::string& device = options.device;
  const bool indexed = device.starts_with("cuda:") && device.size() > 5 && device.size() < 9 &&
                       device.find_first_not_of("0123456789", 5) == std::string::npos;
  if (device == "host" || (device == "auto" && !cuda_available())) return host_machine(threads);
  if (device != "auto" && device != "cuda" && !indexed)
    throw ConfigError(concat("--device ", device, ": expected auto, host, cuda or cuda:INDEX"));
  return cuda_machine(indexed ? std::stoi(device.substr(5)) : 0,
                      options.pin_budget.empty() ? std::numeric_limits<std::size_t>::max()
                                                 : parse_bytes(options.pin_budget));
}

/// Reports progress to the terminal and stops the run when the user asks for it.
inline Progress watcher(examples::Progress& progress) {
  return [&progress](const char* phase, std::size_t done, std::size_t of) {
    examples::throw_if_interrupted();
    if (done == 0) return progress.begin(phase, of == 1 ? 0 : of);
    progress.advance();
    if (done == of) progress.finish();
  };
}

inline std::string in_mib(std::size_t bytes) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << static_cast<double>(bytes) / (1 << 20) << " MiB";
  return std::move(text).str();
}

inline int largest_difference(const Result& a, const Result& b) {
  int largest = 0;
  for (std::size_t picture = 0; picture < a.pictures.size(); ++picture)
    for (std::size_t i = 0; i < a.pictures[picture].rgb.size(); ++i)
      largest = std::max(largest, std::abs(int{a.pictures[picture].rgb[i]} - int{b.pictures[picture].rgb[i]}));
  return largest;
}

}  // namespace detail

/// The guide's rows, one after another, as a Markdown table. The last column is the largest difference of a picture's
/// value from the second row's: 0 for all offload policies.
inline void compare(const Options& options, Model& model, const Weights& weights, const Request& request,
                    Machine& machine, std::ostream& out) {
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
  std::vector<Result> results;
  std::vector<Traffic> traffic;
  const auto pins = machine.pin(weights);  // once for all rows
  examples::Progress progress(std::cerr, options.quiet ? examples::ProgressStyle::quiet : examples::progress_style());
  for (const Row& row : rows) {
    if (!options.quiet) std::cerr << row.label << '\n';
    const auto engine =
        machine.engine(model, weights, {{row.policy, options.exclude}, options.compute_type(), row.fusion});
    results.push_back(engine->run(request, detail::watcher(progress)));
    traffic.push_back(engine->traffic());
  }
  out << "| | text, s | denoise, s | decode, s | total, s | weights, peak | activations, peak | moved | difference |\n"
      << "|---|---|---|---|---|---|---|---|---|\n"
      << std::fixed << std::setprecision(3);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Result& result = results[i];
    out << "| " << rows[i].label << " | " << result.text_seconds << " | " << result.denoise_seconds << " | "
        << result.decode_seconds << " | " << result.text_seconds + result.denoise_seconds + result.decode_seconds
        << " | " << detail::in_mib(traffic[i].arena_bytes) << " | " << detail::in_mib(traffic[i].workspace_bytes)
        << " | " << detail::in_mib(traffic[i].bytes_moved) << " | " << detail::largest_difference(result, results[1])
        << " |\n";
  }
}

/// The whole program. Tables and nothing else go to `out`; progress and warnings go to standard error.
/// @throws Error, examples::Interrupted
inline void run(const Options& options, std::ostream& out) {
  const int threads = options.threads > 0 ? options.threads
                                          : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const auto machine = detail::machine_of(options, threads);
  const Placement placement{detail::policy_of(options), options.exclude};
  const WeightOptions weight_options{options.plan(), options.compute_type(), threads, options.offload_to_disk};
  Request request = detail::request_of(options);
  if (!options.compare) detail::check_writable(detail::numbered(options.output, 0, request.batch()));
  detail::check_writable(options.output_latents);
  detail::check_writable(options.report);
  detail::check_writable(options.trace);

  examples::Progress progress(std::cerr, options.quiet ? examples::ProgressStyle::quiet : examples::progress_style());
  Model model = Model::open(options.model);
  std::vector<std::string> warnings;
  check(request, model, warnings);
  progress.begin("load");
  const Weights weights(model, weight_options);
  progress.finish();
  warnings.insert(warnings.end(), weights.warnings().begin(), weights.warnings().end());
  const auto warn = [&](const std::vector<std::string>& sentences) {
    if (!options.quiet)
      for (const std::string& sentence : sentences) std::cerr << "warning: " << sentence << '\n';
  };
  warn(warnings);
  examples::throw_if_interrupted();
  if (options.compare) return compare(options, model, weights, request, *machine, out);

  const auto engine = machine->engine(
      model, weights, {.placement = placement, .compute = options.compute_type(), .trace = options.trace});
  warn(machine->warnings());
  const Result result = engine->run(request, detail::watcher(progress));
  warn(result.warnings);
  detail::write_pictures(options, request, result);
  if (!options.output_latents.empty()) detail::write_latents(options.output_latents, result.latents);
  if (!options.report.empty())
    write_report(options.report, to_json(request, weights.report(), result, engine->traffic(),
                                         placement.policy.text(), options.compute, machine->name(), threads));
}

}  // namespace ebb::flux
