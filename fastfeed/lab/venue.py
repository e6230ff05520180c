"""A venue on this machine: a WebSocket server that speaks an exchange's protocol, plays a load, counts what it sends
and misbehaves when told to.

It decides what is played and which faults there are; each client's socket is its `Connection`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import math
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

import numpy as np

from fastfeed.errors import ConfigError
from fastfeed.lab.binance import Spot, Usdm, market
from fastfeed.lab.connection import CLOSE_SECONDS, COUNTED, REPEATABLE, TEXTS, Connection
from fastfeed.lab.load import (
    NEVER,
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

TICK = 0.002  # seconds between two looks at what has fallen due
LIMITS = ("ping_interval", "pong_timeout", "max_streams", "messages_per_second", "lifetime")
STAMP_SECONDS = 0.005  # frames this close together carry the same event time
SHARED_KEPT = 16  # sets of rendered pieces kept for the next connection that wants the same
RETIRED_KEPT = 1000  # ended connections listed by count()
# What a venue that has lost its mind sends: text that is no JSON, and JSON that no one has ever documented.
GARBAGE = {"malformed": '{"e":"bookTicker","u":1,"s":"BTCU', "unknown": '{"e":"somethingNew","v":[1,2,3]}'}


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
        # Connections let be; whether the oldest go; with which code.
        self._eviction: tuple[int, bool, int | None] | None = None
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
