"""The messages of Tessera's client protocol, as far as a client needs them.

A message is one or two ZeroMQ frames: frame 0 is msgpack [major version, message type, {field: value}],
frame 1 the raw payload (texts, token ids or vectors, little-endian). Field numbers are those of
ARCHITECTURE.md; unknown fields are ignored.
"""

import dataclasses
import enum
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import msgpack
import numpy as np

VERSION = 1
CHUNK_ITEMS_MAX = 4096
TEXT_BYTES_MAX = 4 << 20
HEADER_BYTES_MAX = 1 << 20

Item = Union[str, bytes, Sequence[int]]
Fields = Dict[int, Any]


class Type(enum.IntEnum):
    """Message types by their number on the wire."""

    PING = 0
    PONG = 1
    ERROR_REPLY = 2
    CLIENT_HELLO = 3
    EMBED_REQUEST = 4
    OPEN_JOB = 5
    SUBMIT_CHUNK = 6
    CLOSE_JOB = 7
    RESULT_ACK = 8
    CANCEL_JOB = 9
    STATUS_REQUEST = 10
    SERVER_HELLO = 11
    EMBED_REPLY = 12
    JOB_OPENED = 13
    CHUNK_ACK = 14
    CHUNK_RESULT = 15
    JOB_UPDATE = 16
    STATUS_REPLY = 17


class ErrorCode(enum.IntEnum):
    """Why a request or one item of it could not be served."""

    OK = 0
    INVALID_ARGUMENT = 1
    UNSUPPORTED_VERSION = 2
    NOT_FOUND = 3
    CONFLICT = 4
    INVALID_UTF8 = 5
    EMPTY_TEXT = 6
    TOO_LONG = 7
    INVALID_TOKEN_ID = 8
    RESOURCE_EXHAUSTED = 9
    UNAVAILABLE = 10
    DEADLINE_EXCEEDED = 11
    CANCELLED = 12
    NOT_FINITE = 13
    POISON = 14
    UNAUTHENTICATED = 15
    INTERNAL = 16

    @classmethod
    def _missing_(cls, value: object) -> "ErrorCode":
        return cls.INTERNAL  # Of a newer coordinator.


class TesseraError(Exception):
    """A request or job that cannot be served; `code` says why."""

    def __init__(self, code: ErrorCode, message: str):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


@dataclasses.dataclass(frozen=True)
class ItemError:
    """Why one item has no vector."""

    index: int
    code: ErrorCode
    message: str


@dataclasses.dataclass(frozen=True)
class Spec:
    """How items are embedded; the same for all items of a request or job."""

    model: str = ""
    query: bool = False
    instruction: str = ""
    dimensions: int = 0
    float16: bool = False
    truncate: str = "none"
    max_tokens: int = 0

    def fields(self) -> Fields:
        sides = {"none": 0, "left": 1, "right": 2}
        if self.truncate not in sides:
            raise ValueError("truncate is none, left or right")
        return {
            1: self.model, 2: self.query or bool(self.instruction), 3: self.instruction,
            4: self.dimensions, 5: int(self.float16), 6: sides[self.truncate], 7: self.max_tokens,
        }


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a job stands, as the coordinator counts."""

    job_id: str
    job_key: str
    state: str
    chunks_accepted: int
    chunks_done: int
    chunks_delivered: int
    chunks_total: int
    items_accepted: int
    items_done: int
    items_failed: int
    tokens_done: int
    cache_hits: int
    cache_joins: int
    cache_misses: int

    @classmethod
    def of(cls, fields: Fields) -> "Progress":
        states = ("open", "running", "done", "cancelled")
        state = fields.get(4, 0)
        numbers = [fields.get(number, 0) for number in range(5, 16)]
        return cls(fields.get(1, ""), fields.get(2, ""),
                   states[state] if state < len(states) else str(state), *numbers)


@dataclasses.dataclass
class Results:
    """The answer to a block of items, in its order."""

    vectors: np.ndarray  # [items, width]; rows of failed items are NaN.
    errors: List[ItemError]
    token_counts: np.ndarray
    tokens_cut: np.ndarray
    cache_hits: int
    cache_joins: int
    cache_misses: int


def pack(message_type: Type, fields: Fields) -> bytes:
    return msgpack.packb([VERSION, int(message_type), fields], use_bin_type=True)


def unpack(header: bytes) -> Tuple[int, Fields]:
    """The type and fields of a message; TesseraError when it is not one."""
    if len(header) > HEADER_BYTES_MAX:
        raise TesseraError(ErrorCode.INVALID_ARGUMENT, "the message header is longer than 1 MiB")
    try:
        message = msgpack.unpackb(header, raw=False, strict_map_key=False)
        version, message_type, fields = message
    except Exception as error:
        raise TesseraError(ErrorCode.INVALID_ARGUMENT, f"not a message: {error}") from error
    if version != VERSION:
        raise TesseraError(ErrorCode.UNSUPPORTED_VERSION,
                           f"the coordinator speaks protocol version {version}, this client {VERSION}")
    if not isinstance(message_type, int) or not isinstance(fields, dict):
        raise TesseraError(ErrorCode.INVALID_ARGUMENT, "not a message")
    return message_type, fields


def item_bytes(item: Item) -> Tuple[int, bytes]:
    """The kind (0 text, 1 token ids) and bytes of an item. Lone surrogates of a str become bytes that
    the coordinator answers with INVALID_UTF8."""
    if isinstance(item, str):
        return 0, item.encode("utf-8", "surrogatepass")
    if isinstance(item, (bytes, bytearray)):
        return 0, bytes(item)
    ids = np.asarray(item)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise TypeError("an item is a str, bytes, or a sequence of token ids")
    wide = ids.astype(np.int64)
    if ids.size and (wide.min() < -(1 << 31) or wide.max() >= 1 << 31):
        raise ValueError("a token id does not fit into 32 bits")
    return 1, wide.astype("<i4").tobytes()


def pack_items(items: Sequence[Tuple[int, bytes]]) -> Tuple[Fields, bytes]:
    """The fields and payload of an item block."""
    sizes = np.array([len(data) for _, data in items], dtype="<u4").tobytes()
    kinds = bytes(kind for kind, _ in items)
    return {1: sizes, 2: kinds if any(kinds) else b""}, b"".join(data for _, data in items)


def read_results(fields: Fields, payload: bytes, count: int,
                 local_errors: Optional[Dict[int, ItemError]] = None) -> Results:
    """Checks and unpacks a result block that must answer `count` items."""
    codes = np.frombuffer(fields.get(1, b""), dtype=np.uint8)
    width = fields.get(5, 0)
    dtype = np.dtype("<f2" if fields.get(6, 0) == 1 else "<f4")
    good = codes == 0
    if len(codes) != count or int(good.sum()) * width * dtype.itemsize != len(payload):
        raise TesseraError(ErrorCode.INTERNAL, "the coordinator's answer does not fit the question")
    vectors = np.full((count, width), np.nan, dtype=dtype)
    vectors[good] = np.frombuffer(payload, dtype=dtype).reshape(-1, width) if good.any() else 0
    messages = {entry.get(1, 0): entry.get(2, "") for entry in fields.get(4, [])}
    errors = {i: ItemError(i, ErrorCode(int(codes[i])), messages.get(i, ""))
              for i in np.flatnonzero(~good).tolist()}
    errors.update(local_errors or {})

    def numbers(field: int) -> np.ndarray:
        values = np.frombuffer(fields.get(field, b""), dtype="<u4")
        return values if len(values) == count else np.zeros(count, dtype="<u4")

    return Results(vectors, [errors[i] for i in sorted(errors)], numbers(2), numbers(3),
                   fields.get(7, 0), fields.get(8, 0), fields.get(9, 0))


def ranges(data: bytes) -> List[Tuple[int, int]]:
    """Inclusive ranges of chunk numbers."""
    pairs = np.frombuffer(data, dtype="<u4").reshape(-1, 2)
    return [(int(first), int(last)) for first, last in pairs]
