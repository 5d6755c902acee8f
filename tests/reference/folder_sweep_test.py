#!/usr/bin/env python3
"""Every key of a model folder's files changed one at a time, held against the float64 reference.

usage: folder_sweep_test.py PROGRAM_DIR [--only TEXT] [--keep DIR] [--all], from the source root.

Each case is the demo model with one change (sweep_cases.py). It has to end in one of three ways:
the change decides nothing and the vectors are the plain ones; the vectors are what the reference
computes of the changed folder; or coordinator and worker refuse it with one sentence that names the
file and the key. Vectors that are neither, a folder of which only one process knows that it cannot
be served, a refusal that names something else, and one of what every server takes are failures.

--only runs the cases whose file and key hold TEXT, --keep leaves the folders and an index in DIR
for check_reference.py, --all prints every case.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# numpy's threads would only take the cores from the folders that run beside.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402

import qwen3_reference as reference  # noqa: E402
import sentence_cases  # noqa: E402
import sweep_cases  # noqa: E402

DEMO = pathlib.Path("deploy/data/demo-model")
LINKED = ["model.safetensors", "tokenizer.json", "config.json", "modules.json",
          "config_sentence_transformers.json", "1_Pooling/config.json"]
# Capitals, added tokens and Unicode, so that a tokenizer that reads them otherwise is seen; and one
# text for the limits, which is cut where it is too long.
SHORT = "Find <|im_end|> duplicate FILES \u00fcber \u65e5\u672c\u8a9e"
LONG = "An editor for the command line that opens files of any size, " * 4 + "and closes them"
ITEMS = [("document", {"text": SHORT}), ("query", {"text": SHORT, "query": True}),
         ("named", {"text": SHORT, "prompt_name": "document"}),
         ("long", {"text": LONG, "truncate": True, "prompt_name": "document"})]
# A float32 encoder is off by some 1e-13 in the cosine; changes of a key by 1e-9 and more.
COSINE_ERROR_MAX = 1e-11
SENTENCE_MAX = 600


class Outcome:
    """One case: what it was, how it ended, and the complaint if that is a failure."""

    def __init__(self, case):
        self.case = case
        self.kind = ""
        self.detail = ""
        self.complaint = ""


def all_cases():
    def read(name):
        return json.loads((DEMO / name).read_text(encoding="utf-8"))

    modules = read("modules.json")
    yield sweep_cases.Case("", "", "plain", {}, True)
    yield from sweep_cases.config_cases(read("config.json"))
    yield from sweep_cases.tokenizer_cases(read("tokenizer.json"))
    yield from sentence_cases.modules_cases(modules, read("config.json"))
    yield from sentence_cases.pooling_cases()
    yield from sentence_cases.dense_cases(modules)
    yield from sentence_cases.sentence_cases(read("config_sentence_transformers.json"))
    yield from sentence_cases.bert_cases()


# --- folders and processes -----------------------------------------------------------------------

def make_folder(case, origin, place):
    """`origin` by hard links, with the case's files in place of its own."""
    for name in LINKED:
        if name not in case.files:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(origin / name, place / name)
    for name, text in case.files.items():
        if text is not None:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def run_folders(program, folders, items):
    """The program's answers for the folders, in their order."""
    text = "".join(json.dumps({"dir": str(f), "items": items}) + "\n" for f in folders)
    done = subprocess.run([program], input=text, capture_output=True, text=True, timeout=600)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or len(answers) != len(folders):
        where = folders[len(answers)] if len(answers) < len(folders) else "?"
        sys.exit(f"folder_vectors ended with {done.returncode} at {where}: "
                 f"{done.stderr[-2000:]}")
    return answers


def run_all(program, folders, items):
    """Two processes share the folders, for two cores."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        parts = pool.map(lambda part: run_folders(program, part, items),
                         (folders[0::2], folders[1::2]))
        even, odd = parts
    answers = [None] * len(folders)
    answers[0::2], answers[1::2] = even, odd
    return answers


def tokenise(tessera, texts):
    """Token ids by the demo model's tokenizer.json, whose ids no other file may change."""
    done = subprocess.run([tessera, "tokenize", "--json", "--model", str(DEMO)], text=True,
                          input="".join(json.dumps(t) + "\n" for t in texts), check=True,
                          capture_output=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- the reference -------------------------------------------------------------------------------

def read_folder(place):
    """A Folder, or the sentence with which the reference declines it."""
    try:
        return reference.Folder(place), ""
    except reference.Differs as why:
        return None, str(why)


def prompt_of(folder, role):
    return folder.prompts["query" if role == "query" else "document"]


def is_ambiguous(folder):
    """Whether sentence-transformers' encode and encode_document would give a text other prompts, or
    a folder names its document prompt in a way that encode_document does not look for."""
    document = folder.prompts["document"]
    if folder.default_prompt_name:
        return folder.prompts[folder.default_prompt_name] != document
    return not document and any(folder.prompts.get(name) for name in ("passage", "corpus"))


class Reference:
    """Vectors of folders; what is the same in many folders is computed once."""

    def __init__(self, tessera, folders):
        texts = sorted({prompt_of(f, role) + item["text"] for f in folders if f
                        for role, item in ITEMS})
        self.ids = dict(zip(texts, tokenise(tessera, texts)))
        self.states = {}

    def vector(self, folder, role, item):
        ids = self.ids[prompt_of(folder, role) + item["text"]]
        if len(ids) > folder.max_seqlen:
            if not item.get("truncate"):
                return ids, None
            ids = ids[:folder.max_seqlen - 1] + ids[-1:]
        c = folder.config
        key = (tuple(ids), c.rope_theta, c.rms_norm_eps, c.num_hidden_layers, c.head_dim,
               c.num_attention_heads, c.num_key_value_heads, c.hidden_size, c.vocab_size,
               c.intermediate_size)
        if key not in self.states:
            self.states[key] = reference.last_state(folder, ids)
        return ids, reference.finish(folder, self.states[key])


# --- the verdict ---------------------------------------------------------------------------------

def compare(folder, answer, expected):
    """"" where the answers are the reference's, or what differs."""
    if answer["max_seqlen"] != folder.max_seqlen:
        return f"the limit is {answer['max_seqlen']}, the reference has {folder.max_seqlen}"
    for (role, item), got, (ids, vector) in zip(ITEMS, answer["items"], expected):
        if vector is None:
            if "error" not in got:
                return f"{role}: {len(ids)} tokens are over the limit of {folder.max_seqlen}"
            continue
        if role == "document" and is_ambiguous(folder):
            if "prompt_name" not in got.get("error", ""):
                return "which prompt a plain text gets is open, but it was embedded"
            continue
        if "error" in got:
            return f"{role}: {got['error']}"
        if got["ids"] != ids:
            return f"{role}: other tokens"
        if len(got["vector"]) != len(vector):
            return f"{role}: {len(got['vector'])} dimensions, the reference has {len(vector)}"
        off = 1 - float(np.dot(got["vector"], vector) / np.linalg.norm(got["vector"]))
        if abs(off) > COSINE_ERROR_MAX:
            return f"{role}: the cosine with the reference is 1 - {off:.1e}"
    return ""


def is_about_weights(sentence):
    """Weights are the workers' matter; a coordinator does not look at them."""
    return re.search(r"weights: |model\.safetensors: ", sentence) is not None


def names(sentence, case):
    """Whether the refusal says which file and which key, or what of the weights does not fit it."""
    if case.key.endswith(".path") and re.search(r"[\w/]+/config\.json ?", sentence):
        return True  # It names the file to which the path leads.
    if is_about_weights(sentence):
        return "config.json" in sentence or "linear." in sentence or "Dense" in case.file
    if os.path.basename(case.file) not in sentence:
        return False
    words = [w for w in re.split(r"[.|]", case.key) if w and not w.isdigit()]
    return not words or any(w in sentence for w in words)


def judge_refusal(outcome, answer):
    case, said = outcome.case, [answer["coordinator"], answer["worker"]]
    sentence = said[0] or said[1]
    outcome.kind, outcome.detail = "refused", sentence
    if None in said and not (said[0] is None and is_about_weights(sentence)):
        outcome.complaint = "only one of coordinator and worker refuses it"
    elif case.loads:
        outcome.complaint = "refused, though every server takes it"
    elif "\n" in sentence or len(sentence) > SENTENCE_MAX:
        outcome.complaint = "the refusal is more than a sentence"
    elif not names(sentence, case):
        outcome.complaint = "the refusal does not name file and key"


def judge(case, answer, folder, declined, known, plain):
    outcome = Outcome(case)
    if "worker" in answer:
        judge_refusal(outcome, answer)
        return outcome
    same = [got.get("vector") for got in answer["items"]] == plain
    outcome.kind = "nothing" if same else "as the reference"
    if folder is None:
        outcome.complaint = "served, but " + declined
        return outcome
    try:
        expected = [known.vector(folder, role, item) for role, item in ITEMS]
    except reference.Differs as why:
        outcome.complaint = f"served, but {why}"
        return outcome
    outcome.complaint = compare(folder, answer, expected)
    return outcome


def report(outcomes, print_all):
    counts = collections.defaultdict(collections.Counter)
    keys = collections.defaultdict(lambda: collections.defaultdict(set))
    for o in outcomes:
        kind = "FAILED" if o.complaint else o.kind
        counts[o.case.file][kind] += 1
        keys[o.case.file][kind].add(o.case.key)
        if o.complaint or print_all:
            print(f"{kind}: {o.case.file} {o.case.key} = {o.case.what[:120]}: "
                  f"{o.complaint or ''} [{o.detail}]")
    kinds = ["nothing", "as the reference", "refused", "FAILED"]
    print(f"\n{'file':<36}" + "".join(f"{k + ': cases, keys':>34}" for k in kinds))
    for file in [*counts]:
        print(f"{file or '(plain)':<36}" + "".join(
            f"{counts[file][k]:>28}{len(keys[file][k]):>6}" for k in kinds))
    total = collections.Counter("FAILED" if o.complaint else o.kind for o in outcomes)
    print(f"{len(outcomes)} cases: {total['nothing']} decide nothing, "
          f"{total['as the reference']} give what the reference computes, "
          f"{total['refused']} are refused, {total['FAILED']} failed")
    return total["FAILED"]


def sweep(arguments, scratch):
    tessera = os.path.join(arguments.program_dir, "tessera")
    program = os.path.join(arguments.program_dir, "../tests/folder_vectors")
    origin = scratch / "origin"
    shutil.copytree(DEMO, origin)
    cases = [c for c in all_cases()
             if not c.file or arguments.only in f"{c.file} {c.key} {c.what}"]
    places = [scratch / f"{i:04d}" for i in range(len(cases))]
    for case, place in zip(cases, places):
        make_folder(case, origin, place)
    if arguments.keep:
        (scratch / "index.json").write_text(json.dumps(
            [{"dir": str(p), "file": c.file, "key": c.key, "what": c.what}
             for c, p in zip(cases, places)]))
    answers = run_all(program, places, [item for _, item in ITEMS])
    folders = [read_folder(place) for place in places]
    known = Reference(tessera, [f for f, _ in folders])
    plain = [got["vector"] for got in answers[0]["items"]]
    return report([judge(*row, known, plain) for row in
                   zip(cases, answers, *zip(*folders))], arguments.all)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program_dir")
    parser.add_argument("--only", default="")
    parser.add_argument("--keep")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    if arguments.keep:
        pathlib.Path(arguments.keep).mkdir(parents=True)
        return min(1, sweep(arguments, pathlib.Path(arguments.keep).resolve()))
    with tempfile.TemporaryDirectory() as scratch:
        return min(1, sweep(arguments, pathlib.Path(scratch)))


if __name__ == "__main__":
    sys.exit(main())
