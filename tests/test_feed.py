"""The feed against a scripted exchange over real sockets: what is delivered, to whom, what survives a loss."""

import asyncio
import gc
import json
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from exchange import Exchange, ack, balances, depth, quote, trade, until

import fastfeed
from fastfeed import Backoff, ConfigError, Feed, GaveUp, Heartbeat, Status, Subscription, events, rest
from fastfeed.errors import ConnectError, StaleError, SubscriptionRejected
from fastfeed.streams import CALLBACK_ROWS, EVENTS_KEPT, Ending, Events, Readers, Stream

SWIFT = Backoff(base=0.02, cap=0.05)


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    async with Exchange() as running:
        yield running


def feed_of(exchange: Exchange, *symbols: str | Subscription, **options: Any) -> Feed:
    options.setdefault("backoff", SWIFT)
    return Feed("binance-usdm", symbols or ["BTCUSDT"], url=exchange.url, **options)


async def next_of(stream: Stream[Any]) -> Any:
    async with asyncio.timeout(10.0):
        return await anext(stream)


async def event_of(stream: Stream[Any], kind: type[Any]) -> Any:
    """The next event of one kind; the others are let pass."""
    async with asyncio.timeout(10.0):
        async for event in stream:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the events ended without {kind.__name__}")


# Coming up ----------------------------------------------------------------------------------------------------------


async def test_entering_returns_once_every_subscription_is_acked(exchange: Exchange) -> None:
    feed = feed_of(exchange, "BTCUSDT", "ETHUSDT")
    assert feed.state == "CONNECTING"
    async with feed:
        assert feed.state == "LIVE"
        assert set(feed.subscriptions.values()) == {"acked"}
        assert exchange.line.topics == ["btcusdt@bookTicker", "ethusdt@bookTicker"]
    assert feed.state == "CLOSED"


async def test_each_route_has_a_connection_of_its_own(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", channels=["quote", "trade", "mark", "depth"]):
        topics = {line.path: line.topics for line in exchange.lines}
    assert topics == {
        "/public/stream": ["btcusdt@bookTicker", "btcusdt@depth@100ms"],
        "/market/stream": ["btcusdt@aggTrade", "btcusdt@markPrice@1s"],
    }


async def test_streams_are_spread_by_the_providers_limit_and_asked_for_in_requests_it_takes(
    exchange: Exchange,
) -> None:
    symbols = [f"LONGSYMBOLNAME{i:03}USDT" for i in range(450)]
    async with feed_of(exchange, *symbols) as feed:
        assert [len(line.topics) for line in exchange.lines] == [150, 150, 150]
        assert sorted(topic for line in exchange.lines for topic in line.topics) == sorted(
            f"{symbol.lower()}@bookTicker" for symbol in symbols
        )
        assert all(len(json.dumps(request)) < 4500 for line in exchange.lines for request in line.requests)
        assert feed.stats()["connections"] == 3


async def test_a_rejected_subscription_is_told_and_the_others_live(exchange: Exchange) -> None:
    def answer(request: dict[str, Any]) -> str | None:
        if "badusdt@bookTicker" in request["params"]:
            return json.dumps({"error": {"code": 4, "msg": "no such thing"}, "id": request["id"]})
        return ack(request)

    exchange.answer = answer
    feed = feed_of(exchange, "BTCUSDT", "BADUSDT", "ETHUSDT")
    stream = feed.events()
    async with feed:
        rejected = await event_of(stream, events.Rejected)
        assert rejected == events.Rejected(Subscription("BADUSDT", "quote"), "no such thing (code 4)")
        await exchange.send(quote("BTCUSDT"), quote("ETHUSDT"))
        await feed.wait_live(["BTCUSDT", "ETHUSDT"])
        with pytest.raises(SubscriptionRejected, match=r"BADUSDT.*no such thing"):
            await feed.wait_live()


async def test_entering_raises_when_nothing_is_acked_in_time(exchange: Exchange) -> None:
    exchange.answer = lambda request: None
    message = rf"127\.0\.0\.1:{exchange.port}: 2 of 2 subscriptions not acked in 0\.3 s"
    with pytest.raises(ConnectError, match=message):
        async with feed_of(exchange, "BTCUSDT", "ETHUSDT", connect_timeout=0.3):
            pass
    await until(lambda: exchange.line.socket.close_code is not None, "the connection to be closed")


async def test_a_feed_is_entered_once(exchange: Exchange) -> None:
    feed = feed_of(exchange)
    async with feed:
        pass
    with pytest.raises(ConfigError, match="entered once"):
        await feed.__aenter__()


async def test_wait_live_returns_with_the_first_data_of_every_subscription(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT") as feed:
        waiting = asyncio.create_task(feed.wait_live())
        await exchange.send(quote("BTCUSDT"))
        await feed.wait_live(["btcusdt"])
        assert not waiting.done()
        await exchange.send(quote("ETHUSDT"))
        await asyncio.wait_for(waiting, 10.0)
        assert set(feed.subscriptions.values()) == {"live"}


async def test_wait_live_names_what_stays_silent(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT") as feed:
        await exchange.send(quote("BTCUSDT"))
        await feed.wait_live(["BTCUSDT"])
        with pytest.raises(StaleError, match=r"no data within 0\.1 s: ETHUSDT") as raised:
            await feed.wait_live(timeout=0.1)
        assert raised.value.symbols == ("ETHUSDT",)
        with pytest.raises(ConfigError, match=r"'SOLUSDT'.*BTCUSDT, ETHUSDT"):
            await feed.wait_live(["SOLUSDT"])


async def test_wait_live_may_be_narrowed_to_channels_that_never_rest(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", channels=["quote", "trade"]) as feed:
        [public] = [line for line in exchange.lines if line.path == "/public/stream"]
        await public.send(quote())
        await feed.wait_live(channels=["quote"])
        with pytest.raises(StaleError, match="BTCUSDT"):
            await feed.wait_live(channels=["agg_trade"], timeout=0.1)
        with pytest.raises(ConfigError, match="no channel 'nope'"):
            await feed.wait_live(channels=["nope"])


async def test_old_event_times_do_not_keep_a_symbol_from_being_live(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        await exchange.send(quote(event_ms=1_700_000_000_000))
        await feed.wait_live()
        assert not feed.prices.is_fresh("BTCUSDT", max_age=10.0), "live, but what comes is years late"


# Batches ------------------------------------------------------------------------------------------------------------


async def test_a_batch_holds_the_newest_row_of_each_symbol_that_changed(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT", "SOLUSDT") as feed:
        batches = feed.batches()
        await exchange.send(*(quote("BTCUSDT", n, bid=n) for n in range(1, 11)), quote("ETHUSDT", 1, bid=50.0))
        await feed.wait_live(["ETHUSDT"])
        batch = await next_of(batches)
        names = [feed.prices.symbols[number] for number in batch["symbol_id"]]
        assert sorted(names) == ["BTCUSDT", "ETHUSDT"]
        row = batch[names.index("BTCUSDT")]
        assert (row["bid"], row["ask"], row["seq"], row["conflated"]) == (10.0, 11.0, 10, 9)
        assert batch.dtype == fastfeed.PRICE_DTYPE
        assert batches.ledger() == {"received": 11, "delivered": 2, "conflated": 9, "dropped": 0, "pending": 0}


async def test_one_read_is_one_wake_up_however_many_messages_it_brings(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT") as feed:
        batches = feed.batches()
        calls: list[int] = []
        feed.on_batch(lambda rows: calls.append(len(rows)))
        exchange.line.send_together(*(quote(symbol, n) for n in range(1, 16) for symbol in ("BTCUSDT", "ETHUSDT")))
        batch = await next_of(batches)
        assert batch["conflated"].tolist() == [14, 14]
        assert calls == [2]


async def test_each_read_is_delivered_when_the_window_is_zero(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        batches = feed.batches()
        for n in range(1, 20):
            await exchange.send(quote(update=n, bid=n))
            assert (await next_of(batches))["bid"] == [n]


async def test_a_window_holds_the_next_batch_back_and_closing_lets_it_go(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        batches = feed.batches(window=3600.0)
        await exchange.send(quote(update=1, bid=1.0))
        assert (await next_of(batches))["bid"] == [1.0]
        await exchange.send(quote(update=2, bid=2.0), quote(update=3, bid=3.0))
        held = asyncio.create_task(next_of(batches))
        await until(lambda: feed.prices["BTCUSDT"]["seq"] == 3, "the third quote")
        assert not held.done()
    rest = await asyncio.wait_for(held, 10.0)
    assert (rest["bid"], rest["conflated"]) == ([3.0], [1])
    with pytest.raises(StopAsyncIteration):
        await next_of(batches)


async def test_rows_too_old_when_delivered_are_dropped_and_counted(exchange: Exchange) -> None:
    clock = fastfeed.Clock.manual()
    async with feed_of(exchange, clock=clock, heartbeat=Heartbeat(interval=None)) as feed:
        batches = feed.batches(max_age=2.0)
        await exchange.send(quote(update=1, bid=1.0))
        await until(lambda: feed.prices.updates == 1, "the first quote")
        clock.advance(3_000_000_000)
        await exchange.send(quote("BTCUSDT", update=2, bid=2.0))
        await until(lambda: feed.prices.updates == 2, "the second quote")
        assert (await next_of(batches))["bid"] == [2.0]
        await exchange.send(quote(update=3, bid=3.0))
        await until(lambda: feed.prices.updates == 3, "the third quote")
        clock.advance(3_000_000_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(batches), 0.05)
        assert batches.lost == 1
        assert balances(batches.ledger())


async def test_cancelling_a_wait_loses_nothing(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        ticks = feed.ticks()
        seen: list[int] = []
        for n in range(1, 30):
            waiting = asyncio.create_task(anext(ticks))
            await asyncio.sleep(0)
            waiting.cancel()
            await exchange.send(quote(update=n))
            with suppress(asyncio.CancelledError):
                seen += (await waiting)["seq"].tolist()
        while len(seen) < 29:
            seen += (await next_of(ticks))["seq"].tolist()
        assert seen == list(range(1, 30))


async def test_each_stream_has_a_cursor_and_a_ledger_of_its_own(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        early, idle = feed.batches(name="early"), feed.batches(name="idle", window=1.0)
        await exchange.send(quote(update=1), quote(update=2))
        await feed.wait_live()
        late = feed.ticks(name="late")
        await exchange.send(quote(update=3))
        await next_of(late)
        await next_of(early)
        consumers = feed.stats()["consumers"]
        assert set(consumers) == {"early", "idle", "late"}
        assert all(balances(ledger) for ledger in consumers.values())
        assert consumers["early"]["received"] == consumers["idle"]["received"] == 3
        assert consumers["late"]["received"] == 1
        assert consumers["idle"]["delivered"] == 0
        assert idle.name == "idle"


async def test_a_stream_is_gone_when_closed_or_forgotten(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        closed, forgotten = feed.batches(name="closed"), feed.ticks(name="forgotten")
        async with feed.events(name="left"):
            assert set(feed.stats()["consumers"]) == {"closed", "forgotten", "left"}
        waiting = asyncio.create_task(anext(closed, None))
        await asyncio.sleep(0)
        await closed.aclose()
        assert await asyncio.wait_for(waiting, 10.0) is None, "whoever waits is let go"
        del forgotten
        gc.collect()
        assert set(feed.stats()["consumers"]) <= {"closed", "left"}
        del closed
        await exchange.send(quote())
        await feed.wait_live()
        assert feed.stats()["ticks"] == 1


async def test_two_consumers_cannot_share_a_name(exchange: Exchange) -> None:
    feed = feed_of(exchange)
    batches = feed.batches(name="mine")
    with pytest.raises(ConfigError, match="name='mine' is taken"):
        feed.on_batch(lambda rows: None, name="mine")
    await batches.aclose()
    feed.on_batch(lambda rows: None, name="mine").cancel()
    feed.on_batch(lambda rows: None, name="mine")


# Ticks --------------------------------------------------------------------------------------------------------------


async def test_ticks_come_in_order_and_completely(exchange: Exchange) -> None:
    async with feed_of(exchange, channels=["quote"]) as feed:
        ticks = feed.ticks()
        await exchange.send(*(quote(update=n, bid=n) for n in range(1, 501)))
        seen: list[int] = []
        while len(seen) < 500:
            read = await next_of(ticks)
            assert read.dtype == fastfeed.TICK_DTYPE
            seen += read["seq"].tolist()
        assert seen == list(range(1, 501))
        assert ticks.lost == 0


async def test_a_reader_that_is_lapped_counts_what_it_lost(exchange: Exchange) -> None:
    async with feed_of(exchange, ring_capacity=16) as feed:
        ticks = feed.ticks()
        await exchange.send(*(quote(update=n) for n in range(1, 101)))
        await until(lambda: feed.prices.updates == 100, "a hundred quotes")
        seen = await next_of(ticks)
        assert seen["seq"][-1] == 100
        assert ticks.lost == 100 - len(seen) > 0
        assert balances(ticks.ledger())


# Callbacks ----------------------------------------------------------------------------------------------------------


async def test_a_callback_is_called_in_the_read_with_a_borrowed_array(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT") as feed:
        calls: list[tuple[list[float], int]] = []
        handle = feed.on_batch(
            lambda rows: calls.append((rows["bid"].tolist(), rows.__array_interface__["data"][0])), name="mine"
        )
        await exchange.send(quote("BTCUSDT", 1, bid=7.0))
        await until(lambda: calls, "a call")
        await exchange.send(quote("ETHUSDT", 1, bid=8.0))
        await until(lambda: len(calls) == 2, "a second call")
        assert [bids for bids, _ in calls] == [[7.0], [8.0]]
        assert calls[0][1] == calls[1][1], "the same memory each time"
        assert feed.stats()["consumers"]["mine"]["delivered"] == 2
        handle.cancel()
        handle.cancel()
        await exchange.send(quote("BTCUSDT", 2))
        await until(lambda: feed.prices.updates == 3, "a third quote")
        assert len(calls) == 2
        assert "mine" not in feed.stats()["consumers"]


async def test_a_callback_sees_every_changed_symbol_however_many(exchange: Exchange) -> None:
    symbols = [f"S{n}USDT" for n in range(CALLBACK_ROWS + 200)]
    async with feed_of(exchange, *symbols) as feed:
        seen: set[int] = set()
        feed.on_batch(lambda rows: seen.update(rows["symbol_id"].tolist()))
        for symbol in symbols:
            feed.decoder.decode(quote(symbol).encode())
        await exchange.send(quote(symbols[0], 2))
        await until(lambda: len(seen) == len(symbols), "all symbols")


async def test_a_callback_that_raises_is_told_and_the_feed_goes_on(
    exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    async with feed_of(exchange) as feed:
        stream = feed.events()
        good: list[float] = []

        def bad(rows: np.ndarray) -> None:
            raise ValueError("mine")

        feed.on_batch(bad, name="bad")
        feed.on_batch(lambda rows: good.extend(rows["bid"].tolist()))
        for n in range(1, 4):
            await exchange.send(quote(update=n, bid=n))
            await until(lambda n=n: good[-1:] == [n], f"quote {n}")
        assert await event_of(stream, events.CallbackFailed) == events.CallbackFailed("bad", "ValueError: mine")
        assert feed.stats()["callbacks_failed"] == 3
        assert len([record for record in caplog.records if record.exc_info]) == 1, "one traceback is enough"


async def test_a_callback_may_cancel_itself_and_close_the_feed(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        calls = []
        closing = []

        def once(rows: np.ndarray) -> None:
            calls.append(len(rows))
            handle.cancel()
            closing.append(asyncio.ensure_future(feed.close()))

        handle = feed.on_batch(once)
        await exchange.send(quote(update=1), quote(update=2))
        await until(lambda: closing, "the callback")
        await closing[0]
        assert calls == [1]
        assert feed.state == "CLOSED"


@pytest.mark.parametrize("callback", [None, 7, "print"])
def test_a_callback_must_be_a_function(callback: Any) -> None:
    feed = Feed("binance-usdm", ["BTCUSDT"])
    with pytest.raises(ConfigError, match="plain function"):
        feed.on_batch(callback)


def test_a_coroutine_function_is_no_callback() -> None:
    async def mine(rows: np.ndarray) -> None: ...

    with pytest.raises(ConfigError, match=r"plain function.*use batches\(\)"):
        Feed("binance-usdm", ["BTCUSDT"]).on_batch(mine)


# Events -------------------------------------------------------------------------------------------------------------


async def test_an_event_stream_read_too_slowly_says_how_many_it_lost() -> None:
    ending = Ending()
    readers = Readers(lambda: 0.0, lambda *_: None)
    stream = readers.keep(Events("slow", ending))
    for n in range(EVENTS_KEPT + 10):
        readers.tell(events.Alert("info", str(n)))
    assert await next_of(stream) == events.EventsLost(10)
    assert await next_of(stream) == events.Alert("info", "10")
    assert stream.lost == 10
    assert balances(stream.ledger())


@pytest.mark.parametrize("fetches", [True, False])
async def test_a_gap_is_told_and_stays_in_the_record(
    exchange: Exchange, fetches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is in the very first messages, which make the stream live."""
    monkeypatch.setattr(rest, "is_possible", lambda: fetches)
    async with feed_of(exchange, channels=["trade"]) as feed:
        stream = feed.events()
        await exchange.send(trade(number=1), trade(number=2), trade(number=5))
        gap = (await event_of(stream, events.Gap)).gap
        assert (gap.symbol, gap.stream, gap.first, gap.last, gap.missing) == ("BTCUSDT", "trade", 3, 4, 2)
        assert list(feed.gaps()) == [gap]
        await until(lambda: len(exchange.line.requests) == 3, "the stream to be asked for anew")
        assert not feed.prices.is_fresh("BTCUSDT", max_age=10.0)
        await exchange.send(trade(number=6))
        await until(lambda: feed.prices.is_fresh("BTCUSDT", max_age=10.0), "the row to be mended by the next trade")


async def test_a_full_table_refuses_symbols_and_says_so(exchange: Exchange) -> None:
    async with feed_of(exchange, max_symbols=1) as feed:
        stream = feed.events()
        await exchange.send(quote("BTCUSDT"), quote("ETHUSDT"), quote("SOLUSDT"))
        alert = await event_of(stream, events.Alert)
        assert "full" in alert.cause
        assert "max_symbols" in alert.hint
        assert feed.stats()["refused_symbols"] == 2
        with pytest.raises(ConfigError, match="max_symbols"):
            feed.subscribe(["ETHUSDT"])
        assert Subscription("ETHUSDT", "quote") not in feed.subscriptions
        assert feed.prices["BTCUSDT"]["bid"] == 1.0


# The end ------------------------------------------------------------------------------------------------------------


async def test_closing_ends_every_stream_after_what_is_pending(exchange: Exchange) -> None:
    feed = feed_of(exchange)
    async with feed:
        streams = [feed.batches(), feed.ticks(), feed.events()]
        idle = asyncio.create_task(anext(feed.batches(), "ended"))
        await exchange.send(quote(bid=5.0))
        await feed.wait_live()
        assert (await asyncio.wait_for(idle, 10.0))["bid"] == [5.0]
        waiting = asyncio.create_task(anext(feed.ticks(), "ended"))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(waiting, 10.0) == "ended"
    batches, ticks, told = streams
    assert [batch["bid"].tolist() async for batch in batches] == [[5.0]]
    assert [len(tick) async for tick in ticks] == [1]
    assert [event async for event in told] == []
    assert feed.prices["BTCUSDT"]["status"] == Status.CLOSED
    assert not feed.prices.is_fresh("BTCUSDT", max_age=10.0)


async def test_what_a_closed_feed_counted_stays(exchange: Exchange) -> None:
    async with feed_of(exchange, channels=["trade"]) as feed:
        told = feed.events()
        batches = feed.batches(name="batches")
        handle = feed.on_batch(lambda rows: None, name="callback")
        await exchange.send(trade(number=1), trade(number=5))
        await until(lambda: feed.prices.updates == 2, "two trades")
    consumers = feed.stats()["consumers"]
    assert consumers["batches"] == batches.ledger()
    assert consumers["callback"] == handle.ledger()
    assert consumers["callback"]["delivered"] > 0
    assert [event.gap.missing async for event in told if isinstance(event, events.Gap)] == [3], (
        "found in the last moment"
    )


async def test_closing_twice_or_at_the_same_time_is_harmless(exchange: Exchange) -> None:
    feed = feed_of(exchange)
    async with feed:
        await asyncio.gather(feed.close(), feed.close())
        await feed.close()
    await feed.close()
    assert exchange.line.socket.close_code == 1000
    with pytest.raises(ConfigError, match="closed"):
        feed.subscribe(["ETHUSDT"])
    with pytest.raises(ConfigError, match="closed"):
        await feed.wait_live()


async def test_a_feed_that_was_never_entered_may_be_closed(exchange: Exchange) -> None:
    feed = feed_of(exchange)
    await feed.close()
    assert feed.state == "CLOSED"
    assert exchange.dials == 0


async def test_closing_does_not_wait_longer_than_it_may_for_a_mute_exchange(exchange: Exchange) -> None:
    async with feed_of(exchange, close_timeout=0.1) as feed:
        exchange.line.freeze()
        async with asyncio.timeout(5.0):
            await feed.close()


async def test_a_terminal_failure_is_raised_wherever_somebody_waits(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT", backoff=Backoff(base=0.01, max_retries=2)) as feed:
        batches, ticks, told = feed.batches(), feed.ticks(), feed.events()
        waits = [asyncio.create_task(anext(feed.batches())), asyncio.create_task(feed.wait_live(timeout=30.0))]
        exchange.status = 503
        exchange.cut()
        for task in waits:
            with pytest.raises(GaveUp, match="HTTP 503"):
                await asyncio.wait_for(task, 10.0)
        for stream in (batches, ticks):
            for _ in range(2):
                with pytest.raises(GaveUp):
                    await next_of(stream)
        with pytest.raises(GaveUp) as raised:
            await event_of(told, type(None))
        assert isinstance(raised.value.__cause__, fastfeed.HandshakeError)
        assert raised.value.attempts == 3
        assert feed.state == "FAILED"
        assert exchange.dials == 1 + 2
        assert not feed.prices.is_fresh("BTCUSDT", max_age=60.0)


# Losing a connection ------------------------------------------------------------------------------------------------


async def test_a_lost_connection_is_redialled_and_everything_subscribed_again(exchange: Exchange) -> None:
    wishes = [
        Subscription("BTCUSDT", "quote"),
        Subscription("BTCUSDT", "depth", speed="500ms"),
        Subscription("ETHUSDT", "depth"),
    ]
    async with feed_of(exchange, *wishes) as feed:
        stream = feed.events()
        await exchange.send(quote("BTCUSDT"), depth("BTCUSDT", 0, 1), depth("ETHUSDT", 0, 1))
        await feed.wait_live()
        before = exchange.line.topics
        exchange.cut()
        lost = await event_of(stream, events.Disconnected)
        assert lost.code == 1006
        assert feed.prices["BTCUSDT"]["status"] == Status.RECOVERING
        assert not feed.prices.is_fresh("BTCUSDT", max_age=60.0)
        assert feed.state in ("WAITING", "RECOVERING")
        await exchange.has_lines(2)
        assert exchange.line.topics == before
        await exchange.send(quote("BTCUSDT", 2), depth("BTCUSDT", 1, 2), depth("ETHUSDT", 1, 2))
        restored = await event_of(stream, events.Restored)
        assert restored.missing == ()
        assert feed.state == "LIVE"
        assert feed.prices["BTCUSDT"]["status"] == Status.LIVE
        assert feed.stats()["reconnects"] == 1


async def test_a_reconnect_stays_counted_when_its_connection_is_not_needed_any_more(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT") as feed:
        stream = feed.events()
        await exchange.send(quote())
        await feed.wait_live()
        exchange.cut()
        await exchange.has_lines(2)
        await exchange.send(quote("BTCUSDT", 2))
        await event_of(stream, events.Restored)
        feed.unsubscribe(["BTCUSDT"])
        assert feed.health()["reconnects"] == feed.stats()["reconnects"] == 1


async def test_data_from_before_a_loss_does_not_count_as_delivered_after_it(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT") as feed:
        await exchange.send(quote("BTCUSDT"), quote("ETHUSDT"))
        await feed.wait_live()
        exchange.cut()
        await exchange.has_lines(2)
        await until(lambda: feed.state == "RECOVERING", "the feed to be connected again")
        await exchange.send(quote("BTCUSDT", 2))
        await feed.wait_live(["BTCUSDT"])
        with pytest.raises(StaleError, match="ETHUSDT"):
            await feed.wait_live(timeout=0.1)


async def test_streams_and_prices_survive_a_redial_with_unread_data_intact(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        ticks, batches, prices = feed.ticks(), feed.batches(), feed.prices.array
        await exchange.send(quote(update=1), quote(update=2))
        await feed.wait_live()
        exchange.cut()
        await exchange.has_lines(2)
        await exchange.send(quote(update=3, bid=9.0))
        await until(lambda: feed.prices.updates == 3, "the third quote")
        assert (await next_of(ticks))["seq"].tolist() == [1, 2, 3]
        assert (await next_of(batches))["conflated"].tolist() == [2]
        assert prices["bid"].tolist() == [9.0], "the same view"


async def test_one_lost_route_leaves_the_other_alone(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", channels=["quote", "trade"]) as feed:
        stream = feed.events()
        [public, market] = sorted(exchange.lines, key=lambda line: line.path, reverse=True)
        assert market.path == "/market/stream"
        await public.send(quote())
        await market.send(trade(number=1))
        await feed.wait_live()
        market.socket.transport.abort()
        assert (await event_of(stream, events.Disconnected)).connection.startswith("/market/stream")
        await public.send(quote(update=2))
        await until(lambda: feed.prices["BTCUSDT"]["quote_seq"] == 2, "a quote")
        assert not feed.prices.is_fresh("BTCUSDT", max_age=60.0), "its trades are lost"
        assert feed.prices.is_fresh("BTCUSDT", max_age=60.0, channel="quote")
        await exchange.has_lines(3)
        assert exchange.line.path == "/market/stream"
        await exchange.send(trade(number=2))
        await event_of(stream, events.Restored)
        assert feed.prices.is_fresh("BTCUSDT", max_age=60.0)
        assert public.socket.close_code is None


async def test_an_announced_shutdown_moves_to_a_new_connection_and_nothing_goes_stale(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        await exchange.send(quote())
        await feed.wait_live()
        stream = feed.events()
        await exchange.send('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}')
        await exchange.has_lines(2)
        await exchange.send(quote(update=2))
        assert (await event_of(stream, events.Rotated)).connection == "/public/stream#0"
        await until(lambda: exchange.lines[0].socket.close_code == 1000, "the old connection to be closed")
        assert feed.prices["BTCUSDT"]["status"] == Status.LIVE
        assert feed.stats()["reconnects"] == 0


async def test_an_announced_shutdown_is_a_redial_where_rotation_is_off(exchange: Exchange) -> None:
    async with feed_of(exchange, rotation=None, backoff=Backoff(base=60.0, cap=60.0, stable_after=0.0)) as feed:
        await exchange.send(quote())
        await feed.wait_live()
        await exchange.send('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}')
        await exchange.has_lines(2)
        assert exchange.lines[0].socket.close_code == 1000


async def test_an_exchange_that_stops_answering_pings_is_left(exchange: Exchange) -> None:
    async with feed_of(exchange, heartbeat=Heartbeat(interval=0.05, timeout=0.1)) as feed:
        stream = feed.events()
        await until(lambda: not math.isnan(feed.stats()["rtt_ms"]["p50"]), "a round trip")
        assert feed.stats()["rtt_ms"]["p50"] > 0
        exchange.line.freeze()
        assert "no pong" in (await event_of(stream, events.Disconnected)).cause
        await exchange.has_lines(2)


async def test_a_close_with_a_code_is_told_with_what_it_means(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        stream = feed.events()
        await exchange.line.socket.close(1012, "maintenance")
        lost = await event_of(stream, events.Disconnected)
        assert (lost.code, lost.reason) == (1012, "maintenance")
        await exchange.has_lines(2)


async def test_a_message_too_long_closes_the_connection_and_the_next_one_goes_on(
    exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    async with feed_of(exchange, max_message=4096) as feed:
        stream = feed.events()
        await exchange.send(quote("BTCUSDT")[:-2] + f',"x":"{"x" * 5000}"}}}}')
        assert (await event_of(stream, events.Disconnected)).code == 1009
        await exchange.has_lines(2)
        await exchange.send(quote("BTCUSDT", 2, bid=3.0))
        await feed.wait_live()
        assert feed.prices["BTCUSDT"]["bid"] == 3.0
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_an_exchange_that_accepts_and_drops_is_outlasted(exchange: Exchange) -> None:
    async with feed_of(exchange, connect_timeout=20.0) as feed:
        for turn in range(2, 8):
            exchange.cut()
            await exchange.has_lines(turn)
        await exchange.send(quote())
        await feed.wait_live()
        assert feed.stats()["dials"] == 7


# Changing one's mind ------------------------------------------------------------------------------------------------


async def test_subscribing_and_unsubscribing_while_live(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT") as feed:
        feed.subscribe(["ETHUSDT", Subscription("SOLUSDT", "depth")])
        await until(lambda: len(exchange.line.topics) == 3, "the new topics")
        await exchange.send(quote("ETHUSDT"), depth("SOLUSDT", 0, 1))
        await feed.wait_live(["ETHUSDT", "SOLUSDT"])
        feed.unsubscribe(["BTCUSDT"])
        await until(lambda: exchange.line.topics == ["ethusdt@bookTicker", "solusdt@depth@100ms"], "one topic less")
        assert feed.prices["BTCUSDT"]["status"] == Status.CLOSED
        with pytest.raises(ConfigError, match="not subscribed"):
            feed.unsubscribe(["BTCUSDT"])
        await feed.wait_live()


async def test_a_channel_on_another_route_opens_a_connection_and_leaving_closes_it(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT") as feed:
        feed.subscribe(["BTCUSDT"], channels=["trade"])
        await exchange.has_lines(2)
        assert exchange.line.path == "/market/stream"
        feed.unsubscribe(["BTCUSDT"], channels=["trade"])
        await until(lambda: exchange.line.socket.close_code == 1000, "the empty connection to be closed")
        assert feed.state == "LIVE"
        assert list(feed.subscriptions) == [Subscription("BTCUSDT", "quote")]


async def test_wishes_made_while_disconnected_are_sent_on_return(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT", backoff=Backoff(base=0.2, cap=0.2)) as feed:
        stream = feed.events()
        exchange.cut()
        await event_of(stream, events.Disconnected)
        feed.subscribe(["SOLUSDT"])
        feed.unsubscribe(["BTCUSDT"])
        await exchange.has_lines(2)
        assert exchange.line.topics == ["ethusdt@bookTicker", "solusdt@bookTicker"]


async def test_wishing_for_what_is_there_changes_nothing(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT") as feed:
        feed.subscribe(["btcusdt", "BTCUSDT"])
        await exchange.send(quote())
        await feed.wait_live()
        assert len(exchange.line.requests) == 1


# Reporting ----------------------------------------------------------------------------------------------------------


async def test_the_books_balance_and_everything_received_is_counted(exchange: Exchange) -> None:
    async with feed_of(exchange) as feed:
        batches, ticks = feed.batches(), feed.ticks()
        await exchange.send(quote(update=1), '{"e":"kline"}', "nonsense", quote(update=2))
        await feed.wait_live()
        await until(lambda: feed.stats()["frames"] == 5, "all frames")
        stats = feed.stats()
        assert stats["frames"] == stats["data"] + stats["control"] + stats["unknown"] + stats["malformed"]
        assert (stats["data"], stats["control"], stats["unknown"], stats["malformed"]) == (2, 1, 1, 1)
        assert stats["bytes"] >= len(quote()) * 2
        assert stats["dials"] == 1
        assert all(balances(ledger) for ledger in stats["consumers"].values())
        assert len(stats["consumers"]) == 2
        assert batches.ledger()["received"] == ticks.ledger()["received"] == 2


async def test_the_repr_tells_how_the_feed_stands(exchange: Exchange) -> None:
    feed = feed_of(exchange, "BTCUSDT", "ETHUSDT")
    assert repr(feed) == "<Feed binance-usdm CONNECTING, 0/2 symbols live, 0 stale, 0 gaps, lag nan ms>"
    async with feed:
        await exchange.send(quote("BTCUSDT"))
        await feed.wait_live(["BTCUSDT"])
        assert repr(feed) == "<Feed binance-usdm LIVE, 1/2 symbols live, 0 stale, 0 gaps, lag nan ms>"
    assert "CLOSED, 0/2" in repr(feed)
