"""Recall on the whole sample against transformers' figures: 5,000 documents, 8,332 queries."""

import json

import pytest
from cluster import ROOT, SAMPLE, read_folder, running_cluster

import sys

sys.path.insert(0, str(ROOT / "tests/data"))
from make_retrieval_reference import read_jsonl, recalls  # noqa: E402

# Recall may differ from the fp32 reference by this much; languages of few queries by one or two more.
DIFFERENCE_MAX = 0.003


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval")
    with running_cluster(2) as cluster:
        cluster.tessera("submit", SAMPLE / "packages.jsonl", "--out", folder / "documents", "--quiet")
        cluster.tessera("submit", SAMPLE / "queries.jsonl", "--field", "query", "--query", "--out",
                        folder / "queries", "--quiet")
    ids, documents = read_folder(folder / "documents")
    _, queries = read_folder(folder / "queries")
    return recalls(documents, queries, ids, read_jsonl(SAMPLE / "queries.jsonl"))


def test_recall_is_that_of_transformers(figures):
    reference = json.loads((ROOT / "tests/data/retrieval_reference.json").read_text())["recall"]
    queries = read_jsonl(SAMPLE / "queries.jsonl")
    counts = {"all": len(queries)}
    for row in queries:
        counts[row["lang"]] = counts.get(row["lang"], 0) + 1
    assert set(figures) == set(reference) == set(counts)
    print("\nlanguage queries  width  recall@1 (reference)  recall@10 (reference)")
    for language, count in counts.items():
        for width, (at_1, at_10) in figures[language].items():
            want_1, want_10 = reference[language][width]
            if language == "all":
                print(f"{language:8} {count:7} {width:>6}  {at_1:.4f} ({want_1:.4f})      "
                      f"{at_10:.4f} ({want_10:.4f})")
            allowed = max(DIFFERENCE_MAX, 2.5 / count)
            assert abs(at_1 - want_1) <= allowed, (language, width, at_1, want_1)
            assert abs(at_10 - want_10) <= allowed, (language, width, at_10, want_10)
    worst = max(abs(a - b) for language, count in counts.items() if count >= 400
                for width in figures[language]
                for a, b in zip(figures[language][width], reference[language][width]))
    print(f"largest difference among languages of 400 queries and more: {worst:.4f}")
