"""ChunkSet against a set of numbers."""

import random

import pytest

from tessera.chunk_set import ChunkSet


@pytest.mark.parametrize("seed", range(30))
def test_is_a_set(seed):
    rng = random.Random(seed)
    kept, plain = ChunkSet(), set()
    for _ in range(200):
        first = rng.randrange(60)
        last = first + rng.choice((0, 0, 0, 1, 7))
        kept.add_range(first, last)
        plain.update(range(first, last + 1))
        assert [n for n in range(70) if n in kept] == sorted(plain)
        assert len(kept) == len(plain)
        number = rng.randrange(70)
        assert kept.end_of_run(number) == next(n for n in range(number, 80) if n not in plain)
    ranges = kept.ranges()
    assert all(first <= last for first, last in ranges)
    assert all(a[1] + 1 < b[0] for a, b in zip(ranges, ranges[1:])), "ranges do not touch"
    assert ChunkSet(ranges).ranges() == ranges
