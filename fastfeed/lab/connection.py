"""One client of a venue: its handshake, its requests, its own place in the load, and what the faults do to it.

It writes to a bare socket, so that "sent" can mean one thing: taken by the kernel, to the last byte of the frame. It
keeps no queue of data: a connection that does not read keeps its place in the load and catches up from there, with the
event times of then. What is played, and to whom, the venue decides.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfeed.lab.binance import Desk, NotFound
from fastfeed.lab.load import NEVER, PIECE, Piece, without_speed

if TYPE_CHECKING:
    from fastfeed.lab.venue import Venue

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
# A send the kernel takes in one go, and the most data that ever waits in this process for one connection.
SLICE_BYTES = 512 * 1024
SLICES_PER_TURN = 4
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
REPEATABLE = 1000  # data frames a connection can be made to send again
DRIP_SECONDS = 0.02  # between two drops
_ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """One unmasked server frame; `final` ends its message."""
    size = len(payload)
    first = opcode | (0x80 if final else 0)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 0x1_0000:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


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
