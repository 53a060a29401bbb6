#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ebb/core/dtype.hpp"
#include "ebb/core/error.hpp"
#include "ebb/io/quantization_plan.hpp"
#include "ebb/offload/policy.hpp"

namespace ebb::flux {

/// The command line of `flux`, as typed.
struct Options {
  std::string model;
  std::vector<std::string> prompts;
  std::vector<std::string> prompts_2;
  std::vector<std::string> negative_prompts;
  double true_cfg = 1.0;
  std::size_t height = 1024, width = 1024, steps = 28, num_images = 1, max_sequence_length = 512;
  double guidance = 3.5;
  std::uint64_t seed = 0;

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

  bool vae_tiling = false, vae_slicing = false;
  std::string latents, prompt_embeds;
  std::string output = "flux.png", output_latents, report, trace;
  bool compare = false, quiet = false;

  /// Declares every option on `app`, writing into this object.
  void declare(CLI::App& app) {
    app.add_option("--model", model, "directory of a FluxPipeline as diffusers saves it")->required();
    app.add_option("--prompt", prompts, "what to draw; repeat it for a batch")->take_all()->expected(1);
    app.add_option("--prompt-2", prompts_2, "prompt of the T5 encoder, where it differs; one each --prompt")
        ->take_all()
        ->expected(1);
    app.add_option("--negative-prompt", negative_prompts,
                   "what to avoid; one, or one each --prompt; works with --true-cfg above 1")
        ->take_all()
        ->expected(1);
    app.add_option("--true-cfg", true_cfg, "classifier-free guidance scale with the negative prompt")
        ->capture_default_str();
    app.add_option("--height", height, "pixels; rounded down to a multiple of twice the VAE's scale")
        ->capture_default_str();
    app.add_option("--width", width, "pixels; likewise")->capture_default_str();
    app.add_option("--steps", steps, "denoising steps")->capture_default_str();
    app.add_option("--guidance", guidance, "distilled guidance scale (dev checkpoints)")->capture_default_str();
    app.add_option("--seed", seed, "seed of the noise; the same picture as PyTorch's CPU generator gives")
        ->capture_default_str();
    app.add_option("--num-images", num_images, "pictures for each prompt")->capture_default_str();
    app.add_option("--max-sequence-length", max_sequence_length, "T5 tokens, at most 512")->capture_default_str();

    const auto quantization = "Quantization";
    app.add_option("--quantize", quantize,
                   "FORMAT for every component, or COMPONENT=FORMAT,...; formats: none, nf4, fp4, int8, fp8")
        ->group(quantization);
    app.add_option("--block-size", block_size, "elements a scale (nf4, fp4): 32 to 4096, a power of two")
        ->capture_default_str()
        ->group(quantization);
    app.add_flag("--double-quant", double_quant, "quantize the scales too (nf4, fp4)")->group(quantization);
    app.add_option("--int8-threshold", int8_threshold, "outlier threshold of int8; 0 turns outliers off")
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
        ->group(memory);
    app.add_flag("--vae-tiling", vae_tiling, "decode in overlapping tiles: less memory, slightly different seams")
        ->group(memory);
    app.add_flag("--vae-slicing", vae_slicing, "decode one picture of a batch at a time: less memory")
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
    app.add_option("--latents", latents, "safetensors file with the packed noise `latents` [B, S, C]")->group(files);
    app.add_option("--prompt-embeds", prompt_embeds,
                   "safetensors file with `prompt_embeds` [B, S, C] and `pooled_prompt_embeds` [B, C]")
        ->group(files);
    app.add_option("--output", output, "PNG file; several pictures become NAME-0.png, NAME-1.png, ...")
        ->capture_default_str()
        ->group(files);
    app.add_option("--output-latents", output_latents, "safetensors file for the final packed `latents`")
        ->group(files);
    app.add_option("--report", report, "JSON file with times, bytes and stalls")->group(files);
    app.add_option("--trace", trace, "GPU: JSON timeline of modules and transfers, for chrome://tracing or Perfetto")
        ->group(files);
    app.add_flag("--compare", compare, "run the guide's rows one after another and print them as a table");
    app.add_flag("--quiet", quiet, "print nothing but errors");
  }

  DType compute_type() const {
    return compute == "fp32" ? DType::f32 : compute == "fp16" ? DType::f16 : DType::bf16;
  }

  /// @throws ConfigError for an unknown format, component form or block size
  QuantizationPlan plan() const {
    FormatChoice choice;
    choice.block = {.block_size = block_size,
                    .nested = double_quant ? DoubleQuantization::on : DoubleQuantization::off};
    choice.int8 = {.outlier_threshold = static_cast<float>(int8_threshold)};
    check_block_size(block_size);
    return quantize.empty() ? QuantizationPlan{} : QuantizationPlan::parse(quantize, choice, skip);
  }
};

}  // namespace ebb::flux
