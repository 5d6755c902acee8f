"""Processes are killed in the middle of jobs; nothing is lost, doubled or mixed up.

TESSERA_FULL=1 runs the sizes of the published figures (100,000 texts) instead of those of CI.
"""

import json
import os
import subprocess
import threading
import time

import numpy as np
from cluster import (Cluster, kill_9, read_folder, running_cluster, sample_texts, wait_for,
                     write_lines)

from tessera import Client

FULL = os.environ.get("TESSERA_FULL") == "1"
TEXTS = 100_000 if FULL else 3_000
DUPLICATES = 0.3
# Chunks are then done one after the other instead of all at the end, so there is a middle to kill in.
SMALL_WINDOW = ("--window-chunks", "8")


def written_chunks(folder):
    """Chunks that are safe; 0 while there is no manifest."""
    try:
        return json.loads((folder / "manifest.json").read_text())["written_chunks"]
    except (FileNotFoundError, json.JSONDecodeError):
        return 0


def check_output(cluster, folder, texts):
    """Every row is there, in its place, and is the vector that `tessera embed` gives."""
    ids, rows = read_folder(folder)
    assert ids == [str(i) for i in range(len(texts))]
    assert len(rows) == len(texts)
    first_row = {}
    for row, text in enumerate(texts):
        first = first_row.setdefault(text, row)
        assert first == row or np.array_equal(rows[first], rows[row]), "duplicates differ"
    some = list(range(0, len(texts), max(1, len(texts) // 200)))
    answer = json.loads(cluster.tessera("embed", "--", *[texts[i] for i in some]))
    for i, item in zip(some, answer["items"]):
        assert np.array_equal(np.array(item["vector"], "<f4"), rows[i]), i


def finished(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_duplicates_two_workers_and_a_second_run_from_cache(tmp_path):
    texts = sample_texts(TEXTS, DUPLICATES, seed=2)
    path = write_lines(tmp_path / "in.txt", texts)
    with running_cluster(2) as cluster:
        memory_mb, client_mb = [], 0.0
        began = time.monotonic()
        job = cluster.start_submit(path, "--out", tmp_path / "out")
        while job.poll() is None:
            memory_mb.append(cluster.memory_mb(cluster.coordinator))
            client_mb = max(client_mb, cluster.memory_mb(job))
            time.sleep(0.2)
        first_s = time.monotonic() - began
        assert job.returncode == 0
        manifest = finished(tmp_path / "out")
        assert manifest["items"] == manifest["rows"] == len(texts)
        assert manifest["cache_misses"] == len(set(texts)), "a duplicate was computed again"
        check_output(cluster, tmp_path / "out", texts)
        workers = cluster.status()["workers"]
        assert len(workers) == 2 and all(w["batches_done"] > 0 for w in workers)

        began = time.monotonic()
        cluster.tessera("submit", path, "--out", tmp_path / "again", "--quiet")
        again_s = time.monotonic() - began
        assert finished(tmp_path / "again")["cache_misses"] == 0
        for shard in (tmp_path / "out").glob("vectors-*.npy"):
            assert shard.read_bytes() == (tmp_path / "again" / shard.name).read_bytes()
        half = memory_mb[len(memory_mb) // 2:]
        print(f"{len(texts)} texts, {len(set(texts))} different: {first_s:.1f} s, "
              f"{len(texts) / first_s:.0f} texts/s; from cache {again_s:.2f} s, "
              f"{first_s / again_s:.0f} times faster; coordinator {max(memory_mb):.0f} MB at most, "
              f"second half {min(half):.0f} to {max(half):.0f} MB; "
              f"tessera submit {client_mb:.0f} MB")


def test_killed_client_resumes_and_embeds_nothing_twice(tmp_path):
    texts = sample_texts(1500, seed=3)
    path = write_lines(tmp_path / "in.txt", texts)
    out = tmp_path / "out"
    with running_cluster(1, *SMALL_WINDOW) as cluster:
        for kills in range(3):
            before = written_chunks(out)
            job = cluster.start_submit(path, "--out", out, "--chunk-items", "20")
            wait_for(lambda: written_chunks(out) > before + 5 or job.poll() is not None,
                     "written chunks")
            assert job.poll() is None, f"the job was over before it could be killed ({kills})"
            kill_9(job)
        cluster.tessera("submit", path, "--out", out, "--chunk-items", "20", "--quiet")
        check_output(cluster, out, texts)
        # All runs together asked for each text once: what was lost with the client came from the
        # ledger, not from the workers.
        assert sum(job["items_accepted"] for job in cluster.status()["jobs"]) == len(texts)
        # The manifest knows of the same work as the coordinator.
        assert finished(out)["cache_misses"] == len(set(texts))


def test_another_text_of_an_accepted_chunk_is_a_conflict(tmp_path):
    texts = sample_texts(200, seed=5)
    path = write_lines(tmp_path / "in.txt", texts)
    out = tmp_path / "out"
    with running_cluster(0) as cluster:  # Nothing is computed, so every chunk stays in the ledger.
        job = cluster.start_submit(path, "--out", out, "--chunk-items", "20")
        wait_for(lambda: any(job["items_accepted"] == len(texts) for job in cluster.status()["jobs"]),
                 "accepted chunks")
        kill_9(job)
        path = write_lines(tmp_path / "in.txt", [*texts[:50], "another text", *texts[51:]])
        said = subprocess.run(cluster.command("submit", path, "--out", out, "--chunk-items", "20",
                                              "--quiet"), capture_output=True, text=True, timeout=120)
        assert said.returncode == 1, said
        assert "items 40 to 59 of the input are not those that" in said.stderr, said
        cluster.add_worker()
        # The folder and the job are as they were: the same input goes on.
        path = write_lines(tmp_path / "in.txt", texts)
        cluster.tessera("submit", path, "--out", out, "--chunk-items", "20", "--quiet")
        check_output(cluster, out, texts)


def test_interrupted_client_says_how_to_go_on(tmp_path):
    path = write_lines(tmp_path / "in.txt", sample_texts(1500, seed=4))
    out = tmp_path / "out"
    with running_cluster(1, *SMALL_WINDOW) as cluster:
        job = cluster.start_submit(path, "--out", out, "--chunk-items", "20")
        wait_for(lambda: written_chunks(out) > 3, "written chunks")
        job.terminate()
        assert job.wait(60) == 130
        assert "goes on from there" in (cluster.folder / "submit.log").read_text()
        cluster.tessera("submit", path, "--out", out, "--chunk-items", "20", "--quiet")
        assert finished(out)["finished"]


def test_killed_worker_loses_nothing_and_a_new_one_is_used_at_once(tmp_path):
    texts = sample_texts(12_000, seed=5)
    lines = [f"{text}\n".encode() for text in texts]
    out = tmp_path / "out"
    with running_cluster(1, *SMALL_WINDOW) as cluster:
        job = cluster.start_submit("-", "--out", out, "--chunk-items", "50", stdin=subprocess.PIPE)
        job.stdin.writelines(lines[:1000])
        job.stdin.flush()
        wait_for(lambda: written_chunks(out) >= 3, "written chunks")
        second = cluster.add_worker()
        cluster.wait_for_worker(second)
        # Most texts come only now, so that there is work for it however fast the first one is.
        feed = threading.Thread(target=lambda: (job.stdin.writelines(lines[1000:]),
                                                job.stdin.close()))
        feed.start()
        wait_for(lambda: any(w["name"] == second.name and w["batches_done"] > 0
                             for w in cluster.status()["workers"]), "the second worker's first batch")
        assert job.poll() is None, "the job was over before the first worker could be killed"
        kill_9(cluster.workers[0])
        assert job.wait(600) == 0
        feed.join()
        check_output(cluster, out, texts)
        assert finished(out)["errors"] == 0


def test_killed_coordinator_goes_on_from_its_ledger(tmp_path):
    texts = sample_texts(1500, seed=6)
    path = write_lines(tmp_path / "in.txt", texts)
    out = tmp_path / "out"
    with running_cluster(1, *SMALL_WINDOW) as cluster:
        job = cluster.start_submit(path, "--out", out, "--chunk-items", "20")
        for _ in range(2):
            before = written_chunks(out)
            wait_for(lambda: written_chunks(out) > before + 3 or job.poll() is not None,
                     "written chunks")
            assert job.poll() is None, "the job was over before the coordinator could be killed"
            kill_9(cluster.coordinator)
            cluster.start_coordinator()
        assert job.wait(600) == 0
        check_output(cluster, out, texts)
        assert finished(out)["items"] == len(texts)


def test_python_job_goes_on_after_a_killed_coordinator():
    texts = sample_texts(1000, seed=8)
    with running_cluster(1, *SMALL_WINDOW) as cluster:
        with Client(cluster.addresses["clients"], timeout_s=300) as client:
            rows = {}
            for result in client.submit(texts, chunk_items=20):
                assert result.first_index not in rows, "a result came twice"
                rows[result.first_index] = result.vectors
                if len(rows) in (5, 20):
                    kill_9(cluster.coordinator)
                    cluster.start_coordinator()
            assert sorted(rows) == list(range(0, 1000, 20))
            together = np.concatenate([rows[first] for first in sorted(rows)])
            assert np.array_equal(together, client.embed(texts))


def test_no_worker_then_one(tmp_path):
    texts = sample_texts(200, seed=7)
    path = write_lines(tmp_path / "in.txt", texts)
    with Cluster() as cluster:
        job = cluster.start_submit(path, "--out", tmp_path / "out")
        wait_for(lambda: cluster.status()["jobs"], "the job")
        cluster.add_worker()
        assert job.wait(600) == 0
        check_output(cluster, tmp_path / "out", texts)
