"""Recall@1 and @10 of the sample corpus from vectors that `tessera submit` wrote.

    tessera submit deploy/data/sample/packages.jsonl --out docs
    tessera submit deploy/data/sample/queries.jsonl --field query --query --out queries
    python3 bench/compare/recall.py docs queries
"""

import json
import os
import sys

import numpy as np

SAMPLE = os.path.join(os.path.dirname(__file__), "../../deploy/data/sample")


def vectors(folder):
    shards = sorted(name for name in os.listdir(folder) if name.endswith(".npy"))
    return np.concatenate([np.load(os.path.join(folder, name)) for name in shards])


def main():
    docs, queries = vectors(sys.argv[1]), vectors(sys.argv[2])
    sample = sys.argv[3] if len(sys.argv) > 3 else SAMPLE
    with open(os.path.join(sample, "packages.jsonl"), encoding="utf-8") as file:
        place = {json.loads(line)["id"]: i for i, line in enumerate(file)}
    with open(os.path.join(sample, "queries.jsonl"), encoding="utf-8") as file:
        relevant = np.array([place[json.loads(line)["relevant"]] for line in file])
    hits = np.zeros(2)
    for first in range(0, len(queries), 1024):
        scores = queries[first:first + 1024] @ docs.T
        own = scores[np.arange(len(scores)), relevant[first:first + 1024]]
        rank = (scores > own[:, None]).sum(1)
        hits += (rank < 1).sum(), (rank < 10).sum()
    at1, at10 = hits / len(queries)
    print(f"{len(queries)} queries over {len(docs)} texts: recall@1 {at1:.4f}, @10 {at10:.4f}")


if __name__ == "__main__":
    main()
