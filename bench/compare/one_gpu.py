"""The table of one GPU: engine_bench beside its peers and its limit, all models, one call.

    python3 bench/compare/one_gpu.py BENCH_BINARY [--models 4b,0.6b,8b] [--folders /dev/shm]
                                     [--out results.txt] [--rounds 3]

For each model makes a folder of random weights where there is none, runs engine_bench --compare on
it, and at the end prints one table. What engine_bench prints is written to --out as it comes, so that
a run that is cut off leaves what it measured.
"""

import argparse
import os
import re
import subprocess
import sys

PLAN = {"4b": "query,passage,doc2k,long8k,long32k", "0.6b": "passage", "8b": "passage"}
BATCH = 32768  # tokens at most, as a worker takes it
ROW = re.compile(r"^table +(\w+)" + r" +([\d.]+|nan)" * 5 + "$")


def run(command, out):
    """The rows of the program's table; everything it prints goes on, and to the file."""
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout:
            print(line, end="", flush=True)
            out.write(line)
            out.flush()
            found = ROW.match(line)
            if found:
                rows.append((found[1], *(float(value) for value in found.groups()[1:])))
    if program.returncode != 0:
        print(f"{command[0]} ended with {program.returncode}", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--models", default=",".join(PLAN))
    parser.add_argument("--folders", default="/dev/shm")
    parser.add_argument("--out", default=os.devnull)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    with open(options.out, "w", encoding="utf-8") as out:
        for model in options.models.split(","):
            command = [options.binary, "--make", model, "--model",
                       os.path.join(options.folders, model), "--max-batch-tokens", str(BATCH),
                       "--workloads", PLAN[model], "--compare", "--rounds",
                       str(options.rounds)]
            rows += [(model, *row) for row in run(command, out)]
    print("| tokens/s | transformers | packed | ours | limit | ours/transformers | ours/packed "
          "| ours/limit | ours/limit of a burst |\n|---|---|---|---|---|---|---|---|---|")
    for model, name, ours, limit, burst, plain, packed in rows:
        print(f"| {model.upper()} {name} | {plain:,.0f} | {packed:,.0f} | {ours:,.0f} | {limit:,.0f} "
              f"| {ours / plain:.2f} | {ours / packed:.2f} | {ours / limit:.2f} "
              f"| {ours / burst:.2f} |")
    sys.exit(0 if rows else 1)


if __name__ == "__main__":
    main()
