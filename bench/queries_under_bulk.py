#!/usr/bin/env python3
"""How long single queries take while a job keeps a worker busy, and what they cost the job.

    python3 bench/queries_under_bulk.py --model DIR [--device cuda:0] [--seconds 20] [--rate 5]
        [--shortest 8] [--longest 40] [--texts 60000] [--words 170] [--rounds 3]

Starts `tessera up` on the device with nothing cached. First queries alone; then a job of passages
(bench/compare/make_passages.py) runs, and in turns of `seconds` each the workers' tokens a second are
taken without and with queries at the fixed rate over an open connection (query_bench). Prints the
latencies, and the bulk rates with their ratio. TESSERA_BIN names the folder of the programs (default
build/release/bin).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from workers_bench import BIN, ROOT, Cluster


def status(cluster):
    output = subprocess.run([BIN / "tessera", "status", "--json", "--coordinator", cluster.address],
                            check=True, text=True, stdout=subprocess.PIPE).stdout
    return json.loads(output)


def tokens_done(cluster):
    return sum(worker["tokens_done"] for worker in status(cluster)["workers"])


def queries(cluster, options, seconds, seed):
    name = status(cluster)["models"][0]["name"]
    return subprocess.run(
        [BIN / "query_bench", "--coordinator", cluster.address, "--model", name, "--rate",
         str(options.rate), "--seconds", str(seconds), "--shortest", str(options.shortest),
         "--longest", str(options.longest), "--vocabulary", str(options.vocabulary), "--seed",
         str(seed)], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def bulk_rate(cluster, seconds, meanwhile=None):
    """Tokens a second of the workers over the time, of bulk and queries together."""
    began, before = time.monotonic(), tokens_done(cluster)
    said = meanwhile() if meanwhile else time.sleep(seconds)
    return (tokens_done(cluster) - before) / (time.monotonic() - began), said


def measure(cluster, options, passages, out):
    print("idle:      ", queries(cluster, options, min(10, options.seconds), 1), flush=True)
    job = subprocess.Popen([BIN / "tessera", "submit", "--coordinator", cluster.address, passages,
                            "--out", out, "--quiet"], start_new_session=True)
    try:
        time.sleep(4)  # Until its pipeline is full.
        alone, beside = [], []
        for turn in range(options.rounds):
            alone.append(bulk_rate(cluster, options.seconds)[0])
            rate, said = bulk_rate(cluster, options.seconds,
                                   lambda: queries(cluster, options, options.seconds, 2 + turn))
            tokens = options.rate * (options.shortest + options.longest) / 2
            beside.append(rate - tokens)
            if job.poll() is not None:
                sys.exit("error: the job ended too early: more --texts are needed")
            print("under bulk:", said, flush=True)
        a, b = statistics.median(alone), statistics.median(beside)
        print(f"bulk: {a:.0f} tokens/s alone, {b:.0f} beside the queries, {b / a:.3f} of it",
              flush=True)
    finally:
        job.kill()
        job.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=os.path.abspath, required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU worker")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=5, help="queries a second")
    parser.add_argument("--shortest", type=int, default=8)
    parser.add_argument("--longest", type=int, default=40)
    parser.add_argument("--vocabulary", type=int, default=150_000)
    parser.add_argument("--texts", type=int, default=60_000)
    parser.add_argument("--words", type=int, default=170)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ready-s", type=int, default=300, help="longest wait for the worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name:
        folder = pathlib.Path(name)
        passages = folder / "passages.jsonl"
        subprocess.run([sys.executable, ROOT / "bench/compare/make_passages.py", str(options.texts),
                        passages, str(options.words)], check=True)
        with Cluster(folder / "cluster", options.model, [options.device], options.ready_s,
                     ["--no-http", "--threads", str(options.threads)]) as cluster:
            measure(cluster, options, passages, folder / "out")


if __name__ == "__main__":
    main()
