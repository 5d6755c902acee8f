"""torch's attention on the workloads that attention_bench --compare hands over.

python3 bench/compare/attention.py --workloads FILE     (a line each: name, q heads, kv heads,
                                                         lengths; tabs between, spaces in lengths)

Prints "peer<TAB>name<TAB>who<TAB>microseconds": cuDNN's SDPA through torch where all lengths are
equal, causal, with repeated heads and with enable_gqa; torch's varlen flash attention
(FlashAttention-2) on the packed batch, likewise; whichever way is faster.
"""

import argparse
import inspect
import statistics
import sys

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.varlen import varlen_attn
except ImportError as error:
    sys.exit(f"torch is needed for the peers: {error}")

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


def dense(batch, seqlen, q_heads, kv_heads):
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
    call = lambda k, v, **more: varlen_attn(q, k, v, bounds, bounds, longest, longest, **CAUSAL,
                                            **more)
    ways = [lambda: call(*repeated)]
    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        ways.append(lambda: call(k, v, enable_gqa=True))
    return fastest(ways)


CAUSAL = ({"is_causal": True} if "is_causal" in inspect.signature(varlen_attn).parameters
          else {"window_size": (-1, 0)})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workloads", required=True)
    arguments = parser.parse_args()
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "cuDNN",
          torch.backends.cudnn.version(), flush=True)
    with open(arguments.workloads, encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    for name, q_heads, kv_heads, lengths in lines:
        q_heads, kv_heads = int(q_heads), int(kv_heads)
        seqlens = [int(n) for n in lengths.split()]
        if len(set(seqlens)) == 1:
            us = dense(len(seqlens), seqlens[0], q_heads, kv_heads)
            print(f"peer\t{name}\tcuDNN\t{us:.2f}", flush=True)
        us = varlen(seqlens, q_heads, kv_heads)
        print(f"peer\t{name}\tflash\t{us:.2f}", flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
