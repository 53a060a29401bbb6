#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/run_options.hpp"

namespace ebb::wan {

/// The command line of `wan`, as typed.
struct Options : examples::RunOptions {
  std::vector<std::string> prompts;
  std::vector<std::string> negative_prompts;
  double guidance = 5.0;
  bool guidance_together = false;
  std::size_t height = 480, width = 832, num_frames = 81, steps = 50, num_videos = 1, max_sequence_length = 512;
  double fps = 16;
  std::optional<double> flow_shift;
  std::uint64_t seed = 0;

  bool vae_tiling = false;
  std::string latents, prompt_embeds;
  std::string output = "wan.mp4", output_latents;

  /// Declares every option on `app`, writing into this object.
  void declare(CLI::App& app) {
    app.add_option("--model", model, "directory of a WanPipeline as diffusers saves it")->required();
    app.add_option("--prompt", prompts, "what to show; repeat it for a batch")->take_all()->expected(1);
    app.add_option("--negative-prompt", negative_prompts, "what to avoid; one, or one each --prompt")
        ->take_all()
        ->expected(1);
    app.add_option("--guidance", guidance, "classifier-free guidance scale; 1 turns it off")
        ->check(examples::number())
        ->capture_default_str();
    app.add_flag(
        "--guidance-together", guidance_together,
        "both sides of guidance in one batch: weights are read once a step, activations take twice the memory");
    app.add_option("--height", height,
                   "pixels, a multiple of 16; rounded down to a multiple of twice the VAE's scale where that is more")
        ->check(examples::whole_number())
        ->capture_default_str();
    app.add_option("--width", width, "pixels; likewise")->check(examples::whole_number())->capture_default_str();
    app.add_option("--num-frames", num_frames, "frames; brought to 1 more than a multiple of the VAE's temporal scale")
        ->check(examples::whole_number())
        ->capture_default_str();
    app.add_option("--fps", fps, "frames a second of the video file")
        ->check(CLI::Range(0.1, 1000.0))
        ->capture_default_str();
    app.add_option("--steps", steps, "denoising steps")->check(examples::whole_number())->capture_default_str();
    app.add_option("--flow-shift", flow_shift,
                   "shift of the noise levels (3 for 480p, 5 for 720p); else the scheduler's configuration")
        ->check(examples::number());
    app.add_option("--seed", seed, "seed of the noise; the same video as PyTorch's CPU generator gives")
        ->check(examples::whole_number())
        ->capture_default_str();
    app.add_option("--num-videos", num_videos, "videos for each prompt")
        ->check(examples::whole_number())
        ->capture_default_str();
    app.add_option("--max-sequence-length", max_sequence_length, "tokens of a prompt, at most 512")
        ->check(examples::whole_number())
        ->capture_default_str();
    RunOptions::declare(app);

    app.add_flag("--vae-tiling", vae_tiling, "decode in overlapping tiles: less memory, slightly different seams")
        ->group("Memory");
    const auto files = "Files";
    app.add_option("--latents", latents, "safetensors file with the noise `latents` [B, C, F, H, W]")->group(files);
    app.add_option("--prompt-embeds", prompt_embeds,
                   "safetensors file with `prompt_embeds` [B, S, C] and perhaps `negative_prompt_embeds` [B, S, C]")
        ->group(files);
    app.add_option(
           "--output", output,
           "FILE.mp4, FILE.y4m, or PNG frames: a pattern such as frames/%04d.png or a directory that ends in '/'; "
           "several videos become NAME-0.mp4, NAME-1.mp4, ...")
        ->capture_default_str()
        ->group(files);
    app.add_option("--output-latents", output_latents, "safetensors file for the final `latents` [B, C, F, H, W]")
        ->group(files);
    app.get_option("--compare")->excludes("--output")->excludes("--output-latents");
  }
};

}  // namespace ebb::wan
