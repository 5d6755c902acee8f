#!/usr/bin/env python3
"""Makes the sample that ships with Tessera from corpus.py's output.

usage: eval_set.py CORPUS.jsonl.gz OUT_DIR

packages.jsonl: 5,000 English long descriptions, all test families among them, {"id", "text"}.
queries.jsonl: the test families' short descriptions in every language, {"lang", "query", "relevant"}.
"""

import gzip
import json
import os
import random
import sys

DOCUMENTS = 5000
DOCUMENT_CHARACTERS_MAX = 1200
DOCUMENT_CHARACTERS_MIN = 60
QUERY_CHARACTERS_MIN = 9
SEED = 7


def choose_documents(english):
    """{key: package} of all test descriptions and a random rest, one for each package."""
    test = [key for key, row in english.items() if row["test"]]
    rest = [key for key, row in english.items() if not row["test"]]
    chosen = {}
    for key in test + random.Random(SEED).sample(rest, DOCUMENTS - len(test)):
        chosen.setdefault(english[key]["name"], key)
    return {key: name for name, key in chosen.items()}


def write_jsonl(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{path}: {len(rows)} lines")


def main():
    source, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    english = {row["key"]: row for row in rows
               if row["lang"] == "en" and len(row["long"]) >= DOCUMENT_CHARACTERS_MIN}
    name_of = choose_documents(english)
    write_jsonl(f"{out}/packages.jsonl", [
        {"id": name, "text": english[key]["long"][:DOCUMENT_CHARACTERS_MAX]}
        for key, name in sorted(name_of.items(), key=lambda entry: entry[1])])
    write_jsonl(f"{out}/queries.jsonl", [
        {"lang": row["lang"], "query": row["short"], "relevant": name_of[row["key"]]}
        for row in sorted(rows, key=lambda row: (row["lang"], row["name"]))
        if row["key"] in name_of and row["test"] and len(row["short"]) >= QUERY_CHARACTERS_MIN])


if __name__ == "__main__":
    main()
