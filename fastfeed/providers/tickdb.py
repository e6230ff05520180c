"""TickDB: stocks of several markets, crypto, forex, indices and futures behind one `cmd` protocol. Data only.

Source: the official documentation repository (asyncapi 1.0.2 of 2026-07 and the pages of 2026-09, which differ). No
request has a number: acks are told apart by command and symbols alone. Heartbeat as documented: `{"cmd":"ping"}` is
answered by `{"cmd":"pong","data":{"timestamp":...}}`; the form with `type`, `id` and `server_time` that articles show
is read too. `Retry-After` is a header of HTTP answers; in a message it is read where one brings it. There is no
sequence: no gap can be told, what a cut missed is a window of time. Symbols may be echoed without their suffix: two
that differ in nothing else cannot be told apart on one feed.

`Subscription(ALL, "quote", market="HK")` is every ticker of a market (US, HK or CN), in arrays; it wants compression,
which is offered always (error 2008 without). It ends the subscriptions to single symbols of that market on the same
connection: have one or the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastfeed.backoff import Backoff
from fastfeed.credentials import Auth
from fastfeed.dialect import Ack, Denial, Dialect, PongSaid, Refusal, Reply
from fastfeed.failures import Failure
from fastfeed.heartbeat import Beats
from fastfeed.providers import Channel, Evidence, Provider
from fastfeed.schema import MISSING, Message, Schema
from fastfeed.subscriptions import Limits, Render
from fastfeed.text import dumps, mapping

_WHOLE = "all "  # before the channel of a topic that is a market's


def _request(command: str) -> Render:
    def render(_: int, topics: Sequence[str]) -> str:
        channel = _channel_of(topics[0]) if topics else ""
        symbols = [topic.partition(":")[2] for topic in topics]
        data: dict[str, object] = {"channel": channel, "symbols": symbols}
        if channel.startswith(_WHOLE):
            data = {"universes": symbols, "channels": [channel.removeprefix(_WHOLE)]}
        return dumps({"cmd": command, "data": data}).decode()

    return render


def _channel_of(topic: str) -> str:
    return topic.partition(":")[0]


def _read(payload: bytes) -> tuple[Reply, ...]:
    return tuple(_replies(mapping(payload)))


def _replies(message: Mapping[str, object]) -> Iterator[Reply]:
    command = message.get("cmd", message.get("type"))
    data = message.get("data")
    if command == "pong":
        stamp = message.get("server_time")
        if isinstance(data, dict):
            stamp = data.get("timestamp", stamp)
        number = message.get("id")
        yield PongSaid(
            number if isinstance(number, int) else None, stamp / 1000 if isinstance(stamp, int | float) else None
        )
        return
    code, said = _code(message.get("code")), str(message.get("message", ""))
    reason = f"{said} (code {message.get('code')})"
    wait = message.get("retry_after", message.get("retryAfter"))
    if code in (1001, 1002, 1003, 1004, 4005):
        yield Denial(Failure.AUTH, reason)
    elif code == 3001:
        yield Denial(Failure.RATE_LIMITED, reason, float(wait) if isinstance(wait, int | float) else None)
    elif code in (3002, 3003):  # quota, or connections: a dead half-open one may hold the place for a while
        yield Denial(Failure.EVICTED, reason)
    elif code in (5000, 5001, 5002, 5003):
        yield Denial(Failure.SERVER_ERROR, reason)
    elif code == 0 and command in ("subscribe", "unsubscribe"):
        yield Ack(topics=_topics(data)) if _topics(data) else Ack()
    elif code or (code is None and message.get("code")):  # as "AMBIGUOUS_SYMBOL"
        # One bad symbol refuses them all; an error that shows the whole request does not say which.
        topics = _topics(data)
        yield Refusal(None, reason, topics=topics if len(topics) == 1 else ())


def _code(value: object) -> int | None:
    """A number, or text that is one."""
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else None


def _topics(data: object) -> tuple[str, ...]:
    if isinstance(data, dict) and isinstance(data.get("universes"), list) and isinstance(data.get("channels"), list):
        return tuple(f"{_WHOLE}{channel}:{market}" for channel in data["channels"] for market in data["universes"])
    if not isinstance(data, dict) or not isinstance(data.get("channel"), str):
        return ()
    symbols = data.get("symbols")
    return tuple(f"{data['channel']}:{symbol}" for symbol in symbols) if isinstance(symbols, list) else ()


def _echoes(symbol: str) -> tuple[str, ...]:
    """`700.HK` may come back as `700`, and so `ticker:700.HK` as `ticker:700`."""
    bare = symbol.rpartition(".")[0]
    return (bare,) if bare else ()


_PATH = "/v1/realtime"

_TICKDB = Provider(
    name="tickdb",
    url="wss://api.tickdb.ai",
    channels={
        # Tickers of forex carry bid and ask, others only a last price: each is read as what it has.
        "quote": Channel(
            topic="ticker:{symbol}",
            path=_PATH,
            params={"market": {"US": "US_Stock", "HK": "HK_Stock", "CN": "CN_Stock"}},
            all=_WHOLE + "ticker:{market}",
        ),
        "trade": Channel(topic="trade:{symbol}", path=_PATH),
        "depth": Channel(topic="depth:{symbol}", path=_PATH),
    },
    schema=Schema(
        Message(
            "quote",
            match={"cmd": "ticker"},
            has=("data.bid_price", "data.ask_price"),
            symbol="data.symbol",
            bid="data.bid_price",
            ask="data.ask_price",
            event_time=("data.timestamp", "ms"),
        ),
        Message(
            "trade",
            match={"cmd": "ticker"},
            channel="quote",
            symbol="data.symbol",
            price="data.last_price",
            event_time=("data.timestamp", "ms"),
        ),
        # Hong Kong, US and crypto: several trades with ids. Others: one, flat, without.
        Message(
            "trade",
            match={"cmd": "trade"},
            has=("data.trades",),
            each="data.trades",
            symbol="^.data.symbol",
            price="price",
            size="quantity",
            side="side",
            event_time=("timestamp", "ms"),
        ),
        Message(
            "trade",
            match={"cmd": "trade", "data.trades": MISSING},
            symbol="data.symbol",
            price="data.price",
            size="data.quantity",
            side="data.side",
            event_time=("data.timestamp", "ms"),
        ),
        # No rule for removals is documented: each message is taken for the whole of its levels.
        Message(
            "depth",
            match={"cmd": "depth"},
            symbol="data.symbol",
            bids="data.bids",
            asks="data.asks",
            event_time=("data.timestamp", "ms"),
            sequence="none",
            snapshot=True,
        ),
        Message("control", has=("cmd",)),
        Message("control", match={"type": "pong"}),
        Message("control", has=("code",)),  # an error need not say of which command
        name="tickdb",
    ),
    dialect=Dialect(
        subscribe=_request("subscribe"),
        unsubscribe=_request("unsubscribe"),
        read=_read,
        ping=lambda _number, _utc: '{"cmd":"ping"}',
        group=_channel_of,
        echoes=_echoes,
    ),
    # The July pages show a ping a second, the September ones one every 60 s, given up after 20 s.
    beats=Beats(interval=30.0, timeout=20.0),
    backoff=Backoff(ladder=(1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 30.0)),
    # Of the second smallest plan; for a larger one: dataclasses.replace(provider("tickdb"), limits=...).
    limits=Limits(streams_per_connection=50, connections=1),
    auth=Auth(env={"api_key": "TICKDB_API_KEY"}, query={"api_key": "{api_key}"}),
    symbol=r"[A-Z0-9.]+",
    example="700.HK",
    echoes=_echoes,
    compression=True,
    upper=True,
    evidence=Evidence(
        grade="official documentation, of which two versions differ",
        samples="official documentation",
        unchecked="no published package that speaks it is known",
    ),
)

PROVIDERS = {"tickdb": _TICKDB}
