#!/usr/bin/env python3
"""Several one-GPU workers behind one coordinator against one of them, end to end.

    python3 bench/workers_bench.py --model DIR [--gpus 0,1,2,3] [--texts 40000] [--alone 12000]
        [--words 170] [--submit-arg=--dimensions=256] [--up-arg=--coordinator-arg=--window-chunks=256]

Each time `tessera up` starts Redis, a coordinator and the workers with nothing cached, and
`tessera submit` embeds a file of passages (bench/compare/make_passages.py): `alone` of them with the
first GPU, `texts` with all. Vectors of texts that both runs have are compared. Prints rates, their
ratio, and how busy the busiest thread of each process was, which names the bottleneck when the ratio
is low. With one GPU only the first is run. Without GPUs: --devices cpu,cpu. TESSERA_BIN names the folder of the programs (default
build/release/bin).
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = pathlib.Path(os.environ.get("TESSERA_BIN", ROOT / "build/release/bin"))
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def process_tree(pid):
    """The process, and those it started."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += process_tree(int(child))
    return found


def thread_seconds(pid):
    """CPU seconds of each thread so far."""
    seconds = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        seconds[task.name] = (int(fields[11]) + int(fields[12])) * TICK_S
    return seconds


class Cluster:
    """`tessera up` with a worker on each of `devices`, in a folder of its own."""

    def __init__(self, folder, model, devices, ready_s, arguments=()):
        folder.mkdir()
        ports = folder / "ports.json"
        command = [BIN / "tessera", "up", "--model", model, "--data-dir", folder / "data",
                   "--free-ports", "--port-file", ports, "--ready-s", str(ready_s), *arguments]
        for device in devices:
            command += ["--device", device]
        self.log = folder / "up.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder,
                                            start_new_session=True)
        while not ports.exists():
            if self.process.poll() is not None:
                sys.exit(f"tessera up failed:\n{self.log.read_text()}")
            time.sleep(0.1)
        self.address = json.loads(ports.read_text())["clients"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def busy(self):
        """Per process name: its threads' CPU seconds so far."""
        names = {}
        for pid in process_tree(self.process.pid)[1:]:
            name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
            names[f"{name} {pid}"] = thread_seconds(pid)
        return names

    def submit(self, path, out, arguments):
        """Seconds from the program's start to its end, the manifest, and threads' loads."""
        before, own = self.busy(), resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        subprocess.run([BIN / "tessera", "submit", "--coordinator", self.address, path, "--out", out,
                        "--quiet", *arguments], check=True)
        took_s = time.monotonic() - began
        after, spent = self.busy(), resource.getrusage(resource.RUSAGE_CHILDREN)
        loads = {"tessera submit, all threads":
                 (spent.ru_utime + spent.ru_stime - own.ru_utime - own.ru_stime) / took_s}
        for name, threads in after.items():
            loads[name] = max(s - before.get(name, {}).get(thread, 0)
                              for thread, s in threads.items()) / took_s
        return took_s, json.loads((out / "manifest.json").read_text()), loads


def vectors(folder):
    return np.concatenate([np.load(path) for path in sorted(folder.glob("vectors-*.npy"))])


def measure(folder, name, options, devices, path):
    with Cluster(folder / name, options.model, devices, options.ready_s,
                 options.up_arg) as cluster:
        took_s, manifest, loads = cluster.submit(path, folder / f"{name}-out", options.submit_arg)
    assert manifest["items"] == manifest["rows"] == manifest["cache_misses"]
    assert manifest["errors"] == 0
    print(f"{len(devices)} worker(s): {manifest['items']} texts, {manifest['tokens']} tokens in "
          f"{took_s:.2f} s: {manifest['items'] / took_s:.0f} texts/s, "
          f"{manifest['tokens'] / took_s:.0f} tokens/s")
    for thread, load in sorted(loads.items(), key=lambda item: -item[1])[:8]:
        print(f"    busiest thread of {thread}: {load:.2f}")
    sys.stdout.flush()
    return manifest["tokens"] / took_s, vectors(folder / f"{name}-out")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=os.path.abspath, required=True)
    parser.add_argument("--gpus", default="0,1,2,3", help="numbers, with commas")
    parser.add_argument("--devices", help="instead of --gpus: devices of the workers")
    parser.add_argument("--texts", type=int, default=40_000, help="for all workers")
    parser.add_argument("--alone", type=int, default=12_000, help="of them for the first worker alone")
    parser.add_argument("--words", type=int, default=170, help="of a passage, on average")
    parser.add_argument("--submit-arg", action="append", default=[], help="passed to tessera submit")
    parser.add_argument("--up-arg", action="append", default=[], help="passed to tessera up")
    parser.add_argument("--ready-s", type=int, default=180, help="longest wait for the workers")
    options = parser.parse_args()
    devices = (options.devices or ",".join(f"cuda:{i}" for i in options.gpus.split(","))).split(",")
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name:
        folder = pathlib.Path(name)
        many, few = folder / "many.jsonl", folder / "few.jsonl"
        subprocess.run([sys.executable, ROOT / "bench/compare/make_passages.py", str(options.texts),
                        many, str(options.words)], check=True)
        with open(many, encoding="utf-8") as source, open(few, "w", encoding="utf-8") as to:
            to.writelines(line for _, line in zip(range(options.alone), source))
        one, expected = measure(folder, "one", options, devices[:1], few)
        if len(devices) == 1:
            return
        all_rate, rows = measure(folder, "all", options, devices, many)
        rows = rows[:len(expected)]
        cosine = np.sum(rows.astype("f8") * expected, axis=1).min()
        print(f"{len(devices)} workers against one: {all_rate / one:.2f} times the tokens a second; "
              f"least cosine of a text in both runs {cosine:.7f}, "
              f"{np.all(rows == expected, axis=1).mean():.1%} with the same bits")
        assert cosine > 0.9999


if __name__ == "__main__":
    main()
