"""What the golden scripts share: fixed randomness, small tokenizers, bitsandbytes quantization of a module's Linears."""

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
    """Gives every parameter values that show when they are ignored; `scale_of(name)` scales a weight further."""
    for name, parameter in module.named_parameters():
        leaf = name.rsplit(".", 1)[-1]
        if "relative_attention_bias" in name:
            scale, mean = 0.5, 0.0
        elif leaf == "bias":
            scale, mean = 0.1, 0.0
        elif parameter.ndim == 1:
            scale, mean = 0.1, 1.0
        elif any(word in name for word in ("shared", "embed_tokens", "token_embedding", "position_embedding")):
            scale, mean = 0.5, 0.0
        else:
            fan_in = parameter[0].numel()
            scale, mean = fan_in**-0.5 * scale_of(name), 0.0
        parameter.data.copy_(normal(name, parameter.shape, scale, mean, seed))


def quantized_linears(module: torch.nn.Module, skip=()):
    """Names of the Linears that diffusers and transformers replace; `skip` holds names of any part of a dotted path."""
    for name, child in module.named_modules():
        if isinstance(child, torch.nn.Linear) and not any(part in skip for part in name.split(".")):
            yield name, child


def quantize_linears(module, quant_type="nf4", blocksize=64, double_quantization=False, skip=()):
    """Replaces the Linears' weights by dequantize_4bit(quantize_4bit(weight)) of bitsandbytes, in the weight's dtype."""
    import bitsandbytes.functional as functional

    for _, linear in quantized_linears(module, skip):
        packed, state = functional.quantize_4bit(
            linear.weight.data.contiguous(), blocksize=blocksize, quant_type=quant_type,
            compress_statistics=double_quantization)
        linear.weight.data = functional.dequantize_4bit(packed, state).reshape(linear.weight.shape).contiguous()
    return module


def write_tensors(path: pathlib.Path, tensors: dict, metadata: dict | None = None):
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, str(path), metadata=metadata)


def write_json(path: pathlib.Path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> dict:
    import importlib.metadata

    names = ("torch", "diffusers", "transformers", "tokenizers", "sentencepiece", "bitsandbytes", "safetensors")
    return {name: importlib.metadata.version(name) for name in names}
