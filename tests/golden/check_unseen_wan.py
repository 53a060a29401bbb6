"""Makes Wan pipelines of sizes that no test has seen and compares what wan makes of them with diffusers, in float32.

Usage: python check_unseen_wan.py WAN [--pipelines N] [--seed N]

WAN is the program. Depths, widths, heads, VAE multipliers, schedulers, prompts, frame counts and picture sizes are drawn at
random. Exits with status 1 when latents differ by more than 1e-4 (relative) or frames by more than one level of 255.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import tempfile

from golden_common import set_up_torch

import diffusers
import make_wan
import numpy
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from PIL import Image
from safetensors.torch import load_file

LATENTS, LEVELS = 1e-4, 1


def recipe_of(draw: random.Random) -> dict:
    text = 8 * draw.randint(2, 6)
    temporal = draw.choice([[False, True, True], [True, False, True], [True, True], [True, False]])
    multipliers = [1, *(draw.choice([1, 2, 3, 4]) for _ in temporal)]
    spatial, frames_scale = 2 ** len(temporal), 2 ** sum(temporal)
    scheduler = draw.choice(
        [
            (UniPCMultistepScheduler, make_wan.UNIPC | dict(flow_shift=draw.choice([1.0, 3.0, 5.0, 8.0]))),
            (UniPCMultistepScheduler, make_wan.UNIPC | dict(solver_order=draw.choice([1, 3]))),
            (FlowMatchEulerDiscreteScheduler, dict(shift=draw.choice([1.0, 5.0]))),
        ]
    )
    dtype = draw.choice([torch.float32, torch.bfloat16])
    return {
        "seed": draw.randint(10, 1000),
        "transformer": dict(
            num_layers=draw.randint(1, 4),
            num_attention_heads=draw.randint(1, 4),
            attention_head_dim=2 * draw.randint(5, 16),
            ffn_dim=4 * draw.randint(5, 30),
            text_dim=text,
            cross_attn_norm=draw.random() < 0.7,
        ),
        "umt5": dict(
            d_model=text, num_heads=draw.randint(1, 5), d_kv=8, d_ff=4 * draw.randint(5, 20), num_layers=draw.randint(1, 3)
        ),
        "vae": dict(
            base_dim=draw.choice([2, 4, 6]),
            z_dim=draw.choice([4, 8, 16]),
            dim_mult=multipliers,
            num_res_blocks=draw.randint(1, 2),
            temperal_downsample=temporal,
            scale_factor_temporal=frames_scale,
            scale_factor_spatial=spatial,
        ),
        "scheduler": scheduler,
        "files": dict(transformer=dtype, text_encoder=dtype, vae=torch.float32),
        "shards": {},
        "tokenizer": draw.choice(["both", "inside"]),
        "call": dict(
            prompt=draw.choice(["a sailing ship in a storm", "two cats by the river", "an owl", ""]),
            height=16 * draw.randint(1, 4),
            width=16 * draw.randint(1, 4),
            num_frames=frames_scale * draw.randint(0, 6) + 1,
            num_inference_steps=draw.randint(1, 7),
            guidance_scale=draw.choice([1.0, 3.0, 5.5]),
            max_sequence_length=draw.choice([16, 64, 512]),
            seed=draw.randint(0, 10**6),
        ),
    }


def by_wan(program, directory, call, out):
    options = {"model": directory, "prompt": call["prompt"], "height": call["height"], "width": call["width"]}
    options |= {"num-frames": call["num_frames"], "steps": call["num_inference_steps"]}
    options |= {"guidance": call["guidance_scale"], "max-sequence-length": call["max_sequence_length"]}
    options |= {"seed": call["seed"], "compute": "fp32", "device": "host", "threads": 1}
    options |= {"output": f"{out}/frames/", "output-latents": f"{out}/latents.safetensors"}
    subprocess.run([program, "--quiet", *(str(part) for name, value in options.items() for part in (f"--{name}", value))], check=True)
    frames = [numpy.asarray(Image.open(path)) for path in sorted((out / "frames").glob("*.png"))]
    return load_file(out / "latents.safetensors")["latents"], numpy.stack(frames)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("wan", type=pathlib.Path)
    parser.add_argument("--pipelines", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    set_up_torch()
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    failed = 0
    for number in range(arguments.seed, arguments.seed + arguments.pipelines):
        recipe = recipe_of(random.Random(number))
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            (scratch / "tokens").mkdir()
            make_wan.write_pipeline(recipe, scratch / "pipeline", scratch / "tokens")
            pipeline = make_wan.load(scratch / "pipeline", torch.float32)
            expected = make_wan.run(pipeline, recipe["call"])["latents"]
            video = make_wan.video(pipeline, recipe["call"])[0].numpy()
            latents, frames = by_wan(arguments.wan.resolve(), scratch / "pipeline", recipe["call"], scratch)
        error = float((latents - expected).norm() / expected.norm())
        levels = int(numpy.abs(frames.astype(int) - (255 * video).round().astype(int)).max())
        wrong = not (error <= LATENTS and levels <= LEVELS)
        failed += wrong
        transformer, call = recipe["transformer"], recipe["call"]
        print(
            f"{number}: latents {error:.1e}, frames {levels} level(s) off{' WRONG' if wrong else ''}: "
            f"{transformer['num_layers']} blocks, {transformer['num_attention_heads']} x "
            f"{transformer['attention_head_dim']}, VAE {recipe['vae']['dim_mult']}, {call['height']} x {call['width']} x "
            f"{call['num_frames']}, {call['num_inference_steps']} steps of {recipe['scheduler'][0].__name__}",
            flush=True,
        )
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
