"""The symbol "*": a stream of everything a provider has, bounded by the user, its rows as honest as any other."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from exchange import Exchange, quote, until
from test_feed import SWIFT, event_of
from test_silence import keep_sending

from fastfeed import ConfigError, Feed, Staleness, Status, Subscription, events, providers, staleness


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    async with Exchange() as running:
        yield running


def market(exchange: Exchange, *symbols: str, **options: object) -> Feed:
    options = {"backoff": SWIFT, "max_symbols": 100, **options}
    return Feed("binance-usdm", symbols or ["*"], url=exchange.url, **options)  # type: ignore[arg-type]


def status(feed: Feed, symbol: str) -> Status:
    return Status(int(feed.prices[symbol]["status"]))


def test_a_whole_market_needs_a_bound_or_a_word_that_none_is_wanted() -> None:
    with pytest.raises(ConfigError, match=r"'\*'.*max_symbols=.*whole_market_unbounded=True"):
        Feed("binance-usdm", ["*"])
    Feed("binance-usdm", ["*"], max_symbols=500)
    Feed("binance-usdm", ["BTCUSDT"])


def test_a_channel_without_such_a_stream_says_which_have_one() -> None:
    usdm = providers.provider("binance-usdm")
    with pytest.raises(ConfigError, match=r"'depth' has no stream of all symbols .*'quote', 'mark'"):
        usdm.subscription(Subscription("*", "depth"))
    with pytest.raises(ConfigError, match="no channel has"):
        providers.provider("binance-spot").subscription(Subscription("*", "quote"))
    assert usdm.topic(usdm.subscription(Subscription("*", "mark", speed="3s"))) == "!markPrice@arr"


async def test_an_unbounded_market_is_warned_of_once(exchange: Exchange, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fastfeed"):
        async with market(exchange, max_symbols=None, whole_market_unbounded=True):
            pass
    assert [r.getMessage() for r in caplog.records if "whole_market_unbounded" in r.getMessage()] == [
        "binance-usdm: nobody knows how many symbols will come (whole_market_unbounded=True)"
    ]


async def test_symbols_come_up_as_they_deliver_and_are_fresh_by_their_own_data(exchange: Exchange) -> None:
    async with market(exchange) as feed:
        assert exchange.line.topics == ["!bookTicker"]
        assert not feed.prices.is_fresh("*", max_age=60)
        await exchange.send(quote("BTCUSDT"), quote("ETHUSDT"))
        await feed.wait_live()
        assert list(feed.prices.symbols) == ["BTCUSDT", "ETHUSDT"]
        assert feed.prices.is_fresh("BTCUSDT", max_age=60)
        assert "2/2 symbols live" in repr(feed)


async def test_symbols_beyond_the_bound_are_refused_and_told(exchange: Exchange) -> None:
    async with market(exchange, max_symbols=2) as feed:
        told = feed.events()
        await exchange.send(*(quote(f"S{number}") for number in range(4)))
        alert = await event_of(told, events.Alert)
        assert "the table is full" in alert.cause
        assert len(feed.prices) == 2
        assert feed.stats()["refused_symbols"] == 2


async def test_with_two_whole_channels_a_row_needs_both(exchange: Exchange) -> None:
    async with market(exchange, channels=["quote", "mark"]) as feed:
        line = next(line for line in exchange.lines if line.path.startswith("/public"))
        await line.send(quote("BTCUSDT"))
        await until(lambda: "BTCUSDT" in feed.prices, "the row")
        await asyncio.sleep(0.2)  # a sweep has seen it
        assert feed.prices.is_fresh("BTCUSDT", max_age=60), "marks are no prices"


async def test_after_a_loss_no_row_is_fresh_before_it_delivers_again(exchange: Exchange) -> None:
    async with market(exchange) as feed:
        await exchange.send(quote("BTCUSDT"), quote("ETHUSDT"))
        await feed.wait_live()
        await exchange.line.socket.close(1001)
        await exchange.has_lines(2)
        assert status(feed, "ETHUSDT") is Status.RECOVERING
        assert not feed.prices.is_fresh("ETHUSDT", max_age=60)
        await until(lambda: exchange.lines[1].topics == ["!bookTicker"], "the subscription to be asked for again")
        await exchange.send(quote("BTCUSDT", 2))
        await until(lambda: feed.prices.is_fresh("BTCUSDT", max_age=60), "the first of them")
        assert status(feed, "BTCUSDT") is Status.LIVE
        assert not feed.prices.is_fresh("ETHUSDT", max_age=60)


async def test_one_silent_symbol_of_many_becomes_stale_and_nothing_else_is_disturbed(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staleness, "PATIENCE", 0.2)
    async with market(exchange, staleness=Staleness(threshold=0.3)) as feed:
        told = feed.events()
        await exchange.send(quote("DEADUSDT"))
        sending = asyncio.create_task(
            keep_sending(exchange.line, *(lambda number, name=name: quote(name, number) for name in ("A", "B", "C")))
        )
        stale = await event_of(told, events.Stale)
        assert stale.symbols == ("DEADUSDT",)
        assert status(feed, "DEADUSDT") is Status.STALE
        assert feed.prices.is_fresh("A", max_age=0.3)
        assert exchange.dials == 1
        assert len(exchange.line.requests) == 1, "the others' stream is not asked for again"
        await exchange.send(quote("DEADUSDT", 2))
        fresh = await event_of(told, events.Fresh)
        assert fresh.symbols == ("DEADUSDT",)
        sending.cancel()


async def test_a_whole_market_that_falls_silent_is_asked_for_again_and_then_dialled_for(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staleness, "PATIENCE", 0.2)
    async with market(exchange, staleness=Staleness(threshold=0.3)) as feed:
        told = feed.events()
        await exchange.send(*(quote(name) for name in ("A", "B", "C")))
        steps = [(await event_of(told, events.Escalated)).step for _ in range(3)]
        assert steps == ["probe", "resubscribe all", "redial"]
        assert [request["method"] for request in exchange.lines[0].requests] == [
            "SUBSCRIBE",
            "UNSUBSCRIBE",
            "SUBSCRIBE",
        ]


async def test_leaving_a_whole_market_closes_its_rows(exchange: Exchange) -> None:
    async with market(exchange, "*", "KEPTUSDT", channels=["quote"]) as feed:
        await exchange.send(quote("BTCUSDT"), quote("KEPTUSDT"))
        await feed.wait_live()
        feed.unsubscribe(["*"])
        assert status(feed, "BTCUSDT") is Status.CLOSED
        assert not feed.prices.is_fresh("BTCUSDT", max_age=60)
        assert feed.prices.is_fresh("KEPTUSDT", max_age=60)
