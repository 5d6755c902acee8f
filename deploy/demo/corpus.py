#!/usr/bin/env python3
"""Collects Debian's package descriptions and their translations.

usage: corpus.py LISTS OUT.jsonl.gz

LISTS is a folder with apt's Translation files (see README.md). Each line of OUT is one description:
{"key", "name", "lang", "short", "long", "test"}; `key` is equal for all languages of a description.
One package family in twenty is kept for testing, so that no near copy of a test text is trained on.
"""

import collections
import glob
import gzip
import hashlib
import json
import re
import sys

LONG_CHARACTERS_MAX = 2000
LONG_CHARACTERS_MIN = 30
FAMILY_PREFIX = re.compile(
    r"^(lib|python3?-|golang-|node-|r-cran-|r-bioc-|ruby-|librust-|haskell-|ghc-|php-|perl-)")


def stanzas(path):
    """The stanzas of a file in Debian's control format, as dictionaries."""
    fields, name = {}, None
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            line = line.rstrip("\n")
            if not line:
                if fields:
                    yield fields
                fields, name = {}, None
            elif line[0] == " ":
                if name:
                    fields[name] += "\n" + line[1:]
            elif ":" in line:
                name, value = line.split(":", 1)
                fields[name] = value.strip()
    if fields:
        yield fields


def clean(text):
    """A long description with its wrapped lines joined to paragraphs."""
    lines = ("" if line.strip() == "." else line.rstrip() for line in text.split("\n"))
    text = re.sub(r"(?<!\n)\n(?=[^\n \-*])", " ", "\n".join(lines))
    return re.sub(r"\n{2,}", "\n", text).strip()


def family(package):
    """What related packages have in common: libfoo-dev and python3-foo are one family."""
    return re.sub(r"[-+.0-9].*$", "", FAMILY_PREFIX.sub("", package))[:8] or "x"


def is_test(package):
    return int(hashlib.md5(family(package).encode()).hexdigest(), 16) % 20 == 0


def read_descriptions(lists):
    """({key: {language: (short, long)}}, {key: package})."""
    descriptions, names = collections.defaultdict(dict), {}
    for path in sorted(glob.glob(f"{lists}/*_main_i18n_Translation-*")):
        if "security" in path or "updates" in path:
            continue
        language = path.rsplit("Translation-", 1)[1].replace("%5f", "_")
        for stanza in stanzas(path):
            text, key = stanza.get(f"Description-{language}"), stanza.get("Description-md5")
            if not text or not key or (language != "en" and "<trans>" in text):
                continue  # <trans> marks what is not translated yet.
            short, _, long = text.partition("\n")
            descriptions[key][language] = (short.strip(), clean(long))
            names.setdefault(key, stanza.get("Package", ""))
    return descriptions, names


def main():
    lists, out = sys.argv[1:]
    descriptions, names = read_descriptions(lists)
    counts = collections.Counter()
    with gzip.open(out, "wt", encoding="utf-8") as file:
        for key in sorted(descriptions):
            english = descriptions[key].get("en")
            if english is None:
                continue
            for language, (short, long) in sorted(descriptions[key].items()):
                if language != "en" and (short, long) == english:
                    continue  # Copied, not translated.
                row = dict(key=key, name=names[key], lang=language, short=short,
                           long=long[:LONG_CHARACTERS_MAX] if len(long) >= LONG_CHARACTERS_MIN else "",
                           test=int(is_test(names[key])))
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                counts[language] += 1
    print(sum(counts.values()), "descriptions:", dict(counts))


if __name__ == "__main__":
    main()
