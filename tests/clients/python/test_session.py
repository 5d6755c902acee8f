"""The rules of a connection and its jobs, driven by hand: no socket, no thread, no clock."""

import gc
import math

import numpy as np
import pytest

from tessera import ErrorCode, JobConflict
from tessera.errors import TesseraError
from tessera.job_state import JobState
from tessera.protocol import Type, digest_of, pack, unpack
from tessera.requests import Request
from tessera.session import HELLO_AGAIN_S, SILENCE_S, Session
from tessera.source import Source
from tessera.waiting import Deadline

SPEC = {1: "", 2: False, 3: "", 4: 0, 5: 0, 6: 0, 7: 0}


def ranges(*pairs):
    return np.array(pairs, dtype="<u4").tobytes()


class Driven:
    """A session, and its coordinator as the test plays it."""

    def __init__(self, minor=3):
        self.session = Session("test", "tenant", "")
        self.minor = minor
        self.now = 100.0
        self.connect()

    def connect(self, epoch=1, ledger="ledger"):
        self.session.on_connected(self.now)
        hello, = self.turn(Type.CLIENT_HELLO)
        self.hear(Type.SERVER_HELLO, {1: self.minor, 3: epoch, 5: ledger})
        return hello

    def hear(self, kind, fields, payload=b""):
        self.session.on_message(pack(kind, fields, payload), self.now)

    def turn(self, *kinds):
        """What is said now, of these kinds."""
        said = [unpack(frames[0]) for frames in self.session.turn(self.now)]
        return [fields for kind, fields in said if not kinds or kind in kinds]

    def open(self, job, job_id="id", accepted=(), delivered=(), state=0, window=8):
        """Adds the job and answers its OpenJob; gives that."""
        self.session.add_job(job)
        asked, = self.turn(Type.OPEN_JOB)
        self.hear(Type.JOB_OPENED, {1: asked[1], 2: job_id, 3: state, 4: window,
                                    5: ranges(*accepted), 6: ranges(*delivered)})
        return asked

    def acknowledge(self, number, code=ErrorCode.OK, job_id="id", message=""):
        self.hear(Type.CHUNK_ACK, {1: job_id, 2: number, 3: int(code), 4: message})

    def give(self, number, job_id="id"):
        self.hear(Type.CHUNK_RESULT, {1: job_id, 2: number, 3: {1: b"\0", 5: 1}}, b"\0\0\0\0")


def job_of(key="key"):
    return JobState(key, SPEC, 1, 1)


def chunks_of(texts):
    source = Source(texts, 1, "key")
    return [source.next_chunk() for _ in texts]


CHUNKS = chunks_of(["zero", "one", "two", "three"])


# --- requests

def test_a_request_that_nobody_waits_for_is_dropped_with_its_texts():
    driven = Driven()
    request = Request(Type.EMBED_REQUEST, {2: SPEC, 5: {}}, b"text", Deadline(math.inf))
    driven.session.ask(request)
    del request
    gc.collect()
    assert driven.turn() == []


def test_what_has_no_answer_is_said_again_on_a_fresh_connection():
    driven = Driven()
    request = Request(Type.EMBED_REQUEST, {2: SPEC, 5: {}}, b"text", Deadline(30))
    driven.session.ask(request)
    first, = driven.turn(Type.EMBED_REQUEST)
    assert driven.turn(Type.EMBED_REQUEST) == []
    driven.session.on_broken()
    assert driven.session.wants_connection
    driven.connect()
    again, = driven.turn(Type.EMBED_REQUEST)
    assert again[1] == first[1]
    driven.hear(Type.EMBED_REPLY, {1: first[1]})
    assert request.settled() and driven.turn(Type.EMBED_REQUEST) == []


def test_a_silent_coordinator_gets_a_fresh_connection_and_more_and_more_time():
    driven, waits = Driven(), []
    for _ in range(5):
        began = driven.now
        while not driven.session.wants_connection:
            driven.now += 0.25
            driven.turn()
        waits.append(driven.now - began)
        driven.session.on_connected(driven.now)
    assert waits == [SILENCE_S, 2 * SILENCE_S, 3 * SILENCE_S, 4 * SILENCE_S, 4 * SILENCE_S]


def test_a_process_that_stood_still_hears_first_what_has_come():
    driven = Driven()
    driven.now += 3600
    driven.turn()
    assert not driven.session.wants_connection


def test_the_hello_says_which_ledger_and_term_were_seen():
    session = Driven()
    seen = []
    for epoch, ledger in ((5, "a"), (4, "a"), (2, "b"), (3, "b")):
        hello = session.connect(epoch, ledger)
        seen.append((hello[5], hello[6]))
    assert seen == [("ledger", 1), ("a", 5), ("a", 5), ("b", 2)]


@pytest.mark.parametrize("hello", [{3: 2, 5: "ledger"}, {3: 1, 5: "another"}])
def test_a_restarted_coordinator_is_told_all_again(hello):
    driven, job = Driven(), job_of()
    driven.open(job)
    driven.now += HELLO_AGAIN_S
    driven.turn()
    driven.hear(Type.SERVER_HELLO, {1: 3, 3: 1, 5: "ledger"})
    assert driven.turn(Type.OPEN_JOB) == [], "the same one"
    driven.hear(Type.SERVER_HELLO, {1: 3, **hello})
    asked, = driven.turn(Type.OPEN_JOB)
    assert asked[6] == job.opener, "the same taking up"


# --- jobs

def test_a_job_from_its_opening_to_its_end():
    driven, job = Driven(), job_of()
    asked = driven.open(job, window=2)
    assert (asked[2], asked[5], asked[6]) == ("key", 1, job.opener)
    driven.turn()
    assert job.read_until == 2
    for chunk in CHUNKS[:2]:
        job.offer(chunk)
        job.offer(chunk)  # A caller that was interrupted says it twice.
    sent = driven.turn(Type.SUBMIT_CHUNK)
    assert [(fields[2], fields[3]) for fields in sent] == [(n, CHUNKS[n].items) for n in (0, 1)]
    assert job.read_until == 2
    driven.give(1)
    driven.turn()
    assert not job.ready, "not before the ledger has told that it has these items"
    driven.acknowledge(1)
    driven.turn()
    job.ready[1].safe = True
    acknowledged, = driven.turn(Type.RESULT_ACK)
    assert acknowledged[2] == 1 and job.read_until == 3
    driven.acknowledge(0)
    driven.give(0)
    job.end_input(2)
    close, = driven.turn(Type.CLOSE_JOB)
    driven.hear(Type.JOB_UPDATE, {1: close[1], 2: {1: "id", 4: 1, 8: 2}})
    job.ready[0].safe = True
    driven.turn()
    assert not job.over, "until the ledger has it"
    driven.hear(Type.JOB_UPDATE, {2: {1: "id", 4: 2, 8: 2}})
    driven.turn()
    assert job.over and job.failure is None


def test_what_the_ledger_has_is_told_by_its_digest():
    driven, job = Driven(), job_of()
    driven.open(job, accepted=[(0, 2)], delivered=[(0, 0)])
    driven.turn()
    for chunk in CHUNKS:
        job.offer(chunk)
    sent = {fields[2]: fields for fields in driven.turn(Type.SUBMIT_CHUNK)}
    for number in (0, 1, 2):
        chunk = CHUNKS[number]
        assert sent[number][4] == digest_of(1, chunk.items, chunk.payload) and 3 not in sent[number]
    assert 4 not in sent[3] and sent[3][3] == CHUNKS[3].items
    driven.give(1)
    driven.give(2)
    driven.acknowledge(0)
    driven.acknowledge(1)
    driven.turn()
    assert list(job.ready) == [1], "2 is not known to be of these items"
    driven.acknowledge(2, ErrorCode.CONFLICT, message="other items")
    assert isinstance(job.failure, JobConflict) and "other items" in job.failure.message


def test_a_digest_that_the_ledger_does_not_know_is_followed_by_the_items():
    driven, job = Driven(), job_of()
    driven.open(job, accepted=[(0, 0)])
    job.offer(CHUNKS[0])
    driven.turn()
    driven.acknowledge(0, ErrorCode.NOT_FOUND)
    driven.now += 1
    asked, = driven.turn(Type.OPEN_JOB)
    driven.hear(Type.JOB_OPENED, {1: asked[1], 2: "id", 4: 8})
    sent, = driven.turn(Type.SUBMIT_CHUNK)
    assert sent[3] == CHUNKS[0].items


def test_a_ledger_that_lost_an_accepted_chunk_fails_the_job():
    driven, job = Driven(), job_of()
    driven.open(job)
    job.offer(CHUNKS[0])
    driven.turn()
    driven.acknowledge(0)
    driven.session.on_broken()
    driven.connect()
    asked, = driven.turn(Type.OPEN_JOB)
    driven.hear(Type.JOB_OPENED, {1: asked[1], 2: "id", 4: 8})
    assert job.failure is not None and job.failure.code == ErrorCode.UNAVAILABLE


def test_an_answer_to_a_former_job_of_the_key_is_none_to_the_new_one():
    driven, former = Driven(), job_of()
    driven.open(former)
    former.offer(CHUNKS[0])
    driven.turn()
    later = job_of()
    driven.session.add_job(later)
    assert isinstance(former.failure, JobConflict)
    assert driven.session.wants_connection, "its chunk is unanswered"
    driven.connect()
    driven.turn()
    assert not driven.session.wants_connection
    another = job_of()
    driven.session.add_job(another)
    assert not driven.session.wants_connection, "nothing is"


@pytest.mark.parametrize("why", ["left", "failed"])
def test_so_it_is_when_the_former_job_is_gone(why):
    driven, former = Driven(), job_of()
    driven.open(former)
    former.offer(CHUNKS[0])
    driven.turn()
    if why == "left":
        driven.session.leave_job(former)
    else:
        driven.hear(Type.JOB_UPDATE, {2: {1: "id", 4: 3}})
        driven.turn()
    driven.session.add_job(job_of())
    assert driven.session.wants_connection


def test_a_job_that_was_taken_up_elsewhere():
    driven, job = Driven(), job_of()
    asked = driven.open(job)
    driven.turn()
    driven.hear(Type.ERROR_REPLY, {1: asked[1], 2: int(ErrorCode.CONFLICT), 3: "another client"})
    assert isinstance(job.failure, JobConflict)


@pytest.mark.parametrize("minor, told", [(2, False), (3, True)])
def test_leaving_is_said_to_who_knows_it(minor, told):
    driven, job = Driven(minor), job_of()
    driven.open(job)
    driven.turn()
    driven.session.leave_job(job)
    assert [fields[2] for fields in driven.turn(Type.LEAVE_JOB)] == [job.opener] * told
    assert job.failure is not None and job.failure.code == ErrorCode.CANCELLED


def test_leaving_says_first_what_the_caller_has():
    driven, job = Driven(), job_of()
    driven.open(job)
    job.offer(CHUNKS[0])
    driven.turn()
    driven.acknowledge(0)
    driven.give(0)
    driven.turn()
    job.ready[0].safe = True
    driven.session.leave_job(job)
    said = [unpack(frames[0]) for frames in driven.session.turn(driven.now)]
    assert [kind for kind, _ in said] == [Type.RESULT_ACK, Type.LEAVE_JOB] and said[0][1][2] == 0


def test_leaving_before_the_answer_is_said_after_it():
    driven, job = Driven(), job_of()
    driven.session.add_job(job)
    asked, = driven.turn(Type.OPEN_JOB)
    driven.session.leave_job(job)
    assert driven.turn(Type.LEAVE_JOB) == []
    driven.hear(Type.JOB_OPENED, {1: asked[1], 2: "id"})
    assert [fields[2] for fields in driven.turn(Type.LEAVE_JOB)] == [job.opener]


ENDS = [(1, 2, "2 chunks, and these items make 1"), (3, 2, "2 chunks, and these items make more"),
        (0, 2, "make 0")]


@pytest.mark.parametrize("count, ended_with, message", ENDS)
def test_a_job_that_ended_with_another_number_of_chunks(count, ended_with, message):
    driven, job = Driven(), job_of()
    driven.open(job, accepted=[(0, 1)], delivered=[(0, 1)], state=2)
    driven.hear(Type.JOB_UPDATE, {2: {1: "id", 4: 2, 8: ended_with}})
    for chunk in CHUNKS[:count]:
        job.offer(chunk)
    job.end_input(count)
    driven.turn()
    assert isinstance(job.failure, JobConflict) and message in job.failure.message


@pytest.mark.parametrize("code, kind", [(ErrorCode.INVALID_ARGUMENT, JobConflict),
                                        (ErrorCode.CONFLICT, JobConflict),
                                        (ErrorCode.INTERNAL, TesseraError)])
def test_a_refused_end(code, kind):
    driven, job = Driven(), job_of()
    driven.open(job)
    job.end_input(0)
    close, = driven.turn(Type.CLOSE_JOB)
    driven.hear(Type.ERROR_REPLY, {1: close[1], 2: int(code), 3: "below what was submitted"})
    assert type(job.failure) is kind


def test_the_word_of_the_end_is_asked_for_when_it_does_not_come():
    driven, job = Driven(), job_of()
    driven.open(job)
    job.end_input(0)
    close, = driven.turn(Type.CLOSE_JOB)
    driven.hear(Type.JOB_UPDATE, {1: close[1], 2: {1: "id", 8: 0}})
    assert driven.turn(Type.CLOSE_JOB) == []
    driven.now += 2.1
    close, = driven.turn(Type.CLOSE_JOB)
    driven.hear(Type.JOB_UPDATE, {1: close[1], 2: {1: "id", 4: 2, 8: 0}})
    driven.turn()
    assert job.over
