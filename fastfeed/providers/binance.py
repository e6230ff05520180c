"""Binance spot, USD-M and COIN-M futures, public JSON market data, as they are in 2026. Data only.

Sources: binance-spot-api-docs "Web Socket Streams" and the USD-M/COIN-M "Websocket Market Streams" pages of
developers.binance.com. Where the documentation is silent the observation is cited beside the fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fastfeed.dialect import Ack, Dialect, Notice, Refusal, Reply
from fastfeed.gaps import Fetched
from fastfeed.providers import Channel, Evidence, Provider, Recipe
from fastfeed.schema import GIVEN, MISSING, Message, Schema, Symbol
from fastfeed.subscriptions import Limits, Render
from fastfeed.text import JSONDecodeError, dumps, loads

# Control ------------------------------------------------------------------------------------------------------------


def _request(method: str) -> Render:
    def render(request_id: int, topics: Sequence[str]) -> str:
        return dumps({"method": method, "params": list(topics), "id": request_id}).decode()

    return render


def _read(payload: bytes) -> tuple[Reply, ...]:
    try:
        message = loads(payload)
    except JSONDecodeError:
        return ()
    return tuple(_replies(message if isinstance(message, list) else [message]))


def _replies(messages: Iterable[object]) -> Iterator[Reply]:
    for message in messages:
        if not isinstance(message, dict):
            continue
        inner = message.get("data", message)  # a combined stream wraps notices, but neither acks nor errors
        if isinstance(inner, dict) and inner.get("e") == "serverShutdown":
            yield Notice("the server announces its shutdown")
            continue
        request_id = message.get("id")
        if not isinstance(request_id, int):
            request_id = None
        # Errors are documented flat; the nested form has been seen on the wire.
        error = message.get("error", message)
        if isinstance(error, dict) and "msg" in error:
            yield Refusal(request_id, f"{error['msg']} (code {error.get('code')})")
        elif "result" in message and request_id is not None:
            yield Ack(request_id)


_DIALECT = Dialect(subscribe=_request("SUBSCRIBE"), unsubscribe=_request("UNSUBSCRIBE"), read=_read)

# A request of more than 4,096 bytes is never answered (binance-connector-rust #27, gocryptotrader #670).
_REQUEST_BYTES = 4000
_LIFETIME = 86400.0  # seconds: "a single connection is only valid for 24 hours", on every market

_CONTROL = (
    Message("control", match={"e": "serverShutdown"}),
    Message("control", has=("result", "id")),
    Message("control", has=("code", "msg")),
    Message("control", has=("error",)),
)


def _evidence(checked: bool = True) -> Evidence:
    return Evidence(
        grade="official documentation",
        samples="official documentation, and recordings",
        checked_by=("python-binance", "ccxt", "nautilus_trader") if checked else (),
        unchecked="" if checked else "the lab has no venue for this market",
    )


# Streams that are the same on every market --------------------------------------------------------------------------

# `m`: the buyer was the maker, so the seller was the aggressor. Trade and aggregate trade ids rise by one.
_TRADE = Message(
    "trade", match={"e": "trade"}, symbol="s", price="p", size="q", side="m", seq="t", event_time=("T", "ms")
)


def _agg_trade(channel: str) -> Message:
    return Message(
        "trade",
        match={"e": "aggTrade"},
        channel=channel,
        symbol="s",
        price="p",
        size="q",
        side="m",
        seq="a",
        event_time=("T", "ms"),
    )


# What HTTP gives back -----------------------------------------------------------------------------------------------
#
# Sources: the spot API's "Market Data endpoints" and the USD-M/COIN-M "Market Data" pages, weights included.

_BOOK = Schema(
    Message(
        "depth",
        has=("lastUpdateId", "bids", "asks"),
        symbol=GIVEN,
        bids="bids",
        asks="asks",
        seq="lastUpdateId",
        sequence="none",
        snapshot=True,
    ),
    name="binance depth over HTTP",
)
_AGG_TRADES = Schema(
    Message("trade", has=("a", "p", "q"), symbol=GIVEN, price="p", size="q", side="m", seq="a", event_time=("T", "ms")),
    name="binance aggTrades over HTTP",
)
_OLD_TRADES = Schema(
    Message(
        "trade",
        has=("id", "price", "qty"),
        symbol=GIVEN,
        price="price",
        size="qty",
        side="isBuyerMaker",
        seq="id",
        event_time=("time", "ms"),
    ),
    name="binance historicalTrades over HTTP",
)


def _ticker(event_time: tuple[str, str] | None) -> Schema:
    return Schema(
        Message(
            "quote",
            has=("symbol", "bidPrice", "askPrice"),
            symbol="symbol",
            bid="bidPrice",
            bid_size="bidQty",
            ask="askPrice",
            ask_size="askQty",
            event_time=event_time,
        ),
        name="binance bookTicker over HTTP",
    )


def _recovery(root: str, agg_trade: str, weights: tuple[int, int, int], quote: Schema) -> dict[str, Recipe]:
    """For depth, aggregate trades (channel `agg_trade`) and quotes, with what one request of each weighs."""
    depth, trades, ticker = weights
    return {
        "depth": Recipe(
            path=root + "/depth?symbol={symbol}&limit=1000",
            schema=_BOOK,
            fetched=Fetched.SNAPSHOT,
            weight=depth,
            whole=("levels",),
            anew=False,
        ),
        agg_trade: Recipe(
            path=root + "/aggTrades?symbol={symbol}&fromId={first}&limit=1000", schema=_AGG_TRADES, weight=trades
        ),
        "quote": Recipe(
            path=root + "/ticker/bookTicker?symbol={symbol}", schema=quote, fetched=Fetched.LAST, weight=ticker
        ),
    }


# Spot ---------------------------------------------------------------------------------------------------------------

_SPOT_PATH = "/stream"

_SPOT = Provider(
    name="binance-spot",
    url="wss://stream.binance.com:9443",
    channels={
        "quote": Channel(topic="{lower}@bookTicker", path=_SPOT_PATH),
        "trade": Channel(topic="{lower}@trade", path=_SPOT_PATH),
        "agg_trade": Channel(topic="{lower}@aggTrade", path=_SPOT_PATH),
        "depth": Channel(
            topic="{lower}@depth{levels}{speed}",
            path=_SPOT_PATH,
            params={
                "levels": {None: "", 5: "5", 10: "10", 20: "20"},
                "speed": {"100ms": "@100ms", "1000ms": ""},
            },
        ),
    },
    schema=Schema(
        # The only frame without a type: known by its keys. It has no time either.
        Message(
            "quote",
            match={"e": MISSING},
            has=("u", "s", "b", "a"),
            symbol="s",
            bid="b",
            bid_size="B",
            ask="a",
            ask_size="A",
            seq="u",
        ),
        _TRADE,
        _agg_trade("agg_trade"),
        # U == previous u + 1.
        Message(
            "depth",
            match={"e": "depthUpdate"},
            symbol="s",
            bids="b",
            asks="a",
            first_seq="U",
            seq="u",
            event_time=("E", "ms"),
        ),
        # Partial depth names its symbol only in the stream's name.
        Message(
            "depth",
            has=("lastUpdateId", "bids", "asks"),
            symbol=Symbol("^.stream", until="@", upper=True),
            bids="bids",
            asks="asks",
            seq="lastUpdateId",
            sequence="none",
            snapshot=True,
        ),
        *_CONTROL,
        envelope="data",
        name="binance-spot",
    ),
    dialect=_DIALECT,
    limits=Limits(
        streams_per_connection=1024,
        bytes_per_request=_REQUEST_BYTES,
        messages_per_second=5,
        dials_per_five_minutes=300,  # per address
        lifetime=_LIFETIME,
    ),
    recovery={
        **_recovery("/api/v3", "agg_trade", (50, 4, 2), _ticker(None)),
        "trade": Recipe(
            path="/api/v3/historicalTrades?symbol={symbol}&fromId={first}&limit=1000", schema=_OLD_TRADES, weight=25
        ),
    },
    rest="https://api.binance.com",
    rest_weight_per_minute=6000,
    symbol=r"\w+",  # letters of any alphabet: symbols need not be ASCII
    example="BTCUSDT",
    upper=True,
    evidence=_evidence(),
)

# USD-M and COIN-M futures -------------------------------------------------------------------------------------------

_FUTURES_SCHEMA = (
    Message(
        "quote",
        match={"e": "bookTicker"},
        symbol="s",
        bid="b",
        bid_size="B",
        ask="a",
        ask_size="A",
        seq="u",
        event_time=("T", "ms"),
    ),
    _agg_trade("trade"),
    Message(
        "trade",
        match={"e": "trade"},
        channel="raw_trade",
        symbol="s",
        price="p",
        size="q",
        side="m",
        seq="t",
        event_time=("T", "ms"),
    ),
    # `r` is "" where a symbol has no funding (delivery futures).
    Message(
        "mark",
        match={"e": "markPriceUpdate"},
        symbol="s",
        price="p",
        index="i",
        funding="r",
        event_time=("E", "ms"),
        null=("",),
    ),
    # pu == previous u; U is not previous u + 1 here.
    Message(
        "depth",
        match={"e": "depthUpdate"},
        symbol="s",
        bids="b",
        asks="a",
        first_seq="U",
        seq="u",
        prev_seq="pu",
        event_time=("T", "ms"),
    ),
    *_CONTROL,
)

# 1,024 streams per connection in the present documentation, 200 in the earlier one: the smaller is safe on both.
_FUTURES_LIMITS = Limits(
    streams_per_connection=200, bytes_per_request=_REQUEST_BYTES, messages_per_second=10, lifetime=_LIFETIME
)


def _futures_channels(public: str, market: str) -> dict[str, Channel]:
    """Each stream is served on one path only: book data on `public`, the rest on `market`.

    On the other path it is acked all the same, and silent. `trade` is aggTrade; the raw trades are undocumented there
    and have been seen on the public path only.
    """
    return {
        # That of all symbols comes every five seconds, those of one as they change.
        "quote": Channel(topic="{lower}@bookTicker", path=public, all="!bookTicker"),
        "trade": Channel(topic="{lower}@aggTrade", path=market),
        "raw_trade": Channel(topic="{lower}@trade", path=public),
        "mark": Channel(
            topic="{lower}@markPrice{speed}",
            path=market,
            params={"speed": {"1s": "@1s", "3s": ""}},
            all="!markPrice@arr{speed}",
        ),
        "depth": Channel(
            topic="{lower}@depth{speed}",
            path=public,
            params={"speed": {"100ms": "@100ms", "250ms": "", "500ms": "@500ms"}},
        ),
    }


_USDM = Provider(
    name="binance-usdm",
    url="wss://fstream.binance.com",
    channels=_futures_channels("/public/stream", "/market/stream"),
    aliases={"agg_trade": "trade"},
    schema=Schema(*_FUTURES_SCHEMA, envelope="data", name="binance-usdm"),
    dialect=_DIALECT,
    limits=_FUTURES_LIMITS,
    recovery=_recovery("/fapi/v1", "trade", (20, 20, 2), _ticker(("time", "ms"))),
    rest="https://fapi.binance.com",
    rest_weight_per_minute=2400,
    symbol=r"\w+",
    example="BTCUSDT",
    upper=True,
    evidence=_evidence(),
)

_COINM = Provider(
    name="binance-coinm",
    url="wss://dstream.binance.com",
    channels=_futures_channels("/stream", "/stream"),
    aliases={"agg_trade": "trade"},
    schema=Schema(*_FUTURES_SCHEMA, envelope="data", name="binance-coinm"),
    dialect=_DIALECT,
    limits=_FUTURES_LIMITS,
    recovery=_recovery("/dapi/v1", "trade", (20, 20, 2), _ticker(("time", "ms"))),
    rest="https://dapi.binance.com",
    rest_weight_per_minute=2400,
    symbol=r"\w+",
    example="BTCUSD_PERP",
    upper=True,
    evidence=_evidence(checked=False),
)

PROVIDERS = {"binance": _SPOT, "binance-spot": _SPOT, "binance-usdm": _USDM, "binance-coinm": _COINM}
