#!/usr/bin/env python3
"""Writes common/tokenizer/unicode_tables.cpp from char_classes.json beside this script.

char_classes.json holds the runs [first, last, class] of code points as the split pattern of
tokenizers 0.23.2 treats them (Unicode 16.0), measured code point by code point: L letter, N number,
S white space, NL carriage return or line feed. With --check nothing is written and the exit code
says whether the file is current.
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parents[2] / "common" / "tokenizer" / "unicode_tables.cpp"
NAMES = {"L": "kL", "N": "kN", "S": "kS", "NL": "kB"}

HEAD = """// Made by tests/data/tokenizer/make_unicode_tables.py; do not edit.
#include "common/tokenizer/unicode_tables.hpp"

namespace tessera::tokenizer {
namespace {

constexpr CharClass kL = CharClass::kLetter;
constexpr CharClass kN = CharClass::kNumber;
constexpr CharClass kS = CharClass::kSpace;
constexpr CharClass kB = CharClass::kLineBreak;

// clang-format off
"""


def rows(entries, width=100):
    line, out = " ", []
    for entry in entries:
        if len(line) + len(entry) + 2 > width:
            out.append(line)
            line = " "
        line += f" {entry},"
    out.append(line)
    return "\n".join(out)


def render():
    runs = json.loads((HERE / "char_classes.json").read_text())
    text = HEAD + "constexpr ClassRun kClassRuns[] = {\n"
    text += rows(f"{{0x{first:X},0x{last:X},{NAMES[name]}}}" for first, last, name in runs)
    text += "\n};\n// clang-format on\n\n}  // namespace\n\n"
    text += "std::span<const ClassRun> class_runs() { return kClassRuns; }\n\n"
    return text + "}  // namespace tessera::tokenizer\n"


def main():
    text = render()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
