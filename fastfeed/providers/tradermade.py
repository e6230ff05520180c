"""TraderMade forex, the second version of its stream. Data only.

Source: three independent clients of `stream.tradermade.com/feedAdv` (2026); the documentation still shows the first
version, `marketdata.tradermade.com/feedadv` with a plain `Connected` and one request for all symbols, whose quotes are
read here too. Heartbeats are not documented: the protocol's pings and the data's own silence have to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastfeed.credentials import Auth
from fastfeed.dialect import Ack, Denial, Dialect, Refusal, Reply, Welcome
from fastfeed.failures import Failure
from fastfeed.providers import Channel, Evidence, Provider
from fastfeed.schema import Message, Schema
from fastfeed.staleness import fx_week
from fastfeed.subscriptions import Limits
from fastfeed.text import JSONDecodeError, dumps, loads


def _subscribe(_: int, topics: Sequence[str]) -> str:
    return dumps({"action": "subscribe", "symbols": list(topics), "send_last": True}).decode()


def _unsubscribe(_: int, topics: Sequence[str]) -> str:
    return dumps({"action": "unsubscribe", "symbols": list(topics)}).decode()


def _login(known: Mapping[str, str]) -> tuple[str, ...]:
    return (dumps({"action": "login", "key": known["api_key"], "fmt": "JSON"}).decode(),)


def _read(payload: bytes) -> tuple[Reply, ...]:
    try:
        message = loads(payload)
    except JSONDecodeError:
        # The first version says "User Key Used to many times" in plain text.
        return (Denial(Failure.EVICTED, payload.decode(errors="replace")),) if b"User Key" in payload else ()
    return tuple(_replies(message)) if isinstance(message, dict) else ()


def _replies(message: Mapping[str, object]) -> Iterator[Reply]:
    match message.get("type"):
        case "login_ok":
            yield Welcome()
        case "login_reject":
            yield Denial(Failure.AUTH, str(message.get("reason") or message.get("message") or "login rejected"))
        case "sub_ack" | "unsub_ack":
            if accepted := _names(message.get("accepted")):
                yield Ack(topics=accepted)
            reasons = message.get("denied_reasons")
            for symbol in _names(message.get("denied")):
                reason = reasons.get(symbol) if isinstance(reasons, dict) else None
                yield Refusal(None, str(reason or "denied"), topics=(symbol,))


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


_TRADERMADE = Provider(
    name="tradermade",
    url="wss://stream.tradermade.com",
    channels={"quote": Channel(topic="{symbol}:QUOTE", path="/feedAdv")},
    schema=Schema(
        # `t` is QUOTE, or LAST_QUOTE for what was sent before the subscription. Times as in FIX, UTC.
        Message("quote", has=("t", "s"), symbol="s", bid="b", bid_size="bv", ask="a", ask_size="av", event_time="ts"),
        # The first version: seconds as text, no sizes.
        Message("quote", has=("mid",), symbol="symbol", bid="bid", ask="ask", event_time="ts"),
        Message("control", has=("type",)),
        name="tradermade",
        plain=("Connected", "User Key Used to many times"),
    ),
    dialect=Dialect(subscribe=_subscribe, unsubscribe=_unsubscribe, read=_read),
    limits=Limits(connections=1),
    auth=Auth(env={"api_key": "TRADERMADE_API_KEY"}, login=_login),
    symbol=r"[A-Z0-9]+",
    example="EURUSD",
    upper=True,
    pongs_promised=False,
    hours=fx_week(),
    evidence=Evidence(
        grade="the code of three independent clients; official documentation for its first version",
        samples="one message of a client, one of the official documentation",
        unchecked="the official client speaks the first version of the stream only",
    ),
)

PROVIDERS = {"tradermade": _TRADERMADE}
