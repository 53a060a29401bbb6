"""PyTorch's kernels on the shapes of attention.cu and gemv.cu: python3 peer.py attention | linear"""

import sys
import time

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel


def median_ms(run, batch):
    start = time.time()
    while time.time() - start < 0.5:
        run(0)
        torch.cuda.synchronize()
    times = []
    for _ in range(15):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for index in range(batch):
            run(index)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / batch)
    return sorted(times)[len(times) // 2]


def attention():
    def measure(name, heads, queries, keys, dim, backends, bias=False):
        # rows of [tokens, heads * dim], as a linear layer leaves them
        q, k, v = (
            torch.randn(1, tokens, heads, dim, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
            for tokens in (queries, keys, keys)
        )
        mask = torch.zeros(1, heads, queries, keys, device="cuda", dtype=torch.bfloat16) if bias else None
        flop = 4.0 * heads * queries * keys * dim
        for label, backend in backends.items():
            with sdpa_kernel(backend):
                try:
                    ms = median_ms(
                        lambda _: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask),
                        max(1, int(1e13 / flop)),
                    )
                except RuntimeError as error:
                    print(f"{name:22} {label:9} {str(error).splitlines()[0]}")
                    continue
            print(f"{name:22} {label:9} {ms:9.4f} ms {flop / ms * 1e-9:6.0f} TFLOP/s", flush=True)

    cudnn = {"cudnn": SDPBackend.CUDNN_ATTENTION}
    flash = cudnn | {"flash2": SDPBackend.FLASH_ATTENTION}
    measure("Flux 24 x 4608", 24, 4608, 4608, 128, flash)
    measure("Wan 40 x 32760", 40, 32760, 32760, 128, cudnn)
    measure("Wan cross 32760 x 512", 40, 32760, 512, 128, flash)
    measure("T5 64 x 512 bias", 64, 512, 512, 64, cudnn | {"efficient": SDPBackend.EFFICIENT_ATTENTION}, True)


def linear():
    """Microseconds by replay of a CUDA graph over rotating weights, so that neither launches nor the L2 cache count."""
    for n, k in ((3072, 3072), (12288, 3072), (3072, 12288), (18432, 3072), (8192, 8192)):
        copies = max(4, 400_000_000 // (n * k * 2))
        weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
        row = []
        for m in (1, 4, 8, 16):
            x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
            for weight in weights:
                functional.linear(x, weight)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for weight in weights:
                    functional.linear(x, weight)
            us = median_ms(lambda _: graph.replay(), 5) / copies * 1000
            row.append(f"M={m} {us:7.2f}")
        print(f"{n:6} x {k:6}  cublas bf16, us: " + "  ".join(row), flush=True)


if __name__ == "__main__":
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    {"attention": attention, "linear": linear}[sys.argv[1]]()
