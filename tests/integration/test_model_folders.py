"""Prompts by name, Dense modules and a hub's cache, from the folder to the command's answer."""

import json
import shutil
import struct
import subprocess

import numpy as np
import pytest

from cluster import BIN, MODEL, Cluster

PROMPTS = {"query": "Question: ", "document": "Passage: ", "cluster": "Group this: "}


def copy_model(to):
    """A copy to change; the large files are links."""
    to.mkdir(parents=True)
    for name in ("model.safetensors", "tokenizer.json"):
        (to / name).symlink_to(MODEL / name)
    for name in ("config.json", "modules.json", "config_sentence_transformers.json"):
        shutil.copy(MODEL / name, to / name)
    shutil.copytree(MODEL / "1_Pooling", to / "1_Pooling")
    return to


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def add_dense(folder, weight):
    """Transformer, Pooling, Dense, Normalize."""
    edit(folder / "modules.json", lambda modules: modules.insert(2, {
        "idx": 2, "name": "dense", "path": "2_Dense",
        "type": "sentence_transformers.models.Dense"}))
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense/config.json").write_text(json.dumps({
        "in_features": 256, "out_features": len(weight), "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity"}))
    header = json.dumps({"linear.weight": {
        "dtype": "F32", "shape": list(weight.shape), "data_offsets": [0, weight.nbytes]}}).encode()
    (folder / "2_Dense/model.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header + weight.tobytes())


WEIGHT = np.random.default_rng(5).standard_normal((64, 256)).astype("<f4")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    prompted = copy_model(root / "prompted")
    edit(prompted / "config_sentence_transformers.json",
         lambda settings: settings.update(prompts=PROMPTS))
    open_question = copy_model(root / "open")
    edit(open_question / "config_sentence_transformers.json",
         lambda settings: settings.update(prompts=PROMPTS, default_prompt_name="cluster"))
    dense = copy_model(root / "models--test--dense/snapshots/abc")
    (root / "models--test--dense/refs").mkdir()
    (root / "models--test--dense/refs/main").write_text("abc")
    add_dense(dense, WEIGHT)
    edit(dense / "config_sentence_transformers.json",
         lambda settings: settings.update(truncate_dim=48))
    folders = [MODEL, prompted, open_question, root / "models--test--dense"]
    with Cluster(models=folders) as cluster:
        for worker in [cluster.add_worker(wait=False, model=folder) for folder in folders]:
            cluster.wait_for_worker(worker)
        cluster.root = root
        yield cluster


def vector(cluster, model, text, *options):
    answer = json.loads(cluster.tessera("embed", "--model", model, text, *options))
    return np.array(answer["items"][0]["vector"])


def refusal(cluster, *words):
    done = subprocess.run(cluster.command(*words), capture_output=True, timeout=300)
    assert done.returncode in (1, 2), done
    return (done.stderr + done.stdout).decode()


def test_prompts_go_before_texts_by_name(cluster):
    plain = {name: vector(cluster, "demo-model", prompt + "edit photos")
             for name, prompt in PROMPTS.items()}
    for name in PROMPTS:
        assert np.array_equal(vector(cluster, "prompted", "edit photos", "--prompt-name", name),
                              plain[name])
    assert np.array_equal(vector(cluster, "prompted", "edit photos"), plain["document"])
    assert np.array_equal(vector(cluster, "prompted", "edit photos", "--query"), plain["query"])
    models = {m["name"]: m for m in cluster.status()["models"]}
    assert models["prompted"]["prompt_names"] == sorted(PROMPTS)


def test_prompts_that_there_are_not_and_contradictions_are_refused(cluster):
    asked = ("embed", "--model", "prompted", "x", "--prompt-name")
    assert "it has: cluster, document, query" in refusal(cluster, *asked, "title")
    assert "excludes" in refusal(cluster, *asked, "query", "--query")
    assert "excludes" in refusal(cluster, *asked, "query", "--instruction", "Find it")
    # Whether plain texts get the default prompt is not known.
    said = refusal(cluster, "embed", "--model", "open", "x")
    assert 'prompt_name "cluster"' in said and "plain texts" in said
    assert np.array_equal(vector(cluster, "open", "x", "--prompt-name", "document"),
                          vector(cluster, "prompted", "x"))


def test_a_jobs_folder_keeps_its_prompt(cluster, tmp_path):
    (tmp_path / "in.txt").write_text("edit photos\n")
    words = ("submit", tmp_path / "in.txt", "--out", tmp_path / "out", "--model", "prompted",
             "--quiet")
    cluster.tessera(*words, "--prompt-name", "cluster")
    made = np.load(next((tmp_path / "out").glob("vectors-*.npy")))
    assert np.array_equal(made[0], vector(cluster, "prompted", "edit photos", "--prompt-name",
                                          "cluster").astype("<f4"))
    cluster.tessera(*words, "--prompt-name", "cluster")
    for other in ((), ("--prompt-name", "document"), ("--query",)):
        assert refusal(cluster, *words, *other)
    found = json.loads(cluster.tessera("search", "edit photos", "--index", tmp_path / "out",
                                       "--model", "prompted", "--prompt-name", "cluster", "--json"))
    assert found[0]["found"][0]["score"] > 0.999


def test_a_dense_module_sets_the_width(cluster):
    status = {m["name"]: m for m in cluster.status()["models"]}
    assert status["dense"]["hidden_size"] == 64
    whole = vector(cluster, "dense", "edit photos", "--dimensions", "64")
    # Another rule for long texts, so that no cache can take one for the other.
    expected = WEIGHT.astype(float) @ vector(cluster, "demo-model", "edit photos", "--truncate",
                                             "right")
    assert np.allclose(whole, expected / np.linalg.norm(expected), atol=2e-3)
    narrow = vector(cluster, "dense", "edit photos")  # truncate_dim
    assert len(narrow) == 48
    assert np.allclose(narrow, whole[:48] / np.linalg.norm(whole[:48]), atol=2e-3)


def test_every_process_refuses_the_same(tmp_path):
    folder = copy_model(tmp_path / "bad")
    edit(folder / "config.json", lambda config: config.update(is_causal=False))
    (tmp_path / "data").mkdir()
    commands = (["tessera", "model", "inspect", folder], ["tessera", "model", "verify", folder],
                ["tessera", "up", "--model", folder, "--free-ports", "--data-dir",
                 tmp_path / "data"],
                ["tessera-coordinator", "--model", folder, "--data-dir", tmp_path / "data"],
                ["tessera-worker", "--model", folder])
    for program, *words in commands:
        done = subprocess.run([BIN / program, *words], capture_output=True, timeout=300)
        assert done.returncode == 1, done
        assert b"config.json: is_causal is false" in done.stdout + done.stderr, done
