"""Polygon.io, since October 2025 Massive: stocks, options, forex, crypto, indices and futures. Data only.

Sources: the machine-readable "Massive Websocket Spec 2.0.0" and the code of massive-com/client-python and client-go
(2026-07), for futures the documentation pages. Often said otherwise: that the server sends `{"action":"ping"}` every
45 s and wants a pong. No source has it, the keep-alive is the client's protocol ping; one that comes all the same is
answered. `q` rises per symbol and has holes by design, so it tells order and repeats, never a loss; each day it begins
anew. Now and then two trades of one millisecond share a `q`, or it steps back (issue #241 of polygon-io): the later one
then counts as a repeat, is flagged so and moves no row.

What is left out of a quote or trade is empty or zero. Sizes of stock quotes are in round lots, of trades in shares. The
documentation's sample of options' second bars says `AM`, as those of minutes do: should they come so, they are read as
those of minutes. Fair values are of business plans, which have hosts of their own (`Feed(url=)`).

`max_connections` comes after `auth_success` and even after acks, and ends one of the account's connections, this or
another: an eviction, waited out and never duelled about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastfeed.credentials import Auth
from fastfeed.dialect import Ack, Denial, Dialect, Greeting, PingAsked, Refusal, Reply, Welcome
from fastfeed.failures import Failure
from fastfeed.providers import Channel, Evidence, Provider
from fastfeed.schema import Message, Schema
from fastfeed.staleness import Span, fx_week
from fastfeed.subscriptions import Limits, Render
from fastfeed.text import JSONDecodeError, dumps, loads

# Control ------------------------------------------------------------------------------------------------------------


def _request(action: str) -> Render:
    def render(_: int, topics: Sequence[str]) -> str:
        return dumps({"action": action, "params": ",".join(topics)}).decode()

    return render


def _login(known: Mapping[str, str]) -> tuple[str, ...]:
    return (dumps({"action": "auth", "params": known["api_key"]}).decode(),)


def _read(payload: bytes) -> tuple[Reply, ...]:
    try:
        message = loads(payload)
    except JSONDecodeError:
        return ()
    return tuple(_replies(message if isinstance(message, list) else [message]))


# "subscribed to: T.AAPL", one per parameter; the mock server of the official client writes "unsubscribed to: ".
_SUBSCRIBED = re.compile(r"(?:un)?subscribed (?:to|from): ?(.+)", re.IGNORECASE)


def _replies(messages: Sequence[object]) -> Iterator[Reply]:
    for message in messages:
        if not isinstance(message, dict):
            continue
        if message.get("action") == "ping":
            yield PingAsked(dumps({**message, "action": "pong"}).decode())
            continue
        status, said = message.get("status"), str(message.get("message", ""))
        if status == "connected":
            yield Greeting()
        elif status == "auth_success":
            yield Welcome()
        elif status == "auth_failed":
            yield Denial(Failure.AUTH, said or status)
        elif status == "auth_timeout":
            yield Denial(Failure.UNANSWERED, said or status)
        elif status == "max_connections":
            yield Denial(Failure.EVICTED, said or "too many connections of this account")
        elif status == "success" and (found := _SUBSCRIBED.fullmatch(said)) is not None:
            yield Ack(topics=tuple(found[1].split(",")))
        elif status == "error":
            yield Refusal(None, said)


_CONTROL = (Message("control", match={"ev": "status"}), Message("control", match={"action": "ping"}))

# Messages -----------------------------------------------------------------------------------------------------------

# Documented as milliseconds; 16 and 19 digits have been seen for some kinds: the unit is told by magnitude.
_TIME = ("t", "auto")
# Trades and quotes without a `q` (forex, crypto, indices, futures quotes) are ordered by their time.
_BARS: Mapping[str, Any] = {
    "open": "o",
    "high": "h",
    "low": "l",
    "close": "c",
    "volume": "v",
    "vwap": "vw",
    "start": "s",
}


def _bar(event: str, channel: str, symbol: str = "sym") -> Message:
    return Message("bar", match={"ev": event}, channel=channel, symbol=symbol, event_time=("s", "auto"), **_BARS)


# Conditions that do not update the consolidated last price: those whose `updates_open_close` is false in the
# provider's table (`/v3/reference/conditions`), as QuantConnect Lean's PolygonSIPTradeMappings and two transcriptions
# of 2026 have it. It follows the CTS and UTP output specifications; where those let the first trade of a day pass
# (sold out of sequence, prior reference, derivatively priced), none does. 12, Form T: extended hours leave it alone.
_STOCK_NOT_LAST = (2, 5, 7, 10, 12, 13, 15, 16, 20, 21, 22, 29, 32, 33, 37, 52, 53)
# The numbers that stand for `tapes.OPRA`, in its order. 204 is late but in its place, and counts.
_OPTION_NOT_LAST = (201, 203, 205, 207, 202, 206, 246, 247, 248)


def _trade(
    event: str = "T",
    symbol: str = "sym",
    seq: str | None = "q",
    side: tuple[str, str] | None = None,
    not_last: tuple[int, ...] | None = None,
) -> Message:
    return Message(
        "trade",
        match={"ev": event},
        symbol=symbol,
        price="p",
        size="s",
        side=side,
        seq=seq,
        sequence=None if seq is None else "rising",
        event_time=_TIME,
        whole=True,
        conditions=None if not_last is None else "c",
        not_last=not_last or (),
    )


def _quote(event: str = "Q", symbol: str = "sym", seq: str | None = "q", sizes: bool = True, **prices: str) -> Message:
    fields: dict[str, Any] = {
        "bid": "bp",
        "ask": "ap",
        **({"bid_size": "bs", "ask_size": "as"} if sizes else {}),
        **prices,
    }
    return Message("quote", match={"ev": event}, symbol=symbol, seq=seq, event_time=_TIME, whole=True, **fields)


# `FMV` is the fair market value of a business plan, `V` the value of an index: both are marks, not trades.
_FAIR_VALUE = Message("mark", match={"ev": "FMV"}, channel="fair_value", symbol="sym", price="fmv", event_time=_TIME)

_SECURITIES = (_quote(), _bar("A", "second_bar"), _bar("AM", "bar"), _FAIR_VALUE)
_STOCKS = (_trade(not_last=_STOCK_NOT_LAST), *_SECURITIES)
_OPTIONS = (_trade(not_last=_OPTION_NOT_LAST), *_SECURITIES)
_FUTURES = (_trade(), _quote(seq=None), _bar("A", "second_bar"), _bar("AM", "bar"))
_FOREX = (
    _quote("C", "p", None, sizes=False, bid="b", ask="a"),
    _bar("CAS", "second_bar", "pair"),
    _bar("CA", "bar", "pair"),
    _FAIR_VALUE,
)
_CRYPTO = (
    # `i` is a string in the documentation and a number on the wire, and unique per exchange only: no sequence.
    # The first condition is the side: 1 sold, 2 bought.
    _trade("XT", "pair", None, ("c.0", "1")),
    _quote("XQ", "pair", None),
    # At most 100 levels a side, a full snapshot each time, per exchange `x`, without a number.
    Message(
        "depth",
        match={"ev": "XL2"},
        symbol="pair",
        bids="b",
        asks="a",
        event_time=_TIME,
        sequence="none",
        snapshot=True,
    ),
    _bar("XAS", "second_bar", "pair"),
    _bar("XA", "bar", "pair"),
    _FAIR_VALUE,
)
_INDICES = (
    Message("mark", match={"ev": "V"}, symbol="T", price="val", event_time=_TIME),
    _bar("A", "second_bar"),
    _bar("AM", "bar"),
)

# Providers ----------------------------------------------------------------------------------------------------------

_DIALECT = Dialect(subscribe=_request("subscribe"), unsubscribe=_request("unsubscribe"), read=_read, greets=True)
_LIMITS = Limits(
    bytes_per_request=16_000,  # no limit is documented; 4,000 symbols in one message have been reported to work
    connections=1,  # of an account and asset class; more on request
    eviction_cool_down=60.0,
)


_EVIDENCE = Evidence(
    grade="official machine-readable specification and clients",
    samples="the specification and the official client's tests",
    checked_by=("massive",),
)


def _market(
    name: str,
    path: str,
    prefixes: Mapping[str, str],
    messages: tuple[Message, ...],
    *,
    example: str,
    symbol: str,
    hours: Span | None = None,
    not_whole: frozenset[str] = frozenset(),
    streams: int | None = None,
    upper: bool = True,
    echoes: Callable[[str], tuple[str, ...]] | None = None,
    evidence: Evidence = _EVIDENCE,
) -> dict[str, Provider]:
    """One asset class under both names. `prefixes` maps channels to what stands before the symbol of a parameter."""
    channels = {
        channel: Channel(
            topic=f"{prefix}.{{symbol}}", path=f"/{path}", all=None if channel in not_whole else f"{prefix}.*"
        )
        for channel, prefix in prefixes.items()
    }
    found = {}
    for house in ("polygon", "massive"):
        called = house + (f"-{name}" if name else "")
        found[called] = Provider(
            name=called,
            url="wss://socket.massive.com",
            channels=channels,
            schema=Schema(*messages, *_CONTROL, name=called),
            dialect=_DIALECT,
            limits=replace(_LIMITS, streams_per_connection=streams),
            auth=Auth(env={"api_key": f"{house.upper()}_API_KEY"}, login=_login),
            symbol=symbol,
            example=example,
            upper=upper,
            echoes=echoes,
            # Pongs have been seen to stay out under load (issues #134): their lack alone kills no connection.
            pongs_promised=False,
            hours=hours,
            evidence=evidence,
        )
    return found


_STOCK = {"trade": "T", "quote": "Q", "bar": "AM", "second_bar": "A", "fair_value": "FMV"}

PROVIDERS = {
    # Preferred shares have a small letter: `BACpL`.
    **_market("", "stocks", _STOCK, _STOCKS, example="AAPL", symbol=r"[A-Z][A-Za-z0-9.]*", upper=False),
    # Quotes: at most 1,000 contracts a connection, no wildcard. Other channels count too here; for all trades ask `*`.
    **_market(
        "options",
        "options",
        _STOCK,
        _OPTIONS,
        example="O:SPY241220P00720000",
        symbol=r"O:\w+",
        not_whole=frozenset({"quote", "fair_value"}),
        streams=1000,
    ),
    **_market(
        "forex",
        "forex",
        {"quote": "C", "bar": "CA", "second_bar": "CAS", "fair_value": "FMV"},
        _FOREX,
        example="EUR/USD",
        symbol=r"[A-Z]{3}/[A-Z]{3}",
        hours=fx_week(),
        echoes=lambda symbol: (f"C:{symbol.replace('/', '')}",),  # of fair values
    ),
    **_market(
        "crypto",
        "crypto",
        {"trade": "XT", "quote": "XQ", "depth": "XL2", "bar": "XA", "second_bar": "XAS", "fair_value": "FMV"},
        _CRYPTO,
        example="BTC-USD",
        symbol=r"[A-Z0-9]+-[A-Z0-9]+",
        echoes=lambda symbol: (f"X:{symbol}",),  # of fair values
    ),
    **_market(
        "indices",
        "indices",
        {"mark": "V", "bar": "AM", "second_bar": "A"},
        _INDICES,
        example="I:SPX",
        symbol=r"I:\w+",
    ),
    **_market(
        "futures",
        "futures",
        {"trade": "T", "quote": "Q", "bar": "AM", "second_bar": "A"},
        _FUTURES,
        example="ESZ4",
        symbol=r"[A-Z0-9]+",
        evidence=replace(_EVIDENCE, grade="documentation pages", samples="made from the documentation's tables"),
    ),
}
