"""What does a tick cost through the ring, beside a bounded deque of tuples?"""

import collections

import numpy as np
import pytest

import fastfeed

TICKS = 100_000
CAPACITY = 65_536


@pytest.fixture(scope="module")
def ticks() -> np.ndarray:
    made = np.zeros(TICKS, fastfeed.TICK_DTYPE)
    made["seq"] = made["bid"] = np.arange(TICKS)
    made["kind"] = fastfeed.Kind.QUOTE
    return made


@pytest.mark.parametrize("batch", [1, 100])
def test_ring(benchmark, ticks, batch):
    ring = fastfeed.TickRing(CAPACITY)
    reader = ring.reader()
    parts = [ticks[start : start + batch] for start in range(0, TICKS, batch)]

    def run() -> int:
        read = 0
        for part in parts:
            ring.publish(part)
            read += len(reader.read())
        return read

    benchmark.extra_info["ticks"] = TICKS
    assert benchmark(run) == TICKS


@pytest.mark.parametrize("batch", [1, 100])
def test_deque(benchmark, ticks, batch):
    rows = ticks.view(fastfeed.TICK_DTYPE_PLAIN).tolist()
    parts = [rows[start : start + batch] for start in range(0, TICKS, batch)]
    queue: collections.deque = collections.deque(maxlen=CAPACITY)

    def run() -> int:
        read = 0
        for part in parts:
            queue.extend(part)
            while queue:
                queue.popleft()
                read += 1
        return read

    benchmark.extra_info["ticks"] = TICKS
    assert benchmark(run) == TICKS


def test_lapped_ring(benchmark, ticks):
    """A reader that is always overtaken costs the writer nothing."""
    ring = fastfeed.TickRing(1024)
    reader = ring.reader()

    def run() -> int:
        ring.publish(ticks)
        return len(reader.read())

    benchmark.extra_info["ticks"] = TICKS
    assert benchmark(run) <= 1024
