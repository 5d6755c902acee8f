"""A rank of a real group of GPUs faults, or hangs, in the middle of a job.

    TESSERA_BIN=build/fault/bin python3 tests/integration/group_failure.py --model DIR --gpus 0,1,2,3

For a build with -DTESSERA_FAULT_INJECTION=ON on a machine with several GPUs. A one-GPU worker and a
group serve one coordinator; then the group's third rank (or its last) faults or hangs while it works
on texts of all lengths. The group's process must end with a line that names the rank and the cause,
and the job must end with all vectors.
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

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("TESSERA_BIN", ROOT / "build/release/bin"))
SAMPLE = ROOT / "deploy/data/sample/packages.jsonl"
CASES = [("fault", "tokens"), ("hang", "tokens"), ("hang", "weights")]
LIMIT_S = 5  # from the fault to the end of the process; a batch may have to begin first


def write_texts(path, count, seed):
    """Passages, and a long text for every fifteen."""
    chance = random.Random(seed)
    with open(SAMPLE, encoding="utf-8") as file:
        words = [word for line in file for word in json.loads(line)["text"].split()]
    with open(path, "w", encoding="utf-8") as out:
        for number in range(count):
            length = 3000 if number % 15 == 0 else chance.randint(20, 400)
            first = chance.randrange(len(words) - length)
            text = f"{seed} {number} " + " ".join(words[first:first + length])
            print(json.dumps({"id": number, "text": text}), file=out)


def wait_for(condition, what, patience_s=120):
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.02)


class Cluster:
    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        ports = folder / "ports.json"
        self.process = self.start("up", [
            BIN / "tessera", "up", "--model", options.model, "--data-dir", folder / "data",
            "--free-ports", "--port-file", ports, "--ready-s", "120",
            "--device", f"cuda:{options.gpus.split(',')[0]}"], {})
        wait_for(lambda: ports.exists() or self.process.poll() is not None, "the cluster")
        self.addresses = json.loads(ports.read_text())

    def start(self, name, command, environment):
        with open(self.folder / f"{name}.log", "wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log,
                                    env={**os.environ, **environment})

    def batches_of(self, name):
        status = json.loads(subprocess.run(
            [BIN / "tessera", "status", "--json", "--coordinator", self.addresses["clients"]],
            capture_output=True, check=True).stdout)
        return {w["name"]: w["batches_done"] for w in status["workers"]}.get(name, -1)

    def run_case(self, number, kind, split):
        name = f"{kind}-{split}"
        trigger, texts = self.folder / f"{name}.now", self.folder / f"{name}.jsonl"
        write_texts(texts, self.options.texts, number)
        ranks = self.options.gpus.split(",")
        device = ranks[min(2, len(ranks) - 1)]
        group = self.start(name, [
            BIN / "tessera-worker", "--coordinator", self.addresses["workers"], "--model",
            self.options.model, "--devices", self.options.gpus, "--tp", str(len(ranks)), "--split",
            split, "--name", name],
            {"TESSERA_FAULT_WHEN": str(trigger), "TESSERA_FAULT_DEVICE": device,
             **({"TESSERA_FAULT_HANG": "1"} if kind == "hang" else {})})
        wait_for(lambda: self.batches_of(name) >= 0 or group.poll() is not None, name)
        out = self.folder / f"{name}-out"
        job = self.start(f"{name}-submit", [
            BIN / "tessera", "submit", "--coordinator", self.addresses["clients"], texts, "--out",
            out, "--quiet"], {})
        wait_for(lambda: self.batches_of(name) >= 3 or group.poll() is not None, f"work of {name}")
        trigger.touch()
        began = time.monotonic()
        wait_for(lambda: group.poll() is not None, f"the end of {name}", 60)
        took_s = time.monotonic() - began
        busy = job.poll() is None
        job.wait(300)
        manifest = json.loads((out / "manifest.json").read_text())
        errors = [line for line in (self.folder / f"{name}.log").read_text().splitlines()
                  if "rank" in line and "error" in line.lower()]
        print(f"{kind} in GPU {device} of {self.options.gpus}, {split} split: process ended with "
              f"code {group.returncode} after {took_s:.2f} s; job {'went on' if busy else 'WAS OVER'}"
              f" and ended with code {job.returncode}: {manifest['rows']} of {manifest['items']} "
              f"vectors, {manifest['errors']} errors")
        print("\n".join(errors) or (self.folder / f"{name}.log").read_text()[-1500:])
        sys.stdout.flush()
        return (busy and group.returncode == 1 and job.returncode == 0 and len(errors) == 1 and
                took_s < LIMIT_S and manifest["rows"] == self.options.texts and
                manifest["errors"] == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=os.path.abspath, required=True)
    parser.add_argument("--gpus", default="0,1,2,3")
    parser.add_argument("--texts", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tessera-failure-") as name:
        cluster = Cluster(pathlib.Path(name), options)
        try:
            good = [cluster.run_case(i, *case) for i, case in enumerate(CASES)]
        finally:
            cluster.process.terminate()
            cluster.process.wait(60)
    print("all as it should be" if all(good) else f"WRONG: {good}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
