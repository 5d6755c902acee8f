"""One socket to a coordinator, pumped by whoever waits for something."""

import secrets
import time
from typing import Callable, Dict, Optional, Tuple

import zmq

from .protocol import ErrorCode, Fields, TesseraError, Type, pack, unpack

PING_S = 1.0
SILENCE_S = 5.0
HELLO_AGAIN_S = 2.0
Handler = Callable[[int, Fields, bytes], None]


class Connection:
    """Owns the socket; used by one thread at a time.

    `pump` sends what is due and hands on what has arrived. When the connection breaks, or the
    coordinator is silent for five seconds, there is a fresh socket with a fresh routing id; one that
    answers the repeated hello with another epoch was restarted. In all cases `on_reconnect` is called:
    whatever was not answered must be sent again.
    """

    def __init__(self, address: str, name: str, tenant: str, token: str,
                 on_message: Handler, on_reconnect: Callable[[], None]):
        self._address = address
        self._hello = pack(Type.CLIENT_HELLO, {1: 0, 2: name, 3: tenant, 4: token})
        self._on_message = on_message
        self._on_reconnect = on_reconnect
        self._context = zmq.Context()
        self._socket: Optional[zmq.Socket] = None
        self._disconnects: Optional[zmq.Socket] = None
        self._next_id = 0
        self.refusal: Optional[TesseraError] = None
        self.server: Fields = {}
        self._open()

    def close(self) -> None:
        if self._socket is not None:
            self._close(linger=1000)
            self._context.term()

    def next_id(self) -> int:
        self._next_id += 1
        return self._next_id

    @property
    def ready(self) -> bool:
        return self._ready

    def send(self, message_type: Type, fields: Fields, payload: bytes = b"") -> None:
        """Sends now; the caller repeats it from on_reconnect while it has no answer."""
        if self._ready:
            self._send_frames(pack(message_type, fields), payload)

    def pump(self, wait_s: float) -> None:
        """Waits up to wait_s for a message, and handles all that are here."""
        if self._socket is None:
            raise TesseraError(ErrorCode.CANCELLED, "the client is closed")
        if self.refusal:
            raise self.refusal
        self._keep_alive()
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._disconnects, zmq.POLLIN)
        if poller.poll(max(0, int(wait_s * 1000))):
            for _ in range(256):
                try:
                    frames = self._socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                self._handle(frames)
        if self.refusal:
            raise self.refusal

    def _close(self, linger: int) -> None:
        if self._socket is not None and self._disconnects is not None:
            self._socket.monitor(None, 0)
            self._disconnects.close(linger=0)
            self._socket.close(linger=linger)
            self._socket = self._disconnects = None

    def _open(self) -> None:
        self._close(linger=0)
        self._socket = self._context.socket(zmq.DEALER)
        routing_id = b"\x01" + secrets.token_bytes(15)  # A first byte of zero is ZeroMQ's own.
        self._socket.setsockopt(zmq.ROUTING_ID, routing_id)
        name = "inproc://disconnects-" + routing_id.hex()
        self._socket.monitor(name, zmq.EVENT_DISCONNECTED)
        self._disconnects = self._context.socket(zmq.PAIR)
        self._disconnects.setsockopt(zmq.RCVHWM, 0)
        self._disconnects.connect(name)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._socket.connect(self._address)
        self._ready = False
        now = time.monotonic()
        self._heard = self._pumped = self._hello_sent = self._pinged = now
        self._send_frames(self._hello)

    def _send_frames(self, header: bytes, payload: bytes = b"") -> None:
        assert self._socket is not None
        self._socket.send_multipart([header, payload] if payload else [header])

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now - self._pumped > SILENCE_S / 2:
            self._heard = now  # Nobody looked for a while; what has arrived comes first.
        self._pumped = now
        if self._broke() or now - self._heard > SILENCE_S:
            self._open()
        elif now - self._hello_sent > HELLO_AGAIN_S:
            self._hello_sent = now
            self._send_frames(self._hello)
        elif now - self._heard > PING_S and now - self._pinged > PING_S:
            self._pinged = now
            self._send_frames(pack(Type.PING, {1: self.next_id()}))

    def _broke(self) -> bool:
        """Whether the connection broke since the last look, and with it what was under way was lost."""
        assert self._disconnects is not None
        broke = False
        while self._disconnects.poll(0):
            self._disconnects.recv_multipart()
            broke = self._ready
        return broke

    def _handle(self, frames: list) -> None:
        self._heard = time.monotonic()
        message_type, fields = unpack(frames[0])
        payload = frames[1] if len(frames) > 1 else b""
        if message_type == Type.PING:
            self._send_frames(pack(Type.PONG, {1: fields.get(1, 0)}))
        elif message_type == Type.SERVER_HELLO:
            restarted = self._ready and fields.get(3) != self.server.get(3)
            self.server = fields
            if restarted or not self._ready:
                self._ready = True
                self._on_reconnect()
        elif message_type == Type.ERROR_REPLY and not fields.get(1, 0):
            code = ErrorCode(fields.get(2, ErrorCode.INTERNAL))
            if code in (ErrorCode.UNAUTHENTICATED, ErrorCode.UNSUPPORTED_VERSION):
                self.refusal = TesseraError(code, fields.get(3, ""))
        else:
            self._on_message(message_type, fields, payload)


def error_of(fields: Fields) -> Tuple[TesseraError, int]:
    """The error of an ErrorReply and the milliseconds after which to try again; 0: never."""
    code = ErrorCode(fields.get(2, ErrorCode.INTERNAL))
    retry_ms = fields.get(4, 0)
    if code == ErrorCode.RESOURCE_EXHAUSTED:
        retry_ms = max(retry_ms, 50)
    return TesseraError(code, fields.get(3, "")), retry_ms


class Requests:
    """Questions that wait for their answer; sent again after reconnects and refusals."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._waiting: Dict[int, Tuple[Type, Fields, bytes]] = {}
        self._send_at: Dict[int, float] = {}
        self._refusals: Dict[int, Tuple[int, TesseraError]] = {}
        self.answers: Dict[int, object] = {}

    def ask(self, message_type: Type, fields: Fields, payload: bytes = b"") -> int:
        request_id = self._connection.next_id()
        fields = {**fields, 1: request_id}
        self._waiting[request_id] = (message_type, fields, payload)
        self._send_at[request_id] = 0.0
        return request_id

    def forget(self, request_id: int) -> None:
        self._waiting.pop(request_id, None)
        self._send_at.pop(request_id, None)
        self._refusals.pop(request_id, None)

    def last_refusal(self, request_id: int) -> Optional[TesseraError]:
        refused = self._refusals.get(request_id)
        return refused[1] if refused else None

    def answer(self, message_type: int, fields: Fields, payload: bytes) -> None:
        request_id = fields.get(1, 0)
        if request_id not in self._waiting:
            return
        if message_type == Type.ERROR_REPLY:
            error, retry_ms = error_of(fields)
            if retry_ms:
                times = self._refusals.get(request_id, (0, error))[0]
                back_off_s = max(retry_ms / 1000, min(5.0, 0.05 * 2 ** min(times, 10)))
                self._refusals[request_id] = (times + 1, error)
                self._send_at[request_id] = time.monotonic() + back_off_s
                return
            self.answers[request_id] = error
        else:
            self.answers[request_id] = (fields, payload)
        self.forget(request_id)

    def send_again(self) -> None:
        for request_id in self._waiting:
            self._send_at[request_id] = 0.0

    def send_due(self) -> None:
        if not self._connection.ready:
            return
        now = time.monotonic()
        for request_id, at in self._send_at.items():
            if at <= now:
                self._connection.send(*self._waiting[request_id])
                self._send_at[request_id] = float("inf")
