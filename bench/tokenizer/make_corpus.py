#!/usr/bin/env python3
"""Makes the text that the tokenizer is measured and compared on, out of what a Debian or Ubuntu
machine has installed: documentation, package descriptions, translations, source code.

    make_corpus.py FOLDER [--mb 12]

writes english, chinese, code, languages, markup and logs .jsonl to FOLDER: one JSON string a line,
each about 2,000 characters, the same on each run on the same machine.
"""
import argparse
import bz2
import gzip
import json
import lzma
import pathlib
import random
import re
import struct
import subprocess

TEXT_CHARS = 2000
OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def read(path):
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            return file.read(4_000_000).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError):
        return ""


def files(*patterns):
    found = set()
    for root, pattern in patterns:
        found.update(p for p in pathlib.Path(root).glob(pattern) if p.is_file())
    ordered = sorted(found)
    random.Random(7).shuffle(ordered)
    return ordered


def catalogue(path):
    """The translated strings of a compiled gettext catalogue."""
    data = path.read_bytes()
    if len(data) < 28 or data[:4] != b"\xde\x12\x04\x95":
        return []
    count, _, table = struct.unpack_from("<3I", data, 8)
    strings = []
    for i in range(1, count):  # The first is the header.
        size, start = struct.unpack_from("<2I", data, table + 8 * i)
        try:
            strings.append(data[start:start + size].decode("utf-8").replace("\0", "\n"))
        except UnicodeDecodeError:
            pass
    return strings


def translations(match):
    for path in files(("/usr/share/locale", "*/LC_MESSAGES/*.mo")):
        if match(path.parts[4]):
            yield "\n".join(catalogue(path))


def english():
    prose = files(("/usr/share/info", "*.info*"), ("/usr/share/doc", "**/README*"),
                  ("/usr/share/doc", "**/*.txt*"), ("/usr/share/doc", "**/NEWS*"),
                  ("/usr/share/perl", "**/*.pod"), ("/usr/lib", "**/perl*/**/*.pod"),
                  ("/usr/share/common-licenses", "*"))
    # Half package descriptions, half documentation, so that neither style decides.
    listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=False).stdout
    records = re.findall(r"^Description(?:-en)?: (.*\n(?: .*\n)*)", listing.decode("utf-8"), re.M)
    random.Random(7).shuffle(records)
    descriptions = iter(records)
    for path in prose:
        text = read(path)
        if text and sum(c.isascii() and (c.isalpha() or c == " ") for c in text) > 0.8 * len(text):
            yield text[:200_000]
            yield "".join(record for record, _ in zip(descriptions, range(200)))


def code():
    for path in files(("/usr/include", "**/*.h"), ("/usr/include", "**/*.hpp"),
                      ("/usr/lib/python3", "**/*.py"), ("/usr/share/perl", "**/*.pm"),
                      ("/usr/share/cmake-3.25", "**/*.cmake"), ("/usr/share/nodejs", "**/*.js")):
        yield read(path)


def markup():
    for path in files(("/usr/share/doc", "**/*.html"), ("/usr/share/man", "*/*/*"),
                      ("/usr/share/iso-codes", "**/*.json"), ("/usr/share/i18n", "locales/*"),
                      ("/usr/share/metainfo", "*.xml"), ("/usr/share/mime", "**/*.xml")):
        yield read(path)


def logs():
    for path in files(("/var/log", "**/*"), ("/var/lib/dpkg/info", "*.list"),
                      ("/usr/share/doc", "**/changelog*")):
        yield read(path)


def texts(source, most_bytes):
    """Cuts a source into texts of about TEXT_CHARS characters, at line ends where there are any."""
    written = 0
    for document in source:
        while document and written < most_bytes:
            cut = document.find("\n", TEXT_CHARS)
            cut = cut + 1 if 0 <= cut < 2 * TEXT_CHARS else TEXT_CHARS
            text, document = document[:cut], document[cut:]
            written += len(text.encode("utf-8"))
            yield text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--mb", type=float, default=12)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sources = {"english": english(), "code": code(), "markup": markup(), "logs": logs(),
               "chinese": translations(lambda name: name.startswith("zh")),
               "languages": translations(lambda name: not name.startswith("en"))}
    for name, source in sources.items():
        with open(arguments.folder / f"{name}.jsonl", "w", encoding="utf-8") as out:
            count = size = 0
            for text in texts(source, arguments.mb * 1e6):
                out.write(json.dumps(text, ensure_ascii=False) + "\n")
                count, size = count + 1, size + len(text.encode("utf-8"))
        print(f"{name}: {count} texts, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
