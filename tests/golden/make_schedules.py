"""Writes, on the CPU, what schedulers of diffusers compute. Needs diffusers and PyTorch.

data/schedules.json: the noise schedules and Euler steps of FlowMatchEulerDiscreteScheduler, driven as the Flux
pipeline drives it. data/wan_schedules.json: `euler`, its schedules as the Wan pipeline asks for them, and `unipc`,
schedules and samples of UniPCMultistepScheduler: `samples` as it computes in float32, `exact` with float64 for
everything but the sigmas' values.

Usage: python make_schedules.py [data]

Floats are bit patterns in hexadecimal: 16 digits for float64, 8 for float32, 4 for the 16-bit types.
"""

import json
import pathlib
import sys

import diffusers
import numpy
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
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

WAN_EULER = (
    [({"shift": shift}, steps) for shift in (1.0, 3.0, 5.0, 16.0) for steps in (1, 2, 3, 4, 10, 50)]
    + [({"shift": 3.0} | config, 20) for config in ({"num_train_timesteps": 333}, {"shift_terminal": 0.1},
                                                    {"invert_sigmas": True}, {"shift": 0.7})]
    + [({"shift": 5.0}, 1000), ({}, 7)]
)

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
UNIPC = (
    [(FLOW | {"flow_shift": shift, "solver_order": order}, steps)
     for shift in (1.0, 3.0, 5.0, 16.0) for order in (1, 2, 3) for steps in (1, 2, 3, 4, 10, 50)]
    + [(FLOW | {"flow_shift": 3.0, "disable_corrector": [0, 2, 3], "solver_order": order}, 8) for order in (2, 3)]
    + [(FLOW | {"flow_shift": 1.7, "num_train_timesteps": 333}, 6), (FLOW | {"flow_shift": 0.5}, 5), (FLOW, 4)]
)
UNIPC_TIMESTEPS = [(FLOW | {"flow_shift": shift}, steps)
                   for shift in (1.0, 1.5, 3.0) for steps in (20, 27, 37, 111, 333)]


def schedule(config, steps, tokens):
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    mu = calculate_shift(tokens, scheduler.config.base_image_seq_len, scheduler.config.max_image_seq_len,
                         scheduler.config.base_shift, scheduler.config.max_shift)
    scheduler.set_timesteps(sigmas=numpy.linspace(1.0, 1 / steps, steps), device="cpu", mu=mu)
    return scheduler


def words(tensor):
    bits = tensor.contiguous().view({8: torch.int64, 4: torch.int32, 2: torch.int16}[tensor.element_size()])
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


def wan_euler(config, steps):
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(steps, device="cpu")
    return {"config": config, "steps": steps, "sigmas": words(scheduler.sigmas),
            "timesteps": words(scheduler.timesteps)}


def unipc(config, steps):
    scheduler = UniPCMultistepScheduler.from_config(config)
    scheduler.set_timesteps(steps, device="cpu")
    return scheduler


def unipc_timesteps(config, steps):
    scheduler = unipc(config, steps)
    return {"config": config, "steps": steps, "sigmas": words(scheduler.sigmas),
            "timesteps": " ".join(str(timestep.item()) for timestep in scheduler.timesteps)}


def unipc_samples(config, steps, start, velocities, dtype):
    torch.set_default_dtype(dtype)
    scheduler = unipc(config, steps)
    scheduler.sigmas = scheduler.sigmas.to(dtype)
    scheduler.set_begin_index(0)
    sample, samples = start.to(dtype)[None], []
    for timestep, velocity in zip(scheduler.timesteps, velocities):
        sample = scheduler.step(velocity.to(dtype)[None], timestep, sample, return_dict=False)[0]
        samples.append(sample[0])
    torch.set_default_dtype(torch.float32)
    return words(torch.cat(samples))


def unipc_run(config, steps):
    generator = torch.Generator("cpu").manual_seed(17)
    start = torch.randn(2, generator=generator)
    velocities = torch.randn(steps, 2, generator=generator)
    run = {"start": words(start), "velocities": words(velocities.flatten()),
           "samples": unipc_samples(config, steps, start, velocities, torch.float32),
           "exact": unipc_samples(config, steps, start, velocities, torch.float64)}
    return unipc_timesteps(config, steps) | run


def write(path, golden):
    golden = {"diffusers": diffusers.__version__, "torch": torch.__version__} | golden
    path.write_text(json.dumps(golden, indent=1) + "\n")


def main():
    torch.set_num_threads(1)
    schedules = []
    for config, steps, tokens in SCHEDULES:
        scheduler = schedule(config, steps, tokens)
        schedules.append({"config": config, "steps": steps, "tokens": tokens,
                          "sigmas": words(scheduler.sigmas), "timesteps": words(scheduler.timesteps)})
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "data"
    write(out / "schedules.json",
          {"schedules": schedules, "step_schedule": {"config": DEV, "steps": 4, "tokens": 1617},
           "samples": [steps_of(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)]})
    write(out / "wan_schedules.json",
          {"euler": [wan_euler(config, steps) for config, steps in WAN_EULER],
           "unipc": [unipc_run(config, steps) for config, steps in UNIPC],
           "unipc_timesteps": [unipc_timesteps(config, steps) for config, steps in UNIPC_TIMESTEPS]})


if __name__ == "__main__":
    main()
