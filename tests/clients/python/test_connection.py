"""Calls end: with an answer, with a clear error, at their timeout, or when they are
interrupted."""

import logging
import math
import os
import signal
import socket
import threading
import time

import pytest

from fake_coordinator import FakeCoordinator, embed_reply, error_reply
from tessera import Client, ErrorCode, TesseraError
from tessera.protocol import Type

# Ends a hang; what was measured is printed.
SLACK_S = 1.0


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def raised_by(call):
    with pytest.raises(TesseraError) as raised:
        call()
    return raised.value


# --- timeouts

def says_nothing(kind, fields, payload):
    return []


def greets_only(kind, fields, payload):
    return None if kind in (Type.CLIENT_HELLO, Type.PING) else []


def is_full(kind, fields, payload):
    if kind in (Type.CLIENT_HELLO, Type.PING):
        return None
    return [error_reply(fields[1], ErrorCode.RESOURCE_EXHAUSTED, "full", 20)]


def has_no_room_for_clients(kind, fields, payload):
    return [error_reply(0, ErrorCode.RESOURCE_EXHAUSTED, "too many clients")]


SILENCES = [
    (says_nothing, ErrorCode.UNAVAILABLE, "no coordinator answers at tcp://"),
    (greets_only, ErrorCode.DEADLINE_EXCEEDED, "no answer from tcp://"),
    (is_full, ErrorCode.RESOURCE_EXHAUSTED, "full"),
    (has_no_room_for_clients, ErrorCode.UNAVAILABLE, "too many clients"),
]
CALLS = [lambda c, t: c.embed(["a"], timeout_s=t), lambda c, t: c.submit(["a"], timeout_s=t),
         lambda c, t: c.models(timeout_s=t), lambda c, t: c.cancel("id", timeout_s=t),
         lambda c, t: c.embed(["a"] * 5000, timeout_s=t)]


def check_timeout(client, call, timeout_s):
    began = time.monotonic()
    error = raised_by(lambda: call(client, timeout_s))
    excess_s = time.monotonic() - began - timeout_s
    assert -0.02 < excess_s < SLACK_S
    return error, excess_s


@pytest.mark.parametrize("answer, code, message", SILENCES,
                         ids=lambda value: getattr(value, "__name__", ""))
def test_timeouts_are_kept(answer, code, message):
    worst_s = 0.0
    with FakeCoordinator(answer) as fake, Client(fake.address) as client:
        for timeout_s in (0.3, 0.0, 0.05):
            for call in CALLS:
                error, excess_s = check_timeout(client, call, timeout_s)
                worst_s = max(worst_s, excess_s)
                if timeout_s >= 0.3:
                    assert error.code == code and message in error.message
    print(f"{answer.__name__}: at most {worst_s * 1000:.0f} ms over the timeout")


def test_timeouts_are_kept_where_nobody_is():
    with Client(f"127.0.0.1:{free_port()}") as client:
        for call in CALLS:
            error, _ = check_timeout(client, call, 0.3)
            assert error.code == ErrorCode.UNAVAILABLE
    with Client("ipc:///nowhere/at/all.sock") as client:
        assert check_timeout(client, CALLS[0], 0.2)[0].code == ErrorCode.UNAVAILABLE
    with Client("no-such-host.invalid:7400") as client:
        assert check_timeout(client, CALLS[0], 0.2)[0].code == ErrorCode.UNAVAILABLE


def test_timeouts_are_kept_beside_busy_threads():
    stop = threading.Event()
    held = {}

    def answer(kind, fields, payload):
        if kind == Type.EMBED_REQUEST and payload == b"held":
            held[fields[1]] = True
            return []
        return None

    def keep_busy():
        while not stop.is_set():
            client.embed(["a", "b"] * 200)

    with FakeCoordinator(answer) as fake, Client(fake.address) as client:
        threads = [threading.Thread(target=keep_busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            excess = [check_timeout(client, lambda c, t: c.embed(["held"], timeout_s=t), 0.2)[1]
                      for _ in range(5)]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        print(f"beside three busy threads: at most {max(excess) * 1000:.0f} ms over the timeout")


def test_infinity_waits_until_answered():
    began = time.monotonic()

    def late(kind, fields, payload):
        if kind != Type.EMBED_REQUEST or time.monotonic() - began > 1.0:
            return None
        assert fields[4] == 3_600_000, "the longest that a coordinator gives"
        return [error_reply(fields[1], ErrorCode.DEADLINE_EXCEEDED, "an hour is over")]

    for timeout_s in (math.inf, None):
        began = time.monotonic()
        with FakeCoordinator(late) as fake, Client(fake.address, timeout_s=timeout_s) as client:
            assert client.embed(["abc"])[0, 0] == 3


def test_the_coordinators_verdict_comes_before_our_own():
    def answer(kind, fields, payload):
        if kind != Type.EMBED_REQUEST:
            return None
        time.sleep(fields[4] / 1000)
        return [error_reply(fields[1], ErrorCode.UNAVAILABLE, "no worker serves this model yet",
                            1000)]

    with FakeCoordinator(answer) as fake, Client(fake.address) as client:
        error = raised_by(lambda: client.embed(["a"], timeout_s=1.5))
    assert "no worker serves this model yet" in error.message


@pytest.mark.parametrize("timeout_s", [math.inf, 60.0])
@pytest.mark.parametrize("call", CALLS)
def test_an_interrupt_ends_a_wait(call, timeout_s):
    with FakeCoordinator(greets_only) as fake, Client(fake.address) as client:
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        began = time.monotonic()
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            call(client, timeout_s)
        assert time.monotonic() - began < 0.2 + SLACK_S
        fake.answer = None
        assert client.embed(["abc"], timeout_s=30)[0, 0] == 3, "the next call is not disturbed"


# --- errors

def test_an_error_that_names_no_request_reaches_who_waits(caplog):
    def answer(kind, fields, payload):
        if kind in (Type.CLIENT_HELLO, Type.PING):
            return None
        return [error_reply(0, ErrorCode.INVALID_ARGUMENT, "field 4 has a wrong type")]

    with FakeCoordinator(answer) as fake, Client(fake.address, timeout_s=30) as client:
        for call in CALLS[:4]:
            with caplog.at_level(logging.WARNING, "tessera"):
                error = raised_by(lambda: call(client, 30))
            assert error.code == ErrorCode.INVALID_ARGUMENT
            assert error.message == "field 4 has a wrong type"
            assert "field 4 has a wrong type" in caplog.text
            caplog.clear()


def test_all_that_are_under_way_end_when_one_of_them_was_unreadable():
    arrived = []

    def answer(kind, fields, payload):
        if kind != Type.EMBED_REQUEST:
            return None
        arrived.append(fields[1])
        unreadable = error_reply(0, ErrorCode.INVALID_ARGUMENT, "unreadable")
        return [unreadable] if len(arrived) == 3 else []

    with FakeCoordinator(answer) as fake, Client(fake.address, timeout_s=30) as client:
        errors = []
        threads = [threading.Thread(target=lambda: errors.append(raised_by(
            lambda: client.embed(["a"])))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {error.message for error in errors} == {
            "unreadable (the answer names no request; 3 were under way, and all have ended)"}
        fake.answer = None
        assert client.embed(["abc"])[0, 0] == 3


def test_an_error_for_nobody_is_only_logged(caplog):
    said = []

    def answer(kind, fields, payload):
        if kind == Type.EMBED_REQUEST and not said:
            said.append(True)
            return [error_reply(0, ErrorCode.RESOURCE_EXHAUSTED, "slowly, please"),
                    error_reply(999, ErrorCode.INTERNAL, "for one that is gone"),
                    embed_reply(fields)]
        return None

    with FakeCoordinator(answer) as fake, Client(fake.address, timeout_s=30) as client:
        with caplog.at_level(logging.WARNING, "tessera"):
            assert client.embed(["abc"])[0, 0] == 3
        assert "slowly, please" in caplog.text


@pytest.mark.parametrize("reply", [
    error_reply(0, ErrorCode.UNAUTHENTICATED, "the key is not known"),
    error_reply(0, ErrorCode.UNSUPPORTED_VERSION, "speak version 7"),
    error_reply(0, ErrorCode.INVALID_ARGUMENT, "a tenant has at most 256 bytes"),
])
def test_a_refused_hello_ends_all_calls_at_once(reply):
    def answer(kind, fields, payload):
        return [reply] if kind == Type.CLIENT_HELLO else []

    with FakeCoordinator(answer) as fake, Client(fake.address, timeout_s=30) as client:
        for call in CALLS:
            began = time.monotonic()
            error = raised_by(lambda: call(client, 30))
            assert (int(error.code), error.message) == (reply[1][2], reply[1][3])
            assert time.monotonic() - began < 30


def test_unreadable_answers_are_logged_and_passed_over(caplog):
    def answer(kind, fields, payload):
        if kind != Type.EMBED_REQUEST:
            return None
        return [(99, {1: fields[1]}), (Type.EMBED_REPLY, {}), (Type.EMBED_REPLY, {1: [5]}),
                (Type.JOB_UPDATE, {1: 5, 2: 7}), (Type.ERROR_REPLY, {1: b"x", 4: "soon"}),
                (Type.PONG, "nothing"),
                (Type.CHUNK_RESULT, {1: "nobody's"}), (Type.JOB_OPENED, {1: 77}),
                embed_reply(fields)]

    with FakeCoordinator(answer) as fake, Client(fake.address, timeout_s=30) as client:
        with caplog.at_level(logging.WARNING, "tessera"):
            assert client.embed(["abc"])[0, 0] == 3
        assert "unreadable" in caplog.text


def test_an_answer_that_does_not_fit_is_an_error():
    def answer(kind, fields, payload):
        if kind != Type.EMBED_REQUEST:
            return None
        kind, said, rows = embed_reply(fields)
        return [(kind, said, rows[:-4])]

    with FakeCoordinator(answer) as fake, Client(fake.address, timeout_s=30) as client:
        assert raised_by(lambda: client.embed(["abc"])).code == ErrorCode.INTERNAL


@pytest.mark.parametrize("minor, refused", [(0, True), (1, False), (3, False)])
def test_prompt_names_only_go_to_who_knows_them(minor, refused):
    with FakeCoordinator(minor=minor) as fake, Client(fake.address, timeout_s=30) as client:
        if refused:
            for call in (client.embed, client.submit):
                error = raised_by(lambda: call(["a"], prompt_name="query"))
                assert "without prompt names" in error.message
            assert not fake.received
        else:
            client.embed(["a"], prompt_name="query")
            assert fake.received[-1][1][2][8] == "query"
        client.embed(["a"])
        assert 8 not in fake.received[-1][1][2]


# --- the end of a client

def test_a_closed_client_says_so_at_once():
    with FakeCoordinator() as fake:
        used, unused = Client(fake.address, timeout_s=30), Client(fake.address)
        used.embed(["a"])
        for client in (used, unused):
            client.close()
            client.close()
            for call in CALLS:
                error = raised_by(lambda: call(client, 30))
                assert error.code == ErrorCode.CANCELLED
                assert f"make another one with Client('{fake.address}')" in error.message


def test_close_ends_the_waits_of_other_threads():
    with FakeCoordinator(greets_only) as fake:
        client = Client(fake.address, timeout_s=math.inf)
        errors = []
        threads = [threading.Thread(target=lambda call=call: errors.append(raised_by(
            lambda: call(client, None)))) for call in CALLS]
        for thread in threads:
            thread.start()
        while len(fake.received) < len(CALLS):
            time.sleep(0.01)
        client.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert [error.code for error in errors] == [ErrorCode.CANCELLED] * len(CALLS)


def test_close_is_prompt_wherever_the_coordinator_is():
    for answer in (None, greets_only, says_nothing):
        with FakeCoordinator(answer) as fake:
            client = Client(fake.address)
            with pytest.raises(TesseraError):
                client.embed(["a"], timeout_s=0.1 if answer else 0)
            began = time.monotonic()
            client.close()
            assert time.monotonic() - began < 1.5 + SLACK_S


def test_a_signal_handler_may_use_and_close_the_client():
    with FakeCoordinator(lambda k, f, p: [] if p == b"held" else None) as fake:
        client = Client(fake.address, timeout_s=math.inf)
        answered = []

        def ring(*_):
            answered.append(client.embed(["abc"])[0, 0])
            client.close()

        before = signal.signal(signal.SIGALRM, ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            assert raised_by(lambda: client.embed(["held"])).code == ErrorCode.CANCELLED
        finally:
            signal.signal(signal.SIGALRM, before)
        assert answered == [3]


def test_a_coordinator_that_comes_late_is_found():
    port = free_port()
    with Client(f"127.0.0.1:{port}", timeout_s=60) as client:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(client.embed(["abc"])))
        thread.start()
        time.sleep(0.3)
        with FakeCoordinator(port=port):
            thread.join(60)
        assert answers and answers[0][0, 0] == 3


def test_over_ipc_and_ipv6(tmp_path):
    where = [f"ipc://{tmp_path}/t.sock"]
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
            where.append("tcp://[::1]:*")
        except OSError:
            print("no IPv6 here")
    for address in where:
        with FakeCoordinator(bind=address) as fake, Client(fake.address, timeout_s=30) as client:
            assert client.embed(["abc"])[0, 0] == 3
