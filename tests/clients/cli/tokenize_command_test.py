#!/usr/bin/env python3
"""tessera tokenize, as a person and as a script run it.

usage: tokenize_command_test.py PROGRAM_DIR; run from the source root.
"""

import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile

TESSERA = os.path.join(sys.argv[1], "tessera")
DEMO = "deploy/data/demo-model"
END = 16000  # <|endoftext|>, which the demo model's template appends.
TEXT = "The quick brown fox, 中文 and é."


def run(*words, stdin=b"", code=0, model=DEMO):
    done = subprocess.run([TESSERA, "tokenize", "--model", model, *map(os.fsencode, words)],
                          input=stdin, capture_output=True, timeout=60)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout.decode("utf-8"), done.stderr.decode("utf-8")


def ids_of(shown):
    """The ids of the lines `id TAB piece` of one text."""
    return [int(line.split("\t")[0]) for line in shown.splitlines() if "\t" in line]


def pieces_of(shown):
    return [line.split("\t")[1] for line in shown.splitlines() if "\t" in line]


def as_json(*texts, flags=(), code=0):
    lines = "".join(json.dumps(text) + "\n" for text in texts).encode()
    return [json.loads(line) for line in run("--json", *flags, stdin=lines, code=code)[0].splitlines()]


def test_texts_and_files():
    shown, _ = run(TEXT)
    ids = ids_of(shown)
    assert ids[-1] == END and "".join(pieces_of(shown)) == TEXT + "<|endoftext|>", shown
    assert shown.endswith(f"text 1: {len(TEXT.encode())} bytes, {len(ids)} tokens\n"), shown
    assert ids_of(run(TEXT, "--no-template")[0]) == ids[:-1]
    assert ids_of(run(stdin=TEXT.encode())[0]) == ids
    two, _ = run("--count", "a", "b c")
    assert two == "text 1: 1 bytes, 2 tokens\ntext 2: 3 bytes, 3 tokens\n", two
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "text.txt"
        path.write_text(TEXT, encoding="utf-8")
        shown, _ = run("--file", str(path))
        assert ids_of(shown) == ids and f"{path}: " in shown, shown
        assert "cannot read" in run("--file", str(path) + ".none", code=1)[1]


def test_json():
    both = as_json("", TEXT, "line\nbreak", "\u0000")
    assert both[0] == [END] and both[1] == ids_of(run(TEXT)[0]), both
    assert as_json(TEXT, flags=["--no-template"])[0] == both[1][:-1]
    # A line that cannot be served is an answer too, so that lines still correspond.
    bad = run("--json", stdin=b'"a"\nnope\n7\n"b \\ud800"\n"c"\n', code=1)[0].splitlines()
    assert len(bad) == 5 and [("error" in line) for line in bad] == [False, True, True, True, False]
    assert json.loads(bad[1])["error"] == "the line is not a JSON string"


def test_special_tokens():
    text = "a<|endoftext|>b"
    assert as_json(text)[0].count(END) == 2
    plain = as_json(text, flags=["--plain-special"])[0]
    assert plain.count(END) == 1 and plain[-1] == END, plain


def test_invalid_utf8():
    _, message = run(stdin=b"ab\xffz", code=1)
    assert "not valid UTF-8 at byte 2" in message, message
    repaired = ids_of(run("--replace-invalid", stdin=b"ab\xffz")[0])
    assert repaired == ids_of(run("ab\ufffdz")[0])
    # Bytes that are no whole character are shown as \xNN, control characters too.
    shown, _ = run("\U00012345\x01")
    assert "\\x01" in shown and "\\xF0" in shown, shown


def test_files_are_judged_as_submit_judges_them():
    ids = ids_of(run(TEXT)[0])
    encodings = [("utf-8-sig", []), ("utf-16", []), ("utf-32", []), ("utf-16-le", ["--encoding", "utf-16le"]),
                 ("gb18030", ["--encoding", "gb18030"])]
    for encoding, flags in encodings:
        assert ids_of(run(*flags, stdin=TEXT.encode(encoding))[0]) == ids, encoding
    for data, words in [(TEXT.encode("utf-16-le"), "looks like UTF-16LE"),
                        (gzip.compress(b"a"), "compressed by gzip"),
                        ("caf\u00e9".encode("latin-1"), "line 1 is not valid UTF-8 at byte 3")]:
        assert words in run(stdin=data, code=1)[1], words


def test_length():
    text = "a b c d e f"
    ids = ids_of(run(text)[0])
    _, message = run("--max-tokens", "6", text, code=1)
    assert f"the text has {len(ids)} tokens, the limit is 6" in message, message
    right, _ = run("--max-tokens", "4", "--truncate", "right", text)
    left, _ = run("--max-tokens", "4", "--truncate", "left", text)
    assert ids_of(right) == ids[:3] + [END] and ids_of(left) == ids[-4:]
    assert f", {len(ids) - 4} cut" in right and f", {len(ids) - 4} cut" in left
    assert as_json("a", text, flags=["--max-tokens", "3"], code=1)[0] == ids[:1] + [END]


def test_prompt_name():
    prompt = json.loads(pathlib.Path("deploy/data/demo-model/config_sentence_transformers.json")
                        .read_text())["prompts"]["query"]
    assert ids_of(run("--prompt-name", "query", "a")[0]) == ids_of(run(prompt + "a")[0])
    assert ids_of(run("--prompt-name", "document", "a")[0]) == ids_of(run("a")[0])


def test_bad_arguments():
    assert "there is no such folder" in run("a", model="no/such/model", code=1)[1]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tokenizer.json"
        path.write_text("{}")
        assert "tokenizer.json" in run("a", model=folder, code=1)[1]
    assert "it has: document, query" in run("--prompt-name", "title", "a", code=1)[1]
    run("--truncate", "middle", "a", code=2)
    run("--no-such-flag", code=2)


def main():
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    for test in tests:
        test()
    print(f"{len(tests)} passed")


if __name__ == "__main__":
    main()
