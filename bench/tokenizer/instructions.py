#!/usr/bin/env python3
"""Instructions per byte of the tokenizer, by valgrind: a figure that a busy machine does not move.

    instructions.py TOKENIZER_BENCH TOKENIZER_JSON FILE.jsonl... [--bytes N]

Takes the first N bytes of lines of each file (1 MB unless told), encodes them once with a cold word
cache and once with a warm one, and prints what callgrind counted inside. For machines without
performance counters; where there are some, tokenizer_bench prints the warm figure itself.
"""
import argparse
import json
import pathlib
import re
import subprocess
import tempfile


def take(source, limit, target):
    """Copies whole lines; returns the bytes of their texts."""
    size = 0
    with open(source, encoding="utf-8") as lines, open(target, "w", encoding="utf-8") as out:
        for line in lines:
            if size >= limit:
                break
            size += len(json.loads(line).encode("utf-8"))
            out.write(line)
    return size


def count(bench, tokenizer, texts, function, folder):
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out",
               "--collect-atstart=no", f"--toggle-collect=*{function}*", bench, tokenizer, texts,
               "--rounds", "1", "--threads", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", done.stderr).group(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("tokenizer")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--bytes", type=int, default=1_000_000)
    arguments = parser.parse_args()
    print(f"{'instructions per byte':<24} {'cold':>8} {'warm':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.files:
            texts = pathlib.Path(folder) / "texts.jsonl"
            size = take(name, arguments.bytes, texts)
            figures = [count(arguments.bench, arguments.tokenizer, texts, function, folder) / size
                       for function in ("encode_cold", "encode_warm")]
            print(f"{pathlib.Path(name).stem:<24} {figures[0]:>8.1f} {figures[1]:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
