"""A venue for providers whose play is conversation more than load: logins, acks, limits, heartbeats, batches, REST.

A provider's side is a `Desk`, written from its protocol page and never from fastfeed's provider file: pure, text or
bytes in and out. The stage gives it sockets (aiohttp, the `http` extra), a small market to tell of, and the faults of
the lab in the same words as `Venue`. It is not built for load: thousands of messages a second, not millions.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Literal, Self

from aiohttp import WSCloseCode, WSMsgType, web

from fastfeed.errors import ConfigError
from fastfeed.lab import desks
from fastfeed.lab.connection import CLOSE_SECONDS, TEXT, frame

Said = str | bytes  # a TEXT message, or a BINARY one
QUOTE, TRADE, DEPTH, BAR = "quote", "trade", "depth", "bar"
TICK = 0.005  # seconds between two looks at what has fallen due
KEPT = 100_000  # newest events kept, to be compared with and asked for over HTTP
CONTINUATION, BINARY = 0x0, 0x2
SECOND = 1.0  # the window in which a client's messages are counted against its quota

Whom = Literal["oldest", "newest", "both"]  # ends where there is one connection too many


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
    been returned is sent. The limits are the provider's own; a stage may be given others, so a desk asks its stage.
    """

    kinds: ClassVar[tuple[str, ...]] = (QUOTE, TRADE)
    beat_every: ClassVar[float | None] = None  # seconds between the server's own heartbeats
    connections: ClassVar[int | None] = None  # of one account at a time
    lingers: ClassVar[float] = 0.0  # seconds for which one that broke off without a CLOSE still counts as open
    evicts: ClassVar[Whom] = "oldest"
    streams: ClassVar[int | None] = None  # subscriptions of one connection
    quota: ClassVar[int | None] = None  # messages and pings a second that a client may send
    compresses: ClassVar[bool] = False  # offers permessage-deflate

    def __init__(self, stage: Stage, asked: Asked) -> None:
        self.stage = stage
        self.asked = asked
        self.subscribed: dict[tuple[str, str], None] = {}
        self.close: tuple[int, str] | None = None
        self.compressed = False  # permessage-deflate was negotiated
        self.counts = True  # as one of the account's connections; a desk with a login counts from then on

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

    def unsaid(self, replies: Sequence[Said]) -> None:
        """The replies just given will not be sent; a desk that numbers what it sends takes their numbers back."""

    def beat(self) -> list[Said]:
        """The server's own heartbeat."""
        return []

    # How the provider ends a connection: what it says, and `close`.

    def evicted(self) -> list[Said]:
        """There is one connection too many."""
        self.close = (1008, "too many connections")
        return []

    def overrun(self) -> list[Said]:
        """The client sends more than `quota`."""
        self.close = (1008, "too many messages")
        return []

    def limited(self, seconds: float) -> list[Said]:
        """The client is to stay away for so long. By default nothing is said: only HTTP 429 has words for it."""
        self.close = (1008, "rate limit")
        return []

    def expired(self) -> list[Said]:
        """The credentials it came with are not accepted any more."""
        self.close = (1008, "credentials expired")
        return []

    def slow(self) -> list[Said]:
        """The client does not read as fast as is told."""
        self.close = (1008, "slow client")
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
        self._heard: deque[float] = deque()  # when its latest messages came, at most a second ago
        self.is_dead = False  # half open: neither side has been told
        self.has_left = False  # with a CLOSE, of whichever side

    @property
    def is_there(self) -> bool:
        """Open, and not on its way out."""
        return not (self.is_dead or self.has_left or self.desk.close is not None)

    async def say(self, messages: Iterable[Said], kind: str = "control") -> None:
        """Send; a connection that is gone hears nothing, and one that does not read is cut off."""
        if self.is_dead:
            return
        try:
            async with asyncio.timeout(self.stage.patience):
                for message in messages:
                    await self._send(message)
                    self.counts[kind] += 1
        except TimeoutError:
            self.counts["overwhelmed"] += 1
            self.cut()
        except ConnectionError:
            pass
        if self.desk.close is not None and not self._socket.closed:
            code, reason = self.desk.close
            await self.close(code, reason)

    async def _send(self, message: Said) -> None:
        payload = message.encode() if isinstance(message, str) else message
        piece, transport = self.stage.piece, self._request.transport
        if piece is not None and len(payload) > piece and transport is not None and not self._socket.closed:
            transport.write(b"".join(_fragments(payload, piece, isinstance(message, str))))
        elif isinstance(message, str):
            await self._socket.send_str(message)
        else:
            await self._socket.send_bytes(message)

    async def tell(self, events: list[Event]) -> None:
        """Tell of these events, less those that are to be skipped."""
        skipped = min(self._to_skip, len(events))
        self._to_skip -= skipped
        self.counts["skipped"] += skipped
        if skipped:
            self.desk.render(events[:skipped])  # where the desk numbers what it sends, they have their numbers
        messages = self.desk.render(events[skipped:]) if len(events) > skipped else []
        self._recent.extend(messages)
        self.counts["events"] += len(events) - skipped
        await self.say(messages, "data")

    async def repeat(self, messages: int) -> None:
        await self.say(list(self._recent)[-messages:], "repeated")

    def skip(self, events: int) -> None:
        self._to_skip += events

    async def close(self, code: int, reason: str = "") -> None:
        if self.is_dead:
            return
        self.has_left = True
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._socket.close(code=code, message=reason.encode())

    async def leave(self) -> None:
        """The venue shuts: politely, and from a half-open connection by letting go."""
        if self.is_dead:
            self.cut()
        else:
            await self.close(WSCloseCode.GOING_AWAY)

    def cut(self) -> None:
        """Reset the TCP connection."""
        transport = self._request.transport
        if transport is not None:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

    async def listen(self) -> None:
        """Until the client leaves."""
        stage, desk = self.stage, self.desk
        async for message in self._socket:
            if self.is_dead:
                continue
            if not self._in_quota():
                await self.say(desk.overrun())
            elif message.type is WSMsgType.PING:
                self.counts["pings_received"] += 1
                if stage.is_ponging and not stage.is_frozen:
                    with suppress(ConnectionError):
                        await self._socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.counts["requests"] += 1
                stage.heard.append(message.data)
                await self._answer(message.data)
        self.has_left = self.has_left or self._socket.close_code not in (None, 1006)

    def _in_quota(self) -> bool:
        """Count one message; False if it is one too many within a second."""
        stage, now = self.stage, time.monotonic()
        self._heard.append(now)
        while self._heard[0] <= now - SECOND:
            self._heard.popleft()
        stage.busiest = max(stage.busiest, len(self._heard))
        return stage.quota is None or len(self._heard) <= stage.quota

    async def _answer(self, message: Said) -> None:
        stage, desk = self.stage, self.desk
        counted = desk.counts
        replies = desk.hear(message)
        if stage.is_frozen or stage.is_withholding:
            desk.unsaid(replies)
            replies = []
        if stage.is_frozen:
            return
        await self.say(replies)
        if desk.counts and not counted:
            await stage.make_room(self)


def _fragments(payload: bytes, piece: int, is_text: bool) -> list[bytes]:
    """One message as frames of at most `piece` bytes (RFC 6455, 5.4), unmasked as a server's are."""
    kind = TEXT if is_text else BINARY
    return [
        frame(kind if at == 0 else CONTINUATION, payload[at : at + piece], final=at + piece >= len(payload))
        for at in range(0, len(payload), piece)
    ]


class Stage:
    """A running venue: `async with Stage("polygon", rate=100) as stage: ... stage.url`.

    `desk` is a name (`fastfeed.lab.desks.names()`) or a Desk of your own, which needs `symbols` too. `keys` are the
    credentials that are accepted, by the desk's own names; `rate` events per second over all symbols begin at once, and
    `plays()` adds any number by hand. `beat_every`, `connections`, `lingers`, `streams` and `quota` replace the desk's;
    `patience` is how many seconds a client may leave what is sent to it unread.

    Raises:
        ConfigError: for a name that is none, or a market without symbols.
    """

    def __init__(
        self,
        desk: str | type[Desk],
        *,
        symbols: Sequence[str] | None = None,
        rate: float = 0.0,
        keys: Mapping[str, str] | None = None,
        beat_every: float | None = None,
        connections: int | None = None,
        lingers: float | None = None,
        streams: int | None = None,
        quota: int | None = None,
        patience: float = 1.0,
        seed: int = 1,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if isinstance(desk, str):
            offer = desks.find(desk)
            desk, symbols = offer.desk, offer.symbols if symbols is None else symbols
        if not symbols or not 0 <= rate < math.inf:
            raise ConfigError(f"Stage(symbols={symbols!r}, rate={rate!r}): name a symbol, and a finite rate, 0 or more")
        self.desk = desk
        self.symbols = list(symbols)
        self.rate = rate
        self.beat_every = desk.beat_every if beat_every is None else beat_every
        self.connections = desk.connections if connections is None else connections
        self.lingers = desk.lingers if lingers is None else lingers
        self.streams = desk.streams if streams is None else streams
        self.quota = desk.quota if quota is None else quota
        self.patience = patience
        self.piece: int | None = None  # bytes of the longest frame, where messages come in fragments
        self.keys = dict(keys or {})
        self.seats: dict[int, Seat] = {}
        self.numbers = itertools.count(1)
        self.events: deque[Event] = deque(maxlen=KEPT)
        self.last: dict[tuple[str, str], Event] = {}  # by kind and symbol
        self.heard: list[Said] = []  # everything that clients have said
        self.asked: list[Asked] = []  # everything that was asked over HTTP
        self.tokens: set[str] = set()  # those that are accepted, where a desk gives out tokens
        self.issued = 0
        self.ghosts: list[float] = []  # until when connections that broke off still count, by the monotonic clock
        self.dials = 0
        self.busiest = 0  # the most messages that one client sent within a second
        self.most_open = 0  # connections at a time
        self.refusal: Refused | None = None
        self.is_silent = self.is_withholding = self.is_frozen = False
        self.is_ponging = self.is_beating = True
        self.muted: set[tuple[str, str]] = set()
        self._dice = random.Random(seed)
        self._prices = {symbol: 100_00 + 37 * place for place, symbol in enumerate(self.symbols)}  # cents
        self._counts: Counter[tuple[str, str]] = Counter()
        self._eviction: tuple[int, Whom] | None = None
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
        await asyncio.gather(*(seat.leave() for seat in list(self.seats.values())))
        if self._runner is not None:
            await self._runner.cleanup()

    @staticmethod
    def utc_ns() -> int:
        """The market's clock, UTC epoch nanoseconds."""
        return time.time_ns()

    @property
    def subscribed(self) -> set[tuple[str, str]]:
        """The kinds and symbols that are subscribed to on any open connection."""
        return {key for seat in self.seats.values() if seat.is_there for key in seat.desk.subscribed}

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
            self.asked.append(asked)
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
        self.most_open = max(self.most_open, len(self.seats))
        try:
            await seat.say(desk.greet())
            if desk.counts:
                await self.make_room(seat)
            await seat.listen()
        finally:
            self.seats.pop(seat.number, None)
            if desk.counts and not seat.has_left:
                self.ghosts.append(time.monotonic() + self.lingers)
        return connection

    def seated(self) -> list[Seat]:
        """Who counts as a connection of the account; `ghosts` whose time is over are forgotten."""
        now = time.monotonic()
        self.ghosts = [until for until in self.ghosts if until > now]
        return [seat for seat in self.seats.values() if seat.desk.counts and seat.desk.close is None]

    async def make_room(self, newest: Seat) -> None:
        """Called when somebody sits down (or logs in): as many as the account may have stay."""
        limit, whom = self._eviction or (self.connections, self.desk.evicts)
        seats = self.seated()
        surplus = 0 if limit is None else len(seats) + len(self.ghosts) - limit
        if surplus <= 0:
            return
        if whom == "oldest":
            gone = min(surplus, len(self.ghosts))
            del self.ghosts[:gone]
            leaving = seats[: surplus - gone]
        else:
            leaving = seats if whom == "both" else [newest]
        await asyncio.gather(*(seat.say(seat.desk.evicted()) for seat in leaving))

    def issue(self) -> str:
        """A token that is accepted from now on, until the credentials expire."""
        self.issued += 1
        token = f"token-{self.issued}-{self._dice.getrandbits(64):016x}"
        self.tokens.add(token)
        return token

    async def _beat(self) -> None:
        every = self.beat_every
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
            self.utc_ns() // 1_000_000 * 1_000_000,
            bid=cents / 100,
            bid_size=dice.randint(1, 40),
            ask=(cents + dice.randint(1, 5)) / 100,
            ask_size=dice.randint(1, 40),
            price=cents / 100,
            size=100 * dice.randint(1, 5),  # round lots, which move the last price on every tape
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

    def evicts(self, whom: Whom = "oldest", *, beyond: int = 1) -> None:
        """Let no more than `beyond` connections be, in the provider's own way of ending them."""
        self._eviction = (beyond, whom)

    def tolerates_all(self) -> None:
        self._eviction = None

    async def evicts_everybody(self) -> None:
        """As if other clients of the account had come: in the provider's own words."""
        await self._part(lambda desk: desk.evicted())

    async def limits(self, seconds: float = 1.0) -> None:
        """Send everybody away for so long, in the provider's own words if it has any for it."""
        await self._part(lambda desk: desk.limited(seconds))

    async def expires(self, **keys: str) -> None:
        """What clients came with is not accepted any more, but `keys`; the provider says so in its own words."""
        self.keys = {**self.keys, **keys}
        self.tokens.clear()
        await self._part(lambda desk: desk.expired())

    async def finds_slow(self) -> None:
        """Take everybody for a client that does not keep up."""
        await self._part(lambda desk: desk.slow())

    async def _part(self, words: Callable[[Desk], list[Said]]) -> None:
        await asyncio.gather(*(seat.say(words(seat.desk)) for seat in list(self.seats.values())))

    def half_opens(self) -> None:
        """Neither hear nor say anything on the open connections and close none; new ones work."""
        for seat in self.seats.values():
            seat.is_dead = True

    def fragments(self, piece: int = 16) -> None:
        """Send every message longer than so many bytes in fragments of that size."""
        self.piece = piece

    def joins(self) -> None:
        """Send every message whole again."""
        self.piece = None

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
