"""Checks of what callers give, before anything is sent: what is not right is refused with one
sentence that says what, where and what to do. Values of numpy and pandas are taken by what they
can do."""

import dataclasses
import math
import numbers
import operator
import re
from typing import Any, Iterable, Optional, Sequence, Union
from urllib.parse import urlsplit

import numpy as np

from .protocol import INSTRUCTION_BYTES_MAX, NAME_BYTES_MAX, Block, Fields

Item = Union[str, bytes, Sequence[int]]

DEFAULT_ADDRESS = "tcp://127.0.0.1:7400"
IPC_PATH_BYTES_MAX = 107  # Of a unix socket.
UINT32_MAX = (1 << 32) - 1
TRUNCATE = {"none": 0, "left": 1, "right": 2}


def kind_of(value: object) -> str:
    """How a message names a wrong value: short, and never the text of somebody's document."""
    if value is None or isinstance(value, (bool, int, float, np.bool_, np.number)):
        return f"{value!r}" if value is None else f"{value} ({type(value).__name__})"
    return f"a {type(value).__name__}"


# --- numbers, names, times


def whole(name: str, value: Any, default: int, low: int, high: int = UINT32_MAX) -> int:
    """An int, of numpy too; None is the default. Floats are refused even where they are whole."""
    if value is None:
        return default
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is a whole number, not {kind_of(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        hint = f"; give int({name})" if isinstance(value, numbers.Real) else ""
        raise TypeError(f"{name} is a whole number, not {kind_of(value)}{hint}") from None
    if not low <= number <= high:
        raise ValueError(f"{name} is {low} to {high}, not {number}")
    return number


def flag(name: str, value: Any) -> bool:
    if value is None:
        return False
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is True or False, not {kind_of(value)}")
    return bool(value)


def text(name: str, value: Any, bytes_max: int = NAME_BYTES_MAX) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {kind_of(value)}")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate, which is no Unicode text") from None
    if size > bytes_max:
        raise ValueError(f"{name} has at most {bytes_max} bytes, not {size}")
    return str(value)


def seconds(name: str, value: Any, default: float) -> float:
    """A time to wait; None is the default, infinity means for ever."""
    if value is None:
        return default
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is a number of seconds, float('inf') or None, "
                        f"not {kind_of(value)}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"{name} is 0 or more seconds, not {value}")
    return float(value)


def choice(name: str, value: Any, among: Sequence[str]) -> str:
    if value is None:
        return among[0]
    if not isinstance(value, str) or value not in among:
        shown = repr(value) if isinstance(value, str) else kind_of(value)
        raise ValueError(f"{name} is one of {', '.join(among)}, not {shown}")
    return value


# --- the coordinator's address


def address(value: Any) -> str:
    """A ZeroMQ address of a coordinator; `host:port` alone means TCP."""
    if value is None:
        return DEFAULT_ADDRESS
    if not isinstance(value, str):
        raise TypeError(f"the coordinator's address is a str such as {DEFAULT_ADDRESS!r}, "
                        f"not {kind_of(value)}")
    given = value.strip()
    if re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s/:\[\]]+):\d+", given):
        given = "tcp://" + given
    scheme = given.partition("://")[0] if "://" in given else ""
    if scheme == "ipc":
        return _ipc(given)
    if scheme == "tcp":
        return _tcp(given)
    hint = ("that is a gateway's; give the address of the coordinator's --listen"
            if scheme in ("http", "https") else "give tcp://HOST:PORT or ipc://PATH")
    raise ValueError(f"{value!r} is no coordinator's address: {hint}")


def _ipc(given: str) -> str:
    size = len(given[len("ipc://"):].encode("utf-8", "surrogateescape"))
    if not 1 <= size <= IPC_PATH_BYTES_MAX:
        raise ValueError(f"{given!r} is no coordinator's address: a socket's path has 1 to "
                         f"{IPC_PATH_BYTES_MAX} bytes, not {size}")
    return given


def _tcp(given: str) -> str:
    def refuse(why: str) -> ValueError:
        return ValueError(f"{given!r} is no coordinator's address: {why}")

    rest = given[len("tcp://"):]
    if rest.count(":") > 1 and not rest.startswith("["):
        raise refuse("an IPv6 address stands in brackets, as in tcp://[::1]:7400")
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise refuse(str(error)) from None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise refuse("after the port there is nothing, and before the host neither")
    if not host or any(c.isspace() for c in host):
        raise refuse("the host is missing")
    if host in ("*", "0.0.0.0", "::"):
        raise refuse("a server listens there; give the name of the machine that it runs on")
    if not port:
        raise refuse("the port is missing, a number from 1 to 65535")
    return given


def is_ipv6(checked_address: str) -> bool:
    return checked_address.startswith("tcp://[")


# --- how items are embedded


@dataclasses.dataclass(frozen=True)
class Spec:
    """How items are embedded; the same for all items of a request or job. None is the default.

    model: name of a model that the coordinator serves; not needed where it serves one.
    query: put the model's query prompt before each text.
    instruction: the task's sentence instead of the model's own; implies query.
    prompt_name: put the model's prompt of this name before each text.
    dimensions: width of the vectors, from 32; 0: the model's whole width.
    float16: vectors as float16 instead of float32.
    truncate: what to do with a text that is too long: "none" makes it an error, "left" and "right"
        remove tokens at that side.
    max_tokens: a limit of its own under the model's, the final token included.
    """

    model: Optional[str] = ""
    query: Optional[bool] = False
    instruction: Optional[str] = ""
    dimensions: Optional[int] = 0
    float16: Optional[bool] = False
    truncate: Optional[str] = "none"
    max_tokens: Optional[int] = 0
    prompt_name: Optional[str] = ""

    def fields(self) -> Fields:
        """As it is sent. TypeError or ValueError for what no coordinator would take."""
        instruction = text("instruction", self.instruction, INSTRUCTION_BYTES_MAX)
        prompt_name = text("prompt_name", self.prompt_name)
        query = flag("query", self.query) or bool(instruction)
        if prompt_name and instruction:
            raise ValueError("prompt_name and instruction exclude each other: give one of them")
        fields = {
            1: text("model", self.model), 2: query, 3: instruction,
            4: whole("dimensions", self.dimensions, 0, 0), 5: int(flag("float16", self.float16)),
            6: TRUNCATE[choice("truncate", self.truncate, list(TRUNCATE))],
            7: whole("max_tokens", self.max_tokens, 0, 0),
        }
        return {**fields, 8: prompt_name} if prompt_name else fields


# --- items


def iterable(name: str, value: Any) -> Iterable[Any]:
    """What gives items one by one, in an order that the caller knows."""
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"{name} is a list of texts, not {kind_of(value)}; for one text give "
                        "[text]")
    if isinstance(value, dict):
        raise TypeError(f"{name} is a list of texts, not a dict; give list(d.values())")
    if isinstance(value, (set, frozenset)):
        raise TypeError(f"{name} is a list of texts; a set has no order to give vectors in")
    if hasattr(value, "columns") and getattr(value, "ndim", 2) == 2:
        raise TypeError(f"{name} is a list of texts, not {kind_of(value)}; give one of its columns")
    if getattr(value, "ndim", None) == 0 or not hasattr(value, "__iter__") and not hasattr(
            value, "__getitem__"):
        raise TypeError(f"{name} is a list of texts, not {kind_of(value)}")
    items: Iterable[Any] = value
    return items


def item_bytes(item: Any, index: int) -> Block:
    """An item as it is sent; `index` says in an error which one it is. Lone surrogates of a str
    become bytes that the coordinator answers with INVALID_UTF8."""
    if isinstance(item, str):
        return 0, item.encode("utf-8", "surrogatepass")
    if isinstance(item, (bytes, bytearray, memoryview)):
        return 0, bytes(item)
    if hasattr(item, "as_py"):  # A value of Arrow.
        return item_bytes(item.as_py(), index)
    return 1, _token_ids(item, index)


def _token_ids(item: Any, index: int) -> bytes:
    if not hasattr(item, "__len__") or isinstance(item, (dict, set, frozenset)):
        hint = ("; for one list of token ids give [ids]"
                if isinstance(item, (int, np.integer)) and not isinstance(item, bool) else "")
        raise TypeError(f"item {index} is {kind_of(item)}: an item is a str, bytes, or a list of "
                        f"token ids{hint}")
    try:
        ids = np.asarray(item)
    except ValueError:
        ids = np.empty((0, 0))  # Of lists of different lengths.
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        of = f" of {type(item[0]).__name__}" if isinstance(item, (list, tuple)) and item else ""
        raise TypeError(f"item {index} is {kind_of(item)}{of}: an item is a str, bytes, or a list "
                        "of token ids")
    wide = ids.astype(np.int64)
    if ids.size and (wide.min() < -(1 << 31) or wide.max() >= 1 << 31):
        raise ValueError(f"item {index}: a token id does not fit into 32 bits")
    return wide.astype("<i4").tobytes()
