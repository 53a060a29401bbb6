"""FLUX.1-dev at its real size, with random weights: makes the directory, runs diffusers on it, compares results.

  python3 flux.py make DIR TOKENIZERS     a FluxPipeline directory, noise and embeddings; TOKENIZERS is a pipeline
                                          directory whose two tokenizers are copied (no prompt is read)
  python3 flux.py forward DIR             one denoising step of diffusers on bitsandbytes' NF4 weights -> forward.safetensors
  python3 flux.py rows DIR ROW...         the guide's rows in diffusers: eager, compile, model-offload, group-offload
  python3 flux.py error DIR OURS          relative error of the velocity in OURS (`flux --steps 1 --output-latents OURS`)

`make` and the rows need torch, diffusers, transformers, bitsandbytes and a GPU. ebb runs on the same files:
  flux --model DIR --latents DIR/inputs.safetensors --prompt-embeds DIR/inputs.safetensors \
       --quantize transformer=nf4,text_encoder_2=nf4 ...
"""

import gc
import json
import shutil
import sys
import time

import torch
from safetensors.torch import load_file, save_file

DEVICE = "cuda"


def make(directory, tokenizers):
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        transformer = FluxTransformer2DModel(guidance_embeds=True)
        t5 = T5EncoderModel(
            T5Config(
                vocab_size=32128, d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=24,
                feed_forward_proj="gated-gelu", tie_word_embeddings=False, is_encoder_decoder=False, use_cache=False,
            )
        )
        clip = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                max_position_embeddings=77, vocab_size=49408, projection_dim=768,
            )
        )
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=16, sample_size=1024,
            scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False,
        )
    torch.set_default_dtype(torch.float32)
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
        base_image_seq_len=256, max_image_seq_len=4096,
    )
    FluxPipeline(
        scheduler=scheduler, vae=vae, text_encoder=clip, tokenizer=None, text_encoder_2=t5, tokenizer_2=None,
        transformer=transformer,
    ).save_pretrained(directory, max_shard_size="10GB")
    with open(f"{directory}/model_index.json") as file:
        index = json.load(file)
    for name, kind in (("tokenizer", "CLIPTokenizer"), ("tokenizer_2", "T5TokenizerFast")):
        shutil.copytree(f"{tokenizers}/{name}", f"{directory}/{name}", dirs_exist_ok=True)
        index[name] = ["transformers", kind]
    with open(f"{directory}/model_index.json", "w") as file:
        json.dump(index, file, indent=2)
    noise = torch.Generator().manual_seed(1)
    save_file(
        {
            "latents": torch.randn(1, 4096, 64, generator=noise, dtype=torch.bfloat16),
            "prompt_embeds": 0.2 * torch.randn(1, 512, 4096, generator=noise).to(torch.bfloat16),
            "pooled_prompt_embeds": torch.randn(1, 768, generator=noise).to(torch.bfloat16),
        },
        f"{directory}/inputs.safetensors",
    )


def pipeline(directory, offload=False):
    from diffusers import FluxPipeline
    from diffusers.quantizers import PipelineQuantizationConfig

    start = time.perf_counter()
    pipe = FluxPipeline.from_pretrained(
        directory,
        quantization_config=PipelineQuantizationConfig(
            quant_backend="bitsandbytes_4bit",
            quant_kwargs={
                "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16,
            },
            components_to_quantize=["transformer", "text_encoder_2"],
        ),
        torch_dtype=torch.bfloat16, tokenizer=None, tokenizer_2=None,
    )
    if not offload:
        pipe.to(DEVICE)
    pipe.set_progress_bar_config(disable=True)
    return pipe, time.perf_counter() - start


def call(pipe, inputs, steps, **options):
    return pipe(
        prompt_embeds=inputs["prompt_embeds"].to(DEVICE), pooled_prompt_embeds=inputs["pooled_prompt_embeds"].to(DEVICE),
        latents=inputs["latents"].to(DEVICE), height=1024, width=1024, num_inference_steps=steps, guidance_scale=3.5,
        **options,
    )


def forward(directory):
    inputs = load_file(f"{directory}/inputs.safetensors")
    pipe, _ = pipeline(directory)
    latents = call(pipe, inputs, 1, output_type="latent").images
    save_file({"latents": latents.float().cpu()}, f"{directory}/forward.safetensors")


def error(directory, ours):
    before = load_file(f"{directory}/inputs.safetensors")["latents"].double()
    expected = load_file(f"{directory}/forward.safetensors")["latents"].double() - before
    found = load_file(ours)["latents"].double() - before
    print(f"relative error of the velocity: {((found - expected).norm() / expected.norm()).item():.3e}")


def row(directory, name):
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.config.cache_size_limit = 1000
    inputs = load_file(f"{directory}/inputs.safetensors")
    pipe, load_seconds = pipeline(directory, offload="offload" in name)
    if name.startswith("model-offload"):
        pipe.enable_model_cpu_offload()
    if name.startswith("group-offload"):
        from diffusers.hooks import apply_group_offloading

        options = dict(
            onload_device=torch.device(DEVICE), offload_device=torch.device("cpu"), offload_type="leaf_level",
            use_stream=True, non_blocking=True,
        )
        pipe.transformer.enable_group_offload(**options)
        apply_group_offloading(pipe.text_encoder_2, **options)
        pipe.text_encoder.to(DEVICE)
        pipe.vae.to(DEVICE)
    if name.endswith("compile"):
        pipe.transformer.compile()

    def timed(steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call(pipe, inputs, steps)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    start = time.perf_counter()
    timed(2)
    warm = time.perf_counter() - start
    torch.cuda.reset_peak_memory_stats()
    total = timed(28)
    short = timed(2)
    print(
        f"| {name} | {total:.2f} s | {(total - short) / 26 * 1e3:.1f} ms | "
        f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB | {load_seconds:.1f} s | {warm:.1f} s |",
        flush=True,
    )
    del pipe
    gc.collect()
    torch.cuda.empty_cache()


def main():
    command, directory, *rest = sys.argv[1:]
    if command == "rows":
        print("| diffusers | 28 steps | step | peak | load | first call |\n|---|---|---|---|---|---|", flush=True)
        for name in rest:
            row(directory, name)
    else:
        {"make": make, "forward": forward, "error": error}[command](directory, *rest)


if __name__ == "__main__":
    main()
