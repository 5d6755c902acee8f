#!/usr/bin/env python3
"""tessera submit before it needs a cluster: what is said of files, --dry-run, what is refused.

usage: submit_command_test.py PROGRAM_DIR; run from the source root.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

TESSERA = os.path.abspath(os.path.join(sys.argv[1], "tessera"))
DEMO = os.path.abspath("deploy/data/demo-model")
NOBODY = 65534


def run(*words, stdin=b"", code=0, **popen):
    done = subprocess.run([TESSERA, "submit", *map(str, words)], input=stdin, capture_output=True,
                          timeout=60, **popen)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout.decode("utf-8"), done.stderr.decode("utf-8")


def dry(*words, **keys):
    printed, said = run(*words, "--dry-run", **keys)
    return [json.loads(line) for line in printed.splitlines()], said


def test_what_is_found_is_said(folder):
    path = folder / "in.csv"
    path.write_text("id,title,body\n" + "".join(f"{i},t,text {i}\n" for i in range(20)))
    items, said = dry(path, "--field", "body")
    assert f'{path}: 3 columns: "id", "title", "body"; embedding "body"; ids from "id"\n' in said
    assert len(items) == 5
    assert items[1] == {"id": "1", "file": str(path), "line": 3, "text": "text 1"}
    assert len(dry(path, "--field", "body", "--dry-run-items", "99")[0]) == 20
    assert not list(folder.glob("out*"))


def test_prompts_are_shown(folder):
    prompts = json.loads((pathlib.Path(DEMO) / "config_sentence_transformers.json").read_text())
    query = prompts["prompts"]["query"]
    for flags, text in [((), "x"), (("--query",), query + "x"), (("--prompt-name", "query"), query + "x"),
                        (("--instruction", "Find it"), "Instruct: Find it\nQuery:x")]:
        items, said = dry("-", *flags, "--model-dir", DEMO, stdin=b"x\n")
        assert items[0]["text"] == text and "goes before" not in said
    items, said = dry("-", "--query", stdin=b"x\n")
    assert items[0]["text"] == "x" and 'the model\'s prompt "query"' in said
    assert "has no prompt" in run("-", "--dry-run", "--prompt-name", "no", "--model-dir", DEMO,
                                  stdin=b"x\n", code=1)[1]


def test_options_reach_the_reader(folder):
    items, _ = dry("-", "--input-format", "csv", "--delimiter", ";", "--quote", "'", "--no-header",
                   "--field", "2", "--id-field", "1", "--encoding", "latin1",
                   stdin="7;'caf\u00e9;x'\n".encode("latin-1"))
    assert items == [{"id": "7", "file": "-", "line": 1, "text": "caf\u00e9;x"}]
    items, _ = dry("-", "--input-format", "tsv", "--quote", "none", "--delimiter", "tab", "--no-ids",
                   stdin=b'id\ttext\n1\t"a\n')
    assert items[0]["id"] == "0" and items[0]["text"] == '"a'
    for flags in (["--delimiter", "::"], ["--quote", "ab"], ["--input-format", "xml"],
                  ["--id-field", "a", "--no-ids"], []):
        run("-", *flags, stdin=b"x\n", code=2)  # The last one has neither --out nor --dry-run.


def test_a_refusal_leaves_nothing(folder):
    out = folder / "out"
    cases = {"a.csv": ("id;text\n1;x\n", "--delimiter ';'"), "b.txt": ('{"text": "x"}\n', "jsonl"),
             "c.json": ('[{"text": "x"}]', "array"), "d.csv": ("alpha\nbeta\n", "--no-header")}
    for name, (content, words) in cases.items():
        (folder / name).write_text(content)
        assert words in run(folder / name, "--out", out, code=1)[1]
        assert not out.exists()
    # Nor one that finds no cluster.
    (folder / "good.txt").write_text("x\n")
    said = run(folder / "good.txt", "--out", out, "--connect-s", "0.05", "--coordinator",
               "tcp://127.0.0.1:1", code=1)[1]
    assert "start a cluster" in said and not out.exists()


def test_a_folder_without_permission_says_so(folder):
    if os.geteuid() != 0:
        return
    out = folder / "closed"
    out.mkdir(mode=0o755)
    folder.chmod(0o755)
    (folder / "in.txt").write_text("x\n")
    for path in (out, out / "new"):
        said = run(folder / "in.txt", "--out", path, code=1, user=NOBODY)[1]
        assert f"cannot write into {out}: Permission denied" in said, said
    assert not list(out.iterdir())


def main():
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    for test in tests:
        with tempfile.TemporaryDirectory() as folder:
            test(pathlib.Path(folder))
    print(f"{len(tests)} passed")


if __name__ == "__main__":
    main()
