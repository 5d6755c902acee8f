"""The table of one GPU: engine_bench beside its peers and its limit, all models, one call.

    python3 bench/compare/one_gpu.py BENCH_BINARY [--models 4b,0.6b,8b] [--folders /dev/shm]
                                     [--out results.txt] [--seconds 10]

For each model makes a folder of random weights where there is none, runs engine_bench --compare on
it, and at the end prints one table. What engine_bench prints is written to --out as it comes, so that
a run that is cut off leaves what it measured.
"""

import argparse
import os
import re
import subprocess
import sys

# The model's workloads and its largest batch.
PLAN = {
    "4b": ("query,passage,doc2k,long8k,long32k", 32768),
    "0.6b": ("passage", 16384),
    "8b": ("passage", 16384),
}
ROW = re.compile(r"^table +(\w+) +([\d.]+) +([\d.]+|nan) +([\d.]+|nan) +([\d.]+|nan)$")


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
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    rows = []
    with open(options.out, "w", encoding="utf-8") as out:
        for model in options.models.split(","):
            workloads, batch = PLAN[model]
            command = [options.binary, "--make", model, "--model",
                       os.path.join(options.folders, model), "--max-batch-tokens", str(batch),
                       "--workloads", workloads, "--compare", "--peer-seconds",
                       str(options.seconds)]
            rows += [(model, *row) for row in run(command, out)]
    print("| tokens/s | transformers | packed | ours | limit | ours/transformers | ours/packed "
          "| ours/limit |\n|---|---|---|---|---|---|---|---|")
    for model, name, ours, limit, plain, packed in rows:
        print(f"| {model.upper()} {name} | {plain:,.0f} | {packed:,.0f} | {ours:,.0f} | {limit:,.0f} "
              f"| {ours / plain:.2f} | {ours / packed:.2f} | {ours / limit:.2f} |")
    sys.exit(0 if rows else 1)


if __name__ == "__main__":
    main()
