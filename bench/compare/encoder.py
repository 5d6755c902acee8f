"""Two peers of the encoder on one GPU, on the workloads that engine_bench --compare hands over.

    python3 bench/compare/encoder.py MODEL_FOLDER --lengths FILE [--turns]

FILE has a line a workload: its name, then text lengths. With --turns each line "workload<TAB>who" of
the standard input asks for one pass over that workload and is answered by
"peer<TAB>workload<TAB>who<TAB>tokens a second"; else all workloads and peers take three passes each.

transformers  in bf16 with its own attention choice, padded on the left, sorted by length, the best of
              several batch sizes
packed        the same weights without padding: sequences back to back, torch.compile around
              everything but attention, torch's varlen attention with grouped heads where it takes them

The peers have random weights of the folder's shape; speed does not depend on them. The first time that
a peer meets a workload, a batch that has its longest texts and one that has its shortest run before
the pass, so that compilation and tuning stay outside.
"""

import argparse
import inspect
import json
import math
import os
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention.varlen import varlen_attn
    from transformers import Qwen3Config, Qwen3Model
except ImportError as error:
    sys.exit(f"torch and transformers are needed for the peers: {error}")

HEAD = 128


def timed(run, batches):
    torch.cuda.synchronize()
    start = time.perf_counter()
    run(batches)
    torch.cuda.synchronize()
    return time.perf_counter() - start


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

    def __init__(self, model):
        self.model = model

    @staticmethod
    def pack(lengths, size):
        batches = []
        ordered = sorted(lengths, reverse=True)
        for first in range(0, len(ordered), size):
            batch = ordered[first:first + size]
            mask = torch.zeros(len(batch), batch[0], dtype=torch.long)
            for row, n in enumerate(batch):
                mask[row, batch[0] - n:] = 1
            batches.append((torch.randint(0, 1000, mask.shape).cuda(), mask.cuda()))
        return batches

    @torch.inference_mode()
    def __call__(self, batches):
        for ids, mask in batches:
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

    def __init__(self, model):
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

    @classmethod
    def pack(cls, lengths, budget=16384):
        return [cls.batch(lengths) for lengths in cls.cut(sorted(lengths), budget)]

    @staticmethod
    def batch(lengths):
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
    def __call__(self, batches):
        frequency = 1.0 / (1e6 ** (torch.arange(0, HEAD, 2, device="cuda").float() / HEAD))
        for ids, positions, ends, longest in batches:
            angle = positions[:, None, None] * frequency
            cosine, sine = angle.cos(), angle.sin()
            x = self.embedding[ids]
            for w in self.layers:
                q, k, v = self.before(x, w, cosine, sine)
                x = self.after(x, varlen_attn(q, k, v, ends, ends, longest, longest, **self.causal), w)
            F.normalize(rms(x[(ends[1:] - 1).long()], self.norm).float(), dim=-1)


def prepare_padded(model, lengths):
    run = Padded(model)
    sizes = (32, 128) if max(lengths) <= 1024 else (8,) if max(lengths) <= 2048 else (1,)
    choices = [run.pack(lengths, size) for size in sizes]
    for batches in choices:
        run([batches[0], batches[-1]])
    best = choices[0] if len(choices) == 1 else min(choices, key=lambda b: timed(run, b))
    return run, best


def prepare_packed(run, lengths):
    batches = run.pack(lengths)
    run([batches[0], batches[-1]])
    return run, batches


def requests(workloads, turns):
    """Workload and peer of one pass after another."""
    if turns:
        for line in sys.stdin:
            yield tuple(line.rstrip("\n").split("\t"))
    else:
        for name in workloads:
            for who in ("transformers", "packed"):
                yield from [(name, who)] * 3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--lengths", required=True)
    parser.add_argument("--turns", action="store_true")
    options = parser.parse_args()
    with open(options.lengths, encoding="utf-8") as file:
        workloads = {line.split()[0]: [int(n) for n in line.split()[1:]] for line in file}
    model = make_model(options.folder)
    packed = Packed(model)
    ready = {}  # of one workload, whose peers keep their memory
    current = None
    for name, who in requests(workloads, options.turns):
        if name != current:
            current, ready = name, {}
            torch.cuda.empty_cache()
        lengths = workloads[name]
        if who not in ready:
            ready[who] = (prepare_packed(packed, lengths) if who == "packed"
                          else prepare_padded(model, lengths))
        print(f"peer\t{name}\t{who}\t{sum(lengths) / timed(*ready[who]):.0f}", flush=True)


if __name__ == "__main__":
    main()
