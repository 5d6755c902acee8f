"""The life of a client across processes: dropped, at the interpreter's exit, forked, spawned."""

import concurrent.futures
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import pytest

from fake_coordinator import FakeCoordinator, greeted_as
from tessera import Client, EmbedError, ErrorCode, ItemError, TesseraError

PATIENCE_S = 60


@pytest.fixture(scope="module")
def fake():
    with FakeCoordinator() as running:
        yield running


def threads():
    return len(os.listdir("/proc/self/task"))


def files():
    return len(os.listdir("/proc/self/fd"))


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- dropped

def drop_it(client):
    del client


def drop_in_a_cycle(client):
    cycle = [client]
    cycle.append(cycle)


def drop_with_a_traceback(client):
    try:
        raise ValueError(client)
    except ValueError as error:
        client.kept = error


def drop_in_a_thread(client):
    thread = threading.Thread(target=lambda kept: None, args=(client,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("drop", [drop_it, drop_in_a_cycle, drop_with_a_traceback,
                                  drop_in_a_thread])
def test_a_dropped_client_closes_itself(fake, drop):
    gc.collect()
    before = threads(), files()
    for _ in range(10):
        client = Client(fake.address, timeout_s=PATIENCE_S)
        assert client.embed(["abc"])[0, 0] == 3
        drop(client)
        client = None
    gc.collect()
    wait_until(lambda: (threads(), files()) <= before)


def test_an_unused_client_costs_nothing():
    before = threads(), files()
    clients = [Client("tcp://127.0.0.1:9") for _ in range(100)]
    assert (threads(), files()) == before
    del clients


def test_with_closes(fake):
    before = threads(), files()
    with pytest.raises(KeyError):
        with Client(fake.address) as client:
            client.embed(["a"])
            raise KeyError
    wait_until(lambda: (threads(), files()) <= before)


# --- at the interpreter's exit

PROGRAMS = {
    "used": "c.embed(['abc'])",
    "never used": "pass",
    "nobody there": "c = Client('127.0.0.1:9')\ntry: c.embed(['a'], timeout_s=0.2)\nexcept: pass",
    "thread waits": "import threading; threading.Thread(target=c.embed, args=(['abc'],)).start()",
    "daemon waits": "import threading; d = Client('127.0.0.1:9'); "
                    "threading.Thread(target=d.embed, args=(['a'],), daemon=True).start()",
    "cycle": "c.me = c; c.embed(['abc'])",
    "module global of a cycle": "import sys; sys.c = c; c.embed(['abc'])",
    "collected": "c.embed(['abc']); del c; import gc; gc.collect()",
    "error": "c.embed(['abc']); raise SystemExit(0)",
    "atexit": "import atexit; atexit.register(lambda: c.embed(['abc'])); c.embed(['abc'])",
    "signal": "import os, signal\ntry: c.embed(['abc']); os.kill(os.getpid(), signal.SIGINT)\n"
              "except KeyboardInterrupt: pass",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_interpreter_ends(fake, program):
    code = f"from tessera import Client\nc = Client({fake.address!r}, timeout_s=30)\n{program}\n"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=PATIENCE_S,
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert time.monotonic() - began < 30


# --- forked

def forked(child):
    """What `child` returns, in a forked process that ends as programs do."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        signal.alarm(PATIENCE_S)
        try:
            said = child()
        except BaseException:
            said = traceback.format_exc()
        os.write(write_end, pickle.dumps(said))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return pickle.loads(said)


def test_a_forked_child_has_a_connection_of_its_own(fake):
    with Client(fake.address, timeout_s=30) as used, Client(fake.address, timeout_s=30) as unused:
        used.embed(["abc"])
        for client in (used, unused):
            before = greeted_as(fake)
            for close in (False, True):
                assert forked(lambda: (client.embed(["abcd"])[0, 0],
                                       close and client.close())[0]) == 4
            assert len(greeted_as(fake)) == len(before) + 2, "one for each child"
            assert client.embed(["abc"])[0, 0] == 3, "the parent's is as it was"


def test_a_fork_in_the_middle_of_calls(fake):
    stop = threading.Event()
    with Client(fake.address, timeout_s=30) as client:
        def keep_busy():
            while not stop.is_set():
                client.embed(["abc"] * 50)

        busy = [threading.Thread(target=keep_busy) for _ in range(3)]
        for thread in busy:
            thread.start()
        try:
            for _ in range(20):
                assert forked(lambda: client.embed(["abcd"])[0, 0]) == 4
        finally:
            stop.set()
            for thread in busy:
                thread.join()


def test_a_fork_of_a_fork(fake):
    with Client(fake.address, timeout_s=30) as client:
        client.embed(["abc"])
        assert forked(lambda: (client.embed(["ab"])[0, 0],
                               forked(lambda: client.embed(["a"])[0, 0]))) == (2, 1)


def test_dropping_and_collecting_in_a_child(fake):
    clients = [Client(fake.address, timeout_s=30)]
    clients[0].embed(["abc"])

    def child():
        clients.clear()
        gc.collect()
        return "ended"

    assert forked(child) == "ended"
    assert clients[0].embed(["abc"])[0, 0] == 3


def test_timeouts_hold_in_a_child():
    with FakeCoordinator(lambda *_: []) as silent, Client(silent.address) as client:
        with pytest.raises(TesseraError):
            client.embed(["a"], timeout_s=0.1)

        def child():
            began = time.monotonic()
            with pytest.raises(TesseraError):
                client.embed(["a"], timeout_s=0.3)
            return time.monotonic() - began

        assert 0.28 < forked(child) < 1.3


# --- multiprocessing

def embed_with(client, texts):
    return client.embed(texts)


def raise_with(client, which):
    if which == "items":
        raise EmbedError([ItemError(0, ErrorCode.EMPTY_TEXT, "as said")], np.zeros((1, 4)))
    client.embed(["a"], dimensions=64.0)


def ways():
    return [multiprocessing.get_context(way) for way in multiprocessing.get_all_start_methods()]


@pytest.mark.parametrize("context", ways(), ids=lambda context: context.get_start_method())
def test_pools(fake, context):
    with Client(fake.address, timeout_s=30) as client:
        client.embed(["abc"])
        with context.Pool(2) as pool:
            rows = pool.starmap(embed_with, [(client, ["a"] * n) for n in range(1, 6)])
            assert [len(row) for row in rows] == [1, 2, 3, 4, 5]
            with pytest.raises(EmbedError, match="EMPTY_TEXT: 1 items have no vector; item 0: as"):
                pool.apply_async(raise_with, (client, "items")).get(PATIENCE_S)
            with pytest.raises(TypeError, match="64.0"):
                pool.apply_async(raise_with, (client, "type")).get(PATIENCE_S)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
            assert executor.submit(embed_with, client, ["abc"]).result(PATIENCE_S)[0, 0] == 3
            with pytest.raises(EmbedError, match="as said"):
                executor.submit(raise_with, client, "items").result(PATIENCE_S)
        assert client.embed(["abc"])[0, 0] == 3
