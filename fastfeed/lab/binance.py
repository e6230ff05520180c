"""Binance's side of the conversation, spot and USD-M, as its public documents describe it in 2026: paths and routes,
control requests and their answers, limits, and the text of its messages.

Pure: text in, text out, no socket and no clock. Sources: the spot API's "WebSocket Streams" page and the USD-M
"Websocket Market Streams" pages; what is only known from the wire is marked (seen).
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from fastfeed.errors import ConfigError
from fastfeed.lab.load import (
    AGGREGATE,
    BOOK_BEFORE,
    BOOK_FIRST,
    BOOK_ID,
    DEPTH,
    MARK,
    QUOTE,
    TIME,
    TRADE,
    TRADE_ID,
    Book,
    Fill,
    Levels,
    Quote,
)

NEXT_FUNDING_MS = 1_893_456_000_000  # no one should act on it: it never comes nearer
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


@dataclass(frozen=True)
class Asked:
    """A question over HTTP: for the `book`, the best prices (`top`), or trades of `kind` from `first` on."""

    what: Literal["book", "top", "fills"]
    symbol: str
    most: int
    kind: int = AGGREGATE
    first: int = 0


@dataclass(frozen=True, kw_only=True)
class Market:
    """One of Binance's markets: its limits and how it writes its messages."""

    name: str
    messages_per_second: int  # incoming, PING and PONG frames included; more is answered with a disconnect
    max_streams: int  # per connection
    ping_interval: float  # seconds between the server's pings
    pong_timeout: float  # seconds without a pong until it disconnects
    lifetime: float = 86400.0  # seconds until it ends a connection; with which code is not documented
    decimals: int | None = None

    routes: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[tuple[int, ...]] = (QUOTE, TRADE, AGGREGATE, DEPTH)

    # HTTP path -> what it asks for.
    questions: ClassVar[Mapping[str, tuple[Literal["book", "top", "fills"], int]]] = MappingProxyType({})

    def answers(self, request: str) -> bool:
        """Whether that line begins a question to this market's HTTP side."""
        method, _, rest = request.partition(" ")
        return method == "GET" and urlsplit(rest.partition(" ")[0]).path in self.questions

    def question(self, target: str) -> Asked:
        """What the path and query of a GET ask for; raises ValueError for a query that is not served."""
        url = urlsplit(target)
        what, kind = self.questions[url.path]
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if "symbol" not in query:
            raise ValueError("Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        most = min(int(query.get("limit", 100 if what == "book" else 500)), 5000 if what == "book" else 1000)
        return Asked(what, query["symbol"], most, kind, int(query.get("fromId", 0)))

    def book(self, book: Book, most: int, utc_ms: int) -> str:
        sides = f'"bids":{_levels(book.bids[:most])},"asks":{_levels(book.asks[:most])}'
        return f'{{"lastUpdateId":{book.id},{sides}}}'

    def top(self, symbol: str, quote: Quote, utc_ms: int) -> str:
        bid, bid_size, ask, ask_size = quote
        prices = f'"bidPrice":"{bid}","bidQty":"{bid_size}","askPrice":"{ask}","askQty":"{ask_size}"'
        return f'{{"symbol":"{symbol}",{prices}}}'

    def fill(self, kind: int, fill: Fill, utc_ms: int) -> str:
        maker = "true" if fill.seller else "false"
        if kind == TRADE:
            size = f'"price":"{fill.price}","qty":"{fill.size}"'
            return f'{{"id":{fill.id},{size},"time":{utc_ms},"isBuyerMaker":{maker},"isBestMatch":true}}'
        ids = f'"f":{fill.id},"l":{fill.id}'
        return f'{{"a":{fill.id},"p":"{fill.price}","q":"{fill.size}",{ids},"T":{utc_ms},"m":{maker}}}'

    def carries(self, route: str, stream: str) -> bool:
        """Whether a connection on that route gets the stream's data; it is acked in any case."""
        return True

    def stream(self, kind: int, symbol: str) -> str:
        return f"{symbol.lower()}@{('bookTicker', 'trade', 'aggTrade', 'depth', 'markPrice')[kind]}"

    def wrap(self, stream: str, data: str) -> str:
        return f'{{"stream":"{stream}","data":{data}}}'


class Spot(Market):
    """Spot: one unrouted host; quotes carry neither type nor time; eight decimals everywhere."""

    questions = MappingProxyType(
        {
            "/api/v3/depth": ("book", DEPTH),
            "/api/v3/aggTrades": ("fills", AGGREGATE),
            "/api/v3/historicalTrades": ("fills", TRADE),
            "/api/v3/ticker/bookTicker": ("top", QUOTE),
        }
    )

    def quote(self, symbol: str, quote: Quote) -> str:
        bid, bid_size, ask, ask_size = quote
        return f'{{"u":{BOOK_ID},"s":"{symbol}","b":"{bid}","B":"{bid_size}","a":"{ask}","A":"{ask_size}"}}'

    def depth(self, symbol: str, bids: Levels, asks: Levels) -> str:
        ids = f'"U":{BOOK_FIRST},"u":{BOOK_ID}'
        return f'{{"e":"depthUpdate","E":{TIME},"s":"{symbol}",{ids},"b":{_levels(bids)},"a":{_levels(asks)}}}'

    def mark(self, symbol: str, price: str, index: str, funding: str) -> str:
        raise NotImplementedError("spot has no mark price")

    def trade(self, kind: int, symbol: str, price: str, size: str, seller: bool) -> str:
        maker = "true" if seller else "false"
        tail = f'"T":{TIME},"m":{maker},"M":true}}'
        if kind == TRADE:
            return f'{{"e":"trade","E":{TIME},"s":"{symbol}","t":{TRADE_ID},"p":"{price}","q":"{size}",{tail}'
        ids = f'"f":{TRADE_ID},"l":{TRADE_ID}'
        return f'{{"e":"aggTrade","E":{TIME},"s":"{symbol}","a":{TRADE_ID},"p":"{price}","q":"{size}",{ids},{tail}'


class Usdm(Market):
    """USD-M futures: `/public` for book data and `/market` for the rest; unrouted connections get the public streams
    only."""

    routes = ("public", "market")
    kinds = (QUOTE, TRADE, AGGREGATE, DEPTH, MARK)
    questions = MappingProxyType(
        {
            "/fapi/v1/depth": ("book", DEPTH),
            "/fapi/v1/aggTrades": ("fills", AGGREGATE),
            "/fapi/v1/ticker/bookTicker": ("top", QUOTE),
        }
    )

    def book(self, book: Book, most: int, utc_ms: int) -> str:
        return f'{super().book(book, most, utc_ms)[:-1]},"E":{utc_ms},"T":{utc_ms}}}'

    def top(self, symbol: str, quote: Quote, utc_ms: int) -> str:
        return f'{super().top(symbol, quote, utc_ms)[:-1]},"time":{utc_ms}}}'

    def carries(self, route: str, stream: str) -> bool:
        # Raw trades are undocumented; seen on /public and on the unrouted root, not on /market.
        kind = stream.partition("@")[2]
        public = kind.startswith(("bookTicker", "depth", "rpiDepth", "trade")) or stream == "!bookTicker"
        return public == (route != "market")

    def quote(self, symbol: str, quote: Quote) -> str:
        bid, bid_size, ask, ask_size = quote
        return (
            f'{{"e":"bookTicker","u":{BOOK_ID},"E":{TIME},"T":{TIME},"s":"{symbol}",'
            f'"b":"{bid}","B":"{bid_size}","a":"{ask}","A":"{ask_size}","st":1,"ps":"{symbol}"}}'
        )

    def depth(self, symbol: str, bids: Levels, asks: Levels) -> str:
        ids = f'"U":{BOOK_FIRST},"u":{BOOK_ID},"pu":{BOOK_BEFORE}'
        head = f'"e":"depthUpdate","E":{TIME},"T":{TIME},"s":"{symbol}","ps":"{symbol}","st":1'
        return f'{{{head},{ids},"b":{_levels(bids)},"a":{_levels(asks)}}}'

    def mark(self, symbol: str, price: str, index: str, funding: str) -> str:
        prices = f'"p":"{price}","ap":"{price}","i":"{index}","P":"{index}","r":"{funding}"'
        return f'{{"e":"markPriceUpdate","E":{TIME},"s":"{symbol}",{prices},"T":{NEXT_FUNDING_MS},"st":1}}'

    def trade(self, kind: int, symbol: str, price: str, size: str, seller: bool) -> str:
        maker = "true" if seller else "false"
        if kind == TRADE:
            body = f'"s":"{symbol}","t":{TRADE_ID},"p":"{price}","q":"{size}","X":"MARKET","m":{maker}'
            return f'{{"e":"trade","E":{TIME},"T":{TIME},{body}}}'
        body = f'"a":{TRADE_ID},"p":"{price}","q":"{size}","nq":"{size}","f":{TRADE_ID},"l":{TRADE_ID}'
        return f'{{"e":"aggTrade","E":{TIME},"s":"{symbol}",{body},"T":{TIME},"m":{maker},"st":1}}'


def _levels(levels: Levels) -> str:
    return "[" + ",".join(f'["{price}","{size}"]' for price, size in levels) + "]"


SPOT = Spot(
    name="binance-spot", messages_per_second=5, max_streams=1024, ping_interval=20.0, pong_timeout=60.0, decimals=8
)
USDM = Usdm(name="binance-usdm", messages_per_second=10, max_streams=1024, ping_interval=180.0, pong_timeout=600.0)
MARKETS: dict[str, Spot | Usdm] = {market.name: market for market in (SPOT, USDM)}


def market(name: str) -> Spot | Usdm:
    if name not in MARKETS:
        raise ConfigError(f"no venue {name!r} in the lab; there are {', '.join(sorted(MARKETS))}")
    return MARKETS[name]


class NotFound(Exception):
    """The path of a handshake leads nowhere (HTTP 404)."""


_REQUEST_ID = re.compile(r"[0-9A-Za-z]{1,36}")


class Desk:
    """One connection's subscriptions, and the answers to what it asks."""

    def __init__(self, market: Market, target: str) -> None:
        """`target` is the path and query of the handshake; raises NotFound."""
        self.market = market
        self.streams: dict[str, None] = {}
        self._heard: deque[float] = deque()
        url = urlsplit(target)
        parts = unquote(url.path).strip("/").split("/")
        self.route = parts.pop(0) if parts[0] in market.routes else ""
        place, named = (parts[0], parts[1:]) if parts else ("", [])
        self.combined = place == "stream"
        if place not in ("ws", "stream") or (self.combined and named):
            raise NotFound(f"no such path: {target}")
        if self.combined:
            named = [name for value in parse_qs(url.query).get("streams", []) for name in value.split("/")]
        if len(named) > market.max_streams:
            raise NotFound(f"{len(named)} streams in one address, {market.max_streams} allowed")
        self.streams.update(dict.fromkeys(filter(None, named)))

    def delivered(self) -> list[str]:
        """The subscribed streams that this route carries: the only ones whose data is sent."""
        return [stream for stream in self.streams if self.market.carries(self.route, stream)]

    def is_flooded(self, now: float) -> bool:
        """Note one incoming message; whether it is one too many for this second."""
        self._heard.append(now)
        while self._heard[0] <= now - 1.0:
            self._heard.popleft()
        return len(self._heard) > self.market.messages_per_second

    def shutdown_notice(self, utc_ms: int) -> str:
        notice = f'{{"e":"serverShutdown","E":{utc_ms}}}'
        return self.market.wrap("!serverShutdown", notice) if self.combined else notice

    def answer(self, text: str) -> str:
        """The reply to one control request; acks and errors are never wrapped, not even on `/stream`."""
        try:
            request = json.loads(text)
        except ValueError as error:
            line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
            return _error(3, f"Invalid JSON: expected value at line {line} column {column}")
        at = f"at line 1 column {len(text)}"
        if not isinstance(request, dict) or "method" not in request:
            return _error(2, f"Invalid request: missing field `method` {at}")
        number = request.get("id")
        if not self._is_good_id(number):
            return _error(2, "Invalid request: request ID must be an unsigned integer")
        method, params = request["method"], request.get("params", [])
        if method not in METHODS:
            expected = ", ".join(f"`{known}`" for known in METHODS)
            return _error(2, f"Invalid request: unknown variant `{method}`, expected one of {expected} {at}")
        if not isinstance(params, list):
            return _error(2, f"Invalid request: params must be an array {at}")
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return self._subscription(method, params, number)
        if method == "LIST_SUBSCRIPTIONS":
            return _ack(list(self.streams), number)
        return self._property(method, params, number)

    def _is_good_id(self, number: Any) -> bool:
        if isinstance(number, bool):
            return False
        if isinstance(number, int):
            return number >= 0 or not self.market.routes  # spot takes any int64, USD-M only unsigned ones
        text = isinstance(number, str) and _REQUEST_ID.fullmatch(number) is not None
        return number is None or (text and not self.market.routes)

    def _subscription(self, method: str, params: list[Any], number: Any) -> str:
        if any(not isinstance(stream, str) for stream in params):
            return _error(2, "Invalid request: stream must be a string", number)
        if method == "UNSUBSCRIBE":
            for stream in params:
                self.streams.pop(stream, None)
        else:
            grown = self.streams | dict.fromkeys(params)
            if len(grown) > self.market.max_streams:
                # The nested form (seen); the flat one is what is documented.
                return json.dumps(
                    {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": number}, separators=(",", ":")
                )
            self.streams = grown
        # A stream nobody ever heard of is acked like any other: an ack is not data.
        return _ack(None, number)

    def _property(self, method: str, params: list[Any], number: Any) -> str:
        if not params or not isinstance(params[0], str):
            return _error(2, "Invalid request: property name must be a string")
        if len(params) > (2 if method == "SET_PROPERTY" else 1):
            return _error(2, "Invalid request: too many parameters")
        if params[0] != "combined":
            return _error(0, "Unknown property", number)
        if method == "GET_PROPERTY":
            return _ack(self.combined, number)
        if len(params) < 2 or not isinstance(params[1], bool):
            return _error(1, "Invalid value type: expected Boolean")
        self.combined = params[1]
        return _ack(None, number)


def _ack(result: Any, number: Any) -> str:
    return json.dumps({"result": result, "id": number}, separators=(",", ":"), ensure_ascii=False)


def _error(code: int, text: str, number: Any = None) -> str:
    flat: dict[str, Any] = {"code": code, "msg": text}
    if number is not None:
        flat["id"] = number
    return json.dumps(flat, separators=(",", ":"), ensure_ascii=False)
