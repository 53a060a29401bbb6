#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "common/command_line.hpp"
#include "common/engine.hpp"
#include "common/finite.hpp"
#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/io/quantization_plan.hpp"
#include "ebb/offload/policy.hpp"

namespace ebb::examples {

/// What `--int8-threshold` means. @throws ConfigError
inline float outlier_threshold(double value) {
  if (!(value >= 0 && is_finite_float(value)))
    throw ConfigError(concat("--int8-threshold: expected a finite number of at least 0, found ", value));
  return static_cast<float>(value);
}

/// `parse_bytes` of an option's value. @throws ConfigError that names the option
inline std::size_t bytes_of(const char* option, const std::string& value) {
  try {
    return parse_bytes(value);
  } catch (const ConfigError& error) {
    throw ConfigError(concat(option, ": ", error.what()));
  }
}

/// The part of a command line that says how to run a pipeline, not what to make with it.
struct RunOptions {
  std::string model;

  std::string quantize;
  std::size_t block_size = 64;
  bool double_quant = false;
  double int8_threshold = 6.0;
  std::vector<std::string> skip;
  std::string compute = "bf16";

  std::string offload = "none";
  std::vector<std::string> exclude;
  std::string offload_to_disk;
  std::optional<std::size_t> lookahead;
  std::string device = "auto";
  std::string pin_budget;
  int threads = 0;

  std::string report, trace, tune;
  bool compare = false, quiet = false;

  /// Declares these options on `app`, writing into this object.
  void declare(CLI::App& app) {
    const auto quantization = "Quantization";
    app.add_option("--quantize", quantize,
                   "FORMAT for every component, or COMPONENT=FORMAT,...; formats: none, nf4, fp4, int8, fp8")
        ->group(quantization);
    app.add_option("--block-size", block_size, "elements a scale (nf4, fp4): 32 to 4096, a power of two")
        ->check(whole_number())
        ->capture_default_str()
        ->group(quantization);
    app.add_flag("--double-quant", double_quant, "quantize the scales too (nf4, fp4)")->group(quantization);
    app.add_option("--int8-threshold", int8_threshold, "outlier threshold of int8; 0 turns outliers off")
        ->check(number())
        ->capture_default_str()
        ->group(quantization);
    app.add_option("--skip", skip, "modules that stay dense, comma separated, matched as diffusers does")
        ->delimiter(',')
        ->group(quantization);
    app.add_option("--compute", compute, "type of activations and dense weights: fp32, bf16 or fp16")
        ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
        ->capture_default_str()
        ->group(quantization);

    const auto memory = "Memory";
    app.add_option("--offload", offload, "none, model, block[:N], leaf or budget:BYTES (suffixes K, M, G, KiB, ...)")
        ->capture_default_str()
        ->group(memory);
    app.add_option("--exclude", exclude, "components that stay on the device, comma separated")
        ->delimiter(',')
        ->group(memory);
    app.add_option("--offload-to-disk", offload_to_disk,
                   "directory for the weights' home: files with a content hash, reused when it matches")
        ->group(memory);
    app.add_option("--lookahead", lookahead, "units fetched ahead of the one in use (block: 1, leaf and budget: 2)")
        ->check(whole_number())
        ->group(memory);

    const auto machine = "Machine";
    app.add_option("--device", device, "auto, host or cuda[:i]")->capture_default_str()->group(machine);
    app.add_option("--pin-budget", pin_budget,
                   "GPU: most bytes of home memory to pin (suffixes K, M, G, KiB, ...); all, where it is not given")
        ->group(machine);
    app.add_option("--threads", threads, "threads on the host; 0 takes every core")
        ->check(CLI::Range(0, 4096))
        ->capture_default_str()
        ->group(machine);

    const auto files = "Files";
    app.add_option("--report", report, "JSON file with times and bytes")->group(files);
    app.add_option("--trace", trace, "GPU: JSON timeline of modules and transfers, for chrome://tracing or Perfetto")
        ->group(files);
    app.add_option("--tune", tune,
                   "GPU: file of algorithms for matrix products; what is not there yet is measured once and added")
        ->group(files);
    app.add_flag("--compare", compare,
                 "run quantized, fused and under each offload policy, and print the rows as a table")
        ->excludes("--offload")
        ->excludes("--lookahead")
        ->excludes("--report")
        ->excludes("--trace");
    app.add_flag("--quiet", quiet, "print nothing but errors");
  }

  DType compute_type() const { return compute == "fp32" ? DType::f32 : compute == "fp16" ? DType::f16 : DType::bf16; }

  /// @throws ConfigError for an unknown format, component form or block size
  QuantizationPlan plan() const {
    FormatChoice choice;
    choice.block = {.block_size = block_size,
                    .nested = double_quant ? DoubleQuantization::on : DoubleQuantization::off};
    choice.int8 = {.outlier_threshold = outlier_threshold(int8_threshold)};
    check_block_size(block_size);
    return quantize.empty() ? QuantizationPlan{} : QuantizationPlan::parse(quantize, choice, skip);
  }

  /// Options that have no effect beside the others, one sentence each.
  std::vector<std::string> without_effect() const {
    std::vector<std::string> sentences;
    if (double_quant && quantize.find("nf4") == std::string::npos && quantize.find("fp4") == std::string::npos)
      sentences.emplace_back("--double-quant has no effect without --quantize nf4 or fp4");
    if (!skip.empty() && quantize.empty()) sentences.emplace_back("--skip has no effect without --quantize");
    if (lookahead && (offload == "none" || offload == "model"))
      sentences.push_back(concat("--lookahead has no effect with --offload ", offload));
    return sentences;
  }

  /// @throws ConfigError
  Placement placement() const {
    const OffloadSpec policy = std::visit(
        [&]<class Policy>(Policy chosen) {
          if constexpr (requires { chosen.lookahead; })
            if (lookahead) chosen.lookahead = *lookahead;
          return OffloadSpec(chosen);
        },
        OffloadSpec::parse(offload).policy());
    return {policy, exclude};
  }

  int thread_count() const {
    return threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }

  /// The device that is named. Where `auto` passes a GPU by that it cannot use, `warnings` says why.
  /// @throws ConfigError
  template <Pipeline P>
  std::unique_ptr<Machine<P>> machine(std::vector<std::string>& warnings) const {
    const std::size_t pinned =
        pin_budget.empty() ? std::numeric_limits<std::size_t>::max() : bytes_of("--pin-budget", pin_budget);
    const bool indexed = device.starts_with("cuda:") && device.size() > 5 && device.size() < 9 &&
                         device.find_first_not_of("0123456789", 5) == std::string::npos;
    if (device == "host") return host_machine<P>(thread_count());
    if (std::string trouble; device == "auto" && !cuda_available<P>(trouble)) {
      if (!trouble.empty()) warnings.push_back(concat("the host computes, because the GPU cannot: ", trouble));
      return host_machine<P>(thread_count());
    }
    if (device != "auto" && device != "cuda" && !indexed)
      throw ConfigError(concat("--device ", device, ": expected auto, host, cuda or cuda:INDEX"));
    return cuda_machine<P>(indexed ? std::stoi(device.substr(5)) : 0, pinned);
  }
};

}  // namespace ebb::examples
