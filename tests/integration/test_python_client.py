"""Jobs of the Python client against a running cluster: left, taken up again, interrupted, in
conflict.

What needs no cluster is in tests/clients/python; random sequences of all of it are in
python_sequences.py, of which this runs a few."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from cluster import PATIENCE_S, Cluster, running_cluster, sample_texts

from tessera import Client, ErrorCode, JobConflict, TesseraError

TEXTS = sample_texts(200, seed=21)
KEYS = (f"key {number}" for number in range(10**6))


@pytest.fixture(scope="module")
def cluster():
    with running_cluster(1, "--window-chunks", "6") as running:
        yield running


@pytest.fixture
def connect(cluster):
    """Makes clients, and closes them."""
    made = []

    def make():
        made.append(Client(cluster.addresses["clients"], timeout_s=PATIENCE_S))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def vectors(cluster):
    with Client(cluster.addresses["clients"], timeout_s=PATIENCE_S) as client:
        return client.embed(TEXTS)


def take(job, rows, vectors, most=None):
    """Iterates, checks each row, and gives the chunks that came."""
    chunks = []
    for result in job.results(timeout_s=PATIENCE_S):
        last = result.first_index + len(result.vectors)
        assert np.array_equal(result.vectors, vectors[result.first_index:last])
        assert not result.errors
        rows.update(range(result.first_index, last))
        chunks.append(result.chunk)
        if len(chunks) == most:
            break
    return chunks


def all_rows(count=len(TEXTS)):
    return set(range(count))


# --- loops that are left

def test_a_loop_goes_on_with_the_result_that_it_was_left_at(connect, vectors):
    job, rows = connect().submit(TEXTS, chunk_items=20), set()
    first = take(job, rows, vectors, 3)
    second = take(job, rows, vectors, 3)
    assert second[0] == first[-1], "nobody said that it is safe"
    job.acknowledge(second[-1])
    rest = take(job, rows, vectors)
    assert not set(rest) & {*first, *second} and rows == all_rows()
    assert take(job, set(), vectors) == [], "over is over"
    assert job.progress().state == "done"


def test_an_error_in_the_loops_body_loses_nothing(connect, vectors):
    job, rows, kept = connect().submit(TEXTS, chunk_items=20), set(), []
    for _ in range(5):
        try:
            for result in job:
                raise OSError(f"the disk is full at {result.chunk}")
        except OSError as error:
            kept.append(error)  # With its traceback, as notebooks keep the last one.
    assert len({str(error) for error in kept}) == 1, "the same result each time"
    take(job, rows, vectors)
    assert rows == all_rows()


def test_threads_share_a_job(connect, vectors):
    job = connect().submit(TEXTS, chunk_items=5)
    rows, chunks = [set() for _ in range(3)], [[] for _ in range(3)]
    threads = [threading.Thread(target=lambda n=n: chunks[n].extend(take(job, rows[n], vectors)))
               for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert sorted(sum(chunks, [])) == list(range(40)), "each result once"


def test_a_thread_that_leaves_its_loop_leaves_its_result_to_the_others(connect, vectors):
    job, left = connect().submit(TEXTS, chunk_items=20), threading.Event()
    others = set()
    loop = iter(job)
    held = next(loop)  # And no thread asks for the next one.
    waits = threading.Thread(target=take, args=(job, others, vectors))
    waits.start()
    while len(others) < len(TEXTS) - len(held.vectors):
        assert not left.wait(0.01)
    del loop
    waits.join(PATIENCE_S)
    assert not waits.is_alive() and others == all_rows()


def ring_after(seconds):
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def slow_input():
    for text in TEXTS:
        time.sleep(0.002)
        yield text


@pytest.mark.parametrize("make, fails", [(lambda: list(TEXTS), False), (slow_input, True)])
def test_ctrl_c_and_the_cell_is_run_again(connect, vectors, make, fails):
    job, rows = connect().submit(make(), key=next(KEYS), chunk_items=20), set()
    interrupts = 0
    for delay_s in (0.15, 0.001, 0.003, 0.01):
        ring_after(delay_s)
        try:
            take(job, rows, vectors, None if fails else 2)
            signal.setitimer(signal.ITIMER_REAL, 0)
            break_s = time.monotonic() + 0.05
            while time.monotonic() < break_s and not fails:
                pass
        except KeyboardInterrupt:
            interrupts += 1
        except TesseraError as error:
            assert fails and "KeyboardInterrupt" in error.message
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    if fails:  # It struck inside the generator, which is over with it.
        assert interrupts
        with pytest.raises(TesseraError, match="submit the items again"):
            take(job, rows, vectors)
        job = connect().submit(TEXTS, key=job.key, chunk_items=20)
    take(job, rows, vectors)
    assert rows == all_rows()


def test_a_wrong_item_fails_the_job_and_not_the_rows_before_it(connect, vectors):
    items = [*TEXTS[:50], None, *TEXTS[51:]]
    job, rows = connect().submit(items, key=next(KEYS), chunk_items=20), set()
    for _ in range(3):
        with pytest.raises(TypeError, match="item 50 is None"):
            take(job, rows, vectors)
    assert rows == all_rows(40)
    again = connect().submit(TEXTS, key=job.key, chunk_items=20)
    take(again, rows, vectors)
    assert rows == all_rows()


def raising_input():
    yield from TEXTS[:50]
    raise OSError("the drive went away")


def test_items_that_raise_are_submitted_again(connect, vectors):
    client = connect()
    job, rows = client.submit(raising_input(), key=next(KEYS), chunk_items=20), set()
    with pytest.raises(OSError):
        take(job, rows, vectors)
    for _ in range(2):
        with pytest.raises(TesseraError, match="the drive went away.*submit the items again"):
            take(job, rows, vectors)
    assert job.progress().state == "running", "and never done"
    take(client.submit(TEXTS, key=job.key, chunk_items=20), rows, vectors)
    assert rows == all_rows()


# --- the same key

@pytest.mark.parametrize("same_client", [True, False])
@pytest.mark.parametrize("before", ["nothing", "some", "left", "closed", "dropped"])
def test_the_newest_of_a_key_gets_the_results(connect, vectors, same_client, before):
    client, rows = connect(), set()
    job = client.submit(TEXTS, key=next(KEYS), chunk_items=20)
    if before != "nothing":
        take(job, rows, vectors, 2)
    if before == "left":
        job.close()
    key = job.key
    if before == "dropped":
        job = None
    if before == "closed":
        client.close()
        client = connect()
    later = (client if same_client else connect()).submit(TEXTS, key=key, chunk_items=20)
    chunks = take(later, rows, vectors)
    assert rows == all_rows() and len(chunks) >= 9
    if before in ("nothing", "some"):
        with pytest.raises(JobConflict, match="taken"):
            take(job, set(), vectors)
    elif job is not None:
        with pytest.raises(TesseraError) as raised:
            take(job, set(), vectors)
        assert raised.value.code == ErrorCode.CANCELLED


def test_those_who_wait_for_a_worker(vectors):
    """One hears of its timeout and goes on, then that its job was taken up; the last gets all."""
    with Cluster() as slow, Client(slow.addresses["clients"], timeout_s=PATIENCE_S) as first, \
            Client(slow.addresses["clients"], timeout_s=PATIENCE_S) as second:
        job = first.submit(TEXTS[:40], key="waited for", chunk_items=20)
        for timeout_s in (0, 0.3):
            began = time.monotonic()
            with pytest.raises(TesseraError) as raised:
                next(job.results(timeout_s=timeout_s))
            assert raised.value.code == ErrorCode.DEADLINE_EXCEEDED
            assert time.monotonic() - began < timeout_s + 1
        failures = []

        def wait():
            try:
                list(job)
            except TesseraError as error:
                failures.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        later, rows = second.submit(TEXTS[:40], key="waited for", chunk_items=20), set()
        thread.join(PATIENCE_S)
        assert [type(error) for error in failures] == [JobConflict]
        with pytest.raises(TesseraError, match="DEADLINE_EXCEEDED"):
            next(later.results(timeout_s=0.1))
        slow.add_worker()
        take(later, rows, vectors)
        assert rows == all_rows(40)


def take_in_child(address, key, most, pipe):
    with Client(address, timeout_s=PATIENCE_S) as client:
        job = client.submit(TEXTS, key=key, chunk_items=20)
        rows = set()
        for count, result in enumerate(job, 1):
            rows.update(range(result.first_index, result.first_index + len(result.vectors)))
            if count == most:
                break
        pipe.send(rows)


def test_processes_take_a_key_from_each_other(cluster, connect, vectors):
    key, rows = next(KEYS), set()
    job = connect().submit(TEXTS, key=key, chunk_items=20)
    take(job, rows, vectors, 2)
    context = multiprocessing.get_context("spawn")
    for most in (2, 3):
        here, there = context.Pipe()
        process = context.Process(target=take_in_child,
                                  args=(cluster.addresses["clients"], key, most, there))
        process.start()
        rows |= here.recv()
        process.join(PATIENCE_S)
        assert process.exitcode == 0
    with pytest.raises(JobConflict, match="another client"):
        take(job, rows, vectors)
    take(connect().submit(TEXTS, key=key, chunk_items=20), rows, vectors)
    assert rows == all_rows()


def test_a_parents_job_is_refused_in_the_child(connect, vectors):
    client = connect()
    job, rows = client.submit(TEXTS, key=next(KEYS), chunk_items=20), set()
    take(job, rows, vectors, 2)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            next(iter(job))
        except TesseraError as error:
            os.write(write_end, str(error).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        assert f"submit its items here with key={job.key!r}" in pipe.read()
    os.waitpid(pid, 0)
    take(job, rows, vectors)
    assert rows == all_rows()


OTHERS = {
    "shifted items": (["new", *TEXTS[:-1]], {}),
    "one other item": ([*TEXTS[:5], "other", *TEXTS[6:]], {}),
    "the same text as token ids": ([[1, 2], *TEXTS[1:]], {}),
    "fewer items": (TEXTS[:20], {}),
    "no items": ([], {}),
    "fewer items a chunk": (TEXTS, {"chunk_items": 10}),
    "more items a chunk": (TEXTS, {"chunk_items": 200}),
    "another dimension": (TEXTS, {"dimensions": 64}),
    "another query": (TEXTS, {"query": True}),
}


def test_a_finished_key_takes_no_more_items(connect, vectors):
    client = connect()
    job = client.submit(TEXTS[:40], key=next(KEYS), chunk_items=20)
    take(job, set(), vectors)
    with pytest.raises(JobConflict, match="2 chunks"):
        take(client.submit(TEXTS, key=job.key, chunk_items=20), set(), vectors)
    again = client.submit(TEXTS[:40], key=job.key, chunk_items=20)
    assert take(again, set(), vectors) == [], "all were acknowledged"


@pytest.mark.parametrize("same_client", [True, False])
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("other", OTHERS)
def test_a_key_stands_for_its_items(connect, vectors, other, finished, same_client):
    client = connect()
    job = client.submit(TEXTS, key=next(KEYS), chunk_items=20)
    take(job, set(), vectors, None if finished else 3)
    items, options = OTHERS[other]
    with pytest.raises(JobConflict) as raised:
        later = (client if same_client else connect()).submit(
            items, key=job.key, **{"chunk_items": 20, **options})
        take(later, set(), vectors)
    assert raised.value.code == ErrorCode.CONFLICT and raised.value.message


# --- the end

def test_a_job_is_not_pickled(connect):
    job = connect().submit([])
    with pytest.raises(TypeError, match="submit its items with the same key"):
        pickle.dumps(job)


def test_a_closed_job_and_a_closed_client_say_so(connect, vectors):
    client = connect()
    with client.submit(TEXTS, chunk_items=20) as job:
        take(job, set(), vectors, 1)
    other = client.submit(TEXTS, chunk_items=20)
    take(other, set(), vectors, 1)
    client.close()
    for left in (job, other):
        with pytest.raises(TesseraError) as raised:
            take(left, set(), vectors)
        assert raised.value.code == ErrorCode.CANCELLED


def test_the_readmes_example(cluster):
    code = (f"from tessera import Client\nclient = Client({cluster.addresses['clients']!r})\n"
            "vectors = client.embed(['edit photos', 'send email'], query=True)\n"
            "job = client.submit(f'line {i}' for i in range(1000))\n"
            "print(vectors.shape, sum(len(result.vectors) for result in job))\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          timeout=PATIENCE_S,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (done.stdout, done.stderr) == ("(2, 256) 1000\n", "")


def test_random_sequences(cluster):
    program = os.path.join(os.path.dirname(__file__), "python_sequences.py")
    done = subprocess.run([sys.executable, program, "--sequences", "60", "--address",
                           cluster.addresses["clients"]],
                          capture_output=True, text=True, check=False)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
