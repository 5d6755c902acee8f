"""Model folders as people have them, made of the demo model: whole, half fetched, of another kind.

`link_demo(origin, place)` makes a folder of hard links; the other functions change one. A file is
never written to, only replaced, so that the folders that share it keep it.
"""

import json
import os
import pathlib
import struct

FILES = ["config.json", "tokenizer.json", "modules.json", "config_sentence_transformers.json",
         "1_Pooling/config.json", "model.safetensors"]
WEIGHTS = "model.safetensors"
LFS = ("version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 +
       "\nsize 16069240\n")
HTML = "<!DOCTYPE html>\n<html><head><title>401 Unauthorized</title></head><body></body></html>\n"
COMMIT, OTHER_COMMIT = "5cf2132abc99cad020ac570b19d031efec650f2b", "0" * 40


def link_demo(origin, place):
    for name in FILES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(origin / name, place / name)
    return place


def put(place, name, content):
    """Replaces or makes a file: of bytes, of text, or of JSON."""
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if not isinstance(content, (bytes, str)):
        content = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def edit(place, name, **values):
    put(place, name, {**json.loads((place / name).read_text(encoding="utf-8")), **values})


def remove(place, *names):
    for name in names:
        (place / name).unlink()


# --- tensors -----------------------------------------------------------------------------------

def read_tensors(path):
    """Name -> (dtype, shape, bytes)."""
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[end:][slice(*t["data_offsets"])])
            for name, t in header.items()}


def pack_tensors(tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values())


def change_tensors(place, change, file=WEIGHTS):
    """Writes what `change` makes of the tensors (a dict; it may also change it in place)."""
    tensors = read_tensors(place / file)
    put(place, file, pack_tensors(change(tensors) or tensors))


def converted(tensors, dtype, pick=lambda name: True):
    """The picked bfloat16 tensors in another type, rounded as numpy does it."""
    import numpy as np
    kinds = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
    out = {}
    for name, (old, shape, data) in tensors.items():
        if not pick(name):
            out[name] = (old, shape, data)
            continue
        values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        out[name] = (dtype, shape, values.astype(kinds[dtype]).tobytes())
    return out


def shard(place, parts=2, index=True):
    """model.safetensors as `parts` shards with an index."""
    tensors = read_tensors(place / WEIGHTS)
    remove(place, WEIGHTS)
    names, weight_map = sorted(tensors), {}
    for i in range(parts):
        file = f"model-{i + 1:05d}-of-{parts:05d}.safetensors"
        share = {name: tensors[name] for name in names[i::parts]}
        weight_map |= dict.fromkeys(share, file)
        put(place, file, pack_tensors(share))
    if index:
        put(place, WEIGHTS + ".index.json", {"metadata": {"total_size": 1},
                                             "weight_map": weight_map})
    return weight_map


def first_projection(tensors):
    return next(name for name in tensors if name.endswith("layers.0.self_attn.q_proj.weight"))


def with_lora(tensors):
    """The matrices that an adapter adds, left beside the weights."""
    name = first_projection(tensors)
    dtype, (rows, cols), data = tensors[name]
    stem = name.removesuffix(".weight")
    return {**tensors, stem + ".lora_A.default.weight": (dtype, [8, cols], data[:16 * cols]),
            stem + ".lora_B.default.weight": (dtype, [rows, 8], data[:16 * rows])}


def added_tensor(name, shape=(256,)):
    def change(tensors):
        size = 1
        for extent in shape:
            size *= extent
        return {**tensors, name: ("BF16", list(shape), bytes(2 * size))}
    return change


def renamed(old, new):
    return lambda tensors: {name.replace(old, new): t for name, t in tensors.items()}


# --- folders of other programs -----------------------------------------------------------------

def hub_cache(place, snapshots=(COMMIT,), main=COMMIT):
    """The demo folder as the hub's cache has it: blobs, links to them, refs/main."""
    files = [name for name in FILES if (place / name).exists()]
    for i, name in enumerate(files):
        blob = place / "blobs" / f"{i:040x}"
        blob.parent.mkdir(exist_ok=True)
        os.rename(place / name, blob)
        for commit in snapshots:
            link = place / "snapshots" / commit / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    (place / "1_Pooling").rmdir()
    if main:
        put(place, "refs/main", main)


def only(place, **files):
    """Nothing but the given files."""
    for name in FILES:
        (place / name).unlink()
    (place / "1_Pooling").rmdir()
    for name, content in files.items():
        put(place, name.replace("__", "."), content)


def gguf(size=4096):
    return b"GGUF" + struct.pack("<IQQ", 3, 310, 24) + bytes(size)


def adapter(base="Qwen/Qwen3-Embedding-0.6B"):
    return {"peft_type": "LORA", "task_type": "FEATURE_EXTRACTION", "r": 8, "lora_alpha": 16,
            "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": base}


def demo(path="deploy/data/demo-model"):
    return pathlib.Path(path)
