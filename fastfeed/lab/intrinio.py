"""Intrinio's side of real-time equities: a token over HTTP, binary joins, batches of binary records, no word otherwise.

Written from the code of Intrinio's SDKs. What an error says is not documented; the texts here are made up. Without the
header that asks for the records of 2023 the older ones are sent, as is presumed of the service. Pure: bytes out.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence

from fastfeed.lab.stage import QUOTE, TRADE, Asked, Desk, Event, Refused, Said, Stage

IEX = 6  # the subprovider of every record here
TRADED, ASK, BID = range(3)
FULL = 255  # records of a frame
ROUND_LOT = 100
FIREHOSE = "$FIREHOSE"


class IntrinioDesk(Desk):
    """One connection to `/socket/websocket`, and the token's page. The key is `keys["api_key"]`; without it any."""

    kinds = (QUOTE, TRADE)

    def __init__(self, stage: Stage, asked: Asked) -> None:
        super().__init__(stage, asked)
        self.is_new = "v2" in (asked.headers.get("usenewequitiesformat"), asked.query.get("UseNewEquitiesFormat"))
        self._volume: dict[str, int] = {}

    @classmethod
    def admits(cls, stage: Stage, asked: Asked) -> Refused | None:
        if asked.path != "/socket/websocket":
            return Refused(404)
        return None if asked.query.get("token") in stage.tokens else Refused(401, "invalid token")

    @classmethod
    def answers(cls, stage: Stage, asked: Asked) -> tuple[int, Mapping[str, str], bytes] | None:
        """The token as plain text, for a key in the query or as HTTP Basic."""
        if asked.path != "/auth":
            return None
        key = asked.query.get("api_key")
        scheme, _, basic = asked.headers.get("authorization", "").partition(" ")
        if key is None and scheme == "Basic":
            key = base64.b64decode(basic).decode().partition(":")[0]
        if key is None or stage.keys.get("api_key", key) != key:
            return 401, {}, b"unauthorized"
        return 200, {"Content-Type": "text/plain"}, stage.issue().encode()

    def hear(self, message: Said) -> list[Said]:
        """Nothing is acknowledged. What is no join or leave, or not binary, is an error."""
        if isinstance(message, str) or len(message) < 3 or message[:1] not in (b"J", b"L"):
            return ["invalid message"]
        if message[:1] == b"L":
            symbol = _symbol(message[1:])
            for kind in (QUOTE, TRADE):
                self.subscribed.pop((kind, symbol), None)
            return []
        symbol, trades_only = _symbol(message[2:]), message[1] == 1
        limit = self.stage.streams
        if limit is not None and len({one for _, one in self.subscribed} | {symbol}) > limit:
            return [f"too many symbols: {symbol}"]
        self.subscribed[TRADE, symbol] = None
        if not trades_only:
            self.subscribed[QUOTE, symbol] = None
        return []

    def render(self, events: Sequence[Event]) -> list[Said]:
        """As many records as a frame can count, in each frame. A quote is two records: its sides come alone."""
        records = [record for event in events for record in self._records(event)]
        starts = range(0, len(records), FULL)
        return [bytes([len(records[at : at + FULL])]) + b"".join(records[at : at + FULL]) for at in starts]

    def _records(self, event: Event) -> list[bytes]:
        if event.kind == QUOTE:
            return [
                self._record(ASK, event, event.ask, event.ask_size),
                self._record(BID, event, event.bid, event.bid_size),
            ]
        letters = b"@ I" if event.size < ROUND_LOT else b"@"
        volume = self._volume[event.symbol] = self._volume.get(event.symbol, 0) + int(event.size)
        return [self._record(TRADED, event, event.price, event.size, struct.pack("<I", volume), letters)]

    def _record(
        self, kind: int, event: Event, price: float, size: float, volume: bytes = b"", condition: bytes = b""
    ) -> bytes:
        symbol = event.symbol.encode()
        number = struct.pack("<fIQ", price, int(size), event.utc_ns) + volume
        if not self.is_new:
            return bytes([kind, len(symbol)]) + symbol + number
        centre = "V".encode("utf-16-le")
        body = bytes([len(symbol)]) + symbol + bytes([IEX]) + centre + number + bytes([len(condition)]) + condition
        return bytes([kind, 2 + len(body)]) + body


def _symbol(name: bytes) -> str:
    symbol = name.decode("ascii", "replace")
    return "*" if symbol == FIREHOSE else symbol
