"""Writes data/schedules.json: the noise schedules and Euler steps of diffusers'
FlowMatchEulerDiscreteScheduler, driven as its Flux pipeline drives it, on the CPU. Needs diffusers and
PyTorch.

Usage: python make_schedules.py [data/schedules.json]

Floats are bit patterns in hexadecimal: 8 digits for float32, 4 for the 16-bit types.
"""

import json
import pathlib
import sys

import diffusers
import numpy
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

DEV = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15,
       "base_image_seq_len": 256, "max_image_seq_len": 4096, "num_train_timesteps": 1000}
SCHNELL = DEV | {"shift": 1.0, "use_dynamic_shifting": False}

SCHEDULES = (
    [(DEV, steps, tokens) for steps in (1, 2, 4, 28, 50) for tokens in (4096, 1024, 4080)]
    + [(DEV, steps, tokens) for steps in (3, 7, 20, 100) for tokens in (1, 255, 1617, 8191, 16384)]
    + [(SCHNELL, steps, 4096) for steps in (1, 2, 4, 28, 50)]
    + [(SCHNELL | {"shift": 3.0}, steps, 4096) for steps in (1, 2, 4, 28, 50)]
    + [(DEV | {"time_shift_type": "linear"}, steps, 1617) for steps in (1, 4, 28)]
    + [(DEV | {"shift_terminal": 0.1}, steps, 1617) for steps in (2, 28)]
    + [(SCHNELL | {"shift": 3.0, "shift_terminal": 0.02}, 50, 1)]
    + [(DEV | {"shift_terminal": 0.0}, 4, 1617), (DEV | {"shift_terminal": None}, 4, 1617)]
    + [(SCHNELL | {"invert_sigmas": True}, 28, 1)]
    + [(DEV | {"base_shift": 0.3, "max_shift": 2.05, "base_image_seq_len": 100, "max_image_seq_len": 7000},
        28, 333)]
    + [(SCHNELL | {"num_train_timesteps": 333, "shift": 1.7}, 28, 1)]
    + [({}, 28, 1)]
)


def schedule(config, steps, tokens):
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    mu = calculate_shift(tokens, scheduler.config.base_image_seq_len, scheduler.config.max_image_seq_len,
                         scheduler.config.base_shift, scheduler.config.max_shift)
    scheduler.set_timesteps(sigmas=numpy.linspace(1.0, 1 / steps, steps), device="cpu", mu=mu)
    return scheduler


def words(tensor):
    bits = tensor.contiguous().view(torch.int32 if tensor.element_size() == 4 else torch.int16)
    digits = 2 * tensor.element_size()
    return "".join(f"{int(value) & (16**digits - 1):0{digits}x}" for value in bits)


def steps_of(dtype):
    scheduler = schedule(DEV, 4, 1617)
    scheduler.set_begin_index(0)
    generator = torch.Generator("cpu").manual_seed(11)
    sample = torch.randn(37, generator=generator).to(dtype)
    result = {"dtype": str(dtype).removeprefix("torch."), "start": words(sample), "steps": []}
    for timestep in scheduler.timesteps:
        velocity = (3 * torch.randn(37, generator=generator)).to(dtype)
        sample = scheduler.step(velocity, timestep, sample, return_dict=False)[0]
        result["steps"].append({"velocity": words(velocity), "sample": words(sample)})
    return result


def main():
    torch.set_num_threads(1)
    schedules = []
    for config, steps, tokens in SCHEDULES:
        scheduler = schedule(config, steps, tokens)
        schedules.append({"config": config, "steps": steps, "tokens": tokens,
                          "sigmas": words(scheduler.sigmas), "timesteps": words(scheduler.timesteps)})
    default = pathlib.Path(__file__).parent / "data" / "schedules.json"
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    golden = {"diffusers": diffusers.__version__, "torch": torch.__version__,
              "schedules": schedules, "step_schedule": {"config": DEV, "steps": 4, "tokens": 1617},
              "samples": [steps_of(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)]}
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
