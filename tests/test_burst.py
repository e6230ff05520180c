"""A burst against a consumer that is too slow: memory stays flat, the newest price of every symbol wins, books balance.

The venue runs in its own process and keeps its own count; what the consumer waits is work, not synchronisation.
"""

import asyncio
import contextlib
import time
from pathlib import Path

import pytest
from exchange import balances

import fastfeed
from fastfeed.lab import VenueProcess
from fastfeed.lab.load import symbol_names

SYMBOLS = 500
DEADLINE = 60.0
MEGABYTE = 1 << 20
STATUS = Path("/proc/self/status")

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="peak memory is read from /proc")


def resident(name: str) -> int:
    """VmRSS (now) or VmHWM (at most, since it was last reset) of this process, in bytes."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(name))


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


async def blocks(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - a strategy that does not yield is what this is about


@pytest.mark.parametrize(
    ("rest", "frames"), [(asyncio.sleep, 3_000_000), (blocks, 3_000_000)], ids=["asyncio.sleep", "time.sleep"]
)
async def test_a_burst_against_a_slow_consumer_keeps_memory_flat_and_the_newest_prices(rest, frames):
    names = symbol_names(SYMBOLS)
    with VenueProcess("binance-usdm", symbols=SYMBOLS) as venue:
        async with fastfeed.Feed("binance-usdm", names, channels=["quote"], url=venue.url) as feed:
            batches = feed.batches(name="slow")
            read = 0

            async def consume() -> None:
                nonlocal read
                async for rows in batches:
                    read += len(rows)
                    await rest(0.1)

            consumer = asyncio.create_task(consume())
            venue.plays(rate=20_000, frames=10_000)
            await until(lambda: feed.prices.updates == 10_000, "the quiet phase")
            reset_peak()
            before = resident("VmRSS")
            venue.plays(frames=frames)
            await until(lambda: feed.prices.updates == 10_000 + frames, f"{frames} frames")
            grown = resident("VmHWM") - before
            consumer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await consumer

            sent, stats = venue.count(), feed.stats()
            assert grown < 16 * MEGABYTE, f"{grown / MEGABYTE:.1f} MiB"
            assert stats["data"] == sent["data"] == 10_000 + frames
            assert stats["frames"] == sent["frames"] == stats["data"] + stats["control"]
            assert (stats["malformed"], stats["unknown"], stats["gaps"]) == (0, 0, 0)
            for symbol, last in sent["last"].items():
                row = feed.prices[symbol]
                for field in ("bid", "bid_size", "ask", "ask_size"):
                    assert row[field] == float(last[field]), (symbol, field)
                assert row["quote_seq"] == last["book_id"], symbol
            assert len(sent["last"]) == SYMBOLS
            ledger = stats["consumers"]["slow"]
            assert balances(ledger), ledger
            assert ledger["received"] == 10_000 + frames
            assert ledger["delivered"] == read
            assert ledger["conflated"] + ledger["pending"] > frames // 2


async def until(condition, what: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 - a count in memory has no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"waited {DEADLINE:.0f} s for {what}")
