"""Two builds of one benchmark in turns, and their medians beside each other.

    python3 bench/compare/in_turns.py FORMER NEW [--rounds 6] -- ARGUMENTS OF BOTH

FORMER and NEW are folders with the same programs, ARGUMENTS begin with the program's name:
`in_turns.py /old/bin build/release/bin -- engine_bench --model m4 --workloads query --no-limit`.
Known are engine_bench, attention_bench and tp_bench. Prints a line a figure: both medians, the ratio
of the new one to the former (above 1: faster), and each one's spread.
"""

import argparse
import collections
import pathlib
import re
import statistics
import subprocess
import sys

# What a figure is called, its value, and whether more is better.
FIGURES = {
    "engine_bench": [
        (re.compile(r"^(\w+)\s+\d+ batches\s+([\d.]+) tok/s"), True),
        (re.compile(r"^(one text of\s+\d+ tokens): median ([\d.]+) ms"), False),
    ],
    "attention_bench": [(re.compile(r"^(.{20}) error \S+\s+([\d.]+) us"), False)],
    "tp_bench": [(re.compile(r"^  (.{10})\s+([\d.]+) ms "), False)],
}


def figures_of(program, output):
    heading = ""
    for line in output.splitlines():
        for pattern, more_is_better in FIGURES[program]:
            found = pattern.match(line)
            if found:
                name = (heading + " " + found[1]).strip()
                yield re.sub(r"\s+", " ", name), float(found[2]), more_is_better
        if program == "tp_bench" and line and not line.startswith(" "):
            heading = line.split(":")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("former", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=6)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:split])
    if split + 1 >= len(sys.argv):
        parser.error("no program behind --")
    program, *rest = sys.argv[split + 1:]
    values = {"former": collections.defaultdict(list), "new": collections.defaultdict(list)}
    better = {}
    for turn in range(arguments.rounds):
        order = ["former", "new"] if turn % 2 == 0 else ["new", "former"]
        for which in order:
            folder = getattr(arguments, which)
            output = subprocess.run([folder / program, *rest], check=True, text=True,
                                    stdout=subprocess.PIPE).stdout
            for name, value, more in figures_of(program, output):
                values[which][name].append(value)
                better[name] = more
    for name, more in better.items():
        former, new = values["former"][name], values["new"][name]
        if not former or not new:
            continue
        a, b = statistics.median(former), statistics.median(new)
        ratio = b / a if more else a / b
        print(f"{name:40} former {a:10.3f} ({min(former):.3f}..{max(former):.3f})  "
              f"new {b:10.3f} ({min(new):.3f}..{max(new):.3f})  ratio {ratio:.4f}", flush=True)


if __name__ == "__main__":
    main()
