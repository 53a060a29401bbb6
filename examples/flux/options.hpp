#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/run_options.hpp"

namespace ebb::flux {

/// The command line of `flux`, as typed.
struct Options : examples::RunOptions {
  std::vector<std::string> prompts;
  std::vector<std::string> prompts_2;
  std::vector<std::string> negative_prompts;
  double true_cfg = 1.0;
  std::size_t height = 1024, width = 1024, steps = 28, num_images = 1, max_sequence_length = 512;
  double guidance = 3.5;
  std::uint64_t seed = 0;

  bool vae_tiling = false, vae_slicing = false;
  std::string latents, prompt_embeds;
  std::string output = "flux.png", output_latents;

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
        ->check(examples::number())
        ->capture_default_str();
    app.add_option("--height", height, "pixels; rounded down to a multiple of twice the VAE's scale")
        ->check(examples::whole_number())
        ->capture_default_str();
    app.add_option("--width", width, "pixels; likewise")->check(examples::whole_number())->capture_default_str();
    app.add_option("--steps", steps, "denoising steps")->check(examples::whole_number())->capture_default_str();
    app.add_option("--guidance", guidance, "distilled guidance scale (dev checkpoints)")
        ->check(examples::number())
        ->capture_default_str();
    app.add_option("--seed", seed, "seed of the noise; the same picture as PyTorch's CPU generator gives")
        ->check(examples::whole_number())
        ->capture_default_str();
    app.add_option("--num-images", num_images, "pictures for each prompt")
        ->check(examples::whole_number())
        ->capture_default_str();
    app.add_option("--max-sequence-length", max_sequence_length, "T5 tokens, at most 512")
        ->check(examples::whole_number())
        ->capture_default_str();

    RunOptions::declare(app);

    const auto memory = "Memory";
    app.add_flag("--vae-tiling", vae_tiling, "decode in overlapping tiles: less memory, slightly different seams")
        ->group(memory);
    app.add_flag("--vae-slicing", vae_slicing, "decode one picture of a batch at a time: less memory")->group(memory);

    const auto files = "Files";
    app.add_option("--latents", latents, "safetensors file with the packed noise `latents` [B, S, C]")->group(files);
    app.add_option("--prompt-embeds", prompt_embeds,
                   "safetensors file with `prompt_embeds` [B, S, C] and `pooled_prompt_embeds` [B, C]")
        ->group(files);
    app.add_option("--output", output, "PNG file; several pictures become NAME-0.png, NAME-1.png, ...")
        ->capture_default_str()
        ->group(files);
    app.add_option("--output-latents", output_latents, "safetensors file for the final packed `latents`")->group(files);
    app.get_option("--compare")->excludes("--output")->excludes("--output-latents");
  }
};

}  // namespace ebb::flux
