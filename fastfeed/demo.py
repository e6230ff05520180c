"""`fastfeed demo`: a venue in a second process, a feed in this one, a burst, a cut connection, and the books at the
end.

It balances the feed's counts against the venue's own and says so honestly: what a cut connection had in flight is lost,
and the loss has to be explained to the frame. It reports; it repairs nothing.
"""

from __future__ import annotations

import asyncio
import faulthandler
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
COMPARED = (  # of each symbol, in the feed's row and in the venue's count
    ("bid", "bid"),
    ("ask", "ask"),
    ("last", "last"),
    ("quote_seq", "book_id"),
    ("trade_seq", "trade_id"),
)
TERMS = ("delivered", "conflated", "dropped", "pending")  # of a consumer's ledger: together what it received
FINDINGS_SHOWN = 10
EVENTS = "events"  # the name of the demo's reader of events
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
    return Market(
        provider(VENUE), symbol_names(plan.symbols), ["quote", "trade"], {"symbols": plan.symbols}, {"phases": phases}
    )


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
        raise ConfigError(
            f"{plan.frames} holds no stream that {found.name} has; streams: {', '.join(recording.streams[:5])}"
        )
    span = float(recording.recv_ns[-1] - recording.recv_ns[0]) / 1e9
    quiet, burst, again = plan.seconds
    slow = quiet + again
    # Short recordings are stretched to the same time, long ones are squeezed into the burst.
    speeds = [(1.0, quiet), ((span - slow) / burst, burst), (1.0, again + 1.0)]
    if span < 2 * slow:
        speeds = [(max(span, 1e-9) / (slow + burst), slow + burst + 1.0)]
    return Market(found, symbols, channels, {"frames": plan.frames, "retimed": True}, {"speed": speeds})


async def run(plan: Plan, screen: Screen) -> int:
    """Play it all; returns the exit status: 0 only if the books balance and every symbol came back."""
    # Should the event loop itself stand still, no timeout of its own can end it.
    faulthandler.dump_traceback_later(plan.limit + STUCK_SECONDS, exit=True, file=2)
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
            connections = feed.stats()["connections"]
            what = f"{len(market.symbols)} symbols, {' and '.join(market.channels)}"
            screen.say(f"feed: {what}, {connections} connection{'s' * (connections > 1)}")
            async with _reading(feed, seen):
                await asyncio.to_thread(venue.plays, **market.play)
                cut = await _watch(plan, feed, venue, seen, screen)
                count = await _settle(feed, venue)
                return _summary(feed, count, cut, seen, screen)


# ---------------------------------------------------------------------------------------------------------- while it
# plays


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
    async with feed.events(name=EVENTS) as stream:
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
            found = [feed.prices.id(stream.partition("@")[0].upper()) for stream in cut["streams"]]
            ids = [symbol_id for symbol_id in found if symbol_id is not None]
            if len(ids) == len(found) and bool((feed.prices.array["recv_ns"][ids] > seen.connected_utc_ns).all()):
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


# ------------------------------------------------------------------------------------------------------------- the
# books


async def _settle(feed: Feed, venue: VenueProcess) -> dict[str, Any]:
    """The venue's count once it is at rest and the feed has read what the sockets held."""
    while True:
        count = await asyncio.to_thread(venue.count)
        frames = feed.stats()["frames"]
        await asyncio.sleep(QUIET_WINDOW + 0.1)
        if count["is_at_rest"] and feed.stats()["frames"] == frames:
            return count


def balance(stats: dict[str, Any], count: dict[str, Any], cut: dict[str, Any], rows: dict[str, Any]) -> list[str]:
    """Everything in which the feed's books differ from the venue's: empty if they balance.

    `stats` are the feed's, `count` the venue's, `cut` is what the connection that was cut had been sent, `rows` symbol
    -> row. Only that connection may be short of frames: those in flight when it was cut.
    """
    findings = []

    def check(holds: bool, finding: str) -> None:
        if not holds:
            findings.append(finding)

    for kind in ("unknown", "malformed"):
        check(stats[kind] == 0, f"{stats[kind]} frames {kind}")
    split = sum(stats[kind] for kind in ("data", "control", "unknown", "malformed"))
    check(stats["frames"] == split, f"{stats['frames']} frames, but {split} by kind")
    for name, ledger in stats["consumers"].items():
        told = sum(ledger[term] for term in TERMS)
        check(ledger["received"] == told, f"consumer {name!r}: {ledger['received']} received, {told} accounted for")

    lost = count["frames"] - stats["frames"]
    in_flight = sum(cut["streams"].values())
    check(0 <= lost <= in_flight, f"{lost} frames missing, the connection that was cut had been sent {in_flight}")
    sent = _updates(count["streams"])
    was_cut = _updates(cut["streams"])
    short = 0
    for symbol, frames in sent.items():
        missing = frames - int(rows[symbol]["updates"])
        short += missing
        most = was_cut.get(symbol, 0)
        check(0 <= missing <= most, f"{symbol}: {missing} of {frames} updates missing, at most {most} were in flight")
    # What updates no row (depth, marks) can be missing too.
    most = lost - (in_flight - sum(was_cut.values()))
    check(most <= short <= lost, f"{lost} frames missing, but {short} updates")

    for symbol, row in rows.items():
        check(int(row["updates"]) > 0, f"{symbol}: no data at all")
        for name, key in COMPARED:
            last = count["last"].get(symbol, {}).get(key)
            check(
                last is None or row[name] == float(last), f"{symbol}: {name} is {row[name]}, the last sent was {last}"
            )
    return findings


def _updates(streams: dict[str, int]) -> dict[str, int]:
    """Frames that update a row, per symbol, of frames per stream."""
    updates: dict[str, int] = {}
    for stream, frames in streams.items():
        name, _, kind = stream.partition("@")
        if kind in PRICE_STREAMS:
            updates[name.upper()] = updates.get(name.upper(), 0) + frames
    return updates


def _summary(feed: Feed, count: dict[str, Any], cut: dict[str, Any], seen: Seen, screen: Screen) -> int:
    stats = feed.stats()
    rows = {symbol: feed.prices[symbol] for symbol in feed.prices.symbols}
    findings = balance(stats, count, cut, rows)
    lost = count["frames"] - stats["frames"]
    lines = [
        f"venue sent      {count['frames']:>10,} frames on {len(count['connections'])} connections",
        f"feed received   {stats['frames']:>10,} frames = {stats['data']:,} data + {stats['control']:,} control",
        f"lost in the cut {lost:>10,} frames, in flight on connection {cut['connection']} when it was reset",
        f"gaps reported   {stats['gaps']:>10,} ({seen.missed:,} numbers missing)",
        f"last prices     {len(count['last']):>10,} symbols compared with what the venue sent last",
    ]
    for name, ledger in stats["consumers"].items():
        if name != EVENTS:
            terms = " + ".join(f"{ledger[term]:,} {term}" for term in TERMS)
            lines.append(f"consumer {name}: {ledger['received']:,} received = {terms}")
    for start, latencies in (("socket read", seen.in_hand), ("venue event", seen.on_the_way)):
        half, most = (_time(latencies.percentile(percent)) for percent in (50, 99))
        lines.append(f"{start} to consumer: p50 {half}, p99 {most}")
    if seen.all_back is None or seen.restored is None:
        findings.append("what the cut took did not all come back")
    else:
        back = f"all {len(cut['streams'])} streams after {_time(seen.all_back)}"
        lines.append(f"recovery: data again {_time(seen.restored.duration)} after the cut, {back}")
        if seen.restored.missing:
            findings.append(f"{len(seen.restored.missing)} subscriptions silent after the cut")
    lines += [f"FAILED: {finding}" for finding in findings[:FINDINGS_SHOWN]]
    if len(findings) > FINDINGS_SHOWN:
        lines.append(f"FAILED: and {len(findings) - FINDINGS_SHOWN} more")
    if not findings:
        lines.append(f"OK: the books balance, all {len(rows)} symbols came back")
    screen.stop()
    for line in lines:
        screen.say(line)
    return 1 if findings else 0


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    for unit, scale in (("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.2f} s"
