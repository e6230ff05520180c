"""IEX Cloud, retired: the service was shut down on 2024-08-31. Kept for replay, tests and old programs. Data only.

Its real streams were server-sent events, and socket.io before 2019. What articles show as its WebSocket protocol, a
client ping `{"op":"ping","version":"1.0"}` every 25 to 30 s, has no source; it is what is spoken here, because programs
were written for it, and only a venue of the lab answers. The messages are those of the recorded TOPS, last and DEEP
streams (iextrading4j): JSON numbers, times in milliseconds. `seq` looks to rise per symbol; no rule for holes is
documented. The flags of DEEP trades (`isOddLot`, `isOutsideRegularHours`) are not read: all move the last price.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastfeed.backoff import Backoff
from fastfeed.credentials import Auth
from fastfeed.dialect import Ack, Denial, Dialect, PingAsked, PongSaid, Refusal, Reply
from fastfeed.failures import Failure
from fastfeed.heartbeat import Beats
from fastfeed.providers import Channel, Evidence, Provider
from fastfeed.schema import Message, Schema
from fastfeed.subscriptions import Limits, Render
from fastfeed.text import dumps, mapping

_PING = '{"op":"ping","version":"1.0"}'


def _request(op: str) -> Render:
    def render(number: int, topics: Sequence[str]) -> str:
        channel = _channel_of(topics[0]) if topics else ""
        symbols = [topic.partition(":")[2] for topic in topics]
        return dumps({"op": op, "id": number, "channel": channel, "symbols": symbols}).decode()

    return render


def _channel_of(topic: str) -> str:
    return topic.partition(":")[0]


def _read(payload: bytes) -> tuple[Reply, ...]:
    message = mapping(payload)
    number = message.get("id") if isinstance(message.get("id"), int) else None
    code, wait = message.get("code"), message.get("retryAfter")
    if code == 429:
        return (Denial(Failure.RATE_LIMITED, "429", wait if isinstance(wait, int | float) else None),)
    if code == 403:
        return (Denial(Failure.EVICTED, str(message.get("message", "403: another connection is open"))),)
    match message.get("op"):
        case "pong":
            return (PongSaid(),)
        case "ping":
            return (PingAsked('{"op":"pong"}'),)
        case "subscribed" | "unsubscribed":
            return (Ack(number),)
        case "error":
            return (Refusal(number, str(message.get("message", ""))),)
    return ()


_IEX = Provider(
    name="iex",
    url="wss://cloud-ws.iexapis.com",
    channels={
        "quote": Channel(topic="tops:{symbol}", path="/v1/stream"),
        "trade": Channel(topic="last:{symbol}", path="/v1/stream"),
        "deep_trade": Channel(topic="trades:{symbol}", path="/v1/stream"),
        "depth": Channel(topic="book:{symbol}", path="/v1/stream"),
    },
    schema=Schema(
        Message(
            "quote",
            has=("bidPrice", "askPrice"),
            symbol="symbol",
            bid="bidPrice",
            bid_size="bidSize",
            ask="askPrice",
            ask_size="askSize",
            seq="seq",
            event_time=("lastUpdated", "ms"),
        ),
        # Both of DEEP. A book is taken for the whole of its levels: no rule for removals is documented.
        Message(
            "trade",
            match={"messageType": "trades"},
            channel="deep_trade",
            symbol="symbol",
            price="data.price",
            size="data.size",
            seq="seq",
            sequence="rising",
            event_time=("data.timestamp", "ms"),
        ),
        Message(
            "depth",
            match={"messageType": "book"},
            symbol="symbol",
            bids="data.bids",
            asks="data.asks",
            level=("price", "size"),
            seq="seq",
            sequence="rising",
            snapshot=True,
        ),
        Message(
            "trade",
            has=("price", "time"),
            symbol="symbol",
            price="price",
            size="size",
            seq="seq",
            sequence="rising",
            event_time=("time", "ms"),
        ),
        Message("control", has=("op",)),
        Message("control", has=("code",)),
        name="iex",
    ),
    dialect=Dialect(
        subscribe=_request("subscribe"),
        unsubscribe=_request("unsubscribe"),
        read=_read,
        ping=lambda _number, _utc: _PING,
        group=_channel_of,
    ),
    beats=Beats(interval=27.5, timeout=10.0),
    backoff=Backoff(ladder=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0), max_retries=10),
    limits=Limits(connections=1),
    auth=Auth(env={"api_key": "IEX_TOKEN"}, query={"token": "{api_key}"}),
    symbol=r"[A-Z][A-Z0-9.]*",
    example="AAPL",
    upper=True,
    pongs_promised=False,
    evidence=Evidence(
        grade="none for the conversation (retired in 2024, and no WebSocket); for the data what a client recorded",
        samples="the recorded data of iextrading4j",
        unchecked="its clients spoke server-sent events or socket.io, never this",
    ),
)

PROVIDERS = {"iex": _IEX}
