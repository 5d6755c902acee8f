#!/usr/bin/env python3
"""Reference vectors of Qwen3 encoders with random weights, for worker/ and kernels/ tests.

usage: make_reference.py OUT_DIR     compute with transformers (torch, float32, CPU) and write
                                     OUT_DIR/NAME.json for each model below
       make_reference.py --check [DIR]
                                     recompute with plain numpy in float64 and compare with the
                                     files in DIR (default: tests/data/reference)

Weights come from a counter-based generator (see common/model/synthetic_model.hpp), so no weights
are kept: the C++ tests make the very same ones. Vectors are unit length, of the last token.
"""

import json
import pathlib
import sys

import numpy as np

SEED = 20261121
LENGTHS = (1, 2, 17, 128, 511)
# Three ratios of hidden size to q width (1/4, 1, 5/4) and three of query to kv heads (2, 4, 1); an
# intermediate size that fills no panel, float32 weights, and weights with all the trimmings.
MODELS = {
    "narrow": dict(hidden_size=128, intermediate_size=384, num_hidden_layers=3,
                   num_attention_heads=4, num_key_value_heads=2, vocab_size=1000, rope_theta=1e6),
    "square": dict(hidden_size=512, intermediate_size=1024, num_hidden_layers=2,
                   num_attention_heads=4, num_key_value_heads=1, vocab_size=2000, rope_theta=1e6,
                   type="float32"),
    "wide": dict(hidden_size=320, intermediate_size=992, num_hidden_layers=4,
                 num_attention_heads=2, num_key_value_heads=2, vocab_size=500, rope_theta=1e4),
}
HEAD_DIM = 128
EPS = 1e-6
U = np.uint64


def splitmix64(x):
    with np.errstate(over="ignore"):
        x = x + U(0x9E3779B97F4A7C15)
        x = (x ^ (x >> U(30))) * U(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> U(27))) * U(0x94D049BB133111EB)
        return x ^ (x >> U(31))


def fnv1a64(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def random_tensor(name, shape, mean, deviation, bf16):
    key = fnv1a64(name) ^ int(splitmix64(np.array([SEED], U))[0])
    with np.errstate(over="ignore"):
        h = splitmix64(U(key) + np.arange(np.prod(shape), dtype=U))
    parts = sum(((h >> U(s)) & U(0xFFFF)).astype(np.int32) for s in (0, 16, 32, 48)) - 131070
    value = parts.astype(np.float32) * np.float32(deviation / 37837.226) + np.float32(mean)
    if bf16:
        bits = value.view(np.uint32)
        value = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return value.reshape(shape)


def make_weights(m):
    bf16 = m.get("type", "bfloat16") == "bfloat16"
    hidden, q_width = m["hidden_size"], m["num_attention_heads"] * HEAD_DIM
    kv_width, inner = m["num_key_value_heads"] * HEAD_DIM, m["intermediate_size"]
    weights = {}

    def matrix(name, out, inp, deviation=None):
        weights[name] = random_tensor(name, (out, inp), 0, deviation or inp ** -0.5, bf16)

    def norm(name, size):
        weights[name] = random_tensor(name, (size,), 1, 0.1, bf16)

    matrix("embed_tokens.weight", m["vocab_size"], hidden, 1)
    for i in range(m["num_hidden_layers"]):
        layer = f"layers.{i}."
        norm(layer + "input_layernorm.weight", hidden)
        norm(layer + "post_attention_layernorm.weight", hidden)
        norm(layer + "self_attn.q_norm.weight", HEAD_DIM)
        norm(layer + "self_attn.k_norm.weight", HEAD_DIM)
        matrix(layer + "self_attn.q_proj.weight", q_width, hidden)
        matrix(layer + "self_attn.k_proj.weight", kv_width, hidden)
        matrix(layer + "self_attn.v_proj.weight", kv_width, hidden)
        matrix(layer + "self_attn.o_proj.weight", hidden, q_width)
        matrix(layer + "mlp.gate_proj.weight", inner, hidden)
        matrix(layer + "mlp.up_proj.weight", inner, hidden)
        matrix(layer + "mlp.down_proj.weight", hidden, inner)
    norm("norm.weight", hidden)
    return weights


def make_ids(m):
    ids = splitmix64(U(SEED) + np.arange(sum(LENGTHS), dtype=U)) % U(m["vocab_size"])
    ends = np.cumsum(LENGTHS)
    return [ids[end - n:end].astype(np.int64) for n, end in zip(LENGTHS, ends)]


def transformers_vectors(m, weights, all_ids):
    import torch
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(head_dim=HEAD_DIM, rms_norm_eps=EPS, max_position_embeddings=1024,
                         tie_word_embeddings=True, attention_dropout=0.0,
                         rope_parameters={"rope_type": "default", "rope_theta": m["rope_theta"]},
                         **{k: v for k, v in m.items() if k not in ("type", "rope_theta")})
    config._attn_implementation = "eager"
    model = Qwen3Model(config).float().eval()
    missing = model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()},
                                    strict=True)
    print(missing, float(config.rope_parameters["rope_theta"]))
    with torch.inference_mode():
        rows = [model(input_ids=torch.from_numpy(ids)[None], use_cache=False).last_hidden_state[0, -1]
                for ids in all_ids]
    return [torch.nn.functional.normalize(row, dim=0).numpy() for row in rows]


def numpy_vector(m, weights, ids):
    w = {k: v.astype(np.float64) for k, v in weights.items()}
    heads, kv_heads, n = m["num_attention_heads"], m["num_key_value_heads"], len(ids)

    def rms(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight

    frequency = m["rope_theta"] ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angle = np.arange(n)[:, None] * np.concatenate([frequency, frequency])
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]

    def rope(x):
        half = HEAD_DIM // 2
        return x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin

    x = w["embed_tokens.weight"][ids]
    mask = np.triu(np.full((n, n), -np.inf), 1)
    for i in range(m["num_hidden_layers"]):
        p = f"layers.{i}."
        h = rms(x, w[p + "input_layernorm.weight"])
        q, k, v = ((h @ w[p + f"self_attn.{t}_proj.weight"].T).reshape(n, -1, HEAD_DIM)
                   for t in "qkv")
        q = rope(rms(q, w[p + "self_attn.q_norm.weight"]))
        k = rope(rms(k, w[p + "self_attn.k_norm.weight"]))
        k, v = (np.repeat(t, heads // kv_heads, axis=1) for t in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(HEAD_DIM) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", scores, v).reshape(n, -1)
        x = x + mixed @ w[p + "self_attn.o_proj.weight"].T
        h = rms(x, w[p + "post_attention_layernorm.weight"])
        gate = h @ w[p + "mlp.gate_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (h @ w[p + "mlp.up_proj.weight"].T)
        x = x + inner @ w[p + "mlp.down_proj.weight"].T
    last = rms(x[-1], w["norm.weight"])
    return last / np.sqrt((last * last).sum())


def write_references(out):
    import torch
    import transformers

    out.mkdir(parents=True, exist_ok=True)
    for name, m in MODELS.items():
        weights, ids = make_weights(m), make_ids(m)
        vectors = transformers_vectors(m, weights, ids)
        for i, v in zip(ids, vectors):
            difference = np.abs(v - numpy_vector(m, weights, i)).max()
            print(name, len(i), f"largest difference from numpy float64 {difference:.2e}")
            assert difference < 1e-5
        lines = [json.dumps({"ids": i.tolist(), "vector": [round(float(x), 8) for x in v]})
                 for i, v in zip(ids, vectors)]
        head = json.dumps({"seed": SEED, "config": dict(m, head_dim=HEAD_DIM, rms_norm_eps=EPS),
                           "made_by": f"transformers {transformers.__version__}, "
                                      f"torch {torch.__version__}, float32, CPU"})
        (out / f"{name}.json").write_text(head[:-1] + ', "items": [\n' + ",\n".join(lines) + "\n]}\n")


def check_references(folder):
    for name, m in MODELS.items():
        reference = json.loads((folder / f"{name}.json").read_text())
        weights = make_weights(m)
        for ids, item in zip(make_ids(m), reference["items"], strict=True):
            assert ids.tolist() == item["ids"]
            difference = np.abs(np.array(item["vector"]) - numpy_vector(m, weights, ids)).max()
            print(f"{name}: {len(ids)} tokens, largest difference {difference:.2e}")
            assert difference < 1e-5
    print("the references agree with an independent float64 computation")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        here = pathlib.Path(__file__).parent
        check_references(pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else here / "reference")
    else:
        write_references(pathlib.Path(sys.argv[1]))
