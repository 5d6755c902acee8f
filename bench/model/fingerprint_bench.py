#!/usr/bin/env python3
"""How long a model's fingerprint takes: all bytes read from a warm page cache on several numbers of
threads, and remembered, as at a second start.

usage: fingerprint_bench.py PROGRAM_DIR [--model DIR | --shape 4b --scratch DIR] [--threads 1,2,4,8]

Without --model it writes random weights of the shape (4b: 8 GB, 8b: 16 GB) and removes them.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess


def inspect(program, model, *words):
    done = subprocess.run([program, "model", "inspect", model, "--json", *words], check=True,
                          capture_output=True, text=True)
    found = json.loads(done.stdout)
    return found["fingerprint"], found["hashing"]


def warm(model):
    """Reads every file once. What does not fit the page cache shows as a rate below the disk's."""
    for path in pathlib.Path(model).rglob("*.safetensors"):
        with open(path, "rb") as file:
            while file.read(1 << 24):
                pass


def measure(program, model, threads, rounds):
    inspect(program, model, "--rehash")
    warm(model)
    fingerprints = set()
    print(f"{model}, {os.cpu_count()} cores")
    for count in threads:
        seconds, size = [], 0
        for _ in range(rounds):
            fingerprint, work = inspect(program, model, "--rehash", "--threads", str(count))
            fingerprints.add(fingerprint)
            assert work["bytes_read"] == work["bytes"] and not work["wrong"], work
            seconds.append(work["seconds"])
            size = work["bytes"]
        middle = statistics.median(seconds)
        print(f"{count:3} threads  {middle:7.3f} s (of {rounds}: {min(seconds):.3f} to "
              f"{max(seconds):.3f})  {size / middle / 1e9:6.2f} GB/s, "
              f"{size / middle / 1e9 / count:5.2f} a thread")
    seconds = []
    for _ in range(max(rounds, 5)):
        fingerprint, work = inspect(program, model)
        fingerprints.add(fingerprint)
        assert work["bytes_read"] == 0, f"not remembered: {work}"
        seconds.append(work["seconds"])
    print(f"remembered   {statistics.median(seconds) * 1e3:7.1f} ms (of {len(seconds)}: "
          f"{min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f})")
    assert len(fingerprints) == 1, fingerprints


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program_dir")
    parser.add_argument("--model")
    parser.add_argument("--shape", default="4b")
    parser.add_argument("--scratch", default="/tmp")
    parser.add_argument("--threads", default="1,2,4,8")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    program = os.path.join(options.program_dir, "tessera")
    threads = [int(word) for word in options.threads.split(",")]
    if options.model:
        measure(program, options.model, threads, options.rounds)
        return
    model = os.path.join(options.scratch, f"fingerprint-bench-{options.shape}")
    try:
        subprocess.run([program, "model", "make", model, "--shape", options.shape], check=True,
                       stdout=subprocess.DEVNULL)
        measure(program, model, threads, options.rounds)
    finally:
        shutil.rmtree(model, ignore_errors=True)


if __name__ == "__main__":
    main()
