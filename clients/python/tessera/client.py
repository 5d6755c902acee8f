"""The client: questions with an answer now, and jobs."""

import threading
import time
from typing import Any, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from .connection import Connection, Requests
from .job import Job
from .protocol import (CHUNK_ITEMS_MAX, TEXT_BYTES_MAX, ErrorCode, Fields, Item, ItemError, Progress,
                       Results, Spec, TesseraError, Type, item_bytes, pack_items, read_results)

REQUEST_ITEMS_MAX = 256
REQUEST_BYTES_MAX = 1 << 20
REQUESTS_IN_FLIGHT_MAX = 8


class EmbedError(TesseraError):
    """Some items of an embed call have no vector; `errors` says which and why, `vectors` has the
    others, with NaN in the rows of those."""

    def __init__(self, errors: List[ItemError], vectors: np.ndarray):
        first = errors[0]
        super().__init__(first.code, f"{len(errors)} items have no vector; item {first.index}: "
                                     f"{first.message}")
        self.errors = errors
        self.vectors = vectors


class Client:
    """A connection to a coordinator.

    May be used from several threads at once: whoever waits pumps the connection for all, in short
    turns. No thread runs inside: the connection is kept alive while a call waits, and made anew when a
    later call finds it dead.
    """

    def __init__(self, coordinator: str = "tcp://127.0.0.1:7400", *, tenant: str = "",
                 token: str = "", timeout_s: float = 60.0):
        self.timeout_s = timeout_s
        self._lock = threading.RLock()  # Guards all below, the socket too.
        self._turns = threading.Lock()  # Guards the next.
        self._waiters = 0
        self._jobs: List[Job] = []
        self._connection = Connection(coordinator, "tessera-python/0.1.0", tenant, token,
                                      self._on_message, self._on_reconnect)
        self._requests = Requests(self._connection)
        self._address = coordinator

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection. Jobs go on at the coordinator as far as they were submitted."""
        with self._lock:
            self._connection.close()

    def embed(self, texts: Sequence[Item], *, on_error: str = "raise",
              timeout_s: Optional[float] = None, **spec: Any) -> np.ndarray:
        """The unit vectors of the texts (or lists of token ids), as [len(texts), width].

        Keywords of Spec: model, query, instruction, dimensions, float16, truncate, max_tokens.
        on_error: "raise" raises EmbedError when an item has no vector; "nan" leaves NaN in its row.
        """
        if on_error not in ("raise", "nan"):
            raise ValueError("on_error is raise or nan")
        results = self.embed_results(texts, timeout_s=timeout_s, **spec)
        if results.errors and on_error == "raise":
            raise EmbedError(results.errors, results.vectors)
        return results.vectors

    def embed_results(self, texts: Sequence[Item], *, timeout_s: Optional[float] = None,
                      **spec: Any) -> Results:
        """As embed, with errors, token counts and cache counts, and never raising for an item."""
        if isinstance(texts, (str, bytes)):
            raise TypeError("texts is a sequence of texts; for one text give [text]")
        fields = Spec(**spec).fields()
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        return self._embed(list(texts), fields, deadline)

    def submit(self, items: Iterable[Item], *, key: str = "", chunk_items: int = 256,
               priority: int = 1, timeout_s: Optional[float] = None, **spec: Any) -> Job:
        """Opens a job over any iterable; iterate over the job to drive it and get its results.

        With a `key` the job can be taken up again: the same key, spec, chunk_items and items continue
        where the last run ended, and results that were acknowledged do not come again.
        """
        if not 1 <= chunk_items <= CHUNK_ITEMS_MAX:
            raise ValueError("chunk_items is 1 to 4096")
        job = Job(self, self._connection, items, key, Spec(**spec).fields(), chunk_items, priority)
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        with self._lock:
            self._jobs.append(job)
        try:
            self._pump_until(lambda: job.opened or job.failure is not None, deadline)
            if job.failure is not None:
                raise job.failure
        except TesseraError:
            with self._lock:
                self._jobs.remove(job)
            raise
        return job

    def status(self, job_id: str = "", *, timeout_s: Optional[float] = None) -> List[Progress]:
        """The coordinator's jobs, or the one with this id."""
        fields, _ = self._ask(Type.STATUS_REQUEST, {2: job_id}, b"", timeout_s)
        return [Progress.of(job) for job in fields.get(4, [])]

    def cancel(self, job_id: str, *, timeout_s: Optional[float] = None) -> Progress:
        fields, _ = self._ask(Type.CANCEL_JOB, {2: job_id}, b"", timeout_s)
        return Progress.of(fields.get(2, {}))

    def models(self, *, timeout_s: Optional[float] = None) -> List[str]:
        """Names of the models that the coordinator serves."""
        fields, _ = self._ask(Type.STATUS_REQUEST, {2: ""}, b"", timeout_s)
        return [model.get(1, "") for model in fields.get(6, [])]

    # --- inside

    def _embed(self, items: List[Item], spec: Fields, deadline: float) -> Results:
        blocks = list(_blocks(items))
        waiting: List[Tuple[int, int, dict]] = []
        parts: List[Results] = []
        sent = 0
        try:
            while len(parts) < len(blocks):
                while sent < len(blocks) and len(waiting) < REQUESTS_IN_FLIGHT_MAX:
                    data, local_errors = blocks[sent]
                    fields, payload = pack_items(data)
                    left_ms = max(1, int((deadline - time.monotonic()) * 1000))
                    with self._lock:
                        request = self._requests.ask(
                            Type.EMBED_REQUEST, {2: spec, 3: 0, 4: left_ms, 5: fields}, payload)
                    waiting.append((request, len(data), local_errors))
                    sent += 1
                request, count, local_errors = waiting[0]
                reply_fields, reply_payload = self._wait(request, deadline)
                waiting.pop(0)
                parts.append(read_results(reply_fields.get(2, {}), reply_payload, count,
                                          local_errors))
        finally:
            with self._lock:
                for request, _, _ in waiting:
                    self._requests.forget(request)
        return _joined(parts)

    def _ask(self, message_type: Type, fields: Fields, payload: bytes,
             timeout_s: Optional[float]) -> Tuple[Fields, bytes]:
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        with self._lock:
            request = self._requests.ask(message_type, fields, payload)
        return self._wait(request, deadline)

    def _wait(self, request: int, deadline: float) -> Tuple[Fields, bytes]:
        try:
            self._pump_until(lambda: request in self._requests.answers, deadline)
        except TesseraError:
            with self._lock:
                refusal = self._requests.last_refusal(request)
                self._requests.forget(request)
            if refusal:
                raise refusal
            raise
        with self._lock:
            answer = self._requests.answers.pop(request)
        if isinstance(answer, TesseraError):
            raise answer
        return answer  # type: ignore[return-value]

    def _pump_until(self, done: Any, deadline: float) -> None:
        while True:
            left_s = deadline - time.monotonic()
            if self._turn(done, min(max(left_s, 0), 0.1)):
                return
            if left_s <= 0:
                what = (f"no answer from {self._address} in time" if self._connection.ready else
                        f"no coordinator answers at {self._address}")
                code = (ErrorCode.DEADLINE_EXCEEDED if self._connection.ready
                        else ErrorCode.UNAVAILABLE)
                raise TesseraError(code, what)

    def _turn(self, done: Any, wait_s: float) -> Any:
        """What `done` gives, under the lock, if it is true; else pumps once and gives it then."""
        with self._turns:
            self._waiters += 1
        with self._lock:
            with self._turns:
                self._waiters -= 1
                others = self._waiters > 0
            value = done()
            if not value:
                # Others want to look, too: only a short wait while they stand in line.
                self._pump(min(wait_s, 0.002) if others else wait_s)
                value = done()
        if not value and others:
            time.sleep(0.0005)  # A lock that is taken again at once is never seen free.
        return value

    def _pump(self, wait_s: float) -> None:
        self._requests.send_due()
        for job in self._jobs:
            job.send_due()
        self._connection.pump(wait_s)

    def _on_message(self, message_type: int, fields: Fields, payload: bytes) -> None:
        for job in list(self._jobs):
            if job.handle(message_type, fields, payload):
                break
        # A JobUpdate that was asked for is an answer, too.
        self._requests.answer(message_type, fields, payload)

    def _on_reconnect(self) -> None:
        self._requests.send_again()
        for job in self._jobs:
            job.reconnect()


def _blocks(items: List[Item]) -> Iterable[Tuple[List[Tuple[int, bytes]], dict]]:
    block: List[Tuple[int, bytes]] = []
    errors: dict = {}
    size = 0
    for item in items:
        kind, data = item_bytes(item)
        too_long = len(data) > TEXT_BYTES_MAX
        if too_long:
            kind, data = 0, b""
        if block and (len(block) >= REQUEST_ITEMS_MAX or size + len(data) > REQUEST_BYTES_MAX):
            yield block, errors
            block, errors, size = [], {}, 0
        if too_long:
            errors[len(block)] = ItemError(len(block), ErrorCode.TOO_LONG,
                                           "the text is longer than 4 MiB")
        block.append((kind, data))
        size += len(data)
    if block:
        yield block, errors


def _joined(parts: List[Results]) -> Results:
    if not parts:
        empty = np.zeros(0, dtype="<u4")
        return Results(np.zeros((0, 0), dtype="<f4"), [], empty, empty, 0, 0, 0)
    # A block of which every item failed may have no width of its own.
    width = max(part.vectors.shape[1] for part in parts)
    vectors, errors, first = [], [], 0
    for part in parts:
        rows = part.vectors
        vectors.append(rows if rows.shape[1] == width else
                       np.full((len(rows), width), np.nan, dtype=rows.dtype))
        errors += [ItemError(error.index + first, error.code, error.message)
                   for error in part.errors]
        first += len(rows)
    return Results(np.concatenate(vectors), errors,
                   np.concatenate([part.token_counts for part in parts]),
                   np.concatenate([part.tokens_cut for part in parts]),
                   sum(part.cache_hits for part in parts),
                   sum(part.cache_joins for part in parts),
                   sum(part.cache_misses for part in parts))
