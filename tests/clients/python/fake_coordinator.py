"""A coordinator that does what a test says: a ROUTER socket and a thread."""

import threading

import msgpack
import numpy as np
import zmq

from tessera.protocol import Type

WIDTH = 4


class FakeCoordinator:
    """Greets, and answers embed requests with rows that say how many bytes their texts have,
    unless the test has an `answer` of its own: a function of (type, fields, payload) that gives a
    list of (type, fields, payload) to send back, or None for the usual answer."""

    def __init__(self, answer=None, minor=3, port="*", bind=None):
        self.answer = answer
        self.minor = minor
        self.received = []  # (type, fields) of all but hellos and pings.
        self.peers = []  # Routing ids, in the order of their first hello.
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, int(bind is not None and "[" in bind))
        self._socket.bind(bind or f"tcp://127.0.0.1:{port}")
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._socket.close()
        self._context.term()

    def _run(self):
        while not self._stop.is_set():
            if not self._socket.poll(20):
                continue
            peer, header, *payload = self._socket.recv_multipart()
            _, number, fields = msgpack.unpackb(header, strict_map_key=False)
            kind = Type(number)
            if peer not in self.peers:
                self.peers.append(peer)
            if kind not in (Type.CLIENT_HELLO, Type.PING):
                self.received.append((kind, fields))
            said = self.answer(kind, fields, b"".join(payload)) if self.answer else None
            for reply in self.usual(kind, fields) if said is None else said:
                self._send(peer, *reply)

    def usual(self, kind, fields):
        if kind == Type.CLIENT_HELLO:
            return [(Type.SERVER_HELLO, {1: self.minor, 2: "fake", 3: 1, 4: []})]
        if kind == Type.PING:
            return [(Type.PONG, {1: fields.get(1, 0)})]
        if kind == Type.EMBED_REQUEST:
            return [embed_reply(fields)]
        if kind == Type.STATUS_REQUEST:
            return [(Type.STATUS_REPLY, {1: fields[1], 4: [], 6: [{1: "fake-model"}]})]
        return []

    def _send(self, peer, kind, fields, payload=b""):
        header = msgpack.packb([1, int(kind), fields])
        self._socket.send_multipart([peer, header] + ([payload] if payload else []))


def greeted_as(fake):
    """The connections that there have been."""
    return list(fake.peers)


def embed_reply(fields):
    sizes = np.frombuffer(fields[5][1], "<u4")
    rows = np.repeat(sizes.astype("<f4")[:, None], WIDTH, axis=1)
    return (Type.EMBED_REPLY, {1: fields[1], 2: {1: bytes(len(sizes)), 5: WIDTH}}, rows.tobytes())


def error_reply(request_id, code, message="no", retry_ms=0):
    return (Type.ERROR_REPLY, {1: request_id, 2: int(code), 3: message, 4: retry_ms})
