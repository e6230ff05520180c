"""Finnhub's side of the conversation: a key in the URL, one symbol a request, no answers, trades in batches.

Written from the documentation as third parties have transcribed it and from dated observations: no official client
speaks this. Which close code ends a connection too many is not known; 1008 is used. Pure: text in, text out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastfeed.lab.stage import TRADE, Asked, Desk, Event, Refused, Said, Stage


class FinnhubDesk(Desk):
    """One connection to `/`. The key is `keys["api_key"]`; without one, any is accepted."""

    kinds = (TRADE,)
    beat_every = 60.0
    connections = 1
    evicts = "both"  # as observed: a second connection of the key ends the first and itself
    streams = 50  # of the free plan

    def __init__(self, stage: Stage, asked: Asked) -> None:
        super().__init__(stage, asked)
        self._told = 0  # messages, which are not all of one shape

    @classmethod
    def admits(cls, stage: Stage, asked: Asked) -> Refused | None:
        key = asked.query.get("token", "")
        return None if key and stage.keys.get("api_key", key) == key else Refused(401, "Invalid API key")

    def hear(self, message: Said) -> list[Said]:
        try:
            request: Any = json.loads(message)
            kind, symbol = request["type"], str(request["symbol"])
        except (ValueError, KeyError, TypeError):
            return []
        if kind == "unsubscribe":
            self.subscribed.pop((TRADE, symbol), None)
        elif kind == "subscribe" and (TRADE, symbol) not in self.subscribed:
            if self.stage.streams is not None and len(self.subscribed) >= self.stage.streams:
                # It does not say which symbol.
                return ['{"type":"error","msg":"Subscribing to too many symbols"}']
            self.subscribed[TRADE, symbol] = None
        return []

    def beat(self) -> list[Said]:
        return ['{"type":"ping"}']

    def expired(self) -> list[Said]:
        self.close = (1000, "")
        return []

    def render(self, events: Sequence[Event]) -> list[Said]:
        """All of them in one message, the newest first now and then: order within a message is not that of time."""
        self._told += 1
        ordered = list(events) if self._told % 3 else list(reversed(events))
        return [json.dumps({"data": [self._trade(event) for event in ordered], "type": "trade"})]

    def _trade(self, event: Event) -> dict[str, Any]:
        told: dict[str, Any] = {"p": event.price, "s": event.symbol, "t": event.utc_ns // 1_000_000, "v": event.size}
        # Conditions are codes, null, or left out.
        codes: tuple[Any, ...] = (["1", "8", "24", "12"], None, [], ...)
        condition = codes[event.number % len(codes)]
        return told if condition is ... else {"c": condition, **told}
