"""Alpaca's side of market data v2: a login within ten seconds, full-set acks, JSON and MessagePack, latest values.

Written from Alpaca's documentation and the code of its Python and Go clients. Not documented: which frames come after a
login by header; the two of a login by message are sent. Pure: text or bytes in and out (`msgpack` for the latter).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from fastfeed.lab.stage import BAR, DEPTH, QUOTE, TRADE, Asked, Desk, Event, Refused, Said, Stage

FEEDS = frozenset(
    {
        "v2/sip",
        "v2/iex",
        "v2/delayed_sip",
        "v2/test",
        "v1beta1/boats",
        "v1beta1/overnight",
        "v1beta1/opra",
        "v1beta1/indicative",
        "v1beta3/crypto/us",
        "v1beta3/crypto/us-1",
        "v1beta3/crypto/eu-1",
    }
)
UPDATED_BAR, DAILY_BAR = "updated_bar", "daily_bar"
BARS = {BAR: "b", UPDATED_BAR: "u", DAILY_BAR: "d"}
PLAIN = {"trades": TRADE, "quotes": QUOTE, "bars": BAR}
MORE = {"updatedBars": UPDATED_BAR, "dailyBars": DAILY_BAR}
MUTE = ("statuses", "lulds")  # channels that are taken and told of, and on which nothing happens here
ERRORS = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    407: "slow client",
    409: "insufficient subscription",
    410: "invalid subscribe action for this feed",
    412: "option messages are only available in MsgPack format",
    413: "star subscription is not allowed for option quotes",
    429: "too many requests",
}
ROUND_LOT = 100
FIRST_CRYPTO_ID = 3_447_222_699_101_865_000


def _whole(number: float) -> float | int:
    """As Alpaca writes it: a whole number without a fraction, where a float is expected too."""
    return int(number) if number.is_integer() else number


def _msgpack() -> Any:
    """Looked for where it is needed only: JSON does without."""
    import msgpack

    return msgpack


def _rfc3339(utc_ns: int) -> str:
    """With as many decimals as are not zero, 0 to 9."""
    seconds, rest = divmod(utc_ns, 1_000_000_000)
    decimals = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{decimals}Z"


class AlpacaDesk(Desk):
    """One connection to `/v2/sip`, `/v1beta3/crypto/us` and so on, in the encoding its Content-Type asks for.

    The key is `keys["api_key"]` with `keys["api_secret"]`; without them any is accepted.
    """

    kinds = (QUOTE, TRADE)
    connections = 1  # of an account and endpoint
    lingers = 90.0
    evicts = "newest"
    beat_every = 0.1  # no heartbeat: a look at who has not logged in
    login_within: ClassVar[float] = 10.0  # seconds for the login
    free_symbols: ClassVar[Mapping[str, int]] = {"v2/iex": 30}  # for trades and quotes together, of the free plan

    def __init__(self, stage: Stage, asked: Asked) -> None:
        super().__init__(stage, asked)
        self.feed = asked.path.strip("/")
        self.is_packed = "msgpack" in asked.headers.get("content-type", "")
        self.is_crypto = "crypto" in self.feed
        self.is_options = self.feed.endswith(("opra", "indicative"))
        self.counts = False  # before the login
        self._due = time.monotonic() + self.login_within
        self._lists: dict[str, dict[str, None]] = {name: {} for name in self._channels()}
        self._booked: set[str] = set()  # whose whole book has been told

    @classmethod
    def admits(cls, stage: Stage, asked: Asked) -> Refused | None:
        return None if asked.path.strip("/") in FEEDS else Refused(404)

    @classmethod
    def answers(cls, stage: Stage, asked: Asked) -> tuple[int, Mapping[str, str], bytes] | None:
        """`/v2/stocks/AAPL/trades/latest` and `/v2/stocks/AAPL/quotes/latest`."""
        parts = asked.path.strip("/").split("/")
        if len(parts) != 5 or parts[:2] != ["v2", "stocks"] or parts[4] != "latest":
            return None
        shown = {"api_key": "apca-api-key-id", "api_secret": "apca-api-secret-key"}
        if any(stage.keys.get(name, "") not in ("", asked.headers.get(header)) for name, header in shown.items()):
            return 403, {}, b'{"message": "forbidden."}'
        kind = {"trades": TRADE, "quotes": QUOTE}.get(parts[3], "")
        event = stage.last.get((kind, parts[2]))
        if event is None:
            return 404, {}, b'{"message": "no data"}'
        told = _trade(event) if kind == TRADE else _quote(event)
        body = {"symbol": event.symbol, kind: {**told, "t": _rfc3339(event.utc_ns)}}
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()

    # Conversation ----------------------------------------------------------------------------------------------------

    def _channels(self) -> dict[str, str]:
        """What this feed has, and what it stands for here; "" for what never happens."""
        if self.is_options:
            return {"trades": TRADE, "quotes": QUOTE}
        if self.feed == "v2/test":
            return PLAIN
        if self.is_crypto:
            return {**PLAIN, **MORE, "orderbooks": DEPTH}
        return {**PLAIN, **MORE, **dict.fromkeys(MUTE, "")}

    def _said(self, messages: Sequence[Mapping[str, Any]]) -> Said:
        """An array of maps, the key `T` first in each."""
        if not self.is_packed:
            return json.dumps(messages)
        packed: bytes = _msgpack().packb(messages)
        return packed

    def _error(self, code: int) -> list[Said]:
        return [self._said([{"T": "error", "code": code, "msg": ERRORS[code]}])]

    def _understood(self, message: Said) -> Any:
        """What was said, in the connection's own encoding only. Raises ValueError."""
        if self.is_packed != isinstance(message, bytes):
            raise ValueError("the other encoding")
        if isinstance(message, str):
            return json.loads(message)
        return _msgpack().unpackb(message)

    def greet(self) -> list[Said]:
        if self.is_options and not self.is_packed:
            self.close = (1000, "")
            return self._error(412)
        key, secret = (self.asked.headers.get(f"apca-api-{name}") for name in ("key-id", "secret-key"))
        greeting = self._said([{"T": "success", "msg": "connected"}])
        return [greeting] if key is None else [greeting, *self._log_in(key, secret)]

    def hear(self, message: Said) -> list[Said]:
        try:
            request = self._understood(message)
            action = request["action"]
            lists = {name: list(symbols or ()) for name, symbols in request.items() if name in self._lists}
            if not all(isinstance(symbol, str) for symbols in lists.values() for symbol in symbols):
                raise ValueError("a symbol that is none")
        except (ValueError, KeyError, TypeError):
            return self._error(400)
        if action == "auth":
            return self._error(403) if self.counts else self._log_in(request.get("key"), request.get("secret"))
        if not self.counts:
            return self._error(401)
        if action == "unsubscribe":
            self._unsubscribe(lists)
        elif action != "subscribe":
            return self._error(400)
        elif (code := self._refusal(lists, request)) is not None:
            return self._error(code)
        else:
            self._subscribe(lists)
        return [self._said([self._active()])]

    def _log_in(self, key: object, secret: object) -> list[Said]:
        stage = self.stage
        if stage.keys.get("api_key", key) != key or stage.keys.get("api_secret", secret) != secret:
            return self._error(402)
        taken = len(stage.seated()) + len(stage.ghosts)
        if stage.connections is not None and taken >= stage.connections:
            return self._error(406)  # the socket stays, and may try again until its time is up
        self.counts = True
        return [self._said([{"T": "success", "msg": "authenticated"}])]

    def _refusal(self, lists: Mapping[str, Sequence[str]], request: Mapping[str, Any]) -> int | None:
        """The code with which the whole request is refused; what was subscribed before stays so."""
        if any(not symbol or " " in symbol for symbols in lists.values() for symbol in symbols):
            return 400
        if set(request) - {"action"} - set(self._lists):
            return 410
        if self.is_options and "*" in lists.get("quotes", ()):
            return 413
        limit = self.free_symbols.get(self.feed)
        counted = {symbol for name in ("trades", "quotes") for symbol in (*self._lists[name], *lists.get(name, ()))}
        return 405 if limit is not None and len(counted) > limit else None

    def _subscribe(self, lists: Mapping[str, Sequence[str]]) -> None:
        kinds = self._channels()
        for name, symbols in lists.items():
            self._lists[name].update(dict.fromkeys(symbols))
            if kinds[name]:
                self.subscribed.update(dict.fromkeys((kinds[name], symbol) for symbol in symbols))

    def _unsubscribe(self, lists: Mapping[str, Sequence[str]]) -> None:
        kinds = self._channels()
        for name, symbols in lists.items():
            for symbol in symbols:
                self._lists[name].pop(symbol, None)
                self.subscribed.pop((kinds[name], symbol), None)
                if kinds[name] == DEPTH:
                    self._booked.discard(symbol)

    def _active(self) -> dict[str, Any]:
        """Everything that is subscribed to, whatever was asked last."""
        lists = {name: list(symbols) for name, symbols in self._lists.items()}
        if "statuses" in lists:
            lists |= {"corrections": lists["trades"], "cancelErrors": lists["trades"]}
        return {"T": "subscription", **lists}

    def beat(self) -> list[Said]:
        if self.counts or self.close is not None or time.monotonic() < self._due:
            return []
        self.close = (1000, "")
        return self._error(404)

    def evicted(self) -> list[Said]:
        self.close = (1000, "")
        return self._error(406)

    def expired(self) -> list[Said]:
        self.close = (1000, "")
        return self._error(402)

    def limited(self, seconds: float) -> list[Said]:
        self.close = (1000, "")
        return self._error(429)

    def slow(self) -> list[Said]:
        self.close = (1000, "")
        return self._error(407)

    # Data ------------------------------------------------------------------------------------------------------------

    def render(self, events: Sequence[Event]) -> list[Said]:
        """Everything that is due in one array: the more a client lags, the longer."""
        return [self._said([self._told(event) for event in events])]

    def _told(self, event: Event) -> dict[str, Any]:
        head = {"T": {TRADE: "t", QUOTE: "q", DEPTH: "o", **BARS}[event.kind], "S": event.symbol}
        return {**head, **self._content(event), "t": self._time(event.utc_ns)}

    def _time(self, utc_ns: int) -> object:
        if not self.is_packed:
            return _rfc3339(utc_ns)
        return _msgpack().Timestamp(*divmod(utc_ns, 1_000_000_000))

    def _content(self, event: Event) -> dict[str, Any]:
        if event.kind in BARS:
            prices = {"o": event.bid, "h": event.ask, "l": event.bid, "c": event.price, "vw": event.price}
            return {**{name: _whole(price) for name, price in prices.items()}, "v": int(event.size), "n": 7}
        if event.kind == DEPTH:
            return self._book(event)
        if event.kind == TRADE:
            if self.is_crypto:
                trade = {"p": _whole(event.price), "s": event.size / 4, "i": FIRST_CRYPTO_ID + event.number}
                return {**trade, "tks": "S" if event.sells else "B"}
            trade = _trade(event)
            if self.is_options:
                del trade["i"]
                return {**trade, "c": "S"}
            return trade
        quote = _quote(event)
        return {**quote, "c": "A"} if self.is_options else quote

    def _book(self, event: Event) -> dict[str, Any]:
        """The whole book the first time, then what changes: one level set, one removed."""
        best = {"p": _whole(event.bid), "s": event.bid_size}, {"p": _whole(event.ask), "s": event.ask_size}
        if event.symbol not in self._booked:
            self._booked.add(event.symbol)
            deep = {"p": event.bid - 1, "s": 1.5}, {"p": event.ask + 1, "s": 1.5}
            return {"b": [best[0], deep[0]], "a": [best[1], deep[1]], "r": True}
        return {"b": [best[0]], "a": [{"p": _whole(event.ask), "s": 0}]}


def _trade(event: Event) -> dict[str, Any]:
    conditions = ["@", "I"] if event.size < ROUND_LOT else ["@"]
    return {"i": event.number, "x": "V", "p": _whole(event.price), "s": int(event.size), "c": conditions, "z": "C"}


def _quote(event: Event) -> dict[str, Any]:
    bid = {"bx": "K", "bp": _whole(event.bid), "bs": int(event.bid_size)}
    return {**bid, "ax": "Q", "ap": _whole(event.ask), "as": int(event.ask_size), "c": ["R"], "z": "C"}
