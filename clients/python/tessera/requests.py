"""Questions that wait for their answer. Pure rules: no socket, thread or clock; time is an
argument."""

import math
import weakref
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from .errors import ErrorCode, TesseraError
from .protocol import (DEADLINE_MS_MAX, Fields, Frames, Type, back_off_s, error_of, pack,
                       too_old)
from .waiting import Bell, Deadline

# The coordinator's verdict at a deadline says more than our own: it is asked for a little earlier.
VERDICT_MS = 200


class Request:
    """A question as its asker holds it: whoever asks waits for `settled` on the bell.

    The table holds it weakly, so that what nobody waits for any more is dropped with its texts.
    """

    def __init__(self, message_type: Type, fields: Fields, payload: bytes, deadline: Deadline):
        self.message_type = message_type
        self.fields = fields
        self.payload = payload
        self.deadline = deadline
        self.bell = Bell()
        self.answer: Optional[Tuple[Fields, bytes]] = None
        self.error: Optional[TesseraError] = None
        self.refusal: Optional[TesseraError] = None  # The last one that asked to try again.

    def settled(self) -> bool:
        return self.answer is not None or self.error is not None

    def fail(self, error: TesseraError) -> None:
        self.error = error
        self.bell.ring()

    def frames(self, request_id: int, now: float) -> Frames:
        fields = {1: request_id, **self.fields}
        if self.message_type == Type.EMBED_REQUEST:
            fields[4] = self.deadline_ms(now)
        return pack(self.message_type, fields, self.payload)

    def deadline_ms(self, now: float) -> int:
        left_s = self.deadline.at - now
        if left_s * 1000 > DEADLINE_MS_MAX:
            return DEADLINE_MS_MAX
        left_ms = int(left_s * 1000)
        return max(1, left_ms - min(VERDICT_MS, left_ms // 10))


class _Entry:
    def __init__(self, request: Request):
        self.request = weakref.ref(request)
        self.send_at = 0.0
        self.sent = False  # Since the connection was made.
        self.refusals = 0


class RequestTable:
    """The requests of one client; owned by its connection's thread."""

    def __init__(self) -> None:
        self._entries: Dict[int, _Entry] = {}

    def add(self, request_id: int, request: Request) -> None:
        self._entries[request_id] = _Entry(request)

    def collect(self, now: float, minor: int, out: List[Frames]) -> None:
        """Appends what is due, to a coordinator of this minor version."""
        for request_id, entry, request in self._living():
            if entry.send_at > now:
                continue
            error = (too_old(request.fields[2], minor)
                     if request.message_type == Type.EMBED_REQUEST else None)
            if error is not None:
                del self._entries[request_id]
                request.fail(error)
            else:
                out.append(request.frames(request_id, now))
                entry.send_at, entry.sent = math.inf, True

    def next_due(self) -> float:
        return min((entry.send_at for entry in self._entries.values()), default=math.inf)

    def settle(self, fields: Fields, payload: bytes) -> bool:
        """An answer; True when it is one of ours."""
        entry = self._entries.pop(fields.get(1, 0), None)
        request = entry.request() if entry else None
        if request is not None:
            request.answer = fields, payload
            request.bell.ring()
        return entry is not None

    def refuse(self, fields: Fields, now: float) -> bool:
        """An ErrorReply; True when it answers one of ours."""
        request_id = fields.get(1, 0)
        entry = self._entries.get(request_id)
        request = entry.request() if entry else None
        if entry is None or request is None:
            self._entries.pop(request_id, None)
            return entry is not None
        error, retry_ms = error_of(fields)
        # Of the longest deadline that the coordinator gives, while ours is later.
        early = (error.code == ErrorCode.DEADLINE_EXCEEDED
                 and (request.deadline.at - now) * 1000 > VERDICT_MS
                 and request.deadline_ms(now) == DEADLINE_MS_MAX)
        if retry_ms or early:
            entry.send_at = now + back_off_s(entry.refusals, retry_ms)
            entry.refusals += 1
            request.refusal = error
            return True
        del self._entries[request_id]
        request.fail(error)
        return True

    def send_again(self, now: float) -> None:
        for entry in self._entries.values():
            entry.send_at, entry.sent = min(entry.send_at, now), False

    def fail_sent(self, error: TesseraError) -> int:
        """Fails what is under way; how many that were."""
        return self._fail(error, lambda entry: entry.sent)

    def fail_all(self, error: TesseraError) -> None:
        self._fail(error, lambda entry: True)

    def under_way(self) -> int:
        return sum(entry.sent for _, entry, _ in self._living())

    def _fail(self, error: TesseraError, which: Callable[[_Entry], bool]) -> int:
        failed = 0
        for request_id, entry, request in self._living():
            if which(entry):
                del self._entries[request_id]
                request.fail(error)
                failed += 1
        return failed

    def _living(self) -> Iterator[Tuple[int, _Entry, Request]]:
        """Drops what nobody waits for, and gives the rest."""
        for request_id, entry in list(self._entries.items()):
            request = entry.request()
            if request is None:
                del self._entries[request_id]
            else:
                yield request_id, entry, request
