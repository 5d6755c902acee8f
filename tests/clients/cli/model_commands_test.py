#!/usr/bin/env python3
"""tessera model make, inspect and verify, as a person runs them.

usage: model_commands_test.py PROGRAM_DIR; run from the source root.
"""

import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

TESSERA = os.path.join(sys.argv[1], "tessera")
DEMO = "deploy/data/demo-model"


def run(*words, code=0):
    done = subprocess.run([TESSERA, "model", *map(str, words)], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return done


def main():
    found = json.loads(run("inspect", DEMO, "--json").stdout)
    assert found["parameters"] == 8032256 and found["tensors"] == 46, found
    assert len(found["fingerprint"]) == 64 and found["fingerprint"] != found["fingerprint_float32"]
    assert found["memory_bytes"]["each GPU of 2"] < found["memory_bytes"]["each GPU of 1"]
    text = run("inspect", DEMO).stdout
    assert found["fingerprint"] in text and "8.032 M" in text, text

    again = json.loads(run("inspect", DEMO, "--json").stdout)
    assert again["hashing"]["bytes_read"] == 0, again["hashing"]
    read = json.loads(run("inspect", DEMO, "--json", "--rehash", "--threads", 1).stdout)
    assert read["hashing"]["bytes_read"] == read["hashing"]["bytes"] > 16e6, read["hashing"]
    assert read["hashing"]["remembered_in"].endswith(".json") and not read["hashing"]["wrong"], read
    assert read["fingerprint"] == again["fingerprint"] == found["fingerprint"]
    assert found["former_fingerprint"] not in ("", found["fingerprint"])

    verified = run("verify", DEMO, "--threads", 1).stdout
    assert verified.count("ok ") == 3 and "FAILED" not in verified, verified

    with tempfile.TemporaryDirectory() as scratch:
        made = pathlib.Path(scratch) / "made"
        run("make", made, "--shape", "tiny", "--seed", 9)
        assert json.loads(run("inspect", made, "--json").stdout)["parameters"] == 8032256
        assert "FAILED" not in run("verify", made, "--dtype", "float32").stdout
        again = run("make", made, "--shape", "tiny", code=1)
        assert "already holds a model" in again.stderr + again.stdout

        # A golden vector of another text: verify must say so and fail.
        golden = json.loads(pathlib.Path(DEMO, "golden.json").read_text())
        (made / "golden.json").write_text(json.dumps(golden))
        assert "FAILED" in run("verify", made, code=1).stdout

        # A truncated file is refused with a sentence.
        weights = (made / "model.safetensors").read_bytes()
        (made / "model.safetensors").write_bytes(weights[:-2])
        refused = run("inspect", made, code=1)
        assert "bytes of data" in refused.stderr, refused.stderr
        (made / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + weights[8:])
        assert "header" in run("inspect", made, code=1).stderr
    run("make", code=2)
    print("passed")


if __name__ == "__main__":
    main()
