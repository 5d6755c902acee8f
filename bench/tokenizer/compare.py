#!/usr/bin/env python3
"""The tokenizer beside its peers, one after the other in the same run, on the same texts.

    compare.py TOKENIZER_BENCH TOKENIZER_JSON FILE.jsonl... [--npm FOLDER] [--bpe PROGRAM]

--npm is a folder where `npm install tokenizers@0.23.2` has run (tests/oracle is one): the reference,
called from node. --bpe is peers/bpe_crate, built with `cargo build --release`: GitHub's bpe crate,
which only merges and is given normalised and split pieces, before its clock starts. Prints MB/s and
million tokens/s of each and how many times faster the tokenizer is, warm; the adversarial texts
follow for those that can take them. A peer that is not given is left out.
"""
import argparse
import pathlib
import re
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
OURS = re.compile(r"(\S+)\.jsonl\s+\S+ MB\s+(\S+) cold\s+(\S+) warm MB/s\s+(\S+) Mtok/s")
ADVERSARIAL = re.compile(r"(.{26})\s*(\S+)\s+(\S+)\s+(\S+)   x")


def output_of(command, folder=None):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def run_ours(arguments, pieces):
    """By name: MB/s cold and warm, million tokens/s warm; the adversarial texts' are first and again."""
    text = output_of([arguments.bench, arguments.tokenizer, *arguments.files, "--threads", "0",
                      "--rounds", "3", "--adversarial", "--pieces", pieces])
    rows = {name: (float(cold), float(warm), float(tokens))
            for name, cold, warm, tokens in OURS.findall(text)}
    for name, first, again, tokens in ADVERSARIAL.findall(text):
        rows[name.strip().replace(" ", "_")] = (float(first), float(again), float(tokens))
    return rows


def run_peer(command, folder=None):
    """By name: MB/s and million tokens/s."""
    lines = (line.split() for line in output_of(command, folder).splitlines())
    return {words[0]: (float(words[1]), float(words[2])) for words in lines}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("tokenizer")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--npm")
    parser.add_argument("--bpe")
    arguments = parser.parse_args()
    full = [str(pathlib.Path(name).resolve()) for name in arguments.files]
    peers = {}
    with tempfile.TemporaryDirectory() as pieces:
        ours = run_ours(arguments, pieces)
        if arguments.bpe:
            peers["bpe crate"] = run_peer([arguments.bpe, pieces, *ours])
    if arguments.npm:
        tokenizer = str(pathlib.Path(arguments.tokenizer).resolve())
        peers["npm tokenizers"] = run_peer(["node", HERE / "peers/reference.mjs", tokenizer, *full],
                                           arguments.npm)
    heads = "".join(f"{name + ', MB/s, Mtok/s, ratio':>44}" for name in peers)
    print(f"{'':<24} {'cold MB/s':>10} {'warm MB/s':>10} {'Mtok/s':>8}{heads}")
    for name, (cold, warm, tokens) in ours.items():
        cells = "".join(
            f"{peer[name][0]:>26.1f} {peer[name][1]:>8.2f} {warm / peer[name][0]:>7.1f} x"
            if name in peer else f"{'':>44}" for peer in peers.values())
        print(f"{name:<24} {cold:>10.1f} {warm:>10.1f} {tokens:>8.1f}{cells}")


if __name__ == "__main__":
    main()
