"""Tiingo forex: top of book as positional arrays of JSON floats. Data only.

Source: api.tiingo.com's documentation of `/fx`. The key goes with every request. The field list sometimes quoted with
ask price and size the other way round is wrong; documented is [type, ticker, time, bid size, bid, mid, ask size, ask].
No sequence: an older time never replaces a newer one, and what a cut connection missed is a window of time. The answer
to the first request numbers the subscription; what adds to it or takes from it names that number.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastfeed.credentials import Auth
from fastfeed.dialect import Ack, Beat, Denial, Dialect, Refusal, Reply
from fastfeed.failures import Failure
from fastfeed.heartbeat import Beats
from fastfeed.providers import Channel, Evidence, Provider
from fastfeed.schema import Message, Schema, Symbol
from fastfeed.staleness import fx_week
from fastfeed.subscriptions import Limits, Render
from fastfeed.text import dumps, loads, mapping

_KEY = "<api key>"  # what a request says until it is sent


def _request(event: str) -> Render:
    def render(_: int, topics: Sequence[str]) -> str:
        # Level 5 is top of book at every change.
        wish = {"thresholdLevel": 5, "tickers": list(topics)}
        return dumps({"eventName": event, "authorization": _KEY, "eventData": wish}).decode()

    return render


def _numbered(request: str | bytes, number: int) -> str:
    said = loads(request)
    said["eventData"]["subscriptionId"] = number
    return dumps(said).decode()


def _read(payload: bytes) -> tuple[Reply, ...]:
    message = mapping(payload)
    kind, response = message.get("messageType"), message.get("response")
    said = response if isinstance(response, dict) else {}
    if kind == "I":
        data = message.get("data")
        number = data.get("subscriptionId") if isinstance(data, dict) else None
        return (Ack(number=number if isinstance(number, int) else None),)
    if kind == "H":
        return (Beat(),)
    if kind == "E":
        reason = f"{said.get('message')} (code {said.get('code')})"
        return (Denial(Failure.AUTH, reason),) if said.get("code") in (401, 403) else (Refusal(None, reason),)
    return ()


_TIINGO = Provider(
    name="tiingo-fx",
    url="wss://api.tiingo.com",
    channels={"quote": Channel(topic="{lower}", path="/fx", all="*")},
    schema=Schema(
        Message(
            "quote",
            match={"messageType": "A", "service": "fx", "data.0": "Q"},
            symbol=Symbol("data.1", upper=True),
            event_time=("data.2", "iso"),
            bid_size="data.3",
            bid="data.4",
            ask_size="data.6",
            ask="data.7",
        ),
        Message("control", has=("messageType",)),
        name="tiingo-fx",
    ),
    dialect=Dialect(
        subscribe=_request("subscribe"), unsubscribe=_request("unsubscribe"), read=_read, numbered=_numbered
    ),
    beats=Beats(expected=90.0),  # the interval is not documented; about 30 s has been seen
    limits=Limits(connections=1),
    auth=Auth(env={"api_key": "TIINGO_API_KEY"}, stamps={_KEY: "{api_key}"}),
    symbol=r"[A-Z0-9]+",
    example="EURUSD",
    upper=True,
    pongs_promised=False,
    hours=fx_week(),
    evidence=Evidence(
        grade="official documentation", samples="official documentation; an error as captured", checked_by=("tiingo",)
    ),
)

PROVIDERS = {"tiingo-fx": _TIINGO}
