"""Polygon's (Massive's) side of the conversation: a greeting, a login, one status per parameter, arrays of events.

Written from the published WebSocket specification and the official clients' mock servers, for what happens to one
connection too many from what several users have seen. Pure: text in, text out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from fastfeed.lab.stage import BAR, DEPTH, QUOTE, TRADE, Asked, Desk, Event, Refused, Said, Stage

SECOND_BAR, FAIR_VALUE = "second_bar", "fair_value"

_BARS = {"AM": BAR, "A": SECOND_BAR}
# By asset class: the prefix of a parameter, and what it stands for.
PREFIXES: dict[str, dict[str, str]] = {
    "stocks": {"T": TRADE, "Q": QUOTE, "FMV": FAIR_VALUE, **_BARS},
    "options": {"T": TRADE, "Q": QUOTE, "FMV": FAIR_VALUE, **_BARS},
    "futures": {"T": TRADE, "Q": QUOTE, **_BARS},
    "forex": {"C": QUOTE, "CA": BAR, "CAS": SECOND_BAR, "FMV": FAIR_VALUE},
    "crypto": {"XT": TRADE, "XQ": QUOTE, "XL2": DEPTH, "XA": BAR, "XAS": SECOND_BAR, "FMV": FAIR_VALUE},
    "indices": {"V": QUOTE, **_BARS},
}
CONTRACTS = 1000  # of options that one connection may have quotes of; and no wildcard


def _status(status: str, message: str) -> dict[str, str]:
    return {"ev": "status", "status": status, "message": message}


class PolygonDesk(Desk):
    """One connection to `/stocks`, `/forex` and so on. The key is `keys["api_key"]`; without one, any is accepted."""

    kinds = (QUOTE, TRADE)
    connections = 1  # of an account, whatever the host; which one ends has been seen to vary

    def __init__(self, stage: Stage, asked: Asked) -> None:
        super().__init__(stage, asked)
        self.market = asked.path.strip("/").partition("/")[0]
        self.counts = False  # before the login

    @classmethod
    def admits(cls, stage: Stage, asked: Asked) -> Refused | None:
        return None if asked.path.strip("/").partition("/")[0] in PREFIXES else Refused(404)

    def greet(self) -> list[Said]:
        return [json.dumps([_status("connected", "Connected Successfully")])]

    def hear(self, message: Said) -> list[Said]:
        try:
            request: Any = json.loads(message)
            action, params = request["action"], str(request.get("params", ""))
        except (ValueError, KeyError, TypeError):
            return [json.dumps([_status("error", "invalid message")])]
        if action == "auth":
            return self._log_in(params)
        if not self.counts:
            return [json.dumps([_status("auth_failed", "not authorised")])]
        if action == "pong":
            return []
        if action not in ("subscribe", "unsubscribe"):
            return [json.dumps([_status("error", f"unknown action {action}")])]
        return [json.dumps([self._serve(action, param)]) for param in params.split(",")]

    def _log_in(self, key: str) -> list[Said]:
        if self.stage.keys.get("api_key", key) != key:
            return self.expired()
        self.counts = True
        return [json.dumps([_status("auth_success", "authenticated")])]

    def _serve(self, action: str, param: str) -> dict[str, str]:
        prefix, _, symbol = param.partition(".")
        kind = PREFIXES[self.market].get(prefix)
        if kind is None or not symbol:
            return _status("error", f"invalid parameter: {param}")
        if action == "unsubscribe":
            self.subscribed.pop((kind, symbol), None)
            return _status("success", f"unsubscribed to: {param}")
        many = symbol == "*" or sum(one == kind for one, _ in self.subscribed) >= CONTRACTS
        if self.market == "options" and kind in (QUOTE, FAIR_VALUE) and many:
            return _status("error", f"not more than {CONTRACTS} contracts: {param}")
        self.subscribed[kind, symbol] = None
        return _status("success", f"subscribed to: {param}")

    def evicted(self) -> list[Said]:
        self.close = (1008, "")
        said = (
            "Maximum number of websocket connections exceeded. You have reached the connection limit for your account."
        )
        return [json.dumps([_status("max_connections", said)])]

    def expired(self) -> list[Said]:
        self.close = (1000, "")
        return [json.dumps([_status("auth_failed", "authentication failed")])]

    def render(self, events: Sequence[Event]) -> list[Said]:
        """Everything that is due in one array, as a client that lags gets it."""
        return [json.dumps([self._told(event) for event in events])]

    def _told(self, event: Event) -> dict[str, Any]:
        if event.kind in (BAR, SECOND_BAR):
            return self._bar(event)
        if event.kind == FAIR_VALUE:  # in nanoseconds, as the documentation says and one of two samples shows
            prefix = {"forex": "C:", "crypto": "X:"}.get(self.market, "")
            return {"ev": "FMV", "fmv": event.price, "sym": prefix + event.symbol.replace("/", ""), "t": event.utc_ns}
        spell: dict[str, Callable[[Event, int], dict[str, Any]]] = {
            "forex": _forex,
            "indices": _index,
            "crypto": _crypto,
            "futures": _future,
        }
        return spell.get(self.market, _share)(event, event.utc_ns // 1_000_000)

    def _bar(self, event: Event) -> dict[str, Any]:
        span, end = (60_000 if event.kind == BAR else 1000), event.utc_ns // 1_000_000
        names = {kind: prefix for prefix, kind in PREFIXES[self.market].items()}
        symbol = "pair" if self.market in ("forex", "crypto") else "sym"
        head = {"ev": names[event.kind], symbol: event.symbol, "o": event.bid, "h": event.ask, "l": event.bid}
        volume = {} if self.market == "indices" else {"v": event.size, "vw": event.price, "z": 73}
        return {**head, "c": event.price, **volume, "s": end - span, "e": end}


def _share(event: Event, ms: int) -> dict[str, Any]:
    # `q` rises with holes.
    if event.kind == TRADE:
        head = {"ev": "T", "sym": event.symbol, "i": str(event.number), "x": 10, "p": event.price}
        return {**head, "s": int(event.size), "c": [14], "t": ms, "q": 3 * event.number, "z": 3}
    head = {"ev": "Q", "sym": event.symbol, "bx": 4, "bp": event.bid, "bs": int(event.bid_size), "ax": 7}
    return {**head, "ap": event.ask, "as": int(event.ask_size), "t": ms, "q": 3 * event.number, "z": 3}


def _future(event: Event, ms: int) -> dict[str, Any]:
    if event.kind == TRADE:
        head = {"ev": "T", "sym": event.symbol, "p": event.price, "s": int(event.size)}
        return {**head, "t": ms, "q": 3 * event.number}
    bid = {"bp": event.bid, "bs": int(event.bid_size), "bt": ms - 10}
    ask = {"ap": event.ask, "as": int(event.ask_size), "at": ms - 20}
    return {"ev": "Q", "sym": event.symbol, **bid, **ask, "t": ms}


def _forex(event: Event, ms: int) -> dict[str, Any]:
    return {"ev": "C", "p": event.symbol, "x": "44", "a": event.ask, "b": event.bid, "t": ms}


def _index(event: Event, ms: int) -> dict[str, Any]:
    return {"ev": "V", "val": event.price, "T": event.symbol, "t": ms}


def _crypto(event: Event, ms: int) -> dict[str, Any]:
    tail = {"t": ms, "x": 1, "r": ms}
    if event.kind == TRADE:
        head = {"ev": "XT", "pair": event.symbol, "p": event.price, "s": event.size}
        return {**head, "c": [1 if event.sells else 2], "i": event.number, **tail}
    if event.kind == DEPTH:
        sides = {"b": [[event.bid, event.bid_size]], "a": [[event.ask, event.ask_size]]}
        return {"ev": "XL2", "pair": event.symbol, **sides, **tail}
    head = {"ev": "XQ", "pair": event.symbol, "bp": event.bid, "bs": event.bid_size}
    return {**head, "ap": event.ask, "as": event.ask_size, **tail}
