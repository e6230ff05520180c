"""The feed when data stops without a word, over real sockets: who notices, what is tried, what rows and alerts say."""

import asyncio
import itertools
import logging
import math
import ssl
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from exchange import PEM, Exchange, Line, quote, trade, until
from test_feed import event_of, feed_of

from fastfeed import Backoff, ConfigError, Feed, Period, Staleness, Status, events, staleness
from fastfeed.staleness import Cause

THRESHOLD = Staleness(threshold=0.3)
NEVER = Period(start=datetime(2000, 1, 1, tzinfo=UTC), end=datetime(2000, 1, 2, tzinfo=UTC))


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    async with Exchange() as running:
        yield running


async def keep_sending(line: Line, *messages: Callable[[int], str]) -> None:
    """Send until cancelled, each time with the next number: a repeat is no news."""
    for number in itertools.count(2):
        await line.send(*(message(number) for message in messages))
        await asyncio.sleep(0.02)


def btc(number: int) -> str:
    return quote("BTCUSDT", number)


def eth(number: int) -> str:
    return quote("ETHUSDT", number)


def status(feed: Any, symbol: str) -> Status:
    return Status(int(feed.prices[symbol]["status"]))


async def test_a_mute_socket_that_answers_pings_is_found_tried_and_dialled_for(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staleness, "PATIENCE", 0.2)
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT", staleness=THRESHOLD) as feed:
        told = feed.events()
        await exchange.send(quote("BTCUSDT"), quote("ETHUSDT"))
        await feed.wait_live()
        steps = [await event_of(told, events.Escalated) for _ in range(3)]
        assert [(step.step, step.cause) for step in steps] == [
            ("probe", Cause.MANY_SILENT),
            ("resubscribe all", Cause.PONG_AND_SILENCE),
            ("redial", Cause.STILL_SILENT),
        ]
        assert status(feed, "BTCUSDT") in (Status.STALE, Status.RECOVERING)
        assert [request["method"] for request in exchange.lines[0].requests] == [
            "SUBSCRIBE",
            "UNSUBSCRIBE",
            "SUBSCRIBE",
        ]
        await exchange.has_lines(2)
        sending = asyncio.create_task(keep_sending(exchange.line, btc, eth))
        fresh = await event_of(told, events.Fresh)
        assert set(fresh.symbols) <= {"BTCUSDT", "ETHUSDT"}
        await until(lambda: status(feed, "BTCUSDT") == status(feed, "ETHUSDT") == Status.LIVE, "both rows to be live")
        sending.cancel()


async def test_one_dead_subscription_is_found_while_the_others_flow(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staleness, "PATIENCE", 0.2)
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT", "SOLUSDT", staleness=THRESHOLD) as feed:
        told = feed.events()
        await exchange.send(quote("SOLUSDT"))
        sending = asyncio.create_task(keep_sending(exchange.line, btc, eth))
        await feed.wait_live()
        step = await event_of(told, events.Escalated)
        assert (step.step, step.cause) == ("resubscribe", Cause.SYMBOL_SILENT)
        assert [wish.symbol for wish in step.subscriptions] == ["SOLUSDT"]
        stale = await event_of(told, events.Stale)
        assert (stale.symbols, stale.channel) == (("SOLUSDT",), "quote")
        assert status(feed, "SOLUSDT") is Status.STALE
        assert not feed.prices.is_fresh("SOLUSDT", max_age=3600.0)
        assert feed.prices.is_fresh("BTCUSDT", max_age=60.0)
        await exchange.send(quote("SOLUSDT", 2))
        assert (await event_of(told, events.Fresh)).symbols == ("SOLUSDT",)
        assert feed.prices.is_fresh("SOLUSDT", max_age=60.0)
        assert len(exchange.lines) == 1
        sending.cancel()


async def test_trades_that_flow_do_not_keep_a_dead_quote_alive(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", channels=["quote", "trade"], staleness=THRESHOLD) as feed:
        lines = {line.path: line for line in exchange.lines}
        await lines["/public/stream"].send(quote())
        sending = asyncio.create_task(keep_sending(lines["/market/stream"], lambda number: trade(number=number)))
        await feed.wait_live()
        await until(lambda: status(feed, "BTCUSDT") in (Status.SUSPECT, Status.STALE), "the row to be suspect")
        assert not feed.prices.is_fresh("BTCUSDT", max_age=0.3)
        sending.cancel()


async def test_where_the_market_is_closed_silence_is_quiet(exchange: Exchange) -> None:
    options = Staleness(threshold=0.2, hours=NEVER)
    async with feed_of(exchange, staleness=options) as feed:
        told = feed.events()
        await exchange.send(quote())
        await feed.wait_live()
        await until(lambda: status(feed, "BTCUSDT") is Status.QUIET, "the row to be quiet")
        assert feed.prices.is_fresh("BTCUSDT", max_age=60.0)
        assert told.ledger()["received"] == 0, "nothing is tried, nothing is told"


async def test_who_stays_silent_after_the_opening_is_found(exchange: Exchange) -> None:
    class Opening:
        """A market that opens when told."""

        is_open = False

        def covers(self, utc: float) -> bool:
            return self.is_open

    hours = Opening()
    async with feed_of(exchange, staleness=Staleness(threshold=0.2, hours=hours)) as feed:
        told = feed.events()
        await exchange.send(quote())
        await feed.wait_live()
        await until(lambda: status(feed, "BTCUSDT") is Status.QUIET, "the row to be quiet")
        hours.is_open = True
        assert (await event_of(told, events.Escalated)).step == "probe"


# Alerts -------------------------------------------------------------------------------------------------------------


async def test_an_alert_is_ready_for_a_webhook(exchange: Exchange) -> None:
    alerts: list[dict[str, Any]] = []
    async with feed_of(exchange, staleness=THRESHOLD, on_alert=alerts.append) as feed:
        await exchange.send(quote())
        await feed.wait_live()
        await until(lambda: alerts, "an alert")
        assert list(alerts[0]) == ["severity", "cause", "feed", "since", "hint"]
        assert alerts[0]["severity"] == "warning"
        assert alerts[0]["cause"] == "quote of BTCUSDT is stale: pong-and-silence"
        assert alerts[0]["feed"] == "binance-usdm"
        assert abs(alerts[0]["since"] - time.time()) < 60


async def test_an_alert_callback_that_raises_is_survived(exchange: Exchange, caplog: pytest.LogCaptureFixture) -> None:
    def fail(alert: dict[str, Any]) -> None:
        raise ValueError("no")

    async with feed_of(exchange, staleness=THRESHOLD, on_alert=fail) as feed:
        await exchange.send(quote())
        await feed.wait_live()
        await until(lambda: "on_alert failed" in caplog.text, "the failure to be logged")
        assert feed.state == "LIVE"


async def test_an_alert_callback_may_unsubscribe_what_is_stale(exchange: Exchange) -> None:
    def unsubscribe(alert: dict[str, Any]) -> None:
        feed.unsubscribe(["BTCUSDT"])

    async with feed_of(exchange, "BTCUSDT", "ETHUSDT", staleness=THRESHOLD, on_alert=unsubscribe) as feed:
        await exchange.send(quote("BTCUSDT"), quote("ETHUSDT"))
        await feed.wait_live()
        await until(lambda: len(feed.subscriptions) == 1, "the subscription to be gone")
        await until(lambda: status(feed, "ETHUSDT") is Status.STALE, "the other to be stale")
        assert status(feed, "BTCUSDT") is Status.CLOSED


async def test_maintenance_mutes_alerts_and_nothing_else(exchange: Exchange) -> None:
    alerts: list[dict[str, Any]] = []
    forever = Period(start=NEVER.start, end=NEVER.start.replace(year=2100))
    options = Staleness(threshold=0.2, maintenance=(forever,))
    async with feed_of(exchange, staleness=options, on_alert=alerts.append) as feed:
        told = feed.events()
        await exchange.send(quote())
        await feed.wait_live()
        await event_of(told, events.Stale)
        assert status(feed, "BTCUSDT") is Status.STALE
        assert alerts == []


async def test_a_slow_callback_is_named_as_the_cause_of_a_stall(exchange: Exchange) -> None:
    alerts: list[dict[str, Any]] = []
    async with feed_of(exchange, on_alert=alerts.append) as feed:
        await exchange.send(quote())
        await feed.wait_live()
        feed.on_batch(lambda rows: time.sleep(0.8), name="strategy")
        await exchange.send(quote(update=2))
        await until(lambda: alerts, "an alert")
        assert "the event loop stood still" in alerts[0]["cause"]
        assert "on_batch callback strategy took 0.8" in alerts[0]["cause"]


async def test_what_waited_behind_a_stall_without_a_time_of_its_own_is_suspect(exchange: Exchange) -> None:
    async with feed_of(exchange, "BTCUSDT", "ETHUSDT") as feed:
        await exchange.send(quote("BTCUSDT"), quote("ETHUSDT"))
        await feed.wait_live()
        seen: list[int] = []
        feed.on_batch(
            lambda rows: seen.extend(feed.prices[feed.prices.symbols[i]]["status"] for i in rows["symbol_id"])
        )
        while len(seen) < 1:  # until the message waits in the kernel while nothing else runs
            exchange.line.send_together(quote("BTCUSDT", 2))
            time.sleep(0.8)  # noqa: ASYNC251 - the stall
            await asyncio.sleep(0)
        assert seen[0] == Status.SUSPECT
        assert not feed.prices.is_fresh("BTCUSDT", max_age=3600.0)
        await exchange.send(quote("BTCUSDT", 1000))
        await until(lambda: status(feed, "BTCUSDT") is Status.LIVE, "the next row to be live")


async def test_a_reader_left_behind_is_told(exchange: Exchange) -> None:
    alerts: list[dict[str, Any]] = []
    async with feed_of(exchange, ring_capacity=16, on_alert=alerts.append) as feed:
        ticks = feed.ticks(name="slow")
        await exchange.send(*(quote(update=n) for n in range(1, 101)))
        await until(lambda: alerts, "an alert")
        assert "slow reads too slowly" in alerts[0]["cause"]
        assert ticks.lost > 0


# Dangerous settings -------------------------------------------------------------------------------------------------


def careless() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: {"ssl": careless()}, "accept_any_certificate=True"),
        (lambda: {"backoff": Backoff(max_retries=math.inf)}, "retries_for_ever=True"),
        (lambda: {"staleness": Staleness(adaptive=False)}, "silence_goes_unnoticed=True"),
    ],
    ids=["tls", "retries", "staleness"],
)
def test_a_dangerous_setting_is_refused_with_the_word_that_allows_it(
    make: Callable[[], dict[str, Any]], word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        Feed("binance-usdm", ["BTCUSDT"], **make())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"ssl": careless(), "accept_any_certificate": True}, "accept_any_certificate=True"),
        ({"backoff": Backoff(max_retries=math.inf, retries_for_ever=True)}, "retries_for_ever=True"),
        ({"staleness": Staleness(adaptive=False, silence_goes_unnoticed=True)}, "silence_goes_unnoticed=True"),
        ({"accept_any_certificate": True}, None),
        ({"ssl": ssl.create_default_context(cafile=str(PEM))}, None),
    ],
    ids=["tls", "retries", "staleness", "only the word", "a context that verifies"],
)
async def test_a_dangerous_setting_is_logged_once_by_its_name(
    options: dict[str, Any], word: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    tls = "ssl" in options
    async with (
        Exchange(tls=tls) as exchange,
        feed_of(exchange, "BTCUSDT", "ETHUSDT", channels=["quote", "trade"], **options) as feed,
    ):
        exchange.cut()
        await until(lambda: feed.stats()["reconnects"] >= 2, "both connections to be there again")
    dangers = [record for record in caplog.records if "=True)" in record.message]
    assert [record.levelno for record in dangers] == ([] if word is None else [logging.WARNING])
    assert all(f"({word})" in record.message for record in dangers)
