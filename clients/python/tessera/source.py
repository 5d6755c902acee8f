"""The caller's items, cut into chunks. An exception at any point, from the items themselves or
from a signal handler, loses no item: reading goes on behind the last one, or never again."""

import collections
import itertools
import types
from typing import Any, Deque, Iterable, Iterator, List, NamedTuple, Optional

from .arguments import item_bytes
from .errors import ErrorCode, ItemError, TesseraError
from .job_state import Chunk
from .protocol import TEXT_BYTES_MAX, Block, pack_items

CHUNK_BYTES_MAX = 1 << 20
READ_AHEAD = 32  # Items that are read at a time: a few long ones may fill a chunk.

# Iterators that are nothing but a position: they step on only with an item in hand.
_SAMPLES: List[Any] = [[], (), range(0), {}, {}.values(), collections.deque(),
                       type("OfTheOldKind", (), {"__getitem__": len})()]
_POSITIONS = tuple(type(iter(sample)) for sample in _SAMPLES)
_END: Any = object()
_TOO_LONG: Block = (-1, b"")  # Is sent as an empty text.


class _Reading(NamedTuple):
    """Where reading stands. Replaced as a whole: one assignment is never half done."""

    number: int  # Of the next chunk,
    first_index: int  # and of its first item.
    read: Deque[Any]  # Items behind the last chunk; _END at the end.
    blocks: List[Block]  # The same as they are sent, as far as that was made.
    cut: Optional[Chunk]  # The last chunk, which the caller of next_chunk may not have got.
    total: Optional[int]  # Chunks in all, when the end is reached.


class Source:
    """Used by one thread at a time. Where it cuts depends on the items alone, so that another run
    over the same items makes the same chunks."""

    def __init__(self, items: Iterable[Any], chunk_items: int, key: str):
        iterator = iter(items)
        self._iterator: Iterator[Any] = iterator
        self._with_end = itertools.chain(iterator, (_END,))
        self._chunk_items = chunk_items
        self._key = key
        self._at = _Reading(0, 0, collections.deque(), [], None, None)
        self._reads = False  # Being inside the caller's iterator; true afterwards when it raised.
        self._cause = ""

    @property
    def number(self) -> int:
        """Of the next chunk."""
        return self._at.number

    @property
    def last(self) -> Optional[Chunk]:
        """The chunk that was cut last."""
        return self._at.cut

    @property
    def total(self) -> Optional[int]:
        """How many chunks there are, when all have been cut."""
        return self._at.total

    def next_chunk(self) -> Optional[Chunk]:
        """The next chunk, None at the end. TypeError or ValueError, each time, at an item that is
        none; whatever the caller's iterator raises, and from then on TesseraError."""
        at = self._at
        if at.total is not None:
            return None
        while True:
            self._make_blocks(at)
            size = sum(len(data) for _, data in at.blocks)  # Above the limit, one does not fit.
            ended = bool(at.read) and at.read[-1] is _END
            if ended or len(at.blocks) >= self._chunk_items or size > CHUNK_BYTES_MAX:
                break
            self._read(at.read, min(READ_AHEAD, self._chunk_items - len(at.blocks)))
        return self._cut(at)

    def _read(self, into: Deque[Any], count: int) -> None:
        """Reads without a step of our own between an item and its place: extend runs outside of
        the interpreter's reach, so whatever it was given is there when it is interrupted."""
        if self._reads and not self._stands_still():
            raise TesseraError(
                ErrorCode.INVALID_ARGUMENT,
                f"reading the job's items was ended by {self._cause} at or behind item "
                f"{self._at.first_index + len(into)}, and what it took from the iterator is lost: "
                f"submit the items again from the first one with key={self._key!r} to go on")
        self._reads = True
        try:
            into.extend(itertools.islice(self._with_end, count))
            self._reads = False
        except BaseException as cause:
            self._cause = repr(cause)  # Not itself: all frames that it went through would live.
            raise

    def _stands_still(self) -> bool:
        """Whether an exception has left the iterator as it was: it struck beside it, or could not
        move it. A generator through which one has passed is over."""
        if isinstance(self._iterator, types.GeneratorType):
            return self._iterator.gi_frame is not None
        return type(self._iterator) in _POSITIONS

    def _make_blocks(self, at: _Reading) -> None:
        while len(at.blocks) < len(at.read):
            item = at.read[len(at.blocks)]
            if item is _END:
                return
            block = item_bytes(item, at.first_index + len(at.blocks))
            at.blocks.append(block if len(block[1]) <= TEXT_BYTES_MAX else _TOO_LONG)

    def _cut(self, at: _Reading) -> Optional[Chunk]:
        blocks: List[Block] = []
        errors = {}
        size = 0
        for kind, data in at.blocks[:self._chunk_items]:
            if kind == _TOO_LONG[0]:
                kind = 0
                errors[len(blocks)] = ItemError(len(blocks), ErrorCode.TOO_LONG,
                                                "the text is longer than 4 MiB")
            if blocks and size + len(data) > CHUNK_BYTES_MAX:
                break
            blocks.append((kind, data))
            size += len(data)
        count = len(blocks)
        if not count:
            self._at = at._replace(total=at.number)
            return None
        fields, payload = pack_items(blocks)
        chunk = Chunk(at.number, at.first_index, count, fields, payload, errors)
        self._at = _Reading(at.number + 1, at.first_index + count,
                            collections.deque(itertools.islice(at.read, count, None)),
                            at.blocks[count:], chunk, None)
        return chunk
