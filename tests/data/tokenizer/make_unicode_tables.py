#!/usr/bin/env python3
"""Writes the tables in common/tokenizer from the two .json files beside this script.

char_classes.json holds the runs [first, last, class] of code points as the split pattern of
tokenizers 0.23.2 treats them (Unicode 16.0), measured code point by code point: L letter, N number,
S white space, NL carriage return or line feed. nfc_unicode_9.json is make_nfc_data.py's. With --check
nothing is written and the exit code says whether the files are current.
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parents[2] / "common" / "tokenizer" / "text"
NAMES = {"L": "kL", "N": "kN", "S": "kS", "NL": "kB"}

CLASSES_HEAD = """// Made by tests/data/tokenizer/make_unicode_tables.py; do not edit.
#include "common/tokenizer/text/unicode_tables.hpp"

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


NFC_HEAD = """// Made by tests/data/tokenizer/make_unicode_tables.py; do not edit.
#include "common/tokenizer/text/nfc_tables.hpp"

namespace tessera::tokenizer {
namespace {

// clang-format off
"""

FOOT = "\n};\n// clang-format on\n\n}  // namespace\n\n"
END = "}  // namespace tessera::tokenizer\n"


def class_tables():
    runs = json.loads((HERE / "char_classes.json").read_text())
    text = CLASSES_HEAD + "constexpr ClassRun kClassRuns[] = {\n"
    text += rows(f"{{0x{first:X},0x{last:X},{NAMES[name]}}}" for first, last, name in runs)
    text += FOOT + "std::span<const ClassRun> class_runs() { return kClassRuns; }\n\n"
    return text + END


def pairs(data, composed):
    not_composed = set(data["not_composed"])
    entries = sorted((int(key), parts) for key, parts in data["decompositions"].items())
    return rows(f"{{0x{code_point:X},0x{first:X},{f'0x{second:X}' if second else 0}}}"
                for code_point, (first, second) in entries
                if (code_point not in not_composed) == composed)


def nfc_compositions():
    data = json.loads((HERE / "nfc_unicode_9.json").read_text())
    text = NFC_HEAD + "constexpr CombiningRun kCombiningRuns[] = {\n"
    text += rows(f"{{0x{first:X},0x{last:X},{value}}}"
                 for first, last, value in data["combining_classes"])
    text += "\n};\n\nconstexpr Decomposition kCompositions[] = {\n" + pairs(data, True)
    text += FOOT + "std::span<const CombiningRun> combining_runs() { return kCombiningRuns; }\n\n"
    return text + "std::span<const Decomposition> compositions() { return kCompositions; }\n\n" + END


def nfc_replacements():
    data = json.loads((HERE / "nfc_unicode_9.json").read_text())
    text = NFC_HEAD + "constexpr Decomposition kReplacements[] = {\n" + pairs(data, False)
    return text + FOOT + ("std::span<const Decomposition> replacements() { return kReplacements; }"
                          "\n\n") + END


def main():
    current = True
    for name, text in (("unicode_tables.cpp", class_tables()),
                       ("nfc_compositions.cpp", nfc_compositions()),
                       ("nfc_replacements.cpp", nfc_replacements())):
        if "--check" in sys.argv[1:]:
            current = current and (TARGET / name).read_text() == text
        else:
            (TARGET / name).write_text(text)
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
