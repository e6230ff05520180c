"""What does a frame cost a whole client over loopback? Each in a process of its own, and the venue (see clients.py)."""

import pytest
import run
from clients import CLIENTS

FRAMES = 200_000


@pytest.mark.parametrize("name", CLIENTS)
def test_feed(benchmark, name):
    costs = benchmark.pedantic(run.run_client, args=(name, FRAMES), rounds=1)
    benchmark.extra_info |= costs  # ns and client CPU ns a frame; the time measured includes starting both processes
    assert costs["ns"] > 0
