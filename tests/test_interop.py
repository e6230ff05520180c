"""The lab's venues judged by clients that nobody here wrote: they connect, log in, subscribe and receive the values
that are in the venue's own record of what it sent.

Run by `make interop`, which installs them (nautilus_trader into an interpreter of its own). No network but loopback.
"""

import asyncio
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from exchange import until

from fastfeed.lab import Venue
from fastfeed.lab.stage import BAR, QUOTE, TRADE, Event, Stage

for client in ("massive", "binance", "ccxt", "tiingo"):
    if importlib.util.find_spec(client) is None:
        pytest.skip(f"{client} is not installed: make interop", allow_module_level=True)

with warnings.catch_warnings(action="ignore"):
    import ccxt.pro
    import massive
    import tiingo
    import tiingo.wsclient
    from binance import AsyncClient, BinanceSocketManager
    from massive.exceptions import AuthError
    from massive.websocket.models import Market

pytestmark = [
    pytest.mark.filterwarnings("default"),  # theirs are not ours to mend
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DEADLINE = 15.0
NAUTILUS = Path(sys.prefix) / "rivals" / "nautilus" / "bin" / "python"  # as bench/prepare.py makes it


# massive: Polygon's client -------------------------------------------------------------------------------------------


def _ms(event: Event) -> int:
    return event.utc_ns // 1_000_000


@dataclass(frozen=True)
class Spoken:
    """A market of Polygon's as its client sees it: what it asks for, and what it should make of an event."""

    desk: str
    market: Market
    asks: dict[str, str]  # kind -> prefix
    told: Callable[[Event], dict[str, Any]]


def _share(event: Event) -> dict[str, Any]:
    if event.kind == TRADE:
        head = {"symbol": event.symbol, "price": event.price, "size": event.size, "timestamp": _ms(event)}
        return {**head, "id": str(event.number), "sequence_number": 3 * event.number}
    sides = {"bid_price": event.bid, "bid_size": event.bid_size, "ask_price": event.ask, "ask_size": event.ask_size}
    return {"symbol": event.symbol, **sides, "timestamp": _ms(event), "sequence_number": 3 * event.number}


def _future(event: Event) -> dict[str, Any]:
    told = _share(event)
    if event.kind == TRADE:
        return {name: value for name, value in told.items() if name != "id"}
    kept = {name: value for name, value in told.items() if name not in ("timestamp", "sequence_number")}
    return {**kept, "sip_timestamp": _ms(event)}


def _forex(event: Event) -> dict[str, Any]:
    if event.kind == BAR:
        prices = {"open": event.bid, "high": event.ask, "low": event.bid, "close": event.price}
        return {"pair": event.symbol, **prices, "volume": event.size, "end_timestamp": _ms(event)}
    return {"pair": event.symbol, "bid_price": event.bid, "ask_price": event.ask, "timestamp": _ms(event)}


def _crypto(event: Event) -> dict[str, Any]:
    if event.kind == TRADE:
        side = 1 if event.sells else 2
        return {"pair": event.symbol, "price": event.price, "size": event.size, "conditions": [side]}
    sides = {"bid_price": event.bid, "bid_size": event.bid_size, "ask_price": event.ask, "ask_size": event.ask_size}
    return {"pair": event.symbol, **sides, "timestamp": _ms(event)}


def _index(event: Event) -> dict[str, Any]:
    return {"ticker": event.symbol, "value": event.price, "timestamp": _ms(event)}


SPOKEN = [
    Spoken("polygon", Market.Stocks, {QUOTE: "Q", TRADE: "T"}, _share),
    Spoken("polygon-options", Market.Options, {QUOTE: "Q", TRADE: "T"}, _share),
    Spoken("polygon-futures", Market.Futures, {QUOTE: "Q", TRADE: "T"}, _future),
    Spoken("polygon-forex", Market.Forex, {QUOTE: "C", BAR: "CA"}, _forex),
    Spoken("polygon-crypto", Market.Crypto, {QUOTE: "XQ", TRADE: "XT"}, _crypto),
    Spoken("polygon-indices", Market.Indices, {QUOTE: "V"}, _index),
]


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        while not task.done():  # a client may take a cancellation for its own timeout
            task.cancel()
            await asyncio.wait([task], timeout=1.0)


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda spoken: spoken.desk)
async def test_massives_client_logs_in_and_reads_what_polygons_desk_tells(spoken: Spoken) -> None:
    received: list[Any] = []

    async def keep(messages: list[Any]) -> None:
        received.extend(messages)

    async with Stage(spoken.desk, keys={"api_key": "k"}) as stage:
        wanted = [(kind, symbol) for kind in spoken.asks for symbol in stage.symbols]
        client = massive.WebSocketClient(
            api_key="k",
            feed=stage.url.removeprefix("ws://"),
            market=spoken.market,
            secure=False,
            subscriptions=[f"{spoken.asks[kind]}.{symbol}" for kind, symbol in wanted],
        )
        async with running(client.connect(keep)) as task:
            await until(lambda: task.done() or stage.subscribed == set(wanted), "it to subscribe")
            for _ in range(20):
                for kind, symbol in wanted:
                    await stage.plays(kind=kind, symbol=symbol)
            await until(lambda: task.done() or len(received) == len(stage.events), "what was told")
            assert not task.done()
            for message, event in zip(received, stage.events, strict=True):
                told = spoken.told(event)
                assert {name: getattr(message, name) for name in told} == told
            client.unsubscribe_all()
            await until(lambda: not stage.subscribed, "it to unsubscribe")


async def test_massives_client_is_refused_with_a_wrong_key() -> None:
    async with Stage("polygon", keys={"api_key": "k"}) as stage:
        client = massive.WebSocketClient(
            api_key="wrong", feed=stage.url.removeprefix("ws://"), market=Market.Stocks, secure=False
        )

        async def ignore(_: list[Any]) -> None:
            pass

        with pytest.raises(AuthError, match="authentication failed"):
            async with asyncio.timeout(DEADLINE):
                await client.connect(ignore)
        assert stage.dials == 1


async def test_massives_client_ends_with_the_connection_that_was_too_many(caplog: pytest.LogCaptureFixture) -> None:
    async with Stage("polygon") as stage:
        client = massive.WebSocketClient(
            api_key="k",
            feed=stage.url.removeprefix("ws://"),
            market=Market.Stocks,
            secure=False,
            subscriptions=["T.AAPL"],
            max_reconnects=0,
        )

        async def ignore(_: list[Any]) -> None:
            pass

        async with running(client.connect(ignore)) as task:
            await until(lambda: stage.subscribed, "it to subscribe")
            await stage.evicts_everybody()
            with pytest.raises(Exception, match="1008"):
                await asyncio.wait_for(task, DEADLINE)


# tiingo --------------------------------------------------------------------------------------------------------------


async def test_tiingos_client_logs_in_and_reads_what_its_desk_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Any] = []
    async with Stage("tiingo-fx", keys={"api_key": "k"}, beat_every=0.05) as stage:
        real = tiingo.wsclient.websocket.WebSocketApp

        def local(url: str, **callbacks: Any) -> Any:
            """Its address is fixed."""
            return real(url.replace("wss://api.tiingo.com", stage.url), **callbacks)

        monkeypatch.setattr(tiingo.wsclient.websocket, "WebSocketApp", local)
        wish = {"thresholdLevel": 5, "tickers": [symbol.lower() for symbol in stage.symbols]}
        request = {"eventName": "subscribe", "authorization": "k", "eventData": wish}
        running = asyncio.get_running_loop().run_in_executor(
            None, lambda: tiingo.TiingoWebsocketClient(request, endpoint="fx", on_msg_cb=received.append)
        )
        await until(lambda: len(stage.subscribed) == len(stage.symbols), "it to subscribe")
        await stage.plays(40)
        await until(lambda: sum('"A"' in message for message in received) == 40, "what was told")
        await until(lambda: any('"H"' in message for message in received), "a heartbeat")
        await stage.closes(1000)
        await asyncio.wait_for(running, DEADLINE)
    told = [json.loads(message) for message in received]
    assert told[0]["response"] == {"code": 200, "message": "Success"}
    quotes = [message["data"] for message in told if message["messageType"] == "A"]
    for quote, event in zip(quotes, stage.events, strict=True):
        assert quote[:2] == ["Q", event.symbol.lower()]
        assert [quote[4], quote[7]] == [event.bid, event.ask]
        assert [quote[3], quote[6]] == [1e6 * event.bid_size, 1e6 * event.ask_size]


# Binance's venue -----------------------------------------------------------------------------------------------------

SYMBOLS = 4
FRAMES = 400


def wanted(venue: Venue) -> set[str]:
    """The streams that are subscribed to on any connection."""
    return {
        stream for connection in venue.connections.values() if connection.desk for stream in connection.desk.streams
    }


def agrees(last: dict[str, dict[str, str]], told: dict[str, dict[str, str]]) -> None:
    """What the client has last seen of each symbol is what the venue last sent, digit for digit as numbers."""
    assert last
    for symbol, prices in last.items():
        for name, text in prices.items():
            assert float(text) == float(told[symbol][name]), (symbol, name)


@pytest.mark.parametrize("market", ["binance-spot", "binance-usdm"])
async def test_python_binance_reads_what_the_venue_sends(market: str) -> None:
    async with Venue(market, symbols=SYMBOLS) as venue:
        client = AsyncClient()
        manager = BinanceSocketManager(client, max_queue_size=10 * FRAMES)
        manager.STREAM_URL = manager.FSTREAM_URL = f"{venue.url}/"
        symbols = [symbol.lower() for symbol in venue.load.symbols]
        streams = [f"{symbol}@bookTicker" for symbol in symbols]
        if market == "binance-spot":
            sockets = [manager.multiplex_socket([*streams, *(f"{symbol}@trade" for symbol in symbols)])]
        else:
            sockets = [
                manager.futures_multiplex_socket(streams, category="public"),
                manager.futures_multiplex_socket([f"{symbol}@aggTrade" for symbol in symbols], category="market"),
            ]
        last: dict[str, dict[str, str]] = {}
        seen = 0

        async def read(socket: Any) -> None:
            nonlocal seen
            while True:
                data = (await socket.recv())["data"]
                seen += 1
                kind = data.get("e", "bookTicker")
                if kind == "bookTicker":
                    new = {"bid": data["b"], "bid_size": data["B"], "ask": data["a"], "ask_size": data["A"]}
                else:
                    new = {"last": data["p"], "last_size": data["q"]}
                last.setdefault(data["s"], {}).update(new)

        try:
            for socket in sockets:
                socket.TIMEOUT = 1  # seconds: it closes only when it next gives up waiting
                await socket.connect()
            await until(lambda: len(venue.connections) == len(sockets), "its connections")
            venue.plays(rate=20_000, frames=FRAMES)
            async with asyncio.TaskGroup() as group:
                readers = [group.create_task(read(socket)) for socket in sockets]
                await until(lambda: seen == FRAMES, "every frame")
                for reader in readers:
                    reader.cancel()
            agrees(last, venue.count()["last"])
        finally:
            for socket in sockets:
                await socket.close()
            await client.close_connection()


def ccxt_market(exchange: Any, name: str, *, spot: bool) -> dict[str, Any]:
    """One market as ccxt wants to know it; it would ask the real exchange."""
    base = name.removesuffix("USDT")
    kind = "spot" if spot else "swap"
    return exchange.safe_market_structure(
        {
            "id": name,
            "lowercaseId": name.lower(),
            "symbol": f"{base}/USDT" if spot else f"{base}/USDT:USDT",
            **{"base": base, "quote": "USDT", "baseId": base, "quoteId": "USDT", "type": kind, kind: True},
            **({} if spot else {"settle": "USDT", "settleId": "USDT", "linear": True, "inverse": False}),
            **{"spot": spot, "swap": not spot, "future": False, "option": False, "contract": not spot, "margin": False},
        }
    )


@pytest.mark.parametrize("market", ["binance-spot", "binance-usdm"])
async def test_ccxt_reads_what_the_venue_sends(market: str) -> None:
    spot = market == "binance-spot"
    async with Venue(market, symbols=SYMBOLS) as venue:
        exchange = ccxt.pro.binance({"newUpdates": True, "options": {"defaultType": "spot" if spot else "swap"}})
        try:
            exchange.urls["api"]["ws"].update(spot=f"{venue.url}/ws", linear=f"{venue.url}/ws")
            markets = [ccxt_market(exchange, name, spot=spot) for name in venue.load.symbols]
            exchange.set_markets(markets)
            by_name = {one["symbol"]: one["id"] for one in markets}
            last: dict[str, dict[str, str]] = {}

            async def read_quotes() -> None:
                while True:
                    for name, ticker in (await exchange.watch_bids_asks(list(by_name))).items():
                        new = {"bid": ticker["bid"], "bid_size": ticker["bidVolume"], "ask": ticker["ask"]}
                        last.setdefault(by_name[name], {}).update({**new, "ask_size": ticker["askVolume"]})

            async def read_trades() -> None:
                name = {"name": "trade" if spot else "aggTrade"}
                while True:
                    for trade in await exchange.watch_trades_for_symbols(list(by_name), params=dict(name)):
                        new = {"last": trade["price"], "last_size": trade["amount"]}
                        last.setdefault(by_name[trade["symbol"]], {}).update(new)

            async with running(read_quotes()) as quotes, running(read_trades()) as trades:
                kinds = ("bookTicker", "trade" if spot else "aggTrade")
                streams = {f"{symbol.lower()}@{kind}" for symbol in venue.load.symbols for kind in kinds}
                await until(lambda: quotes.done() or trades.done() or streams <= wanted(venue), "its subscriptions")
                venue.plays(rate=500, frames=FRAMES)

                def same() -> bool:
                    told = venue.count()
                    if quotes.done() or trades.done():
                        return True
                    return told["is_at_rest"] and all(
                        float(last.get(symbol, {}).get(name, "nan")) == float(told["last"][symbol][name])
                        for symbol in venue.load.symbols
                        for name in ("bid", "bid_size", "ask", "ask_size", "last", "last_size")
                        if name in told["last"].get(symbol, {})
                    )

                await until(same, "the last prices of every symbol")
                assert not quotes.done()
                assert not trades.done()
                agrees(last, venue.count()["last"])
        finally:
            await exchange.close()


@pytest.mark.parametrize(("market", "route"), [("binance-spot", ""), ("binance-usdm", "/public")])
async def test_nautilus_trader_reads_what_the_venue_sends(market: str, route: str) -> None:
    if not NAUTILUS.exists():
        assert not os.environ.get("CI"), "make interop has made no environment for nautilus_trader"
        pytest.skip("nautilus_trader has no environment: it wants CPython 3.12 or newer, and make interop")
    # It subscribes in one message a stream, of which the spot market takes five a second.
    async with Venue(market, symbols=2) as venue:
        kinds = ["bookTicker", "aggTrade"] if market == "binance-spot" else ["bookTicker"]
        streams = [f"{symbol.lower()}@{kind}" for symbol in venue.load.symbols for kind in kinds]
        script = Path(__file__).parent / "nautilus_client.py"
        process = await asyncio.create_subprocess_exec(
            *(str(NAUTILUS), str(script), venue.url + route, *streams),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            last: dict[str, dict[str, str]] = {}
            seen = 0
            async with asyncio.timeout(60.0):  # it is a large package to start
                while (line := await process.stdout.readline()) and not line.startswith(b'"ready"'):
                    pass
                await until(lambda: set(streams) <= wanted(venue), "its subscriptions")
                venue.plays(rate=5_000, frames=FRAMES)
                while seen < FRAMES and (line := await process.stdout.readline()):
                    tick = json.loads(line)
                    last.setdefault(tick.pop("symbol"), {}).update(tick)
                    seen += 1
            assert seen == FRAMES
            agrees(last, venue.count()["last"])
        finally:
            process.stdin.close()
            async with asyncio.timeout(DEADLINE):
                await process.wait()
