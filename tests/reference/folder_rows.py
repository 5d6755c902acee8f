"""The rows of model_folders_test.py: one table a kind."""

import dataclasses
import os
import typing

from folder_makers import (COMMIT, HTML, LFS, OTHER_COMMIT, WEIGHTS, adapter, gguf, hub_cache,
                           link_demo, only, put, remove, shard)

PLAIN_ITEMS = [{"text": "Find duplicate FILES \u00fcber \u65e5\u672c\u8a9e"},
               {"text": "find duplicate files", "query": True}]


@dataclasses.dataclass
class Row:
    kind: str
    name: str
    change: typing.Callable      # changes the folder; what it returns is given in its place
    words: tuple                 # in the refusal, or in what `inspect` prints
    served: bool = False
    rights: bool = False         # the programs run without root's rights
    weights: bool = False        # only a look at the weights tells; coordinators take none
    items: list = dataclasses.field(default_factory=lambda: PLAIN_ITEMS)
    files: str = ""              # where the model's files are, inside of what is given

    def make(self, origin, place):
        return self.change(link_demo(origin, place))

    def place_of(self, given):
        return given / self.files

    def prompt(self, folder, item):
        name = item.get("prompt_name") or ("query" if item.get("query") else "document")
        return folder.prompts[name]


ROWS = []


def refused(kind, name, change, *words, **more):
    ROWS.append(Row(kind, name, change, words, **more))


def served(kind, name, change, *words, **more):
    ROWS.append(Row(kind, name, change, words, served=True, **more))


def outside(place, name):
    """A path beside the folder, for what is no folder."""
    return str(place.parent / name)


# --- not a folder of safetensors ---------------------------------------------------------------

KIND = "adapters"
refused(KIND, "adapter alone", lambda p: only(
    p, adapter_config__json=adapter(), adapter_model__safetensors=b"\0" * 64), "adapter", "merge")
refused(KIND, "adapter without weights", lambda p: only(p, adapter_config__json=adapter()),
        "adapter", "merge")
refused(KIND, "adapter beside its model", lambda p: put(p, "adapter_config.json", adapter()),
        "adapter", "merge")
refused(KIND, "adapter beside config and tokenizer", lambda p: [
    remove(p, WEIGHTS), put(p, "adapter_config.json", adapter("/some/folder"))],
    "adapter", "merge")
refused(KIND, "adapter with sentence-transformers' files", lambda p: [
    remove(p, WEIGHTS, "config.json"), put(p, "adapter_config.json", adapter())],
    "adapter", "merge")

KIND = "GGUF"
refused(KIND, "gguf file", lambda p: [put(p, "model.gguf", gguf()), str(p / "model.gguf")][-1],
        "model.gguf", "GGUF", "safetensors")
refused(KIND, "gguf file in capitals", lambda p: [
    put(p, "MODEL.Q8_0.GGUF", gguf()), str(p / "MODEL.Q8_0.GGUF")][-1], "GGUF", "safetensors")
refused(KIND, "gguf file without suffix", lambda p: [
    put(p, "sha256-abcdef", gguf()), str(p / "sha256-abcdef")][-1], "GGUF", "safetensors")
refused(KIND, "folder of gguf", lambda p: only(
    p, Qwen3_Q8_0__gguf=gguf(), README__md="# x"), "GGUF", "safetensors")
refused(KIND, "folder of gguf with config", lambda p: [
    remove(p, WEIGHTS), put(p, "Qwen3-Q8_0.gguf", gguf())], "GGUF", weights=True)
refused(KIND, "gguf named safetensors", lambda p: put(p, WEIGHTS, gguf()), WEIGHTS, "GGUF",
        weights=True)

KIND = "other weights"
for name, file in {"pytorch_model.bin": "pytorch_model.bin",
                   "sharded bin": "pytorch_model-00001-of-00002.bin",
                   "bin in capitals": "PYTORCH_MODEL.BIN",
                   "pth": "consolidated.00.pth"}.items():
    refused(KIND, name, lambda p, file=file: [remove(p, WEIGHTS), put(p, file, b"PK\3\4abc")],
            file, "safetensors", weights=True)
refused(KIND, "bin with index", lambda p: [
    remove(p, WEIGHTS), put(p, "pytorch_model.bin.index.json", {"weight_map": {"a": "x.bin"}}),
    put(p, "pytorch_model-00001-of-00001.bin", b"PK\3\4")], "bin", "safetensors", weights=True)
for name, file in {"onnx": "onnx/model.onnx", "onnx in the folder": "model.onnx",
                   "openvino": "openvino/openvino_model.bin", "tensorflow": "tf_model.h5",
                   "flax": "flax_model.msgpack"}.items():
    refused(KIND, name, lambda p, file=file: [remove(p, WEIGHTS), put(p, file, b"\x08\x07")],
            "safetensors", weights=True)
refused(KIND, "a variant only", lambda p: os.rename(p / WEIGHTS, p / "model.fp16.safetensors"),
        WEIGHTS, weights=True)
refused(KIND, "no weights", lambda p: remove(p, WEIGHTS), WEIGHTS, weights=True)
refused(KIND, "empty folder", lambda p: only(p), "empty", "config.json")
refused(KIND, "notes only", lambda p: only(p, README__md="# x"), "config.json")
refused(KIND, "no tokenizer", lambda p: remove(p, "tokenizer.json"), "tokenizer.json")
refused(KIND, "vocab and merges", lambda p: [
    remove(p, "tokenizer.json"), put(p, "vocab.json", {}), put(p, "merges.txt", "")],
    "tokenizer.json", "vocab.json")

# --- paths that lead to no folder --------------------------------------------------------------

KIND = "names and paths"
refused(KIND, "hub name", lambda p: "Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-0.6B",
        "hub", "download")
refused(KIND, "hub name, another", lambda p: "some-one/model_1.5", "hub", "download")
refused(KIND, "hub address", lambda p: "https://huggingface.co/Qwen/Qwen3-Embedding-0.6B",
        "hub", "download")
refused(KIND, "nothing there", lambda p: outside(p, "not-there"), "not-there", "no such folder")
refused(KIND, "nothing there, a slash", lambda p: outside(p, "not-there") + "/", "no such folder")
refused(KIND, "a weights file", lambda p: str(p / WEIGHTS), WEIGHTS, "is a file", "folder")
refused(KIND, "a config file", lambda p: str(p / "config.json"), "config.json", "is a file")
refused(KIND, "below a file", lambda p: str(p / "config.json" / "x"), "config.json/x")
refused(KIND, "a link to nothing", lambda p: [
    os.symlink("nowhere", p.parent / "dangling"), outside(p, "dangling")][-1], "dangling")
served(KIND, "a link to the folder", lambda p: [
    os.symlink(p, p.parent / "linked"), outside(p, "linked")][-1])
served(KIND, "a slash at the end", lambda p: str(p) + "/")

# --- the hub's cache ---------------------------------------------------------------------------

KIND = "hub cache"
SNAPSHOT = "snapshots/" + COMMIT
served(KIND, "cache folder", hub_cache, files=SNAPSHOT)
served(KIND, "cache, ref with a line end", lambda p: hub_cache(p, main=COMMIT + "\n"),
       files=SNAPSHOT)
served(KIND, "cache, several snapshots", lambda p: hub_cache(p, (OTHER_COMMIT, COMMIT)),
       files=SNAPSHOT)
served(KIND, "cache, one snapshot, no ref", lambda p: hub_cache(p, main=None), files=SNAPSHOT)
served(KIND, "snapshot itself", lambda p: [hub_cache(p), str(p / SNAPSHOT)][-1])
refused(KIND, "several snapshots, no ref", lambda p: hub_cache(p, (OTHER_COMMIT, COMMIT), None),
        "2 snapshots", "refs/main")
refused(KIND, "ref to nothing", lambda p: hub_cache(p, main="1" * 40), "refs/main", "1" * 40)
refused(KIND, "ref out of the folder", lambda p: hub_cache(p, main="../.."), "refs/main")
refused(KIND, "empty ref", lambda p: [hub_cache(p), put(p, "refs/main", "")], "refs/main")
refused(KIND, "no snapshot", lambda p: [only(p), put(p, "refs/main", COMMIT), (
    p / "snapshots").mkdir()], "refs/main")
refused(KIND, "the cache of all models", lambda p: [
    only(p), put(p, "models--Qwen--Qwen3-Embedding-0.6B/refs/main", COMMIT)], "cache", "models--")


def lose_blob(place, name):
    hub_cache(place)
    (place / SNAPSHOT / name).resolve().unlink()


refused(KIND, "blob of the weights lost", lambda p: lose_blob(p, WEIGHTS), WEIGHTS, weights=True)
refused(KIND, "blob of the tokenizer lost", lambda p: lose_blob(p, "tokenizer.json"),
        "tokenizer.json")
refused(KIND, "blob of the pooling lost", lambda p: lose_blob(p, "1_Pooling/config.json"),
        "1_Pooling/config.json")
refused(KIND, "blob of the modules lost", lambda p: lose_blob(p, "modules.json"), "modules.json")
refused(KIND, "blob of the prompts lost",
        lambda p: lose_blob(p, "config_sentence_transformers.json"),
        "config_sentence_transformers.json")

# --- files that are not what they are called ---------------------------------------------------

KIND = "half fetched"
for name in ("config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json",
             "config_sentence_transformers.json", WEIGHTS):
    refused(KIND, "pointer for " + name.replace("/", " "),
            lambda p, name=name: put(p, name, LFS), name, "Git LFS", "git lfs pull",
            weights=name == WEIGHTS)
    refused(KIND, "empty " + name.replace("/", " "),
            lambda p, name=name: put(p, name, ""), name, weights=name == WEIGHTS)
    refused(KIND, "a page for " + name.replace("/", " "),
            lambda p, name=name: put(p, name, HTML), name, weights=name == WEIGHTS)
for name in ("tokenizer_config.json", "sentence_bert_config.json", "special_tokens_map.json"):
    refused(KIND, "pointer for " + name, lambda p, name=name: put(p, name, LFS), name, "Git LFS")
refused(KIND, "pointer for the index", lambda p: [
    shard(p), put(p, WEIGHTS + ".index.json", LFS)], WEIGHTS + ".index.json", "Git LFS",
    weights=True)
refused(KIND, "pointer for a shard", lambda p: [
    shard(p), put(p, "model-00002-of-00002.safetensors", LFS)],
    "model-00002-of-00002.safetensors", "Git LFS", weights=True)
refused(KIND, "a pointer given", lambda p: [
    put(p, "model.bin", LFS), str(p / "model.bin")][-1], "Git LFS")
refused(KIND, "weights cut short", lambda p: put(
    p, WEIGHTS, (p / WEIGHTS).read_bytes()[:-2]), WEIGHTS, "bytes of data", weights=True)
refused(KIND, "weights cut in the header", lambda p: put(
    p, WEIGHTS, (p / WEIGHTS).read_bytes()[:100]), WEIGHTS, "header", weights=True)
refused(KIND, "weights too long", lambda p: put(
    p, WEIGHTS, (p / WEIGHTS).read_bytes() + b"\0" * 8), WEIGHTS, "bytes of data", weights=True)
refused(KIND, "weights are a folder", lambda p: [
    remove(p, WEIGHTS), (p / WEIGHTS).mkdir()], WEIGHTS, weights=True)
refused(KIND, "config is a folder", lambda p: [
    remove(p, "config.json"), (p / "config.json").mkdir()], "config.json", "folder")

KIND = "permissions"
for name in ("config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json",
             "config_sentence_transformers.json", WEIGHTS):
    def forbid(place, name=name):
        put(place, name, (place / name).read_bytes())  # Not the file that the others link to.
        os.chmod(place / name, 0)
    refused(KIND, "of " + name.replace("/", " "), forbid, name, "permission", rights=True,
            weights=name == WEIGHTS)
refused(KIND, "of the folder", lambda p: os.chmod(p, 0), "permission", rights=True)
refused(KIND, "of the pooling folder", lambda p: os.chmod(p / "1_Pooling", 0), "1_Pooling",
        "permission", rights=True)


def forbid_above(place):
    inner = place / "above" / "model"
    inner.mkdir(parents=True)
    os.rename(place / "config.json", inner / "config.json")
    os.chmod(place / "above", 0)
    return str(inner)


refused(KIND, "of the folder above", forbid_above, "permission", rights=True)
