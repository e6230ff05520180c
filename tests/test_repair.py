"""Gaps end to end: a venue of the lab leaves messages out, and the ring is compared with its truth afterwards.

Real sockets, both sides in one loop. Every wait is bounded; how long things took is not asserted.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from exchange import Exchange, ack, trade, until

from fastfeed import Backoff, ConfigError, Feed, Flag, Gap, Subscription, events, levels, providers, rest, trades
from fastfeed.gaps import Recovery, Strategy
from fastfeed.lab import Venue
from fastfeed.lab.load import AGGREGATE, Synthetic
from fastfeed.providers import Recipe

NAMES = ["BTCUSDT", "ETHUSDT"]
QUICK = Recovery(pause=0.02, timeout=2.0)


class Witness:
    """Everything a feed tells and delivers, from when it was made."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.events: list[events.Event] = []
        self._ticks: list[Any] = []
        streams = feed.ticks(), feed.events()
        self._tasks = [
            asyncio.ensure_future(self._read(stream, into))
            for stream, into in zip(streams, (self._ticks, self.events), strict=True)
        ]

    async def _read(self, stream: AsyncIterator[Any], into: list[Any]) -> None:
        async for item in stream:
            into.append(item)

    @property
    def ticks(self) -> Any:
        return np.concatenate(self._ticks)

    def told(self, kind: type, **fields: object) -> list[Any]:
        """Events of one kind whose fields, or whose gap's fields, have these values."""
        found = [event for event in self.events if isinstance(event, kind)]
        for name, value in fields.items():
            found = [
                event
                for event in found
                if getattr(event, name, getattr(event, "gap", None)) == value
                or (hasattr(event, "gap") and getattr(event.gap, name, None) == value)
            ]
        return found

    def trade_ids(self, symbol: str) -> list[int]:
        ticks = trades(self.ticks)
        numbers: list[int] = ticks["seq"][ticks["symbol_id"] == self.feed.prices.id(symbol)].tolist()
        return numbers

    def book(self, symbol: str) -> tuple[dict[float, float], dict[float, float]]:
        """Bids and asks as a reader of the ring builds them: anew at each snapshot, level by level otherwise."""
        sides: tuple[dict[float, float], dict[float, float]] = ({}, {})
        fresh = True
        ticks = levels(self.ticks)
        for tick in ticks[ticks["symbol_id"] == self.feed.prices.id(symbol)]:
            if tick["flags"] & Flag.SNAPSHOT and fresh:
                sides[0].clear()
                sides[1].clear()
            fresh = bool(tick["flags"] & Flag.LAST_LEVEL)
            side = sides[bool(tick["flags"] & Flag.SELL)]
            side.pop(float(tick["price"]), None)
            if tick["size"]:
                side[float(tick["price"])] = float(tick["size"])
        return sides

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def stage(
    *channels: str, market: str = "binance-usdm", recovery: Recovery = QUICK, rate: float = 2_000, **options: Any
) -> AsyncIterator[tuple[Venue, Feed, Witness]]:
    async with (
        Venue(market, symbols=NAMES, rate=rate) as venue,
        Feed(
            market,
            NAMES,
            channels=channels,
            url=venue.url,
            recovery=recovery,
            backoff=Backoff(base=0.05, cap=0.2, stable_after=0.1),
            **options,
        ) as feed,
    ):
        witness = Witness(feed)
        await feed.wait_live(timeout=10)
        yield venue, feed, witness
        await witness.close()


def truth(venue: Venue, symbol: str) -> tuple[dict[float, float], dict[float, float]]:
    book = venue.load.book(symbol, venue.furthest)
    assert book is not None
    bids, asks = ({float(price): float(size) for price, size in side} for side in (book.bids, book.asks))
    return bids, asks


async def rests(venue: Venue, feed: Feed) -> None:
    """Everything sent has been received, and every repair is over."""
    venue.rests()
    await until(venue.is_at_rest, "the venue to have sent everything")
    await until(lambda: feed.decoder.stats()["held"] == 0, "nothing to be held back")
    data = venue.count()["data"]
    await until(lambda: feed.decoder.stats()["data"] >= data or feed.stats()["reconnects"], "all of it to arrive")
    await asyncio.sleep(0.05)


async def leaves_out(venue: Venue, feed: Feed, channel: str, frames: int, times: int = 3) -> None:
    """Several holes, each behind which both streams have gone on: only then can it be seen."""
    for _ in range(times):
        wanted = venue.count()["skipped"] + frames
        venue.skips(frames)
        await until(lambda wanted=wanted: venue.count()["skipped"] == wanted, "frames to be left out")  # type: ignore[misc]
        before = [feed.decoder.newest(symbol, channel) for symbol in NAMES]
        await until(
            lambda before=before: all(  # type: ignore[misc]
                feed.decoder.newest(symbol, channel) > last for symbol, last in zip(NAMES, before, strict=True)
            ),
            "both streams to go on",
        )


async def goes_away(venue: Venue) -> None:
    """The venue cuts everybody off and refuses a dial, so that something is missed."""
    venue.refuses(503)
    venue.cuts()
    await until(lambda: venue.totals["refused"] >= 2, "two refused dials")
    venue.accepts_again()


async def repaired(witness: Witness, channel: str) -> None:
    """Both symbols' gaps of a channel have been told as repaired."""
    await until(
        lambda: {event.gap.symbol for event in witness.told(events.GapRepaired, stream=channel)} >= set(NAMES),
        f"the gaps of {channel} to be repaired",
    )


# Over HTTP ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("market", "channel"),
    [
        ("binance-usdm", "trade"),
        ("binance-spot", "agg_trade"),
        ("binance-spot", "trade"),
    ],
)
async def test_trades_left_out_are_fetched_and_all_are_in_the_ring_in_order(market: str, channel: str) -> None:
    async with stage(channel, market=market) as (venue, feed, witness):
        await leaves_out(venue, feed, channel, 60)
        await repaired(witness, channel)
        await rests(venue, feed)
        for symbol in NAMES:
            numbers = witness.trade_ids(symbol)
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert not feed.prices.array["flags"].any()
        assert all(event.how == "rest" for event in witness.told(events.GapRepaired))


async def test_what_is_fetched_is_what_the_venue_would_have_sent() -> None:
    async with stage("trade") as (venue, feed, witness):
        await leaves_out(venue, feed, "trade", 100)
        await repaired(witness, "trade")
        await rests(venue, feed)
        ticks = trades(witness.ticks)
        for symbol in NAMES:
            mine = ticks[ticks["symbol_id"] == feed.prices.id(symbol)]
            fills = venue.load.fills(AGGREGATE, symbol, int(mine["seq"][0]), len(mine), venue.furthest)
            assert fills is not None
            assert [float(fill.price) for fill in fills] == mine["price"].tolist()
            assert [float(fill.size) for fill in fills] == mine["size"].tolist()
            assert [fill.seller for fill in fills] == (mine["flags"] & Flag.SELL != 0).tolist()


@pytest.mark.parametrize("market", ["binance-usdm", "binance-spot"])
async def test_a_book_built_from_the_ring_is_the_venues_after_every_hole(market: str) -> None:
    async with stage("depth", market=market) as (venue, feed, witness):
        await leaves_out(venue, feed, "depth", 40)
        await repaired(witness, "depth")
        await rests(venue, feed)
        for symbol in NAMES:
            assert witness.book(symbol) == truth(venue, symbol)


async def test_a_depth_stream_begins_with_a_snapshot_and_goes_on_with_one_after_a_redial() -> None:
    async with stage("depth") as (venue, feed, witness):
        await until(lambda: venue.count()["asked"] >= 2, "the first snapshots")
        assert witness.told(events.Gap) == []
        await goes_away(venue)
        await repaired(witness, "depth")
        await rests(venue, feed)
        assert {event.gap.cause for event in witness.told(events.Gap)} == {"reconnect"}
        for symbol in NAMES:
            assert witness.book(symbol) == truth(venue, symbol)


async def test_a_snapshot_older_than_the_stream_is_fetched_again() -> None:
    async with stage("depth") as (venue, feed, witness):
        await until(lambda: venue.count()["asked"] >= 2, "the first snapshots")
        venue.shows_old_books(1_000, times=2)
        await leaves_out(venue, feed, "depth", 40, times=1)
        await repaired(witness, "depth")
        assert venue.count()["asked"] >= 6
        await rests(venue, feed)
        for symbol in NAMES:
            assert witness.book(symbol) == truth(venue, symbol)


async def test_partial_depth_needs_no_snapshot() -> None:
    partial = '{"stream":"btcusdt@depth5@100ms","data":{"lastUpdateId":7,"bids":[["1","2"]],"asks":[["3","4"]]}}'
    delta = '{"e":"depthUpdate","E":1,"s":"ETHUSDT","U":1,"u":2,"b":[["1","2"]],"a":[]}'
    async with (
        Exchange() as exchange,
        Feed("binance-spot", [Subscription("BTCUSDT", "depth", levels=5)], url=exchange.url) as feed,
    ):
        await exchange.send(partial)
        await feed.wait_live(timeout=10)
        feed.subscribe(["ETHUSDT"], channels=["depth"])
        await until(lambda: len(exchange.line.requests) == 2, "the second request")
        await exchange.send(partial, delta)
        await feed.wait_live(timeout=10)
        await until(lambda: exchange.dials == 2, "the only request over HTTP, which this exchange refuses")
        assert exchange.line.topics == ["btcusdt@depth5@100ms", "ethusdt@depth@100ms"]


async def test_a_reader_that_comes_late_can_have_the_book_fetched() -> None:
    async with stage("depth", "quote") as (venue, feed, witness):
        await until(lambda: venue.count()["asked"] >= 2, "the first snapshots")
        await until(lambda: len(witness.ticks) > 500, "some ticks")
        late = Witness(feed)
        feed.refresh(channels=["depth"])
        await until(lambda: venue.count()["asked"] >= 4, "snapshots for the late one")
        await rests(venue, feed)
        for symbol in NAMES:
            assert late.book(symbol) == truth(venue, symbol)
        await late.close()


async def test_last_quotes_can_be_fetched_and_make_no_row_live() -> None:
    async with stage("quote") as (venue, feed, _):
        venue.falls_silent()
        await asyncio.sleep(0.1)
        before = feed.decoder.stats()["spliced"]
        feed.refresh()
        await until(lambda: feed.decoder.stats()["spliced"] >= before + 2, "the last quotes")
        assert not feed.prices.fresh(max_age=0.05).any()


async def test_what_is_still_silent_after_a_redial_is_fetched() -> None:
    async with stage("quote") as (venue, feed, _):
        venue.falls_silent()
        venue.cuts()
        await until(lambda: feed.decoder.stats()["spliced"] >= 2, "the last quotes of what has not come back")
        assert not feed.prices.fresh(max_age=3600).any()


# When HTTP fails ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 404, 429])
async def test_where_nothing_can_be_fetched_the_stream_is_asked_for_anew(status: int) -> None:
    async with stage("trade") as (venue, feed, witness):
        venue.refuses_requests(status, retry_after=1 if status == 429 else None)
        await leaves_out(venue, feed, "trade", 60, times=1)
        await repaired(witness, "trade")
        assert {event.how for event in witness.told(events.GapRepaired)} == {"resubscribe"}
        await until(lambda: not feed.prices.array["flags"].any(), "no row to be flagged any more")
        assert witness.told(events.Alert) == []


async def test_a_slow_answer_is_given_up_and_asked_for_again() -> None:
    async with stage("trade", recovery=replace(QUICK, timeout=0.2)) as (venue, feed, witness):
        venue.answers_slowly(30)
        venue.skips(60)
        await until(lambda: venue.count()["asked"] >= 2, "a second request")
        venue.answers_again()
        await repaired(witness, "trade")
        await rests(venue, feed)
        for symbol in NAMES:
            numbers = witness.trade_ids(symbol)
            assert numbers == list(range(numbers[0], numbers[-1] + 1))


async def test_nothing_is_asked_before_the_venue_wants_to_be_asked_again() -> None:
    async with stage("depth") as (venue, feed, _):
        await until(lambda: venue.count()["asked"] >= 2, "the first snapshots")
        venue.refuses_requests(429, retry_after=1, times=1)
        feed.refresh(["BTCUSDT"])
        await until(lambda: venue.count()["asked"] == 3, "the request that is refused")
        venue.skips(40)
        await asyncio.sleep(0.4)
        assert venue.count()["asked"] == 3
        await until(lambda: venue.count()["asked"] >= 5, "the requests after that")


async def test_without_the_http_extra_the_stream_is_asked_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "is_possible", lambda: False)
    async with stage("trade") as (venue, feed, witness):
        await leaves_out(venue, feed, "trade", 60, times=1)
        await repaired(witness, "trade")
        assert venue.count()["asked"] == 0
        assert {event.how for event in witness.told(events.GapRepaired)} == {"resubscribe"}
        await until(lambda: not feed.prices.array["flags"].any(), "no row to be flagged any more")
        with pytest.raises(ConfigError, match="http extra"):
            feed.refresh()


async def test_a_book_that_cannot_be_fetched_is_told_with_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking anew brings no book, so it is not even tried: but the gap is no secret."""
    monkeypatch.setattr(rest, "is_possible", lambda: False)
    async with stage("depth") as (venue, feed, witness):
        await leaves_out(venue, feed, "depth", 40, times=1)
        await until(lambda: witness.told(events.Alert), "the alert")
        assert "gap unrepaired: depth of " in witness.told(events.Alert)[0].cause
        assert "fastfeed[http]" in witness.told(events.Alert)[0].hint
        await until(lambda: feed.decoder.stats()["held"] == 0, "nothing to be held")


def test_only_http_without_the_http_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "is_possible", lambda: False)
    with pytest.raises(ConfigError, match=r"fastfeed\[http\]"):
        Feed("binance-usdm", NAMES, recovery=Recovery(strategy=Strategy.REST))
    with pytest.raises(ConfigError, match="recovery='rest'"):
        Feed("binance-usdm", NAMES, recovery="rest")  # type: ignore[arg-type]


# Flags --------------------------------------------------------------------------------------------------------------


async def test_a_row_stays_flagged_until_it_is_repaired() -> None:
    async with stage("trade") as (venue, feed, witness):
        venue.answers_slowly(0.5)
        venue.skips(60)
        await until(lambda: len(witness.told(events.Gap)) >= 2, "the gaps")
        assert not feed.prices.is_fresh("BTCUSDT", max_age=3600)
        assert feed.prices["BTCUSDT"]["flags"] & Flag.AFTER_GAP
        await repaired(witness, "trade")
        assert feed.prices.is_fresh("BTCUSDT", max_age=3600)


async def test_what_is_not_repaired_stays_flagged_is_told_once_and_is_cleared_by_hand() -> None:
    told: list[dict[str, Any]] = []
    async with stage("trade", recovery=Recovery(strategy=Strategy.NONE), on_alert=told.append) as (
        venue,
        feed,
        witness,
    ):
        venue.skips(60)
        await until(lambda: len(told) >= 1, "the alert")
        await until(lambda: bool((feed.prices.array["flags"] & Flag.AFTER_GAP).all()), "both rows to be flagged")
        assert told[0]["cause"].startswith("gap unrepaired: trade of ")
        assert "repaired(symbol)" in told[0]["hint"]
        venue.skips(60)
        await until(lambda: len(witness.told(events.Gap)) >= 4, "more gaps of the same")
        await asyncio.sleep(0.25)
        assert len(told) <= 2
        assert not feed.prices.is_fresh("BTCUSDT", max_age=3600)
        for symbol in NAMES:
            feed.prices.repaired(symbol)
        assert feed.prices.is_fresh("BTCUSDT", max_age=3600)
        assert venue.count()["asked"] == 0


async def test_a_redial_clears_what_was_not_repaired() -> None:
    async with stage("trade", recovery=Recovery(strategy=Strategy.NONE)) as (venue, feed, witness):
        venue.skips(60)
        await until(lambda: bool((feed.prices.array["flags"] & Flag.AFTER_GAP).all()), "both rows to be flagged")
        await until(lambda: len(witness.told(events.Gap)) >= 2, "both gaps")
        venue.cuts()
        await until(lambda: feed.prices.fresh(max_age=3600).all(), "both to be fresh again")


# Interruptions ------------------------------------------------------------------------------------------------------


async def test_trades_missed_while_the_connection_was_gone_are_fetched_and_flag_no_row() -> None:
    async with stage("trade") as (venue, feed, witness):
        venue.answers_slowly(0.3)
        await goes_away(venue)
        await until(lambda: len(witness.told(events.Gap, cause="reconnect")) == 2, "both gaps")
        assert not feed.prices.array["flags"].any()
        await repaired(witness, "trade")
        await rests(venue, feed)
        for symbol in NAMES:
            numbers = witness.trade_ids(symbol)
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
        for event in witness.told(events.Gap):
            assert 0 < event.gap.from_ns < event.gap.to_ns


async def test_an_interruption_of_a_stream_without_usable_numbers_is_a_window_in_time() -> None:
    async with stage("quote", "mark") as (venue, feed, witness):
        assert feed.gaps() == []
        venue.cuts()
        await until(lambda: len(witness.told(events.Gap)) == 4, "a window for each subscription")
        found = {(event.gap.symbol, event.gap.stream) for event in witness.told(events.Gap)}
        assert found == {(symbol, channel) for symbol in NAMES for channel in ("quote", "mark")}
        for gap in feed.gaps():
            assert (gap.cause, gap.first, gap.last, gap.missing) == ("window", 0, -1, 0)
            assert 0 < gap.from_ns < gap.to_ns <= gap.recv_ns
        assert feed.prices.fresh(max_age=3600).all()


# Replay -------------------------------------------------------------------------------------------------------------


def _asks_again(topic: str, first: int, last: int) -> str:
    return f'{{"method":"REPLAY","params":["{topic}"],"id":0,"first":{first},"last":{last}}}'


async def test_a_provider_that_sends_again_what_was_missed_is_asked_to() -> None:
    provider = replace(providers.provider("binance-usdm"), recovery={"trade": Recipe(replay=_asks_again)}, rest="")
    asked: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> str | None:
        if request["method"] != "REPLAY":
            return ack(request)
        asked.append(request)
        return None

    async with Exchange() as exchange:
        exchange.answer = answer
        async with Feed(provider, ["BTCUSDT"], channels=["trade"], url=exchange.url) as feed:
            witness = Witness(feed)
            await exchange.send(trade(number=1), trade(number=2), trade(number=6), trade(number=7))
            await until(lambda: asked, "the request")
            assert (asked[0]["params"], asked[0]["first"], asked[0]["last"]) == (["btcusdt@aggTrade"], 3, 5)
            await exchange.send(trade(number=3), trade(number=4), trade(number=8), trade(number=5))
            await until(lambda: witness.told(events.GapRepaired), "the repair")
            assert witness.told(events.GapRepaired)[0].how == "replay"
            await until(lambda: len(witness.ticks) == 8, "all of it")
            assert witness.trade_ids("BTCUSDT") == list(range(1, 9))
            assert feed.prices.is_fresh("BTCUSDT", max_age=3600)
            assert feed.prices["BTCUSDT"]["trade_seq"] == 8
            await witness.close()


# Storms and ends ----------------------------------------------------------------------------------------------------


async def test_a_storm_of_gaps_is_repaired_few_at_a_time_and_leaves_nothing_held() -> None:
    names = [f"S{number}USDT" for number in range(60)]
    async with (
        Venue("binance-usdm", symbols=names, rate=8_000) as venue,
        Feed("binance-usdm", names, channels=["trade"], url=venue.url, recovery=replace(QUICK, in_flight=2)) as feed,
    ):
        witness = Witness(feed)
        await feed.wait_live(timeout=10)
        most = 0
        venue.answers_slowly(0.005)
        venue.skips(1500)

        def is_over() -> bool:
            nonlocal most
            most = max(most, sum(one.desk is None for one in venue.connections.values()))
            return len({event.gap.symbol for event in witness.told(events.GapRepaired)}) == len(names)

        await until(is_over, "all to be repaired")
        assert most <= 3  # two, and one on its way out
        await rests(venue, feed)
        for symbol in names:
            numbers = witness.trade_ids(symbol)
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert not feed.prices.array["flags"].any()
        await witness.close()


async def test_unsubscribing_in_the_middle_of_a_repair_leaves_nothing_held() -> None:
    async with stage("trade", "quote") as (venue, feed, _):
        venue.answers_slowly(30)
        venue.skips(200)
        await until(lambda: feed.decoder.stats()["held"] > 0, "trades to be held")
        feed.unsubscribe(NAMES, channels=["trade"])
        await until(lambda: feed.decoder.stats()["held"] == 0, "them to be let go")
        await until(lambda: feed.prices.fresh(max_age=3600).all(), "the rows to be fresh without them")


async def test_closing_in_the_middle_of_a_repair_ends_it() -> None:
    async with stage("trade") as (venue, feed, _):
        venue.answers_slowly(30)
        venue.skips(60)
        await until(lambda: venue.count()["asked"] >= 1, "a request")
        tasks = [task for task in asyncio.all_tasks() if "_fetch" in repr(task)]
        assert tasks
        await feed.close()
        await until(lambda: all(task.done() for task in tasks), "the requests to be dropped")


# The decoder's part -------------------------------------------------------------------------------------------------


def test_a_gap_the_user_has_not_repaired_is_held_from_its_very_message(made: Callable[[int], bytes]) -> None:
    from fastfeed import Decoder

    decoder = Decoder("binance-usdm")
    decoder.hold_at_gaps("trade")
    reader = decoder.ring.reader()
    for number in (1, 2, 5, 6):
        decoder.decode(made(number))
    assert trades(reader.read())["seq"].tolist() == [1, 2]
    assert decoder.missing("BTCUSDT", "trade") == (3, 4)
    assert decoder.gaps() == [Gap("trade", "BTCUSDT", 3, 4, decoder.gaps()[0].recv_ns)]
    assert decoder.prices["BTCUSDT"]["trade_seq"] == 6
    decoder.decode(made(4))
    assert decoder.missing("BTCUSDT", "trade") == (3, 3)
    decoder.decode(made(3))
    assert decoder.missing("BTCUSDT", "trade") is None
    decoder.release("BTCUSDT", "trade")
    ticks = trades(reader.read())
    assert ticks["seq"].tolist() == [3, 4, 5, 6]
    assert not (ticks["flags"] & (Flag.AFTER_GAP | Flag.DUPLICATE)).any()
    decoder.hold_at_gaps("trade", on=False)
    decoder.decode(made(9))
    ticks = trades(reader.read())
    assert ticks["seq"].tolist() == [9]
    assert ticks["flags"][0] & Flag.AFTER_GAP


@pytest.fixture
def made() -> Callable[[int], bytes]:
    return lambda number: trade(number=number).encode()


def test_the_lab_s_book_is_what_its_depth_messages_add_up_to() -> None:
    from fastfeed.lab.binance import USDM

    load = Synthetic(USDM, symbols=NAMES, events=4096)
    empty = load.book("BTCUSDT", 0)
    assert empty is not None
    assert (list(empty.bids), list(empty.asks)) == ([], [])
    once, twice = load.book("BTCUSDT", load.events), load.book("BTCUSDT", 2 * load.events)
    assert once is not None
    assert twice is not None
    assert len(once.bids) > 10
    assert dict(once.bids) == dict(twice.bids)  # each pass sets the same levels
    assert once.id < twice.id
    assert [float(price) for price, _ in once.bids] == sorted((float(price) for price, _ in once.bids), reverse=True)
