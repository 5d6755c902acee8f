"""Waiting for what another thread does, safely against exceptions at any point.

A signal handler may raise between any two steps of the main thread. So nothing here has a state
that such an exception could leave half done: no condition variables, no counters, and no lock that
is held while Python code runs.
"""

import collections
import math
import threading
import time
from typing import Any, Callable, Deque


class Deadline:
    """A moment; `timeout_s` seconds from now, where infinity means never."""

    def __init__(self, timeout_s: float):
        self.timeout_s = timeout_s
        self.at = time.monotonic() + timeout_s

    def left_s(self) -> float:
        return max(0.0, self.at - time.monotonic())


class Bell:
    """Wakes all who wait for it. `ring` comes after the change that it tells of."""

    def __init__(self) -> None:
        self._sleepers: Deque[Any] = collections.deque()

    def wait(self, ready: Callable[[], Any], deadline: Deadline) -> Any:
        """What `ready` gives when that is true; else what it gives at the deadline."""
        while True:
            value = ready()
            if value or deadline.left_s() <= 0:
                return value
            sleeper = threading.Lock()
            sleeper.acquire()
            self._sleepers.append(sleeper)
            value = ready()  # A ring before the line above was not for us.
            if value:
                return value  # The sleeper is dropped by the next ring.
            left_s = deadline.left_s()
            if math.isinf(left_s):
                sleeper.acquire()
            elif not sleeper.acquire(timeout=min(left_s, threading.TIMEOUT_MAX)):
                self._forget(sleeper)

    def ring(self) -> None:
        while self._sleepers:
            try:
                self._sleepers.popleft().release()
            except IndexError:  # Two rang at once.
                return

    def _forget(self, sleeper: Any) -> None:
        try:
            self._sleepers.remove(sleeper)
        except ValueError:
            pass  # It was rung just now.
