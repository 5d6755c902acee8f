"""The plain way to split weights, for comparison with tp_bench: torch.compile, torch's packed flash
attention and one NCCL all-reduce behind o and behind down, one process a GPU, random weights.

    python3 bench/compare/tensor_parallel.py [--gpus 4] [--shape 4b]
"""

import argparse
import os
import statistics
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn

HEAD = 128
SHAPES = {  # hidden, layers, query heads, kv heads, intermediate
    "4b": (2560, 36, 32, 8, 9728),
    "8b": (4096, 36, 32, 8, 12288),
}
BATCHES = {
    "16,384 tokens of 256": [256] * 64,
    "one text of 512": [512],
    "one text of 8192": [8192],
    "one text of 32768": [32768],
}


def norm(x, weight):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight


def rotate(x, cos, sin):
    low, high = x.float().chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(x.dtype)


class Layers:
    """One rank's share of the weights and the passes over them."""

    def __init__(self, shape, size, group):
        hidden, self.layers, q, kv, self.wide = shape
        self.q, self.kv, self.group = q // size, kv // size, group
        self.wide //= size
        make = lambda *dims: torch.randn(*dims, device="cuda", dtype=torch.bfloat16) * 0.02
        ones = lambda n: torch.ones(n, device="cuda", dtype=torch.bfloat16)
        self.weights = [
            dict(norm=ones(hidden), head=ones(HEAD),
                 qkv=make((self.q + 2 * self.kv) * HEAD, hidden), o=make(hidden, self.q * HEAD),
                 gate_up=make(2 * self.wide, hidden), down=make(hidden, self.wide))
            for _ in range(self.layers)
        ]
        self.before = torch.compile(self.project, dynamic=True)
        self.after = torch.compile(self.feed_forward, dynamic=True)

    def project(self, x, w, cos, sin):
        rows = F.linear(norm(x, w["norm"]), w["qkv"]).view(-1, self.q + 2 * self.kv, HEAD)
        repeat = self.q // self.kv
        queries = rotate(norm(rows[:, : self.q], w["head"]), cos, sin)
        keys = rotate(norm(rows[:, self.q : self.q + self.kv], w["head"]), cos, sin)
        values = rows[:, self.q + self.kv :]
        return queries, keys.repeat_interleave(repeat, 1), values.repeat_interleave(repeat, 1)

    def feed_forward(self, x, w):
        both = F.linear(norm(x, w["norm"]), w["gate_up"])
        return F.linear(F.silu(both[:, : self.wide]) * both[:, self.wide :], w["down"])

    def summed(self, part):
        if self.group is not None:
            dist.all_reduce(part, group=self.group)
        return part

    @torch.inference_mode()
    def run(self, x, cos, sin, cu_seqlens, longest):
        for w in self.weights:
            q, k, v = self.before(x, w, cos, sin)
            mixed = varlen_attn(q, k, v.contiguous(), cu_seqlens, cu_seqlens, longest, longest,
                                window_size=(-1, 0))
            x = x + self.summed(F.linear(mixed.flatten(1), w["o"]))
            x = x + self.summed(self.after(x, w))
        return x


def time_batch(layers, hidden, lengths):
    tokens = sum(lengths)
    starts = torch.tensor([0] + lengths).cumsum(0)
    positions = torch.cat([torch.arange(n) for n in lengths]).float().cuda()
    frequencies = 1e6 ** -(torch.arange(0, HEAD, 2, device="cuda").float() / HEAD)
    angles = positions[:, None, None] * frequencies
    x = torch.randn(tokens, hidden, device="cuda", dtype=torch.bfloat16)
    arguments = (x, angles.cos(), angles.sin(), starts.int().cuda(), max(lengths))
    times = []
    for i in range(8):
        torch.cuda.synchronize()
        start = time.perf_counter()
        layers.run(*arguments)
        torch.cuda.synchronize()
        if i >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def work(rank, gpus, shape_name):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29533", NCCL_NVLS_ENABLE="0")
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=gpus,
                            device_id=torch.device("cuda", rank))
    shape = SHAPES[shape_name]
    sizes = [n for n in (1, 2, 4, 8) if n <= gpus]
    groups = {n: dist.new_group(list(range(n))) for n in sizes if n > 1}
    for size in sizes:
        if rank < size:
            torch._dynamo.reset()
            layers = Layers(shape, size, groups.get(size))
            for name, lengths in BATCHES.items():
                seconds = time_batch(layers, shape[0], lengths)
                if rank == 0:
                    print(f"torch {shape_name} on {size}: {name}: {seconds * 1e3:.1f} ms "
                          f"{sum(lengths) / seconds:.0f} tok/s", flush=True)
            del layers
            torch.cuda.empty_cache()
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpus", type=int, default=torch.cuda.device_count())
    parser.add_argument("--shape", choices=SHAPES, default="4b")
    options = parser.parse_args()
    mp.spawn(work, args=(options.gpus, options.shape), nprocs=options.gpus)
