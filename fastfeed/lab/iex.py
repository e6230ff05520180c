"""IEX Cloud's side, retired in 2024, as practice tells it: a JSON ping of the client's, 429 and 403 as messages.

No page documents it as a WebSocket: the service streamed server-sent events. The words of a request have no source but
the programs written for it; the data messages are those of the recorded TOPS, last and DEEP streams. Pure: text in,
text out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastfeed.lab.stage import DEPTH, QUOTE, TRADE, Asked, Desk, Event, Refused, Said, Stage

DEEP_TRADE = "deep_trade"
CHANNELS = {"tops": QUOTE, "last": TRADE, "trades": DEEP_TRADE, "book": DEPTH}


class IexDesk(Desk):
    """One connection to `/v1/stream`. The token is `keys["api_key"]`; without one, any is accepted."""

    kinds = (QUOTE, TRADE)
    connections = 1
    evicts = "newest"

    @classmethod
    def admits(cls, stage: Stage, asked: Asked) -> Refused | None:
        if asked.path != "/v1/stream":
            return Refused(404)
        token = asked.query.get("token", "")
        return None if token and stage.keys.get("api_key", token) == token else Refused(401, "The API key is not valid")

    def hear(self, message: Said) -> list[Said]:
        try:
            request: Any = json.loads(message)
            op, number = request["op"], request.get("id")
        except (ValueError, KeyError, TypeError, AttributeError):
            return ['{"op":"error","message":"invalid message"}']
        if op == "ping":
            return ['{"op":"pong"}']
        kind = CHANNELS.get(request.get("channel"))
        if op not in ("subscribe", "unsubscribe") or kind is None:
            return [json.dumps({"op": "error", "id": number, "message": "unknown request"})]
        for symbol in request.get("symbols", ()):
            if op == "subscribe":
                self.subscribed[kind, str(symbol)] = None
            else:
                self.subscribed.pop((kind, str(symbol)), None)
        return [json.dumps({"op": f"{op}d", "id": number})]

    def evicted(self) -> list[Said]:
        self.close = (1008, "")
        return ['{"code":403,"message":"another connection is open"}']

    def overrun(self) -> list[Said]:
        return self.limited(1.0)

    def limited(self, seconds: float) -> list[Said]:
        self.close = (1008, "")
        return [json.dumps({"code": 429, "retryAfter": seconds})]

    def render(self, events: Sequence[Event]) -> list[Said]:
        """One message each."""
        return [json.dumps(self._told(event)) for event in events]

    def _told(self, event: Event) -> Mapping[str, Any]:
        ms = event.utc_ns // 1_000_000
        if event.kind == TRADE:
            head = {"symbol": event.symbol, "price": event.price, "size": int(event.size)}
            return {**head, "time": ms, "seq": event.number}
        if event.kind == DEEP_TRADE:
            data: dict[str, Any] = {
                "price": event.price,
                "size": int(event.size),
                "tradeId": event.number,
                "isISO": True,
            }
            head = {"symbol": event.symbol, "messageType": "trades"}
            return {**head, "data": {**data, "timestamp": ms}, "seq": event.number}
        if event.kind == DEPTH:
            bids = [{"price": event.bid, "size": int(event.bid_size), "timestamp": ms}]
            asks = [{"price": event.ask, "size": int(event.ask_size), "timestamp": ms}]
            head = {"symbol": event.symbol, "messageType": "book"}
            return {**head, "data": {"bids": bids, "asks": asks}, "seq": event.number}
        head = {"symbol": event.symbol, "sector": "technologyhardwareequipment", "securityType": "commonstock"}
        bid = {"bidPrice": event.bid, "bidSize": int(event.bid_size)}
        ask = {"askPrice": event.ask, "askSize": int(event.ask_size)}
        last = {"lastSalePrice": event.price, "lastSaleSize": int(event.size), "lastSaleTime": ms}
        return {**head, **bid, **ask, "lastUpdated": ms, **last, "marketPercent": 0.0325, "seq": event.number}
