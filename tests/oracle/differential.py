#!/usr/bin/env python3
"""Holds `tessera tokenize` against the reference: the same strings to both, every id compared.

    npm install            (here, once: tokenizers 0.23.2)
    differential.py TESSERA TOKENIZER_JSON... [--texts FILE.jsonl...] [--generate N] [--seed S]

--texts are files of one JSON string a line, for example of bench/tokenizer/make_corpus.py;
--generate adds N strings of generate_strings.py. --long adds runs of 1 MB. --bytes N adds N MB of
random bytes made valid. Prints bytes, strings and differences per model; the exit code is 1 when
there is a difference, and the first few are shown.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def long_runs():
    """Texts of 1 MB that are one piece, or as many as can be."""
    rng = random.Random(5)
    size = 1_000_000
    units = ["a", "ab", "aab", "Z", "中", "é", "е", "\u0301", " ", "\n", "\r\n", "\t", "=", "-", "7", "क्",
             "😀", "\u200d", "\u3000", "<|", "'s", "\u1100\u1161", "thequickbrownfox"]
    for unit in units:
        yield unit * (size // len(unit.encode("utf-8")))
    for alphabet in ["ab", "abcdefghijklmnopqrstuvwxyz", "的一是不了人我在有他", "!#$%&*+-/=?^_~.",
                     "абвгдежзиклмн", "\u0301\u0323\u0327\u0345", "gqzjx", " \t\n\r", "한국어가각"]:
        count = size // max(len(c.encode("utf-8")) for c in alphabet)
        yield "".join(rng.choices(alphabet, k=count))


def random_bytes(megabytes):
    rng = random.Random(6)
    for _ in range(int(megabytes * 500)):
        yield rng.randbytes(2000).decode("utf-8", errors="replace")


def write_strings(arguments, path):
    """All strings to one file; returns how many and their UTF-8 bytes."""
    count = size = 0
    with open(path, "w", encoding="utf-8") as out:
        def add(text):
            nonlocal count, size
            out.write(json.dumps(text) + "\n")
            count, size = count + 1, size + len(text.encode("utf-8"))
        for name in arguments.texts:
            with open(name, encoding="utf-8") as lines:
                for line in lines:
                    add(json.loads(line))
        if arguments.generate:
            command = [sys.executable, HERE / "generate_strings.py", str(arguments.seed),
                       str(arguments.generate)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                for line in process.stdout:
                    add(json.loads(line))
        for text in long_runs() if arguments.long else ():
            add(text)
        for text in random_bytes(arguments.bytes):
            add(text)
    return count, size


def compare(tessera, tokenizer, strings, flags):
    """The numbers of the lines that differ."""
    def start(command):
        return subprocess.Popen(command, stdin=open(strings, "rb"), stdout=subprocess.PIPE)
    ours = start([tessera, "tokenize", "--model", tokenizer, "--json", *flags])
    theirs = start(["node", HERE / "reference_ids.mjs", tokenizer, *flags])
    different, lines = [], 0
    for number, (our, their) in enumerate(zip(ours.stdout, theirs.stdout, strict=True)):
        lines += 1
        if our != their:
            different.append(number)
    if ours.wait() or theirs.wait():
        raise SystemExit("a program failed")
    return different, lines


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tessera")
    parser.add_argument("tokenizers", nargs="+")
    parser.add_argument("--texts", nargs="*", default=[])
    parser.add_argument("--generate", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--bytes", type=float, default=0)
    parser.add_argument("--no-template", action="store_true")
    arguments = parser.parse_args()
    flags = ["--no-template"] if arguments.no_template else []
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        strings = pathlib.Path(folder) / "strings.jsonl"
        count, size = write_strings(arguments, strings)
        for tokenizer in arguments.tokenizers:
            different, lines = compare(arguments.tessera, tokenizer, strings, flags)
            if lines != count:
                raise SystemExit(f"{lines} answers to {count} strings")
            print(f"{tokenizer}: {count} strings, {size} bytes, {len(different)} differences",
                  flush=True)
            failed = failed or bool(different)
            with open(strings, encoding="utf-8") as all_lines:
                for number, line in enumerate(all_lines):
                    if number in different[:5]:
                        print("  ", line[:300].rstrip())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
