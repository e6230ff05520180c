"""Polygon's (Massive's) side of the conversation: a greeting, a login, one status per parameter, arrays of events.

Written from the published WebSocket specification and the official clients' mock servers. Pure: text in, text out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastfeed.lab.stage import BAR, DEPTH, QUOTE, TRADE, Asked, Desk, Event, Refused, Said, Stage

# By asset class: the prefix of a parameter, and what it stands for.
PREFIXES: dict[str, dict[str, str]] = {
    "stocks": {"T": TRADE, "Q": QUOTE, "AM": BAR},
    "options": {"T": TRADE, "Q": QUOTE, "AM": BAR},
    "futures": {"T": TRADE, "Q": QUOTE, "AM": BAR},
    "forex": {"C": QUOTE, "CA": BAR},
    "crypto": {"XT": TRADE, "XQ": QUOTE, "XL2": DEPTH, "XA": BAR},
    "indices": {"V": QUOTE, "AM": BAR},
}


def _status(status: str, message: str) -> dict[str, str]:
    return {"ev": "status", "status": status, "message": message}


class PolygonDesk(Desk):
    """One connection to `/stocks`, `/forex` and so on. The key is `keys["api_key"]`; without one, any is accepted."""

    kinds = (QUOTE, TRADE)

    def __init__(self, stage: Stage, asked: Asked) -> None:
        super().__init__(stage, asked)
        self.market = asked.path.strip("/").partition("/")[0]
        self.authorised = False

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
        if not self.authorised:
            return [json.dumps([_status("auth_failed", "not authorised")])]
        if action not in ("subscribe", "unsubscribe"):
            return [json.dumps([_status("error", f"unknown action {action}")])]
        return [json.dumps([self._serve(action, param)]) for param in params.split(",")]

    def _log_in(self, key: str) -> list[Said]:
        if self.stage.keys.get("api_key", key) != key:
            self.close = (1000, "")
            return [json.dumps([_status("auth_failed", "authentication failed")])]
        self.authorised = True
        return [json.dumps([_status("auth_success", "authenticated")])]

    def _serve(self, action: str, param: str) -> dict[str, str]:
        prefix, _, symbol = param.partition(".")
        kind = PREFIXES[self.market].get(prefix)
        if kind is None or not symbol:
            return _status("error", f"invalid parameter: {param}")
        if action == "subscribe":
            self.subscribed[kind, symbol] = None
            return _status("success", f"subscribed to: {param}")
        self.subscribed.pop((kind, symbol), None)
        return _status("success", f"unsubscribed to: {param}")

    def evicted(self) -> list[Said]:
        self.close = (1008, "")
        return [
            json.dumps(
                [
                    _status(
                        "max_connections",
                        "Maximum number of websocket connections exceeded. You have reached the connection limit for "
                        "your account.",
                    )
                ]
            )
        ]

    def render(self, events: Sequence[Event]) -> list[Said]:
        """Everything that is due in one array, as a client that lags gets it."""
        return [json.dumps([self._told(event) for event in events])]

    def _told(self, event: Event) -> dict[str, Any]:
        ms = event.utc_ns // 1_000_000
        if self.market == "forex":
            return {"ev": "C", "p": event.symbol, "x": "44", "a": event.ask, "b": event.bid, "t": ms}
        if self.market == "indices":
            return {"ev": "V", "val": event.price, "T": event.symbol, "t": ms}
        if self.market == "crypto":
            if event.kind == TRADE:
                side = 1 if event.sells else 2
                head = {"ev": "XT", "pair": event.symbol, "p": event.price, "t": ms, "s": event.size}
                return {**head, "c": [side], "i": event.number, "x": 1, "r": ms}
            head = {"ev": "XQ", "pair": event.symbol, "bp": event.bid, "bs": event.bid_size}
            return {**head, "ap": event.ask, "as": event.ask_size, "t": ms, "x": 1, "r": ms}
        if event.kind == TRADE:
            head = {"ev": "T", "sym": event.symbol, "i": str(event.number), "x": 10, "p": event.price}
            # `q` rises with holes.
            return {**head, "s": int(event.size), "c": [14], "t": ms, "q": 3 * event.number, "z": 3}
        head = {"ev": "Q", "sym": event.symbol, "bx": 4, "bp": event.bid, "bs": int(event.bid_size), "ax": 7}
        return {**head, "ap": event.ask, "as": int(event.ask_size), "t": ms, "q": 3 * event.number, "z": 3}
