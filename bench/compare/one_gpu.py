"""Tokens per second on one GPU beside two peers, on the same lengths in the same call:

    python3 bench/compare/one_gpu.py BENCH_BINARY MODEL_FOLDER [--only query,passage] [--peers hf,packed]

hf      transformers in bf16 with its own attention choice, padded on the left, sorted by length, the
        best of several batch sizes
packed  the same weights without padding: sequences back to back, torch.compile around everything but
        attention, torch's varlen attention with grouped heads where it takes them
ours    engine_bench on MODEL_FOLDER (also prints its share of the limit that it measures)

Peers have random weights of the folder's shape; speed does not depend on them. One warm-up pass over
every batch comes before timing, so that compilation and tuning stay outside.
"""

import argparse
import inspect
import json
import math
import os
import re
import subprocess
import tempfile
import time

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import Qwen3Config, Qwen3Model

HEAD = 128


def workloads():
    generator = torch.Generator().manual_seed(1)

    def log_normal(count, mean, sigma, low, high):
        x = torch.randn(count, generator=generator) * sigma + math.log(mean) - sigma * sigma / 2
        return [int(v) for v in x.exp().clamp(low, high)]

    return {"query": log_normal(4096, 24, 0.5, 6, 96), "passage": log_normal(1024, 256, 0.7, 16, 1024),
            "doc2k": [2048] * 32, "long8k": [8192] * 8, "long32k": [32768] * 2}


def seconds(run):
    """Best of two passes after a warm-up."""
    run()
    best = math.inf
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def make_model(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        values = json.load(file)
    values["torch_dtype"] = "bfloat16"
    config = Qwen3Config(**values)
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen3Model(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


class Padded:
    """transformers as its users run it."""

    def __init__(self, model, lengths, size):
        self.model, self.batches = model, []
        ordered = sorted(lengths, reverse=True)
        for first in range(0, len(ordered), size):
            batch = ordered[first:first + size]
            mask = torch.zeros(len(batch), batch[0], dtype=torch.long)
            for row, n in enumerate(batch):
                mask[row, batch[0] - n:] = 1
            self.batches.append((torch.randint(0, 1000, mask.shape).cuda(), mask.cuda()))

    @torch.inference_mode()
    def __call__(self):
        for ids, mask in self.batches:
            hidden = self.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            F.normalize(hidden[:, -1].float(), dim=-1)


def rms(x, weight):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight


def rotate(x, cosine, sine):
    low, high = x.float().chunk(2, -1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1).to(x.dtype)


class Packed:
    """The model without padding, as fast as plain torch makes it."""

    def __init__(self, model, lengths, budget=16384):
        c = model.config
        self.q, self.kv, self.inner = c.num_attention_heads, c.num_key_value_heads, c.intermediate_size
        self.embedding, self.norm = model.embed_tokens.weight, model.norm.weight
        self.layers = [self.weights(layer) for layer in model.layers]
        accepted = inspect.signature(varlen_attn).parameters
        self.causal = {"is_causal": True} if "is_causal" in accepted else {"window_size": (-1, 0)}
        self.grouped = "enable_gqa" in accepted
        if self.grouped:
            self.causal["enable_gqa"] = True
        self.before = torch.compile(self.before_attention, dynamic=True)
        self.after = torch.compile(self.after_attention, dynamic=True)
        self.batches = [self.pack(batch) for batch in self.cut(sorted(lengths), budget)]

    @staticmethod
    def weights(layer):
        a, m = layer.self_attn, layer.mlp
        return {"n1": layer.input_layernorm.weight, "n2": layer.post_attention_layernorm.weight,
                "qkv": torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]).detach(),
                "o": a.o_proj.weight, "qn": a.q_norm.weight, "kn": a.k_norm.weight,
                "gu": torch.cat([m.gate_proj.weight, m.up_proj.weight]).detach(),
                "down": m.down_proj.weight}

    @staticmethod
    def cut(lengths, budget):
        batch, total = [], 0
        for n in lengths:
            if batch and total + n > budget:
                yield batch
                batch, total = [], 0
            batch.append(n)
            total += n
        yield batch

    @staticmethod
    def pack(lengths):
        ends = torch.tensor([0] + lengths).cumsum(0).to(torch.int32).cuda()
        positions = torch.cat([torch.arange(n) for n in lengths]).float().cuda()
        return torch.randint(0, 1000, (sum(lengths),)).cuda(), positions, ends, max(lengths)

    def before_attention(self, x, w, cosine, sine):
        y = F.linear(rms(x, w["n1"]), w["qkv"]).view(-1, self.q + 2 * self.kv, HEAD)
        q = rotate(rms(y[:, :self.q], w["qn"]), cosine, sine)
        k = rotate(rms(y[:, self.q:self.q + self.kv], w["kn"]), cosine, sine)
        v = y[:, self.q + self.kv:]
        if self.grouped:
            return q, k, v.contiguous()
        group = self.q // self.kv
        return q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1).contiguous()

    def after_attention(self, x, attended, w):
        x = x + F.linear(attended.flatten(1), w["o"])
        y = F.linear(rms(x, w["n2"]), w["gu"])
        return x + F.linear(F.silu(y[:, :self.inner]) * y[:, self.inner:], w["down"])

    @torch.inference_mode()
    def __call__(self):
        frequency = 1.0 / (1e6 ** (torch.arange(0, HEAD, 2, device="cuda").float() / HEAD))
        for ids, positions, ends, longest in self.batches:
            angle = positions[:, None, None] * frequency
            cosine, sine = angle.cos(), angle.sin()
            x = self.embedding[ids]
            for w in self.layers:
                q, k, v = self.before(x, w, cosine, sine)
                x = self.after(x, varlen_attn(q, k, v, ends, ends, longest, longest, **self.causal), w)
            F.normalize(rms(x[(ends[1:] - 1).long()], self.norm).float(), dim=-1)


def peer_rates(folder, chosen, peers):
    rates = {name: {} for name in chosen}
    model = make_model(folder)
    for name, lengths in chosen.items():
        tokens = sum(lengths)
        if "hf" in peers:
            sizes = (32, 128) if max(lengths) <= 1024 else (8,) if max(lengths) <= 2048 else (1,)
            rates[name]["hf"] = max(tokens / seconds(Padded(model, lengths, n)) for n in sizes)
        if "packed" in peers:
            rates[name]["packed"] = tokens / seconds(Packed(model, lengths))
        print(name, {k: round(v) for k, v in rates[name].items()}, flush=True)
    return rates


def our_rates(binary, folder, chosen):
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        for name, lengths in chosen.items():
            print(name, *lengths, file=file)
        file.flush()
        longest = max(max(lengths) for lengths in chosen.values())
        command = [binary, "--model", folder, "--lengths", file.name, "--workloads", ",".join(chosen),
                   "--max-batch-tokens", str(max(16384, longest))]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(text, flush=True)
    found = re.findall(r"^(\w+) +\d+ batches +(\d+) tok/s .*?limit +(\d+) tok/s", text, re.M)
    return {name: (float(rate), float(limit)) for name, rate, limit in found}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("folder")
    parser.add_argument("--only", default="query,passage,doc2k,long8k,long32k")
    parser.add_argument("--peers", default="hf,packed")
    options = parser.parse_args()
    chosen = {k: v for k, v in workloads().items() if k in options.only.split(",")}
    rates = peer_rates(options.folder, chosen, options.peers.split(","))
    torch.cuda.empty_cache()
    ours = our_rates(options.binary, options.folder, chosen)
    print("tokens/s     hf   packed     ours    limit   ours/hf  ours/packed  ours/limit")
    for name, (rate, limit) in ours.items():
        hf, packed = (rates[name].get(peer, math.nan) for peer in ("hf", "packed"))
        print(f"{name:8} {hf:8.0f} {packed:8.0f} {rate:8.0f} {limit:8.0f} {rate / hf:9.2f} "
              f"{rate / packed:12.2f} {rate / limit:11.2f}")


if __name__ == "__main__":
    main()
