"""A venue for providers whose play is conversation more than load: logins, acks, limits, heartbeats, batches, REST.

A provider's side is a `Desk`, written from its protocol page and never from fastfeed's provider file: pure, text or
bytes in and out. The stage gives it sockets (aiohttp, the `http` extra), a small market to tell of, and the faults of
the lab in the same words as `Venue`. It is not built for load: thousands of messages a second, not millions.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Literal, Self

from aiohttp import WSCloseCode, WSMsgType, web

from fastfeed.errors import ConfigError

Said = str | bytes  # a TEXT message, or a BINARY one
QUOTE, TRADE, DEPTH, BAR = "quote", "trade", "depth", "bar"
TICK = 0.005  # seconds between two looks at what has fallen due
KEPT = 100_000  # newest events kept, to be compared with and asked for over HTTP
CLOSE_SECONDS = 1.0  # how long the peer has to answer a CLOSE


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on the made market. Prices are multiples of 0.01, so that every spelling is exact."""

    kind: str
    symbol: str
    number: int  # of this kind and symbol, from 1 without a hole
    utc_ns: int
    bid: float = 0.0
    bid_size: float = 0.0
    ask: float = 0.0
    ask_size: float = 0.0
    price: float = 0.0
    size: float = 0.0
    sells: bool = False


@dataclass(frozen=True)
class Refused:
    """An answer to a handshake that is none: HTTP status, body, headers."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request as it came: method, path, query and headers (lower-case names)."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


class Desk:
    """One provider's side of one connection. A subclass speaks; this base says nothing and serves nobody.

    `subscribed` holds (kind, symbol) pairs, the symbol "*" standing for all. `close` ends the connection after what has
    been returned is sent.
    """

    kinds: ClassVar[tuple[str, ...]] = (QUOTE, TRADE)
    beat_every: ClassVar[float | None] = None  # seconds between the server's own heartbeats
    connections: ClassVar[int | None] = None  # of one account at a time
    evicts_newest: ClassVar[bool] = False  # whoever comes on top of them is turned away; else the oldest goes
    compresses: ClassVar[bool] = False  # offers permessage-deflate

    def __init__(self, stage: Stage, asked: Asked) -> None:
        self.stage = stage
        self.asked = asked
        self.subscribed: dict[tuple[str, str], None] = {}
        self.close: tuple[int, str] | None = None
        self.compressed = False  # permessage-deflate was negotiated

    @classmethod
    def admits(cls, stage: Stage, asked: Asked) -> Refused | None:
        """None lets the handshake pass; it is asked before there is a desk."""
        return None

    @classmethod
    def answers(cls, stage: Stage, asked: Asked) -> tuple[int, Mapping[str, str], bytes] | None:
        """What the provider's REST side says: status, headers, body. None: there is no such page."""
        return None

    def greet(self) -> list[Said]:
        """What the server says before anybody asks."""
        return []

    def hear(self, message: Said) -> list[Said]:
        """The replies to one message of the client."""
        return []

    def beat(self) -> list[Said]:
        """The server's own heartbeat."""
        return []

    def evicted(self) -> list[Said]:
        """What is said to a connection that has to go for another; it may set `close`."""
        self.close = (1008, "too many connections")
        return []

    def wants(self, event: Event) -> bool:
        return (event.kind, event.symbol) in self.subscribed or (event.kind, "*") in self.subscribed

    def render(self, events: Sequence[Event]) -> list[Said]:
        """The messages that tell of these events, batched as the provider batches."""
        raise NotImplementedError


class Seat:
    """One connection of the stage: its socket, its desk, and what the faults do to it."""

    def __init__(self, stage: Stage, desk: Desk, socket_: web.WebSocketResponse, request: web.Request) -> None:
        self.stage = stage
        self.desk = desk
        self.number = next(stage.numbers)
        self.counts: Counter[str] = Counter()
        self._socket = socket_
        self._request = request
        self._recent: deque[Said] = deque(maxlen=1000)
        self._to_skip = 0
        self.due: list[Event] = []

    async def say(self, messages: Iterable[Said], kind: str = "control") -> None:
        """Send; a connection that is gone hears nothing."""
        for message in messages:
            with suppress(ConnectionError):
                if isinstance(message, str):
                    await self._socket.send_str(message)
                else:
                    await self._socket.send_bytes(message)
                self.counts[kind] += 1
        if self.desk.close is not None and not self._socket.closed:
            code, reason = self.desk.close
            await self.close(code, reason)

    async def tell(self, events: list[Event]) -> None:
        """Tell of these events, less those that are to be skipped."""
        skipped = min(self._to_skip, len(events))
        self._to_skip -= skipped
        self.counts["skipped"] += skipped
        messages = self.desk.render(events[skipped:]) if len(events) > skipped else []
        self._recent.extend(messages)
        self.counts["events"] += len(events) - skipped
        await self.say(messages, "data")

    async def repeat(self, messages: int) -> None:
        await self.say(list(self._recent)[-messages:], "repeated")

    def skip(self, events: int) -> None:
        self._to_skip += events

    async def close(self, code: int, reason: str = "") -> None:
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._socket.close(code=code, message=reason.encode())

    def cut(self) -> None:
        """Reset the TCP connection."""
        transport = self._request.transport
        if transport is not None:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            transport.abort()

    async def listen(self) -> None:
        """Until the client leaves."""
        stage, desk = self.stage, self.desk
        async for message in self._socket:
            if message.type is WSMsgType.PING:
                self.counts["pings_received"] += 1
                if stage.is_ponging and not stage.is_frozen:
                    with suppress(ConnectionError):
                        await self._socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.counts["requests"] += 1
                stage.heard.append(message.data)
                replies = desk.hear(message.data)
                if stage.is_frozen:
                    continue
                await self.say([] if stage.is_withholding else replies)


class Stage:
    """A running venue: `async with Stage(PolygonDesk, symbols=["AAPL"], rate=100) as stage: ... stage.url`.

    `keys` are the credentials that are accepted, by the desk's own names; `rate` events per second over all symbols
    begin at once, and `plays()` adds any number by hand.
    """

    def __init__(
        self,
        desk: type[Desk],
        *,
        symbols: Sequence[str] = ("AAPL", "MSFT"),
        rate: float = 0.0,
        keys: Mapping[str, str] | None = None,
        seed: int = 1,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if not symbols or rate < 0:
            raise ConfigError(f"Stage(symbols={symbols!r}, rate={rate!r}): name a symbol, and a rate of 0 or more")
        self.desk = desk
        self.symbols = list(symbols)
        self.rate = rate
        self.keys = dict(keys or {})
        self.seats: dict[int, Seat] = {}
        self.numbers = itertools.count(1)
        self.events: deque[Event] = deque(maxlen=KEPT)
        self.last: dict[tuple[str, str], Event] = {}  # by kind and symbol
        self.heard: list[Said] = []  # everything that clients have said
        self.dials = 0
        self.refusal: Refused | None = None
        self.is_silent = self.is_withholding = self.is_frozen = False
        self.is_ponging = self.is_beating = True
        self.muted: set[tuple[str, str]] = set()
        self._dice = random.Random(seed)
        self._prices = {symbol: 100_00 + 37 * place for place, symbol in enumerate(self.symbols)}  # cents
        self._counts: Counter[tuple[str, str]] = Counter()
        self._eviction: tuple[int, bool] | None = None
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None
        self._player: asyncio.Task[None] | None = None
        self._beater: asyncio.Task[None] | None = None

    # Life ------------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self._player = asyncio.create_task(self._play())
        self._beater = asyncio.create_task(self._beat())

    async def close(self) -> None:
        for task in (self._player, self._beater):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        for seat in list(self.seats.values()):
            await seat.close(WSCloseCode.GOING_AWAY)
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"ws://{self._host}:{self._port}"

    # Serving ---------------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(
            request.method,
            request.path,
            dict(request.query),
            {name.lower(): value for name, value in request.headers.items()},
            await request.read() if request.can_read_body else b"",
        )
        if asked.headers.get("upgrade", "").lower() != "websocket":
            status, headers, body = self.desk.answers(self, asked) or (404, {}, b"")
            return web.Response(status=status, headers=dict(headers), body=body)
        self.dials += 1
        refused = self.refusal or self.desk.admits(self, asked)
        if refused is not None:
            return web.Response(status=refused.status, text=refused.body, headers=dict(refused.headers))
        connection = web.WebSocketResponse(autoping=False, autoclose=True, compress=self.desk.compresses)
        await connection.prepare(request)
        desk = self.desk(self, asked)
        desk.compressed = bool(connection.compress)
        seat = Seat(self, desk, connection, request)
        self.seats[seat.number] = seat
        try:
            await seat.say(desk.greet())
            await self.make_room(seat)
            await seat.listen()
        finally:
            self.seats.pop(seat.number, None)
        return connection

    async def make_room(self, newest: Seat) -> None:
        """Called when somebody sits down (or logs in): as many as the account may have stay."""
        limit, newest_goes = self._eviction or (self.desk.connections, self.desk.evicts_newest)
        if limit is None or len(self.seats) <= limit:
            return
        surplus = [newest] if newest_goes else list(self.seats.values())[: len(self.seats) - limit]
        for seat in surplus:
            await seat.say(seat.desk.evicted())

    async def _beat(self) -> None:
        every = self.desk.beat_every
        while every is not None:
            await asyncio.sleep(every)
            if self.is_beating and not self.is_frozen:
                for seat in list(self.seats.values()):
                    await seat.say(seat.desk.beat(), "beats")

    # The play --------------------------------------------------------------------------------------------------------

    async def _play(self) -> None:
        owed, before = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            owed += (now - before) * self.rate
            before = now
            if owed >= 1 and not self.is_frozen:
                await self.plays(int(owed))
                owed -= int(owed)

    async def plays(self, events: int = 1, *, kind: str | None = None, symbol: str | None = None) -> list[Event]:
        """Let so many events happen now, of that kind and symbol where given, and tell whoever wants to know."""
        happened = [self._happen(kind, symbol) for _ in range(events)]
        if not self.is_silent:
            for seat in list(self.seats.values()):
                told = [
                    event
                    for event in happened
                    if seat.desk.wants(event) and (event.kind, event.symbol) not in self.muted
                ]
                if told:
                    await seat.tell(told)
        return happened

    def _happen(self, kind: str | None, symbol: str | None) -> Event:
        dice = self._dice
        kind = kind or dice.choice(self.desk.kinds)
        symbol = symbol or dice.choice(self.symbols)
        self._prices[symbol] = cents = max(100, self._prices[symbol] + dice.randint(-3, 3))
        self._counts[kind, symbol] += 1
        event = Event(
            kind,
            symbol,
            self._counts[kind, symbol],
            time.time_ns() // 1_000_000 * 1_000_000,
            bid=cents / 100,
            bid_size=dice.randint(1, 40),
            ask=(cents + dice.randint(1, 5)) / 100,
            ask_size=dice.randint(1, 40),
            price=cents / 100,
            size=dice.randint(1, 500),
            sells=dice.random() < 0.5,
        )
        self.events.append(event)
        self.last[kind, symbol] = event
        return event

    # Commands, in the words of Venue ---------------------------------------------------------------------------------

    def falls_silent(self) -> None:
        """Send no more data; connections stay open, requests and pings are answered."""
        self.is_silent = True

    def mutes(self, kind: str, symbol: str) -> None:
        """Send no more of that; to whom it is subscribed it stays so."""
        self.muted.add((kind, symbol))

    def speaks_again(self) -> None:
        self.is_silent = False
        self.muted.clear()

    def withholds_acks(self) -> None:
        """Do what is requested and answer nothing."""
        self.is_withholding = True

    def acks_again(self) -> None:
        self.is_withholding = False

    def stops_ponging(self) -> None:
        self.is_ponging = False

    def pongs_again(self) -> None:
        self.is_ponging = True

    def stops_beating(self) -> None:
        """No more heartbeats of the server's own."""
        self.is_beating = False

    def beats_again(self) -> None:
        self.is_beating = True

    def freezes(self) -> None:
        """Say nothing at all."""
        self.is_frozen = True

    def thaws(self) -> None:
        self.is_frozen = False

    def refuses(self, status: int = 503, retry_after: float | str | None = None, body: str = "") -> None:
        """Answer every handshake with that HTTP status."""
        self.refusal = Refused(status, body, {} if retry_after is None else {"Retry-After": str(retry_after)})

    def accepts_again(self) -> None:
        self.refusal = None

    def evicts(self, whom: Literal["oldest", "newest"] = "oldest", *, beyond: int = 1) -> None:
        """Let no more than `beyond` connections be, in the provider's own way of ending them."""
        self._eviction = (beyond, whom == "newest")

    def tolerates_all(self) -> None:
        self._eviction = None

    async def closes(self, code: int = 1012, reason: str = "") -> None:
        """Close every connection with that code."""
        await asyncio.gather(*(seat.close(code, reason) for seat in list(self.seats.values())))

    def cuts(self) -> None:
        """Reset every TCP connection."""
        for seat in list(self.seats.values()):
            seat.cut()

    def skips(self, events: int) -> None:
        """Leave out the next so many events of each connection."""
        for seat in self.seats.values():
            seat.skip(events)

    async def repeats(self, messages: int = 1) -> None:
        """Send the newest data messages of each connection again."""
        for seat in list(self.seats.values()):
            await seat.repeat(messages)

    async def says(self, *messages: Said) -> None:
        """Send these to everybody, whatever they mean."""
        for seat in list(self.seats.values()):
            await seat.say(messages, "garbage")
