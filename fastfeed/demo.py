"""`fastfeed demo`: a venue in a second process, a feed in this one, a burst, a cut connection, and the books at the end.

It balances the feed's counts against the venue's own and says so honestly: what a cut connection had in flight is lost, and the
loss has to be explained to the frame. It reports; it repairs nothing.
"""

from __future__ import annotations

import asyncio
import faulthandler
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastfeed import events
from fastfeed.errors import ConfigError, FastFeedError
from fastfeed.feed import Feed
from fastfeed.lab import Recording, VenueProcess
from fastfeed.lab.load import symbol_names, without_speed
from fastfeed.providers import Provider, provider
from fastfeed.screen import Screen
from fastfeed.subscriptions import Subscription

VENUE = "binance-usdm"
PRICE_STREAMS = ("bookTicker", "trade", "aggTrade")  # each frame of these is one update of a row
QUIET_WINDOW = 0.25  # seconds; the second consumer reads this seldom, to show conflation
STUCK_SECONDS = 5.0  # after the time limit a process whose event loop stands still is ended from outside it


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is played, in seconds and events per second over all streams; `limit` bounds everything together."""

    symbols: int = 500
    rate: float = 2000.0
    burst: float = 100.0  # times the rate
    seconds: tuple[float, float, float] = (3.0, 3.0, 4.0)  # quiet, burst, quiet again
    frames: Path | None = None  # a recording instead
    limit: float = 19.5


@dataclass(slots=True)
class Latencies:
    """A histogram of nanoseconds: bins 2 % wide from 100 ns to 100 s, fixed memory."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1051, np.int64))

    def add(self, ns: npt.NDArray[np.int64]) -> None:
        bins = np.log(np.maximum(ns, 100) / 100) / math.log(1.02)
        self.counts += np.bincount(np.minimum(bins, 1050).astype(np.int64), minlength=1051)

    def percentile(self, percent: float) -> float:
        """Seconds; NaN where nothing was added."""
        total = int(self.counts.sum())
        if not total:
            return math.nan
        place = int(np.searchsorted(np.cumsum(self.counts), total * percent / 100))
        return float(100e-9 * 1.02 ** (place + 0.5))


@dataclass(slots=True)
class Seen:
    """What the demo's consumers and its reader of events have noted."""

    in_hand: Latencies = field(default_factory=Latencies)  # socket read to consumer
    on_the_way: Latencies = field(default_factory=Latencies)  # event at the venue to consumer
    conflated: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # per symbol, slow consumer
    cut_utc_ns: int = 0
    connected_utc_ns: int = 0  # first new connection after the cut
    restored: events.Restored | None = None
    all_back: float | None = None  # seconds from the cut until every symbol of that connection had new data
    missed: int = 0  # sequence numbers the feed reported missing
    reconnects: int = 0


@dataclass(frozen=True)
class Market:
    """What the demo subscribes to, and how the venue plays it."""

    provider: Provider
    symbols: list[str]
    channels: list[str]
    load: dict[str, Any]  # options of the venue's process
    play: dict[str, Any]  # arguments of plays()


def synthetic(plan: Plan) -> Market:
    quiet, burst, again = plan.seconds
    phases = [(plan.rate, quiet), (plan.rate * plan.burst, burst), (plan.rate, again)]
    return Market(provider(VENUE), symbol_names(plan.symbols), ["quote", "trade"], {"symbols": plan.symbols}, {"phases": phases})


def recorded(plan: Plan) -> Market:
    """The recording at its own speed, its middle fast enough to fit, and its end at its own speed again."""
    assert plan.frames is not None
    recording = Recording(plan.frames)
    names = [stream.split("@") for stream in recording.streams if stream.count("@") == 1]
    symbols = sorted({name.upper() for name, _ in names})
    kinds = {kind for _, kind in names}
    # Only futures quotes say what they are.
    found = provider("binance-usdm" if '"e":"bookTicker"' in recording.first("bookTicker") else "binance-spot")
    channels = [
        channel
        for channel in found.channels
        if without_speed(found.topic(Subscription("X", channel))).partition("@")[2] in kinds
    ]
    if not channels or not symbols:
        raise ConfigError(f"{plan.frames} holds no stream that {found.name} has; streams: {', '.join(recording.streams[:5])}")
    span = float(recording.recv_ns[-1] - recording.recv_ns[0]) / 1e9
    quiet, burst, again = plan.seconds
    slow = quiet + again
    # Short recordings are stretched to the same time, long ones are squeezed into the burst.
    speeds = [(1.0, quiet), ((span - slow) / burst, burst), (1.0, again + 1.0)]
    if span < 2 * slow:
        speeds = [(max(span, 1e-9) / (slow + burst), slow + burst + 1.0)]
    return Market(found, symbols, channels, {"frames": plan.frames}, {"speed": speeds})


async def run(plan: Plan, screen: Screen) -> int:
    """Play it all; returns the exit status: 0 only if the books balance and every symbol came back."""
    # Should the event loop itself stand still, no timeout of its own can end it.
    faulthandler.dump_traceback_later(plan.limit + STUCK_SECONDS, exit=True)
    try:
        async with asyncio.timeout(plan.limit):
            return await _run(plan, screen)
    except TimeoutError:
        screen.say(f"FAILED: not finished after {plan.limit:g} s")
    except (FastFeedError, OSError) as error:
        screen.say(f"FAILED: {error}")
    finally:
        faulthandler.cancel_dump_traceback_later()
    return 1


async def _run(plan: Plan, screen: Screen) -> int:
    market = synthetic(plan) if plan.frames is None else recorded(plan)
    seen = Seen(conflated=np.zeros(len(market.symbols), np.int64))
    with VenueProcess(market.provider.name, **market.load) as venue:
        screen.say(f"venue: {venue.url}, process {venue.pid}, speaks {market.provider.name}")
        async with Feed(market.provider, market.symbols, channels=market.channels, url=venue.url) as feed:
            screen.say(f"feed: {len(market.symbols)} symbols, {' and '.join(market.channels)}, {feed.stats()['connections']} connections")
            async with _reading(feed, seen):
                await asyncio.to_thread(venue.plays, **market.play)
                cut = await _watch(plan, feed, venue, seen, screen)
                count = await _settle(feed, venue)
                return _summary(feed, count, cut, seen, screen)


# ---------------------------------------------------------------------------------------------------------- while it plays


@asynccontextmanager
async def _reading(feed: Feed, seen: Seen) -> AsyncIterator[None]:
    """The consumers: one that takes every batch, one that reads seldom, one of events."""
    tasks = [asyncio.create_task(read(feed, seen)) for read in (_read_all, _read_seldom, _read_events)]
    await asyncio.sleep(0)  # so that each has its place before the first frame
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_all(feed: Feed, seen: Seen) -> None:
    async with feed.batches(name="every batch") as batches:
        async for batch in batches:
            now = time.time_ns()
            seen.in_hand.add(now - batch["recv_ns"])
            seen.on_the_way.add(now - batch["event_ns"][batch["event_ns"] > 0])


async def _read_seldom(feed: Feed, seen: Seen) -> None:
    async with feed.batches(window=QUIET_WINDOW, name=f"every {QUIET_WINDOW * 1000:.0f} ms") as batches:
        async for batch in batches:
            seen.conflated[batch["symbol_id"]] += batch["conflated"]


async def _read_events(feed: Feed, seen: Seen) -> None:
    async with feed.events(name="events") as stream:
        async for event in stream:
            match event:
                case events.Connected() if seen.cut_utc_ns and not seen.connected_utc_ns:
                    seen.connected_utc_ns = time.time_ns()
                case events.Restored() if seen.cut_utc_ns:
                    seen.restored = event
                case events.Gap():
                    seen.missed += event.gap.missing
                case events.Reconnecting():
                    seen.reconnects += 1


async def _watch(plan: Plan, feed: Feed, venue: VenueProcess, seen: Seen, screen: Screen) -> dict[str, Any]:
    """Show the feed until everything has been played, and cut one connection in the middle of the burst."""
    started = time.monotonic()
    end = sum(plan.seconds)
    cut_at = plan.seconds[0] + plan.seconds[1] / 2
    cut: dict[str, Any] = {}
    rates = _Rates(feed)
    while (elapsed := time.monotonic() - started) < end:
        if not cut and elapsed >= cut_at:
            cut = await _cut_one(venue, seen)
            screen.say(f"cut: connection {cut['connection']} with {len(cut['streams'])} streams was reset")
        if seen.connected_utc_ns and seen.all_back is None:
            ids = [feed.prices.id(stream.partition("@")[0].upper()) for stream in cut["streams"]]
            if bool((feed.prices.array["recv_ns"][ids] > seen.connected_utc_ns).all()):
                seen.all_back = (time.time_ns() - seen.cut_utc_ns) / 1e9
        phase = "quiet" if elapsed < plan.seconds[0] or elapsed >= plan.seconds[0] + plan.seconds[1] else "burst"
        rates.show(f"{elapsed:4.1f} s {phase}", seen, screen)
        await asyncio.sleep(0.1)
    return cut


async def _cut_one(venue: VenueProcess, seen: Seen) -> dict[str, Any]:
    """Cut the busiest connection, on the route of quotes where there are routes."""
    count = await asyncio.to_thread(venue.count)
    open_ones = [line for line in count["connections"] if line["ended"] is None and line["route"] != "market"]
    chosen = max(open_ones, key=lambda line: line["data"])["connection"]
    seen.cut_utc_ns = time.time_ns()
    (cut,) = await asyncio.to_thread(venue.cuts, chosen)
    return cut


class _Rates:
    """Rates between two looks, and the busiest symbols."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._at = time.monotonic()
        self._frames = 0
        self._updates = feed.prices.array["updates"].astype(np.int64)

    def show(self, moment: str, seen: Seen, screen: Screen) -> None:
        feed, now = self._feed, time.monotonic()
        if now - self._at < 0.25:
            return
        seconds, self._at = now - self._at, now
        array, stats = feed.prices.array, feed.stats()
        updates = array["updates"].astype(np.int64)
        grown = updates - self._updates
        rate, self._frames, self._updates = (stats["frames"] - self._frames) / seconds, stats["frames"], updates
        read = stats["consumers"].get(f"every {QUIET_WINDOW * 1000:.0f} ms", {})
        received = max(1, read.get("received", 0))
        title = (
            f"{moment}  {rate:>9,.0f} frames/s  {stats['connections']} connections  "
            f"slow consumer conflated {read.get('conflated', 0) / received:.0%}  "
            f"read to consumer p50 {_time(seen.in_hand.percentile(50))} p99 {_time(seen.in_hand.percentile(99))}"
        )
        rows = []
        for place in np.argsort(-grown)[:10].tolist():
            row = array[place]
            numbers = [f"{row[name]:.10g}" for name in ("bid", "ask", "last")]
            name = feed.prices.symbols[place]
            rows.append([name, *numbers, f"{grown[place] / seconds:,.0f}", f"{seen.conflated[place]:,}"])
        screen.draw(title, ["symbol", "bid", "ask", "last", "updates/s", "conflated"], rows)


# ------------------------------------------------------------------------------------------------------------- the books


async def _settle(feed: Feed, venue: VenueProcess) -> dict[str, Any]:
    """The venue's count once it is at rest and the feed has read what the sockets held."""
    while True:
        count = await asyncio.to_thread(venue.count)
        frames = feed.stats()["frames"]
        await asyncio.sleep(QUIET_WINDOW + 0.1)
        if count["is_at_rest"] and feed.stats()["frames"] == frames:
            return count


@dataclass(slots=True)
class Books:
    """The comparison of what the venue sent with what the feed has."""

    findings: list[str] = field(default_factory=list)

    def check(self, holds: bool, finding: str) -> None:
        if not holds:
            self.findings.append(finding)


def balance(stats: dict[str, Any], count: dict[str, Any], cut: dict[str, Any], rows: dict[str, Any]) -> list[str]:
    """Everything in which the feed's books differ from the venue's: empty if they balance.

    `stats` are the feed's, `count` the venue's, `cut` what the cut connection had been sent, `rows` symbol -> row.
    """
    books = Books()
    for kind in ("unknown", "malformed"):
        books.check(stats[kind] == 0, f"{stats[kind]} frames {kind}")
    split = sum(stats[kind] for kind in ("data", "control", "unknown", "malformed"))
    books.check(stats["frames"] == split, f"{stats['frames']} frames, but {split} by kind")
    for name, ledger in stats["consumers"].items():
        ended = sum(ledger[term] for term in ("delivered", "conflated", "dropped", "pending"))
        books.check(ledger["received"] == ended, f"consumer {name!r}: {ledger['received']} received, {ended} accounted for")

    lost = count["frames"] - stats["frames"]
    in_flight = sum(cut.get("streams", {}).values())
    books.check(0 <= lost <= in_flight, f"{lost} frames missing, the cut connection had been sent {in_flight}")
    sent: dict[str, int] = {}
    other = 0  # frames on the cut connection that update no row
    for stream, frames in count["streams"].items():
        name, _, kind = stream.partition("@")
        if kind in PRICE_STREAMS:
            sent[name.upper()] = sent.get(name.upper(), 0) + frames
    was_cut: set[str] = set()
    for stream, frames in cut.get("streams", {}).items():
        name, _, kind = stream.partition("@")
        was_cut.add(name.upper())
        other += 0 if kind in PRICE_STREAMS else frames
    short = 0
    for symbol, frames in sent.items():
        missing = frames - int(rows[symbol]["updates"])
        short += missing
        if symbol in was_cut:
            books.check(missing >= 0, f"{symbol}: {-missing} updates more than were sent")
        else:
            books.check(missing == 0, f"{symbol}: {missing} updates missing on a connection that was not cut")
    books.check(0 <= lost - short <= other, f"{lost} frames missing, but {short} updates")

    for symbol, last in count["last"].items():
        for name, key in (("bid", "bid"), ("ask", "ask"), ("last", "last"), ("quote_seq", "book_id"), ("trade_seq", "trade_id")):
            if key in last:
                had, was = rows[symbol][name], float(last[key])
                books.check(had == was, f"{symbol}: last {name} sent was {last[key]}, the feed has {had}")
    return books.findings


def _summary(feed: Feed, count: dict[str, Any], cut: dict[str, Any], seen: Seen, screen: Screen) -> int:
    stats = feed.stats()
    rows = {symbol: feed.prices[symbol] for symbol in feed.prices.symbols}
    findings = balance(stats, count, cut, rows)
    lost = count["frames"] - stats["frames"]
    say = screen.say
    say("")
    say(f"venue sent       {count['frames']:>11,} frames on {len(count['connections'])} connections")
    say(f"feed received    {stats['frames']:>11,} frames = {stats['data']:,} data + {stats['control']:,} control")
    say(f"lost in the cut  {lost:>11,} frames, in flight on the connection that was cut (number {cut.get('connection')})")
    say(f"gaps reported    {stats['gaps']:>11,} ({seen.missed:,} numbers missing)")
    for name, ledger in stats["consumers"].items():
        if name != "events":
            terms = " + ".join(f"{ledger[term]:,} {term}" for term in ("delivered", "conflated", "dropped", "pending"))
            say(f"consumer {name}: {ledger['received']:,} received = {terms}")
    say(f"last prices      {len(count['last']):>11,} symbols compared with the venue's")
    delays = [(name, seen_.percentile(50), seen_.percentile(99)) for name, seen_ in (("socket read", seen.in_hand), ("venue event", seen.on_the_way))]
    for name, half, most in delays:
        say(f"{name} to consumer: p50 {_time(half)}, p99 {_time(most)}")
    restored = seen.restored
    if seen.all_back is None or restored is None:
        findings.append("the cut connection's symbols did not all come back")
    else:
        say(f"recovery         data again after {_time(restored.duration)}, all {len(cut['streams'])} streams after {_time(seen.all_back)}")
        if restored.missing:
            findings.append(f"{len(restored.missing)} subscriptions silent after the cut")
    for finding in findings[:10]:
        say(f"FAILED: {finding}")
    if len(findings) > 10:
        say(f"FAILED: and {len(findings) - 10} more")
    if not findings:
        say(f"OK: the books balance, all {len(rows)} symbols came back")
    return 1 if findings else 0


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    for unit, scale in (("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.2f} s"
