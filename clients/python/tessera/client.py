"""The client: questions with an answer now, and jobs."""

import os
import secrets
import weakref
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

import numpy as np

from .arguments import Item, Spec, address, choice, item_bytes, iterable, seconds, text, whole
from .errors import EmbedError, ErrorCode, ItemError, TesseraError, anew
from .job import Job
from .job_state import JobState
from .link import END_WAIT_S, Link
from .protocol import (CHUNK_ITEMS_MAX, TEXT_BYTES_MAX, Block, Fields, Progress, Results, Type,
                       pack_items, read_results)
from .requests import Request
from .session import Session
from .source import Source
from .waiting import Deadline

NAME = "tessera-python/0.1.0"
REQUEST_ITEMS_MAX = 256
REQUEST_BYTES_MAX = 1 << 20
REQUESTS_IN_FLIGHT_MAX = 8
PRIORITY_MAX = 100

# Of parent processes: their sockets are theirs, so not even a destructor may run on them here.
_not_ours: List[Link] = []


class Client:
    """A client of a coordinator.

    coordinator: tcp://HOST:PORT, HOST:PORT, tcp://[IPV6]:PORT or ipc://PATH. Nothing is connected
    before the first call. tenant: whose fair share it takes. token: the key, where the coordinator
    asks for one. timeout_s: for calls that are given none; infinity or None waits until answered.

    May be used by any number of threads and from signal handlers. One thread inside keeps the
    connection; callers wait for it, and an exception in a caller, an interrupt for one, disturbs
    nothing but that call. A process that was forked has a connection of its own, made at its first
    call; a pickled client comes out as a new one with the same settings, the token included.

    A client that is dropped, or that the interpreter's exit finds, closes itself. Used after
    close() it raises TesseraError with CANCELLED. Wrong arguments raise TypeError or ValueError at
    once.
    """

    def __init__(self, coordinator: Optional[str] = None, *, tenant: Optional[str] = None,
                 token: Optional[str] = None, timeout_s: Optional[float] = 60.0):
        self.timeout_s = seconds("timeout_s", timeout_s, float("inf"))
        self._address = address(coordinator)
        self._tenant = text("tenant", tenant)
        self._token = text("token", token)
        self._closed = False
        self._links: Dict[int, Link] = {}  # By process id; the others are of parent processes.
        self._finalizer = weakref.finalize(self, _abandon, self._links)
        self._finalizer.atexit = False  # The links see to that themselves.

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Tuple[Any, ...]:
        return _new_client, (type(self), self._address, self._tenant, self._token, self.timeout_s)

    def __repr__(self) -> str:
        return f"<tessera.Client {self._address}{' closed' if self._closed else ''}>"

    @property
    def address(self) -> str:
        """Of the coordinator."""
        return self._address

    def close(self) -> None:
        """Ends the connection; calls of other threads that wait end with CANCELLED. Jobs go on at
        the coordinator as far as they were submitted. Waits at most a second and a half, for what
        was acknowledged last to be sent."""
        self._closed = True
        link = self._links.get(os.getpid())
        if link is not None:
            link.stop()
            link.wait_ended(Deadline(END_WAIT_S))

    # --- questions with an answer now

    def embed(self, texts: Iterable[Item], *, model: Optional[str] = None,
              query: Optional[bool] = None, instruction: Optional[str] = None,
              prompt_name: Optional[str] = None, dimensions: Optional[int] = None,
              float16: Optional[bool] = None, truncate: Optional[str] = None,
              max_tokens: Optional[int] = None, on_error: Optional[str] = None,
              timeout_s: Optional[float] = None) -> np.ndarray:
        """The unit vectors of the texts, as [number of texts, width], float32 or float16.

        texts: a list, an array, a Series, a generator: anything that gives in a known order str,
            UTF-8 bytes or lists of token ids. For one text give [text].
        model, query, instruction, prompt_name, dimensions, float16, truncate, max_tokens: as Spec.
        on_error: "raise" (the default) raises EmbedError when an item has no vector; "nan" leaves
            NaN in its row.
        timeout_s: seconds until TesseraError with DEADLINE_EXCEEDED, or UNAVAILABLE when no
            coordinator answers; None is the client's timeout_s, infinity waits until answered.
        """
        on_error = choice("on_error", on_error, ["raise", "nan"])
        results = self.embed_results(
            texts, model=model, query=query, instruction=instruction, prompt_name=prompt_name,
            dimensions=dimensions, float16=float16, truncate=truncate, max_tokens=max_tokens,
            timeout_s=timeout_s)
        if results.errors and on_error == "raise":
            raise EmbedError(results.errors, results.vectors)
        return results.vectors

    def embed_results(self, texts: Iterable[Item], *, model: Optional[str] = None,
                      query: Optional[bool] = None, instruction: Optional[str] = None,
                      prompt_name: Optional[str] = None, dimensions: Optional[int] = None,
                      float16: Optional[bool] = None, truncate: Optional[str] = None,
                      max_tokens: Optional[int] = None,
                      timeout_s: Optional[float] = None) -> Results:
        """As embed, with errors, token counts and cache counts, and never raising for an item."""
        deadline = self._deadline(timeout_s)
        fields = Spec(model, query, instruction, dimensions, float16, truncate, max_tokens,
                      prompt_name).fields()
        items = list(iterable("texts", texts))
        return self._embed(items, fields, deadline)

    def status(self, job_id: Optional[str] = None, *,
               timeout_s: Optional[float] = None) -> List[Progress]:
        """The coordinator's jobs, or the one with this id."""
        fields = self._ask(Type.STATUS_REQUEST, {2: text("job_id", job_id)}, timeout_s)
        return [Progress.of(job) for job in fields.get(4, [])]

    def cancel(self, job_id: str, *, timeout_s: Optional[float] = None) -> Progress:
        """Ends a job for good, for everybody: what is not delivered is dropped."""
        fields = self._ask(Type.CANCEL_JOB, {2: text("job_id", job_id)}, timeout_s)
        return Progress.of(fields.get(2, {}))

    def models(self, *, timeout_s: Optional[float] = None) -> List[str]:
        """Names of the models that the coordinator serves."""
        fields = self._ask(Type.STATUS_REQUEST, {2: ""}, timeout_s)
        return [model.get(1, "") for model in fields.get(6, [])]

    # --- jobs

    def submit(self, items: Iterable[Item], *, key: Optional[str] = None,
               chunk_items: Optional[int] = None, priority: Optional[int] = None,
               model: Optional[str] = None, query: Optional[bool] = None,
               instruction: Optional[str] = None, prompt_name: Optional[str] = None,
               dimensions: Optional[int] = None, float16: Optional[bool] = None,
               truncate: Optional[str] = None, max_tokens: Optional[int] = None,
               timeout_s: Optional[float] = None) -> Job:
        """Opens a job over any iterable; iterate over the job to drive it and get its results.

        items: as the texts of embed, in any number; they are read as the job goes on, in the
            thread that iterates over it. An item that is none fails the job with a TypeError that
            names it.
        key: takes a job up again: the same key, spec, chunk_items and items continue where the
            last run ended, and results that were acknowledged do not come again. Anything else
            under a key that was used raises JobConflict, here or at the first chunk that differs.
            Who submits a key last has the job.
        chunk_items: items of a chunk, 1 to 4096, by default 256. priority: weight of the job's
            share of the cluster, 1 to 100, by default 1.
        timeout_s: for the opening; see Job.results for the iteration.
        """
        deadline = self._deadline(timeout_s)
        count = whole("chunk_items", chunk_items, 256, 1, CHUNK_ITEMS_MAX)
        weight = whole("priority", priority, 1, 1, PRIORITY_MAX)
        fields = Spec(model, query, instruction, dimensions, float16, truncate, max_tokens,
                      prompt_name).fields()
        name = text("key", key) or "py-" + secrets.token_hex(16)
        source = Source(iterable("items", items), count, name)
        state = JobState(name, fields, weight, count)
        link = self._link()
        job = Job(self, link, state, source)
        link.call(link.session.add_job, state)
        try:
            state.bell.wait(lambda: state.id or state.failure is not None, deadline)
            if state.failure is not None:
                raise anew(state.failure)
            if not state.id:
                raise self._no_answer(link, deadline, state.refusal)
        except BaseException:
            job.close()
            raise
        return job

    # --- inside

    def _deadline(self, timeout_s: Optional[float]) -> Deadline:
        if self._closed:
            raise TesseraError(ErrorCode.CANCELLED, "this client is closed: make another one with "
                                                    f"Client({self._address!r})")
        return Deadline(seconds("timeout_s", timeout_s, self.timeout_s))

    def _link(self) -> Link:
        """This process's connection. Two threads that come here at once get the same one."""
        link = self._links.get(os.getpid())
        if link is None:
            session = Session(NAME, self._tenant, self._token)
            link = self._links.setdefault(os.getpid(), Link(self._address, session))
        return link

    def _ask(self, message_type: Type, fields: Fields, timeout_s: Optional[float]) -> Fields:
        deadline = self._deadline(timeout_s)
        link = self._link()
        request = Request(message_type, fields, b"", deadline)
        link.call(link.session.ask, request)
        return self._answer(link, request)[0]

    def _answer(self, link: Link, request: Request) -> Tuple[Fields, bytes]:
        request.bell.wait(request.settled, request.deadline)
        if request.answer is not None:
            return request.answer
        if request.error is not None:
            raise anew(request.error)
        raise self._no_answer(link, request.deadline, request.refusal)

    def _no_answer(self, link: Link, deadline: Deadline,
                   refusal: Optional[TesseraError]) -> TesseraError:
        if refusal is not None and link.ready:
            return anew(refusal)
        code = ErrorCode.DEADLINE_EXCEEDED if link.ready else ErrorCode.UNAVAILABLE
        return TesseraError(code, f"no answer from {self._address} in {deadline.timeout_s:g} s"
                                  f"{link.trouble()}")

    def _embed(self, items: List[Item], spec: Fields, deadline: Deadline) -> Results:
        blocks = _blocks(items)
        link = self._link()
        waiting: List[Tuple[Request, int, Dict[int, ItemError]]] = []
        parts: List[Results] = []
        while True:
            while len(waiting) < REQUESTS_IN_FLIGHT_MAX and deadline.left_s() > 0:
                data, errors = next(blocks, ([], {}))
                if not data:
                    break
                fields, payload = pack_items(data)
                request = Request(Type.EMBED_REQUEST, {2: spec, 3: 0, 5: fields}, payload, deadline)
                link.call(link.session.ask, request)
                waiting.append((request, len(data), errors))
            if not waiting:
                break
            request, count, errors = waiting.pop(0)
            reply, payload = self._answer(link, request)
            parts.append(read_results(reply.get(2, {}), payload, count, errors))
        if sum(len(part.vectors) for part in parts) < len(items):
            raise self._no_answer(link, deadline, None)
        return _joined(parts)


def _new_client(kind: Any, coordinator: str, tenant: str, token: str, timeout_s: float) -> Client:
    client: Client = kind(coordinator, tenant=tenant, token=token, timeout_s=timeout_s)
    return client


def _abandon(links: Dict[int, Link]) -> None:
    """What is left of a client that nobody holds any more."""
    for link in list(links.values()):
        if link.pid == os.getpid():
            link.stop()
        else:
            _not_ours.append(link)


def _blocks(items: List[Item]) -> Iterator[Tuple[List[Block], Dict[int, ItemError]]]:
    block: List[Block] = []
    errors: Dict[int, ItemError] = {}
    size = 0
    for index, item in enumerate(items):
        kind, data = item_bytes(item, index)
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
