"""Draws the same pictures with diffusers and with flux, both on the CPU in float32, and prints how much they agree.

Usage: python compare_pictures.py FLUX PIPELINE [--pictures N] [--steps N]

FLUX is the program, PIPELINE a directory of the demo weights: bfloat16, or the shipped NF4, whose weights diffusers gets
dequantized. Picture i is of held-out prompt i with seed i. Exits with status 1 when two pictures have a PSNR below 40 dB.
"""

import argparse
import pathlib
import subprocess
import tempfile

from golden_common import HERE, accept_cpu, set_up_torch

import numpy
import torch
import transformers
from check_written import CLASSES, load, with_dense_linears
from diffusers import FluxPipeline
from PIL import Image

LEAST = 40.0  # dB
CALL = {"height": 128, "width": 128, "max_sequence_length": 40}


def by_flux(flux, pipeline, prompt, seed, steps, directory):
    picture = pathlib.Path(directory) / f"{seed}.png"
    values = {"model": pipeline, "prompt": prompt, "seed": seed, "steps": steps, "output": picture}
    values |= {"compute": "fp32", "device": "host", "threads": 1, **CALL}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    subprocess.run([flux, "--quiet", *options], check=True)
    return numpy.asarray(Image.open(picture), dtype=numpy.float64)


def by_diffusers(pipeline, prompt, seed, steps):
    generator = torch.Generator().manual_seed(seed)
    picture = pipeline(prompt, num_inference_steps=steps, guidance_scale=3.5, generator=generator, **CALL).images[0]
    return numpy.asarray(picture, dtype=numpy.float64)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("flux", type=pathlib.Path)
    parser.add_argument("pipeline", type=pathlib.Path)
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--steps", type=int, default=28)
    arguments = parser.parse_args()
    set_up_torch()
    transformers.utils.logging.set_verbosity_error()
    accept_cpu()
    models = {name: with_dense_linears(load(arguments.pipeline, name)) for name in CLASSES}
    pipeline = FluxPipeline.from_pretrained(arguments.pipeline, **models)
    pipeline.set_progress_bar_config(disable=True)

    prompts = (HERE.parents[1] / "examples" / "models" / "held_out.txt").read_text(encoding="utf-8").splitlines()
    least = numpy.inf
    with tempfile.TemporaryDirectory() as directory:
        for seed, prompt in enumerate(prompts[: arguments.pictures]):
            expected = by_diffusers(pipeline, prompt, seed, arguments.steps)
            found = by_flux(arguments.flux, arguments.pipeline, prompt, seed, arguments.steps, directory)
            difference = numpy.abs(found - expected)
            error = numpy.square(difference).mean()
            psnr = 10 * numpy.log10(255**2 / error) if error > 0 else numpy.inf
            print(f"seed {seed}: {psnr:.1f} dB, at most {difference.max():.0f} of 255: {prompt}", flush=True)
            least = min(least, psnr)
    print(f"least: {least:.1f} dB")
    if least < LEAST:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
