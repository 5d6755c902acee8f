"""The connection of one client in one process: a socket, and the thread that alone touches it."""

import _thread
import atexit
import collections
import logging
import math
import os
import secrets
import signal
import socket
import threading
import time
import weakref
from typing import Any, Callable, Deque, Optional

import zmq

from .arguments import is_ipv6
from .errors import ErrorCode, TesseraError
from .session import Session
from .waiting import Bell, Deadline

LINGER_MS = 1000  # For what was said last, such as acknowledgements.
END_WAIT_S = LINGER_MS / 1000 + 0.5
RECEIVE_MAX = 256
SLEEP_MS_MAX = 60_000

log = logging.getLogger("tessera")
_links: "weakref.WeakSet[Link]" = weakref.WeakSet()


class Link:
    """Runs a Session over ZeroMQ on a thread of its own, from the first call on.

    Callers only put calls into `inbox` and wait on bells, so an exception that a signal handler
    raises in a caller cannot break what the thread is at: signals are handled by the main thread
    alone. Belongs to the process that made it; a forked child must not touch it and has one of its
    own.
    """

    def __init__(self, address: str, session: Session):
        self.pid = os.getpid()
        self.ended = False
        self._address = address
        self._session = session
        self._inbox: Deque[Callable[[], None]] = collections.deque()
        self._stopping = False
        self._at_exit = False
        self._runs = threading.Lock()  # Held from the thread's first step on.
        self._gone = Bell()
        self._wake_in: Optional[socket.socket] = None  # From the thread's start to its end;
        self._wake_out: Optional[socket.socket] = None  # before, it has yet to look around anyway.
        self._context: Any = None
        self._socket: Any = None
        self._disconnects: Any = None
        _links.add(self)

    # --- for any thread

    @property
    def session(self) -> Session:
        """To name its methods in calls; only the link's thread may call them."""
        return self._session

    def call(self, method: Callable[..., None], *arguments: Any) -> None:
        """Has the thread call a method of the session. TesseraError when the link has ended."""
        self._inbox.append(lambda: method(*arguments))
        if not self._runs.locked():
            # Should two callers come here at once, all threads but one end at their first step.
            _thread.start_new_thread(self._run, ())
        self.wake()
        if self.ended:
            self._drain()

    def wake(self) -> None:
        """Has the thread look around. Safe at any point, in finalizers too."""
        bell = self._wake_in
        try:
            if bell is not None:
                bell.send(b"\0")
        except OSError:
            pass  # Full, so it will wake; or closed.

    def cast(self, method: Callable[..., None], *arguments: Any) -> None:
        """As call, for finalizers: starts no thread, and leaves a parent process's link alone."""
        if self.pid == os.getpid() and not self.ended:
            self._inbox.append(lambda: method(*arguments))
            self.wake()

    def stop(self, *, at_exit: bool = False) -> None:
        """Ends the thread after what was asked before; returns at once. At the interpreter's exit
        those who still wait are daemon threads, which are left asleep."""
        if self.pid == os.getpid():
            self._at_exit = at_exit
            self._stopping = True
            self.wake()

    def wait_ended(self, deadline: Deadline) -> None:
        if self._runs.locked():
            self._gone.wait(lambda: self.ended, deadline)

    def trouble(self) -> str:
        """What is to be added to a message that a call got no answer; empty when all seems
        well."""
        if self._session.ready:
            return ""
        said = self._session.trouble
        why = f" ({said.message})" if said else ""
        return f": no coordinator answers at {self._address}{why}"

    @property
    def ready(self) -> bool:
        return self._session.ready

    # --- the thread

    def _run(self) -> None:
        if not self._runs.acquire(blocking=False):
            return
        error = TesseraError(ErrorCode.CANCELLED, "the client is closed")
        try:
            _leave_signals_to_others()
            wake_in, self._wake_out = socket.socketpair()
            wake_in.setblocking(False)
            self._wake_out.setblocking(False)
            self._wake_in = wake_in
            self._serve()
        except BaseException as cause:  # Whoever waits must hear of it.
            log.exception("the connection to %s has failed", self._address)
            code = ErrorCode.UNAVAILABLE if isinstance(cause, zmq.ZMQError) else ErrorCode.INTERNAL
            error = TesseraError(code, f"the connection to {self._address} has failed: {cause!r}")
        self._session.refusal = error
        if not self._at_exit:
            self._session.fail_all(error)
        self._close_socket(LINGER_MS if self._session.ready else 0)
        if self._context is not None:
            self._context.term()
        self.ended = True
        self._drain()
        for end in (self._wake_in, self._wake_out):
            if end is not None:
                end.close()
        self._gone.ring()

    def _serve(self) -> None:
        while True:
            stopping = self._stopping  # Before the inbox is emptied: what was asked before is done.
            self._drain()
            now = time.monotonic()
            if self._session.wants_connection:
                self._open_socket()
                self._session.on_connected(now)
            for frames in self._session.turn(now):
                self._socket.send_multipart(frames)
            if stopping:
                return
            if not self._session.wants_connection:
                self._wait(self._session.next_due())
                self._receive()

    def _drain(self) -> None:
        while self._inbox:
            try:
                call = self._inbox.popleft()
            except IndexError:
                return
            call()

    def _wait(self, due: float) -> None:
        left_ms = (due - time.monotonic()) * 1000
        wait_ms = max(0, math.ceil(min(left_ms, SLEEP_MS_MAX)))
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._disconnects, zmq.POLLIN)
        assert self._wake_out is not None
        poller.register(self._wake_out.fileno(), zmq.POLLIN)
        poller.poll(wait_ms)
        try:
            self._wake_out.recv(65536)
        except BlockingIOError:
            pass

    def _receive(self) -> None:
        while self._disconnects.poll(0):
            self._disconnects.recv_multipart()
            self._session.on_broken()
        for _ in range(RECEIVE_MAX):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._session.on_message(frames, time.monotonic())

    def _open_socket(self) -> None:
        """A fresh one with a fresh routing id: answers meant for the old one cannot mix in."""
        self._close_socket(0)
        if self._context is None:
            self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        routing_id = b"\x01" + secrets.token_bytes(15)  # A first byte of zero is ZeroMQ's own.
        self._socket.setsockopt(zmq.ROUTING_ID, routing_id)
        name = "inproc://disconnects-" + routing_id.hex()
        self._socket.monitor(name, zmq.EVENT_DISCONNECTED)
        self._disconnects = self._context.socket(zmq.PAIR)
        self._disconnects.setsockopt(zmq.RCVHWM, 0)
        self._disconnects.connect(name)
        for option, value in ((zmq.LINGER, LINGER_MS), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0),
                              (zmq.RECONNECT_IVL, 100), (zmq.RECONNECT_IVL_MAX, 5000),
                              (zmq.TCP_KEEPALIVE, 1), (zmq.IPV6, int(is_ipv6(self._address)))):
            self._socket.setsockopt(option, value)
        self._socket.connect(self._address)

    def _close_socket(self, linger_ms: int) -> None:
        if self._socket is not None:
            self._socket.monitor(None, 0)
            self._disconnects.close(linger=0)
            self._socket.close(linger=linger_ms)
            self._socket = self._disconnects = None


def _leave_signals_to_others() -> None:
    """A signal that this thread took from the main thread would not wake that one."""
    if hasattr(signal, "pthread_sigmask"):
        faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.valid_signals()) - faults)


def _end_all() -> None:
    """At the interpreter's exit, all at once and for a bounded time."""
    mine = [link for link in _links if link.pid == os.getpid()]
    for link in mine:
        link.stop(at_exit=True)
    deadline = Deadline(END_WAIT_S)
    for link in mine:
        link.wait_ended(deadline)


atexit.register(_end_all)
