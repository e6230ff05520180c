"""Two connections that deliver the same, for a moment or for good, against a venue that treats them differently.

A witness, an independent client that nothing happens to, says what was sent: what the feed's ticks are held against.
Every wait is bounded; how long anything took is not asserted.
"""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from exchange import DEADLINE, until
from websockets.asyncio.client import connect

from fastfeed import (
    Backoff,
    ConfigError,
    Feed,
    Flag,
    Heartbeat,
    Kind,
    Provider,
    Recovery,
    Rotation,
    Staleness,
    Status,
    Strategy,
    events,
    providers,
)
from fastfeed.confirm import Verdict
from fastfeed.lab import Venue

NAMES = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
CHANNELS = {"quote": "bookTicker", "depth": "depth@100ms", "raw_trade": "trade"}
KINDS = {"bookTicker": Kind.QUOTE, "depthUpdate": Kind.LEVEL, "trade": Kind.TRADE}
# The first connection of the feed, seen by the venue, and the second: the witness is the first of all.
ONE, TWO = 2, 3

Sent = dict[tuple[str, Kind], list[int]]


def usdm(**limits: Any) -> Provider:
    """Binance's futures with other limits."""
    found = providers.provider("binance-usdm")
    return replace(found, limits=replace(found.limits, **limits))


class Witness:
    """What the venue has sent, per symbol and kind the numbers in order."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self.sent: Sent = defaultdict(list)

    async def listen(self, ready: asyncio.Event) -> None:
        topics = [f"{name.lower()}@{stream}" for name in NAMES for stream in CHANNELS.values()]
        url = f"{self._venue.url}/public/stream"
        async with connect(url, compression=None, max_queue=None, ping_interval=None) as client:
            await client.send(json.dumps({"method": "SUBSCRIBE", "params": topics, "id": 1}))
            await client.recv()
            ready.set()
            async for text in client:
                data = json.loads(text).get("data", {})
                if data.get("e") in KINDS and not data.get("b") == data.get("a") == []:
                    number = data["t"] if data["e"] == "trade" else data["u"]
                    self.sent[data["s"], KINDS[data["e"]]].append(number)


class Reader:
    """What a feed's tick stream has delivered, in the same shape."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.stream = feed.ticks()
        self.got: Sent = defaultdict(list)
        self.repeated: set[str] = set()  # symbols of which something came again, flagged so
        self.flags = 0

    async def listen(self) -> None:
        symbols = self._feed.prices.symbols
        async for ticks in self.stream:
            self.flags |= int(np.bitwise_or.reduce(ticks["flags"])) & ~int(Flag.SELL | Flag.LAST_LEVEL)
            # A depth message makes a tick per level, of which the last is marked.
            whole = (ticks["kind"] != Kind.LEVEL) | ((ticks["flags"] & Flag.LAST_LEVEL) != 0)
            again = (ticks["flags"] & Flag.DUPLICATE) != 0
            self.repeated |= {symbols[tick["symbol_id"]] for tick in ticks[again]}
            for tick in ticks[whole & ~again]:
                self.got[symbols[tick["symbol_id"]], Kind(tick["kind"])].append(int(tick["seq"]))


class Stage:
    """A venue, a witness, a feed, and all that the feed has told."""

    def __init__(self, venue: Venue, feed: Feed, witness: Witness, reader: Reader) -> None:
        self.venue = venue
        self.feed = feed
        self.witness = witness
        self.reader = reader
        self.told: list[events.Event] = []

    async def collect(self) -> None:
        async for event in self.feed.events():
            self.told.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    async def tells(self, kind: type[Any], count: int = 1) -> Any:
        await until(lambda: len(self.of(kind)) >= count, f"{count} {kind.__name__}: {self.told}")
        return self.of(kind)[count - 1]

    async def flows(self, messages: int = 1000) -> None:
        """So many more messages are sent."""
        before = sum(map(len, self.witness.sent.values()))
        await until(lambda: sum(map(len, self.witness.sent.values())) >= before + messages, "data to flow")

    async def rests(self) -> None:
        """Everything that was sent has been read by everybody."""
        self.venue.rests()
        await until(self.venue.is_at_rest, "the venue to be at rest")
        seen: list[int] = []
        while len(seen) < 10 or len(set(seen[-10:])) > 1:
            await asyncio.sleep(0.02)
            read = self.feed.stats()["frames"] + sum(map(len, self.witness.sent.values()))
            seen.append(read + sum(map(len, self.reader.got.values())))
            assert len(seen) < DEADLINE / 0.02, "readers do not come to rest"

    def lost(
        self,
        kinds: frozenset[Kind] = frozenset({Kind.QUOTE, Kind.LEVEL, Kind.TRADE}),
        moved: frozenset[str] = frozenset(),
    ) -> Sent:
        """What was sent since the feed's first of each stream, and did not reach it; twice is a failure.

        Only a symbol that has `moved` to another connection may be told twice, flagged: that one may lie behind.
        """
        missing: Sent = {}
        assert self.reader.repeated <= moved, f"{self.reader.repeated}: something of these came again"
        for key, got in self.reader.got.items():
            assert len(set(got)) == len(got), f"{key}: twice {sorted(n for n in got if got.count(n) > 1)[:5]}"
            assert got == sorted(got), f"{key} is out of order"
            sent = self.witness.sent[key]
            assert set(got) <= set(sent)
            left = sorted(set(sent[sent.index(got[0]) :]) - set(got))
            if left and key[1] in kinds:
                missing[key] = left
        return missing


@contextlib.asynccontextmanager
async def stage(
    *, provider: str | Provider = "binance-usdm", limits: dict[str, float] | None = None, **options: Any
) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        venue = await stack.enter_async_context(
            Venue("binance-usdm", symbols=NAMES, rate=3_000, messages_per_second=1000)
        )
        witness = Witness(venue)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        ready = asyncio.Event()
        tasks = [group.create_task(witness.listen(ready))]
        stack.callback(lambda: [task.cancel() for task in tasks])
        await ready.wait()
        venue.market = replace(venue.market, **(limits or {}))  # which the witness does not feel
        options.setdefault("backoff", Backoff(base=0.05, cap=0.2, stable_after=0.1))
        options.setdefault("heartbeat", Heartbeat(interval=0.5, timeout=1.0))
        # What HTTP brings is no tick of the stream, and its connections would count among those of the venue.
        options.setdefault("recovery", Recovery(strategy=Strategy.NONE))
        feed = Feed(provider, NAMES, channels=list(CHANNELS), url=venue.url, ring_capacity=1 << 20, **options)
        reader = Reader(feed)
        made = Stage(venue, feed, witness, reader)
        tasks += [group.create_task(reader.listen()), group.create_task(made.collect())]
        await stack.enter_async_context(feed)
        await feed.wait_live(timeout=DEADLINE)
        yield made


def never_stale(made: Stage) -> None:
    assert made.of(events.Stale) == []
    assert made.of(events.Gap) == []
    assert list(made.feed.gaps()) == []


# Rotation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(3))
async def test_a_rotation_under_load_loses_no_tick_and_delivers_none_twice(round_: int) -> None:
    async with stage() as made:
        updates = made.feed.prices.array["updates"].copy()
        for turn in range(3):
            await made.flows(500 + 100 * round_)
            made.venue.announces_shutdown(ONE + turn)
            told = await made.tells(events.Rotated, turn + 1)
            assert (told.connection, told.successor) == (f"/public/stream#{turn}", f"/public/stream#{turn + 1}")
            assert told.overlap > 0
            assert set(made.feed.prices.array["status"]) == {Status.LIVE}
        await made.flows()
        await made.rests()
        assert made.lost() == {}
        assert made.reader.flags == 0
        assert made.reader.stream.lost == 0
        assert bool((made.feed.prices.array["updates"] > updates).all())
        never_stale(made)
        assert made.of(events.Disconnected) == []
        stats = made.feed.stats()
        assert (stats["connections"], stats["dials"], stats["reconnects"]) == (1, 4, 0)
        assert stats["frames"] == stats["data"] + stats["control"] + stats["unknown"] + stats["malformed"]


async def test_a_connection_is_replaced_before_the_provider_ends_it() -> None:
    """The venue ends connections after 4 s; the feed knows that limit and none is ever ended by it."""
    async with stage(provider=usdm(lifetime=4.0), limits={"lifetime": 4.0}) as made:
        await made.tells(events.Rotated, 3)
        await made.flows(500)
        await made.rests()
        assert made.lost() == {}
        assert made.reader.flags == 0
        never_stale(made)
        assert made.of(events.Disconnected) == []
        assert all("4.0 s" in event.reason for event in made.of(events.Rotated))


async def test_connections_are_replaced_in_the_window_the_user_names() -> None:
    class Opening:
        is_open = False

        def covers(self, utc: float) -> bool:
            return self.is_open

    window = Opening()
    async with stage(rotation=Rotation(after=0.1, window=window)) as made:
        await made.flows(3000)
        assert made.of(events.Rotated) == []
        window.is_open = True
        await made.tells(events.Rotated)
        window.is_open = False
        await made.flows(500)
        await made.rests()
        assert made.lost() == {}


async def test_the_old_connection_stays_while_no_successor_comes_up_and_another_is_tried() -> None:
    async with stage(backoff=Backoff(base=0.05, cap=0.1)) as made:
        made.venue.refuses(503)
        made.venue.announces_shutdown(ONE)
        await until(lambda: made.venue.totals["refused"] >= 3, "dials of a successor")
        assert made.of(events.Disconnected) == []
        assert made.feed.state == "LIVE"
        made.venue.accepts_again()
        await made.tells(events.Rotated)
        await made.flows(500)
        await made.rests()
        assert made.lost() == {}
        never_stale(made)


async def test_a_successor_that_delivers_nothing_never_replaces_the_old_connection() -> None:
    async with stage(rotation=Rotation(overlap=0.3, retry=0.1)) as made:
        # Only who subscribes from now on is affected.
        made.venue.muted = frozenset(made.venue.stream_ids[f"{name.lower()}@bookTicker"] for name in NAMES)
        made.venue.announces_shutdown(ONE)
        told = await made.tells(events.Alert)
        assert "no successor" in told.cause
        assert made.of(events.Rotated) == []
        made.venue.muted = frozenset()
        await made.tells(events.Rotated)
        await made.flows(500)
        await made.rests()
        assert made.lost() == {}


async def test_a_successor_takes_over_from_a_connection_that_dies_meanwhile_without_a_second_redial() -> None:
    async with stage() as made:
        made.venue.announces_shutdown(ONE)
        await until(lambda: made.feed.stats()["connections"] == 2, "a successor")
        made.venue.cuts(ONE)
        told = await made.tells(events.Rotated)
        assert "1006" in told.reason
        await made.feed.wait_live(timeout=DEADLINE)
        await made.flows(500)
        await made.rests()
        assert made.feed.stats()["dials"] == 2
        assert made.of(events.Reconnecting) == []
        assert made.feed.state == "LIVE"


async def test_where_no_second_connection_is_allowed_the_first_is_closed_first_and_that_is_told() -> None:
    async with stage(provider=usdm(connections=1)) as made:
        made.venue.announces_shutdown(ONE)
        told = await made.tells(events.Disconnected)
        assert "no second connection is allowed" in told.cause
        await made.tells(events.Restored)
        assert made.of(events.Rotated) == []


async def test_streams_cancelled_and_opened_and_wishes_made_and_dropped_during_a_rotation() -> None:
    async with stage() as made:
        made.venue.announces_shutdown(ONE)
        await until(lambda: made.feed.stats()["connections"] == 2, "a successor")
        made.feed.unsubscribe(["SOLUSDT"])
        made.feed.subscribe(["BTCUSDT"], channels=["mark"])
        await made.tells(events.Rotated)
        await made.feed.wait_live(timeout=DEADLINE)
        assert {wish.symbol for wish in made.feed.subscriptions} == {"BTCUSDT", "ETHUSDT"}
        await until(lambda: len(made.venue.connections[TWO].desk.streams) == 6, "the successor to carry all wishes")


# Two legs -----------------------------------------------------------------------------------------------------------


async def test_two_legs_deliver_everything_once_and_tell_what_each_is_worth() -> None:
    async with stage(redundancy=2) as made:
        await made.flows(3000)
        await made.rests()
        assert made.lost() == {}
        assert made.reader.flags == 0
        never_stale(made)
        stats = made.feed.stats()
        assert (stats["connections"], stats["dials"]) == (2, 2)
        first, second = stats["legs"]
        assert first["wins"] + second["wins"] == stats["messages"] - stats["seconds"] - stats["control"]
        assert first["seconds"] + second["seconds"] == stats["seconds"] > 1000
        assert first["win_rate"] + second["win_rate"] == pytest.approx(1.0)
        assert all(leg["behind_ms"]["p99"] >= leg["behind_ms"]["p50"] >= 0 for leg in stats["legs"])


async def test_two_legs_that_lose_different_frames_lose_nothing_together() -> None:
    """Quotes count up with holes: one the faster leg has lost and overtaken is not delivered late."""
    async with stage(redundancy=2) as made:
        for turn in range(20):
            made.venue.skips(3 + turn % 3, ONE + turn % 2)
            await made.flows(200)
        await made.rests()
        assert made.venue.totals["skipped"] + sum(
            one.counts["skipped"] for one in made.venue.connections.values()
        ) == sum(3 + turn % 3 for turn in range(20))
        assert made.lost(frozenset({Kind.LEVEL, Kind.TRADE})) == {}
        never_stale(made)
        assert set(made.feed.prices.array["status"]) == {Status.LIVE}


async def test_a_leg_that_lags_changes_nothing_but_the_win_rate() -> None:
    async with stage(redundancy=2) as made:
        made.venue.lags(0.1, ONE)
        await made.flows(3000)
        await made.rests()
        assert made.lost() == {}
        never_stale(made)
        # Which leg got through first, and so lags, is not said.
        slow, fast = sorted(made.feed.stats()["legs"], key=lambda leg: float(leg["win_rate"]))
        assert fast["win_rate"] > 0.5
        assert slow["behind_ms"]["p50"] > 50


@pytest.mark.parametrize("leg", [0, 1])
async def test_a_leg_that_is_cut_comes_back_while_the_other_carries_on(leg: int) -> None:
    async with stage(redundancy=2) as made:
        await made.flows(500)
        for turn in range(2):
            number = sorted(made.venue.connections)[-1] if turn else ONE + leg
            made.venue.cuts(number)
            told = await made.tells(events.RedundancyLost, turn + 1)
            assert "1006" in told.cause
            assert set(made.feed.prices.array["status"]) == {Status.LIVE}
            assert made.feed.state == "LIVE"
            again = await made.tells(events.RedundancyRegained, turn + 1)
            assert again.duration > 0
        await made.flows(500)
        await made.rests()
        assert made.lost() == {}
        never_stale(made)
        assert made.feed.stats()["reconnects"] == 2


async def test_a_mute_leg_is_found_and_replaced_while_prices_stay_live() -> None:
    async with stage(redundancy=2, staleness=Staleness(threshold=1.0)) as made:
        await made.flows(500)
        made.venue.falls_silent(ONE)
        told = await made.tells(events.RedundancyLost)
        assert "silent" in told.cause
        assert set(made.feed.prices.array["status"]) == {Status.LIVE}
        await made.tells(events.RedundancyRegained)
        await made.flows(500)
        never_stale(made)
        assert made.feed.prices.fresh(max_age=DEADLINE).all()
        await made.rests()
        assert made.lost() == {}


async def test_with_both_legs_cut_prices_are_lost_and_come_back() -> None:
    async with stage(redundancy=2) as made:
        made.venue.refuses(503)
        made.venue.cuts(ONE)
        made.venue.cuts(TWO)
        await until(lambda: made.feed.state != "LIVE", "the loss of both legs")
        await until(lambda: set(made.feed.prices.array["status"]) == {Status.RECOVERING}, "rows to be doubted")
        assert not made.feed.prices.fresh(max_age=DEADLINE).any()
        made.venue.accepts_again()
        await made.feed.wait_live(timeout=DEADLINE)
        await made.tells(events.RedundancyRegained)
        assert made.feed.state == "LIVE"
        assert set(made.feed.prices.array["status"]) == {Status.LIVE}


async def test_both_legs_silent_are_stale_once() -> None:
    async with stage(redundancy=2, staleness=Staleness(threshold=0.3)) as made:
        await made.flows(500)
        made.venue.mutes("btcusdt@bookTicker")
        await made.tells(events.Stale)
        assert not made.feed.prices.is_fresh("BTCUSDT", max_age=DEADLINE)
        made.venue.speaks_again()
        told = await made.tells(events.Fresh)
        assert "BTCUSDT" in told.symbols
        assert [event.symbols for event in made.of(events.Stale)].count(("BTCUSDT",)) == 1


@pytest.mark.parametrize("leg", [0, 1])
async def test_a_leg_is_replaced_behind_the_back_of_the_other(leg: int) -> None:
    async with stage(redundancy=2) as made:
        await made.flows(500)
        for turn in range(2):
            made.venue.announces_shutdown(ONE + leg if turn == 0 else sorted(made.venue.connections)[-1])
            await made.tells(events.Rotated, turn + 1)
            await made.flows(500)
        await made.rests()
        assert made.lost() == {}
        assert made.reader.flags == 0
        never_stale(made)
        assert made.of(events.RedundancyLost) == []
        assert made.feed.stats()["connections"] == 2


async def test_both_legs_told_to_go_are_replaced_one_after_the_other() -> None:
    async with stage(redundancy=2) as made:
        made.venue.announces_shutdown()
        await made.tells(events.Rotated, 2)
        assert {event.connection for event in made.of(events.Rotated)} == {"/public/stream#0", "/public/stream#1"}
        await made.flows(500)
        await made.rests()
        assert made.lost() == {}
        never_stale(made)


async def test_wishes_are_made_and_dropped_on_both_legs_and_spread_over_shards() -> None:
    async with stage(redundancy=2, provider=usdm(streams_per_connection=4)) as made:
        assert made.feed.stats()["connections"] == 6
        made.feed.unsubscribe(["SOLUSDT"])
        made.feed.subscribe(["SOLUSDT"], channels=["quote"])
        await made.feed.wait_live(timeout=DEADLINE)
        await made.flows(500)
        await made.rests()
        assert set(made.feed.prices.array["status"]) == {Status.LIVE}
        assert {symbol for symbol, _ in made.lost(moved=frozenset({"SOLUSDT"}))} <= {"SOLUSDT"}
        assert len(made.feed.subscriptions) == 7
        assert made.of(events.RedundancyLost) == []


async def test_a_leg_that_is_cut_before_both_have_come_up_is_told() -> None:
    async with (
        Venue("binance-usdm", symbols=NAMES, rate=500) as venue,
        Feed("binance-usdm", NAMES, url=venue.url, redundancy=2, backoff=Backoff(base=0.05, cap=0.1)) as feed,
    ):
        stream = feed.events()
        venue.cuts(connection=1)
        lost: events.RedundancyLost | None = None
        async with asyncio.timeout(DEADLINE):
            async for event in stream:
                if isinstance(event, events.RedundancyLost):
                    lost = event
                if isinstance(event, events.RedundancyRegained):
                    break
        assert lost is not None
        assert "1006" in lost.cause


async def test_one_leg_that_is_given_up_leaves_the_other_alone() -> None:
    async with stage(redundancy=2, backoff=Backoff(base=0.05, cap=0.1, max_retries=2)) as made:
        made.venue.refuses(503)
        made.venue.cuts(ONE)
        await made.tells(events.GaveUp)
        await made.flows(500)
        await made.rests()
        assert made.lost() == {}
        assert made.feed.state == "LIVE"
        assert len(made.of(events.RedundancyLost)) == 1
        never_stale(made)


def test_more_connections_than_the_provider_allows_are_refused_before_any_network() -> None:
    with pytest.raises(ConfigError, match="redundancy=2"):
        Feed(usdm(connections=1), NAMES, redundancy=2)
    with pytest.raises(ConfigError, match="redundancy=3"):
        Feed("binance-usdm", NAMES, redundancy=3)


# Two providers ------------------------------------------------------------------------------------------------------


async def test_two_hosts_of_one_venue_are_two_legs_where_they_say_that_they_number_alike() -> None:
    first = replace(providers.provider("binance-usdm"), numbering="usdm")
    second = replace(first, name="usdm-elsewhere")
    async with (
        Venue("binance-usdm", symbols=NAMES, rate=500, messages_per_second=1000) as one,
        Venue("binance-usdm", symbols=NAMES, rate=500, messages_per_second=1000) as two,
        Feed([first, second], NAMES, url=[one.url, two.url], redundancy=2) as feed,
    ):
        await feed.wait_live(timeout=DEADLINE)
        assert feed.secondary is None
        await until(lambda: feed.stats()["seconds"] > 0 or feed.stats()["legs"][1]["wins"] > 0, "both to deliver")
        assert len(one.connections) == len(two.connections) == 1
        two.cuts()
        await until(lambda: feed.stats()["reconnects"] == 1, "the second leg to come back")
        assert set(feed.prices.array["status"]) == {Status.LIVE}


async def test_a_second_provider_confirms_prices_and_stands_in_while_the_first_is_down() -> None:
    names = {"BTCUSDT": "ETHUSDT", "ETHUSDT": "BTCUSDT"}
    async with (
        Venue("binance-usdm", symbols=NAMES, rate=500) as first,
        Venue("binance-spot", symbols=NAMES, rate=500) as second,
        Feed(
            ["binance-usdm", "binance-spot"],
            ["BTCUSDT"],
            url=[first.url, second.url],
            redundancy=2,
            symbol_map=names,
            backoff=Backoff(base=0.05, cap=0.1),
        ) as feed,
    ):
        stream = feed.events()
        await feed.wait_live(timeout=DEADLINE)
        assert feed.secondary is not None
        await feed.secondary.wait_live(timeout=DEADLINE)
        asked = feed.confirms("btcusdt", max_age=DEADLINE, tolerance=10.0**9)
        assert asked
        assert asked.is_fresh
        assert asked.secondary == pytest.approx(
            float(feed.secondary.prices["ETHUSDT"]["bid"] + feed.secondary.prices["ETHUSDT"]["ask"]) / 2, rel=0.1
        )
        assert not feed.confirms("BTCUSDT", max_age=DEADLINE, tolerance=1e-12)
        first.refuses(503)
        first.cuts()
        await until(lambda: not feed.prices.is_fresh("BTCUSDT", DEADLINE), "the first to be down")
        down = feed.confirms("BTCUSDT", max_age=DEADLINE, tolerance=10.0**9)
        assert (down.verdict, down.is_fresh) == (Verdict.AGREES, False)
        assert down.primary > 0
        assert feed.secondary.prices.is_fresh("ETHUSDT", DEADLINE)
        first.accepts_again()
        second.cuts()
        async with asyncio.timeout(DEADLINE):
            async for event in stream:
                if isinstance(event, events.RedundancyLost):
                    assert "binance-spot" in event.connection
                    break
        await feed.wait_live(timeout=DEADLINE)


async def test_a_second_provider_that_is_not_there_harms_nothing() -> None:
    async with Venue("binance-usdm", symbols=NAMES, rate=500) as first:
        pair = ["binance-usdm", "binance-spot"]
        async with Feed(pair, ["BTCUSDT"], url=[first.url, "ws://127.0.0.1:9"], redundancy=2) as feed:
            await feed.wait_live(timeout=DEADLINE)
            assert feed.confirms("BTCUSDT").verdict is Verdict.UNKNOWN


def test_providers_that_cannot_be_paired_are_refused() -> None:
    first = replace(providers.provider("binance-usdm"), numbering="x")
    with pytest.raises(ConfigError, match="redundancy=2"):
        Feed(["binance-usdm", "binance-spot"], NAMES)
    with pytest.raises(ConfigError, match="schema"):
        Feed([first, replace(providers.provider("binance-spot"), numbering="x")], NAMES, redundancy=2)
    with pytest.raises(ConfigError, match="url"):
        Feed("binance-usdm", NAMES, url=["ws://a", "ws://b"])
