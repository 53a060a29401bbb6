"""Writes data/random.json: what torch.randn draws on the CPU. Needs PyTorch on a machine with AVX2.

Usage: python make_random.py [data/random.json]

Each stream is one generator; its draws follow each other, so that the state left behind by one is seen
by the next. Values are bit patterns (8 hex digits for float32, 4 for the 16-bit types). Of long draws
the first and the last 24 values are kept, and the 64-bit FNV-1a hash of all values' little-endian bytes.
"""

import json
import pathlib
import sys

import numpy
import torch

STREAMS = [
    (0, [("float32", n) for n in (1, 1, 3, 15, 16, 2, 17, 31, 33, 5)]),
    (42, [("float32", 64)]),
    (42, [("bfloat16", 64)]),
    (42, [("float16", 64)]),
    (7, [("bfloat16", n) for n in (3, 16, 19, 4, 47)] + [("float16", n) for n in (5, 18, 1)]
     + [("float32", 20)]),
    (1234567890123456789, [("float32", 18)]),
    (2**32 + 5, [("float32", 18)]),
    (2**64 - 1, [("float32", 18)]),
    (2024, [("float32", 16 * 128 * 128), ("bfloat16", 16 * 33 * 47 + 5), ("float16", 16 * 33 * 47),
            ("float32", 2)]),
]
KEPT = 24
BYTES = {"float32": (numpy.uint32, torch.int32, 8), "bfloat16": (numpy.uint16, torch.int16, 4),
         "float16": (numpy.uint16, torch.int16, 4)}


def fnv1a(data: bytes) -> str:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def draw(generator, dtype, count):
    unsigned, integer, digits = BYTES[dtype]
    values = torch.randn(count, generator=generator, dtype=getattr(torch, dtype))
    bits = values.view(integer).numpy().view(unsigned)
    text = [f"{int(value):0{digits}x}" for value in bits]
    result = {"dtype": dtype, "count": count}
    if count <= 2 * KEPT + 16:
        result["bits"] = "".join(text)
    else:
        result |= {"first": "".join(text[:KEPT]), "last": "".join(text[-KEPT:])}
        result["fnv1a"] = fnv1a(bits.tobytes())
    return result


def main():
    torch.set_num_threads(1)
    streams = []
    for seed, draws in STREAMS:
        generator = torch.Generator("cpu").manual_seed(seed)
        streams.append({"seed": seed, "draws": [draw(generator, dtype, count) for dtype, count in draws]})
    default = pathlib.Path(__file__).parent / "data" / "random.json"
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    path.write_text(json.dumps({"torch": torch.__version__, "streams": streams}, indent=1) + "\n")


if __name__ == "__main__":
    main()
