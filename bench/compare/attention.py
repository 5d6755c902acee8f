"""Attention: our kernels beside torch's, on the same shapes in the same call, on one GPU.

python3 bench/compare/attention.py [--ours build/release/bin/attention_bench]

Peers: torch's varlen flash attention (FlashAttention-2) on the packed batch, with and without
repeated key/value heads, and cuDNN's SDPA through torch on equal lengths, causal, with repeated
heads and with enable_gqa, whichever is faster. TFLOP/s count the lower triangle.
"""

import argparse
import random
import statistics
import subprocess

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn

DIM = 128


def median_us(function, repeats=20, warmup=3):
    for _ in range(warmup):
        function()
    times = []
    for _ in range(repeats):
        start = torch.cuda.Event(enable_timing=True)
        stop = torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) * 1e3)
    return statistics.median(times)


def fastest(functions):
    """The smallest median of the variants that run, in microseconds."""
    times = []
    for function in functions:
        try:
            times.append(median_us(function))
        except (RuntimeError, TypeError, ValueError) as error:
            print("  left out:", str(error).splitlines()[0][:110])
    return min(times) if times else float("nan")


def dense(seqlen, q_heads, kv_heads, tokens=32768):
    batch = max(1, tokens // seqlen)
    draw = lambda heads: torch.randn(batch, heads, seqlen, DIM, device="cuda", dtype=torch.bfloat16)
    q, k, v = draw(q_heads), draw(kv_heads), draw(kv_heads)
    repeated = [x.repeat_interleave(q_heads // kv_heads, 1) for x in (k, v)]
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        return fastest([
            lambda: F.scaled_dot_product_attention(q, *repeated, is_causal=True),
            lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
        ])


def varlen(seqlens, q_heads, kv_heads):
    total, longest = sum(seqlens), max(seqlens)
    draw = lambda heads: torch.randn(total, heads, DIM, device="cuda", dtype=torch.bfloat16)
    q, k, v = draw(q_heads), draw(kv_heads), draw(kv_heads)
    repeated = [x.repeat_interleave(q_heads // kv_heads, 1).contiguous() for x in (k, v)]
    bounds = torch.tensor([0] + seqlens, device="cuda").cumsum(0).to(torch.int32)
    call = lambda k, v: varlen_attn(q, k, v, bounds, bounds, longest, longest, **CAUSAL)
    grouped = lambda: varlen_attn(q, k, v, bounds, bounds, longest, longest, enable_gqa=True,
                                  **CAUSAL)
    return fastest([lambda: call(*repeated), grouped])


def causal_argument():
    import inspect
    names = inspect.signature(varlen_attn).parameters
    return {"is_causal": True} if "is_causal" in names else {"window_size": (-1, 0)}


def random_seqlens(tokens, shortest, longest):
    generator = random.Random(1)
    seqlens = []
    while sum(seqlens) < tokens:
        seqlens.append(min(tokens - sum(seqlens), generator.randint(shortest, longest)))
    return seqlens


def triangle_flops(seqlens, q_heads):
    return 4 * q_heads * DIM * sum(n * (n + 1) / 2 for n in seqlens)


def row(name, peer, seqlens, q_heads, kv_heads, us):
    rate = triangle_flops(seqlens, q_heads) / us / 1e6
    print(f"{name:11} q{q_heads} kv{kv_heads}  {peer:15} {us:9.1f} us  {rate:5.0f} TF/s", flush=True)


CAUSAL = causal_argument()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", default="build/release/bin/attention_bench")
    arguments = parser.parse_args()
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "cuDNN",
          torch.backends.cudnn.version(), flush=True)
    subprocess.run([arguments.ours], check=False)
    for q_heads, kv_heads, lengths, tokens in (
            (32, 8, (128, 512, 2048, 8192, 32768), 32768), (16, 8, (8192,), 16384),
            (8, 2, (2048,), 16384)):
        for seqlen in lengths:
            seqlens = [seqlen] * (tokens // seqlen)
            row(f"L{seqlen}", "cuDNN", seqlens, q_heads, kv_heads,
                dense(seqlen, q_heads, kv_heads, tokens))
            row(f"L{seqlen}", "flash varlen", seqlens, q_heads, kv_heads,
                varlen(seqlens, q_heads, kv_heads))
    for name, shortest, longest in (("mix16-128", 16, 128), ("mix6-96", 6, 96),
                                    ("mix16-1024", 16, 1024)):
        seqlens = random_seqlens(16384, shortest, longest)
        row(name, "flash varlen", seqlens, 32, 8, varlen(seqlens, 32, 8))


if __name__ == "__main__":
    main()
