"""Finnhub: trades of stocks, forex and crypto over one socket. Data only.

Sources: finnhub.io's documentation as transcribed by third parties, the tracker finnhubio/Finnhub-API and dated live
observations; no official client implements the stream, so all of it is weaker evidence than the other providers'.
There are no acks: a subscription is known to work by its data. The server says `{"type":"ping"}` about every minute and
wants no answer (those who answer are cut off no less); it shows that the socket lives, never that data does. Nothing
carries an id or a number: trades cannot be told apart exactly, and order within a frame is not that of time.

Condition codes are of Finnhub's own table, not Polygon's ids: trades of one share come with "12", here an odd lot.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastfeed.backoff import Backoff
from fastfeed.credentials import Auth
from fastfeed.dialect import Beat, Dialect, Refusal, Reply
from fastfeed.failures import Failure
from fastfeed.heartbeat import Beats
from fastfeed.providers import Channel, Evidence, Provider
from fastfeed.schema import Message, Schema
from fastfeed.subscriptions import Limits, Render
from fastfeed.text import dumps, mapping


def _request(kind: str) -> Render:
    def render(_: int, topics: Sequence[str]) -> str:
        (symbol,) = topics
        return dumps({"type": kind, "symbol": symbol}).decode()

    return render


def _read(payload: bytes) -> tuple[Reply, ...]:
    message = mapping(payload)
    if message.get("type") == "ping":
        return (Beat(),)
    if message.get("type") == "error":  # "Subscribing to too many symbols": it does not say which
        return (Refusal(None, str(message.get("msg", ""))),)
    return ()


# Finnhub's table of trade conditions (the sheet its documentation links to, as two repositories transcribe it), and of
# each whether it updates the last price by the CTS and UTP specifications; see polygon.py.
_NOT_LAST = ("3", "5", "9", "10", "12", "16", "17", "20", "21", "22", "24", "25", "26", "30", "32", "37")

_FINNHUB = Provider(
    name="finnhub",
    url="wss://ws.finnhub.io",
    channels={"trade": Channel(topic="{symbol}", path="/")},
    schema=Schema(
        Message(
            "trade",
            match={"type": "trade"},
            each="data",
            symbol="s",
            price="p",
            size="v",
            event_time=("t", "ms"),
            conditions="c",
            not_last=_NOT_LAST,
        ),
        Message("control", has=("type",)),
        name="finnhub",
    ),
    dialect=Dialect(subscribe=_request("subscribe"), unsubscribe=_request("unsubscribe"), read=_read, acks=False),
    limits=Limits(
        streams_per_connection=50,  # of the free plan; the 51st is refused or silent
        streams_per_request=1,
        connections=1,  # per key: a second one has been seen to end both
        eviction_cool_down=60.0,
    ),
    beats=Beats(expected=150.0),  # the pings come every 60 to 120 s
    backoff=Backoff(ladder=(3.0, 5.0, 10.0, 30.0)),  # no sooner: the old socket has to die first, or both do
    pongs_promised=False,
    close_codes={1008: Failure.EVICTED},  # unverified; the one policy it is known to enforce is one connection a key
    auth=Auth(env={"api_key": "FINNHUB_API_KEY"}, query={"token": "{api_key}"}),
    symbol=r"\S[^\n]*",  # "IC MARKETS:1" has a space
    example="BINANCE:BTCUSDT",
    evidence=Evidence(
        grade="documentation as transcribed by others, and dated observations",
        samples="messages in the provider's issue tracker",
        unchecked="the official client has no stream, only HTTP",
    ),
)

PROVIDERS = {"finnhub": _FINNHUB}
