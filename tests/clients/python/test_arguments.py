"""What callers give is taken, or refused with one sentence that says what, where and what to
do."""

import copy
import ctypes
import math
import pickle

import numpy as np
import pytest

import tessera
from fake_coordinator import FakeCoordinator
from tessera import (Client, EmbedError, ErrorCode, ItemError, Job, JobConflict, JobResult,
                     Progress, Results, Spec, TesseraError)
from tessera import arguments


class Series:
    """What a pandas Series can do, as far as it matters here."""

    ndim = 1

    def __init__(self, values):
        self._values = values

    def __iter__(self):
        return map(self._values.__getitem__, range(len(self._values)))

    def __len__(self):
        return len(self._values)


class Frame(Series):
    ndim = 2
    columns = ("id", "text")


class Scalar:
    def __init__(self, value):
        self._value = value

    def as_py(self):
        return self._value


@pytest.fixture(scope="module")
def client():
    with FakeCoordinator() as fake, Client(fake.address, timeout_s=30) as connected:
        yield connected


NOWHERE = Client("tcp://127.0.0.1:9", timeout_s=0.2)  # Refuses before it would connect.

# --- the address

GOOD_ADDRESSES = [
    (None, "tcp://127.0.0.1:7400"), ("tcp://127.0.0.1:7400", "tcp://127.0.0.1:7400"),
    ("localhost:7400", "tcp://localhost:7400"), ("gpu-1.example.org:7400",
                                                 "tcp://gpu-1.example.org:7400"),
    ("[::1]:7400", "tcp://[::1]:7400"), ("tcp://[fe80::1%eth0]:7400", "tcp://[fe80::1%eth0]:7400"),
    (" tcp://h:1 ", "tcp://h:1"), ("ipc:///run/t.sock", "ipc:///run/t.sock"),
    ("ipc://@abstract", "ipc://@abstract"), (np.str_("h:65535"), "tcp://h:65535"),
]
BAD_ADDRESSES = [
    ("", "give tcp://HOST:PORT or ipc://PATH"), ("localhost", "give tcp://HOST:PORT"),
    ("tcp://localhost", "the port is missing"), ("tcp://:7400", "the host is missing"),
    ("tcp://h:0", "the port is missing"), ("tcp://h:65536", "[Pp]ort"), ("tcp://h:x", "[Pp]ort"),
    ("tcp://*:7400", "a server listens there"), ("tcp://0.0.0.0:7400", "a server listens there"),
    ("tcp://::1:7400", "stands in brackets"), ("tcp://[::1:7400", "."),
    ("tcp://h:7400/path", "after the port"), ("tcp://me@h:7400", "before the host"),
    ("http://h:8080", "a gateway's"), ("https://h", "a gateway's"),
    ("inproc://x", "give tcp://HOST:PORT"), ("redis://h:6379", "give tcp://HOST:PORT"),
    ("ipc://", "1 to 107 bytes"), ("ipc:///" + "x" * 108, "1 to 107 bytes"),
]


@pytest.mark.parametrize("given, understood", GOOD_ADDRESSES)
def test_addresses(given, understood):
    assert Client(given).address == understood


@pytest.mark.parametrize("given, why", BAD_ADDRESSES)
def test_what_is_no_address(given, why):
    with pytest.raises(ValueError, match=why):
        Client(given)


@pytest.mark.parametrize("given", [7400, b"tcp://h:1", ("h", 7400)])
def test_an_address_is_a_str(given):
    with pytest.raises(TypeError, match="the coordinator's address is a str"):
        Client(given)


# --- numbers and names

SPEC_FIELDS = [
    ({}, {}), ({"dimensions": None}, {}), ({"dimensions": 64}, {4: 64}),
    ({"dimensions": np.int64(64)}, {4: 64}), ({"dimensions": np.uint8(64)}, {4: 64}),
    ({"dimensions": np.array(64)}, {4: 64}), ({"dimensions": ctypes.c_int(64).value}, {4: 64}),
    ({"model": None}, {}), ({"model": "m"}, {1: "m"}), ({"model": np.str_("m")}, {1: "m"}),
    ({"query": np.bool_(True)}, {2: True}), ({"query": None}, {}),
    ({"instruction": "Find"}, {2: True, 3: "Find"}), ({"float16": True}, {5: 1}),
    ({"truncate": None}, {}), ({"truncate": "left"}, {6: 1}), ({"max_tokens": 7}, {7: 7}),
    ({"prompt_name": None}, {}), ({"prompt_name": "query"}, {8: "query"}),
    ({"prompt_name": "query", "query": True}, {2: True, 8: "query"}),
]
DEFAULTS = {1: "", 2: False, 3: "", 4: 0, 5: 0, 6: 0, 7: 0}


@pytest.mark.parametrize("given, fields", SPEC_FIELDS)
def test_specs(given, fields):
    sent = Spec(**given).fields()
    assert sent == {**DEFAULTS, **fields}
    assert {type(value) for value in sent.values()} <= {str, bool, int}, "msgpack takes them"


BAD_SPECS = [
    ("dimensions", 64.0, TypeError, r"64\.0 \(float\); give int"),
    ("dimensions", np.float32(64), TypeError, "give int"),
    ("dimensions", -1, ValueError, "dimensions is 0 to 4294967295, not -1"),
    ("dimensions", np.int64(-1), ValueError, "not -1"),
    ("dimensions", 1 << 32, ValueError, "4294967"),
    ("dimensions", "64", TypeError, "a str"), ("dimensions", True, TypeError, "True"),
    ("dimensions", [64], TypeError, "a list"), ("dimensions", math.nan, TypeError, "nan"),
    ("max_tokens", 5.5, TypeError, "max_tokens is a whole number"),
    ("max_tokens", -3, ValueError, "max_tokens"),
    ("model", 3, TypeError, "model is a str"), ("model", b"m", TypeError, "a bytes"),
    ("model", "x" * 257, ValueError, "at most 256 bytes"),
    ("model", "\ud800", ValueError, "lone surrogate"),
    ("instruction", "x" * 9000, ValueError, "at most 8192 bytes"),
    ("instruction", True, TypeError, "instruction is a str"),
    ("prompt_name", 1, TypeError, "prompt_name is a str"),
    ("query", "yes", TypeError, "query is True or False"), ("query", 1, TypeError, "query"),
    ("float16", "f2", TypeError, "float16"), ("truncate", True, ValueError, "none, left, right"),
    ("truncate", "end", ValueError, "not 'end'"),
]


@pytest.mark.parametrize("name, value, error, why", BAD_SPECS)
def test_bad_specs_are_refused_at_once_everywhere(name, value, error, why):
    for call in (NOWHERE.embed, NOWHERE.embed_results, NOWHERE.submit):
        with pytest.raises(error, match=why):
            call(["a"], **{name: value})


def test_a_prompt_is_named_or_written():
    with pytest.raises(ValueError, match="exclude each other"):
        NOWHERE.embed(["a"], prompt_name="query", instruction="Find")


BAD_OPTIONS = [
    (lambda c: c.embed(["a"], dimension=64), TypeError, "dimension"),
    (lambda c: c.embed(["a"], on_error="ignore"), ValueError, "raise, nan"),
    (lambda c: c.submit(["a"], chunk_items=0), ValueError, "chunk_items is 1 to 4096, not 0"),
    (lambda c: c.submit(["a"], chunk_items=4097), ValueError, "4097"),
    (lambda c: c.submit(["a"], chunk_items=2.0), TypeError, "chunk_items"),
    (lambda c: c.submit(["a"], priority=101), ValueError, "priority is 1 to 100"),
    (lambda c: c.submit(["a"], priority="high"), TypeError, "priority"),
    (lambda c: c.submit(["a"], key=7), TypeError, "key is a str"),
    (lambda c: c.submit(["a"], key="k" * 257), ValueError, "256 bytes"),
    (lambda c: c.status(5), TypeError, "job_id is a str"),
    (lambda c: c.cancel(5), TypeError, "job_id is a str"),
    (lambda c: Client("h:1", tenant=5), TypeError, "tenant is a str"),
    (lambda c: Client("h:1", token=b"t"), TypeError, "token is a str"),
]


@pytest.mark.parametrize("call, error, why", BAD_OPTIONS)
def test_bad_options(call, error, why):
    with pytest.raises(error, match=why):
        call(NOWHERE)


# --- times

@pytest.mark.parametrize("value, error", [
    (math.nan, ValueError), (-1, ValueError), (-math.inf, ValueError),
    (np.float64(-0.5), ValueError),
    ("5", TypeError), (True, TypeError), ([5], TypeError), (5j, TypeError),
])
def test_bad_times(value, error):
    calls = (lambda: Client("h:1", timeout_s=value), lambda: NOWHERE.embed(["a"], timeout_s=value),
             lambda: NOWHERE.submit(["a"], timeout_s=value),
             lambda: NOWHERE.models(timeout_s=value))
    for call in calls:
        with pytest.raises(error, match="timeout_s is"):
            call()


@pytest.mark.parametrize("value", [None, math.inf, 30, 30.5, np.float32(30), np.int64(30)])
def test_good_times(client, value):
    assert client.embed(["four"], timeout_s=value).shape == (1, 4)
    assert Client("h:1", timeout_s=value).timeout_s == (math.inf if value is None else value)


# --- texts and items

GOOD_TEXTS = [
    (["a", "bcd"], [1, 3]), (("a", "bcd"), [1, 3]), ([], []), (iter(["a"]), [1]),
    ((t for t in ["a", "bc"]), [1, 2]), (np.array(["a", "bcd"]), [1, 3]),
    (np.array(["a", "bcd"], dtype=object), [1, 3]), (Series(["a", "bcd"]), [1, 3]),
    ({"k": "abc"}.values(), [3]), ([b"ab", bytearray(b"abc"), memoryview(b"abcd")], [2, 3, 4]),
    ([np.str_("ab"), np.bytes_(b"abc")], [2, 3]), (["ü"], [2]), (["\ud800"], [3]),
    ([[1, 2, 3]], [12]), ([(1, 2)], [8]), ([range(3)], [12]), ([[]], [0]),
    ([np.array([1, 2], dtype=np.uint16)], [8]), (np.array([[1, 2], [3, 4]]), [8, 8]),
    ([[np.int64(5), 6]], [8]), ([Scalar("abc"), Scalar([1, 2])], [3, 8]),
]
BAD_TEXTS = [
    ("hello", TypeError, r"a list of texts, not a str; for one text give \[text\]"),
    (b"hello", TypeError, r"not a bytes; for one text give \[text\]"),
    (np.str_("hello"), TypeError, "for one text give"), (None, TypeError, "not None"),
    (5, TypeError, r"not 5 \(int\)"), (math.nan, TypeError, "not nan"),
    ({"a": "b"}, TypeError, r"not a dict; give list\(d.values\(\)\)"),
    ({"a", "b"}, TypeError, "a set has no order"),
    (np.array("hello"), TypeError, "a list of texts"),
    (Frame(["a"]), TypeError, "give one of its columns"),
]
BAD_ITEMS = [
    (["a", None], TypeError, "item 1 is None: an item is a str, bytes, or a list of token ids"),
    (["a", "b", math.nan], TypeError, r"item 2 is nan \(float\)"),
    ([True], TypeError, "item 0 is True"),
    ([1, 2, 3], TypeError, r"item 0 is 1 \(int\).*give \[ids\]"),
    (np.array([1, 2]), TypeError, r"give \[ids\]"),
    ([["a", "b"]], TypeError, "item 0 is a list of str"),
    (["a", {"text": "b"}], TypeError, "item 1 is a dict"),
    (["a", {"b"}], TypeError, "item 1 is a set"),
    ([[1.5]], TypeError, "item 0 is a list of float"), ([[True]], TypeError, "a list of bool"),
    ([[[1, 2]]], TypeError, "item 0"), ([[[1], [2, 3]]], TypeError, "item 0"),
    (["a", [1 << 31]], ValueError, "item 1: a token id does not fit"),
    ([[-(1 << 31) - 1]], ValueError, "item 0: a token id"), ([object()], TypeError, "a object"),
    (Series(["a", None]), TypeError, "item 1 is None"),
    ([Scalar(None)], TypeError, "item 0 is None"),
]


@pytest.mark.parametrize("texts, sizes", GOOD_TEXTS, ids=lambda value: type(value).__name__)
def test_texts(client, texts, sizes):
    vectors = client.embed(texts)
    assert vectors[:, 0].tolist() == sizes if sizes else vectors.shape == (0, 0)


@pytest.mark.parametrize("texts, error, why", BAD_TEXTS, ids=lambda value: type(value).__name__)
def test_what_is_no_list_of_texts(texts, error, why):
    for call in (NOWHERE.embed, NOWHERE.embed_results, NOWHERE.submit):
        with pytest.raises(error, match=why):
            call(texts)


@pytest.mark.parametrize("texts, error, why", BAD_ITEMS, ids=str)
def test_a_wrong_item_is_named(client, texts, error, why):
    with pytest.raises(error, match=why):
        client.embed(texts)


def test_a_wrong_item_far_behind_is_named(client):
    texts = ["a"] * 1000 + [None]
    with pytest.raises(TypeError, match="item 1000 is None"):
        client.embed(texts)


def test_texts_of_pandas(client):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "bcd"], "columns": ["x", "y"]}, index=[7, 9])
    assert client.embed(frame["text"])[:, 0].tolist() == [1, 3]
    assert client.embed(frame["text"].astype("string"))[:, 0].tolist() == [1, 3]
    assert client.embed(pandas.Series(["a"], index=["columns"]))[:, 0].tolist() == [1]
    with pytest.raises(TypeError, match="give one of its columns"):
        client.embed(frame)
    for missing in (None, pandas.NA, math.nan):
        with pytest.raises(TypeError, match="item 1 is"):
            client.embed(pandas.Series(["a", missing], dtype=object))


# --- across processes

ERRORS = [
    TesseraError(ErrorCode.NOT_FOUND, "no model"), JobConflict(ErrorCode.CONFLICT, "other items"),
    EmbedError([ItemError(1, ErrorCode.EMPTY_TEXT, "the text is empty")],
               np.array([[1, 2], [np.nan, np.nan]], dtype="<f4")),
]
VALUES = [
    ItemError(3, ErrorCode.TOO_LONG, "long"), Spec(dimensions=64), Progress.of({1: "id", 4: 2}),
    JobResult(1, 5, np.zeros((2, 3)), [], np.zeros(2), np.zeros(2)),
    Results(np.zeros((2, 3)), [], np.zeros(2), np.zeros(2), 0, 0, 0),
]


def test_every_exception_is_tried_here():
    exported = {value for value in vars(tessera).values()
                if isinstance(value, type) and issubclass(value, BaseException)}
    assert exported == {type(error) for error in ERRORS}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy] + [
    lambda error, p=protocol: pickle.loads(pickle.dumps(error, p))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)])
def test_exceptions_survive_pickling(error, way):
    error.added_by_somebody = "kept"
    other = way(error)
    assert type(other) is type(error) and str(other) == str(error)
    assert other.__dict__.keys() == error.__dict__.keys() >= {"code", "message"}
    for name, value in error.__dict__.items():
        assert np.array_equal(getattr(other, name), value, equal_nan=name == "vectors"), name
    assert type(other.code) is ErrorCode


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_survive_pickling(value):
    assert repr(pickle.loads(pickle.dumps(value))) == repr(value)


def test_a_pickled_client_is_a_new_one(client):
    client.embed(["a"])
    for way in (copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))):
        other = way(client)
        assert other is not client and not other._links, "not connected"
        assert (other.address, other.timeout_s) == (client.address, client.timeout_s)
        assert other.embed(["four"])[0, 0] == 4
        other.close()
        assert client.embed(["abc"])[0, 0] == 3, "the other one's end is not this one's"
    assert pickle.loads(pickle.dumps(Client("h:1", token="t", tenant="x")))._token == "t"


def test_unknown_codes_of_newer_coordinators():
    assert ErrorCode(99) is ErrorCode.INTERNAL


def test_messages_show_no_texts():
    assert arguments.kind_of(["somebody's document"]) == "a list"
    assert Job.__doc__ and Client.__doc__
