"""What a client has under way with its coordinator. Pure rules: no socket, thread or clock; time
is an argument, messages come in and go out as frames. A socket of any kind, blocking or not, can
drive it."""

import logging
import math
from typing import Dict, List, Optional, Set

from .errors import ErrorCode, JobConflict, TesseraError, anew
from .job_state import JobState
from .protocol import (MINOR_WITH_LEAVE_JOB, Fields, Frames, Type, error_of, pack,
                       unpack)
from .requests import Request, RequestTable

PING_S = 1.0
SILENCE_S = 5.0
SILENT_CONNECTS_MAX = 3
HELLO_AGAIN_S = 2.0
FINAL = (ErrorCode.UNAUTHENTICATED, ErrorCode.UNSUPPORTED_VERSION)

log = logging.getLogger("tessera")


class Session:
    """Requests and jobs of one client over connections that come and go.

    After `on_connected` the coordinator is greeted; its hello makes the session ready, and then
    whatever has no answer yet is said, or said again. Another epoch or ledger in a repeated hello
    means a coordinator that was restarted and knows nothing of us. Owned by one thread.
    """

    def __init__(self, name: str, tenant: str, token: str):
        self.ready = False
        self.wants_connection = True  # A fresh one; what the last one carried is lost.
        self.refusal: Optional[TesseraError] = None  # For good.
        self.trouble: Optional[TesseraError] = None  # Why it is not ready, as far as was said.
        self._hello: Fields = {1: 1, 2: name, 3: tenant, 4: token}
        self._ledger_id, self._term_seen = "", 0  # By these a coordinator notices an older ledger.
        self._server: Fields = {}
        self._requests = RequestTable()
        self._jobs: List[JobState] = []
        self._left: Dict[int, int] = {}  # Openers of jobs that were left while these requests run.
        self._unanswered_keys: Set[str] = set()  # Of former jobs on this connection.
        self._out: List[Frames] = []
        self._next_id = 0
        self._heard_at = self._turn_at = self._hello_at = self._ping_at = 0.0
        self._silent_connects = 0

    # --- from the caller, on the connection's thread

    def ask(self, request: Request) -> None:
        if self.refusal is not None:
            request.fail(self.refusal)
        else:
            self._requests.add(self._id(), request)

    def add_job(self, job: JobState) -> None:
        """A job of the same key that this client has already gets no more results. Should chunks of
        it be unanswered, a fresh connection sees to it that their answers are not taken for answers
        to the new one's, whose items may be others."""
        for other in [other for other in self._jobs if other.key == job.key]:
            self._drop(other)
            other.fail(JobConflict(ErrorCode.CONFLICT, "this job was taken up again by a later "
                                    "submit of the same key, which gets its results"))
        if job.key in self._unanswered_keys:
            self.wants_connection = True
        self._jobs.append(job)
        if self.refusal is not None:
            job.fail(self.refusal)

    def leave_job(self, job: JobState) -> None:
        if job in self._jobs:
            self._drop(job)
            if job.opened():
                if self.ready:
                    job.collect_safe(self._out)  # What its caller said before it left.
                self._say_left(job.id, job.opener)
            elif job.opening():
                self._left[job.opening()] = job.opener
            job.leave()

    def fail_all(self, error: TesseraError) -> None:
        self._requests.fail_all(error)
        for job in self._jobs:
            job.fail(error)
        self._jobs.clear()

    # --- driven by the connection

    def on_connected(self, now: float) -> None:
        self.wants_connection = self.ready = False
        self._out.clear()
        self._left.clear()
        self._unanswered_keys.clear()
        self._heard_at = self._turn_at = now
        self._say_hello(now)

    def on_broken(self) -> None:
        """The connection broke, and with it what was under way was lost."""
        if self.ready:
            self.wants_connection = True

    def turn(self, now: float) -> List[Frames]:
        """What is to be sent now. To be called after messages, after calls, and at next_due."""
        self._keep_alive(now)
        if self.ready:
            minor = self._server.get(1, 0)
            self._requests.collect(now, minor, self._out)
            for job in self._jobs:
                job.collect(now, minor, self._id, self._out)
            for job in [job for job in self._jobs if job.failure is not None or job.over]:
                self._drop(job)
        out, self._out = self._out, []
        return out

    def next_due(self) -> float:
        due = min(self._hello_at + HELLO_AGAIN_S, self._heard_at + self._silence_s())
        if self.ready:
            jobs = min((job.next_due() for job in self._jobs), default=math.inf)
            due = min(due, max(self._heard_at, self._ping_at) + PING_S, jobs,
                      self._requests.next_due())
        return math.inf if self.refusal is not None else due

    def on_message(self, frames: Frames, now: float) -> None:
        self._heard_at = now
        self._silent_connects = 0
        try:
            message_type, fields = unpack(frames[0])
            self._handle(message_type, fields, frames[1] if len(frames) > 1 else b"", now)
        except TesseraError as error:
            if error.code in FINAL:
                self._refuse(error)
            else:
                log.warning("an unreadable message of the coordinator: %s", error.message)
        except Exception:  # Fields of a wrong type: it is passed over, and the connection lives.
            log.warning("an unreadable message of the coordinator", exc_info=True)

    # --- inside

    def _drop(self, job: JobState) -> None:
        self._jobs.remove(job)
        if job.unanswered():
            self._unanswered_keys.add(job.key)

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _silence_s(self) -> float:
        return SILENCE_S * (1 + min(self._silent_connects, SILENT_CONNECTS_MAX))

    def _say_hello(self, now: float) -> None:
        self._hello_at = now
        seen = {5: self._ledger_id, 6: self._term_seen}
        self._out.append(pack(Type.CLIENT_HELLO, {**self._hello, **seen}))

    def _keep_alive(self, now: float) -> None:
        if self.refusal is not None:
            return
        if now - self._turn_at > SILENCE_S / 2:
            self._heard_at = now  # The process stood still; what has arrived comes first.
        self._turn_at = now
        if now - self._heard_at >= self._silence_s():
            self._silent_connects += 1
            self.wants_connection = True
            if self._jobs or self._requests.under_way():
                log.warning("the coordinator has been silent for %.0f s: connecting anew",
                            now - self._heard_at)
        elif now - self._hello_at >= HELLO_AGAIN_S:
            self._say_hello(now)
        elif self.ready and now - max(self._heard_at, self._ping_at) >= PING_S:
            self._ping_at = now
            self._out.append(pack(Type.PING, {1: self._id()}))

    def _say_left(self, job_id: str, opener: int) -> None:
        """Nobody takes the job's results here any more."""
        if self.ready and self._server.get(1, 0) >= MINOR_WITH_LEAVE_JOB:
            self._out.append(pack(Type.LEAVE_JOB, {1: job_id, 2: opener}))

    def _handle(self, message_type: int, fields: Fields, payload: bytes, now: float) -> None:
        if message_type == Type.PING:
            self._out.append(pack(Type.PONG, {1: fields.get(1, 0)}))
        elif message_type == Type.SERVER_HELLO:
            self._on_hello(fields, now)
        elif message_type == Type.ERROR_REPLY:
            self._on_error(fields, now)
        elif message_type in (Type.EMBED_REPLY, Type.STATUS_REPLY):
            self._requests.settle(fields, payload)
        elif message_type == Type.JOB_OPENED:
            if not self._answer_job(message_type, fields, now) and fields.get(1, 0) in self._left:
                self._say_left(fields.get(2, ""), self._left.pop(fields[1]))
        elif message_type == Type.JOB_UPDATE:
            self._on_update(fields, payload, now)
        elif message_type in (Type.CHUNK_ACK, Type.CHUNK_RESULT):
            job = self._job(fields.get(1, ""))
            if job is not None and message_type == Type.CHUNK_ACK:
                job.on_chunk_ack(fields, now)
            elif job is not None:
                self._out += job.on_result(fields, payload)

    def _job(self, job_id: str) -> Optional[JobState]:
        return next((job for job in self._jobs if job.id and job.id == job_id), None)

    def _answer_job(self, message_type: int, fields: Fields, now: float) -> bool:
        """Hands an answer to the job that asked; True when there is one."""
        for job in self._jobs:
            if job.awaits(fields.get(1, 0)):
                self._out += job.on_answer(message_type, fields, now)
                return True
        return False

    def _on_hello(self, fields: Fields, now: float) -> None:
        restarted = self.ready and any(fields.get(n) != self._server.get(n) for n in (3, 5))
        self._server = fields
        ledger_id, term = fields.get(5, ""), fields.get(3, 0)
        self._term_seen = term if ledger_id != self._ledger_id else max(term, self._term_seen)
        self._ledger_id = ledger_id
        if restarted or not self.ready:
            self.ready, self.trouble = True, None
            self._requests.send_again(now)
            for job in self._jobs:
                job.on_disconnected()

    def _on_update(self, fields: Fields, payload: bytes, now: float) -> None:
        progress = fields.get(2, {})
        job = self._job(progress.get(1, ""))
        if job is not None:
            job.on_progress(progress)
        if not self._answer_job(Type.JOB_UPDATE, fields, now):
            self._requests.settle(fields, payload)

    def _on_error(self, fields: Fields, now: float) -> None:
        error, retry_ms = error_of(fields)
        if self._requests.refuse(fields, now) or self._answer_job(Type.ERROR_REPLY, fields, now):
            return
        if fields.get(1, 0):
            self._left.pop(fields[1], None)
            return  # Nobody waits for that any more.
        if error.code in FINAL or not self.ready and not retry_ms:
            self._refuse(error)
        elif not self.ready:
            self.trouble = error  # The hello is repeated.
        else:
            self._on_error_to_nobody(error, retry_ms)

    def _on_error_to_nobody(self, error: TesseraError, retry_ms: int) -> None:
        """An error that does not say what it answers. What it answers will have no other answer,
        so all that is under way fails with it: one of them is the cause, and none may wait in
        vain."""
        log.warning("the coordinator reports, for no request of this client in particular: %s",
                    error)
        if retry_ms:
            return
        jobs = [job for job in self._jobs if job.under_way()]
        count = self._requests.under_way() + len(jobs)
        whose = ("" if count == 1 else
                 f" (the answer names no request; {count} were under way, and all have ended)")
        said = TesseraError(error.code, error.message + whose)
        self._requests.fail_sent(said)
        for job in jobs:
            job.fail(said)

    def _refuse(self, error: TesseraError) -> None:
        self.refusal = error
        self.fail_all(anew(error))
