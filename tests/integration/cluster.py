"""Real processes on free loopback ports, for the integration tests. All are ended by process id."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("TESSERA_BIN", ROOT / "build/release/bin"))
MODEL = ROOT / "deploy/data/demo-model"
SAMPLE = ROOT / "deploy/data/sample"
# Ends a hang; no test asserts on time. Sanitized builds need most of it.
PATIENCE_S = 300

sys.path.insert(0, str(ROOT / "clients/python"))


def wait_for(condition, what, patience_s=PATIENCE_S):
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


class Cluster:
    """A coordinator with its private Redis, and workers that a test adds and kills."""

    def __init__(self, *coordinator_args, models=(MODEL,)):
        self.models = models  # [NAME=]DIR
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tessera-test-"))
        self.coordinator_args = coordinator_args
        self.processes = []
        self.workers = []
        self.coordinator = None
        self.addresses = {"clients": "tcp://127.0.0.1:*", "workers": "tcp://127.0.0.1:*"}
        self.start_coordinator()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if kind is not None:
            for log in sorted(self.folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_coordinator(self):
        """The first time on free ports, later on the same ones, as after a crash."""
        port_file = self.folder / "ports.json"
        port_file.unlink(missing_ok=True)
        self.coordinator = self._spawn(
            "coordinator", "tessera-coordinator", "--listen", self.addresses["clients"],
            "--worker-listen", self.addresses["workers"],
            *(word for model in self.models for word in ("--model", str(model))),
            "--data-dir", str(self.folder / "data"), "--port-file", str(port_file),
            "--heartbeat-ms", "2000", *self.coordinator_args)
        wait_for(lambda: port_file.exists() or self.coordinator.poll() is not None, "the coordinator")
        assert self.coordinator.poll() is None, "the coordinator did not start"
        self.addresses = json.loads(port_file.read_text())
        return self.coordinator

    def add_worker(self, wait=True, threads=1, model=MODEL, args=()):
        name = f"worker-{len(self.workers)}"
        worker = self._spawn(name, "tessera-worker", "--coordinator", self.addresses["workers"],
                             "--model", str(model), "--threads", str(threads),
                             "--name", name, *args)
        worker.name = name
        self.workers.append(worker)
        if wait:
            self.wait_for_worker(worker)
        return worker

    def wait_for_worker(self, worker):
        wait_for(lambda: any(w["name"] == worker.name for w in self.status()["workers"]), worker.name)

    def _spawn(self, name, program, *args):
        log = open(self.folder / f"{name}.log", "ab")
        process = subprocess.Popen([BIN / program, *args], stdout=log, stderr=log,
                                   stdin=subprocess.DEVNULL)
        log.close()
        self.processes.append(process)
        return process

    def command(self, *args):
        command, *rest = args
        return [str(BIN / "tessera"), command, "--coordinator", self.addresses["clients"],
                "--connect-s", "60", *map(str, rest)]

    def tessera(self, *args, code=0, input=None):
        """Runs the command; its stdout. Fails unless it ends with `code`."""
        done = subprocess.run(self.command(*args), capture_output=True, timeout=2 * PATIENCE_S,
                              input=input)
        assert done.returncode == code, (args, done.returncode, done.stdout[-2000:],
                                         done.stderr[-2000:])
        return done.stdout.decode()

    def start_submit(self, *args, stdin=None):
        """`tessera submit` in the background; its progress goes to a log."""
        log = open(self.folder / "submit.log", "ab")
        process = subprocess.Popen(self.command("submit", *args), stdin=stdin, stdout=log, stderr=log)
        log.close()
        self.processes.append(process)
        return process

    def status(self):
        return json.loads(self.tessera("status", "--json"))

    def memory_mb(self, process):
        for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0


def kill_9(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running_cluster(workers=1, *coordinator_args):
    with Cluster(*coordinator_args) as cluster:
        added = [cluster.add_worker(wait=False) for _ in range(workers)]
        for worker in added:
            cluster.wait_for_worker(worker)
        yield cluster


def read_folder(folder):
    """ids and vectors of a folder that `tessera submit` wrote in npy format."""
    import numpy as np

    ids = (folder / "ids.txt").read_text().splitlines()
    shards = [np.load(path) for path in sorted(folder.glob("vectors-*.npy"))]
    return ids, np.concatenate(shards) if shards else np.zeros((0, 0), dtype="<f4")


def sample_texts(count, duplicates=0.0, seed=1):
    """`count` short texts, all different but for a share of duplicates at random places."""
    import random

    source = random.Random(seed)
    words = sorted({word for line in open(SAMPLE / "packages.jsonl", encoding="utf-8")
                    for word in json.loads(line)["text"].split()[:20]})[:4000]
    unique = count - int(count * duplicates)
    texts = [" ".join(source.choices(words, k=source.randint(3, 14))) + f" {i}"
             for i in range(unique)]
    texts += source.choices(texts, k=count - unique)
    source.shuffle(texts)
    return texts


def write_lines(path, texts):
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path
