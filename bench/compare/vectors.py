"""Our vectors against transformers in float32 on the same weights, and against themselves.

    python3 bench/compare/vectors.py BENCH_BINARY MODEL_FOLDER [longest]

For texts of 1 to `longest` random tokens prints the lowest cosine of packed vectors to the
reference, of packed to alone, and whether a second run gives the same bits. Exits with 1 when a
bound is broken.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors import safe_open
from transformers import Qwen3Config, Qwen3Model

LENGTHS = [1, 2, 3, 7, 16, 17, 31, 64, 65, 100, 127, 128, 129, 200, 255, 300, 511, 513, 700, 1024,
           1500, 2048, 3000, 4097, 8192]


def reference(folder, texts):
    with open(os.path.join(folder, "config.json")) as file:
        values = json.load(file)
    model = Qwen3Model(Qwen3Config(**values)).eval()
    weights = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            with safe_open(os.path.join(folder, name), "pt") as file:
                weights.update({key.removeprefix("model."): file.get_tensor(key).float()
                                for key in file.keys()})
    missing, _ = model.load_state_dict(weights, strict=False)
    assert not missing, missing
    model = model.cuda()
    rows = []
    with torch.inference_mode():
        for text in texts:
            hidden = model(input_ids=torch.from_numpy(text.astype(np.int64))[None].cuda(),
                           use_cache=False).last_hidden_state[0, -1]
            rows.append(torch.nn.functional.normalize(hidden, dim=-1).cpu().numpy())
    return np.stack(rows)


def ours(binary, folder, texts, *flags):
    with tempfile.TemporaryDirectory() as scratch:
        ids, vectors = os.path.join(scratch, "ids"), os.path.join(scratch, "vectors")
        with open(ids, "wb") as file:
            np.array([len(texts)] + [len(t) for t in texts], np.int32).tofile(file)
            np.concatenate(texts).astype(np.int32).tofile(file)
        subprocess.run([binary, "--model", folder, "--ids", ids, "--vectors", vectors, *flags],
                       check=True, stdout=subprocess.DEVNULL)
        return np.fromfile(vectors, np.float32).reshape(len(texts), -1)


def main():
    binary, folder = sys.argv[1:3]
    longest = int(sys.argv[3]) if len(sys.argv) > 3 else 8192
    with open(os.path.join(folder, "config.json")) as file:
        vocab = json.load(file)["vocab_size"]
    random = np.random.default_rng(3)
    texts = [random.integers(0, vocab, n) for n in LENGTHS if n <= longest]
    torch.backends.cuda.matmul.allow_tf32 = False
    packed = ours(binary, folder, texts)
    again = ours(binary, folder, texts)
    alone = ours(binary, folder, texts, "--alone")
    expected = reference(folder, texts)
    to_reference = (packed * expected).sum(-1)
    to_alone = (packed * alone).sum(-1)
    same = np.array_equal(packed, again)
    worst = int(to_reference.argmin())
    print(f"{folder}: {len(texts)} texts of 1..{len(texts[-1])} tokens: cosine to transformers "
          f"float32 >= {to_reference.min():.6f} (at {len(texts[worst])} tokens), packed to alone >= "
          f"{to_alone.min():.7f}, second run {'the same bits' if same else 'DIFFERENT'}")
    right = to_reference.min() >= 0.9995 and to_alone.min() >= 0.99999 and same
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
