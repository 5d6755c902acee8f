"""More rows of model_folders_test.py: tensors, shards and number types."""

import json
import os

from folder_makers import (WEIGHTS, added_tensor, change_tensors, converted, edit, pack_tensors,
                           put, read_tensors, remove, renamed, shard, with_lora)
from folder_rows import refused, served

INDEX = WEIGHTS + ".index.json"
SECOND = "model-00002-of-00002.safetensors"


def edit_index(place, change):
    index = json.loads((place / INDEX).read_text())
    put(place, INDEX, change(index) or index)


KIND = "shards and index"
served(KIND, "two shards", shard, "2 file(s)")
served(KIND, "five shards", lambda p: shard(p, 5) and None, "5 file(s)")
served(KIND, "a stale index beside the whole file", lambda p: put(
    p, INDEX, {"weight_map": {"model.norm.weight": "model-00001-of-00009.safetensors"}}))
served(KIND, "a broken index beside the whole file", lambda p: put(p, INDEX, "{"))
served(KIND, "an index without metadata", lambda p: [shard(p), edit_index(
    p, lambda index: {"weight_map": index["weight_map"]})])
served(KIND, "a file that no index names", lambda p: [shard(p), put(
    p, "consolidated.safetensors", b"\0" * 100)])
refused(KIND, "a shard missing", lambda p: [shard(p), remove(p, SECOND)], INDEX, SECOND,
        weights=True)
refused(KIND, "all shards missing", lambda p: [
    shard(p), remove(p, SECOND, "model-00001-of-00002.safetensors")], INDEX, weights=True)
refused(KIND, "shards without index", lambda p: shard(p, index=False) and None, INDEX, weights=True)
refused(KIND, "an index out of the folder", lambda p: [shard(p), edit_index(
    p, lambda index: index["weight_map"].update(x="../model.safetensors"))], INDEX, "folder",
    weights=True)
refused(KIND, "an index of nothing", lambda p: [shard(p), put(p, INDEX, {"weight_map": {}})],
        INDEX, "weight_map", weights=True)
refused(KIND, "an index without a map", lambda p: [shard(p), put(p, INDEX, {"metadata": {}})],
        INDEX, "weight_map", weights=True)
refused(KIND, "an index that is no JSON", lambda p: [shard(p), put(p, INDEX, "{")], INDEX,
        weights=True)
refused(KIND, "an index with one tensor too many", lambda p: [shard(p), edit_index(
    p, lambda index: index["weight_map"].update({"layers.9.x": SECOND}))], INDEX, "layers.9.x",
    weights=True)


def repeat_in_both(place):
    shard(place)
    first, second = (read_tensors(place / f"model-0000{i}-of-00002.safetensors") for i in (1, 2))
    name = next(iter(first))
    put(place, SECOND, pack_tensors({**second, name: first[name]}))


def add_to_shard(place):
    shard(place)
    change_tensors(place, added_tensor("layers.0.self_attn.q_proj.bias", (512,)), SECOND)


refused(KIND, "a tensor in two shards", repeat_in_both, "another shard", weights=True)
refused(KIND, "a tensor that the index does not name", add_to_shard, "q_proj.bias", weights=True)
refused(KIND, "capitals", lambda p: os.rename(p / WEIGHTS, p / "model.SAFETENSORS"),
        "model.SAFETENSORS", weights=True)

KIND = "number types"
served(KIND, "float16", lambda p: change_tensors(p, lambda t: converted(t, "F16")), "46 float16")
served(KIND, "float32", lambda p: change_tensors(p, lambda t: converted(t, "F32")), "46 float32")
served(KIND, "float16 matrices, float32 norms", lambda p: change_tensors(
    p, lambda t: converted(converted(t, "F32", lambda n: "norm" in n), "F16",
                           lambda n: "proj" in n)), "bfloat16", "float16", "float32")
served(KIND, "a float16 table", lambda p: change_tensors(
    p, lambda t: converted(t, "F16", lambda n: "embed_tokens" in n)), "1 float16")
served(KIND, "float16 by the config only", lambda p: edit(p, "config.json", torch_dtype="float16"))
served(KIND, "the newer dtype", lambda p: edit(p, "config.json", dtype="float32"))
refused(KIND, "float64", lambda p: change_tensors(
    p, lambda t: converted(t, "F64", lambda n: "layers.1." in n)), "layers.1.", "F32",
    weights=True)


def reinterpreted(dtype, width):
    """One matrix's bytes as numbers of another type, as quantised folders have them."""
    def change(tensors):
        name = next(n for n in tensors if n.endswith("mlp.up_proj.weight"))
        _, shape, data = tensors[name]
        return {**tensors, name: (dtype, shape, data[:width * shape[0] * shape[1]])}
    return change


for kind, width in {"I8": 1, "F8_E4M3": 1, "U8": 1, "I16": 2}.items():
    refused(KIND, kind, lambda p, kind=kind, width=width: change_tensors(
        p, reinterpreted(kind, width)), "up_proj", "unquantised", weights=True)
refused(KIND, "an unknown type", lambda p: put(
    p, WEIGHTS, (p / WEIGHTS).read_bytes().replace(b'"BF16"', b'"XF16"', 1)), WEIGHTS, "dtype",
    weights=True)

KIND = "tensors outside of the graph"
served(KIND, "an output head", lambda p: change_tensors(
    p, added_tensor("lm_head.weight", (16003, 256))))
served(KIND, "rotary tables of old versions", lambda p: change_tensors(
    p, added_tensor("layers.0.self_attn.rotary_emb.inv_freq", (64,))))
served(KIND, "the prefix of a causal model", lambda p: change_tensors(
    p, lambda t: {"model." + name: value for name, value in t.items()}))
refused(KIND, "adapter matrices", lambda p: change_tensors(p, with_lora), "lora_A", "merge",
        weights=True)
refused(KIND, "an adapter's base layers", lambda p: change_tensors(
    p, renamed("q_proj.weight", "q_proj.base_layer.weight")), "q_proj", weights=True)
refused(KIND, "an adapter's prefix", lambda p: change_tensors(
    p, lambda t: {"base_model.model." + name: value for name, value in t.items()}),
    "embed_tokens", weights=True)
refused(KIND, "DoRA magnitudes", lambda p: change_tensors(p, added_tensor(
    "layers.0.self_attn.q_proj.lora_magnitude_vector.default.weight", (512,))), "lora_magnitude",
    weights=True)
for name, shape in {"layers.0.self_attn.q_proj.bias": (512,), "layers.0.mlp.up_proj.bias": (768,),
                    "layers.4.input_layernorm.weight": (256,), "score.weight": (1, 256),
                    "pooler.weight": (256, 256), "linear.weight": (64, 256), "norm.bias": (256,),
                    "layers.0.mlp.up_proj.weight_scale_inv": (6, 2),
                    "layers.0.mlp.up_proj.qweight": (32, 768), "visual.patch_embed": (256, 256),
                    "embed_tokens.weight_extra": (256,), "mtp.layers.0.norm.weight": (256,),
                    "layers.0.self_attn.sinks": (4,)}.items():
    refused(KIND, name, lambda p, name=name, shape=shape: change_tensors(
        p, added_tensor(name, shape)), name, weights=True)
refused(KIND, "one twice, with and without prefix", lambda p: change_tensors(
    p, lambda t: {**t, "model.norm.weight": t["norm.weight"]}), "norm.weight", "twice",
    weights=True)
for name in ("norm.weight", "layers.3.mlp.down_proj.weight", "layers.2.self_attn.k_norm.weight",
             "embed_tokens.weight"):
    refused(KIND, "without " + name, lambda p, name=name: change_tensors(
        p, lambda t: {n: value for n, value in t.items() if n != name}), name, "missing",
        weights=True)
refused(KIND, "another width", lambda p: change_tensors(
    p, lambda t: {**t, "norm.weight": ("BF16", [128], t["norm.weight"][2][:256])}),
    "norm.weight", "shape", weights=True)
refused(KIND, "a matrix turned", lambda p: change_tensors(p, lambda t: {
    **t, "layers.0.mlp.up_proj.weight": ("BF16", [256, 768], t["layers.0.mlp.up_proj.weight"][2])}),
    "up_proj", "shape", weights=True)
