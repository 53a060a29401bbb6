"""Wan 2.1 text to video at its real size, with random weights: makes the directory, runs diffusers on it, compares.

  python3 wan.py make DIR TOKENIZER [SIZE]  a WanPipeline directory, noise and embeddings; TOKENIZER is a directory of a
                                            T5 tokenizer (no prompt is read); SIZE: 14B (default), 1.3B or tiny
  python3 wan.py forward DIR                one denoising step of diffusers on bitsandbytes' NF4 weights -> forward.safetensors
  python3 wan.py rows DIR ROW...            diffusers' transformer: eager, compile, group-offload
  python3 wan.py vae DIR ROW...             diffusers' decoding of the whole video: whole, tiled
  python3 wan.py error DIR OURS             relative error of the velocity in OURS (`wan --steps 1 --guidance 1
                                            --output-latents OURS`)

`make` and the rows need torch, diffusers, transformers, bitsandbytes and a GPU; with SIZE tiny a CPU does. ebb runs on the
same files:
  wan --model DIR --latents DIR/inputs.safetensors --prompt-embeds DIR/inputs.safetensors \
      --quantize transformer=nf4,text_encoder=nf4 --height 480 --width 832 --num-frames 81 ...
"""

import gc
import json
import shutil
import sys
import time

import torch
from safetensors.torch import load_file, save_file

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = {  # transformer, text encoder, VAE, (frames, height, width) in latents
    "14B": (dict(text_dim=4096), dict(num_layers=24, d_model=4096, d_ff=10240, num_heads=64), {}, (21, 60, 104)),
    "1.3B": (
        dict(text_dim=4096, num_attention_heads=12, ffn_dim=8960, num_layers=30),
        dict(num_layers=24, d_model=4096, d_ff=10240, num_heads=64), {}, (21, 60, 104),
    ),
    "tiny": (
        dict(text_dim=64, num_attention_heads=2, ffn_dim=512, num_layers=2),
        dict(num_layers=1, d_model=64, d_ff=128, num_heads=2), dict(base_dim=8), (3, 8, 12),
    ),
}


def make(directory, tokenizer, size="14B"):
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    transformer_options, text_options, vae_options, shape = SIZES[size]
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        transformer = WanTransformer3DModel(**transformer_options)
        text_encoder = UMT5EncoderModel(
            UMT5Config(
                vocab_size=256384, d_kv=64, feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
                **text_options,
            )
        )
        vae = AutoencoderKLWan(**vae_options)
    torch.set_default_dtype(torch.float32)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    )
    WanPipeline(
        scheduler=scheduler, vae=vae, text_encoder=text_encoder, tokenizer=None, transformer=transformer
    ).save_pretrained(directory, max_shard_size="10GB")
    shutil.copytree(tokenizer, f"{directory}/tokenizer", dirs_exist_ok=True)
    with open(f"{directory}/model_index.json") as file:
        index = json.load(file)
    index["tokenizer"] = ["transformers", "T5TokenizerFast"]
    with open(f"{directory}/model_index.json", "w") as file:
        json.dump(index, file, indent=2)
    noise = torch.Generator().manual_seed(1)
    width = transformer_options["text_dim"]
    save_file(
        {
            "latents": torch.randn(1, 16, *shape, generator=noise),
            "prompt_embeds": 0.2 * torch.randn(1, 512, width, generator=noise).to(torch.bfloat16),
            "negative_prompt_embeds": 0.2 * torch.randn(1, 512, width, generator=noise).to(torch.bfloat16),
        },
        f"{directory}/inputs.safetensors",
    )


def pipeline(directory, offload=False):
    from diffusers import WanPipeline
    from diffusers.quantizers import PipelineQuantizationConfig

    start = time.perf_counter()
    nf4 = PipelineQuantizationConfig(
        quant_backend="bitsandbytes_4bit",
        quant_kwargs={"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16},
        components_to_quantize=["transformer"],
    )
    pipe = WanPipeline.from_pretrained(
        directory, quantization_config=nf4 if DEVICE == "cuda" else None,  # diffusers quantizes on a GPU only
        torch_dtype=torch.bfloat16, tokenizer=None, text_encoder=None,
    )
    if not offload:
        pipe.to(DEVICE)
    pipe.set_progress_bar_config(disable=True)
    return pipe, time.perf_counter() - start


def call(pipe, inputs, steps, guidance):
    _, _, frames, height, width = inputs["latents"].shape
    return pipe(
        prompt_embeds=inputs["prompt_embeds"].to(DEVICE),
        negative_prompt_embeds=inputs["negative_prompt_embeds"].to(DEVICE), latents=inputs["latents"].to(DEVICE),
        height=8 * height, width=8 * width, num_frames=4 * (frames - 1) + 1, num_inference_steps=steps,
        guidance_scale=guidance, output_type="latent",
    ).frames


def forward(directory):
    inputs = load_file(f"{directory}/inputs.safetensors")
    pipe, _ = pipeline(directory)
    save_file({"latents": call(pipe, inputs, 1, 1.0).float().cpu()}, f"{directory}/forward.safetensors")


def error(directory, ours):
    # The only step ends at the data, sample - sigma * velocity.
    before = load_file(f"{directory}/inputs.safetensors")["latents"].double()
    expected = load_file(f"{directory}/forward.safetensors")["latents"].double() - before
    found = load_file(ours)["latents"].double() - before
    print(f"relative error of the velocity: {((found - expected).norm() / expected.norm()).item():.3e}")


def synchronize():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def row(directory, name):
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.config.cache_size_limit = 1000
    inputs = load_file(f"{directory}/inputs.safetensors")
    pipe, load_seconds = pipeline(directory, offload="offload" in name)
    if name.startswith("group-offload"):
        pipe.transformer.enable_group_offload(
            onload_device=torch.device(DEVICE), offload_device=torch.device("cpu"), offload_type="leaf_level",
            use_stream=True, non_blocking=True,
        )
        pipe.vae.to(DEVICE)
    if name.endswith("compile"):
        pipe.transformer.compile()

    def timed(steps):
        synchronize()
        start = time.perf_counter()
        call(pipe, inputs, steps, 5.0)
        synchronize()
        return time.perf_counter() - start

    start = time.perf_counter()
    timed(1)
    warm = time.perf_counter() - start
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    total, short = timed(3), timed(1)
    peak = torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else 0.0
    print(
        f"| {name} | {(total - short) / 2:.3f} s | {(total - short) / 4:.3f} s | {peak:.2f} GB | {load_seconds:.1f} s | "
        f"{warm:.1f} s |",
        flush=True,
    )
    del pipe
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


@torch.no_grad()
def vae_row(directory, name):
    from diffusers import AutoencoderKLWan

    latents = load_file(f"{directory}/inputs.safetensors")["latents"].to(DEVICE, torch.bfloat16)
    vae = AutoencoderKLWan.from_pretrained(f"{directory}/vae", torch_dtype=torch.bfloat16).to(DEVICE)
    if name == "tiled":
        vae.enable_tiling()
    vae.decode(latents)
    synchronize()
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    vae.decode(latents)
    synchronize()
    peak = torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else 0.0
    print(f"| {name} | {time.perf_counter() - start:.2f} s | {peak:.2f} GB |", flush=True)


def main():
    command, directory, *rest = sys.argv[1:]
    if command == "rows":
        print("| diffusers | guided step | forward | peak | load | first step |\n|---|---|---|---|---|---|", flush=True)
        for name in rest:
            row(directory, name)
    elif command == "vae":
        print("| diffusers, VAE | decode | peak |\n|---|---|---|", flush=True)
        for name in rest:
            vae_row(directory, name)
    else:
        {"make": make, "forward": forward, "error": error}[command](directory, *rest)


if __name__ == "__main__":
    main()
