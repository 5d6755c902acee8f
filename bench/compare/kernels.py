"""torch's kernels at the shapes of kernels_bench --compare and fused_gemm_bench --compare.

python3 bench/compare/kernels.py --tokens 16384 --models 0.6B,4B,8B
python3 bench/compare/kernels.py --fused 16384,4096

Prints "peer<TAB>what<TAB>torch<TAB>microseconds": norms, rotation and SwiGLU by torch.compile, which
fuses each into one kernel; products by torch.matmul (cuBLAS), with --fused together with the compiled
kernel behind them. Inputs rotate, so that they do not stay in the cache.
"""

import argparse
import statistics
import sys

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    sys.exit(f"torch is needed for the peers: {error}")

# hidden, query heads, kv heads, intermediate
SHAPES = {"0.6B": (1024, 16, 8, 3072), "4B": (2560, 32, 8, 9728), "8B": (4096, 32, 8, 12288)}
HEAD = 128
SETS = 4
PRODUCT_ROWS = (16, 128, 512, 2048, 6000)


def rows(count, width, scale=1.0):
    return [torch.randn(count, width, device="cuda", dtype=torch.bfloat16) * scale
            for _ in range(SETS)]


def median_us(call, repeats=5, groups=9):
    """Median over groups of the mean of some launches; `call` gets a running number."""
    for i in range(repeats):
        call(i)
    times = []
    for group in range(groups):
        start = torch.cuda.Event(enable_timing=True)
        stop = torch.cuda.Event(enable_timing=True)
        start.record()
        for i in range(repeats):
            call(group * repeats + i)
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) * 1e3 / repeats)
    return statistics.median(times)


def rms(x, weight):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6) * weight).to(x.dtype)


def norm_rope(qkv, q_norm, k_norm, cosine, sine, q, k):
    heads = qkv.view(-1, qkv.shape[1] // HEAD, HEAD)
    weight = torch.cat([q_norm.expand(q, HEAD), k_norm.expand(k, HEAD)])
    low, high = rms(heads[:, :q + k], weight).float().chunk(2, -1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1).to(qkv.dtype)


def swiglu(both):
    gate, up = both.chunk(2, -1)
    return F.silu(gate) * up


def print_peer(what, us):
    print(f"peer\t{what}\ttorch\t{us:.2f}", flush=True)


class Rotation:
    def __init__(self, tokens):
        frequency = 1e6 ** -(torch.arange(0, HEAD, 2, device="cuda").float() / HEAD)
        angle = (torch.arange(tokens, device="cuda") % 512)[:, None, None] * frequency
        self.cosine, self.sine = angle.cos(), angle.sin()
        self.norm = torch.ones(HEAD, device="cuda")


def kernels(name, tokens):
    hidden, q, kv, inner = SHAPES[name]
    weight = torch.ones(hidden, device="cuda")
    x, compiled = rows(tokens, hidden), torch.compile(rms)
    print_peer(f"{name} RMSNorm", median_us(lambda i: compiled(x[i % SETS], weight)))
    turn, heads = Rotation(tokens), rows(tokens, (q + 2 * kv) * HEAD)
    compiled = torch.compile(norm_rope)
    print_peer(f"{name} QK-norm + RoPE",
               median_us(lambda i: compiled(heads[i % SETS], turn.norm, turn.norm, turn.cosine,
                                            turn.sine, q, kv)))
    both, compiled = rows(tokens, 2 * inner), torch.compile(swiglu)
    print_peer(f"{name} SwiGLU", median_us(lambda i: compiled(both[i % SETS])))
    del x, heads, both
    for what, n, k in (("qkv", (q + 2 * kv) * HEAD, hidden), ("o +=", hidden, q * HEAD),
                       ("gate, up", 2 * inner, hidden), ("down +=", hidden, inner)):
        weights, inputs, sums = rows(n, k, 0.03), rows(tokens, k), rows(tokens, n)
        for count in (*PRODUCT_ROWS, tokens):
            def product(i):
                w, a = weights[i % SETS], inputs[i % SETS][:count]
                if "+=" in what:
                    sums[i % SETS][:count].addmm_(a, w.t())
                else:
                    torch.mm(a, w.t(), out=sums[i % SETS][:count])
            print_peer(f"{name} {what}, {count} rows", median_us(product, 4, 5))


def fused(name, counts):
    hidden, q, kv, inner = SHAPES[name]
    after_qkv = torch.compile(norm_rope, dynamic=True)
    after_gate_up = torch.compile(swiglu, dynamic=True)
    for what, n in (("gate_up", 2 * inner), ("qkv", (q + 2 * kv) * HEAD)):
        weights = rows(n, hidden, 0.03)
        for count in counts:
            inputs, turn = rows(count, hidden), Rotation(count)
            def run(i):
                product = F.linear(inputs[i % SETS], weights[i % SETS])
                if what == "gate_up":
                    return after_gate_up(product)
                return after_qkv(product, turn.norm, turn.norm, turn.cosine, turn.sine, q, kv)
            print_peer(f"{name} {what} M{count}", median_us(run))


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--models", default="0.6B,4B,8B")
    parser.add_argument("--fused", default="")
    arguments = parser.parse_args()
    for name in arguments.models.split(","):
        if arguments.fused:
            fused(name, [int(n) for n in arguments.fused.split(",")])
        else:
            kernels(name, arguments.tokens)


if __name__ == "__main__":
    main()
