#!/usr/bin/env python3
"""Recall of the sample's queries among its documents, as transformers computes it.

usage: make_retrieval_reference.py OUT.json      (torch and transformers; a GPU where there is one)

Documents are embedded as they are, queries behind the model's own query prompt; vectors are cut to
each width and normalised. tests/integration/retrieval_test.py computes the same figures with Tessera
and compares them with the file kept beside this script.
"""

import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "deploy/data/demo-model"
SAMPLE = ROOT / "deploy/data/sample"
WIDTHS = (256, 128, 64, 32)
TIE = 1e-6  # Some documents are the same text: equal scores are one rank.


def read_jsonl(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def recalls(documents, queries, document_ids, query_rows):
    """{language: {width: [recall@1, recall@10]}} and the same for all queries under "all".

    documents and queries are [n, 256]; query_rows are the lines of queries.jsonl.
    """
    row_of = {name: row for row, name in enumerate(document_ids)}
    gold = np.array([row_of[row["relevant"]] for row in query_rows])
    languages = np.array([row["lang"] for row in query_rows])
    out = {}
    for width in WIDTHS:
        d = documents[:, :width] / np.linalg.norm(documents[:, :width], axis=1, keepdims=True)
        q = queries[:, :width] / np.linalg.norm(queries[:, :width], axis=1, keepdims=True)
        ranks = np.empty(len(q), dtype=np.int64)
        for first in range(0, len(q), 1024):
            rows = slice(first, min(first + 1024, len(q)))
            scores = q[rows] @ d.T
            relevant = scores[np.arange(len(scores)), gold[rows]]
            ranks[rows] = (scores > relevant[:, None] + TIE).sum(axis=1)
        for language in ["all", *sorted(set(languages))]:
            chosen = ranks if language == "all" else ranks[languages == language]
            out.setdefault(language, {})[str(width)] = [
                round(float((chosen < k).mean()), 5) for k in (1, 10)]
    return out


def embed(texts, tokenizer, model, device):
    import torch

    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    vectors = np.empty((len(ids), model.config.hidden_size), dtype=np.float32)
    for first in range(0, len(order), 64):
        rows = order[first:first + 64]
        width = max(len(ids[i]) for i in rows)
        # Causal attention: what is padded on the right does not reach the last real token.
        batch = torch.zeros((len(rows), width), dtype=torch.long)
        for at, i in enumerate(rows):
            batch[at, :len(ids[i])] = torch.tensor(ids[i])
        last = torch.tensor([len(ids[i]) - 1 for i in rows], device=device)
        with torch.inference_mode():
            hidden = model(input_ids=batch.to(device), use_cache=False).last_hidden_state
        pooled = hidden[torch.arange(len(rows), device=device), last].float()
        vectors[rows] = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
    return vectors


def main():
    import tokenizers
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    config = transformers.Qwen3Config(**json.loads((MODEL / "config.json").read_text()))
    model = transformers.Qwen3Model(config)
    from safetensors.torch import load_file
    model.load_state_dict({name: tensor.float()
                           for name, tensor in load_file(MODEL / "model.safetensors").items()})
    model = model.float().eval().to(device)
    golden = json.loads((MODEL / "golden.json").read_text())
    worst = min(float(np.dot(vector, np.array(entry["vec"]))) for vector, entry in
                zip(embed([e["text"] for e in golden], tokenizer, model, device), golden)
                if entry["text"])
    assert worst > 0.99999, f"golden vectors do not hold: cosine {worst}"

    prompt = json.loads((MODEL / "config_sentence_transformers.json").read_text())["prompts"]["query"]
    documents = read_jsonl(SAMPLE / "packages.jsonl")
    queries = read_jsonl(SAMPLE / "queries.jsonl")
    figures = recalls(embed([d["text"] for d in documents], tokenizer, model, device),
                      embed([prompt + q["query"] for q in queries], tokenizer, model, device),
                      [d["id"] for d in documents], queries)
    result = {"made_by": f"transformers {transformers.__version__}, torch {torch.__version__}, "
                         f"float32 on {device}", "recall": figures}
    pathlib.Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")
    print(result["made_by"], figures["all"])


if __name__ == "__main__":
    main()
