"""Whether two builds give the same vectors, bit for bit.

    python3 bench/compare/same_bits.py FORMER NEW --model DIR [--make 4b] [--lengths 1,7,...]

FORMER and NEW are two builds' engine_bench. Both get the same random token ids, all texts packed and
each alone; prints how many vectors differ and exits with 1 if any does. --make writes the model
where the folder does not exist.
"""

import argparse
import array
import pathlib
import random
import subprocess
import sys
import tempfile

LENGTHS = [1, 2, 7, 8, 9, 17, 24, 31, 33, 63, 64, 65, 100, 128, 200, 256, 300, 513, 1000, 2048, 4100]


def write_ids(path, lengths, vocabulary):
    choose = random.Random(7)
    ids = [choose.randrange(vocabulary) for _ in range(sum(lengths))]
    path.write_bytes(array.array("i", [len(lengths), *lengths, *ids]).tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("former")
    parser.add_argument("new")
    parser.add_argument("--model", required=True)
    parser.add_argument("--make")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--vocabulary", type=int, default=150_000)
    arguments = parser.parse_args()
    lengths = [int(length) for length in arguments.lengths.split(",")]
    differing = 0
    with tempfile.TemporaryDirectory() as scratch:
        ids = pathlib.Path(scratch) / "ids"
        write_ids(ids, lengths, arguments.vocabulary)
        for how in ([], ["--alone"]):
            vectors = []
            for which, binary in enumerate((arguments.former, arguments.new)):
                out = pathlib.Path(scratch) / f"vectors-{which}"
                make = ["--make", arguments.make] if arguments.make else []
                subprocess.run([binary, "--model", arguments.model, *make, "--ids", ids,
                                "--vectors", out, *how], check=True, stdout=subprocess.DEVNULL)
                vectors.append(out.read_bytes())
            if len(vectors[0]) != len(vectors[1]) or len(vectors[0]) % len(lengths) != 0:
                sys.exit("error: the two builds wrote vectors of different sizes")
            row = len(vectors[0]) // len(lengths)
            wrong = [length for i, length in enumerate(lengths)
                     if vectors[0][i * row:(i + 1) * row] != vectors[1][i * row:(i + 1) * row]]
            differing += len(wrong)
            print(f"{arguments.model}, {'each alone' if how else 'packed'}: {len(wrong)} of "
                  f"{len(lengths)} vectors differ {wrong or ''}", flush=True)
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
