"""The coordinator process against fake workers: what holds when processes are killed, when input
is hostile, and when Redis goes away."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import zmq

import wire
from fakes import (BIN_DIR, FINAL_TOKEN, MODEL_DIR, VOCAB_SIZE, Coordinator, FakeWorker,
                   HangingRedis, JobClient, Proxy, vector_of)
from wire import ROOT, SLOWDOWN, Peer, block, encode

sys.path.insert(0, os.path.join(ROOT, "clients/python"))
import tessera  # noqa: E402


@pytest.fixture
def coordinator():
    process = Coordinator()
    yield process
    if process.process.poll() is None:
        process.stop()


def id_chunks(count, items, seed=1, distinct=100_000):
    rng = random.Random(seed)
    return [[[rng.randrange(distinct) % 16000, rng.randrange(1000), 7] for _ in range(items)]
            for _ in range(count)]


def check_results(client):
    assert sorted(client.results) == list(range(len(client.chunks)))
    for number, message in client.results.items():
        for ids, vector in zip(client.chunks[number], wire.vectors(message)):
            np.testing.assert_allclose(vector, vector_of(list(ids) + [FINAL_TOKEN]), atol=2e-3)


def test_embeds_and_judges_each_item(coordinator):
    worker = FakeWorker(coordinator.workers)
    client = Peer(coordinator.clients)
    client.hello()
    cases = [("a word", 0), ("", 6), (" \t\n\u3000\u00a0", 6), (b"\xff\xfe", 5), ("nul \0 inside", 0),
             ([1, 2, 3], 0), ([], 6), ([VOCAB_SIZE], 8), ([-1], 8), ("x " * 9000, 7), ("a word", 0),
             ([5, FINAL_TOKEN], 0)]
    reply = client.embed([item for item, _ in cases])
    assert reply["results"]["codes"] == [code for _, code in cases]
    assert {e["index"] for e in reply["results"]["errors"]} == \
        {i for i, (_, code) in enumerate(cases) if code}
    vectors = wire.vectors(reply)
    np.testing.assert_array_equal(vectors[0], vectors[10])
    np.testing.assert_allclose(vectors[5], vector_of([1, 2, 3, FINAL_TOKEN]), atol=1e-3)
    np.testing.assert_allclose(vectors[11], vector_of([5, FINAL_TOKEN]), atol=1e-3)
    assert reply["results"]["cache_joins"] == 1
    again = client.embed([item for item, _ in cases])
    assert again["payload"] == reply["payload"]
    assert again["results"]["cache_hits"] == 5
    narrow = client.embed(["a word"], dimensions=32)
    expected = vectors[0][:32] / np.linalg.norm(vectors[0][:32])
    np.testing.assert_allclose(wire.vectors(narrow)[0], expected, atol=1e-3)
    assert narrow["results"]["cache_hits"] == 1
    cut = client.embed([list(range(100))], truncate=2, max_tokens=10)
    assert cut["results"]["tokens_cut"] == [91]
    np.testing.assert_allclose(wire.vectors(cut)[0], vector_of(list(range(9)) + [FINAL_TOKEN]),
                               atol=1e-3)
    worker.stop()


@pytest.mark.parametrize("spec,code", [
    ({"model": "other"}, 3), ({"model": "m" * 100_000}, 3), ({"dimensions": 31}, 1),
    ({"dimensions": 257}, 1), ({"instruction": "only for queries"}, 1), ({"max_tokens": 1}, 1),
    ({"max_tokens": 100_000}, 1), ({"query": True, "instruction": "x" * 9000}, 1)])
def test_refuses_specifications(coordinator, spec, code):
    client = Peer(coordinator.clients)
    client.hello()
    reply = client.embed(["x"], **spec)
    assert (reply["type"], reply["code"]) == ("ErrorReply", code)
    client.send("OpenJob", request_id=99, job_key="k", spec=spec)
    assert client.wait_for("ErrorReply")["code"] == code


def test_survives_hostile_messages(coordinator):
    rng = random.Random(7)
    client = Peer(coordinator.clients)
    fields, payload = block(["one", "two"])
    good = encode("SubmitChunk", payload, job_id="x", chunk=0, items=fields)
    hostile = [
        [b""], [b"\xc1"], [b"\xdd\xff\xff\xff\xff"], [b"a", b"b", b"c"], [good[0]],
        encode("EmbedRequest", b"xx", request_id=1, spec={}, items={"sizes": [1]}),
        encode("EmbedRequest", b"", request_id=1, spec={}, items={"sizes": []}),
        encode("EmbedRequest", b"abc", request_id=1, spec={}, items={"sizes": [3], "kinds": [1]}),
        encode("EmbedRequest", b"abc", request_id=1, spec={}, items={"sizes": [3], "kinds": [9]}),
        encode("EmbedRequest", b"a" * 5000, request_id=1, spec={}, items={"sizes": [1] * 5000}),
        encode("Hello" if "Hello" in wire.TYPES else "Ping", version=9),
        encode("OpenJob", request_id=1, job_key="", spec={}),
        encode("OpenJob", request_id=1, job_key="k" * 300, spec={}),
        encode("OpenJob", request_id=1, job_key="k", priority=0, spec={}),
        encode("ClientHello", tenant="t" * 1000),
        encode("CloseJob", request_id=1, job_id="none", chunks=3),
        encode("CancelJob", request_id=1, job_id="none"),
        encode("StatusRequest", request_id=1, job_id="none"),
        encode("SubmitChunk", payload, job_id="none", chunk=0, items=fields),
        encode("SubmitChunk", payload, job_id="j" * 1_000_000, chunk=0, items=fields),
        encode("WorkerHello", name="w"), encode("Batch", b"", epoch=1),
    ]
    for frames in hostile:
        client.send_raw(frames)
        answer = client.receive()
        assert answer.get("code", 0) != 0 or answer["type"] == "ServerHello", (frames[0][:40], answer)
    client.send("ResultAck", job_id="none", chunk=1)
    for _ in range(2000):
        frames = [bytearray(frame) for frame in good]
        for _ in range(rng.randrange(1, 4)):
            frame = frames[rng.randrange(len(frames))]
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        client.send_raw([bytes(frame) for frame in frames])
    worker = Peer(coordinator.workers)
    for frames in ([b"junk"], encode("WorkerHello", name="w" * 500_000, model="m" * 500_000),
                   encode("BatchResult", b"1", epoch=1, batch_id=1), encode("Ping", nonce=1)):
        worker.send_raw(frames)
    other = Peer(coordinator.clients)
    assert other.hello()["epoch"] > 0
    assert coordinator.process.poll() is None


def test_refuses_unfit_workers(coordinator):
    first = FakeWorker(coordinator.workers)
    first.welcomed.wait(10)
    for change, code in [({"model": "other"}, 3), ({"tokenizer_hash": "0" * 64}, 1),
                         ({"fingerprint": "cd" * 32}, 4), ({"hidden_size": 512}, 1),
                         ({"max_batch_tokens": 0}, 1), ({"cost_s": float("nan")}, 1)]:
        worker = FakeWorker(coordinator.workers, **change)
        assert worker.welcomed.wait(10)
        assert worker.refusal and worker.refusal["code"] == code, change
        worker.stop()
    first.stop()


def test_workers_are_renewed_one_by_one(coordinator):
    """A worker of the version before says only the fingerprint that it knows, and is served until
    the last one of its kind has gone."""
    former, exact = "aa" * 32, "11" * 32
    client = Peer(coordinator.clients)
    client.hello()

    def model():
        client.send("StatusRequest", request_id=1, job_id="")
        return client.wait_for("StatusReply")["models"][0]

    def join(**hello):
        worker = FakeWorker(coordinator.workers, **hello)
        assert worker.welcomed.wait(10)
        return worker

    old = join(fingerprint="", former_fingerprint=former)
    assert not old.refusal and model()["fingerprint"] == model()["former_fingerprint"] == former
    new = join(fingerprint=exact, former_fingerprint=former)
    assert not new.refusal and model()["fingerprint"] == former
    retrained = join(fingerprint="22" * 32, former_fingerprint=former)
    assert retrained.refusal["code"] == 4
    old.stop()
    deadline = time.monotonic() + 30
    while model()["fingerprint"] != exact and time.monotonic() < deadline:
        time.sleep(0.05)
    assert model()["fingerprint"] == exact and model()["former_fingerprint"] == former
    late = join(fingerprint="", former_fingerprint=former)
    assert late.refusal["code"] == 4 and "start a worker of this version" in late.refusal["message"]
    for worker in (new, retrained, late):
        worker.stop()


def test_job_with_duplicates_computes_each_once(coordinator):
    workers = [FakeWorker(coordinator.workers, name=f"w{i}") for i in range(2)]
    job = JobClient(coordinator.clients, "dup", id_chunks(40, 250, distinct=500), vector_type=1)
    progress = job.run()
    check_results(job)
    distinct = {tuple(ids) for chunk in job.chunks for ids in chunk}
    computed = [s for w in workers for s in w.sequences]
    assert len(computed) == len(set(computed)) == len(distinct)
    assert progress["items_done"] == 10_000 and progress["items_failed"] == 0
    assert progress["cache_misses"] == len(distinct)
    assert all(w.batches for w in workers)
    for worker in workers:
        worker.stop()


def test_duplicate_and_out_of_order_chunks(coordinator):
    worker = FakeWorker(coordinator.workers)
    job = JobClient(coordinator.clients, "order", id_chunks(5, 3))
    job.connect()
    for number in (4, 2, 2, 0, 4):
        job.submit(number)
    job.submit(2, items=[[9, 9, 9]])  # The first content stays, whoever sends another.
    refused = job.peer.wait_for("ChunkAck", where=lambda m: m["code"] != 0)
    assert refused["code"] == 4 and refused["chunk"] == 2
    assert 'chunk 2 of job "order"' in refused["message"]
    job.submit(1 << 30, items=[[1]])
    refused = job.peer.wait_for("ChunkAck", where=lambda m: m["chunk"] == 1 << 30)
    assert refused["code"] == 1
    progress = job.run()
    check_results(job)
    assert progress["items_done"] == 15
    job.submit(0)
    assert job.peer.wait_for("ChunkAck")["code"] == 0
    job.submit(7, items=[[1]])  # More than the job was closed with.
    assert job.peer.wait_for("ChunkAck")["code"] == 4
    worker.stop()


def test_same_key_another_spec_is_a_conflict(coordinator):
    a = JobClient(coordinator.clients, "key", [])
    a.connect()
    peer = Peer(coordinator.clients)
    peer.hello()
    peer.send("OpenJob", request_id=1, job_key="key", spec={"dimensions": 64})
    assert peer.wait_for("ErrorReply")["code"] == 4
    other_tenant = JobClient(coordinator.clients, "key", [], tenant="t", dimensions=64)
    assert other_tenant.connect()["job_id"] != a.job_id


def test_killed_coordinator_resumes_every_job(coordinator):
    worker = FakeWorker(coordinator.workers, delay_s=0.01, max_batch_tokens=256, max_seqlen=256)
    job = JobClient(coordinator.clients, "resume", id_chunks(60, 50))
    for fraction in (0.2, 0.5, 0.8):
        job.run(stop_when=lambda j, f=fraction: len(j.results) >= f * len(j.chunks))
        coordinator.kill()
        coordinator.start()
    progress = job.run()
    check_results(job)
    assert progress["items_done"] == 3000
    # Redone work is bounded by what was in the window; delivered chunks are not computed again.
    assert len(worker.sequences) < 2 * len({tuple(i) for c in job.chunks for i in c})
    worker.stop()


def test_job_goes_on_without_its_client(coordinator):
    worker = FakeWorker(coordinator.workers)
    job = JobClient(coordinator.clients, "gone", id_chunks(30, 20))
    job.connect()
    for number in range(30):
        job.submit(number)
    for _ in range(30):
        job.peer.wait_for("ChunkAck")
    job.peer.close()
    job.peer = None
    watcher = Peer(coordinator.clients)
    watcher.hello()
    for _ in range(200):
        watcher.send("StatusRequest", request_id=1, job_id=job.job_id)
        if watcher.wait_for("StatusReply")["jobs"][0]["chunks_done"] == 30:
            break
        time.sleep(0.05)
    computed = len(worker.sequences)
    coordinator.kill()
    coordinator.start()
    job.run()
    check_results(job)
    assert len(worker.sequences) == computed
    worker.stop()


def test_killed_redis_loses_nothing(coordinator):
    worker = FakeWorker(coordinator.workers, delay_s=0.005, max_batch_tokens=256, max_seqlen=256)
    job = JobClient(coordinator.clients, "redis", id_chunks(60, 50))
    for fraction in (0.2, 0.6):
        job.run(stop_when=lambda j, f=fraction: len(j.results) >= f * len(j.chunks))
        os.kill(coordinator.redis_pid(), signal.SIGKILL)
        time.sleep(0.5)
    job.run()
    check_results(job)
    worker.stop()


def test_cached_vectors_outlast_an_orderly_end(coordinator):
    worker = FakeWorker(coordinator.workers)
    JobClient(coordinator.clients, "first", id_chunks(4, 50)).run()
    worker.stop()
    coordinator.process.terminate()
    assert coordinator.process.wait(60) == 0
    coordinator.start()
    worker = FakeWorker(coordinator.workers)
    job = JobClient(coordinator.clients, "second", id_chunks(4, 50))
    job.run()
    check_results(job)
    assert not worker.sequences
    worker.stop()


def test_a_full_redis_ends_what_it_has_accepted():
    coordinator = Coordinator("--redis-mb", "64")
    ids = [[number, 5] + [7] * 500_000 for number in range(64)]
    job = JobClient(coordinator.clients, "large", [[item] for item in ids], truncate=2)
    job.connect()
    for number in range(len(ids)):
        job.submit(number)
    acks = [job.peer.wait_for("ChunkAck")["code"] for _ in ids]
    assert acks.count(0) >= 15 and acks.count(10) >= 15
    coordinator.kill()
    coordinator.start()
    # Nothing at all finds room any more until most of it is gone.
    assert coordinator.redis("CONFIG SET maxmemory 8mb") == "+OK"
    worker = FakeWorker(coordinator.workers)
    job.run()
    assert sorted(job.results) == list(range(len(ids)))
    for number, message in job.results.items():
        np.testing.assert_allclose(wire.vectors(message)[0],
                                   vector_of(ids[number][:4095] + [FINAL_TOKEN]), atol=2e-3)
    worker.stop()
    assert coordinator.stop() == 0


def test_dying_workers_and_poison(coordinator):
    poison = [666, 6, FINAL_TOKEN]

    def dies_of_poison(worker, batch):
        ids = batch["payload"]
        if np.asarray(poison, "<i4").tobytes() in ids:
            worker.stopped.set()
            return False
        return True

    chunks = id_chunks(3, 30)
    chunks[1][5] = poison[:2]
    job = JobClient(coordinator.clients, "poison", chunks)
    job.connect()
    workers = [FakeWorker(coordinator.workers, name=f"w{i}", on_batch=dies_of_poison)
               for i in range(4)]
    job.run()
    assert job.results[1]["results"]["codes"].count(14) == 1
    assert wire.vectors(job.results[1])[5] is None
    for number, message in job.results.items():
        for i, vector in enumerate(wire.vectors(message)):
            if (number, i) != (1, 5):
                np.testing.assert_allclose(vector, vector_of(chunks[number][i] + [FINAL_TOKEN]),
                                           atol=2e-3)
    for worker in workers:
        worker.stop()


def test_broken_connections_are_no_deaths(coordinator):
    breaks = 5

    def breaks_its_connection(worker, batch):
        nonlocal breaks
        if breaks == 0:
            return True
        breaks -= 1
        worker.stopped.set()
        return False

    job = JobClient(coordinator.clients, "flaky", id_chunks(1, 30))
    job.connect()
    job.submit(0)
    while breaks > 0:  # One process, a fresh connection each time.
        worker = FakeWorker(coordinator.workers, on_batch=breaks_its_connection, process=77)
        worker.thread.join(20 * SLOWDOWN)
        assert not worker.thread.is_alive()
    worker = FakeWorker(coordinator.workers, on_batch=breaks_its_connection, process=77)
    job.run()
    check_results(job)
    worker.stop()


def test_cancel_ends_a_job(coordinator):
    job = JobClient(coordinator.clients, "cancel", id_chunks(10, 10))
    job.connect()
    for number in range(10):
        job.submit(number)
    job.peer.send("CancelJob", request_id=50, job_id=job.job_id)
    update = job.peer.wait_for("JobUpdate", where=lambda m: m["request_id"] == 50)
    assert update["progress"]["state"] == 3
    job.submit(3, items=[[1]])
    job.submit(11, items=[[1]])
    assert job.peer.wait_for("ChunkAck", where=lambda m: m["chunk"] == 11)["code"] == 12
    coordinator.kill()
    coordinator.start()
    assert job.connect()["state"] == 3


def test_queries_pass_a_running_job(coordinator):
    worker = FakeWorker(coordinator.workers, delay_s=0.02, max_batch_tokens=256, max_seqlen=256)
    job = JobClient(coordinator.clients, "bulk", id_chunks(60, 200))
    job.connect()
    for number in range(60):
        job.submit(number)
    client = Peer(coordinator.clients)
    client.hello()
    before = worker.batches
    for i in range(10):
        assert client.embed([[i, 9, 9]])["type"] == "EmbedReply"
    # The job alone needs over 180 batches; each query waited for a few of them.
    assert worker.batches - before < 60
    worker.stop()


@pytest.mark.parametrize("greets", [True, False])
def test_a_cache_that_hangs_holds_up_no_query(greets):
    redis = HangingRedis(greets)
    coordinator = Coordinator("--redis-cache", redis.url)
    worker = FakeWorker(coordinator.workers)
    client = Peer(coordinator.clients)
    client.hello()
    worker.welcomed.wait(10)
    for i in range(30):  # The connection is given up after 5 s without an answer: too late.
        reply = client.embed([[i, 9, 9]], deadline_ms=2500 * SLOWDOWN)
        assert reply["type"] == "EmbedReply", reply
    assert redis.lookups < 10, "most are not even asked for"
    worker.stop()
    coordinator.stop()
    redis.close()


def test_a_client_that_never_reads_costs_little_and_holds_up_nobody(coordinator):
    worker = FakeWorker(coordinator.workers)
    deaf = Peer(coordinator.clients)
    deaf.hello()
    deaf.socket.close()
    deaf.socket = deaf.context.socket(zmq.DEALER)
    for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 1), (zmq.RCVBUF, 4096)):
        deaf.socket.setsockopt(option, value)
    deaf.socket.connect(coordinator.clients)
    deaf.hello()
    deaf.send("OpenJob", request_id=1, job_key="deaf", spec={})
    opened = deaf.wait_for("JobOpened")
    reader = JobClient(coordinator.clients, "reader", id_chunks(20, 200, seed=2))
    watcher = Peer(coordinator.clients)
    watcher.hello()
    watcher.embed([[n, 1, 2] for n in range(500)])
    before_mb = coordinator.memory_kb() / 1024
    # A job with 60 MB of vectors, and questions whose answers are 4 MB each; all from the cache.
    fields, payload = block([[n % 500, 1, 2] for n in range(4096)])
    for chunk in range(15):
        deaf.send("SubmitChunk", payload, job_id=opened["job_id"], chunk=chunk, items=fields)
    for request in range(150):
        deaf.send("EmbedRequest", payload, request_id=10 + request, spec={}, items=fields)
    reader.run()
    check_results(reader)

    def chunks_done():
        watcher.send("StatusRequest", request_id=1, job_id=opened["job_id"])
        return watcher.wait_for("StatusReply")["jobs"][0]["chunks_done"]

    while chunks_done() < 15:
        time.sleep(0.05)
    assert watcher.embed([[1, 2, 3]])["type"] == "EmbedReply"
    if SLOWDOWN == 1:  # Sanitizers keep what was freed.
        assert coordinator.memory_kb() / 1024 < before_mb + 400, "not the 660 MB of all answers"
    # On a connection that is read, the job's results are all there.
    again = JobClient(coordinator.clients, "deaf", [[[n % 500, 1, 2] for n in range(4096)]] * 15)
    again.run()
    assert sorted(again.results) == list(range(15))
    worker.stop()


def test_answers_lost_with_a_connection_come_again(coordinator):
    worker = FakeWorker(coordinator.workers)
    proxy = Proxy(coordinator.clients)
    with tessera.Client(proxy.address, timeout_s=40 * SLOWDOWN) as client:
        client.embed([[1, 2, 3]])
        proxy.hold_answers.set()
        answers = []
        asking = threading.Thread(target=lambda: answers.append(client.embed([[4, 5, 6]])))
        asking.start()
        while (4, 5, 6, FINAL_TOKEN) not in worker.sequences:
            time.sleep(0.01)
        time.sleep(0.2)  # For the answer, which ends in the proxy.
        proxy.cut()
        asking.join()
        np.testing.assert_allclose(answers[0][0], vector_of([4, 5, 6, FINAL_TOKEN]), atol=2e-3)

        chunks = id_chunks(12, 20, seed=3)
        job = client.submit([ids for chunk in chunks for ids in chunk], key="cut", chunk_items=20)
        results = {}

        def consume():
            for result in job:
                results[result.chunk] = result.vectors
                if len(results) == 2:
                    proxy.hold_answers.set()

        consuming = threading.Thread(target=consume, daemon=True)
        consuming.start()
        assert proxy.hold_answers.wait(40 * SLOWDOWN)
        while len({tuple(i) + (FINAL_TOKEN,) for c in chunks for i in c} - set(worker.sequences)):
            time.sleep(0.01)
        time.sleep(0.2)
        proxy.cut()
        consuming.join(40 * SLOWDOWN)
        assert sorted(results) == list(range(12))
        for number, vectors in results.items():
            for ids, vector in zip(chunks[number], vectors):
                np.testing.assert_allclose(vector, vector_of(ids + [FINAL_TOKEN]), atol=2e-3)
    proxy.close()
    worker.stop()


def test_stops_cleanly_and_answers_without_workers(coordinator):
    client = Peer(coordinator.clients)
    client.hello()
    reply = client.embed(["x"], deadline_ms=300)
    assert (reply["type"], reply["code"]) == ("ErrorReply", 10)
    redis = coordinator.redis_pid()
    assert coordinator.stop() == 0
    assert not os.path.exists(f"/proc/{redis}")


def refusal_of_redis(path):
    result = subprocess.run(
        [os.path.join(BIN_DIR, "tessera-coordinator"), "--model", MODEL_DIR, "--listen",
         "tcp://127.0.0.1:*", "--worker-listen", "tcp://127.0.0.1:*", "--redis",
         f"unix:{path}", "--log-level", "off"],
        capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "cannot use Redis at unix:" in result.stderr and result.stderr.count("\n") == 1
    return result.stderr


def test_missing_redis_is_one_clear_line(tmp_path):
    refusal_of_redis(tmp_path / "none.sock")


def test_a_redis_that_drops_jobs_by_itself_is_refused(tmp_path):
    path = tmp_path / "redis.sock"
    with subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "",
                           "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"],
                          cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        try:
            assert "allkeys-lru" in refusal_of_redis(path)
        finally:
            server.kill()
