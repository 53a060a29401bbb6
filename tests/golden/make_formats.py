"""Writes golden vectors of the quantized formats, made with bitsandbytes and PyTorch.

Usage: python make_formats.py [--device cpu|cuda] [--out OUT]     (default OUT: data/formats beside this file)

Files go to OUT/<device>/. The same inputs are drawn on the CPU for either device; quantization,
dequantization and products run on the device with whatever kernel bitsandbytes dispatches there. On the CPU
these are: `default` backend (PyTorch) for quantize_4bit, int8_vectorwise_quant, int8_scaled_mm and
int8_mixed_scaled_mm; its C++ library for dequantize_4bit (even lengths, and blocks below 2048 on AVX-512
machines), quantize_blockwise and dequantize_blockwise. On CUDA all are kernels of its CUDA library, except
int8_mixed_scaled_mm's outlier product. FP8 and the conversions between float types are PyTorch's.
"""

import argparse
import pathlib

from golden_common import DATA, generator_for, normal, set_up_torch, versions, write_json, write_tensors

import bitsandbytes
import bitsandbytes.functional as functional
import torch

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
DTYPES = {"float32": FP32, "bfloat16": BF16, "float16": FP16}
BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)

# What bitsandbytes' CUDA kernels compare with; its CPU path compares with float32 midpoints.
NF4_THRESHOLDS = (
    -0.8480964004993439,
    -0.6106329262256622,
    -0.4599952697753906,
    -0.33967943489551544,
    -0.23460740596055984,
    -0.13791173323988914,
    -0.045525018125772476,
    0.03979014977812767,
    0.1202552504837513,
    0.2035212516784668,
    0.2920137718319893,
    0.3893125355243683,
    0.5016634166240692,
    0.6427869200706482,
    0.8614784181118011,
)
FP4_PIVOTS = (0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333)


def fp4_midpoints() -> list[float]:
    values = functional.get_4bit_type("fp4", device="cpu").unique()
    return [float(v) for v in (values[1:] + values[:-1]) / 2 if v > 0]


def neighbours(values: torch.Tensor) -> torch.Tensor:
    """Each value, and the next ones below and above in its dtype."""
    up, down = torch.tensor(float("inf"), dtype=values.dtype), torch.tensor(float("-inf"), dtype=values.dtype)
    return torch.stack([torch.nextafter(values, down), values, torch.nextafter(values, up)], 1).reshape(-1)


def uniform(name: str, count: int) -> torch.Tensor:
    return 2 * torch.rand(count, generator=generator_for(name)) - 1


def heavy(name: str, count: int) -> torch.Tensor:
    """Student's t with 2 degrees of freedom."""
    return (
        normal(name, [count])
        / (normal(f"{name}.a", [count]).square() + normal(f"{name}.b", [count]).square()).sqrt()
    )


def blockwise_inputs() -> dict[str, tuple[int, torch.Tensor]]:
    """name -> (blocksize, float32 values)."""
    inputs = {}
    for size in BLOCKSIZES:
        if size <= 128:
            mixed = [
                normal(f"normal{size}", [size], 0.05),
                uniform(f"uniform{size}", size),
                heavy(f"heavy{size}", size),
                torch.full([size], -0.37),
                torch.zeros(size),
                torch.linspace(-1, 1, size),
            ]
            inputs[f"mixed_{size}"] = (size, torch.cat([*mixed, normal(f"tail{size}", [size // 2 + 3])]))
            inputs[f"zero_tail_{size}"] = (size, torch.cat([normal(f"before{size}", [size]), torch.zeros(5)]))
        elif size <= 512:
            inputs[f"mixed_{size}"] = (
                size,
                torch.cat([heavy(f"heavy{size}", size), normal(f"tail{size}", [7])]),
            )
        else:
            inputs[f"mixed_{size}"] = (
                size,
                torch.cat(
                    [normal(f"normal{size}", [size - 32], 0.02), torch.zeros(32), uniform(f"tail{size}", 33)]
                ),
            )
    for length in (1, 2, 63, 64, 65, 127):
        inputs[f"length_{length}"] = (64, normal(f"length{length}", [length]))
    inputs["one_zero"] = (64, torch.zeros(1))
    inputs["tiny"] = (
        64,
        torch.cat([normal("tiny", [64], 3e-39), normal("small", [64], 1e-30), torch.full([3], 1e-45)]),
    )
    inputs["huge"] = (64, torch.cat([uniform("huge", 64) * 3e38, uniform("large", 64) * 1e30]))
    return inputs


def threshold_blocks(values, dtype, blocksize=64) -> torch.Tensor:
    """Blocks that hold the values' neighbourhoods and one 1, so that scaling by absmax changes nothing."""
    probes = neighbours(torch.tensor(values, dtype=torch.float64).to(dtype))
    probes = torch.cat([probes, torch.tensor([0.0, -0.0, -1.0], dtype=dtype)])
    rows = []
    for at in range(0, len(probes), blocksize - 1):
        part = probes[at : at + blocksize - 1]
        rows.append(
            torch.cat([torch.ones(1, dtype=dtype), part, torch.zeros(blocksize - 1 - len(part), dtype=dtype)])
        )
    return torch.cat(rows)


def four_bit_case(tensors: dict, name: str, kind: str, values: torch.Tensor, blocksize: int, device: str):
    packed, state = functional.quantize_4bit(values.to(device), blocksize=blocksize, quant_type=kind)
    output = functional.dequantize_4bit(packed, state).reshape(values.shape)
    assert output.dtype == values.dtype
    tensors[f"{name}.{kind}.packed"] = packed.reshape(-1)
    tensors[f"{name}.{kind}.absmax"] = state.absmax
    tensors[f"{name}.{kind}.output"] = output


def blockwise(device: str) -> tuple[dict, dict]:
    tensors, cases = {}, {}
    for case, (size, values) in blockwise_inputs().items():
        for dtype_name, dtype in DTYPES.items():
            if case in ("tiny", "huge") and dtype is FP16 or case.startswith("length") and dtype is not FP32:
                continue
            name = f"{case}.{dtype_name}"
            tensors[f"{name}.input"] = values.to(dtype)
            cases[name] = size
            for kind in ("nf4", "fp4"):
                four_bit_case(tensors, name, kind, values.to(dtype), size, device)
    for dtype_name, dtype in DTYPES.items():
        magnitudes = [*FP4_PIVOTS, *fp4_midpoints()]
        for kind, thresholds in (("nf4", NF4_THRESHOLDS), ("fp4", [*magnitudes, *(-m for m in magnitudes)])):
            for factor in (1.0, 0.25):
                name = f"thresholds_{kind}_{'one' if factor == 1 else 'quarter'}.{dtype_name}"
                values = (threshold_blocks(thresholds, dtype).to(FP32) * factor).to(dtype)
                tensors[f"{name}.input"] = values
                cases[name] = 64
                four_bit_case(tensors, name, kind, values, 64, device)
    for kind in ("nf4", "fp4"):
        tensors[f"table.{kind}"] = functional.get_4bit_type(kind, device="cpu")
    return tensors, cases


def nearest_codes(values: torch.Tensor, absmax: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """The nearest entry of the map, the lower one at a midpoint, by PyTorch on the CPU; blocks of 256."""
    scaled = values.cpu() * (1 / absmax.cpu()).nan_to_num(posinf=0).repeat_interleave(256)[: len(values)]
    return torch.bucketize(scaled, (code[1:] + code[:-1]) / 2).to(torch.uint8)


def double_quantization(device: str) -> tuple[dict, dict]:
    """Packed codes and the two levels of scales; then the 8-bit search alone.

    On the CPU bitsandbytes finds 8-bit codes through a table of 65536 steps, and so not always the nearest
    map entry (0 itself becomes 131, whose value is 2.1e-5). `nearest_codes` holds the nearest ones; CUDA's
    kernel finds those, except that it may take the upper one at an exact midpoint, and code 0 in a block of
    zeros.
    """
    tensors, cases = {}, {}
    lengths = {
        "one_block": (64, 64, FP32),
        "one_short_block": (64, 37, BF16),
        "three_blocks": (64, 150, FP32),
        "blocks_256": (32, 32 * 256, BF16),
        "blocks_257": (32, 32 * 256 + 1, BF16),
        "blocks_600": (32, 32 * 600, BF16),
    }
    for case, (size, length, dtype) in lengths.items():
        values = (
            normal(f"dq.{case}", [length], 0.03)
            * normal(f"dq.scale.{case}", [1 + length // size]).exp().repeat_interleave(size)[:length]
        ).to(dtype)
        for kind in ("nf4",) if length > 1000 else ("nf4", "fp4"):
            name = f"{case}.{kind}"
            packed, state = functional.quantize_4bit(
                values.to(device), blocksize=size, quant_type=kind, compress_statistics=True
            )
            absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
            output = functional.dequantize_4bit(packed, state).reshape(values.shape)
            cases[name] = size
            tensors |= {
                f"{name}.input": values,
                f"{name}.packed": packed.reshape(-1),
                f"{name}.absmax_codes": state.absmax,
                f"{name}.nested_absmax": state.state2.absmax,
                f"{name}.offset": state.offset,
                f"{name}.absmax": absmax,
            }
            _, plain = functional.quantize_4bit(values.to(device), blocksize=size, quant_type=kind)
            tensors |= {
                f"{name}.plain_absmax": plain.absmax,
                f"{name}.nearest_codes": nearest_codes(
                    plain.absmax - state.offset, state.state2.absmax, state.state2.code.cpu()
                ),
            }
            if length < 1000:
                tensors[f"{name}.output"] = output
            tensors["nested_map"] = state.state2.code
    # The 8-bit search: every midpoint of the map and its neighbours, in blocks of 256 that begin with 1.
    code = functional.create_dynamic_map().to(FP32)
    probes = threshold_blocks(((code[1:] + code[:-1]) / 2).tolist(), FP32, 256)
    for name, values in (
        ("search_midpoints", probes),
        ("search_uniform", uniform("search", 600)),
        ("search_map", torch.cat([code, torch.ones(1)])),
    ):
        codes, state = functional.quantize_blockwise(values.to(device), code=code.to(device), blocksize=256)
        tensors |= {
            f"{name}.input": values,
            f"{name}.codes": codes,
            f"{name}.absmax": state.absmax,
            f"{name}.output": functional.dequantize_blockwise(codes, state),
            f"{name}.nearest_codes": nearest_codes(values, state.absmax, code),
        }
    return tensors, cases


def int8(device: str) -> tuple[dict, dict]:
    """Weights through bitsandbytes.nn.Linear8bitLt; products for thresholds 0 and 6."""
    tensors, cases = {}, {}
    shapes = {"small": (5, 12, 3), "wide": (9, 96, 6), "tall": (40, 24, 17), "odd": (6, 20, 1)}
    for case, (outputs, inputs, rows) in shapes.items():
        for dtype_name, dtype in DTYPES.items():
            name = f"{case}.{dtype_name}"
            weight = normal(f"int8.{case}", [outputs, inputs], inputs**-0.5)
            weight[1] = heavy(f"int8.heavy.{case}", inputs)
            weight[2] = torch.round(weight[2] * 254) / 254  # many ties: half steps of a row whose absmax is 1
            weight[2, 0] = 1.0
            weight[3] = 0.0
            weight, bias = weight.to(dtype), normal(f"int8.bias.{case}", [outputs], 0.1).to(dtype)
            activation = normal(f"int8.x.{case}", [rows, inputs])
            activation[:, 3] *= 9.0
            activation[0, 3], activation[-1, 7] = 8.5, -6.0
            activation = activation.to(dtype)
            parameter = bitsandbytes.nn.Int8Params(weight.clone(), requires_grad=False).to(device)
            tensors |= {
                f"{name}.weight": weight,
                f"{name}.bias": bias,
                f"{name}.activation": activation,
                f"{name}.codes": parameter.data,
                f"{name}.absmax": parameter.SCB,
            }
            for threshold in (0.0, 6.0):
                codes, scales, outliers = functional.int8_vectorwise_quant(
                    activation.to(device).to(FP16), threshold
                )
                key = f"{name}.threshold_{threshold:g}"
                tensors |= {f"{key}.activation_codes": codes, f"{key}.activation_absmax": scales}
                if threshold:
                    tensors[f"{key}.outliers"] = outliers.to(torch.int32)
                for with_bias in (True, False):
                    layer = bitsandbytes.nn.Linear8bitLt(
                        inputs, outputs, bias=with_bias, has_fp16_weights=False, threshold=threshold
                    )
                    layer.weight = bitsandbytes.nn.Int8Params(weight.clone(), requires_grad=False)
                    if with_bias:
                        layer.bias = torch.nn.Parameter(bias.clone(), requires_grad=False)
                    layer = layer.to(device).eval()
                    tensors[f"{key}.{'output' if with_bias else 'output_without_bias'}"] = layer(
                        activation.to(device)
                    )
            cases[name] = [outputs, inputs, rows]
    return tensors, cases


def fp8(device: str) -> tuple[dict, dict]:
    """E4M3 with a float32 scale a row: absmax / 448; codes = cast(float32(w) / scale); zero rows: 0, 0."""
    tensors, cases = {}, {}
    e4m3 = torch.float8_e4m3fn
    for dtype_name, dtype in DTYPES.items():
        weight = torch.stack(
            [
                normal("fp8.normal", [50], 0.02),
                uniform("fp8.uniform", 50),
                heavy("fp8.heavy", 50),
                torch.zeros(50),
                torch.linspace(-448, 448, 50),
                torch.full([50], -1e-3),
                normal("fp8.wide", [50]).exp() * normal("fp8.sign", [50]).sign(),
            ]
        ).to(dtype)
        values = weight.to(device).to(FP32)
        scale = values.abs().amax(dim=1) / 448
        codes = torch.where(scale[:, None] > 0, values / scale[:, None], torch.zeros_like(values)).to(e4m3)
        output = (codes.to(FP32) * scale[:, None]).to(dtype)
        tensors |= {
            f"{dtype_name}.weight": weight,
            f"{dtype_name}.codes": codes.view(torch.uint8),
            f"{dtype_name}.scales": scale,
            f"{dtype_name}.output": output,
        }
        cases[dtype_name] = list(weight.shape)
    every = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    tensors["decoded"] = every.to(device).view(e4m3).to(FP32)
    finite = tensors["decoded"].cpu()
    finite = finite[finite.isfinite() & (finite >= 0)].sort().values
    middles = neighbours((finite[1:] + finite[:-1]) / 2)
    edges = torch.tensor([448, 450, 464, 2.0**-9, 2.0**-10, 2.0**-11, 2.0**-6, 1e-30, 1e-45, 0.0])
    probes = torch.cat([middles, neighbours(edges), edges, normal("fp8.cast", [100], 30.0)])
    probes = probes[probes.abs() <= 464]
    probes = torch.cat([probes, -probes])
    tensors |= {"cast.input": probes, "cast.codes": probes.to(device).to(e4m3).view(torch.uint8)}
    return tensors, cases


def conversions(device: str) -> tuple[dict, dict]:
    """float32 to and from the 16-bit types; all as bit patterns (int32, int16), since NaNs are among them."""
    special = [
        0x00000000,
        0x80000000,
        0x00000001,
        0x80000001,
        0x007FFFFF,
        0x00800000,
        0x7F7FFFFF,
        0xFF7FFFFF,
        0x7F800000,
        0xFF800000,
        0x7FC00000,
        0xFFC00000,
        0x7F800001,
        0x7FBFFFFF,
        0x7FFFFFFF,
        0x3F800000,
        0x3F808000,
        0x3F818000,
        0x3F807FFF,
        0x3F808001,
        0x3F817FFF,
        0x3F818001,
        0x7F7F7FFF,
        0x7F7F8000,
        0x7F7F8001,
        0x00008000,
        0x00018000,
        0x477FE000,
        0x477FEFFF,
        0x477FF000,
        0x477FF001,
        0x33000000,
        0x33000001,
        0x33800000,
        0x33C00000,
        0x387FC000,
        0x387FE000,
        0x38800000,
        0x38801000,
        0x38803000,
        0x3F801000,
        0x3F803000,
        0x3F800FFF,
        0x3F801001,
    ]
    random = torch.randint(-(2**31), 2**31, [1500], generator=generator_for("bits"), dtype=torch.int64)
    small = torch.randint(0x32800000, 0x39000000, [500], generator=generator_for("half"), dtype=torch.int64)
    bits = torch.cat([torch.tensor(special, dtype=torch.int64), random, small])
    bits = torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32)
    values = bits.view(FP32).to(device)
    codes = torch.randint(-(2**15), 2**15, [1000], generator=generator_for("codes"), dtype=torch.int64)
    codes = torch.cat(
        [
            torch.tensor(
                [
                    0,
                    1,
                    0x3FF,
                    0x400,
                    0x7BFF,
                    0x7C00,
                    0x7C01,
                    0x7E00,
                    0x7F80,
                    0x7FC0,
                    -1,
                    -0x8000,
                    -0x7FFF,
                    -0x400,
                ]
            ),
            codes,
        ]
    ).to(torch.int16)
    return {
        "float32": bits,
        "to_bfloat16": values.to(BF16).view(torch.int16),
        "to_float16": values.to(FP16).view(torch.int16),
        "codes": codes,
        "from_bfloat16": codes.to(device).view(BF16).to(FP32).view(torch.int32),
        "from_float16": codes.to(device).view(FP16).to(FP32).view(torch.int32),
    }, {}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=pathlib.Path, default=DATA / "formats")
    arguments = parser.parse_args()
    set_up_torch()
    out = arguments.out / arguments.device
    index = {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "versions": versions(),
    }
    for name, make in (
        ("blockwise", blockwise),
        ("double_quantization", double_quantization),
        ("int8", int8),
        ("fp8", fp8),
        ("conversions", conversions),
    ):
        if arguments.device != "cpu" and name in ("fp8", "conversions"):
            continue  # PyTorch's alone, and the CPU is their oracle
        tensors, index[name] = make(arguments.device)
        write_tensors(out / f"{name}.safetensors", tensors)
        print(name, len(tensors), (out / f"{name}.safetensors").stat().st_size)
    write_json(out / "index.json", index)


if __name__ == "__main__":
    main()
