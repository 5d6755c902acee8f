"""The messages of Tessera's client protocol, as far as a client needs them.

A message is one or two ZeroMQ frames: frame 0 is msgpack [major version, message type, {field:
value}], frame 1 the raw payload (texts, token ids or vectors, little-endian). Field numbers are
those of ARCHITECTURE.md; unknown fields are ignored.
"""

import dataclasses
import enum
import hashlib
from typing import Any, Dict, List, Optional, Sequence, Tuple

import msgpack  # type: ignore[import-untyped, unused-ignore]
import numpy as np

from .errors import ErrorCode, ItemError, TesseraError

VERSION = 1
MINOR_WITH_PROMPT_NAMES = 1
MINOR_WITH_LEAVE_JOB = 3
HEADER_BYTES_MAX = 1 << 20
CHUNK_ITEMS_MAX = 4096
JOB_CHUNKS_MAX = 1 << 22
TEXT_BYTES_MAX = 4 << 20
NAME_BYTES_MAX = 256
INSTRUCTION_BYTES_MAX = 8 << 10
DEADLINE_MS_MAX = 3_600_000  # What the coordinator gives a request at the most.

Fields = Dict[int, Any]
Frames = List[bytes]  # Of one message.
Block = Tuple[int, bytes]  # Kind (0 text, 1 token ids) and bytes of an item.


class JobState(enum.IntEnum):
    """Where a job stands, by its number on the wire."""

    OPEN = 0
    RUNNING = 1
    DONE = 2
    CANCELLED = 3


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
    LEAVE_JOB = 33


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a job stands, as the coordinator counts. `state` is open, running, done or cancelled;
    `chunks_total` is 0 until all chunks were submitted."""

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
        state = fields.get(4, 0)
        numbers = [fields.get(number, 0) for number in range(5, 16)]
        names = [known.name.lower() for known in JobState]
        return cls(fields.get(1, ""), fields.get(2, ""),
                   names[state] if state < len(names) else str(state), *numbers)


@dataclasses.dataclass
class Results:
    """The answer to a block of items, in its order."""

    vectors: np.ndarray  # [items, width], float32 or float16; rows of failed items are NaN.
    errors: List[ItemError]
    token_counts: np.ndarray  # [items] uint32: tokens embedded, the final token included.
    tokens_cut: np.ndarray  # [items] uint32: tokens that truncation removed.
    cache_hits: int  # Items answered from the cache,
    cache_joins: int  # the same as one already in work,
    cache_misses: int  # and computed for this call.


def pack(message_type: Type, fields: Fields, payload: bytes = b"") -> Frames:
    header = msgpack.packb([VERSION, int(message_type), fields], use_bin_type=True)
    return [header, payload] if payload else [header]


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
                           f"the coordinator speaks protocol version {version}, this client "
                           f"{VERSION}")
    if not isinstance(message_type, int) or not isinstance(fields, dict):
        raise TesseraError(ErrorCode.INVALID_ARGUMENT, "not a message")
    return message_type, fields


def pack_items(items: Sequence[Block]) -> Tuple[Fields, bytes]:
    """The fields and payload of an item block."""
    sizes = np.array([len(data) for _, data in items], dtype="<u4").tobytes()
    kinds = bytes(kind for kind, _ in items)
    return {1: sizes, 2: kinds if any(kinds) else b""}, b"".join(data for _, data in items)


def digest_of(count: int, items: Fields, payload: bytes) -> bytes:
    """Tells the items of a chunk from any others, as the coordinator's ledger keeps it."""
    digest = hashlib.blake2b(b"tessera chunk 1", digest_size=16)
    digest.update(count.to_bytes(4, "little"))
    digest.update(items[1])
    digest.update(items[2] or bytes(count))
    digest.update(payload)
    value = digest.digest()
    return value if any(value) else bytes(15) + b"\1"  # All zero means that there is none.


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
    if len(pairs) and int(pairs.max()) >= JOB_CHUNKS_MAX:
        raise TesseraError(ErrorCode.INTERNAL, "the coordinator's answer is broken: too many "
                                               "chunks")
    return [(int(first), int(last)) for first, last in pairs]


def error_of(fields: Fields) -> Tuple[TesseraError, int]:
    """The error of an ErrorReply and the milliseconds after which to try again; 0: never."""
    code = ErrorCode(fields.get(2, ErrorCode.INTERNAL))
    retry_ms = fields.get(4, 0)
    if code == ErrorCode.RESOURCE_EXHAUSTED:
        retry_ms = max(retry_ms, 50)
    return TesseraError(code, fields.get(3, "")), retry_ms


def too_old(spec: Fields, minor: int) -> Optional[TesseraError]:
    """Why a coordinator of this minor version must not be asked; None when it may."""
    if spec.get(8) and minor < MINOR_WITH_PROMPT_NAMES:
        return TesseraError(ErrorCode.INVALID_ARGUMENT,
                            "the coordinator is of a version without prompt names and would embed "
                            "the texts without the prompt; update it")
    return None


def back_off_s(refusals: int, retry_ms: int) -> float:
    """How long to wait after the n-th refusal in a row, counted from 0."""
    return max(retry_ms / 1000, min(5.0, 0.05 * (1 << min(refusals, 10))))
