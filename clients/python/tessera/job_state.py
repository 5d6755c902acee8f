"""A job as the connection sees it. Pure rules: no socket, thread or clock; time is an argument.

Life of a chunk: offered by the caller, sent, acknowledged by the coordinator (it is in the
ledger), result here, given to the caller, declared safe by the caller, forgotten. A chunk that the
ledger has from an earlier run is sent as a digest only: other items under its number are a
conflict.
"""

import dataclasses
import math
import secrets
import weakref
from typing import Any, Dict, List, Optional, Set

from .chunk_set import ChunkSet
from .errors import ErrorCode, ItemError, TesseraError, failure
from .protocol import (Fields, Frames, JobState as State, Type, back_off_s,
                       digest_of, error_of, pack, ranges, too_old)
from .waiting import Bell

ANSWER_WAIT_S = 10.0  # What got no answer for so long is sent again; sending twice is harmless.
END_WAIT_S = 2.0
CHECKS_MAX = 64  # Chunks of an earlier run whose digests are under way.


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Items cut from the caller's input."""

    number: int
    first_index: int  # Of its first item among all items.
    count: int
    items: Fields
    payload: bytes
    errors: Dict[int, ItemError]  # Of items that are not sent, by their index in the chunk.


class Ready:
    """A result that the caller may take. The caller sets `holder` (who looks at it now) and, once
    and for good, `safe`; all else is the connection's."""

    def __init__(self, chunk: Chunk, fields: Fields, payload: bytes):
        self.chunk = chunk
        self.fields = fields
        self.payload = payload
        self.holder: "Optional[weakref.ref[Any]]" = None
        self.safe = False


class _Outgoing:
    def __init__(self, chunk: Chunk):
        self.chunk = chunk
        self.send_at = 0.0
        self.refusals = 0


class JobState:
    """Owned by the connection's thread. The caller reads what is marked so, and waits on the
    bell."""

    def __init__(self, key: str, spec: Fields, priority: int, chunk_items: int):
        # For the caller.
        self.key = key
        self.id = ""
        self.failure: Optional[TesseraError] = None
        self.refusal: Optional[TesseraError] = None  # The last one that asked to try again.
        self.over = False  # All results were declared safe, and the ledger has that.
        self.read_until = 0  # Chunks below this number may be offered.
        self.ready: Dict[int, Ready] = {}
        self.settled = 0  # Chunks that were offered and whose results need not be waited for.
        self.bell = Bell()
        # The connection's own.
        self._opener = secrets.randbits(63) | 1
        self._open_fields: Fields = {2: key, 3: spec, 4: priority, 5: chunk_items,
                                     6: self._opener}
        self._opened = False  # On this connection.
        self._open_request = 0
        self._open_at = 0.0
        self._open_refusals = 0
        self._window = 1
        self._accepted = ChunkSet()  # In the ledger, as far as we know,
        self._delivered = ChunkSet()  # declared safe in an earlier run, or
        self._safe = ChunkSet()  # in this one.
        self._offered = 0
        self._outgoing: Dict[int, _Outgoing] = {}
        self._in_flight: Set[int] = set()  # Offered or in the ledger, not safe.
        self._chunks: Dict[int, Chunk] = {}  # Offered, result not here, without their items.
        self._results: Dict[int, Any] = {}  # Of chunks that are not offered, or not checked yet.
        self._total: Optional[int] = None
        self._ended_with: Optional[int] = None  # Chunks, as the coordinator has it.
        self._closed = False  # The coordinator knows the end of the input,
        self._done = False  # and in the ledger all results are declared safe.
        self._close_at = math.inf
        self._close_request = 0
        self._unanswered = False

    # --- from the caller, on the connection's thread

    def offer(self, chunk: Chunk) -> None:
        """The next chunk of the input. One that was offered before does not count."""
        if chunk.number != self._offered or self.failure is not None:
            return
        if self._ended_with is not None and chunk.number >= self._ended_with:
            self._fail_for_another_end("more")
            return
        self._offered += 1
        self._outgoing[chunk.number] = _Outgoing(chunk)
        if chunk.number not in self._delivered:
            self._in_flight.add(chunk.number)
            self._chunks[chunk.number] = dataclasses.replace(chunk, items={}, payload=b"")

    def end_input(self, total: int) -> None:
        if self._total is None:
            self._total = total
            self._close_at = 0.0
            if self._ended_with is not None:
                self._on_end(self._ended_with)

    def fail(self, error: TesseraError) -> None:
        if self._all_is_safe():
            self.over = True  # The caller has all; what became of the job since is not its loss.
        elif self.failure is None:
            self.failure = error
        self._unanswered = self.unanswered()
        self._outgoing.clear()
        self.bell.ring()

    @property
    def opener(self) -> int:
        """Tells this taking up of the job from others."""
        return self._opener

    def opening(self) -> int:
        """The request that asks for the job, while it has no answer on this connection; else 0."""
        return 0 if self._opened else self._open_request

    def unanswered(self) -> bool:
        """Whether chunks were sent that may yet be acknowledged, also of a job that has failed: the
        answer would say the job and the number, not which Job of that key it was for."""
        return self._unanswered or any(entry.send_at > 0 for entry in self._outgoing.values())

    def opened(self) -> bool:
        """Whether the coordinator gives the job's results to this connection."""
        return self._opened and not self.over

    def leave(self) -> None:
        self.fail(left_early(self.key))

    # --- what is due

    def collect(self, now: float, minor: int, next_id: Any, out: List[Frames]) -> None:
        """Appends what is due, to a coordinator of this minor version, and tells the caller what
        has changed for it."""
        error = too_old(self._open_fields[3], minor)
        if error is not None:
            self.fail(error)
        if self.failure is None:
            if not self._opened:
                self._collect_open(now, next_id, out)
            else:
                self.collect_safe(out)
                self._collect_chunks(now, out)
                self._collect_close(now, next_id, out)
            self._publish(now)

    def next_due(self) -> float:
        if self.failure is not None:
            return math.inf
        if not self._opened:
            return self._open_at
        if self._outgoing:
            return min(entry.send_at for entry in self._outgoing.values())
        return self._close_at if self._total == self._offered else math.inf

    def under_way(self) -> bool:
        """Whether something was sent that has no answer yet."""
        waits = (entry.send_at > 0 for entry in self._outgoing.values())
        return self.failure is None and (not self._opened or any(waits) or self._close_request > 0)

    def _collect_open(self, now: float, next_id: Any, out: List[Frames]) -> None:
        if now >= self._open_at:
            self._open_request = next_id()
            self._open_at = now + ANSWER_WAIT_S
            out.append(pack(Type.OPEN_JOB, {1: self._open_request, **self._open_fields}))

    def collect_safe(self, out: List[Frames]) -> None:
        """Appends the acknowledgements of what the caller has declared safe."""
        for number, entry in list(self.ready.items()):
            if entry.safe:
                out.append(self._ack(number))
                self._safe.add(number)
                self._in_flight.discard(number)
                del self.ready[number]

    def _collect_chunks(self, now: float, out: List[Frames]) -> None:
        for number, entry in self._outgoing.items():
            if now < entry.send_at:
                continue
            entry.send_at = now + ANSWER_WAIT_S
            chunk = entry.chunk
            if self._ledger_has(number):
                digest = digest_of(chunk.count, chunk.items, chunk.payload)
                out.append(pack(Type.SUBMIT_CHUNK, {1: self.id, 2: number, 4: digest}))
            else:
                out.append(pack(Type.SUBMIT_CHUNK, {1: self.id, 2: number, 3: chunk.items},
                                chunk.payload))

    def _collect_close(self, now: float, next_id: Any, out: List[Frames]) -> None:
        if self._total == self._offered and not self._outgoing and now >= self._close_at:
            self._close_at = now + ANSWER_WAIT_S
            self._close_request = next_id()
            out.append(pack(Type.CLOSE_JOB, {1: self._close_request, 2: self.id, 3: self._total}))

    def _publish(self, now: float) -> None:
        for number in [n for n in self._results if n in self._chunks and n not in self._outgoing]:
            self.ready[number] = Ready(self._chunks.pop(number), *self._results.pop(number))
            self.bell.ring()
        settled = self._offered - len(self._chunks) - len(self.ready)
        until = self._may_read_until()
        over = self._done and self._all_is_safe()
        if self._all_is_safe() and not over and self._close_at == math.inf:
            self._close_at = now + END_WAIT_S  # Should the word of the end not come, we ask.
        if until > self.read_until or settled != self.settled or over and not self.over:
            self.read_until = max(until, self.read_until)
            self.settled = settled
            self.over = over
            self.bell.ring()

    def _may_read_until(self) -> int:
        if not self._opened or self._total is not None:
            return self.read_until
        room = self._window - len(self._in_flight)
        checks = self._window + CHECKS_MAX - len(self._outgoing)
        number = self._offered
        while checks > 0:
            if self._ledger_has(number):
                until = min(number + checks, max(self._accepted.end_of_run(number),
                                                 self._delivered.end_of_run(number)))
                checks -= until - number
                number = until
            elif room > 0:
                number, room, checks = number + 1, room - 1, checks - 1
            else:
                break
        return number

    def _all_is_safe(self) -> bool:
        return self._closed and not self._in_flight and not self._outgoing

    def _ledger_has(self, number: int) -> bool:
        return number in self._accepted or number in self._delivered

    def _ack(self, number: int) -> Frames:
        return pack(Type.RESULT_ACK, {1: self.id, 2: number})

    # --- from the coordinator

    def on_disconnected(self) -> None:
        self._opened = False
        self._open_at = 0.0
        self._open_request = self._close_request = 0

    def on_answer(self, message_type: int, fields: Fields, now: float) -> List[Frames]:
        """An answer to one of our requests, as `awaits` tells; gives what is to be said to it."""
        if message_type == Type.JOB_OPENED:
            return self._on_opened(fields)
        if message_type == Type.JOB_UPDATE:
            self._close_request = 0
            self._on_end(fields.get(2, {}).get(8, 0))
        elif message_type == Type.ERROR_REPLY:
            self._on_refused(fields, now)
        return []

    def awaits(self, request_id: int) -> bool:
        return request_id != 0 and request_id in (self._open_request, self._close_request)

    def _on_refused(self, fields: Fields, now: float) -> None:
        error, retry_ms = error_of(fields)
        self.refusal = error
        closing = fields.get(1, 0) == self._close_request
        if closing and error.code == ErrorCode.INVALID_ARGUMENT:
            # The ledger has chunks behind the end of these items.
            self.fail(failure(ErrorCode.CONFLICT, error.message))
        elif not retry_ms:
            self.fail(failure(error.code, error.message))
        elif closing:
            self._close_at = now + retry_ms / 1000
        else:
            self._open_at = now + back_off_s(self._open_refusals, retry_ms)
            self._open_refusals += 1

    def _on_opened(self, fields: Fields) -> List[Frames]:
        delivered = ChunkSet(ranges(fields.get(6, b"")))
        accepted = ChunkSet(ranges(fields.get(5, b"")))
        if fields.get(3, 0) == State.CANCELLED:
            self.fail(TesseraError(ErrorCode.CANCELLED, "the job was cancelled"))
            self.id = self.id or fields.get(2, "")
            return []
        out: List[Frames] = []
        if not self.id:
            self.id = fields.get(2, "")
            self._window = max(1, fields.get(4, 1))
            self._delivered = delivered
            self._in_flight.update(_those_not_in(accepted, delivered))
        elif self._lost_in(fields.get(2, ""), accepted, delivered):
            self.fail(TesseraError(ErrorCode.UNAVAILABLE, "the coordinator came back without this "
                                   "job's ledger; submit the items again"))
            return []
        else:
            out = [self._ack(n) for n in _those_not_in(accepted, delivered) if n in self._safe]
            self._in_flight = {n for n in self._in_flight if n < self._offered or n in accepted}
        self._accepted = accepted
        self._opened = True
        self._done = fields.get(3, 0) == State.DONE
        self._open_refusals = 0
        for entry in self._outgoing.values():
            entry.send_at = 0.0
        if self._total is not None and not self._closed:
            self._close_at = 0.0
        self.bell.ring()
        return out

    def _lost_in(self, job_id: str, accepted: ChunkSet, delivered: ChunkSet) -> bool:
        """Whether the ledger lacks a chunk that it had and whose items are not here any more."""
        known = (n for n in self._chunks if n not in self._outgoing and n not in self._results)
        return job_id != self.id or any(n not in accepted and n not in delivered for n in known)

    def on_chunk_ack(self, fields: Fields, now: float) -> None:
        number, code = fields.get(2, 0), ErrorCode(fields.get(3, 0))
        entry = self._outgoing.get(number)
        if entry is None:
            return  # A second acknowledgement, of a chunk that was sent twice.
        if code == ErrorCode.OK:
            self._accepted.add(number)
            del self._outgoing[number]
        elif code in (ErrorCode.RESOURCE_EXHAUSTED, ErrorCode.UNAVAILABLE):
            entry.send_at = now + back_off_s(entry.refusals, fields.get(5, 0))
            entry.refusals += 1
        elif code == ErrorCode.NOT_FOUND:
            # A coordinator that was restarted, or whose ledger lost the chunk: open the job anew.
            self._opened, entry.send_at = False, 0.0
            self._open_at = now + back_off_s(self._open_refusals, fields.get(5, 0))
            self._open_refusals += 1
        else:
            self.fail(failure(code, f"chunk {number} was refused: {fields.get(4, '')}"))

    def on_result(self, fields: Fields, payload: bytes) -> List[Frames]:
        number = fields.get(2, 0)
        if number in self._safe:
            return [self._ack(number)]
        if number not in self.ready and self.failure is None:
            self._results[number] = (fields.get(3, {}), payload)
        return []

    def _on_end(self, chunks: int) -> None:
        """The coordinator says how many chunks the job has: so many must the items make."""
        self._ended_with = chunks
        if self._offered > chunks:
            self._fail_for_another_end("more")
        elif self._total == chunks:
            self._closed, self._close_at = True, math.inf
        elif self._total is not None:
            self._fail_for_another_end(str(self._total))

    def _fail_for_another_end(self, chunks: str) -> None:
        self.fail(failure(ErrorCode.CONFLICT, f"the job with key {self.key!r} was closed with "
                          f"{self._ended_with} chunks, and these items make {chunks}: submit its "
                          "items again, or choose another key"))

    def on_progress(self, progress: Fields) -> None:
        state = progress.get(4, 0)
        if state == State.CANCELLED:
            self.fail(TesseraError(ErrorCode.CANCELLED, "the job was cancelled"))
            return
        if state == State.DONE or progress.get(8, 0):
            self._on_end(progress.get(8, 0))
        if state == State.DONE:
            self._done = True
            # What is not here was declared safe by an earlier run while this one was opened.
            for number in self._in_flight - set(self.ready) - set(self._results):
                self._in_flight.discard(number)
                self._chunks.pop(number, None)
            if progress.get(8, 0):
                self._delivered.add_range(0, progress[8] - 1)


def _those_not_in(some: ChunkSet, others: ChunkSet) -> List[int]:
    return [n for first, last in some.ranges() for n in range(first, last + 1) if n not in others]


def left_early(key: str) -> TesseraError:
    return TesseraError(ErrorCode.CANCELLED, f"this job was left; submit its items again with "
                                             f"key={key!r} to go on")
