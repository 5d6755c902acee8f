"""Sets of chunk numbers that are mostly runs."""

import bisect
from typing import Iterable, List, Tuple


class ChunkSet:
    """Numbers kept as ranges: a job of millions of chunks takes a few words."""

    def __init__(self, ranges: Iterable[Tuple[int, int]] = ()):
        self._first: List[int] = []  # Of each range, ascending; ranges do not touch.
        self._last: List[int] = []
        for first, last in ranges:
            self.add_range(first, last)

    def __contains__(self, number: int) -> bool:
        at = bisect.bisect_right(self._first, number) - 1
        return at >= 0 and number <= self._last[at]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges())

    def add(self, number: int) -> None:
        self.add_range(number, number)

    def add_range(self, first: int, last: int) -> None:
        begin = bisect.bisect_left(self._last, first - 1)
        end = bisect.bisect_right(self._first, last + 1)
        if begin < end:
            first, last = min(first, self._first[begin]), max(last, self._last[end - 1])
        self._first[begin:end] = [first]
        self._last[begin:end] = [last]

    def end_of_run(self, number: int) -> int:
        """The first number at or above this one that is not in the set."""
        at = bisect.bisect_right(self._first, number) - 1
        return self._last[at] + 1 if at >= 0 and number <= self._last[at] else number

    def ranges(self) -> List[Tuple[int, int]]:
        return list(zip(self._first, self._last))
