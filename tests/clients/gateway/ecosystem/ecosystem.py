#!/usr/bin/env python3
"""Published clients, unchanged, against a real gateway, coordinator and fake worker.

usage: ecosystem.py [--folder build/ecosystem]

Run by `tests/run --ecosystem`, since it fetches some hundred packages into virtual environments
(once): the newest `openai` with LangChain, LlamaIndex, LiteLLM, Cohere, Voyage and Ollama, and the
last `openai` of the major versions 2 and 1. About a minute when the environments are there.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import venv

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from gateway_process import GATEWAY, Gateway  # noqa: E402
from fakes import Coordinator, FakeWorker  # noqa: E402

ENVIRONMENTS = {
    "newest": ["openai", "langchain-openai", "llama-index-embeddings-openai", "litellm", "cohere",
               "voyageai", "ollama", "numpy"],
    "openai2": ["openai<3", "numpy"],
    "openai1": ["openai<2", "numpy"],
}


def python_of(folder, name):
    """The environment's interpreter; made where it is not there yet."""
    path = os.path.join(folder, name)
    python = os.path.join(path, "bin/python")
    complete = os.path.join(path, "complete")
    if not os.path.exists(complete):
        print(f"environment {name}: {' '.join(ENVIRONMENTS[name])}", flush=True)
        venv.create(path, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "-q", "install", *ENVIRONMENTS[name]], check=True)
        with open(complete, "w", encoding="utf-8"):
            pass
    return python


def run(python, script, *arguments):
    subprocess.run([python, os.path.join(HERE, script), *arguments], check=True, timeout=600)


def start_retrying(python, gateway, key, status):
    process = subprocess.Popen([python, os.path.join(HERE, "openai_retries.py"), gateway.url, key,
                                str(status)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == "ready\n"  # The library takes seconds to load.
    return process


def end_retrying(process, status):
    said, _ = process.communicate(timeout=120)
    if process.returncode != 0:
        raise AssertionError(f"the client did not outlive {status}")
    print(said.strip(), flush=True)


def check_503(python, coordinator, keys, key):
    """No worker at first; one comes while the client waits."""
    gateway = Gateway(coordinator.clients, "--keys", keys, "--request-s", "1")
    process = start_retrying(python, gateway, key, 503)
    process.stdin.write("go\n")
    process.stdin.flush()
    threading.Event().wait(3)
    worker = FakeWorker(coordinator.workers)
    end_retrying(process, 503)
    assert gateway.stop() == 0
    return worker


def check_429(python, name, coordinator):
    """The key's tokens of a minute are used up, and come back while the client waits."""
    made = subprocess.run([GATEWAY, "--new-key", "poor-" + name], capture_output=True, text=True,
                          check=True)
    key = made.stderr.split("\n")[1].strip()
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write(made.stdout.strip() + " tokens-per-minute=1200\n")
        keys.flush()
        gateway = Gateway(coordinator.clients, "--keys", keys.name)
        gateway.wait_ready()
        for _ in range(2):
            body = {"model": "demo-model", "input": [f"words of {name} {i}" for i in range(250)]}
            gateway.ask("POST", "/v1/embeddings", body, {"Authorization": "Bearer " + key})
        process = start_retrying(python, gateway, key, 429)
        process.stdin.write("go\n")
        process.stdin.flush()
        end_retrying(process, 429)
        assert gateway.stop() == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="build/ecosystem")
    options = parser.parse_args()
    pythons = {name: python_of(options.folder, name) for name in ENVIRONMENTS}
    made = subprocess.run([GATEWAY, "--new-key", "tester"], capture_output=True, text=True,
                          check=True)
    key = made.stderr.split("\n")[1].strip()
    coordinator = Coordinator()
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write(made.stdout)
        keys.flush()
        for name, python in pythons.items():
            worker = check_503(python, coordinator, keys.name, key)
            files = tempfile.TemporaryDirectory(prefix="tessera-files-")
            gateway = Gateway(coordinator.clients, "--keys", keys.name, "--files", files.name)
            gateway.wait_ready()
            run(python, "openai_files.py", gateway.url, key)  # Expects no other files.
            run(python, "openai_checks.py", gateway.url, key, "tsk_wrong")
            if name == "newest":
                run(python, "frameworks.py", gateway.url, key)
            assert gateway.stop() == 0
            files.cleanup()
            check_429(python, name, coordinator)
            worker.stop()
    coordinator.stop()
    print("ecosystem: all passed")


if __name__ == "__main__":
    main()
