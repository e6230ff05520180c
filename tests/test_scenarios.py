"""The scenarios that every provider with a desk in the lab passes, over real sockets: what a connection may suffer.

The desks are written from the protocol pages and know nothing of fastfeed's provider files. A provider takes part by
having a desk; what it has no words for (acks, refusals, evictions) is named in the tables below.
"""

import asyncio
import logging
import math
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import orjson
import pytest
from exchange import until

from fastfeed import Backoff, Feed, Flag, Heartbeat, Status, Subscription, events, session
from fastfeed.errors import AuthError, FastFeedError, GaveUp
from fastfeed.heartbeat import Beats
from fastfeed.lab import desks
from fastfeed.lab.stage import QUOTE, TRADE, Event, Stage
from fastfeed.providers import Provider, provider

# Of those that are one desk by several names, one of each kind.
SAME = ("massive", "alpaca-", "intrinio-")
NAMES = [
    *("alpaca", "alpaca-crypto-msgpack", "alpaca-options"),
    *(name for name in desks.names() if not name.startswith(SAME) and name != "alpaca"),
]
PATIENCE = 5.0  # seconds in which whatever is waited for has happened, or never will
SWIFT = Backoff(base=0.02, cap=0.1, stable_after=0.05)
COOL_DOWN = 0.4
BEATS = Beats(interval=0.1, timeout=0.3, expected=0.4)

# A symbol that looks like one and that the venue does not have, where a venue says so.
UNKNOWN = {"tickdb": "NOPE.US", "cme": "XXH6", "tradermade": "XXXYYY"}
# Who has words for having too many connections, or a close code that means nothing else.
EVICTING = [name for name in NAMES if name not in ("tiingo-fx", "cme", "intrinio")]
ONE_SIDED = ["intrinio"]  # whose quotes come side by side, two ticks each, with prices of 32 bits
LIMITING = ["tickdb", "iex"]  # who says "too many requests" in a message
LIMITED = ["finnhub", "tickdb", "tradermade"]  # who refuses one subscription too many
REPEATING = ["polygon", "polygon-options", "iex", "cme"]  # whose quotes have numbers that tell a repeat
COUNTING = ["cme"]  # whose numbers have no holes of their own


@dataclass
class Play:
    """A venue, the feed that is connected to it, and the news of that feed."""

    name: str
    stage: Stage
    feed: Feed
    news: list[events.Event]
    alerts: list[dict[str, Any]]

    @property
    def wanted(self) -> set[tuple[str, str]]:
        """The (kind, symbol) pairs that the venue should have subscribed."""
        kind = {"quote": QUOTE, "trade": TRADE, "mark": QUOTE}
        return {(kind[wish.channel], wish.symbol) for wish in self.feed.subscriptions}

    async def plays(self) -> list[Event]:
        """One event of everything wanted."""
        return [
            event for kind, symbol in sorted(self.wanted) for event in await self.stage.plays(kind=kind, symbol=symbol)
        ]

    def ticks_of(self, told: list[Event]) -> int:
        """How many ticks tell of these."""
        return sum(2 if event.kind == QUOTE and self.name in ONE_SIDED else 1 for event in told)

    async def is_served(self) -> None:
        """Everything wanted is subscribed at the venue."""
        await until(lambda: self.wanted <= self.stage.subscribed, "everything to be subscribed")

    async def delivers(self) -> None:
        """Everything is subscribed at the venue and what it tells arrives: the table agrees with its own record."""
        await self.is_served()
        ticks = self.feed.stats()["ticks"]
        told = await self.plays()
        await until(lambda: self.feed.stats()["ticks"] >= ticks + self.ticks_of(told), "what was told to arrive")
        await self.feed.wait_live(timeout=PATIENCE)
        self.agrees()

    def agrees(self) -> None:
        """Every price of the table is the last one that the venue told."""
        for symbol in {symbol for _, symbol in self.wanted}:
            row, marks = self.feed.prices[symbol], self.feed.prices.marks
            told = {kind: self.stage.last[kind, symbol] for kind in (QUOTE, TRADE) if (kind, symbol) in self.wanted}
            first, trade = next(iter(told.values())), told.get(TRADE, next(iter(told.values())))
            found = {name: float(row[name]) for name in ("bid", "ask", "last")}
            found = {name: price for name, price in found.items() if not math.isnan(price)}
            if "mark" in self.feed.provider.channels:
                found = {"last": float(marks[self.feed.prices.id(symbol)]["price"])}
            wanted = {"bid": first.bid, "ask": first.ask, "last": trade.price}
            if self.name in ONE_SIDED:
                wanted = {name: struct.unpack("f", struct.pack("f", price))[0] for name, price in wanted.items()}
            assert found
            assert found == {name: wanted[name] for name in found}, symbol

    async def has(self, kind: type[events.Event], count: int = 1) -> events.Event:
        """The `count`th event of that kind."""
        await until(lambda: sum(isinstance(event, kind) for event in self.news) >= count, kind.__name__)
        return [event for event in self.news if isinstance(event, kind)][count - 1]

    def told(self, kind: type[events.Event]) -> int:
        return sum(isinstance(event, kind) for event in self.news)


def swift(name: str, **limits: Any) -> Provider:
    """The provider with heartbeats and cool-downs in tenths of seconds, its market always open."""
    found = provider(name)
    beats = Beats(
        interval=None if found.beats.interval is None else BEATS.interval,
        timeout=None if found.beats.timeout is None else BEATS.timeout,
        expected=None if found.beats.expected is None else BEATS.expected,
    )
    limits.setdefault("eviction_cool_down", COOL_DOWN)
    return replace(found, beats=beats, hours=None, limits=replace(found.limits, **limits))


def channels(found: Provider, symbols: list[str]) -> list[str]:
    if found.name == "tickdb":
        return ["quote"]  # there are no trades of forex
    return [channel for channel in ("quote", "trade", "mark") if channel in found.channels]


def keys(found: Provider, word: str = "sesame") -> dict[str, str]:
    return {} if found.auth is None else {name: f"{word}-{name}-4711" for name in found.auth.env}


@asynccontextmanager
async def play(
    name: str,
    *,
    found: Provider | None = None,
    symbols: list[str] | None = None,
    stage: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Play]:
    """A venue and a feed that has entered."""
    found = swift(name) if found is None else found
    known = keys(found)
    async with Stage(name, keys=known, **{"beat_every": 0.1, "lingers": 0.1, **(stage or {})}) as venue:
        symbols = venue.symbols if symbols is None else symbols
        options = {"backoff": SWIFT, "heartbeat": Heartbeat(interval=0.1, timeout=0.3), "credentials": known, **options}
        alerts: list[dict[str, Any]] = []
        feed = Feed(found, symbols, channels=channels(found, symbols), url=venue.url, on_alert=alerts.append, **options)
        news: list[events.Event] = []
        listening = asyncio.create_task(listen(feed, news))
        try:
            async with feed:
                yield Play(name, venue, feed, news, alerts)
        finally:
            async with asyncio.timeout(PATIENCE):
                await listening


async def listen(feed: Feed, news: list[events.Event]) -> None:
    async with feed.events() as stream:
        try:
            async for event in stream:
                news.append(event)
        except GaveUp:
            pass


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's own waits, in tenths of seconds."""
    monkeypatch.setattr(session, "ACK_TIMEOUT", 0.25)
    monkeypatch.setattr(session, "RESTORE_GRACE", 0.25)
    monkeypatch.setattr(session, "LOGIN_TIMEOUT", 1.0)


every = pytest.mark.parametrize("name", NAMES)

# Coming up ----------------------------------------------------------------------------------------------------------


@every
async def test_it_connects_subscribes_and_tells_what_the_venue_told(name: str) -> None:
    async with play(name) as played:
        assert played.feed.state == "LIVE"
        assert set(played.feed.subscriptions.values()) <= {"acked", "live"}
        await played.is_served()
        reader = played.feed.ticks()
        told = [event for _ in range(5) for event in await played.plays()]
        await until(lambda: played.feed.stats()["ticks"] >= played.ticks_of(told), "what was told")
        played.agrees()
        stats = played.feed.stats()
        assert (stats["ticks"], stats["unknown"], stats["malformed"]) == (played.ticks_of(told), 0, 0)
        assert (stats["gaps"], stats["duplicates"], stats["unreadable"], stats["strays"]) == (0, 0, 0, 0)
        async with asyncio.timeout(PATIENCE):
            ticks = await anext(reader)
        ns = {event.utc_ns for event in told}
        assert set(ticks["event_ns"].tolist()) <= ns, "the time of an event is the one that was told"


@every
async def test_messages_in_fragments_are_the_same_messages(name: str) -> None:
    async with play(name) as played:
        played.stage.fragments(7)
        await played.delivers()
        assert played.feed.stats()["malformed"] == 0


@every
async def test_a_wrong_key_is_shown_once_and_told(name: str) -> None:
    found = swift(name)
    async with Stage(name, keys=keys(found)) as stage:
        alerts: list[dict[str, Any]] = []
        wrong = keys(found, "burglar")
        feed = Feed(
            found,
            stage.symbols,
            channels=channels(found, stage.symbols),
            url=stage.url,
            credentials=wrong,
            on_alert=alerts.append,
            backoff=SWIFT,
        )
        with pytest.raises((AuthError, GaveUp)) as raised:
            async with feed:
                pass
        # Where a token is asked for with the key, it is asked for once more and nobody dials.
        assert (stage.dials, len(stage.asked)) == ((1, 0) if found.auth is None or found.auth.token is None else (0, 2))
        assert feed.state in ("FAILED", "CLOSED")
        assert any(alert["severity"] == "error" for alert in alerts)
        assert not any(secret in str(raised.value) for secret in wrong.values())


@pytest.mark.parametrize("name", UNKNOWN)
async def test_a_symbol_that_the_venue_does_not_have_is_told_and_the_others_live(name: str) -> None:
    async with Stage(name) as stage:
        known = stage.symbols
    async with play(name, symbols=[*known[:2], UNKNOWN[name], *known[2:]]) as played:
        rejected = await played.has(events.Rejected)
        assert isinstance(rejected, events.Rejected)
        assert rejected.subscription.symbol == UNKNOWN[name]
        states = Counter(played.feed.subscriptions.values())
        assert states["rejected"] == len(channels(played.feed.provider, known))
        assert states["acked"] == len(known) * len(channels(played.feed.provider, known))
        assert played.stage.dials == 1


@pytest.mark.parametrize("name", LIMITED)
async def test_one_subscription_too_many_is_told_and_the_others_live(name: str) -> None:
    async with play(name, stage={"streams": 2}) as played:
        await until(lambda: len(played.stage.subscribed) == 2, "as many as may be")
        states = Counter(played.feed.subscriptions.values())
        await until(
            lambda: Counter(played.feed.subscriptions.values())["rejected"] == states.total() - 2,
            "the others to be rejected",
        )
        for kind, symbol in played.stage.subscribed:
            await played.stage.plays(kind=kind, symbol=symbol)
        await until(lambda: Counter(played.feed.subscriptions.values())["live"] == 2, "the two to live")
        assert played.stage.dials == 1


@every
async def test_a_request_that_is_not_answered_is_asked_again_in_halves(name: str) -> None:
    async with play(name, symbols=desks.find(name).symbols[:1]) as played:
        await played.delivers()
        played.stage.withholds_acks()
        played.stage.heard.clear()
        rest = played.stage.symbols[1:]
        played.feed.subscribe(rest)
        if not played.feed.provider.dialect.acks:
            await played.delivers()  # there is no answer but data
            assert len(requests(played)) == len(rest), "asked once"
            return
        group = played.feed.provider.dialect.group
        waiting = [wish for wish, stage in played.feed.subscriptions.items() if stage == "requested"]
        first = len({group(played.feed.provider.topic(wish)) for wish in waiting}) if group is not None else 1
        await until(lambda: len(requests(played)) > first, "another request")
        asked = [wishes(request) for request in requests(played)]
        assert sum(asked[:first]) == len(waiting)
        assert asked[first] == max(1, asked[0] // 2)
        played.stage.acks_again()
        await played.delivers()
        assert (played.feed.state, played.stage.dials) == ("LIVE", 1)


def requests(played: Play) -> list[str]:
    """What the feed has asked for, without its pings."""
    said = [message if isinstance(message, str) else message.hex() for message in played.stage.heard]
    return [message for message in said if "ping" not in message]


def wishes(request: str) -> int:
    """How many subscriptions a request asks for, in whichever provider's words."""
    said = orjson.loads(request) if request.startswith("{") else msgpack.unpackb(bytes.fromhex(request))
    if "action" in said and "params" not in said:  # lists of symbols by channel
        return sum(len(symbols) for symbols in said.values() if isinstance(symbols, list))
    said = said.get("data") or said.get("eventData") or said.get("payload") or said
    found = next(said[name] for name in ("params", "symbols", "tickers", "subscriptions") if name in said)
    return len(found.split(",") if isinstance(found, str) else found)


# Dying and coming back ----------------------------------------------------------------------------------------------


async def loses_and_restores(played: Play, fault: Callable[[], Any]) -> events.Disconnected:
    """The fault costs the connection; everything is back after it, and what was missed is named as a window."""
    await played.delivers()
    dials = played.stage.dials
    done = fault()
    if asyncio.iscoroutine(done):
        await done
    lost = await played.has(events.Disconnected)
    played.stage.speaks_again()
    played.stage.pongs_again()
    played.stage.beats_again()
    played.stage.acks_again()
    await until(lambda: played.stage.dials > dials, "a redial")
    await played.delivers()
    restored = await played.has(events.Restored)
    assert isinstance(lost, events.Disconnected)
    assert isinstance(restored, events.Restored)
    assert restored.missing == ()
    assert played.feed.state == "LIVE"
    windows = {(gap.symbol, gap.stream) for gap in played.feed.gaps() if gap.cause == "window"}
    assert windows == {(wish.symbol, wish.channel) for wish in played.feed.subscriptions}
    assert all(gap.from_ns < gap.to_ns for gap in played.feed.gaps())
    stats = played.feed.stats()
    assert (stats["gaps"], stats["unknown"], stats["malformed"]) == (0, 0, 0)
    return lost


@every
async def test_a_heartbeat_that_stays_out_is_a_dead_connection(name: str) -> None:
    async with play(name) as played:
        beats, stage = played.feed.provider.beats, played.stage

        def stops() -> None:
            if beats.expected is not None:
                stage.stops_beating()
            elif beats.interval is not None:
                stage.withholds_acks()  # and so the answers to its pings
            else:
                stage.stops_ponging()

        await asyncio.sleep(0.15)  # where pongs are not promised, one has to be seen
        lost = await loses_and_restores(played, stops)
        kind = ("beats by itself", "application ping")[beats.expected is None]
        wanted = kind if beats.expected is not None or beats.interval is not None else "no pong"
        assert wanted in lost.cause


@every
async def test_sc1_a_clean_close_is_redialled_at_once(name: str) -> None:
    async with play(name) as played:
        lost = await loses_and_restores(played, lambda: played.stage.closes(1000))
        assert lost.code == 1000
        again = await played.has(events.Reconnecting)
        assert isinstance(again, events.Reconnecting)
        assert again.attempt == 1
        assert again.delay <= SWIFT.base * 1.3


@every
async def test_sc2_a_connection_that_dies_silently_is_found_dead(name: str) -> None:
    async with play(name) as played:
        await asyncio.sleep(0.15)
        lost = await loses_and_restores(played, played.stage.half_opens)
        assert lost.code == 1006


@every
async def test_sc2_a_reset_is_redialled(name: str) -> None:
    async with play(name) as played:
        lost = await loses_and_restores(played, played.stage.cuts)
        assert lost.code == 1006


@every
async def test_sc3_too_many_requests_waits_for_as_long_as_is_asked(name: str) -> None:
    async with play(name) as played:
        await played.delivers()
        played.stage.refuses(429, retry_after=1)
        await played.stage.closes(1000)
        limited = await played.has(events.RateLimited)
        assert isinstance(limited, events.RateLimited)
        assert limited.retry_after >= 1.0
        dials, clock = played.stage.dials, asyncio.get_running_loop().time
        played.stage.accepts_again()
        began = clock()
        await until(lambda: played.stage.dials > dials, "the next dial")
        assert clock() - began > 0.8
        await played.delivers()


@pytest.mark.parametrize("name", LIMITING)
async def test_sc3_a_rate_limit_in_a_message_is_one(name: str) -> None:
    async with play(name) as played:
        await loses_and_restores(played, lambda: played.stage.limits(0.3))
        limited = await played.has(events.RateLimited)
        assert isinstance(limited, events.RateLimited)
        assert limited.retry_after >= (0.3 if name == "iex" else SWIFT.cap)


@every
async def test_sc4_credentials_that_lapse_are_renewed_once(name: str) -> None:
    found = swift(name)
    given = [keys(found), keys(found, "renewed")]
    source = iter(given)
    credentials = given[0] if found.auth is not None and found.auth.token is not None else lambda: next(source)
    async with play(name, found=found, credentials=credentials) as played:
        await played.delivers()
        new = {} if credentials is given[0] else given[1]
        await loses_and_restores(played, lambda: played.stage.expires(**new))
        assert played.told(events.AuthFailed) == 0
        assert played.stage.dials <= 3


@every
async def test_sc4_credentials_that_lapse_for_good_end_the_feed(name: str) -> None:
    found = swift(name)
    async with play(name, found=found) as played:
        await played.delivers()
        waiting = asyncio.create_task(drain(played.feed))
        await played.stage.expires(**keys(found, "changed"))
        await played.has(events.AuthFailed)
        with pytest.raises(GaveUp):
            async with asyncio.timeout(PATIENCE):
                await waiting
        assert played.feed.state == "FAILED"
        assert played.stage.dials <= 3
        assert {int(row["status"]) for row in played.feed.prices.array} == {Status.CLOSED}
        assert any(alert["severity"] == "error" for alert in played.alerts)


async def drain(feed: Feed) -> None:
    async for _ in feed.batches():
        pass


@every
@pytest.mark.parametrize("code", [1001, 1012])
async def test_sc5_a_restarting_server_is_waited_for(name: str, code: int) -> None:
    async with play(name) as played:
        lost = await loses_and_restores(played, lambda: played.stage.closes(code, "restarting"))
        assert lost.code == code


@every
async def test_a_venue_that_finds_it_slow_is_redialled_with_backoff(name: str) -> None:
    async with play(name) as played:
        await loses_and_restores(played, played.stage.finds_slow)


# Limits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVICTING)
async def test_a_connection_taken_by_another_is_left_alone_for_the_cool_down(name: str) -> None:
    async with play(name) as played:
        await played.delivers()
        dials, clock = played.stage.dials, asyncio.get_running_loop().time
        began = clock()
        await played.stage.evicts_everybody()
        await until(lambda: played.stage.dials > dials, "the next dial")
        assert clock() - began >= COOL_DOWN
        await played.delivers()


@pytest.mark.parametrize("name", EVICTING)
async def test_two_clients_of_one_account_never_duel(name: str) -> None:
    async with play(name, stage={"connections": 1, "rate": 500.0}) as played:
        await played.feed.wait_live(timeout=PATIENCE)
        clock = asyncio.get_running_loop().time
        other = Feed(
            played.feed.provider,
            played.stage.symbols,
            channels=channels(played.feed.provider, played.stage.symbols),
            url=played.stage.url,
            credentials=keys(played.feed.provider),
            backoff=SWIFT,
            connect_timeout=1.0,
        )
        began = clock()
        try:
            async with asyncio.timeout(PATIENCE), other:
                await asyncio.sleep(0.6)
        except FastFeedError:
            pass  # the place is taken: as it should be
        most = 2 * (1 + (clock() - began) / COOL_DOWN) + 2
        assert played.stage.dials <= most, "each waits out its cool-down before it dials again"
        await played.feed.wait_live(timeout=PATIENCE)


@every
async def test_no_quota_is_ever_exceeded(name: str) -> None:
    quota = 20
    found = swift(name, messages_per_second=quota, streams_per_request=1)
    async with play(name, found=found, stage={"quota": quota}) as played:
        await played.delivers()
        for _ in range(2):
            await played.stage.closes(1012)
            await played.delivers()
        stage, limits = played.stage, found.limits
        assert 1 < stage.busiest <= quota
        assert limits.connections is None or stage.most_open <= limits.connections
        most = max(len(seat.desk.subscribed) for seat in stage.seats.values())
        assert limits.streams_per_connection is None or most <= limits.streams_per_connection
        assert played.told(events.RateLimited) == 0


@every
async def test_wishes_made_while_away_are_kept_and_all_is_restored(name: str) -> None:
    symbols = list(desks.find(name).symbols)
    async with play(name, symbols=symbols[:-1]) as played:
        await played.delivers()
        played.stage.refuses(503)
        played.stage.cuts()
        await played.has(events.Disconnected)
        played.feed.subscribe(symbols[-1:])
        played.feed.unsubscribe(symbols[:1])
        played.stage.accepts_again()
        await played.delivers()
        await until(lambda: played.stage.subscribed == played.wanted, "exactly what is wanted")
        assert {symbol for _, symbol in played.wanted} == set(symbols[1:])


# What the stream itself may suffer ----------------------------------------------------------------------------------


@every
async def test_what_is_left_out_or_repeated_is_told_where_numbers_show_it_and_raises_no_false_alarm(
    name: str,
) -> None:
    async with play(name) as played:
        await played.delivers()
        kind, symbol = min(played.wanted)
        played.stage.skips(3)
        await played.stage.plays(4, kind=kind, symbol=symbol)
        await played.delivers()
        assert [gap.missing for gap in played.feed.gaps()] == ([3] if name in COUNTING else [])
        ticks = played.feed.stats()["ticks"]
        await played.stage.repeats(1)
        await until(lambda: played.feed.stats()["ticks"] > ticks, "the repeat")
        if name in REPEATING:
            assert played.feed.stats()["duplicates"] >= 1
        played.agrees()


@every
async def test_nonsense_is_counted_and_costs_no_connection(name: str) -> None:
    async with play(name) as played:
        await played.stage.says("{", '{"what":1}', "[]", '"text"', '{"op":7,"cmd":[],"ev":{},"type":null,"header":1}')
        await until(lambda: played.feed.stats()["malformed"] == 1, "the nonsense to be counted")
        before = played.feed.stats()
        await played.plays()
        await until(lambda: played.feed.stats()["ticks"] >= len(played.wanted), "data after it")
        played.agrees()
        assert before["ticks"] == 0
        assert before["unknown"] + before["control"] >= 1
        assert played.stage.dials == 1


@every
async def test_the_keys_are_told_nowhere_even_if_the_server_echoes_them(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    found = swift(name)
    secrets = list(keys(found).values())
    async with play(name, found=found) as played:
        await played.delivers()
        secrets += list(played.stage.tokens)
        echo = " ".join(secrets)
        said = orjson.dumps(
            {"ev": "status", "status": "error", "message": echo, "code": 4001, "type": "error"}
        ).decode()
        await played.stage.says(said, orjson.dumps({"messageType": "E", "response": {"message": echo}}).decode())
        played.stage.refuses(503, body=echo)
        await played.stage.closes(1008, echo[:100])
        await played.has(events.Reconnecting, 2)
        played.stage.accepts_again()
        await played.delivers()
        shown = [repr(played.feed), repr(played.news), repr(played.feed.stats()), repr(played.alerts), caplog.text]
        shown += [repr(played.feed.health()), repr(played.feed.gaps())]
    assert not [secret for secret in secrets for text in shown if secret in text]


async def test_a_json_ping_of_polygons_is_answered() -> None:
    async with play("polygon") as played:
        await played.stage.says('[{"action":"ping","timestamp":1700000000000}]')
        pong = '{"action":"pong","timestamp":1700000000000}'
        await until(lambda: pong in played.stage.heard, "a pong")


async def test_an_array_of_polygons_may_hold_acks_and_data() -> None:
    async with play("polygon", symbols=["AAPL"]) as played:
        said = '{"ev":"status","status":"success","message":"subscribed to: T.MSFT"}'
        await played.stage.says(
            f'[{said},{{"ev":"T","sym":"AAPL","p":161.87,"s":300,"t":1651684192462,"q":4009402}},{said}]'
        )
        await until(lambda: played.feed.stats()["ticks"] == 1, "the trade between them")
        assert played.feed.prices["AAPL"]["last"] == 161.87
        assert not int(played.feed.prices["AAPL"]["flags"]) & Flag.AFTER_GAP


async def test_a_hole_in_cmes_numbers_doubts_every_contract_until_all_are_subscribed_anew() -> None:
    async with play("cme") as played:
        await played.delivers()
        feed, stage = played.feed, played.stage
        symbols = {symbol for _, symbol in played.wanted}
        assert len(symbols) > 1
        asked = len(stage.heard)
        stage.skips(1)
        await stage.plays(kind=QUOTE, symbol=min(symbols))
        await until(lambda: feed.gaps(), "a heartbeat to show the hole")
        assert [(*gap[:2], gap.missing) for gap in feed.gaps()] == [("", "", 1)]
        assert not any(feed.prices.is_fresh(symbol, 60.0) for symbol in symbols)
        await until(lambda: len(stage.heard) > asked, "subscriptions to be asked for")
        await until(lambda: set(feed.subscriptions.values()) == {"acked"}, "them to be answered")
        assert not any(feed.prices.is_fresh(symbol, 60.0) for symbol in symbols)
        await played.delivers()
        await until(lambda: all(feed.prices.is_fresh(symbol, 60.0) for symbol in symbols), "all to be fresh again")
        repaired = [event.gap for event in played.news if isinstance(event, events.GapRepaired)]
        assert {(gap.stream, gap.symbol) for gap in repaired} == {
            (channel, symbol) for channel in ("quote", "trade") for symbol in symbols
        }
        assert stage.dials == 1


async def test_a_hole_of_one_of_two_legs_of_cme_is_mended_too() -> None:
    async with play("cme", redundancy=2) as played:
        await played.delivers()
        feed, stage = played.feed, played.stage
        await until(lambda: len(stage.seated()) == 2, "both legs")
        symbols = {symbol for _, symbol in played.wanted}
        for seat in list(stage.seats.values())[:1]:
            seat.skip(1)
        await stage.plays(kind=QUOTE, symbol=min(symbols))
        await until(lambda: feed.gaps(), "the hole")
        await until(lambda: not any(feed.prices.is_fresh(symbol, 60.0) for symbol in symbols), "doubt")
        async with asyncio.timeout(PATIENCE):
            while not all(feed.prices.is_fresh(symbol, 60.0) for symbol in symbols):
                await played.plays()
                await asyncio.sleep(0.05)
        assert [alert for alert in played.alerts if "unrepaired" in alert["cause"]] == []
        assert stage.dials == 2


async def test_a_half_dead_session_that_holds_the_only_place_is_waited_out() -> None:
    async with play("tickdb", stage={"lingers": 0.5}) as played:
        await played.delivers()
        played.stage.cuts()
        await played.has(events.Disconnected, 2)  # turned away once: the dead one still counts
        await played.delivers()
        assert played.stage.dials <= 4


async def test_tiingos_number_of_a_subscription_is_named_by_what_adds_to_it_and_takes_from_it() -> None:
    async with play("tiingo-fx") as played:
        await played.delivers()
        gone, *left = played.stage.symbols
        played.feed.unsubscribe([gone])
        await until(lambda: played.stage.subscribed == {(QUOTE, symbol) for symbol in left}, "it to be left")
        played.feed.subscribe([gone])
        await played.delivers()
        assert len({orjson.loads(said)["eventData"].get("subscriptionId") for said in played.stage.heard[1:]}) == 1
        await played.stage.closes(1012)  # the next connection's number is another
        await played.delivers()
        played.feed.unsubscribe([gone])
        await until(lambda: played.stage.subscribed == {(QUOTE, symbol) for symbol in left}, "it to be left again")
        assert Subscription(gone, "quote") not in played.feed.subscriptions
        assert played.stage.dials == 2
