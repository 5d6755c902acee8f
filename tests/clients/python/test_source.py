"""Reading a job's items: what is cut depends on the items alone, and an exception at any point
loses none of them."""

import itertools
import sys

import numpy as np
import pytest

from tessera import ErrorCode, TesseraError
from tessera import source as under_test
from tessera.source import CHUNK_BYTES_MAX, Source

TEXTS = [f"text {i}" for i in range(70)]


def read_all(source):
    chunks = []
    while True:
        chunk = source.next_chunk()
        if chunk is None:
            return chunks
        chunks.append(chunk)


def texts_of(chunks):
    """All texts in order; checks that the chunks follow each other without a gap."""
    texts = []
    for number, chunk in enumerate(chunks):
        assert (chunk.number, chunk.first_index) == (number, len(texts))
        at = 0
        for size in np.frombuffer(chunk.items[1], "<u4").tolist():
            texts.append(chunk.payload[at:at + size].decode())
            at += size
        assert len(texts) == chunk.first_index + chunk.count
    return texts


@pytest.mark.parametrize("chunk_items", [1, 7, 32, 33, 70, 71, 4096])
@pytest.mark.parametrize("count", [0, 1, 32, 70])
def test_cuts_by_number(chunk_items, count):
    source = Source(TEXTS[:count], chunk_items, "key")
    chunks = read_all(source)
    assert texts_of(chunks) == TEXTS[:count]
    assert [chunk.count for chunk in chunks[:-1]] == [chunk_items] * (len(chunks) - 1)
    assert source.total == len(chunks) == -(-count // chunk_items)
    assert source.next_chunk() is None


def cut_in_words(sizes, chunk_items):
    """The rule, said once more: a chunk ends before the item with which it would exceed a
    limit."""
    counts, size = [], 0
    for item in sizes:
        if counts and counts[-1] and (counts[-1] >= chunk_items or size + item > CHUNK_BYTES_MAX):
            counts.append(0)
            size = 0
        counts = counts or [0]
        counts[-1] += 1
        size += item
    return counts


@pytest.mark.parametrize("seed", range(20))
def test_cuts_by_bytes(seed):
    random = np.random.default_rng(seed)
    sizes = random.choice([0, 1, 1000, 200_000, 600_000, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1],
                          size=80).tolist()
    source = Source((bytes(size) for size in sizes), 40, "key")
    assert [chunk.count for chunk in read_all(source)] == cut_in_words(sizes, 40)


def test_what_is_too_long_for_the_wire_is_an_error_of_its_own():
    long = b"x" * ((4 << 20) + 1)
    chunk, = read_all(Source(["a", long, "b"], 10, "key"))
    assert chunk.count == 3 and chunk.payload == b"ab"
    assert {i: error.code for i, error in chunk.errors.items()} == {1: ErrorCode.TOO_LONG}


# --- exceptions out of the items

class Stubborn:
    """Goes on after it has raised, without the item that it was at."""

    def __init__(self, raises_at):
        self.at = -1
        self.raises_at = raises_at

    def __iter__(self):
        return self

    def __next__(self):
        self.at += 1
        if self.at == self.raises_at:
            raise OSError("the drive went away")
        if self.at >= len(TEXTS):
            raise StopIteration
        return TEXTS[self.at]


def generator(raises_at):
    for i, text in enumerate(TEXTS):
        if i == raises_at:
            raise OSError("the drive went away")
        yield text


@pytest.mark.parametrize("items", [Stubborn, generator, lambda at: map(str, Stubborn(at)),
                                   lambda at: itertools.chain(["x"], Stubborn(at))])
@pytest.mark.parametrize("raises_at", [0, 1, 31, 32, 50, 69])
def test_items_that_raise_fail_for_good(items, raises_at):
    source = Source(items(raises_at), 10, "my-key")
    chunks = []
    with pytest.raises(OSError):
        while True:
            chunks.append(source.next_chunk())
    assert texts_of(chunks) in (TEXTS[:len(chunks) * 10], ["x", *TEXTS][:len(chunks) * 10])
    for _ in range(3):
        with pytest.raises(TesseraError, match="key='my-key' to go on") as raised:
            source.next_chunk()
        assert "the drive went away" in str(raised.value)
    assert source.total is None


class Getter:
    """A sequence of the old kind, whose reading fails once: Python goes on at the same place."""

    def __init__(self):
        self.failed = False

    def __getitem__(self, index):
        if index == 25 and not self.failed:
            self.failed = True
            raise OSError("once")
        return TEXTS[index]


def test_a_position_that_did_not_move_is_read_on():
    source = Source(Getter(), 10, "key")
    chunks = [source.next_chunk() for _ in range(2)]
    with pytest.raises(OSError):
        source.next_chunk()
    assert texts_of(chunks + read_all(source)) == TEXTS


def test_a_wrong_item_fails_each_time_and_is_named():
    source = Source(TEXTS[:25] + [None] + TEXTS[26:], 10, "key")
    assert texts_of([source.next_chunk(), source.next_chunk()]) == TEXTS[:20]
    for _ in range(3):
        with pytest.raises(TypeError, match="item 25 is None"):
            source.next_chunk()


# --- exceptions between any two steps

class Interrupt(BaseException):
    pass


def raise_at_step(step):
    """A trace function that raises at the n-th instruction of the reading code."""
    left = [step]

    def trace(frame, event, _):
        if frame.f_code.co_filename != under_test.__file__:
            return None
        frame.f_trace_opcodes = True
        return count

    def count(frame, event, _):
        if event == "opcode":
            left[0] -= 1
            if left[0] == 0:
                raise Interrupt
        return count

    return trace


INPUTS = [list, tuple, iter, lambda texts: (text for text in texts), lambda texts: np.array(texts),
          lambda texts: {text: 0 for text in texts}.keys(), lambda texts: map(str, texts)]


@pytest.mark.parametrize("make", INPUTS, ids=["list", "tuple", "iterator", "generator", "array",
                                              "keys", "map"])
def test_an_interrupt_at_any_step_loses_and_shifts_nothing(make):
    texts = TEXTS[:12]
    step = ended = 0
    sys.settrace(raise_at_step(10**9))  # Python 3.12 counts instructions from the second time on.
    read_all(Source(make(texts), 5, "key"))
    sys.settrace(None)
    while not ended:
        step += 1
        source, chunks, interrupted = Source(make(texts), 5, "key"), [], 0
        sys.settrace(raise_at_step(step))
        try:
            while source.next_chunk() is not None:
                chunks.append(source.last)
            ended = 1
        except Interrupt:
            interrupted = 1
        finally:
            sys.settrace(None)
        if not interrupted:
            break
        if source.last is not None and source.number > len(chunks):
            chunks.append(source.last)  # It was cut, and the interrupt came before we had it.
        try:
            chunks += read_all(source)
        except TesseraError as error:
            assert "what it took from the iterator is lost" in error.message
            assert texts_of(chunks) == texts[:len(chunks) * 5]
            assert make is INPUTS[-1], "only of what cannot be looked into"
            continue
        assert texts_of(chunks) == texts
    assert step > 300, "it was interrupted at every step"
