"""Writes components quantized by bitsandbytes, as diffusers and transformers save them.

Usage: python make_checkpoints.py [OUT]     (default OUT: data/checkpoints beside this file)

Needs data/pipelines/dev (make_pipelines.py). All are made from the components of that pipeline with
from_pretrained(quantization_config=...) and save_pretrained. diffusers insists on a GPU for that, although
bitsandbytes does not: its quantizers' validate_environment is replaced by one that accepts the CPU, and
everything is loaded with device_map {"": "cpu"}; no other code of the libraries is changed. transformers works on
the CPU as it is. The block size is not part of their configuration: for `transformer_fp4_bs128` bitsandbytes'
Params4bit is given another default.

Beside each component stands `expected.safetensors`: a few weights dequantized by bitsandbytes, in the dtype
that their quant_state names (for INT8: codes * SCB / 127 in float32), under the name of the weight.
"""

import os
import pathlib
import shutil
import sys

from golden_common import DATA, accept_cpu, dequantize_4bit, make_readable, set_up_torch, write_json, write_tensors, versions

import bitsandbytes
import diffusers
import torch
import transformers
from diffusers import BitsAndBytesConfig, FluxTransformer2DModel
from transformers import T5EncoderModel

TRANSFORMER_SAMPLES = (
    "x_embedder",
    "time_text_embed.text_embedder.linear_1",
    "single_transformer_blocks.2.proj_out",
    "proj_out",
)
T5_SAMPLES = ("encoder.block.0.layer.0.SelfAttention.q", "encoder.block.1.layer.1.DenseReluDense.wi_1")

COMPONENTS = {
    "transformer_nf4": (torch.float32, dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"), {}),
    "transformer_nf4_dq": (
        torch.bfloat16,
        dict(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        {"max_shard_size": "50KB"},
    ),
    "transformer_fp4_bs128": (torch.float16, dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"), {}),
    "transformer_nf4_storage_bf16": (
        torch.bfloat16,
        dict(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_quant_storage=torch.bfloat16,
            llm_int8_skip_modules=["time_text_embed"],
        ),
        {},
    ),
    "transformer_int8": (torch.float16, dict(load_in_8bit=True), {}),
    "text_encoder_2_nf4": (torch.float32, dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"), {}),
    "text_encoder_2_nf4_dq": (
        torch.bfloat16,
        dict(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        {},
    ),
}


def set_default_blocksize(blocksize: int):
    original = bitsandbytes.nn.Params4bit.__new__

    def replacement(cls, *arguments, **options):
        if options.get("blocksize") is None or not options.get("bnb_quantized", False):
            options["blocksize"] = blocksize
        return original(cls, *arguments, **options)

    bitsandbytes.nn.Params4bit.__new__ = replacement
    return original


def dequantized(linear) -> torch.Tensor:
    if isinstance(linear, bitsandbytes.nn.Linear4bit):
        return dequantize_4bit(linear.weight.data, linear.weight.quant_state)
    return linear.weight.data.float() * linear.weight.SCB[:, None] / 127


def make(name: str, directory: pathlib.Path) -> dict:
    dtype, options, saving = COMPONENTS[name]
    component = "text_encoder_2" if name.startswith("text_encoder_2") else "transformer"
    original = set_default_blocksize(128) if name.endswith("bs128") else None
    try:
        loader, configuration = (
            (T5EncoderModel, transformers.BitsAndBytesConfig(**options))
            if component == "text_encoder_2"
            else (FluxTransformer2DModel, BitsAndBytesConfig(**options))
        )
        model = loader.from_pretrained(
            component, quantization_config=configuration, device_map={"": "cpu"}, dtype=dtype
        )
    finally:
        if original is not None:
            bitsandbytes.nn.Params4bit.__new__ = original
    model.save_pretrained(directory, **saving)
    make_readable(directory)
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    quantized = {path: module for path, module in model.named_modules() if isinstance(module, kinds)}
    dense = [
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not isinstance(module, kinds)
    ]
    samples = T5_SAMPLES if component == "text_encoder_2" else TRANSFORMER_SAMPLES
    write_tensors(
        directory / "expected.safetensors",
        {f"{path}.weight": dequantized(quantized[path]) for path in samples if path in quantized},
    )
    return {
        "source": f"dev/{component}",
        "quantized": len(quantized),
        "dense_linears": dense,
        "dtype": str(dtype).removeprefix("torch."),
    }


def main():
    set_up_torch()
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    accept_cpu()
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "checkpoints"
    out = out.resolve()
    os.chdir(DATA / "pipelines" / "dev")  # config.json records the path that a component was loaded from
    index = {"versions": versions()}
    for name in COMPONENTS:
        shutil.rmtree(out / name, ignore_errors=True)
        index[name] = make(name, out / name)
        print(name, index[name], sum(path.stat().st_size for path in (out / name).iterdir()))
    write_json(out / "index.json", index)


if __name__ == "__main__":
    main()
