#!/usr/bin/env python3
"""Model folders as people have them, given to every program that takes one.

usage: model_folders_test.py PROGRAM_DIR [--only TEXT] [--show]; run from the source root.

A row is a kind, a name, what makes the folder of a copy of the demo model, and what is right:
either words that the refusal has to hold, the same one sentence of `tessera model inspect`,
`tessera model verify`, `tessera-worker --verify`, `tessera-coordinator` and `tessera up`; or that
the folder is served, and then the vectors have to be the float64 reference's.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import folder_rows  # noqa: E402  (the two below add to its rows)
import folder_sweep_test as sweep  # noqa: E402
import numpy as np  # noqa: E402
import qwen3_reference as reference  # noqa: E402
import setting_rows  # noqa: E402, F401
import weight_rows  # noqa: E402, F401

SERVED_COSINE_ERROR_MAX = 1e-11
REFUSAL_S_MAX = 20  # A program that serves what it should refuse goes on for ever.
# As root nothing is forbidden unless the capabilities for it are given up.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search",
                  "--inh-caps", "-dac_override,-dac_read_search"]


def rights_prefix():
    """The words in front of a command that make permissions count; None where that cannot be."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        return None
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0)
        done = subprocess.run([*WITHOUT_RIGHTS, "cat", file.name], capture_output=True)
    return WITHOUT_RIGHTS if done.returncode == 1 and b"ermission" in done.stderr else None


def commands(bin_dir, given, scratch):
    def program(name):
        return os.path.join(bin_dir, name)

    return {
        "inspect": [program("tessera"), "model", "inspect", given],
        "verify": [program("tessera"), "model", "verify", given],
        "worker": [program("tessera-worker"), "--verify", "--model", given],
        "coordinator": [program("tessera-coordinator"), "--model", given, "--data-dir",
                        str(scratch / "coordinator-data"), "--listen", f"ipc://{scratch}/clients",
                        "--worker-listen", f"ipc://{scratch}/workers"],
        "up": [program("tessera"), "up", "--model", given, "--free-ports", "--data-dir",
               str(scratch / "up-data"), "--ready-s", "20"],
    }


def sentence_of(output, given):
    """What a program said last, without its own name, time and level, and the option."""
    lines = [line for line in output.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    line = re.sub(r"^\S+T\S+ error \S+: ", "", lines[-1])
    line = re.sub(r"^(error|tessera[a-z-]*): (error: )?", "", line)
    return line.removeprefix(f"--model {given}: ")


def refusals(row, given, prefix, bin_dir, scratch):
    """What each program says: {program: (exit code, sentence)}."""
    said = {}
    for name, words in commands(bin_dir, given, scratch).items():
        if name == "coordinator" and row.weights:
            continue  # Weights are the workers' matter.
        try:
            done = subprocess.run([*prefix, *words], capture_output=True, text=True,
                                  timeout=REFUSAL_S_MAX)
            said[name] = done.returncode, sentence_of(done.stderr, given)
        except subprocess.TimeoutExpired:
            said[name] = None, "still running"
    return said


def judge_refused(row, said):
    codes = {name: code for name, (code, _) in said.items()}
    if any(code != 1 for code in codes.values()):
        return f"exit codes {codes}, not 1; {said}"
    sentences = {sentence for _, sentence in said.values()}
    if len(sentences) != 1:
        return "not one sentence: " + "; ".join(f"{n}: {s}" for n, (_, s) in said.items())
    sentence = sentences.pop()
    lacking = [word for word in row.words if word.lower() not in sentence.lower()]
    return f"{lacking} not in: {sentence}" if lacking else ""


class Served:
    """Runs served folders: `inspect`, and coordinator and worker in folder_vectors; that `verify`
    passes such a folder, in more time, model_commands_test.py sees."""

    def __init__(self, bin_dir):
        self.bin_dir = bin_dir
        self.program = os.path.join(bin_dir, "../tests/folder_vectors")
        self.tessera = os.path.join(bin_dir, "tessera")

    def run(self, *words):
        done = subprocess.run([self.tessera, "model", *words], capture_output=True, text=True,
                              timeout=60)
        return done.returncode, done.stdout, done.stderr

    def judge(self, row, given):
        code, shown, complaint = self.run("inspect", given)
        if code != 0:
            return "inspect: " + complaint.strip()
        lacking = [word for word in row.words if word not in shown]
        if lacking:
            return f"inspect does not say {lacking}: {shown}"
        try:
            return self.compare(row, given)
        except reference.Differs as why:
            return f"served, but {why}"

    def compare(self, row, given):
        folder = reference.Folder(row.place_of(pathlib.Path(given)))
        items = [(row.prompt(folder, item), item) for item in row.items]
        ids = sweep.tokenise(self.tessera, [prompt + item["text"] for prompt, item in items])
        answer = sweep.run_folders(self.program, [given], [item for _, item in items])[0]
        if "items" not in answer:
            return f"refused by one process: {answer}"
        for wanted, got, item in zip(ids, answer["items"], row.items):
            if "error" in got or got["ids"] != wanted:
                return f"{item}: {got.get('error') or 'other tokens'}"
            vector = reference.vector(folder, wanted)
            off = 1 - float(np.dot(got["vector"], vector) / np.linalg.norm(got["vector"]))
            if abs(off) > SERVED_COSINE_ERROR_MAX:
                return f"{item}: the cosine with the reference is 1 - {off:.1e}"
        return ""


def run_row(row, origin, scratch, served, prefix, show):
    scratch = scratch / re.sub(r"[^a-z0-9]+", "-", f"{row.kind} {row.name}".lower())
    place = scratch / "folder"
    place.mkdir(parents=True)
    given = row.make(origin, place)
    given = given if isinstance(given, str) else str(place)
    try:
        if row.served:
            return served.judge(row, given)
        said = refusals(row, given, prefix if row.rights else [], served.bin_dir, scratch)
        if show:
            print(f"{row.name}:\n    " + "\n    ".join(sorted({s for _, s in said.values()})))
        return judge_refused(row, said)
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", place], check=True)


def run_all(rows, served, prefix, show):
    """(row, complaint) of each, two at a time."""
    with tempfile.TemporaryDirectory() as scratch, \
            concurrent.futures.ThreadPoolExecutor(2) as pool:
        origin = pathlib.Path(scratch) / "origin"
        shutil.copytree(sweep.DEMO, origin)
        return list(zip(rows, pool.map(
            lambda row: run_row(row, origin, pathlib.Path(scratch), served, prefix, show), rows)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program_dir")
    parser.add_argument("--only", default="")
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    prefix = rights_prefix()
    rows = [row for row in folder_rows.ROWS if arguments.only in f"{row.kind} {row.name}"]
    skipped = [row for row in rows if row.rights and prefix is None]
    for row in skipped:
        print(f"SKIPPED {row.kind}, {row.name}: permissions do not count for this user")
    done = run_all([row for row in rows if row not in skipped], Served(arguments.program_dir),
                   prefix, arguments.show)
    for row, complaint in done:
        if complaint:
            print(f"FAILED {row.kind}, {row.name}: {complaint}")
    for kind, count in collections.Counter(row.kind for row, _ in done).items():
        print(f"{count:4} {kind}")
    failed = sum(1 for _, complaint in done if complaint)
    print(f"{len(done) - failed} rows passed, {failed} failed, {len(skipped)} skipped")
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
