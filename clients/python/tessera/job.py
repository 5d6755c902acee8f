"""Jobs: any number of items through a bounded window, with resume."""

import dataclasses
import secrets
import time
from typing import TYPE_CHECKING, Dict, Iterable, Iterator, List, Optional, Set, Tuple

import numpy as np

from .connection import Connection, error_of
from .protocol import (TEXT_BYTES_MAX, ErrorCode, Fields, Item, ItemError, Progress, TesseraError,
                       Type, item_bytes, pack_items, ranges, read_results)

if TYPE_CHECKING:
    from .client import Client

CHUNK_BYTES_MAX = 1 << 20
ANSWER_WAIT_S = 10.0


@dataclasses.dataclass
class JobResult:
    """The vectors of one chunk."""

    chunk: int
    first_index: int       # Of the chunk's first item among all items.
    vectors: np.ndarray    # [items, width]; rows of failed items are NaN.
    errors: List[ItemError]  # Their index counts from the chunk's first item.
    token_counts: np.ndarray
    tokens_cut: np.ndarray


@dataclasses.dataclass
class _Chunk:
    first_index: int
    count: int
    errors: Dict[int, ItemError]


@dataclasses.dataclass
class _Outgoing:
    fields: Fields
    payload: bytes
    send_at: float = 0.0
    refusals: int = 0


class Job:
    """A job. Iterating over it reads the items, submits them within the coordinator's window, and gives
    results as they are done, in any order (JobResult.first_index says whose they are). Asking for the
    next result tells the coordinator that the one before is safe; leaving the loop early leaves the
    job open for whoever submits the same key again."""

    def __init__(self, client: "Client", connection: Connection, items: Iterable[Item], key: str,
                 spec: Fields, chunk_items: int, priority: int):
        self.key = key or "py-" + secrets.token_hex(16)
        self.id = ""
        self.opened = False
        self.failure: Optional[TesseraError] = None
        self._client = client
        self._connection = connection
        self._items = iter(items)
        self._open = {2: self.key, 3: spec, 4: priority}
        self._chunk_items = chunk_items
        self._open_request = 0
        self._open_at = 0.0
        self._window = 1
        self._waiting_item: Optional[Tuple[int, bytes, bool]] = None
        self._next_chunk = 0
        self._next_index = 0
        self._total: Optional[int] = None
        self._accepted: Set[int] = set()       # In the ledger, result not acknowledged.
        self._delivered: List[Tuple[int, int]] = []  # Acknowledged in earlier runs.
        self._chunks: Dict[int, _Chunk] = {}   # Read, not acknowledged.
        self._outgoing: Dict[int, _Outgoing] = {}
        self._results: Dict[int, Tuple[Fields, bytes]] = {}
        self._given: Set[int] = set()          # Handed to the caller, not acknowledged.
        self._acknowledged: Set[int] = set()
        self._close_at: Optional[float] = None
        self._close_request = 0
        self._closed = False
        self._state = 0

    # --- for the caller

    def __iter__(self) -> Iterator[JobResult]:
        while True:
            result = self._next()
            if result is None:
                return
            yield result
            self.acknowledge(result.chunk)

    def progress(self) -> Progress:
        """Where the job stands, as the coordinator counts."""
        jobs = self._client.status(self.id)
        if not jobs:
            raise TesseraError(ErrorCode.NOT_FOUND, f"the coordinator does not know job {self.id}")
        return jobs[0]

    def cancel(self) -> Progress:
        return self._client.cancel(self.id)

    def acknowledge(self, chunk: int) -> None:
        """Says that the chunk's result is safe. Iterating does it for the result before."""
        with self._client._lock:
            self._given.discard(chunk)
            self._chunks.pop(chunk, None)
            self._accepted.discard(chunk)
            self._acknowledged.add(chunk)
            self._connection.send(Type.RESULT_ACK, {1: self.id, 2: chunk})

    # --- driven by iteration

    def _next(self) -> Optional[JobResult]:
        while True:
            if self.failure is not None:
                raise self.failure
            self._read_within_window()
            if self._client._turn(self._ready_or_over, 0.1) and self.failure is None:
                break
        with self._client._lock:
            number = self._ready()
            if number is None:
                self._forget()
                return None
            return self._take(number)

    def _ready(self) -> Optional[int]:
        return next((number for number in self._results if number in self._chunks), None)

    def _ready_or_over(self) -> bool:
        over = self._total is not None and not self._chunks and self._closed
        return over or self.failure is not None or self._ready() is not None

    def _forget(self) -> None:
        # The last acknowledgements are on their way; nothing comes back that must be waited for.
        if self in self._client._jobs:
            self._client._jobs.remove(self)

    def _take(self, number: int) -> JobResult:
        fields, payload = self._results.pop(number)
        chunk = self._chunks[number]
        self._given.add(number)
        results = read_results(fields, payload, chunk.count, chunk.errors)
        return JobResult(number, chunk.first_index, results.vectors, results.errors,
                         results.token_counts, results.tokens_cut)

    def _read_within_window(self) -> None:
        while self._total is None and (len(self._chunks) < self._window):
            data, errors = self._cut_chunk()  # Calls the caller's iterator, so without the lock.
            with self._client._lock:
                self._add_chunk(data, errors)

    def _add_chunk(self, data: List[Tuple[int, bytes]], errors: Dict[int, ItemError]) -> None:
        if not data:
            self._total = self._next_chunk
            self._close_at = 0.0
            return
        number = self._next_chunk
        self._next_chunk += 1
        first, self._next_index = self._next_index, self._next_index + len(data)
        if any(a <= number <= b for a, b in self._delivered):
            return
        self._chunks[number] = _Chunk(first, len(data), errors)
        if number not in self._accepted:
            fields, payload = pack_items(data)
            self._outgoing[number] = _Outgoing({1: self.id, 2: number, 3: fields}, payload)

    def _cut_chunk(self) -> Tuple[List[Tuple[int, bytes]], Dict[int, ItemError]]:
        data: List[Tuple[int, bytes]] = []
        errors: Dict[int, ItemError] = {}
        size = 0
        while len(data) < self._chunk_items:
            if self._waiting_item is None:
                try:
                    kind, content = item_bytes(next(self._items))
                except StopIteration:
                    break
                self._waiting_item = (kind, content, len(content) > TEXT_BYTES_MAX)
            kind, content, too_long = self._waiting_item
            if too_long:
                kind, content = 0, b""
                errors[len(data)] = ItemError(len(data), ErrorCode.TOO_LONG,
                                              "the text is longer than 4 MiB")
            if data and size + len(content) > CHUNK_BYTES_MAX:
                break
            data.append((kind, content))
            size += len(content)
            self._waiting_item = None
        return data, errors

    # --- driven by the client's pump

    def send_due(self) -> None:
        now = time.monotonic()
        if not self._connection.ready or self.failure is not None:
            return
        if not self.opened:
            if now >= self._open_at:
                self._open_request = self._connection.next_id()
                self._open_at = now + ANSWER_WAIT_S
                self._connection.send(Type.OPEN_JOB, {1: self._open_request, **self._open})
            return
        for chunk in self._outgoing.values():
            if now >= chunk.send_at:
                chunk.send_at = now + ANSWER_WAIT_S
                self._connection.send(Type.SUBMIT_CHUNK, chunk.fields, chunk.payload)
        if self._close_at is not None and now >= self._close_at and not self._outgoing:
            self._close_at = now + ANSWER_WAIT_S
            self._close_request = self._connection.next_id()
            self._connection.send(Type.CLOSE_JOB, {1: self._close_request, 2: self.id,
                                                   3: self._total})

    def reconnect(self) -> None:
        self.opened = False
        self._open_at = 0.0

    def handle(self, message_type: int, fields: Fields, payload: bytes) -> bool:
        """True when the message was for this job."""
        if message_type == Type.ERROR_REPLY and fields.get(1, 0) == self._close_request != 0:
            error, retry_ms = error_of(fields)
            self._close_at = time.monotonic() + retry_ms / 1000
            self.failure = None if retry_ms else error
            return True
        if message_type in (Type.JOB_OPENED, Type.ERROR_REPLY):
            if fields.get(1, 0) != self._open_request or not self._open_request:
                return False
            if message_type == Type.JOB_OPENED:
                self._on_opened(fields)
            else:
                self._on_open_refused(fields)
            return True
        if message_type == Type.JOB_UPDATE and fields.get(2, {}).get(1) == self.id and self.id:
            self._state = fields[2].get(4, 0)
            if self._state == 3:
                self.failure = TesseraError(ErrorCode.CANCELLED, "the job was cancelled")
            if self._state == 2:  # All delivered: what is not here went to an earlier run.
                for number in set(self._chunks) - set(self._results) - self._given:
                    del self._chunks[number]
            if self._total is not None and fields[2].get(8, 0) == self._total:
                self._closed, self._close_at = True, None
            return False  # It may be an answer as well.
        if fields.get(1) != self.id or not self.id:
            return False
        if message_type == Type.CHUNK_ACK:
            self._on_chunk_ack(fields)
        elif message_type == Type.CHUNK_RESULT:
            self._on_result(fields, payload)
        else:
            return False
        return True

    def _on_opened(self, fields: Fields) -> None:
        delivered, accepted = ranges(fields.get(6, b"")), set()
        for first, last in ranges(fields.get(5, b"")):
            accepted.update(c for c in range(first, last + 1)
                            if not any(a <= c <= b for a, b in delivered))
        if fields.get(3, 0) == 3:
            self.failure = TesseraError(ErrorCode.CANCELLED, "the job was cancelled")
        if not self.id:
            self.id = fields.get(2, "")
            self._window = max(1, fields.get(4, 1))
            self._delivered = delivered
        elif self.id != fields.get(2) or not self._accepted - self._given - set(
                self._results) <= accepted:
            self.failure = TesseraError(ErrorCode.UNAVAILABLE,
                                        "the coordinator came back without this job's ledger")
        self.opened = True
        for chunk in accepted & self._acknowledged:  # The acknowledgement was lost.
            self._connection.send(Type.RESULT_ACK, {1: self.id, 2: chunk})
        self._accepted = accepted - self._acknowledged
        for number in list(self._outgoing):
            if number in self._accepted:
                del self._outgoing[number]
            else:
                self._outgoing[number].send_at = 0.0
        if self._total is not None and not self._closed:
            self._close_at = 0.0

    def _on_open_refused(self, fields: Fields) -> None:
        error, retry_ms = error_of(fields)
        if retry_ms:
            self._open_at = time.monotonic() + retry_ms / 1000
        else:
            self.failure = error

    def _on_chunk_ack(self, fields: Fields) -> None:
        number, code = fields.get(2, 0), ErrorCode(fields.get(3, 0))
        chunk = self._outgoing.get(number)
        if chunk is None:
            return
        if code == ErrorCode.OK:
            self._accepted.add(number)
            del self._outgoing[number]
        elif code in (ErrorCode.RESOURCE_EXHAUSTED, ErrorCode.UNAVAILABLE):
            back_off_s = min(5.0, 0.05 * 2 ** min(chunk.refusals, 10))
            chunk.refusals += 1
            chunk.send_at = time.monotonic() + max(fields.get(5, 0) / 1000, back_off_s)
        elif code == ErrorCode.NOT_FOUND:  # A restarted coordinator: open the job first.
            self.opened, self._open_at, chunk.send_at = False, time.monotonic() + 0.05, 0.0
        else:
            self.failure = TesseraError(code, f"chunk {number} was refused: {fields.get(4, '')}")

    def _on_result(self, fields: Fields, payload: bytes) -> None:
        number = fields.get(2, 0)
        if number in self._acknowledged:
            self._connection.send(Type.RESULT_ACK, {1: self.id, 2: number})
        elif number not in self._given and number not in self._results:
            self._outgoing.pop(number, None)
            self._accepted.add(number)
            self._results[number] = (fields.get(3, {}), payload)
