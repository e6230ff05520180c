"""Alpaca's and Intrinio's desks judged by these houses' own clients: they log in, subscribe, receive what was told.

Only where those are installed. No network but loopback.
"""

import asyncio
import importlib.util
import struct
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from exchange import until

from fastfeed.lab.stage import DEPTH, QUOTE, TRADE, Event, Stage

for client in ("alpaca", "intriniorealtime"):
    if importlib.util.find_spec(client) is None:
        pytest.skip(f"{client} is not installed", allow_module_level=True)

with warnings.catch_warnings(action="ignore"):
    from alpaca.data.live import CryptoDataStream, OptionDataStream, StockDataStream
    from intriniorealtime.equities_client import IntrinioRealtimeEquitiesClient

pytestmark = [
    pytest.mark.filterwarnings("default"),  # theirs are not ours to mend
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

DEADLINE = 15.0
KEYS = {"api_key": "key", "api_secret": "secret"}


@asynccontextmanager
async def in_a_thread(run: Callable[[], Any], stop: Callable[[], Any]) -> AsyncIterator[None]:
    running = asyncio.get_running_loop().run_in_executor(None, run)
    try:
        yield
    finally:
        await asyncio.to_thread(stop)
        await asyncio.wait_for(running, DEADLINE)


# alpaca-py, which speaks MessagePack only ----------------------------------------------------------------------------


def at(event: Event) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=event.utc_ns // 1000)


def agrees(message: Any, event: Event) -> None:
    assert (message.symbol, message.timestamp) == (event.symbol, at(event))
    if event.kind == QUOTE:
        seen = message.bid_price, message.bid_size, message.ask_price, message.ask_size
        assert seen == (event.bid, event.bid_size, event.ask, event.ask_size)
    elif event.kind == TRADE:
        assert message.price == event.price


@pytest.mark.parametrize(
    ("desk", "path", "client"),
    [
        ("alpaca", "v2/sip", StockDataStream),
        ("alpaca", "v2/iex", StockDataStream),
        ("alpaca-options", "v1beta1/opra", OptionDataStream),
        ("alpaca-crypto", "v1beta3/crypto/us", CryptoDataStream),
    ],
)
async def test_alpacas_client_logs_in_and_reads_what_the_desk_tells(desk: str, path: str, client: Any) -> None:
    received: list[Any] = []

    async def keep(message: Any) -> None:
        received.append(message)

    async with Stage(desk, keys=KEYS) as stage:
        theirs = client(*KEYS.values(), url_override=f"{stage.url}/{path}")
        theirs.subscribe_quotes(keep, *stage.symbols)
        theirs.subscribe_trades(keep, *stage.symbols)
        async with in_a_thread(theirs.run, theirs.stop):
            await until(lambda: len(stage.subscribed) == 2 * len(stage.symbols), "it to subscribe")
            for _ in range(10):
                await stage.plays(20)
            await until(lambda: len(received) == len(stage.events), "what was told")
        assert stage.dials == 1
        for message, event in zip(received, stage.events, strict=True):
            agrees(message, event)
        if desk == "alpaca":
            sizes = [(one.id, one.size) for one in received if hasattr(one, "size")]
            assert sizes == [(event.number, event.size) for event in stage.events if event.kind == TRADE]


async def test_alpacas_client_reads_the_book_of_the_desk() -> None:
    books: list[Any] = []

    async def keep(book: Any) -> None:
        books.append(book)

    async with Stage("alpaca-crypto", keys=KEYS) as stage:
        theirs = CryptoDataStream(*KEYS.values(), url_override=f"{stage.url}/v1beta3/crypto/us")
        theirs.subscribe_orderbooks(keep, "BTC/USD")
        async with in_a_thread(theirs.run, theirs.stop):
            await until(lambda: stage.subscribed, "it to subscribe")
            told = await stage.plays(5, kind=DEPTH, symbol="BTC/USD")
            await until(lambda: len(books) == 5, "what was told")
    assert [bool(book.reset) for book in books] == [True, False, False, False, False]
    for book, event in zip(books, told, strict=True):
        assert [book.bids[0].price, book.bids[0].size, book.asks[0].price] == [event.bid, event.bid_size, event.ask]


# intriniorealtime ----------------------------------------------------------------------------------------------------


def single(price: float) -> float:
    found: float = struct.unpack("f", struct.pack("f", price))[0]
    return found


async def test_intrinios_client_gets_a_token_joins_and_reads_what_the_desk_tells() -> None:
    trades: list[Any] = []
    quotes: list[Any] = []
    async with Stage("intrinio", keys={"api_key": "k"}) as stage:
        theirs = IntrinioRealtimeEquitiesClient(
            {"api_key": "k", "provider": "MANUAL", "ipaddress": stage.url.removeprefix("ws://")},
            lambda trade, _: trades.append(trade),
            lambda quote, _: quotes.append(quote),
        )
        async with in_a_thread(theirs.connect, theirs.disconnect):
            await until(lambda: stage.seats, "it to connect")
            await asyncio.to_thread(theirs.join, stage.symbols)
            await until(lambda: len(stage.subscribed) == 2 * len(stage.symbols), "it to join")
            for _ in range(5):
                await stage.plays(100)
            asked = [event for event in stage.events if event.kind == QUOTE]
            traded = [event for event in stage.events if event.kind == TRADE]
            await until(lambda: len(trades) == len(traded) and len(quotes) == 2 * len(asked), "what was told")
            await asyncio.to_thread(theirs.leave, stage.symbols)
            await until(lambda: not stage.subscribed, "it to leave")
        assert (stage.dials, stage.issued) == (1, 1)
    for trade, event in zip(trades, traded, strict=True):
        seen = trade.symbol, trade.price, trade.size, trade.timestamp, trade.subprovider, trade.market_center
        assert seen == (event.symbol, single(event.price), event.size, event.utc_ns, "IEX", "V")
    for ask, bid, event in zip(quotes[::2], quotes[1::2], asked, strict=True):
        assert (ask.type, ask.price, ask.size) == ("ask", single(event.ask), event.ask_size)
        assert (bid.type, bid.price, bid.size) == ("bid", single(event.bid), event.bid_size)
