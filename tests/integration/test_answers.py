"""A running cluster gives the right vectors, and a clear answer to everything it cannot embed."""

import concurrent.futures
import json
import os
import stat
import subprocess
import sys

import cluster as support
import msgpack
import numpy as np
import pytest
import zmq
from cluster import MODEL, SAMPLE, read_folder, running_cluster, sample_texts, write_lines

from tessera import Client, EmbedError, ErrorCode, TesseraError

TEXTS = sample_texts(300, duplicates=0.3)


@pytest.fixture(scope="module")
def cluster():
    with running_cluster() as running:
        yield running


@pytest.fixture
def client(cluster):
    with Client(cluster.addresses["clients"], timeout_s=support.PATIENCE_S) as connected:
        yield connected


def test_golden_vectors_of_transformers(cluster, client):
    golden = [g for g in json.loads((MODEL / "golden.json").read_text()) if g["text"]]
    for entry, vector in zip(golden, client.embed([g["text"] for g in golden])):
        # Some golden texts were made behind the query prompt, told by their ids.
        if len(client.embed_results([entry["text"]]).token_counts) and \
                client.embed_results([entry["text"]]).token_counts[0] == len(entry["ids"]):
            assert np.dot(vector, entry["vec"]) > 0.9995, entry["text"]
    by_ids = client.embed([g["ids"] for g in golden])
    for entry, vector in zip(golden, by_ids):
        assert np.dot(vector, entry["vec"]) > 0.9995, entry["text"]


def test_submit_embed_and_python_give_the_very_same_vectors(cluster, client, tmp_path):
    cluster.tessera("submit", write_lines(tmp_path / "in.txt", TEXTS), "--out", tmp_path / "out",
                    "--quiet")
    ids, rows = read_folder(tmp_path / "out")
    assert ids == [str(i) for i in range(len(TEXTS))]
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    answer = json.loads(cluster.tessera("embed", "--", *TEXTS))
    by_embed = np.array([item["vector"] for item in answer["items"]], dtype="<f4")
    assert np.array_equal(by_embed, rows)
    assert np.array_equal(client.embed(TEXTS), rows)


def test_every_width_is_a_cut_of_the_whole(cluster, client):
    whole = client.embed(TEXTS[:20])
    for width in (32, 64, 100, 255):
        cut = whole[:, :width] / np.linalg.norm(whole[:, :width], axis=1, keepdims=True)
        assert np.allclose(client.embed(TEXTS[:20], dimensions=width), cut, atol=2e-3)


def test_formats_of_embed(cluster, tmp_path):
    as_text = cluster.tessera("embed", "one", "two", "--format", "text")
    from_text = np.array([[float(v) for v in line.split()] for line in as_text.splitlines()], "<f4")
    cluster.tessera("embed", "one", "two", "--format", "npy", "--out", tmp_path / "v.npy")
    assert np.array_equal(np.load(tmp_path / "v.npy"), from_text)


def test_outputs_that_are_no_regular_files_are_written_through(cluster, tmp_path):
    expected = json.loads(cluster.tessera("embed", "one"))["items"][0]["vector"]
    fifo, link, target = tmp_path / "fifo", tmp_path / "link", tmp_path / "target.json"
    os.mkfifo(fifo)
    link.symlink_to(target.name)
    target.write_text("old")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        read = pool.submit(fifo.read_text)
        cluster.tessera("embed", "one", "--out", fifo)
        assert json.loads(read.result(support.PATIENCE_S))["items"][0]["vector"] == expected
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    cluster.tessera("embed", "one", "--out", link)
    assert link.is_symlink() and json.loads(target.read_text())["items"][0]["vector"] == expected
    for device in ("/dev/stdout", "/dev/fd/1"):
        printed = cluster.tessera("embed", "one", "--out", device)
        assert json.loads(printed)["items"][0]["vector"] == expected
    cluster.tessera("embed", "one", "--out", "/dev/null")
    # What cannot be written is told before anything is embedded.
    done = subprocess.run(cluster.command("embed", "one", "--out", tmp_path / "none" / "x"),
                          capture_output=True, timeout=support.PATIENCE_S)
    assert done.returncode == 1 and b"No such file" in done.stderr, done.stderr


def test_token_ids_pass_the_tokenizer_by(cluster, client):
    answer = json.loads(cluster.tessera("embed", "--ids", "[[0, 16000], [1, 2, 3, 16000]]"))
    assert [item["tokens"] for item in answer["items"]] == [2, 4]
    assert np.array_equal(np.array(answer["items"][0]["vector"], "<f4"), client.embed(["!"])[0])


def test_query_template(cluster, client):
    prompt = json.loads((MODEL / "config_sentence_transformers.json").read_text())["prompts"]["query"]
    assert np.array_equal(client.embed(["edit photos"], query=True),
                          client.embed([prompt + "edit photos"]))
    assert np.array_equal(client.embed(["x"], instruction="Find it"),
                          client.embed(["Instruct: Find it\nQuery:x"]))


def test_other_input_and_output_formats(cluster, tmp_path):
    rows = ['"with ""quotes"", and\r\ntwo lines"', "plain", "\u00fcml\u00e4ut"]
    (tmp_path / "in.csv").write_text(
        "\ufeffkey,body\r\n" + "".join(f"k{i},{row}\r\n" for i, row in enumerate(rows)),
        encoding="utf-8", newline="")
    cluster.tessera("submit", tmp_path / "in.csv", "--field", "body", "--id-field", "key", "--out",
                    tmp_path / "csv", "--format", "jsonl", "--quiet")
    lines = [json.loads(line) for line in open(tmp_path / "csv/vectors.jsonl")]
    assert [line["id"] for line in lines] == ["k0", "k1", "k2"]
    expected = json.loads(cluster.tessera("embed", 'with "quotes", and\r\ntwo lines'))
    assert lines[0]["vector"] == expected["items"][0]["vector"]
    text = "".join(t + "\n" for t in TEXTS[:7]).encode()
    cluster.tessera("submit", "-", "--out", tmp_path / "fvecs", "--format", "fvecs", "--quiet",
                    input=text)
    raw = np.fromfile(tmp_path / "fvecs/vectors.fvecs", dtype="<i4").reshape(7, 257)
    assert (raw[:, 0] == 256).all()
    answer = json.loads(cluster.tessera("embed", "--", *TEXTS[:7]))
    assert np.array_equal(raw[:, 1:].copy().view("<f4"),
                          np.array([i["vector"] for i in answer["items"]], "<f4"))


def test_second_job_comes_from_the_cache(cluster, tmp_path):
    path = write_lines(tmp_path / "in.txt", TEXTS)
    for name in ("one", "two"):
        cluster.tessera("submit", path, "--out", tmp_path / name, "--quiet")
    again = json.loads((tmp_path / "two/manifest.json").read_text())
    assert again["cache_misses"] == 0
    assert again["cache_hits"] + again["cache_joins"] == len(TEXTS)
    assert (tmp_path / "one/vectors-00000.npy").read_bytes() == \
        (tmp_path / "two/vectors-00000.npy").read_bytes()


def test_python_job_resumes_by_its_key(cluster, client):
    texts = [f"resume {text}" for text in TEXTS]
    expected = client.embed(texts)
    seen = {}
    for result in client.submit(texts, key="resumed", chunk_items=16):
        seen[result.chunk] = result
        if len(seen) == 5:
            break  # The fifth is not acknowledged.
    # The fourth acknowledgement may still be on its way.
    support.wait_for(lambda: any(job["job_key"] == "resumed" and job["chunks_delivered"] == 4
                                 for job in cluster.status()["jobs"]), "acknowledgements")
    with Client(cluster.addresses["clients"]) as other:
        job = other.submit(texts, key="resumed", chunk_items=16)
        again = {result.chunk: result for result in job}
        assert len(set(again) & set(seen)) == 1
        for result in {**seen, **again}.values():
            rows = expected[result.first_index:result.first_index + len(result.vectors)]
            assert np.array_equal(result.vectors, rows)
        assert len({**seen, **again}) == -(-len(texts) // 16)
        support.wait_for(lambda: job.progress().state == "done", "the job's end")


def test_python_job_cancel(cluster, client):
    job = client.submit((f"endless {i}" for i in range(10**9)), chunk_items=8)
    assert next(iter(job)).vectors.shape == (8, 256)
    assert job.cancel().state == "cancelled"
    with pytest.raises(TesseraError) as error:
        for _ in job:
            pass
    assert error.value.code == ErrorCode.CANCELLED


def test_python_client_serves_threads_beside_a_job(cluster, client):
    expected = client.embed(TEXTS[:40])
    job = client.submit([f"beside {text}" for text in TEXTS], chunk_items=16)
    rows = []
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        iterating = pool.submit(lambda: sum(len(result.vectors) for result in job))
        asked = [pool.submit(client.embed, [text]) for text in TEXTS[:40]]
        rows = [one.result()[0] for one in asked]
        assert job.progress().job_id == job.id
        assert iterating.result() == len(TEXTS)
    assert np.array_equal(np.array(rows), expected)


def test_empty_jobs_end(cluster, client, tmp_path):
    assert list(client.submit([])) == []
    cluster.tessera("submit", write_lines(tmp_path / "in.txt", []), "--out", tmp_path / "out")


def test_bad_items_have_errors_and_the_others_vectors(cluster, client, tmp_path):
    long = "word " * 9000
    cases = [
        ({"text": "good"}, None),
        ({"text": ""}, "EMPTY_TEXT"),
        ({"text": " \t\n"}, "EMPTY_TEXT"),
        ({"text": long}, "TOO_LONG"),
        ({"ids": [1, 2, 16003]}, "INVALID_TOKEN_ID"),
        ({"ids": [-1]}, "INVALID_TOKEN_ID"),
        ({"ids": []}, "EMPTY_TEXT"),
        ({"ids": [2**40]}, "INVALID_TOKEN_ID"),
        ({"text": None}, "INVALID_ARGUMENT"),
        ({"other": 1}, "INVALID_ARGUMENT"),
        ({"text": "good too"}, None),
    ]
    path = tmp_path / "in.jsonl"
    lines = [json.dumps(case).encode() for case, _ in cases]
    lines += [b'{"text": "\xff\xfe"}', b'{"text": "\\ud800"}', b"{", b"\x00\x01", b"[" * 5000]
    codes = [code for _, code in cases] + ["INVALID_UTF8", "INVALID_UTF8"] + ["INVALID_ARGUMENT"] * 3
    path.write_bytes(b"\n".join(lines))
    cluster.tessera("submit", path, "--out", tmp_path / "out", "--quiet", "--encoding", "utf-8",
                    code=3)
    ids, rows = read_folder(tmp_path / "out")
    assert ids == [str(i) for i, code in enumerate(codes) if code is None]
    assert np.array_equal(rows, client.embed(["good", "good too"]))
    errors = [json.loads(line) for line in open(tmp_path / "out/errors.jsonl")]
    assert [e["code"] for e in errors] == [code for code in codes if code]
    assert [e["index"] for e in errors] == [i for i, code in enumerate(codes) if code]
    assert all(e["message"] for e in errors)
    # What is broken has a place and no id; the number of a line may be another one's id.
    assert [(e["file"], e["line"]) for e in errors] == \
        [(str(path), i + 1) for i, code in enumerate(codes) if code]
    judged = {"EMPTY_TEXT", "TOO_LONG"}
    assert [e["id"] for e in errors[:3]] == ["1", "2", "3"] and errors[0]["code"] in judged
    assert all(e["id"] is None for e in errors if e["index"] >= len(cases))
    # The same through embed, and through Python.
    cluster.tessera("embed", "--input", path, "--encoding", "utf-8", code=3)
    with pytest.raises(EmbedError) as error:
        client.embed(["good", "", b"\xff", "\ud800", [1, 16003]])
    assert [e.index for e in error.value.errors] == [1, 2, 3, 4]
    assert [e.code for e in error.value.errors] == [
        ErrorCode.EMPTY_TEXT, ErrorCode.INVALID_UTF8, ErrorCode.INVALID_UTF8,
        ErrorCode.INVALID_TOKEN_ID]
    assert np.isnan(error.value.vectors[1:]).all() and not np.isnan(error.value.vectors[0]).any()


def test_truncation_is_asked_for_and_told(cluster, client, tmp_path):
    long = "word " * 9000
    results = client.embed_results([long, "short"], truncate="right")
    assert not results.errors
    assert results.token_counts[0] == 8192 and results.tokens_cut[0] > 0 == results.tokens_cut[1]
    left = client.embed([long + "end"], truncate="left", max_tokens=4)
    assert not np.array_equal(left, client.embed([long + "end"], truncate="right", max_tokens=4))
    (tmp_path / "in.txt").write_text("short\n" + long + "\n")
    cluster.tessera("submit", tmp_path / "in.txt", "--out", tmp_path / "out", "--truncate", "right",
                    "--quiet")
    cut = [json.loads(line) for line in open(tmp_path / "out/truncated.jsonl")]
    assert [(c["index"], c["tokens_cut"]) for c in cut] == [(1, int(results.tokens_cut[0]))]


@pytest.mark.parametrize("spec, code", [
    ({"dimensions": 31}, ErrorCode.INVALID_ARGUMENT),
    ({"dimensions": 257}, ErrorCode.INVALID_ARGUMENT),
    ({"dimensions": 2**32 - 1}, ErrorCode.INVALID_ARGUMENT),
    ({"model": "nobody"}, ErrorCode.NOT_FOUND),
    ({"prompt_name": "nobody"}, ErrorCode.INVALID_ARGUMENT),
])
def test_bad_requests_are_refused_whole(cluster, client, spec, code):
    for call in (lambda: client.embed(["x"], **spec), lambda: client.submit(["x"], **spec)):
        with pytest.raises(TesseraError) as error:
            call()
        assert error.value.code == code
        assert error.value.message


def test_another_spec_for_a_key_is_a_conflict(cluster, client):
    client.submit(["x"], key="conflicting")
    with pytest.raises(TesseraError) as error:
        client.submit(["x"], key="conflicting", dimensions=64)
    assert error.value.code == ErrorCode.CONFLICT


def pack(message_type, fields):
    return msgpack.packb([1, message_type, fields], use_bin_type=True)


def hostile_messages():
    block = {1: np.array([3], "<u4").tobytes()}
    yield [b""]
    yield [b"\xc1"]
    yield [os.urandom(1000)]
    yield [b"\xdd\xff\xff\xff\xff"]  # An array of four thousand million.
    yield [b"\x91" * 5000]
    yield [msgpack.packb([2, 3, {}])]
    yield [msgpack.packb([1, 200, {}])]
    yield [msgpack.packb([1, 18, {}])]  # A worker's message.
    yield [pack(3, {1: "x"})]
    yield [pack(4, {1: 1, 2: {}, 3: 9})]
    yield [pack(4, {1: 2, 5: block}), b"abcd"]  # Sizes that do not add up.
    yield [pack(4, {1: 3, 5: {1: b""}})]
    yield [pack(4, {1: 4, 5: {1: np.full(5000, 0, "<u4").tobytes()}})]
    yield [pack(4, {1: 5, 5: {1: np.array([2**32 - 1], "<u4").tobytes()}}), b"abc"]
    yield [pack(4, {1: 6, 5: {**block, 2: b"\x07"}}), b"abc"]
    yield [pack(4, {1: 7, 5: {**block, 2: b"\x01"}}), b"abc"]
    yield [pack(6, {1: "no such job", 2: 0, 3: block}), b"abc"]
    yield [pack(7, {1: 8, 2: "no such job", 3: 1})]
    yield [pack(8, {1: "no such job", 2: 77})]
    yield [pack(9, {1: 9, 2: "no such job"})]
    yield [pack(0, {1: 1}), b"x", b"y", b"z"]
    yield [pack(5, {1: 10, 2: "k" * 10000})]
    yield [b"x" * (2 << 20)]


def test_hostile_messages_do_no_harm(cluster, client):
    context = zmq.Context()
    for said_hello in (False, True):
        socket = context.socket(zmq.DEALER)
        socket.connect(cluster.addresses["clients"])
        if said_hello:
            socket.send(pack(3, {2: "hostile"}))
        for frames in hostile_messages():
            socket.send_multipart(frames)
        # Every byte of a good message, changed.
        good = pack(4, {1: 99, 2: {4: 64}, 5: {1: np.array([3], "<u4").tobytes()}})
        for at in range(len(good)):
            for flip in (0x01, 0x80, 0xFF):
                changed = bytearray(good)
                changed[at] ^= flip
                socket.send_multipart([bytes(changed), b"abc"])
        socket.send(pack(0, {1: 4242}))
        pongs = []
        while not pongs:
            assert socket.poll(support.PATIENCE_S * 1000), "the coordinator fell silent"
            message = msgpack.unpackb(socket.recv_multipart()[0], strict_map_key=False)
            if message[1] == 1 and message[2].get(1) == 4242:
                pongs.append(message)
        socket.close(linger=0)
    context.term()
    assert cluster.coordinator.poll() is None
    assert client.embed(["still here"]).shape == (1, 256)


def test_a_client_that_vanishes_leaves_no_trace(cluster, client):
    """Chunks of a job whose client is gone wait in the ledger for whoever opens the key again."""
    code = (f"import sys, os; sys.path.insert(0, {str(support.ROOT / 'clients/python')!r})\n"
            f"from tessera import Client\n"
            f"job = Client({cluster.addresses['clients']!r}).submit("
            f"[f'vanish {{i}}' for i in range(200)], key='vanished', chunk_items=10)\n"
            f"next(iter(job)); os._exit(1)\n")
    subprocess.run([sys.executable, "-c", code], timeout=support.PATIENCE_S)
    results = list(client.submit([f"vanish {i}" for i in range(200)], key="vanished",
                                 chunk_items=10))
    assert sorted(r.chunk for r in results) == list(range(20))


def test_help_and_versions():
    for command in ("", "up", "embed", "submit", "search", "status", "cancel", "coordinator",
                    "worker", "tokenize", "model"):
        done = subprocess.run([str(support.BIN / "tessera"), *command.split(), "--help"],
                              capture_output=True, timeout=support.PATIENCE_S)
        assert done.returncode == 0 and len(done.stdout) > 200, command
    for args in (["nonsense"], ["submit"], ["embed", "--dimensions", "x", "y"]):
        done = subprocess.run([str(support.BIN / "tessera"), *args], capture_output=True,
                              timeout=support.PATIENCE_S)
        assert done.returncode == 2, args


def test_sample_search_finds_what_it_should(cluster, tmp_path):
    lines = open(SAMPLE / "packages.jsonl", encoding="utf-8").readlines()[:400]
    (tmp_path / "in.jsonl").write_text("".join(lines), encoding="utf-8")
    cluster.tessera("submit", tmp_path / "in.jsonl", "--out", tmp_path / "out", "--quiet")
    one = json.loads(lines[123])
    found = json.loads(cluster.tessera("search", "--index", tmp_path / "out", "--plain", "--json",
                                       "--top", "3", one["text"]))
    assert found[0]["found"][0]["id"] == one["id"]
    assert found[0]["found"][0]["score"] > 0.999
