#!/usr/bin/env python3
"""The gateway beside its yardsticks, on this machine, in one run.

usage: gateway_bench.py [--seconds 5] [--model deploy/data/Qwen3-Embedding-0.6B] [--io-threads 2]

Starts a coordinator with the model's tokenizer and a worker that gives vectors without computing,
so that every question is a hit of the cache after the first, and measures:
  * requests a second of `wrk -c64`, one short text, base64: the gateway, and a minimal Beast server
    that answers the same bytes (gateway_yardstick);
  * the delays at half of that rate, by a client whose requests leave at fixed times;
  * vectors a second with 32 texts a request, in turns: over HTTP as base64, and over ZeroMQ; with
    the processor time that each process took for a request, since the load generators share the
    machine with what they load;
  * the writers (gateway_writer_bench).
Needs wrk (Debian: wrk). TESSERA_BIN names the folder of the programs (default build/release/bin).
"""

import argparse
import json
import lzma
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("TESSERA_BIN", str(ROOT / "build/release/bin"))
sys.path.insert(0, str(ROOT / "tests/integration"))
sys.path.insert(0, str(ROOT / "tests/clients/gateway"))
import fakes  # noqa: E402
from gateway_process import Gateway  # noqa: E402

BIN = pathlib.Path(os.environ["TESSERA_BIN"])
TEXTS = 32  # Of a request with many; what gateway_zmq_client asks for.
ROUNDS = 3
WRK = """wrk.method = "POST"
wrk.path = "/v1/embeddings"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[%s]==]
"""


def unpacked(model, folder):
    """The model's folder with its tokenizer unpacked, under its own name."""
    target = folder / model.name
    shutil.copytree(model, target)
    packed = target / "tokenizer.json.xz"
    if packed.exists():
        (target / "tokenizer.json").write_bytes(lzma.decompress(packed.read_bytes()))
    return target


def start_cluster(model):
    fakes.MODEL_DIR = str(model)
    config = json.loads((model / "config.json").read_text())
    fakes.HIDDEN_SIZE = config["hidden_size"]
    coordinator = fakes.Coordinator()
    worker = fakes.FakeWorker(coordinator.workers, model=model.name,
                              hidden_size=config["hidden_size"], vocab_size=config["vocab_size"])
    assert worker.welcomed.wait(60) and worker.refusal is None, worker.refusal
    return coordinator, worker


def wrk(port, body, seconds, folder):
    script = folder / "wrk.lua"
    script.write_text(WRK % body)
    done = subprocess.run(["wrk", "-t1", "-c64", f"-d{seconds}s", "-s", script,
                           f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True)
    assert "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout, done.stdout
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout).group(1))


class Yardstick:
    def __init__(self, body, threads, folder):
        (folder / "body").write_bytes(body)
        ports = folder / "yardstick.port"
        self.process = subprocess.Popen([BIN / "gateway_yardstick", ports, folder / "body",
                                         str(threads)])
        while not ports.exists() or not ports.read_text().strip():
            time.sleep(0.01)
        self.port = int(ports.read_text())

    def stop(self):
        self.process.kill()
        self.process.wait()


def open_loop(port, body, rate, seconds, folder):
    request = (f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
               f"\r\n{body}")
    (folder / "request").write_text(request)
    done = subprocess.run([BIN / "gateway_open_loop", "127.0.0.1", str(port), folder / "request",
                           str(rate), str(seconds), "64"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def question(model, texts):
    return json.dumps({"model": model, "input": texts if len(texts) > 1 else texts[0],
                       "encoding_format": "base64"})


def seconds_of(pid):
    """Processor time of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def over_zmq(coordinator, model, seconds):
    """Requests a second; how many there were in all, with the second that fills the cache."""
    done = subprocess.run([BIN / "gateway_zmq_client", coordinator.clients, model.name, str(seconds)],
                          capture_output=True, text=True, check=True)
    rate = json.loads(done.stdout)["vectors_per_s"] / TEXTS
    return rate, rate * (seconds + 1)


def compare_many(gateway, coordinator, model, body, seconds, folder):
    """Requests of many texts over HTTP and over ZeroMQ, in turns."""
    rates = {"http": [], "zmq": []}
    costs = {name: [] for name in ("gateway", "coordinator", "wrk", "zmq coordinator", "zmq client")}
    for _ in range(ROUNDS):
        pids = {"gateway": gateway.process.pid, "coordinator": coordinator.process.pid}
        before = {name: seconds_of(pid) for name, pid in pids.items()} | {"wrk": seconds_of_children()}
        rates["http"].append(wrk(gateway.address[1], body, seconds, folder))
        after = {name: seconds_of(pid) for name, pid in pids.items()} | {"wrk": seconds_of_children()}
        for name in after:
            costs[name].append((after[name] - before[name]) / (rates["http"][-1] * seconds))
        rate, requests = over_zmq(coordinator, model, seconds)
        rates["zmq"].append(rate)
        costs["zmq coordinator"].append(
            (seconds_of(pids["coordinator"]) - after["coordinator"]) / requests)
        costs["zmq client"].append((seconds_of_children() - after["wrk"]) / requests)
    ratio = statistics.median(h / z for h, z in zip(rates["http"], rates["zmq"]))
    http, zmq = (TEXTS * statistics.median(rates[way]) for way in ("http", "zmq"))
    print(f"{TEXTS} texts a request: {http:.0f} vectors/s over HTTP, {zmq:.0f} over ZeroMQ: {ratio:.2f}")
    print("processor time a request, us:",
          {name: round(1e6 * statistics.median(all_of)) for name, all_of in costs.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "deploy/data/Qwen3-Embedding-0.6B")
    parser.add_argument("--io-threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = unpacked(options.model, folder)
        coordinator, worker = start_cluster(model)
        gateway = Gateway(coordinator.clients, "--io-threads", str(options.io_threads))
        gateway.wait_ready()
        port = gateway.address[1]
        one = question(model.name, ["edit photos"])
        many = question(model.name, [f"cached text {i}" for i in range(TEXTS)])
        for body in (one, many):
            answer = gateway.ask("POST", "/v1/embeddings", body.encode())
            assert answer.status == 200, answer
        hit = gateway.ask("POST", "/v1/embeddings", one.encode())
        assert hit.headers["x-cache"] == "HIT"
        yardstick = Yardstick(hit.body, options.io_threads, folder)
        rates = {"gateway": [], "yardstick": []}
        for _ in range(ROUNDS):
            rates["gateway"].append(wrk(port, one, options.seconds, folder))
            rates["yardstick"].append(wrk(yardstick.port, one, options.seconds, folder))
        yardstick.stop()
        ours, theirs = (statistics.median(rates[k]) for k in ("gateway", "yardstick"))
        print(f"a hit of {len(hit.body)} bytes: {ours:.0f} requests/s ({rates['gateway']}), the "
              f"yardstick {theirs:.0f} ({rates['yardstick']}): {ours / theirs:.2f}")
        print("at half the rate:", open_loop(port, one, ours / 2, options.seconds, folder))
        compare_many(gateway, coordinator, model, many, options.seconds, folder)
        gateway.stop()
        worker.stop()
        coordinator.stop()
    subprocess.run([BIN / "gateway_writer_bench"], check=True)


if __name__ == "__main__":
    main()
