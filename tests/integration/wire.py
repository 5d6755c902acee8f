"""The wire protocol for tests: field tables are read from common/wire/codec_fields.hpp, so that a test
speaks whatever the processes speak, and can also send what no real client would."""

import os
import re
import struct

import msgpack
import numpy as np
import zmq

SLOWDOWN = int(os.environ.get("TESSERA_TEST_SLOWDOWN", "1"))  # Of sanitized builds.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN_U8 = {"kinds", "codes", "sources", "digest"}
BIN_U32 = {"sizes", "token_counts", "tokens_cut", "lengths", "accepted", "delivered"}
NESTED = {"spec": "EmbedSpec", "items": "ItemBlock", "results": "ResultBlock",
          "progress": "JobProgress", "trace": "RequestTrace", "quota": "Quota",
          "batch_seconds": "Histogram", "item_seconds": "Histogram",
          "batch_fill": "Histogram"}
BIN_F64 = {"bounds", "values"}
BIN_U64 = {"counts"}
NESTED_LISTS = {"errors": "ItemError", "models": "ModelInfo", "jobs": "JobProgress",
                "workers": "WorkerStatus", "traces": "RequestTrace", "families": "MetricFamily",
                "records": "RecordInfo", "refused_workers": "WorkerRefusal"}


def _read_tables():
    with open(os.path.join(ROOT, "common/wire/codec_fields.hpp"), encoding="utf-8") as file:
        text = file.read()
    tables = {}
    for name, body in re.findall(r"void fields\(F& f, (\w+)& m\) \{(.*?)\n\}", text, re.S):
        tables[name] = {field: int(n) for n, field in re.findall(r"f\((\d+), m\.(\w+)\)", body)}
    with open(os.path.join(ROOT, "common/wire/protocol.hpp"), encoding="utf-8") as file:
        variant = re.search(r"using AnyMessage =\s*std::variant<(.*?)>;", file.read(), re.S).group(1)
    return tables, [name.strip() for name in variant.split(",")]


TABLES, TYPES = _read_tables()


def _pack_struct(name, values):
    table = TABLES[name]
    out = {}
    for key, value in values.items():
        if key == "payload":
            continue
        if key in NESTED and isinstance(value, dict):
            value = _pack_struct(NESTED[key], value)
        elif key in BIN_U8:
            value = bytes(value)
        elif key in BIN_U32:
            value = np.asarray(value, dtype="<u4").tobytes()
        elif key in BIN_F64:
            value = np.asarray(value, dtype="<f8").tobytes()
        elif key in BIN_U64:
            value = np.asarray(value, dtype="<u8").tobytes()
        out[table[key]] = value
    return out


def _unpack_struct(name, fields):
    names = {number: field for field, number in TABLES[name].items()}
    out = {}
    for number, value in fields.items():
        key = names.get(number, number)
        if key in NESTED_LISTS and isinstance(value, list):
            value = [_unpack_struct(NESTED_LISTS[key], item) for item in value]
        elif key in NESTED and isinstance(value, dict):
            value = _unpack_struct(NESTED[key], value)
        elif key in BIN_U8 and isinstance(value, bytes):
            value = list(value)
        elif key in BIN_U32 and isinstance(value, bytes):
            value = np.frombuffer(value, "<u4").tolist()
        elif key in BIN_F64 and isinstance(value, bytes):
            value = np.frombuffer(value, "<f8").tolist()
        elif key in BIN_U64 and isinstance(value, bytes):
            value = np.frombuffer(value, "<u8").tolist()
        out[key] = value
    return out


def encode(message_type, payload=b"", version=1, **values):
    header = msgpack.packb([version, TYPES.index(message_type), _pack_struct(message_type, values)])
    return [header, payload] if payload else [header]


def decode(frames):
    version, number, fields = msgpack.unpackb(frames[0], strict_map_key=False)
    assert version == 1
    name = TYPES[number]
    message = _unpack_struct(name, fields)
    message["type"] = name
    message["payload"] = frames[1] if len(frames) > 1 else b""
    return message


def block(items):
    """ItemBlock and its payload, of strings, bytes and lists of token ids."""
    sizes, kinds, payload = [], [], []
    for item in items:
        if isinstance(item, (list, tuple)):
            data, kind = struct.pack(f"<{len(item)}i", *item), 1
        else:
            data, kind = (item.encode() if isinstance(item, str) else item), 0
        sizes.append(len(data))
        kinds.append(kind)
        payload.append(data)
    return {"sizes": sizes, "kinds": kinds}, b"".join(payload)


def vectors(message):
    """A list with a float32 row or None per item."""
    results = message["results"]
    half = results.get("vector_type", 0) == 1
    rows = np.frombuffer(message["payload"], "<f2" if half else "<f4").astype(np.float32)
    rows = iter(rows.reshape(-1, results["dimensions"]) if len(rows) else [])
    return [next(rows) if code == 0 else None for code in results["codes"]]


class Peer:
    """A DEALER connection that speaks the protocol."""

    def __init__(self, address):
        self.context = zmq.Context.instance()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, b"\1" + os.urandom(15))
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.connect(address)
        self.request_id = 0

    def send(self, message_type, payload=b"", **values):
        self.socket.send_multipart(encode(message_type, payload, **values))

    def send_raw(self, frames):
        self.socket.send_multipart(frames)

    def receive(self, timeout_s=20):
        if not self.socket.poll(int(timeout_s * 1000)):
            raise TimeoutError("no message came")
        return decode(self.socket.recv_multipart())

    def wait_for(self, *types, timeout_s=30, where=lambda m: True):
        """The next message of these types; others are dropped."""
        while True:
            message = self.receive(timeout_s * SLOWDOWN)
            if message["type"] in types and where(message):
                return message

    def next_id(self):
        self.request_id += 1
        return self.request_id

    def hello(self, tenant=""):
        self.send("ClientHello", client="test", tenant=tenant)
        return self.wait_for("ServerHello")

    def embed(self, items, timeout_s=30, deadline_ms=0, lane=0, **spec):
        request_id = self.next_id()
        fields, payload = block(items)
        self.send("EmbedRequest", payload, request_id=request_id, spec=spec, items=fields,
                  deadline_ms=deadline_ms, lane=lane)
        return self.wait_for("EmbedReply", "ErrorReply", timeout_s=timeout_s,
                             where=lambda m: m.get("request_id") == request_id)

    def close(self):
        self.socket.close()
