#!/usr/bin/env python3
"""Whether the simulator finds faults that are planted in the coordinator's core.

    python3 tests/planted_faults.py [--seeds 1000] [--jobs N] [--only NAME]

Each fault is one change of one file, made in a copy of the tree below build/planted; the core and its
simulator are built there, and every scenario named runs so many seeds. Prints a line a fault: found,
with the seed and what the run said, or not found; ends with 1 if any was not. By hand: takes minutes.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
COPY = ROOT / "build/planted/tree"
CORE = "coordinator/core/"

# Name, file, what stands there, what is planted, and the scenarios that may find it.
FAULTS = [
    ("a stale result is taken", CORE + "scheduling/dispatcher.cpp",
     "  if (result.epoch != epoch_ || found == batches_.end() || found->second.worker != peer ||\n"
     "      found->second.attempt != result.attempt) {\n",
     "  if (found == batches_.end()) {\n",
     "TheCoordinatorIsKilled:*EverythingAtOnce"),
    ("a chunk is acknowledged before it is in the ledger", CORE + "jobs/job_desk.cpp",
     "  owe(job, entry.items_count);\n  ledger::AcceptChunk operation",
     "  owe(job, entry.items_count);\n  actions.push_back(SendClient{\n"
     "      peer, protocol::ChunkAck{.job_id = job.id, .chunk = chunk.chunk}});\n"
     "  ledger::AcceptChunk operation",
     "TheCoordinatorIsKilled"),
    ("a result is sent before it is stored", CORE + "jobs/job_delivery.cpp",
     "  ledger::StoreResult operation = chunk.counts;\n",
     "  ledger::StoreResult operation = chunk.counts;\n"
     "  if (!job.peer.empty()) actions.push_back(SendClient{job.peer, *chunk.result});\n",
     "TheCoordinatorIsKilled"),
    ("a flight ends twice", CORE + "scheduling/dispatcher.cpp",
     "      ended_.push_back({.flight = flight, .embedding = std::move(embedding), .error = {}});\n",
     "      ended_.push_back({.flight = flight, .embedding = embedding, .error = {}});\n"
     "      if (i == 0) ended_.push_back(ended_.back());\n",
     "WorkersAreKilled"),
    ("rows are given in the order of arrival", CORE + "flow/item_flow.cpp",
     "    Outcome& outcome = unit.outcomes[waiter.index];\n    CHECK(!outcome.ended());\n",
     "    Outcome& outcome = *std::ranges::find_if(\n"
     "        unit.outcomes, [](const Outcome& o) { return !o.ended(); });\n",
     "NothingGoesWrong:*WorkersAreKilled"),
]


def run(command, **options):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          **options)


def build(jobs):
    done = run(["cmake", "--build", COPY / "build/cpu", "-j", str(jobs), "--",
                "coordinator_simulation_test"])
    if done.returncode != 0:
        sys.exit(f"error: the copy does not build:\n{done.stdout[-3000:]}")


def make_copy():
    COPY.mkdir(parents=True, exist_ok=True)
    subprocess.run(f"git -C {ROOT} ls-files -z | tar -C {ROOT} --null -T - -c | tar -C {COPY} -x",
                   shell=True, check=True)
    configured = run(["cmake", "--preset", "cpu"], cwd=COPY)
    if configured.returncode != 0:
        sys.exit(f"error: the copy cannot be configured:\n{configured.stdout[-2000:]}")


def find(scenarios, seeds):
    """What the simulator says of it; empty: nothing."""
    done = run([COPY / "build/cpu/tests/coordinator_simulation_test",
                f"--gtest_filter=*{scenarios}"], cwd=COPY,
               env={**os.environ, "TESSERA_SIMULATION_RUNS": str(seeds)})
    if done.returncode == 0:
        return ""
    said = re.search(r"TESSERA_SIMULATION_SEED=.*|.*CHECK failed.*", done.stdout)
    return said[0] if said else f"ended with {done.returncode}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="faults with these words in their names")
    options = parser.parse_args()
    make_copy()
    missed = 0
    for name, path, before, after, scenarios in FAULTS:
        if options.only not in name:
            continue
        file = COPY / path
        sound = file.read_text(encoding="utf-8")
        if sound.count(before) != 1:
            sys.exit(f"error: {path} has changed: the fault \"{name}\" has no place in it")
        file.write_text(sound.replace(before, after), encoding="utf-8")
        build(options.jobs)
        said = find(scenarios, options.seeds)
        file.write_text(sound, encoding="utf-8")
        missed += not said
        print(f"{name}: {'found: ' + said if said else 'NOT FOUND'}", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
