"""TraderMade's side, the second version of its stream: a login, symbols with a suffix, every number a text.

Written from what three independent clients send and read; heartbeats and limits are not documented. Pure: text in,
text out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fastfeed.lab.stage import QUOTE, Asked, Desk, Event, Refused, Said, Stage

SUFFIX = ":QUOTE"


class TradermadeDesk(Desk):
    """One connection to `/feedAdv`. The key is `keys["api_key"]`; without one, any is accepted."""

    kinds = (QUOTE,)
    connections = 1
    streams = 54

    def __init__(self, stage: Stage, asked: Asked) -> None:
        super().__init__(stage, asked)
        self.counts = False  # before the login

    @classmethod
    def admits(cls, stage: Stage, asked: Asked) -> Refused | None:
        return None if asked.path == "/feedAdv" else Refused(404)

    def hear(self, message: Said) -> list[Said]:
        try:
            request: Any = json.loads(message)
            action = request["action"]
            symbols = [str(symbol) for symbol in request.get("symbols", ())]
        except (ValueError, KeyError, TypeError, AttributeError):
            return ['{"type":"error","message":"invalid message"}']
        if action == "login":
            return [self._log_in(str(request.get("key", "")))]
        if not self.counts or action not in ("subscribe", "unsubscribe"):
            return ['{"type":"error","message":"login first"}']
        return self._serve(action, symbols, send_last=bool(request.get("send_last")))

    def _log_in(self, key: str) -> str:
        if not key or self.stage.keys.get("api_key", key) != key:
            self.close = (1000, "")
            return '{"type":"login_reject","reason":"invalid key"}'
        self.counts = True
        return json.dumps({"type": "login_ok", "symbol_limit": self.stage.streams})

    def _serve(self, action: str, symbols: Sequence[str], *, send_last: bool) -> list[Said]:
        accepted, denied, last = [], {}, []
        for symbol in symbols:
            name = symbol.removesuffix(SUFFIX)
            if not symbol.endswith(SUFFIX) or name not in self.stage.symbols:
                denied[symbol] = "unknown symbol"
            elif action == "unsubscribe":
                self.subscribed.pop((QUOTE, name), None)
                accepted.append(symbol)
            elif self.stage.streams is not None and len({*self.subscribed, (QUOTE, name)}) > self.stage.streams:
                denied[symbol] = "symbol limit"
            else:
                self.subscribed[QUOTE, name] = None
                accepted.append(symbol)
                if send_last and (event := self.stage.last.get((QUOTE, name))) is not None:
                    last.append(json.dumps(self._told(event, "LAST_QUOTE")))
        kind = "sub_ack" if action == "subscribe" else "unsub_ack"
        reply = {"type": kind, "accepted": accepted, "denied": list(denied), "denied_reasons": denied}
        return [json.dumps(reply), *last]

    def evicted(self) -> list[Said]:
        self.close = (1008, "")
        return ["User Key Used to many times"]

    def expired(self) -> list[Said]:
        self.close = (1000, "")
        return ['{"type":"login_reject","reason":"key expired"}']

    def render(self, events: Sequence[Event]) -> list[Said]:
        """One message each."""
        return [json.dumps(self._told(event, "QUOTE")) for event in events]

    def _told(self, event: Event, kind: str) -> Mapping[str, Any]:
        time = datetime.fromtimestamp(event.utc_ns // 1_000_000 / 1000, UTC)
        stamp = f"{time:%Y%m%d-%H:%M:%S}.{event.utc_ns // 1_000_000 % 1000:03d}"
        ask = {"a": f"{event.ask:.9f}", "av": f"{event.ask_size:.0f}"}
        bid = {"b": f"{event.bid:.9f}", "bv": f"{event.bid_size:.0f}"}
        return {**ask, **bid, "s": event.symbol, "t": kind, "ts": stamp}
