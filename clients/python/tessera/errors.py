"""What can go wrong, as exceptions and as errors of single items."""

import dataclasses
import enum
from typing import Any, List, Tuple

import numpy as np


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
    """A request or job that cannot be served; `code` says why, `message` is one sentence.

    Made by its two attributes alone, so that it can be pickled and copied with all it has.
    """

    def __init__(self, code: ErrorCode, message: str):
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class JobConflict(TesseraError):
    """The job's key stands for something else: other items, another spec or another number of
    chunks; or the job was taken up again elsewhere and its results go there. The code is
    CONFLICT."""


@dataclasses.dataclass(frozen=True)
class ItemError:
    """Why one item has no vector."""

    index: int
    code: ErrorCode
    message: str


class EmbedError(TesseraError):
    """Some items of an embed call have no vector.

    `errors` says which and why; `vectors` has the others as [items, width], with NaN in the rows
    of those in `errors`. `code` is that of the first error.
    """

    def __init__(self, errors: List[ItemError], vectors: np.ndarray):
        first = errors[0]
        super().__init__(first.code, f"{len(errors)} items have no vector; item {first.index}: "
                                     f"{first.message}")
        self.errors = errors
        self.vectors = vectors

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(self), (self.errors, self.vectors), self.__dict__


def failure(code: ErrorCode, message: str) -> TesseraError:
    """The exception for a refusal of a job."""
    return (JobConflict if code == ErrorCode.CONFLICT else TesseraError)(code, message)


def anew(error: TesseraError) -> TesseraError:
    """The same error as an object of its own: one that is raised twice would show both places."""
    return type(error)(*error.args)
