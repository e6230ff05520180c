"""TickDB's side of the conversation: commands without numbers, a ping of the client's, whole markets by compression.

Written from the official documentation (asyncapi 1.0.2 and the later pages, which differ where it is said). Errors of
the handshake are HTTP 401 with the code in its body. Pure: text in, text out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastfeed.lab.stage import DEPTH, QUOTE, TRADE, Asked, Desk, Event, Refused, Said, Stage

CHANNELS = {"ticker": QUOTE, "trade": TRADE, "depth": DEPTH}
UNIVERSES = {"US_Stock": ".US", "HK_Stock": ".HK", "CN_Stock": ".SH"}
ARRAY = 500  # tickers in one message of a whole market


def _said(command: str, code: int, message: str, data: object = None) -> str:
    return json.dumps({"cmd": command, "code": code, "message": message, **({} if data is None else {"data": data})})


def _is_forex(symbol: str) -> bool:
    return re.fullmatch("[A-Z]{6}", symbol) is not None


class TickdbDesk(Desk):
    """One connection to `/v1/realtime`. The key is `keys["api_key"]`; without one, any is accepted."""

    kinds = (QUOTE, TRADE)
    connections = 1  # of the two smaller plans
    evicts = "newest"
    streams = 50  # of the second smallest plan
    compresses = True

    def __init__(self, stage: Stage, asked: Asked) -> None:
        super().__init__(stage, asked)
        self._universes: dict[str, str] = {}  # their names, and how their symbols end

    @classmethod
    def admits(cls, stage: Stage, asked: Asked) -> Refused | None:
        if asked.path != "/v1/realtime":
            return Refused(404)
        key = asked.query.get("api_key", "")
        if not key:
            return Refused(401, '{"code":1002,"message":"Token is required"}')
        if stage.keys.get("api_key", key) != key:
            return Refused(401, '{"code":1001,"message":"Invalid or expired token"}')
        return None

    @classmethod
    def answers(cls, stage: Stage, asked: Asked) -> tuple[int, Mapping[str, str], bytes] | None:
        """`/v1/connections`: those that are open or half dead, which may be freed."""
        head, _, number = asked.path.rstrip("/").partition("/v1/connections")
        if head or not asked.path.startswith("/v1/connections"):
            return None
        key = asked.headers.get("x-api-key", "")
        if not key or stage.keys.get("api_key", key) != key:
            return 401, {}, b'{"code":1001,"message":"Invalid or expired token"}'
        if asked.method == "DELETE" and number:
            stage.ghosts.clear()
        count = len(stage.seats) + len(stage.ghosts)
        return 200, {"Content-Type": "application/json"}, json.dumps({"code": 0, "data": [*range(count)]}).encode()

    def hear(self, message: Said) -> list[Said]:
        try:
            request: Any = json.loads(message)
            command = request["cmd"]
            data = request.get("data") or {}
            channel, symbols = data.get("channel"), [str(symbol) for symbol in data.get("symbols", ())]
        except (ValueError, KeyError, TypeError, AttributeError):
            return [_said("error", 4002, "Invalid message format")]
        if command == "ping":
            if set(request) != {"cmd"}:
                return [_said("ping", 4002, "Invalid message format")]
            return [_said("pong", 0, "pong", {"timestamp": self.stage.utc_ns() // 1_000_000})]
        if command not in ("subscribe", "unsubscribe"):
            return [_said(str(command), 4001, "Unknown command")]
        if "universes" in data:
            return [self._serve_universes(command, data)]
        if channel not in CHANNELS or not symbols:
            return [_said(command, 2001, "Invalid parameters")]
        return [self._serve(command, channel, symbols, data)]

    def _serve(self, command: str, channel: str, symbols: Sequence[str], data: object) -> str:
        wanted = [(CHANNELS[channel], symbol) for symbol in symbols]
        if command == "unsubscribe":
            for key in wanted:
                self.subscribed.pop(key, None)
            return _said(command, 0, "success", data)
        unknown = [symbol for symbol in symbols if symbol not in self.stage.symbols]
        if unknown:
            return _said(command, 2002, f"Symbol not found: {unknown[0]}")
        if channel != "ticker" and any(map(_is_forex, symbols)):
            return _said(command, 4003 if channel == "depth" else 4004, f"No {channel} for this market")
        if self.stage.streams is not None and len({*self.subscribed, *wanted}) > self.stage.streams:
            return _said(command, 3004, "Subscription limit exceeded")
        self.subscribed.update(dict.fromkeys(wanted))
        return _said(command, 0, "success", data)

    def _serve_universes(self, command: str, data: Mapping[str, Any]) -> str:
        names = [name for name in data["universes"] if name in UNIVERSES]
        if not names or data.get("channels") != ["ticker"]:
            return _said(command, 2001, "Invalid parameters")
        if not self.compressed:
            return _said(command, 2008, "Compression is required")
        for name in names:
            if command == "unsubscribe":
                self._universes.pop(name, None)
                continue
            self._universes[name] = UNIVERSES[name]
            # Those of this market that were asked for one by one end with it.
            self.subscribed = {key: None for key in self.subscribed if not key[1].endswith(UNIVERSES[name])}
        return _said(command, 0, "universe subscription successful" if command == "subscribe" else "success", data)

    def evicted(self) -> list[Said]:
        self.close = (1008, "")
        return [_said("error", 3003, "Connection limit exceeded")]

    def overrun(self) -> list[Said]:
        return self.limited(1.0)

    def limited(self, seconds: float) -> list[Said]:
        # Retry-After is a header of HTTP; no message has it.
        self.close = (1008, "")
        return [_said("error", 3001, "Rate limit exceeded")]

    def expired(self) -> list[Said]:
        self.close = (1008, "")
        return [_said("error", 1001, "Invalid or expired token")]

    def wants(self, event: Event) -> bool:
        return super().wants(event) or self._is_whole(event)

    def _is_whole(self, event: Event) -> bool:
        return event.kind == QUOTE and event.symbol.endswith(tuple(self._universes.values())) and bool(self._universes)

    def render(self, events: Sequence[Event]) -> list[Said]:
        """One message each, those of a whole market in arrays."""
        whole = [self._told(event) for event in events if self._is_whole(event)]
        arrays: list[Said] = [json.dumps(whole[at : at + ARRAY]) for at in range(0, len(whole), ARRAY)]
        return [*arrays, *(json.dumps(self._told(event)) for event in events if not self._is_whole(event))]

    def _told(self, event: Event) -> Mapping[str, Any]:
        ms = event.utc_ns // 1_000_000
        if event.kind == TRADE:
            side = ("buy", "sell", "neutral")[2 if event.number % 7 == 0 else event.sells]
            print_ = {"price": f"{event.price:.3f}", "quantity": f"{event.size:.0f}", "side": side}
            head = {"symbol": event.symbol, "type": "stock" if "." in event.symbol else "crypto"}
            if event.symbol.endswith((".SH", ".SZ")):  # one, flat, without a number
                return {"cmd": "trade", "data": {**head, **print_, "timestamp": ms}}
            return {"cmd": "trade", "data": {**head, "trades": [{"id": str(event.number), **print_, "timestamp": ms}]}}
        if event.kind == DEPTH:
            bids, asks = [[f"{event.bid:.2f}", str(event.bid_size)]], [[f"{event.ask:.2f}", str(event.ask_size)]]
            return {"cmd": "depth", "data": {"symbol": event.symbol, "bids": bids, "asks": asks, "timestamp": ms}}
        data = {"symbol": event.symbol, "last_price": f"{event.price:.8f}"}
        if _is_forex(event.symbol):
            spread = f"{event.ask - event.bid:.5f}"
            sides = {"ask_price": f"{event.ask:.5f}", "bid_price": f"{event.bid:.5f}", "spread": spread, "exchange": 48}
            return {"cmd": "ticker", "data": {**data, **sides, "timestamp": ms}}
        return {"cmd": "ticker", "data": {**data, "volume_24h": "23737.52989000", "timestamp": ms}}
