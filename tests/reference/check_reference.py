#!/usr/bin/env python3
"""Holds the float64 reference against the libraries that it speaks for. Run by hand, not by CI: it
needs torch, transformers and sentence-transformers, in a virtual environment.

usage: folder_sweep_test.py PROGRAM_DIR --keep CASES; check_reference.py PROGRAM_DIR CASES [TEXT]

For every kept case (whose file and key hold TEXT) the library loads the folder in float32 and
embeds the sweep's texts. Printed and counted are: vectors of the reference that are not the
library's, which is the failure; folders that only the library refuses, and whether those that only
the reference declines have the plain vectors in the library.
"""

import collections
import json
import logging
import os
import pathlib
import resource
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import numpy as np  # noqa: E402
import sentence_transformers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

import folder_sweep_test as sweep  # noqa: E402
import qwen3_reference as reference  # noqa: E402

NEW = int(transformers.__version__.split(".")[0]) >= 5
MEMORY_MAX = 5 << 30  # The library makes what a folder lacks, however large.
COSINE_ERROR_MAX = 1e-9  # torch sums in float32 in other orders than the engine


def library_vectors(directory):
    """(role, vector) of the sweep's items, and the library's limit."""
    model = sentence_transformers.SentenceTransformer(
        directory, device="cpu", local_files_only=True,
        model_kwargs={"dtype" if NEW else "torch_dtype": torch.float32})

    def embed(role, item):
        if role == "query":
            return model.encode_query(item["text"])
        if "prompt_name" in item:
            return model.encode(item["text"], prompt_name=item["prompt_name"])
        return model.encode_document(item["text"])

    vectors = {role: np.asarray(embed(role, item), np.float64) for role, item in sweep.ITEMS}
    return vectors, model.max_seq_length


def library_answer(directory):
    try:
        return *library_vectors(directory), ""
    except (Exception, SystemExit) as error:  # whatever the library says of it
        return None, None, f"{type(error).__name__}: {error}".replace("\n", " ")[:200]


def distance(a, b):
    if a.shape != b.shape:
        return 2.0
    return 1 - float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def reference_vectors(known, folder, limit):
    """The items' vectors; without those that the two would cut at different lengths."""
    found = {}
    for role, item in sweep.ITEMS:
        ids, vector = known.vector(folder, role, item)
        whole = known.ids[sweep.prompt_of(folder, role) + item["text"]]
        if vector is not None and (len(whole) <= folder.max_seqlen or limit == folder.max_seqlen):
            found[role] = vector
    return found


def verdict(known, entry, plain):
    vectors, limit, error = library_answer(entry["dir"])
    folder, declined = sweep.read_folder(entry["dir"])
    if folder:
        try:
            mine = reference_vectors(known, folder, limit)
        except reference.Differs as why:
            folder, declined = None, str(why)
    if vectors is None:
        return ("both decline", error) if folder is None else ("only the library refuses", error)
    if folder is None:
        same = plain and all(distance(plain[r], vectors[r]) < COSINE_ERROR_MAX for r in plain)
        return ("declined, plain in the library" if same else "declined, other in the library",
                declined)
    off = {role: distance(vector, vectors[role]) for role, vector in mine.items()}
    if max(off.values(), default=0) > COSINE_ERROR_MAX:
        # Without that list the library reads no prompts; the reference does (folder_reading.py).
        listed = (folder.path / "modules.json").exists()
        return "MISMATCH" if listed else "other, for want of modules.json", str(off)
    return "equal", ""


def main():
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX, MEMORY_MAX))
    program_dir, kept, text = (*sys.argv[1:], "")[:3]
    entries = json.loads((pathlib.Path(kept) / "index.json").read_text())
    entries = [e for e in entries if not e["file"] or text in f"{e['file']} {e['key']} {e['what']}"]
    folders = [sweep.read_folder(e["dir"])[0] for e in entries]
    known = sweep.Reference(os.path.join(program_dir, "tessera"), folders)
    plain, counts = library_vectors(entries[0]["dir"])[0], collections.Counter()
    for entry in entries:
        kind, detail = verdict(known, entry, plain)
        counts[kind] += 1
        if kind != "equal":
            print(f"{kind}: {entry['file']} {entry['key']} = {entry['what'][:120]}: {detail}",
                  flush=True)
    print(f"transformers {transformers.__version__}, sentence-transformers "
          f"{sentence_transformers.__version__}:", dict(counts))
    return min(1, counts["MISMATCH"])


if __name__ == "__main__":
    sys.exit(main())
