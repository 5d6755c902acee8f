"""Float64 vectors of a Qwen3 embedding folder, with numpy only.

    folder = Folder(directory)              what decides a vector, or Differs (folder_reading.py)
    vector(folder, input_ids)               unit length, float64

The token ids are the caller's: `tessera tokenize` gives those of tokenizer.json.
"""

import json
import os

import numpy as np

from folder_reading import Differs, Folder, need, once_for_all_links  # noqa: F401

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


def to_float64(dtype, data):
    if dtype == "BF16":
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64)
    need(dtype in DTYPES, "safetensors", "dtype", dtype)
    return np.frombuffer(data, DTYPES[dtype]).astype(np.float64)


@once_for_all_links
def read_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: to_float64(t["dtype"], data[slice(*t["data_offsets"])]).reshape(t["shape"])
            for name, t in header.items()}


def tensors_of(path):
    need(os.path.exists(path), str(path), "the file")
    try:
        return read_safetensors(path)
    except ValueError as error:
        raise Differs(f"{path}: {error}") from error


def model_weights(folder):
    """Names without the `model.` prefix. What the encoder does not use is dropped in silence, as
    the library does it."""
    path = folder.path / "model.safetensors"
    index = folder.path / "model.safetensors.index.json"
    if path.exists() or not index.exists():
        tensors = tensors_of(path)
    else:
        files = set(json.loads(index.read_text())["weight_map"].values())
        tensors = {}
        for name in sorted(files):
            tensors |= tensors_of(folder.path / name)
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def rms(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin


def rope_angles(config, length):
    """Cosines and sines; frequencies and angles are rounded to float32, as the library has them."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    frequencies = (1 / config.rope_theta ** exponents).astype(np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * np.tile(frequencies, 2)
    angles = angles.astype(np.float64)
    return np.cos(angles)[:, None], np.sin(angles)[:, None]


def attention(x, weights, config, angles):
    length, eps = len(x), config.rms_norm_eps

    def heads(name):
        return (x @ weights(f"self_attn.{name}_proj").T).reshape(length, -1, config.head_dim)

    q = rotate(rms(heads("q"), weights("self_attn.q_norm"), eps), *angles)
    k = rotate(rms(heads("k"), weights("self_attn.k_norm"), eps), *angles)
    groups = config.num_attention_heads // config.num_key_value_heads
    k, v = (np.repeat(t, groups, axis=1) for t in (k, heads("v")))
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(config.head_dim)
    scores += np.triu(np.full((length, length), -np.inf), 1)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    mixed = np.einsum("hij,jhd->ihd", shares, v).reshape(length, -1)
    return mixed @ weights("self_attn.o_proj").T


def mlp(x, weights):
    gate, up = x @ weights("mlp.gate_proj").T, x @ weights("mlp.up_proj").T
    return (gate / (1 + np.exp(-gate)) * up) @ weights("mlp.down_proj").T


def check_shapes(config, tensors):
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    wanted = {"embed_tokens": (config.vocab_size, hidden), "norm": (hidden,)}
    for i in range(config.num_hidden_layers):
        wanted |= {f"layers.{i}.{name}": shape for name, shape in {
            "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
            "self_attn.q_norm": (config.head_dim,), "self_attn.k_norm": (config.head_dim,),
            "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner)}.items()}
        need(f"layers.{i}.input_layernorm.weight" in tensors, "weights", f"layers.{i}", "missing")
    for name, shape in wanted.items():
        found = tensors.get(name + ".weight")
        need(found is not None and found.shape == shape, "weights", name, shape)


def last_state(folder, ids):
    """The last token's state after the last norm: [hidden_size]."""
    config, tensors = folder.config, model_weights(folder)
    check_shapes(config, tensors)
    eps = config.rms_norm_eps
    need(max(ids) < config.vocab_size, "tokenizer.json", "ids", max(ids))
    ids = np.asarray(ids)
    x = tensors["embed_tokens.weight"][ids]
    angles = rope_angles(config, len(ids))
    for i in range(config.num_hidden_layers):
        def weights(name, i=i):
            return tensors[f"layers.{i}.{name}.weight"]
        x = x + attention(rms(x, weights("input_layernorm"), eps), weights, config, angles)
        x = x + mlp(rms(x, weights("post_attention_layernorm"), eps), weights)
    return rms(x[-1], tensors["norm.weight"], eps)


def activate(name, x):
    return {"identity": lambda: x, "tanh": lambda: np.tanh(x), "relu": lambda: np.maximum(x, 0),
            "silu": lambda: x / (1 + np.exp(-x)), "sigmoid": lambda: 1 / (1 + np.exp(-x))}[name]()


def dense(step, x):
    _, path, shape, bias, activation = step
    tensors = tensors_of(path)
    weight = tensors.get("linear.weight")
    need(weight is not None and weight.shape == shape and shape[1] == len(x), path.name,
         "linear.weight", shape)
    need(bias == ("linear.bias" in tensors) and len(tensors) == 1 + bias, path.name,
         "its tensors", sorted(tensors))
    return activate(activation, weight @ x + (tensors["linear.bias"] if bias else 0))


def finish(folder, state):
    """What the modules behind the pooling make of the last token's state, unit length."""
    x = state
    for step in folder.steps:
        x = dense(step, x) if step[0] == "dense" else x / max(np.linalg.norm(x), 1e-12)
    x = x[:folder.truncate_dim]
    return x / np.linalg.norm(x)


def vector(folder, ids):
    """The folder's vector of token ids that are within its limit."""
    return finish(folder, last_state(folder, ids))
