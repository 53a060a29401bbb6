"""What the golden scripts share: fixed randomness, files, bitsandbytes quantization of a module's Linears."""

import copy
import hashlib
import json
import os
import pathlib

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE / "data"


def set_up_torch():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_grad_enabled(False)


def generator_for(name: str, seed: int = 0) -> torch.Generator:
    """A generator that depends on the name only, so that one tensor more or less moves no other."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "little"))


def normal(name: str, shape, scale: float = 1.0, mean: float = 0.0, seed: int = 0) -> torch.Tensor:
    return mean + scale * torch.randn(tuple(shape), generator=generator_for(name, seed), dtype=torch.float32)


def randomize(module: torch.nn.Module, seed: int, scale_of=lambda name: 1.0):
    """Gives every parameter a value that shows when it is ignored; `scale_of(name)` scales a weight."""
    for name, parameter in module.named_parameters():
        leaf = name.rsplit(".", 1)[-1]
        if "relative_attention_bias" in name:
            scale, mean = 0.5, 0.0
        elif leaf == "bias":
            scale, mean = 0.1, 0.0
        elif parameter.ndim == 1 or leaf == "gamma":
            scale, mean = 0.1, 1.0
        elif any(
            word in name for word in ("shared", "embed_tokens", "token_embedding", "position_embedding")
        ):
            scale, mean = 0.5, 0.0
        else:
            fan_in = parameter[0].numel()
            scale, mean = fan_in**-0.5 * scale_of(name), 0.0
        parameter.data.copy_(normal(name, parameter.shape, scale, mean, seed))


def quantized_linears(module: torch.nn.Module, skip=()):
    """The Linears that diffusers and transformers replace; `skip`: names of any part of a dotted path."""
    for name, child in module.named_modules():
        if isinstance(child, torch.nn.Linear) and not any(part in skip for part in name.split(".")):
            yield name, child


def require_unambiguous(weight, blocksize):
    """Refuses a weight in which CPU and CUDA backends of bitsandbytes choose different NF4 codes.

    Four of the CUDA kernel's thresholds are not the float32 midpoint that the CPU backend compares with, but the
    next number; a value equal to such a midpoint goes up on one and down on the other. Take another seed.
    """
    values = torch.nn.functional.pad(weight.reshape(-1).float(), (0, -weight.numel() % blocksize)).view(-1, blocksize)
    scaled = values * (1.0 / values.abs().amax(dim=1, keepdim=True).clamp(min=1e-38))
    midpoints = torch.tensor([-0.8480964004993439, 0.1202552504837513, 0.5016634166240692, 0.8614784181118011],
                             dtype=torch.float64).float()
    if torch.isin(scaled, midpoints).any():
        raise SystemExit("a weight lies on a threshold where bitsandbytes' backends differ: change the seed")


def dequantize_4bit(packed, state):
    """bitsandbytes' dequantize_4bit along the flattened weight, as its CUDA kernels and its quantizer see it.

    Given a matrix whose rows are no whole number of blocks, the C++ kernel that bitsandbytes 0.50 uses on the CPU
    starts a block anew in each row, and so takes wrong scales; a vector keeps it right.
    """
    import bitsandbytes.functional as functional

    flat = copy.copy(state)
    flat.shape = torch.Size([state.shape.numel()])
    return functional.dequantize_4bit(packed, flat).reshape(state.shape)


def double_quantized(absmax):
    """Block scales after double quantization with the nearest entries of bitsandbytes' dynamic map, as its CUDA kernel
    and its portable backend choose them; the C++ library that it uses on the CPU looks codes up in a coarser table."""
    import bitsandbytes.functional as functional

    mean = absmax.mean()
    code = functional.create_dynamic_map()
    residuals = torch.nn.functional.pad(absmax - mean, (0, -absmax.numel() % 256)).view(-1, 256)
    nested = residuals.abs().amax(dim=1, keepdim=True)
    codes = torch.bucketize(residuals * (1.0 / nested.clamp(min=1e-38)), (code[:-1] + code[1:]) / 2)
    return (code[codes] * nested).reshape(-1)[: absmax.numel()] + mean


def quantize_linears(module, quant_type="nf4", blocksize=64, double_quantization=False, skip=()):
    """Replaces the Linears' weights by bitsandbytes' dequantize_4bit(quantize_4bit(weight)), same dtype."""
    import bitsandbytes.functional as functional

    for _, linear in quantized_linears(module, skip):
        require_unambiguous(linear.weight.data, blocksize)
        packed, state = functional.quantize_4bit(linear.weight.data.contiguous(), blocksize=blocksize,
                                                 quant_type=quant_type)
        if double_quantization:
            state.absmax = double_quantized(state.absmax)
        linear.weight.data = dequantize_4bit(packed, state).contiguous()
    return module


def write_tensors(path: pathlib.Path, tensors: dict, metadata: dict | None = None):
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, str(path), metadata=metadata)
    path.chmod(0o644)


def make_readable(directory: pathlib.Path):
    """safetensors creates its files for the owner only."""
    for path in directory.rglob("*.safetensors"):
        path.chmod(0o644)


def accept_cpu():
    """Lets diffusers load bitsandbytes models with device_map {"": "cpu"}: only its check is replaced."""
    from diffusers.quantizers.bitsandbytes import bnb_quantizer

    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        quantizer.validate_environment = lambda self, *arguments, **options: None


def write_json(path: pathlib.Path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> dict:
    import importlib.metadata

    names = (
        "torch",
        "diffusers",
        "transformers",
        "tokenizers",
        "sentencepiece",
        "bitsandbytes",
        "safetensors",
    )
    return {name: importlib.metadata.version(name) for name in names}
