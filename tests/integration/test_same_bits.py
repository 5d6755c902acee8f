"""Two CPU workers that batch and share out the work in other ways give the same bits: of all of 3,000
texts in the type that is usual, and of some in float32 with the matrix products of a processor
without AVX-512."""

import json

import numpy as np
import pytest
from cluster import SAMPLE, Cluster, read_folder


def texts(count):
    """Of the sample: short queries among descriptions of up to some 700 tokens."""
    with open(SAMPLE / "packages.jsonl", encoding="utf-8") as file:
        packages = [json.loads(line)["text"] for line in file]
    with open(SAMPLE / "queries.jsonl", encoding="utf-8") as file:
        queries = [json.loads(line)["query"] for line in file]
    descriptions = [text for text in packages if len(text) < 2500]
    return [text for three in zip(queries, queries[3000:], descriptions) for text in three][:count]


def embedded_by(folder, name, source, submit, *worker, threads):
    with Cluster() as cluster:
        cluster.add_worker(threads=threads, args=worker)
        cluster.tessera("submit", source, "--out", folder / name, "--quiet", *submit)
    return read_folder(folder / name)


@pytest.mark.parametrize("count,dtype,isa", [(3000, "bfloat16", ""), (600, "float32", "AVX2")])
def test_neighbours_threads_and_places_change_no_bit(tmp_path, monkeypatch, count, dtype, isa):
    if isa:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    items = [{"id": str(i), "text": text} for i, text in enumerate(texts(count))]
    assert len(items) == count
    forwards, backwards = tmp_path / "forwards.jsonl", tmp_path / "backwards.jsonl"
    forwards.write_text("".join(json.dumps(item) + "\n" for item in items))
    backwards.write_text("".join(json.dumps(item) + "\n" for item in reversed(items)))
    ids, rows = embedded_by(tmp_path, "a", forwards, [], "--dtype", dtype, threads=1)
    other_ids, other_rows = embedded_by(tmp_path, "b", backwards, ["--chunk-items", "97"], "--dtype",
                                        dtype, "--max-batch-tokens", "1100", threads=3)
    assert ids == other_ids[::-1] and len(ids) == count
    a, b = np.asarray(rows), np.asarray(other_rows)[::-1]
    differ = np.flatnonzero((a != b).any(axis=1))
    assert differ.size == 0, (f"{differ.size} of {len(a)} rows differ, by up to "
                              f"{np.abs(a.astype(float) - b.astype(float)).max():.2e}")
