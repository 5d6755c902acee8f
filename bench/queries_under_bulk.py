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

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = pathlib.Path(os.environ.get("TESSERA_BIN", ROOT / "build/release/bin"))


class Cluster:
    def __init__(self, folder, options):
        self.folder = folder
        ports = folder / "ports.json"
        self.log = open(folder / "up.log", "wb")
        self.process = subprocess.Popen(
            [BIN / "tessera", "up", "--model", options.model, "--device", options.device,
             "--free-ports", "--no-http", "--data-dir", folder / "data", "--port-file", ports,
             "--threads", str(options.threads), "--ready-s", "300"],
            stdout=self.log, stderr=self.log, start_new_session=True)
        while not ports.exists():
            if self.process.poll() is not None:
                sys.exit(f"tessera up failed:\n{(folder / 'up.log').read_text()}")
            time.sleep(0.1)
        self.address = json.loads(ports.read_text())["clients"]

    def status(self):
        output = subprocess.run([BIN / "tessera", "status", "--json", "--coordinator", self.address],
                                check=True, text=True, stdout=subprocess.PIPE).stdout
        return json.loads(output)

    def tokens_done(self):
        return sum(worker["tokens_done"] for worker in self.status()["workers"])

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def queries(cluster, options, seconds, seed):
    name = cluster.status()["models"][0]["name"]
    return subprocess.run(
        [BIN / "query_bench", "--coordinator", cluster.address, "--model", name, "--rate",
         str(options.rate), "--seconds", str(seconds), "--shortest", str(options.shortest),
         "--longest", str(options.longest), "--vocabulary", str(options.vocabulary), "--seed",
         str(seed)], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def bulk_rate(cluster, seconds, meanwhile=None):
    """Tokens a second of the workers over the time, of bulk and queries together."""
    began, before = time.monotonic(), cluster.tokens_done()
    said = meanwhile() if meanwhile else time.sleep(seconds)
    return (cluster.tokens_done() - before) / (time.monotonic() - began), said


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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name:
        folder = pathlib.Path(name)
        passages = folder / "passages.jsonl"
        subprocess.run([sys.executable, ROOT / "bench/compare/make_passages.py", str(options.texts),
                        passages, str(options.words)], check=True)
        cluster = Cluster(folder, options)
        job = None
        try:
            print("idle:      ", queries(cluster, options, min(10, options.seconds), 1), flush=True)
            job = subprocess.Popen([BIN / "tessera", "submit", "--coordinator", cluster.address,
                                    passages, "--out", folder / "out", "--quiet"],
                                   start_new_session=True)
            time.sleep(4)  # Until its pipeline is full.
            alone, beside = [], []
            for turn in range(options.rounds):
                alone.append(bulk_rate(cluster, options.seconds)[0])
                rate, said = bulk_rate(
                    cluster, options.seconds,
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
            if job is not None:
                job.kill()
                job.wait()
            cluster.stop()


if __name__ == "__main__":
    main()
