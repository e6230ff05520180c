"""A feed against a venue that misbehaves in every way it knows: whatever was done to it, each symbol delivers again.

The feed has a quick heartbeat and a quick backoff. Every wait is bounded; how long it took is not asserted.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from exchange import until
from test_lab import DEADLINE, NAMES

from fastfeed import Backoff, Feed, Heartbeat, events
from fastfeed.lab import Venue

Cause = Callable[[Venue, Feed], Awaitable[None]]


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[tuple[Venue, Feed]]:
    async with (
        Venue("binance-usdm", symbols=NAMES, rate=1_000, messages_per_second=1000) as venue,
        Feed(
            "binance-usdm",
            NAMES,
            url=venue.url,
            heartbeat=Heartbeat(interval=0.2, timeout=0.4),
            backoff=Backoff(base=0.05, cap=0.2, stable_after=0.1),
        ) as feed,
    ):
        await feed.wait_live(timeout=DEADLINE)
        yield venue, feed


async def delivers(feed: Feed) -> None:
    before = feed.prices.array["updates"].copy()
    await until(lambda: bool((feed.prices.array["updates"] > before).all()), f"every symbol to deliver: {feed!r}")


async def redials(feed: Feed, dials: int = 2) -> None:
    await until(lambda: feed.stats()["dials"] >= dials, f"dial number {dials}: {feed!r}")


async def cuts(venue: Venue, feed: Feed) -> None:
    venue.cuts()
    await redials(feed)


def closes(code: int) -> Cause:
    async def cause(venue: Venue, feed: Feed) -> None:
        venue.closes(code)
        await redials(feed)

    return cause


async def freezes(venue: Venue, feed: Feed) -> None:
    venue.freezes()
    await until(lambda: feed.state != "LIVE", "the frozen venue to be given up")
    venue.thaws()


async def stops_ponging(venue: Venue, feed: Feed) -> None:
    venue.stops_ponging()
    await redials(feed)
    venue.pongs_again()


async def drips(venue: Venue, feed: Feed) -> None:
    venue.drips(bytes_per_s=200)
    await until(lambda: venue.connections[1].waiting() > 0, "the first crumb")
    venue.flows_again()


async def refuses(venue: Venue, feed: Feed) -> None:
    venue.refuses(503)
    venue.cuts()
    await until(lambda: venue.totals["refused"] >= 2, "two refused dials")
    venue.accepts_again()


async def falls_silent(venue: Venue, feed: Feed) -> None:
    venue.falls_silent()
    await until(lambda: not feed.prices.fresh(max_age=0.1).any(), "every price to be known as old")
    venue.speaks_again()


async def mutes(venue: Venue, feed: Feed) -> None:
    venue.mutes("btcusdt@*")
    await until(lambda: not feed.prices.is_fresh("BTCUSDT", max_age=0.1), "the muted price to be known as old")
    venue.speaks_again()


async def accepts_then_closes(venue: Venue, feed: Feed) -> None:
    venue.evicts("newest", beyond=0, code=1013)
    venue.cuts()
    await until(lambda: venue.totals["evicted"] >= 2, "two evictions")
    venue.tolerates_all()


async def evicts(venue: Venue, feed: Feed) -> None:
    venue.evicts(code=None)
    reader, writer = await asyncio.open_connection("127.0.0.1", venue.port)
    writer.write(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
    await until(lambda: venue.totals["evicted"] >= 1, "the eviction")
    venue.tolerates_all()
    writer.close()
    await redials(feed)


async def withholds_acks(venue: Venue, feed: Feed) -> None:
    venue.withholds_acks()
    venue.cuts()
    await redials(feed)
    await until(lambda: venue.connections and venue.count()["withheld"], "a request without an answer")
    venue.acks_again()


async def sends_garbage(venue: Venue, feed: Feed) -> None:
    venue.sends_garbage("malformed", frames=100)
    venue.sends_garbage("unknown", frames=100)
    await until(lambda: feed.decoder.stats()["unknown"] == 100, "all of the garbage")


async def skips_and_repeats(venue: Venue, feed: Feed) -> None:
    venue.skips(5)
    venue.repeats(5)
    await until(lambda: venue.count()["skipped"] == 5, "five frames to be left out")


async def announces_shutdown(venue: Venue, feed: Feed) -> None:
    venue.announces_shutdown()
    venue.closes(1001)
    await redials(feed)


CAUSES: dict[str, Cause] = {
    "cuts": cuts,
    **{f"closes {code}": closes(code) for code in (1000, 1001, 1008, 1011, 1012, 1013, 4000)},
    "freezes": freezes,
    "stops ponging": stops_ponging,
    "drips": drips,
    "refuses": refuses,
    "falls silent": falls_silent,
    "mutes": mutes,
    "accepts, then closes": accepts_then_closes,
    "evicts": evicts,
    "withholds acks": withholds_acks,
    "sends garbage": sends_garbage,
    "skips and repeats": skips_and_repeats,
    "announces shutdown": announces_shutdown,
}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES.keys())
async def test_after_every_fault_each_symbol_delivers_again(cause: Cause) -> None:
    async with stage() as (venue, feed):
        await cause(venue, feed)
        await delivers(feed)
        await until(lambda: feed.state == "LIVE", f"the feed to call itself live: {feed!r}")


# ------------------------------------------------------------------------------------------------- dials and budgets


async def test_a_key_that_is_refused_is_shown_once() -> None:
    async with stage() as (venue, feed):
        venue.refuses(401)
        venue.cuts()
        await until(lambda: feed.state == "FAILED", "the feed to give up")
        assert venue.totals["refused"] == 1


async def test_a_wait_the_venue_asks_for_is_never_cut_short() -> None:
    async with stage() as (venue, feed):
        told = feed.events()
        venue.refuses(429, retry_after=1)
        venue.cuts()
        async with asyncio.timeout(DEADLINE):
            waits = [event.delay async for event in _first(told, events.Reconnecting, 2)]
        assert venue.totals["refused"] == 1
        assert waits[0] < 1 <= waits[1]  # after the cut, and after the refusal
        venue.accepts_again()
        await delivers(feed)


async def _first(told: AsyncIterator[events.Event], kind: type, count: int) -> AsyncIterator[Any]:
    async for event in told:
        if isinstance(event, kind):
            yield event
            count -= 1
            if not count:
                return


@pytest.mark.parametrize("refusal", ["refuses", "accepts and closes"])
async def test_a_budget_of_dials_is_never_exceeded(refusal: str) -> None:
    async with (
        Venue("binance-usdm", symbols=NAMES, rate=1_000) as venue,
        Feed(
            "binance-usdm", NAMES, url=venue.url, backoff=Backoff(base=0.02, cap=0.05, max_retries=3, stable_after=1)
        ) as feed,
    ):
        await feed.wait_live(timeout=DEADLINE)
        if refusal == "refuses":
            venue.refuses(503)
        else:
            venue.evicts("newest", beyond=0, code=1013)
        venue.cuts()
        await until(lambda: feed.state == "FAILED", "the feed to give up")
        assert venue.totals["refused"] + venue.totals["evicted"] == 3
