"""Jobs: any number of items through a bounded window, with resume."""

import dataclasses
import math
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional

import numpy as np

from .arguments import seconds, whole
from .errors import ErrorCode, ItemError, TesseraError, anew
from .job_state import JobState, Ready, left_early
from .link import Link
from .protocol import Progress, read_results
from .source import Source
from .waiting import Deadline

if TYPE_CHECKING:
    from .client import Client

OTHERS_LOOK_S = 0.2
READS_A_RESULT = 2  # Chunks read for each result that is given, while results are here.


@dataclasses.dataclass
class JobResult:
    """The vectors of one chunk."""

    chunk: int
    first_index: int  # Of the chunk's first item among all items.
    vectors: np.ndarray  # [items, width], float32 or float16; rows of failed items are NaN.
    errors: List[ItemError]  # Their index counts from the chunk's first item.
    token_counts: np.ndarray  # [items] uint32: tokens embedded, the final token included.
    tokens_cut: np.ndarray  # [items] uint32: tokens that truncation removed.


class Job:
    """A job. Iterating over it reads the items, submits them within the coordinator's window, and
    gives results as they are done, in any order (`JobResult.first_index` says whose they are).

    Asking for the next result tells the coordinator that the one before is safe. A loop that is
    left in any way (break, an exception, an interrupt) can be begun again, with a new `for`: it
    goes on with the result that it was left at, since nobody said that this one is safe
    (`acknowledge` does), and no row is lost or numbered wrong. Where reading the items cannot go
    on without a gap, the job fails for good, with a TesseraError that says so.

    A job that is dropped or closed stays with the coordinator for whoever submits the same key
    again. Who does that last has the job: the Job object before raises JobConflict, in whatever
    process it is.

    Any thread may use it, several at once; not a forked child, which submits the key again itself.
    """

    def __init__(self, client: "Client", link: Link, state: JobState, source: Source):
        self._client = client
        self._link = link
        self._state = state
        self._source = source
        self._lock = threading.RLock()  # Of claims; never held while something is waited for.
        self._reader: "Optional[weakref.ref[Any]]" = None  # The loop that reads items now.
        self._loops: Dict[int, "weakref.ref[Any]"] = {}  # The latest of each thread.
        self._input_failed = False
        self._left = False
        self._offered = 0  # Chunks, and
        self._all_offered = False  # the end.
        self._finalizer = weakref.finalize(self, link.cast, link.session.leave_job, state)
        self._finalizer.atexit = False

    @property
    def key(self) -> str:
        """The key that takes this job up again."""
        return self._state.key

    @property
    def id(self) -> str:
        """The coordinator's name for the job."""
        return self._state.id

    @property
    def failure(self) -> Optional[TesseraError]:
        """Why the job gives no more results; None while it does."""
        return self._state.failure

    def __iter__(self) -> Iterator[JobResult]:
        return self.results()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a Job cannot be pickled: submit its items with the same key in the other "
                        "process")

    def __repr__(self) -> str:
        return f"<tessera.Job key={self.key!r} id={self.id!r}>"

    def results(self, timeout_s: Optional[float] = None) -> Iterator[JobResult]:
        """As iterating over the job. A step that waits longer than timeout_s seconds raises
        TesseraError with DEADLINE_EXCEEDED, and the job can go on; None waits as long as it
        takes."""
        loop = _Results(self, seconds("timeout_s", timeout_s, float("inf")))
        before = _living(self._loops.get(threading.get_ident()))
        if before is not None:
            before.leave()  # A thread is in one loop at a time.
        self._loops[threading.get_ident()] = weakref.ref(loop)
        return loop

    def progress(self, *, timeout_s: Optional[float] = None) -> Progress:
        """Where the job stands, as the coordinator counts."""
        jobs = self._client.status(self.id, timeout_s=timeout_s)
        if not jobs:
            raise TesseraError(ErrorCode.NOT_FOUND, f"the coordinator does not know job {self.id}")
        return jobs[0]

    def cancel(self, *, timeout_s: Optional[float] = None) -> Progress:
        """Ends the job for good, for everybody: what is not delivered is dropped."""
        return self._client.cancel(self.id, timeout_s=timeout_s)

    def acknowledge(self, chunk: int) -> None:
        """Says that the chunk's result is safe and need not come again, in this process or
        another. Iterating does it for the result before."""
        number = whole("chunk", chunk, 0, 0)
        entry = self._state.ready.get(number)
        if entry is not None:
            self._declare_safe(entry)

    def close(self) -> None:
        """Takes no more results. The job stays with the coordinator for its key."""
        self._left = True
        self._finalizer()

    # --- for a loop

    def _next(self, loop: "_Results", deadline: Deadline) -> Optional[Ready]:
        """The next result, None at the end; it is held by the loop until that is gone."""
        if self._link.pid != os.getpid():
            raise TesseraError(ErrorCode.CONFLICT, "this job belongs to the process that submitted "
                               f"it; submit its items here with key={self.key!r} to take it up")
        state = self._state
        reads = 0
        while True:
            self._offer()  # An exception may have come between a chunk's cutting and its offering.
            if state.failure is not None:
                raise anew(state.failure)
            if self._left and not state.over:
                raise left_early(self.key)
            if reads < READS_A_RESULT or not self._has_ready(loop):
                if self._read_chunk(loop):
                    reads += 1
                    continue
            entry = self._hold_next(loop)
            if entry is not None:
                return entry
            if state.over:
                return None
            if not self._wait(loop, deadline):
                raise TesseraError(ErrorCode.DEADLINE_EXCEEDED, "no result of the job in "
                                   f"{deadline.timeout_s:g} s{self._link.trouble()}")

    def _wait(self, loop: "_Results", deadline: Deadline) -> bool:
        """Whether the loop can go on before the deadline."""
        while True:
            # Another loop that holds a result, or reads, may end without a word.
            turn = Deadline(min(deadline.left_s(), OTHERS_LOOK_S if self._others() else math.inf))
            if self._state.bell.wait(lambda: self._can_go_on(loop), turn):
                return True
            if deadline.left_s() <= 0:
                return False

    def _others(self) -> bool:
        return len(self._loops) > 1

    def _can_go_on(self, loop: Any) -> bool:
        state = self._state
        return bool(state.failure is not None or state.over or self._has_ready(loop)
                    or self._may_read(loop))

    def _free_for(self, loop: Any) -> Iterator[Ready]:
        for entry in list(self._state.ready.values()):
            holder = _living(entry.holder)
            if not entry.safe and (holder is None or holder is loop):
                yield entry

    def _has_ready(self, loop: Any) -> bool:
        return next(self._free_for(loop), None) is not None

    def _hold_next(self, loop: Any) -> Optional[Ready]:
        with self._lock:
            entry = next(self._free_for(loop), None)
            if entry is not None:
                entry.holder = weakref.ref(loop)
            return entry

    def _declare_safe(self, entry: Ready) -> None:
        entry.safe = True  # The connection looks at it when it is woken, or later.
        self._link.wake()

    def _may_read(self, loop: Any) -> bool:
        reader = _living(self._reader)
        if self._input_failed and self._source.number > self._state.settled:
            return False  # What is under way comes first; then the failure is told again.
        return (not self._all_offered and self._source.number < self._state.read_until
                and (reader is None or reader is loop))

    def _read_chunk(self, loop: Any) -> bool:
        """Reads a chunk if there is room for one; whether it did. Calls the caller's iterator."""
        with self._lock:
            if not self._may_read(loop):
                return False
            self._reader = weakref.ref(loop)
        self._input_failed = True  # Until it is seen not to.
        self._source.next_chunk()
        self._input_failed = False
        self._reader = None
        return True

    def _offer(self) -> None:
        link, state, source = self._link, self._state, self._source
        if source.last is not None and self._offered < source.number:
            link.call(state.offer, source.last)
            self._offered = source.number
        if source.total is not None and not self._all_offered:
            link.call(state.end_input, source.total)
            self._all_offered = True


class _Results:
    """One loop over a job."""

    def __init__(self, job: Job, timeout_s: float):
        self._job = job
        self._timeout_s = timeout_s
        self._given: Optional[Ready] = None
        self.active = True  # False once it was left by an exception, or for another loop.

    def __iter__(self) -> "_Results":
        return self

    def __next__(self) -> JobResult:
        if self._given is not None:
            self._job._declare_safe(self._given)
            self._given = None
        self.active = True
        try:
            entry = self._job._next(self, Deadline(self._timeout_s))
            result = None if entry is None else _result_of(entry)
        except BaseException:
            self.leave()  # It may live on in a traceback.
            raise
        if result is None:
            raise StopIteration
        self._given = entry  # Last: before this it is not with the caller, and comes again.
        return result


    def leave(self) -> None:
        """What it holds is free for other loops, which may wait for that."""
        self.active = False
        self._job._state.bell.ring()


def _result_of(entry: Ready) -> JobResult:
    chunk = entry.chunk
    results = read_results(entry.fields, entry.payload, chunk.count, chunk.errors)
    return JobResult(chunk.number, chunk.first_index, results.vectors, results.errors,
                     results.token_counts, results.tokens_cut)


def _living(loop: "Optional[weakref.ref[Any]]") -> Optional["_Results"]:
    """The loop, if it goes on."""
    found = loop() if loop is not None else None
    return found if found is not None and found.active else None
