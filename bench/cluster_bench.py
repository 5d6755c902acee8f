#!/usr/bin/env python3
"""Texts a second through a whole cluster on this machine, cold and from the cache.

usage: cluster_bench.py [--texts 20000] [--tokens 20] [--workers 1] [--threads 0]

Starts a coordinator with its Redis and CPU workers with the demo model, submits a file of different
texts of about `tokens` tokens each, checks the vectors against `tessera embed`, and submits it again.
TESSERA_BIN names the folder of the programs (default build/release/bin).
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/integration"))
import cluster as support  # noqa: E402


def write_texts(path, count, tokens):
    """Different texts of about `tokens` tokens each, of the sample's words."""
    words = sorted({word for text in support.sample_texts(3000, seed=11)
                    for word in text.split()[:-1]})
    source = random.Random(3)
    path.write_text("".join(" ".join(source.choices(words, k=max(1, (tokens - 5) * 3 // 8))) +
                            f" {i}\n" for i in range(count)), encoding="utf-8")
    return path


def submit(cluster, path, out):
    began = time.monotonic()
    cluster.tessera("submit", path, "--out", out, "--quiet")
    return time.monotonic() - began, json.loads((out / "manifest.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="per worker; 0: cores, divided")
    options = parser.parse_args()
    threads = options.threads or max(1, os.cpu_count() // options.workers)
    with tempfile.TemporaryDirectory() as name, support.Cluster() as cluster:
        folder = pathlib.Path(name)
        for _ in range(options.workers):
            cluster.add_worker(threads=threads)
        path = write_texts(folder / "in.txt", options.texts, options.tokens)
        cold_s, cold = submit(cluster, path, folder / "cold")
        warm_s, warm = submit(cluster, path, folder / "warm")
        assert cold["items"] == cold["rows"] == cold["cache_misses"] == options.texts
        assert warm["cache_misses"] == 0
        _, rows = support.read_folder(folder / "cold")
        assert np.array_equal(rows, support.read_folder(folder / "warm")[1])
        lines = path.read_text(encoding="utf-8").splitlines()
        some = range(0, options.texts, max(1, options.texts // 100))
        answer = json.loads(cluster.tessera("embed", "--", *[lines[i] for i in some]))
        for i, item in zip(some, answer["items"]):
            assert np.array_equal(np.array(item["vector"], "<f4"), rows[i])
        began = time.monotonic()
        for i in range(50):
            subprocess.run(cluster.command("embed", f"a single text, number {i}"), check=True,
                           stdout=subprocess.DEVNULL)
        single_ms = (time.monotonic() - began) * 1000 / 50
    print(f"{options.texts} texts, {cold['tokens'] / options.texts:.1f} tokens each; "
          f"{options.workers} worker(s) of {threads} thread(s)\n"
          f"cold        {cold_s:7.2f} s  {options.texts / cold_s:8.0f} texts/s  "
          f"{cold['tokens'] / cold_s:9.0f} tokens/s\n"
          f"from cache  {warm_s:7.2f} s  {options.texts / warm_s:8.0f} texts/s  "
          f"{cold_s / warm_s:.0f} times faster\n"
          f"one `tessera embed`, with its process start: {single_ms:.1f} ms")


if __name__ == "__main__":
    main()
