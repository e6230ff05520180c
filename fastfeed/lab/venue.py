"""A venue on this machine: a WebSocket server that speaks an exchange's protocol, plays a load, counts what it sends
and misbehaves when told to.

It writes to bare sockets, so that "sent" can mean one thing: taken by the kernel, to the last byte of the frame. It
keeps no queue of data: a connection that does not read keeps its place in the load and catches up from there, with the
event times of then.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fnmatch
import hashlib
import math
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal

import numpy as np

from fastfeed.errors import ConfigError
from fastfeed.lab.binance import Desk, NotFound, Spot, Usdm, market
from fastfeed.lab.load import (
    NEVER,
    PIECE,
    AsRecorded,
    FlatOut,
    Load,
    Pace,
    Phases,
    Piece,
    Recording,
    Synthetic,
    without_speed,
)

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
TICK = 0.002  # seconds between two looks at what has fallen due
LIMITS = ("ping_interval", "pong_timeout", "max_streams", "messages_per_second", "lifetime")
# A send the kernel takes in one go, and the most data that ever waits in this process for one connection.
SLICE_BYTES = 512 * 1024
SLICES_PER_TURN = 4
STAMP_SECONDS = 0.005  # frames this close together carry the same event time
CLOSE_SECONDS = 1.0  # how long the peer has to answer a CLOSE
MAX_REQUEST = 16 * 1024  # bytes of a handshake, or of one control request
COUNTED = (
    "data",
    "control",
    "bytes",
    "skipped",
    "repeated",
    "garbage",
    "withheld",
    "ping",
    "pong",
    "close",
    "requests",
    "pings_received",
    "pongs_received",
)
TEXTS = ("data", "control", "repeated", "garbage")  # what `frames` adds up
SHARED_KEPT = 16  # sets of rendered pieces kept for the next connection that wants the same
RETIRED_KEPT = 1000  # ended connections listed by count()
REPEATABLE = 1000  # data frames a connection can be made to send again
DRIP_SECONDS = 0.02  # between two drops
# What a venue that has lost its mind sends: text that is no JSON, and JSON that no one has ever documented.
GARBAGE = {"malformed": '{"e":"bookTicker","u":1,"s":"BTCU', "unknown": '{"e":"somethingNew","v":[1,2,3]}'}
_ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3


def frame(opcode: int, payload: bytes) -> bytes:
    """One finished, unmasked server frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 0x1_0000:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


@dataclass(slots=True, eq=False)
class _Outgoing:
    """Bytes on their way into the kernel: one control frame, or frames [start, stop) of a piece."""

    rest: memoryview
    kind: str  # the name it is counted under
    piece: Piece | None = None
    start: int = 0
    stop: int = 0
    turn: int = 0


class Connection:
    """One client: handshake, control requests, and its own place in the load."""

    def __init__(self, venue: Venue, sock: socket.socket, number: int) -> None:
        self.number = number
        self.ended: str | None = None  # how: "cut", "closed 1012", "left 1000", "lost"; None while it lives
        self.counts: Counter[str] = Counter()
        self.sent = np.zeros(len(venue.load.streams), np.int64)  # frames per stream
        self.last = np.full(len(venue.load.streams), NEVER, np.int64)  # last event per stream
        self.desk: Desk | None = None
        self.place = 0  # the next event of the load to look at
        self._venue = venue
        self._sock = sock
        self._peer: tuple[str, int] = sock.getpeername()[:2]
        self._loop = asyncio.get_running_loop()
        self._inbox = bytearray()
        self._outbox: deque[_Outgoing] = deque()
        self.is_blocked = False  # the kernel takes no more for now
        self._is_scheduled = False
        self._closing: str | None = None  # how it will have ended
        self._is_leaving = False  # nothing left to do but send the outbox
        self._ping_payload = b""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wanted: dict[int, str] = {}
        self._pieces: dict[int, Piece] = {}
        self._to_skip = 0
        self.lag = 0.0  # seconds everything is sent later to this one
        self.muted: frozenset[int] = frozenset()  # streams not sent to this one
        self.is_silent = False
        self._recent: deque[_Outgoing] = deque()  # the last whole slices, for repeats
        self._recent_frames = 0
        self._dripped_at = self._loop.time()
        self._overdue: dict[str, Callable[[], None]] = {}  # what would have been done while frozen
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(sock, self._read)
        self._later("handshake", 5.0, lambda: self.end("lost"))

    # ------------------------------------------------------------------------------------------------------- in

    def _read(self) -> None:
        try:
            data = self._sock.recv(64 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end(self._closing or "lost")
            return
        self._inbox += data
        if self.desk is None and "handshake" in self._timers:
            self._handshake()
        while self.desk is not None and self.ended is None and self._next_frame():
            pass

    def _handshake(self) -> None:
        head, found, rest = bytes(self._inbox).partition(b"\r\n\r\n")
        if not found:
            if len(head) > MAX_REQUEST:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self._inbox = bytearray(rest)
        request, *lines = head.decode("latin-1").split("\r\n")
        if self._venue.market.answers(request) and not any(line.lower().startswith("upgrade:") for line in lines):
            self._asked(request.split(" ")[1])
            return
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if self._venue.refusal is not None:
            status, extra = self._venue.refusal
            self._venue.totals["refused"] += 1
            self._refuse(status, extra)
            return
        key = headers.get("sec-websocket-key", "")
        if not request.startswith("GET ") or headers.get("upgrade", "").lower() != "websocket" or not key:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        try:
            self.desk = Desk(self._venue.market, request.split(" ")[1])
        except NotFound:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        accept = base64.b64encode(hashlib.sha1(key.encode() + _ACCEPT_KEY, usedforsecurity=False).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        answer = "\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept}", "", ""])
        self._no_longer("handshake")
        self._later("ping", self._venue.market.ping_interval, self._ping)
        self._later("lifetime", self._venue.market.lifetime, lambda: self.close(1001, "its time is up"))
        self._send("handshake", answer.encode())
        self.subscribed()
        self._venue.seat(self)

    def _asked(self, target: str) -> None:
        """A question to the venue's HTTP side."""
        status, headers, body, after = self._venue.answer(target)
        self._no_longer("handshake")
        self._inbox.clear()
        if after:
            self._later("answer", after, lambda: self._answer_http(status, headers, body))
        else:
            self._answer_http(status, headers, body)

    def _refuse(self, status: int, extra: Mapping[str, str] | None = None) -> None:
        self._answer_http(status, extra or {}, "")

    def _answer_http(self, status: int, headers: Mapping[str, str], body: str) -> None:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Refused"
        payload = body.encode()
        lines = [f"HTTP/1.1 {status} {phrase}", "Connection: close", f"Content-Length: {len(payload)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._closing = f"answered {status}" if status == 200 else f"refused {status}"
        self._send("handshake", ("\r\n".join(lines) + "\r\n\r\n").encode() + payload)
        if self.ended is None:
            self._hang_up()

    def _next_frame(self) -> bool:
        """Take one client frame out of the inbox; False when it holds none that is whole."""
        inbox = self._inbox
        if len(inbox) < 6:
            return False
        size, head = inbox[1] & 0x7F, 2
        if size == 126:
            size, head = int.from_bytes(inbox[2:4], "big"), 4
        elif size == 127:
            size, head = 1 << 62, 10
        if not inbox[1] & 0x80 or not inbox[0] & 0x80 or inbox[0] & 0x70:
            self.close(1002, "unmasked, fragmented or extended frame")
            return False
        if size > MAX_REQUEST:
            self.close(1009, "request too big")
            return False
        if len(inbox) < head + 4 + size:
            return False
        mask, payload = inbox[head : head + 4], inbox[head + 4 : head + 4 + size]
        opcode = inbox[0] & 0x0F
        del inbox[: head + 4 + size]
        self._frame(opcode, bytes(byte ^ mask[place & 3] for place, byte in enumerate(payload)))
        return True

    def _frame(self, opcode: int, payload: bytes) -> None:
        assert self.desk is not None
        if opcode == CLOSE:
            self._closed_by_client(payload)
            return
        if self._closing is not None:
            return
        self.counts["requests" if opcode == TEXT else "pongs_received" if opcode == PONG else "pings_received"] += 1
        if self.desk.is_flooded(self._loop.time()):
            self.close(1008, "Too many requests")
        elif opcode == TEXT:
            before = (*self.desk.streams, self.desk.combined)
            answer = self.desk.answer(payload.decode(errors="replace"))
            if self._venue.is_withholding:
                self.counts["withheld"] += 1
            else:
                self._send("control", frame(TEXT, answer.encode()))
            if before != (*self.desk.streams, self.desk.combined) and self.ended is None:
                self.subscribed()
        elif opcode == PING and self._venue.is_ponging:
            self._send("pong", frame(PONG, payload))
        elif opcode == PONG and "pong" in self._timers and payload == self._ping_payload:
            self._no_longer("pong")

    def _closed_by_client(self, payload: bytes) -> None:
        if self._closing is None:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            self._closing = f"left {code}"
            self._send("close", frame(CLOSE, payload[:2]))
        if self.ended is None:
            self._hang_up()

    def subscribed(self) -> None:
        """Recount what this connection gets; what it already had goes on where it was."""
        if self.desk is None:
            return
        if not self._wanted:
            self.place = self._venue.present()
        ids = self._venue.stream_ids
        named = ((ids.get(without_speed(name)), name) for name in self.desk.delivered())
        muted = self._venue.muted | self.muted
        self._wanted = {stream: name for stream, name in named if stream is not None and stream not in muted}
        self._pieces = self._venue.shared_pieces(tuple(self._wanted.items()), self.desk.combined)
        self.push()

    # ------------------------------------------------------------------------------------------------------ out

    def _later(self, name: str, seconds: float, act: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(seconds, self._due_now, name, act)

    def _no_longer(self, name: str) -> None:
        self._timers.pop(name).cancel()
        self._overdue.pop(name, None)

    def _due_now(self, name: str, act: Callable[[], None]) -> None:
        if self._venue.is_frozen:
            self._overdue[name] = act
        else:
            act()

    def _ping(self) -> None:
        self._ping_payload = str(self._venue.utc_ms()).encode()
        self._send("ping", frame(PING, self._ping_payload))
        if self.ended is None:
            self._later("ping", self._venue.market.ping_interval, self._ping)
            if "pong" not in self._timers:
                self._later("pong", self._venue.market.pong_timeout, lambda: self.end("no pong"))

    def _send(self, kind: str, data: bytes | memoryview) -> None:
        self._outbox.append(_Outgoing(memoryview(data), kind))
        if not self.is_blocked and not self._venue.is_frozen:
            self._flush()

    def close(self, code: int, reason: str = "") -> None:
        """Close politely, after what is already on its way."""
        if self.desk is None:
            self.end("cut")
        elif self._closing is None:
            self._closing = f"closed {code}"
            self._later("close", CLOSE_SECONDS, lambda: self.end(f"closed {code}"))
            self._send("close", frame(CLOSE, code.to_bytes(2, "big") + reason.encode()[:123]))

    def say(self, text: str, kind: str = "control") -> None:
        """One message outside the load, counted as `kind`."""
        if self.desk is not None and self._closing is None:
            self._send(kind, frame(TEXT, text.encode()))

    def repeat(self, frames: int) -> None:
        """Send the newest data frames again, byte for byte."""
        again: list[memoryview] = []
        for outgoing in reversed(self._recent):
            assert outgoing.piece is not None
            bounds = outgoing.piece.bounds - outgoing.piece.bounds[outgoing.start]
            sent = memoryview(outgoing.rest.obj)
            for place in range(outgoing.stop - 1, outgoing.start - 1, -1):
                if len(again) == frames:
                    break
                again.append(sent[bounds[place] : bounds[place + 1]])
        for data in reversed(again):
            if self._closing is None and self.ended is None:
                self._send("repeated", data)

    def freeze(self) -> None:
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)

    def thaw(self) -> None:
        """Do what a process does that was stopped: read what has come, and everything that is overdue."""
        self._loop.add_reader(self._sock, self._read)
        self._read()
        overdue, self._overdue = self._overdue, {}
        for act in overdue.values():
            if self.ended is None:
                act()
        if self.ended is None:
            self._unblock()

    def cut(self) -> None:
        """Reset the TCP connection: whatever the kernel still held for the client is gone."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end("cut")

    def _hang_up(self) -> None:
        """End once everything is sent: at once, or when the client has read so far or gone."""
        self._is_leaving = True
        if not self._outbox:
            self.end(self._closing or "lost")
        else:
            self._later("close", CLOSE_SECONDS, lambda: self.end(self._closing or "lost"))

    def end(self, how: str) -> None:
        if self.ended is not None:
            return
        self.ended = how
        for timer in self._timers.values():
            timer.cancel()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        for outgoing in self._outbox:
            self._settle(outgoing)
        self._outbox.clear()
        self._sock.close()
        self._venue.retire(self)

    def skip(self, frames: int) -> None:
        self._to_skip += frames

    def jump(self) -> None:
        """Forget what fell due until now."""
        self.place = max(self.place, self._venue.present())

    def prepare(self) -> None:
        """Render everything this connection could get, so that playing is nothing but copying."""
        if self._wanted:
            for number in range(-(-self._venue.load.events // PIECE)):
                self._piece(number)

    def _piece(self, number: int) -> Piece:
        piece = self._pieces.get(number)
        if piece is None:
            combined = self.desk is not None and self.desk.combined
            piece = self._pieces[number] = self._venue.load.piece(number, self._wanted, combined)
        return piece

    @property
    def is_open(self) -> bool:
        """Past the handshake and not about to end."""
        return self.desk is not None and self._closing is None and self.ended is None

    def is_behind(self, limit: float) -> bool:
        """Whether anything is still to be sent: bytes on their way, or events before `limit`."""
        speaks = self._closing is None and bool(self._wanted) and not self.is_silent
        return bool(self._outbox) or (speaks and self.place < limit)

    def waiting(self) -> int:
        """Bytes that wait in this process for the kernel to take them."""
        return sum(len(outgoing.rest) for outgoing in self._outbox)

    def push(self) -> None:
        """Send what is due, as far as the kernel takes it."""
        if self.is_blocked or self._is_scheduled or self.desk is None or self._venue.is_frozen:
            return
        for _ in range(SLICES_PER_TURN):
            outgoing = None if self._closing or self.ended else self._due()
            if outgoing is None:
                return
            self._outbox.append(outgoing)
            self._flush()
            if self.is_blocked:
                return
        self._is_scheduled = True
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_scheduled = False
        self.push()

    def _flush(self) -> None:
        while self._outbox and self.ended is None:
            outgoing = self._outbox[0]
            drop = self._drop()
            if drop == 0:
                self.is_blocked = True
                self._loop.remove_writer(self._sock)  # it could take more all the time
                self._later("drip", DRIP_SECONDS, self._unblock)
                return
            try:
                taken = self._sock.send(outgoing.rest[:drop])
            except BlockingIOError:
                taken = 0
            except OSError:
                self.end("lost")
                return
            self.counts["bytes"] += taken
            outgoing.rest = outgoing.rest[taken:]
            if outgoing.rest:
                if drop is not None and taken:
                    continue
                if not self.is_blocked:
                    self.is_blocked = True
                    self._loop.add_writer(self._sock, self._writable)
                return
            self._outbox.popleft()
            self._settle(outgoing)

    def _drop(self) -> int | None:
        """Bytes that may be written now; None where the venue does not drip."""
        pace = self._venue.bytes_per_s
        if pace is None:
            return None
        self._dripped_at = max(self._dripped_at, self._loop.time() - 1.0)
        drop = int((self._loop.time() - self._dripped_at) * pace)
        self._dripped_at += drop / pace
        return drop

    def _unblock(self) -> None:
        self.is_blocked = False
        self._writable()

    def _writable(self) -> None:
        self._flush()
        if self.ended is None and not self._outbox:
            self.is_blocked = False
            self._loop.remove_writer(self._sock)
            if self._is_leaving:
                self.end(self._closing or "lost")
            self.push()

    def _due(self) -> _Outgoing | None:
        """The next slice of the load for this connection, stamped; None when nothing is due."""
        venue, load = self._venue, self._venue.load
        limit = self.place if self.is_silent else venue.due_until(self.place, self.lag)
        # At most once round: a stream that never speaks must not be looked for for ever.
        for _ in range(-(-load.events // PIECE) + 1):
            if not self._wanted or self.place >= limit:
                break
            turn, event = divmod(self.place, load.events)
            number = event // PIECE
            piece = self._piece(number)
            until = int(min(limit - turn * load.events, (number + 1) * PIECE, load.events))
            start, whole = (int(at) for at in np.searchsorted(piece.event, (event, until)))
            skipped = min(self._to_skip, whole - start)
            if skipped:
                self._to_skip -= skipped
                self.counts["skipped"] += skipped
                start += skipped
            fitting = int(np.searchsorted(piece.bounds, piece.bounds[start] + SLICE_BYTES)) - 1
            stop = start + venue.grant(min(whole, max(fitting, start + 1)) - start)
            self.place = turn * load.events + (until if stop == whole else int(piece.event[stop]))
            venue.furthest = max(venue.furthest, self.place)
            if stop > start:
                load.stamp(piece, start, stop, turn, venue.event_ms(self.place))
                data = piece.data[piece.bounds[start] : piece.bounds[stop]].tobytes()
                return _Outgoing(memoryview(data), "data", piece, start, stop, turn)
            if stop < whole:
                break
        return None

    def _settle(self, outgoing: _Outgoing) -> None:
        """Count what was sent of it: frames the kernel took whole."""
        piece = outgoing.piece
        if piece is None:
            if not outgoing.rest:
                self.counts[outgoing.kind] += 1
            return
        stop = outgoing.stop
        if outgoing.rest:
            stop = int(np.searchsorted(piece.bounds, piece.bounds[stop] - len(outgoing.rest), side="right")) - 1
            self._venue.give_back(outgoing.stop - stop)
        outgoing.stop = stop
        self._recent.append(outgoing)
        self._recent_frames += stop - outgoing.start
        while self._recent_frames - (oldest := self._recent[0].stop - self._recent[0].start) >= REPEATABLE:
            self._recent.popleft()
            self._recent_frames -= oldest
        streams = piece.stream[outgoing.start : stop]
        self.counts["data"] += len(streams)
        self.sent += np.bincount(streams, minlength=len(self.sent))
        # Of repeated indices the last assignment stands, and events rise.
        self.last[streams] = piece.event[outgoing.start : stop] + outgoing.turn * self._venue.load.events

    def sent_by_stream(self) -> dict[str, int]:
        return {self._venue.load.streams[stream]: int(self.sent[stream]) for stream in self._wanted}

    def report(self) -> dict[str, Any]:
        """This connection's part of `Venue.count()`."""
        desk = self.desk
        return {
            "connection": self.number,
            "peer_port": self._peer[1],
            "route": desk.route if desk else "",
            "streams": len(desk.streams) if desk else 0,
            "ended": self.ended,
            "frames": sum(self.counts[name] for name in TEXTS),
            **{name: self.counts[name] for name in COUNTED},
        }


class Venue:
    """A running venue: `async with Venue("binance-usdm", symbols=500) as venue: ... venue.url`.

    `load` is a Load or None for a synthetic market of `symbols` (a number or names) from `seed`. With `rate` (events
    per second over all streams) or `phases` it plays from the start; with neither it waits for `plays()`. The limits of
    the real venue may be overridden: `ping_interval`, `pong_timeout`, `lifetime` (seconds; a connection that old is
    closed with 1001), `max_streams` (per connection), `messages_per_second` (incoming).
    """

    def __init__(
        self,
        name: str = "binance-usdm",
        *,
        load: Load | None = None,
        symbols: int | Sequence[str] = 500,
        seed: int = 1,
        rate: float | None = None,
        phases: Sequence[tuple[float, float]] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        **limits: float,
    ) -> None:
        unknown = set(limits).difference(LIMITS)
        if unknown:
            raise ConfigError(f"no limit named {', '.join(sorted(unknown))}; there are {', '.join(LIMITS)}")
        self.market: Spot | Usdm = replace(market(name), **limits)  # type: ignore[arg-type]
        self.load: Load = load if load is not None else Synthetic(self.market, symbols=symbols, seed=seed)
        self.stream_ids = {without_speed(stream): number for number, stream in enumerate(self.load.streams)}
        self.connections: dict[int, Connection] = {}
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.totals: Counter[str] = Counter()
        self._host = host
        self._port = port
        self._first_play = (rate, phases) if rate is not None or phases is not None else None
        self._server: socket.socket | None = None
        self._numbers = 0
        self._retired: deque[dict[str, Any]] = deque(maxlen=RETIRED_KEPT)
        self._retired_sent = np.zeros(len(self.load.streams), np.int64)
        self._retired_last = np.full(len(self.load.streams), NEVER, np.int64)
        self._shared: dict[tuple[tuple[tuple[int, str], ...], bool], dict[int, Piece]] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._is_silent = False
        # How it misbehaves, beside `refusal`.
        self.is_frozen = self.is_withholding = False
        self.is_ponging = True
        self.bytes_per_s: float | None = None  # at most so many, to each connection
        self.muted: frozenset[int] = frozenset()  # streams whose data is not sent
        self._eviction: tuple[int, bool, int | None] | None = (
            None  # connections let be; oldest go first; with which code
        )
        # How its HTTP side misbehaves.
        self._http_delay = 0.0  # seconds before each answer
        self._http_refusal: tuple[int, dict[str, str], float] | None = None  # status, headers, how often still
        self._book_age = (0, 0)  # books as of so many events ago, how often still
        # The play. Events have one number for good: pass of the load * its events + event.
        self._pace: Pace = FlatOut()
        self._started = self._started_utc = 0.0  # when it began: loop time, UTC seconds
        self._first = 0  # its first event
        self._halt: float = 0  # nothing from this event on is sent
        self._budget: float = math.inf  # data frames still to be sent
        self.furthest = 0  # the next event of whoever is furthest

    # ------------------------------------------------------------------------------------------------------ life

    async def __aenter__(self) -> Venue:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = socket.create_server((self._host, self._port), backlog=1024)
        server.setblocking(False)
        self._server = server
        self._port = server.getsockname()[1]
        self._loop.add_reader(server, self._accept)
        if self._first_play is not None:
            self.plays(rate=self._first_play[0], phases=self._first_play[1])

    async def close(self) -> None:
        """Stop listening, close every connection with 1001, and wait for that at most a second."""
        if self._server is None:
            return
        self._loop.remove_reader(self._server)
        self._server.close()
        self._server = None
        if self._ticker is not None:
            self._ticker.cancel()
        if self.is_frozen:
            self.thaws()
        self.closes(1001)
        for _ in range(200):
            if not self.connections:
                break
            await asyncio.sleep(CLOSE_SECONDS / 100)
        for connection in list(self.connections.values()):
            connection.cut()

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"ws://{self._host}:{self._port}"

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._server is not None:
                sock, _ = self._server.accept()
                self._numbers += 1
                with contextlib.suppress(OSError):  # gone before it was looked at
                    self.connections[self._numbers] = Connection(self, sock, self._numbers)

    def retire(self, connection: Connection) -> None:
        """Called by a connection that has ended; its counts live on here."""
        del self.connections[connection.number]
        self.totals += connection.counts
        self._retired.append(connection.report())
        self._retired_sent += connection.sent
        np.maximum(self._retired_last, connection.last, out=self._retired_last)

    # ------------------------------------------------------------------------------------------------- the play

    def plays(
        self,
        *,
        rate: float | None = None,
        phases: Sequence[Sequence[float]] | None = None,
        speed: float | Sequence[Sequence[float]] | None = None,
        frames: int | None = None,
    ) -> None:
        """Play on from where the load stands (a recording: from its beginning). Give one of

        * `rate`: events per second over all streams,
        * `phases`: several of them, each with the seconds it lasts,
        * `speed`: how many times faster than recorded (also in phases: (speed, seconds) pairs),

        or none (or inf) to play flat out. `frames` ends it after exactly so many data frames, all connections together.
        What the open connections are going to get is rendered before it begins: half a second for 500 symbols.
        """
        if sum(option is not None for option in (rate, phases, speed)) > 1:
            raise ConfigError("plays(): give one of rate, phases and speed")
        pace: Pace = FlatOut()
        if phases is not None:
            pace = Phases(phases)
        elif rate is not None and rate != math.inf:
            pace = Phases([(rate, math.inf)])
        elif speed is not None and speed != math.inf:
            if not isinstance(self.load, Recording):
                raise ConfigError(f"speed={speed}: only a recording has times of its own; give a rate")
            pace = AsRecorded(self.load.recv_ns, [(speed, math.inf)] if isinstance(speed, (int, float)) else speed)
        for connection in self.connections.values():
            connection.prepare()
        self._halt = math.inf
        self._first = self.furthest
        if self.load.passes < math.inf:
            self._first = -(-self.furthest // self.load.events) * self.load.events
            self._halt = self._first + self.load.passes * self.load.events
        self._pace = pace
        self._budget = math.inf if frames is None else frames
        self._started, self._started_utc = self._loop.time(), time.time()
        for connection in self.connections.values():
            connection.place = self._first
        self._tick()

    def rests(self) -> None:
        """Let nothing more fall due; who is behind still catches up, connections stay and pings go on."""
        self._halt = self.present()

    def _tick(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        self._ticker = self._loop.call_later(TICK, self._tick)
        for connection in list(self.connections.values()):
            connection.push()

    def _limit(self, lag: float = 0.0) -> float:
        """Number of the first event that is not due yet, for somebody to whom all is sent `lag` seconds later."""
        elapsed = max(0.0, self._loop.time() - self._started - lag)
        return min(self._halt, self._first + self._pace.reached(elapsed))

    def present(self) -> int:
        """Where somebody who joins now begins; flat out, beside the one who is furthest."""
        limit = self.furthest if isinstance(self._pace, FlatOut) else self._limit()
        return int(max(limit, self._first))

    def due_until(self, place: int, lag: float) -> float:
        """How far somebody who stands at `place` may send in one slice, which carries one event time."""
        limit = self._limit(lag)
        if self._is_silent or self._budget <= 0 or limit <= place:
            return place
        due = self._pace.due(place - self._first, self._loop.time() - self._started)
        return min(limit, max(place + 1, self._first + self._pace.reached(due + STAMP_SECONDS)))

    def event_ms(self, place: int) -> int:
        """When the event before `place` fell due, in UTC milliseconds."""
        due = self._pace.due(place - 1 - self._first, self._loop.time() - self._started)
        return int((self._started_utc + due) * 1000)

    def grant(self, frames: int) -> int:
        granted = int(min(frames, self._budget))
        self._budget -= granted
        return granted

    def give_back(self, frames: int) -> None:
        self._budget += frames

    def is_at_rest(self) -> bool:
        """Whether everything due has been sent and nothing more will be until somebody commands it."""
        limit = 0.0
        if self._budget > 0 and not self._is_silent:
            limit = self._limit()
            is_over = limit >= self._halt or self._pace.ended(self._loop.time() - self._started)
            if limit == math.inf or not is_over:
                return False
        return not any(connection.is_behind(limit) for connection in self.connections.values())

    def shared_pieces(self, wanted: tuple[tuple[int, str], ...], combined: bool) -> dict[int, Piece]:
        """Rendered pieces, shared by all connections that get the same streams in the same shape."""
        pieces = self._shared.pop((wanted, combined), {})
        self._shared[wanted, combined] = pieces
        if len(self._shared) > SHARED_KEPT:
            del self._shared[next(iter(self._shared))]
        return pieces

    # ------------------------------------------------------------------------------------------------ commands

    def _chosen(self, connection: int | None) -> list[Connection]:
        if connection is None:
            return list(self.connections.values())
        if connection not in self.connections:
            raise ConfigError(f"no open connection {connection}; open: {sorted(self.connections)}")
        return [self.connections[connection]]

    def cuts(self, connection: int | None = None) -> list[dict[str, Any]]:
        """Reset the TCP connection (all, or the one of that number): no CLOSE frame, what was in flight is lost.

        Returns for each its number, and as `streams` the data frames it had been sent, per subscribed stream.
        """
        cut = self._chosen(connection)
        for chosen in cut:
            chosen.cut()
        return [{"connection": chosen.number, "streams": chosen.sent_by_stream()} for chosen in cut]

    def closes(self, code: int = 1012, reason: str = "", connection: int | None = None) -> None:
        """Send CLOSE with that code and end the connection when the client has answered, or after a second."""
        for chosen in self._chosen(connection):
            chosen.close(code, reason)

    def falls_silent(self, connection: int | None = None) -> None:
        """Send no more data, to the one or to all; connections stay open, requests are acked and pings answered."""
        if connection is None:
            self._is_silent = True
        for chosen in [] if connection is None else self._chosen(connection):
            chosen.is_silent = True

    def lags(self, seconds: float, connection: int | None = None) -> None:
        """Send everything so many seconds later than it falls due, event times as they were; 0 catches up at once."""
        if not 0 <= seconds <= 60:
            raise ConfigError(f"lags({seconds}): from 0 to 60 seconds")
        for chosen in self._chosen(connection):
            chosen.lag = seconds

    def mutes(self, streams: str | Iterable[str], connection: int | None = None) -> None:
        """Send no more data of those streams (names or patterns: "btcusdt@*", "*@bookTicker"); all else goes on.

        To whom they are subscribed they stay subscribed: requests are acked, pings answered. To all, also those who
        come later, or to the one.
        """
        patterns = [streams] if isinstance(streams, str) else list(streams)
        muted: set[int] = set()
        for pattern in patterns:
            found = {number for name, number in self.stream_ids.items() if fnmatch.fnmatchcase(name, pattern)}
            if not found:
                raise ConfigError(f"no stream is named {pattern!r}; one there is is {next(iter(self.stream_ids))!r}")
            muted |= found
        if connection is None:
            self._mute(self.muted | muted)
        for chosen in [] if connection is None else self._chosen(connection):
            chosen.muted |= muted
            chosen.subscribed()

    def _mute(self, streams: frozenset[int]) -> None:
        self.muted = streams
        for connection in list(self.connections.values()):
            connection.subscribed()

    def speaks_again(self) -> None:
        """Send all data again, from the present: what fell due during the silence is never sent."""
        self._is_silent = False
        for connection in self.connections.values():
            connection.is_silent, connection.muted = False, frozenset()
            connection.jump()
        self._mute(frozenset())

    def drips(self, bytes_per_s: float = 64.0) -> None:
        """Write to each connection at most so many bytes a second: frames, answers and handshakes come in crumbs."""
        if not (bytes_per_s > 0 and math.isfinite(bytes_per_s)):
            raise ConfigError(f"drips(bytes_per_s={bytes_per_s}): must be above 0; freezes() writes nothing at all")
        self.bytes_per_s = bytes_per_s

    def flows_again(self) -> None:
        self.bytes_per_s = None

    def freezes(self) -> None:
        """Read and write nothing and let time pass, like a process that was stopped; the kernel still takes dials."""
        if self._server is None or self.is_frozen:
            return
        self.is_frozen = True
        self._loop.remove_reader(self._server)
        for connection in self.connections.values():
            connection.freeze()

    def thaws(self) -> None:
        """Go on: what has arrived is read, what fell due meanwhile is sent."""
        if not self.is_frozen:
            return
        self.is_frozen = False
        if self._server is not None:
            self._loop.add_reader(self._server, self._accept)
        for connection in list(self.connections.values()):
            connection.thaw()

    def withholds_acks(self) -> None:
        """Do what is requested and answer nothing; pings are answered."""
        self.is_withholding = True

    def acks_again(self) -> None:
        """Answer requests; those that came meanwhile stay unanswered."""
        self.is_withholding = False

    def stops_ponging(self) -> None:
        """Leave pings unanswered; data, acks and the venue's own pings go on."""
        self.is_ponging = False

    def pongs_again(self) -> None:
        self.is_ponging = True

    def evicts(self, whom: Literal["oldest", "newest"] = "oldest", *, beyond: int = 1, code: int | None = 1008) -> None:
        """Let no more than `beyond` connections be: whoever comes on top of them ends another, or itself.

        The `oldest` is closed in favour of the one that came, or the `newest` straight after its handshake (`beyond=0`:
        everyone is accepted, then closed). With CLOSE and `code`; None resets, without a word.
        """
        if whom not in ("oldest", "newest") or beyond < (whom == "oldest"):
            raise ConfigError(
                f"evicts({whom!r}, beyond={beyond}): oldest, beyond 1 or more, or newest, beyond 0 or more"
            )
        self._eviction = (beyond, whom == "oldest", code)

    def tolerates_all(self) -> None:
        """Evict nobody any more."""
        self._eviction = None

    def seat(self, newest: Connection) -> None:
        """Called by a connection whose handshake is complete."""
        if self._eviction is None:
            return
        beyond, oldest_first, code = self._eviction
        seated = [one for one in self.connections.values() if one.is_open]
        surplus = seated[: len(seated) - beyond] if oldest_first else [newest] if len(seated) > beyond else []
        for connection in surplus:
            self.totals["evicted"] += 1
            if code is None:
                connection.cut()
            else:
                connection.close(code, "too many connections")

    def repeats(self, frames: int = 1, connection: int | None = None) -> None:
        """Send the newest `frames` data frames of each connection (or the one) again, byte for byte, 1,000 at most."""
        if not 0 < frames <= REPEATABLE:
            raise ConfigError(f"repeats({frames}): from 1 to {REPEATABLE} frames are kept to be repeated")
        for chosen in self._chosen(connection):
            chosen.repeat(frames)

    def sends_garbage(
        self, kind: Literal["malformed", "unknown"] = "malformed", frames: int = 1, connection: int | None = None
    ) -> None:
        """Send text that is no JSON, or JSON that nobody has ever documented; no data is lost by it."""
        if kind not in GARBAGE:
            raise ConfigError(f"sends_garbage({kind!r}): there is {' and '.join(GARBAGE)}")
        for chosen in self._chosen(connection):
            for _ in range(frames):
                chosen.say(GARBAGE[kind], "garbage")

    def refuses(self, status: int = 503, retry_after: float | str | None = None) -> None:
        """Answer every handshake with that HTTP status, and Retry-After if given (seconds, or an HTTP date)."""
        self.refusal = (status, {} if retry_after is None else {"Retry-After": str(retry_after)})

    def accepts_again(self) -> None:
        self.refusal = None

    def answers_slowly(self, seconds: float) -> None:
        """Let every answer over HTTP wait so long."""
        self._http_delay = seconds

    def refuses_requests(
        self, status: int = 500, retry_after: float | str | None = None, times: int | None = None
    ) -> None:
        """Answer the next `times` requests over HTTP (None: all) with that status, and Retry-After if given."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._http_refusal = status, headers, math.inf if times is None else times

    def shows_old_books(self, events: int, times: int = 1) -> None:
        """Let the next `times` books over HTTP be those of so many events ago, of all streams together."""
        self._book_age = events, times

    def answers_again(self) -> None:
        """Answer all requests over HTTP, at once and as things are."""
        self._http_delay, self._http_refusal, self._book_age = 0.0, None, (0, 0)

    def answer(self, target: str) -> tuple[int, Mapping[str, str], str, float]:
        """What a GET of `target` gets: status, headers, body, and the seconds it takes.

        Books, trades and best prices as they would have been sent by now, whatever was left out on the WebSocket side.
        A recording remembers nothing of the kind (404).
        """
        self.totals["asked"] += 1
        refusal = self._http_refusal
        if refusal is not None:
            status, headers, times = refusal
            self._http_refusal = (status, headers, times - 1) if times > 1 else None
            return status, headers, "", self._http_delay
        try:
            asked = self.market.question(target)
        except ValueError as error:
            return 400, {}, f'{{"code":-1102,"msg":"{error}"}}', self._http_delay
        if isinstance(self.load, Recording):
            return 404, {}, "", self._http_delay
        until, body = self.present(), None
        if asked.what == "book":
            events, times = self._book_age
            self._book_age = events, max(0, times - 1)
            book = self.load.book(asked.symbol, max(0, until - events) if times else until)
            body = None if book is None else self.market.book(book, asked.most, self.utc_ms())
        elif asked.what == "top":
            top = self.load.top(asked.symbol, until)
            body = None if top is None else self.market.top(asked.symbol, top, self.utc_ms())
        else:
            fills = self.load.fills(asked.kind, asked.symbol, asked.first, asked.most, until)
            if fills is not None:
                texts = [self.market.fill(asked.kind, fill, self.event_ms(fill.event + 1)) for fill in fills]
                body = f"[{','.join(texts)}]"
        if body is None:
            return 400, {}, '{"code":-1121,"msg":"Invalid symbol."}', self._http_delay
        return 200, {"Content-Type": "application/json"}, body, self._http_delay

    def announces_shutdown(self, connection: int | None = None) -> None:
        """Send `serverShutdown` (to all, or the one), bare or wrapped as the connection is; nothing is closed by it."""
        for chosen in self._chosen(connection):
            if chosen.desk is not None:
                chosen.say(chosen.desk.shutdown_notice(self.utc_ms()))

    def skips(self, frames: int, connection: int | None = None) -> None:
        """Leave out the next `frames` data frames of each connection (or the one)."""
        for chosen in self._chosen(connection):
            chosen.skip(frames)

    def utc_ms(self) -> int:
        return int(time.time() * 1000)

    def count(self) -> dict[str, Any]:
        """What was sent, as plain JSON types. A frame is counted when the kernel has taken its last byte.

        `frames` = `data` + `control` (acks, errors, notices) + `repeated` + `garbage`, all text frames; `bytes`
        everything after the TCP handshake; `ping`, `pong`, `close` frames sent; `refused` handshakes; `evicted`
        connections; `asked` over HTTP; `skipped` frames left out on command and `withheld` answers, neither sent;
        `connections` the same per connection, ended ones too (newest 1,000) with how they ended; `streams` data frames
        per stream; `last` per symbol the prices, as text, of the last frame sent; `is_at_rest` whether anything more is
        to come.
        """
        totals, sent, last = self.totals.copy(), self._retired_sent.copy(), self._retired_last.copy()
        for connection in self.connections.values():
            totals += connection.counts
            sent += connection.sent
            np.maximum(last, connection.last, out=last)
        spoken = np.flatnonzero(sent).tolist()
        return {
            "frames": sum(totals[name] for name in TEXTS),
            **{name: totals[name] for name in (*COUNTED, "refused", "evicted", "asked")},
            "is_at_rest": self.is_at_rest(),
            "connections": [*self._retired, *(connection.report() for connection in self.connections.values())],
            "streams": {self.load.streams[stream]: int(sent[stream]) for stream in spoken},
            "last": self.load.last_prices({stream: int(last[stream]) for stream in spoken}),
        }
