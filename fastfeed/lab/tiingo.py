"""Tiingo's side of the forex conversation: the key in every request, numbered subscriptions, positional arrays.

Written from the documentation of `/fx`. What ends a connection whose key is not accepted is an "E" message and a close.
An unsubscribe needs the number of the subscription. Pure: text in, text out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fastfeed.lab.stage import QUOTE, Asked, Desk, Event, Refused, Said, Stage


def _said(kind: str, code: int, message: str, **more: Any) -> str:
    return json.dumps({"messageType": kind, "response": {"code": code, "message": message}, **more})


class TiingoDesk(Desk):
    """One connection to `/fx`. The key is `keys["api_key"]`; without one, any is accepted."""

    kinds = (QUOTE,)
    beat_every = 30.0  # not documented, as seen

    def __init__(self, stage: Stage, asked: Asked) -> None:
        super().__init__(stage, asked)
        self._numbers = 2_563_396 + 1000 * stage.dials
        self._subscriptions: dict[int, dict[str, None]] = {}  # tickers, in capitals here, by number

    @classmethod
    def admits(cls, stage: Stage, asked: Asked) -> Refused | None:
        return None if asked.path.rstrip("/") == "/fx" else Refused(404)

    def hear(self, message: Said) -> list[Said]:
        try:
            request: Any = json.loads(message)
            event, key = request["eventName"], request["authorization"]
            wish = request.get("eventData") or {}
            tickers = [str(ticker) for ticker in wish.get("tickers", ())]
            number = wish.get("subscriptionId")
        except (ValueError, KeyError, TypeError, AttributeError):
            return [_said("E", 400, "invalid message")]
        if self.stage.keys.get("api_key", key) != key or not key:
            self.close = (1000, "")
            return [_said("E", 403, "Not authorized")]
        if event == "subscribe":
            return [self._subscribe(number, tickers, wish.get("thresholdLevel"))]
        if event == "unsubscribe" and number in self._subscriptions:
            for ticker in tickers or list(self._subscriptions[number]):
                self._subscriptions[number].pop(ticker.upper(), None)
            return [self._listed(number)]
        return [_said("E", 400, f"no such subscription: {number}" if event == "unsubscribe" else f"unknown {event}")]

    def _subscribe(self, number: int | None, tickers: Sequence[str], level: object) -> str:
        new = number is None
        if number is None:
            self._numbers += 1
            number = self._numbers
        self._subscriptions.setdefault(number, {}).update(dict.fromkeys(ticker.upper() for ticker in tickers))
        self._keep()
        return _said("I", 200, "Success", data={"subscriptionId": number}) if new else self._listed(number)

    def _listed(self, number: int) -> str:
        self._keep()
        tickers = [ticker.lower() for ticker in self._subscriptions[number]]
        return _said("I", 200, "Success", data={"tickers": tickers, "thresholdLevel": "5"})

    def _keep(self) -> None:
        wanted = [ticker for tickers in self._subscriptions.values() for ticker in tickers]
        self.subscribed = dict.fromkeys((QUOTE, ticker) for ticker in wanted)

    def beat(self) -> list[Said]:
        return [_said("H", 200, "HeartBeat")]

    def expired(self) -> list[Said]:
        self.close = (1000, "")
        return [_said("E", 403, "Not authorized")]

    def render(self, events: Sequence[Event]) -> list[Said]:
        """One message each: type, ticker, time, bid size, bid, mid, ask size, ask."""
        return [json.dumps(self._told(event)) for event in events]

    def _told(self, event: Event) -> Mapping[str, Any]:
        time = datetime.fromtimestamp(event.utc_ns // 1_000_000 / 1000, UTC)
        stamp = time.isoformat(timespec="microseconds")
        mid = (event.bid + event.ask) / 2
        sizes = event.bid_size * 1e6, event.ask_size * 1e6
        data = ["Q", event.symbol.lower(), stamp, sizes[0], event.bid, mid, sizes[1], event.ask]
        return {"messageType": "A", "service": "fx", "data": data}
