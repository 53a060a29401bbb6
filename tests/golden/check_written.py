"""Checks a pipeline that ebb quantized and wrote, with diffusers, transformers and bitsandbytes.

Usage: python check_written.py SOURCE WRITTEN [--run] [--device cpu|cuda]

SOURCE is the pipeline that was quantized, WRITTEN what came out. Loads each component of WRITTEN with its
real class and asserts that
- each 4-bit weight equals bitsandbytes' own quantization of the source's weight, converted to the dtype that
  the file's quant_state names, with the same format and block size: the dequantized values are equal; of
  nested ones the packed codes are equal, and the 8-bit codes are bitsandbytes' or the nearest (its CPU code
  does not always find those);
- each INT8 weight and SCB equals what bitsandbytes' Int8Params makes of the source's weight;
- each other parameter equals the source's, converted to its dtype.

Lists each tensor that differs, with the number of elements that do, and exits with status 1 if there are any.
bitsandbytes quantizes on --device; on CUDA its division is approximate, so that single codes beside a
threshold may differ, and on the CPU its FP4 thresholds are up to 14 units in the last place from CUDA's.
--run also makes one small picture, with the 4-bit weights dequantized: bitsandbytes' CPU product needs
inner dimensions that are multiples of the block size.
"""

import argparse
import json
import pathlib

from golden_common import accept_cpu, dequantize_4bit, set_up_torch

import bitsandbytes
import bitsandbytes.functional as functional
import torch
import transformers
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

CLASSES = {
    "transformer": FluxTransformer2DModel,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": T5EncoderModel,
    "vae": AutoencoderKL,
}


def load(directory: pathlib.Path, component: str):
    configuration = json.loads((directory / component / "config.json").read_text())
    options = {"device_map": {"": "cpu"}} if "quantization_config" in configuration else {}
    return CLASSES[component].from_pretrained(
        directory / component,
        dtype="auto" if component.startswith("text") else stored_dtype(directory / component),
        **options,
    )


def stored_dtype(directory: pathlib.Path) -> torch.dtype:
    """The floating-point dtype of the first bias or norm in the files: what diffusers must load them as."""
    from safetensors import safe_open

    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(str(path), "pt") as file:
            for name in file.keys():
                if name.endswith(".bias"):
                    return file.get_tensor(name).dtype
    raise SystemExit(f"{directory}: no bias in any safetensors file")


def with_dense_linears(model):
    """The model in float32, its 4-bit Linears replaced by dense ones."""
    for path, module in list(model.named_modules()):
        if not isinstance(module, bitsandbytes.nn.Linear4bit):
            continue
        dense = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        dense.weight.data = dequantize_4bit(module.weight.data, module.weight.quant_state).float()
        if module.bias is not None:
            dense.bias.data = module.bias.data.float()
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, dense)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
    return model


def compare_4bit(weight, source: torch.Tensor, device: str) -> str | None:
    state = weight.quant_state
    if tuple(state.shape) != tuple(source.shape):
        return f"shape {tuple(state.shape)}, expected {tuple(source.shape)}"
    values = source.to(device, state.dtype).contiguous()
    packed, expected_state = functional.quantize_4bit(
        values, blocksize=state.blocksize, quant_type=state.quant_type, compress_statistics=state.nested
    )
    if state.nested:
        return compare_nested(packed.cpu(), expected_state, weight, values, device)
    expected = dequantize_4bit(packed, expected_state).cpu().float()
    found = dequantize_4bit(weight.data, state).cpu().float()
    wrong = int((found != expected).sum())
    return f"{wrong} of {found.numel()} dequantized values differ" if wrong else None


def compare_nested(packed, expected_state, weight, values: torch.Tensor, device: str) -> str | None:
    """Packed codes must be equal; each 8-bit code must be bitsandbytes' or a nearest entry of the map."""
    state = weight.quant_state
    bytes_found = weight.data.cpu().contiguous().view(torch.uint8).reshape(-1)
    if wrong := int((bytes_found != packed.reshape(-1)).sum()):
        return f"{wrong} of {bytes_found.numel()} packed bytes differ"
    code = functional.create_dynamic_map().float()
    if not torch.equal(state.state2.code.cpu(), code):
        return "another nested_quant_map"
    _, plain = functional.quantize_4bit(values, blocksize=state.blocksize, quant_type=state.quant_type)
    absmax = plain.absmax.cpu()
    if abs(float(state.offset) - float(expected_state.offset)) > 1e-6 * float(expected_state.offset):
        return f"nested_offset {float(state.offset)}, expected {float(expected_state.offset)}"
    residual = absmax - state.offset.cpu()
    scales, expected_scales = state.state2.absmax.cpu(), expected_state.state2.absmax.cpu()
    slack = 1e-6 * float(absmax.max())
    if scales.shape != expected_scales.shape or bool(((scales - expected_scales).abs() > slack).any()):
        return "nested_absmax differs"
    scale = scales.repeat_interleave(256)[: len(absmax)]
    error = (code[state.absmax.cpu().int()] * scale - residual).abs()
    least = (code[None, :] * scale[:, None] - residual[:, None]).abs().amin(dim=1)
    wrong = int(((error > least + slack) & (state.absmax.cpu() != expected_state.absmax.cpu())).sum())
    return f"{wrong} of {len(absmax)} absmax codes are not the nearest" if wrong else None


def compare_int8(weight, source: torch.Tensor, device: str) -> str | None:
    expected = bitsandbytes.nn.Int8Params(source.clone(), requires_grad=False).to(device)
    if wrong := int((weight.data.cpu() != expected.data.cpu()).sum()):
        return f"{wrong} of {source.numel()} codes differ"
    if wrong := int((weight.SCB.cpu() != expected.SCB.cpu()).sum()):
        return f"{wrong} of {source.shape[0]} SCB values differ"
    return None


def compare(component: str, source_directory, written_directory, device) -> list[str]:
    source = load(source_directory, component)
    try:
        written = load(written_directory, component)
    except Exception as error:
        return [f"{component}: cannot be loaded: {error}"]
    expected, problems, counts = dict(source.named_parameters()), [], {"4-bit": 0, "INT8": 0, "dense": 0}
    found = dict(written.named_parameters())
    if missing := sorted(expected.keys() ^ found.keys()):
        problems.append(f"{component}: in one of the two only: {', '.join(missing)}")
    for name in sorted(expected.keys() & found.keys()):
        parameter, reference = found[name], expected[name].data
        if isinstance(parameter, bitsandbytes.nn.Params4bit):
            kind, problem = "4-bit", compare_4bit(parameter, reference, device)
        elif isinstance(parameter, bitsandbytes.nn.Int8Params):
            kind, problem = "INT8", compare_int8(parameter, reference, device)
        else:
            kind = "dense"
            problem = None if torch.equal(parameter.data, reference.to(parameter.dtype)) else "values differ"
        counts[kind] += 1
        if problem:
            problems.append(f"{component}: {name}: {problem}")
    print(f"{component}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("written", type=pathlib.Path)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    set_up_torch()
    transformers.utils.logging.set_verbosity_error()
    accept_cpu()
    problems = []
    for component in CLASSES:
        problems += compare(component, arguments.source, arguments.written, arguments.device)
    for problem in problems:
        print(problem)
    if problems:
        raise SystemExit(1)
    if arguments.run:
        models = {name: with_dense_linears(load(arguments.written, name)) for name in CLASSES}
        pipeline = FluxPipeline.from_pretrained(arguments.written, **models)
        side = 4 * pipeline.vae_scale_factor
        image = pipeline(
            "a cat", height=side, width=side, num_inference_steps=1, max_sequence_length=16, output_type="np"
        ).images
        if image.shape != (1, side, side, 3) or not (image == image).all():
            raise SystemExit(f"--run: the picture has shape {image.shape} or holds NaNs")
    print("equal")


if __name__ == "__main__":
    main()
