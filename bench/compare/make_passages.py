"""Writes distinct passages for a load test, from the words of the sample corpus and a seed.

    python3 bench/compare/make_passages.py 40000 passages.jsonl [words=170]

Lengths are log-normal around `words` (about 1.45 tokens a word with the Qwen3 tokenizer).
"""

import json
import math
import os
import random
import sys

SAMPLE = os.path.join(os.path.dirname(__file__), "../../deploy/data/sample/packages.jsonl")


def main():
    count, path = int(sys.argv[1]), sys.argv[2]
    mean = int(sys.argv[3]) if len(sys.argv) > 3 else 170
    source = os.environ.get("TESSERA_SAMPLE", SAMPLE)
    with open(source, encoding="utf-8") as file:
        words = [word for line in file for word in json.loads(line)["text"].split()]
    chance = random.Random(1)
    with open(path, "w", encoding="utf-8") as out:
        for number in range(count):
            length = int(min(700, max(10, chance.lognormvariate(math.log(mean) - 0.245, 0.7))))
            first = chance.randrange(len(words) - length)
            text = f"{number} " + " ".join(words[first:first + length])
            print(json.dumps({"id": number, "text": text}), file=out)


if __name__ == "__main__":
    main()
