#!/usr/bin/env python3
"""Writes the golden strings and ids of tests/data/tokenizer, with the reference.

    npm install            (here, once: tokenizers 0.23.2)
    make_golden.py TOKENIZER_06B TOKENIZER_4B

1,500 strings come from generate_strings.py, 500 from the shipped sample of queries and packages. The
ids of three files are kept: 0.6B, 4B (which the 8B model shares) and the demo model.
"""
import json
import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATA = ROOT / "tests" / "data" / "tokenizer"
DEMO = ROOT / "deploy" / "data" / "demo-model" / "tokenizer.json"
LONGEST = 240


def generated(count):
    command = [sys.executable, HERE / "generate_strings.py", "20261121", str(3 * count)]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    texts = [json.loads(line) for line in lines]
    return [text for text in texts if len(text) <= LONGEST][:count]


def sampled(count):
    texts = []
    for name in ("queries.jsonl", "packages.jsonl"):
        for line in (ROOT / "deploy" / "data" / "sample" / name).read_text().splitlines():
            texts.extend(value for value in json.loads(line).values() if isinstance(value, str))
    random.Random(11).shuffle(texts)
    return [text[:LONGEST] for text in texts[:count]]


def main():
    texts = generated(1500)
    texts += sampled(2000 - len(texts))
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    (DATA / "golden_strings.jsonl").write_text(lines)
    for name, tokenizer in zip(("06b", "4b", "demo"), (*sys.argv[1:3], DEMO)):
        command = ["node", HERE / "reference_ids.mjs", tokenizer]
        ids = subprocess.run(command, input=lines, capture_output=True, check=True, text=True).stdout
        (DATA / f"golden_ids_{name}.jsonl").write_text(ids)


if __name__ == "__main__":
    main()
