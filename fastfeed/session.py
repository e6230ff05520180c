"""The brain of one connection, Sans-I/O: what happened and the time go in, what to do comes out.

The same inputs give the same outputs. It owns no socket, clock or random number generator; the random function is
handed in, and `now` (monotonic seconds) comes with every input. Whoever runs it hands each input to `Session.handle`,
carries out the returned actions in order, and hands in `Tick` when `Session.deadline()` has passed.

    IDLE -> DIALING -> OPEN -> WAITING -> DIALING ...
                any state -> STOPPED (asked to) or FAILED (a budget is spent: `Session.failure` says why)

Once the session drops a connection it forgets it at once: nothing more is expected from the socket, and anything that
still arrives from it must not be handed in.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fastfeed import events
from fastfeed.backoff import Backoff
from fastfeed.errors import AuthError, ConnectError, FastFeedError, GaveUp, HandshakeError
from fastfeed.heartbeat import Heartbeat, Pulse
from fastfeed.subscriptions import Book, Limits, Pace, Render, Subscription

ACK_TIMEOUT = 5.0  # seconds a request may stay unanswered before it is asked again, in halves
RESTORE_GRACE = 5.0  # seconds after the last ack in which a restored subscription delivers or counts as missing


# What the provider says ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ack:
    """Request `id` was accepted."""

    id: int


@dataclass(frozen=True)
class Refusal:
    """Request `id` was refused; None where the server does not say which."""

    id: int | None
    reason: str


@dataclass(frozen=True)
class Notice:
    """The server announces that it will close this connection."""

    reason: str


Reply = Ack | Refusal | Notice


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The words of one provider: how to ask and how to read what is not market data. Pure functions.

    `read` never raises: what it does not understand is no reply at all.
    """

    subscribe: Render
    unsubscribe: Render
    read: Callable[[bytes], tuple[Reply, ...]]


# Inputs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Connect now."""


@dataclass(frozen=True)
class Stop:
    """Close, for good."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class Opened:
    """The dial succeeded and the handshake is complete."""


@dataclass(frozen=True)
class DialFailed:
    """The dial failed; `retry_after` is what the server asked for, in seconds."""

    error: ConnectError
    retry_after: float | None = None


@dataclass(frozen=True)
class Closed:
    """The open connection is gone; 1006 if no CLOSE frame came."""

    code: int
    reason: str


@dataclass(frozen=True)
class Control:
    """A message that is not market data."""

    payload: bytes


@dataclass(frozen=True)
class Pong:
    """A PONG frame."""

    payload: bytes


@dataclass(frozen=True)
class Delivered:
    """Market data of `subscriptions` has come on this connection."""

    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True)
class Subscribe:
    """Wish for more: (subscription, the provider's name for it), most important first."""

    wishes: tuple[tuple[Subscription, str], ...]


@dataclass(frozen=True)
class Unsubscribe:
    """Wish for less."""

    subscriptions: tuple[Subscription, ...]


Input = Start | Stop | Tick | Opened | DialFailed | Closed | Control | Pong | Delivered | Subscribe | Unsubscribe


# Actions ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dial:
    """Open a connection; answer with Opened or DialFailed."""


@dataclass(frozen=True)
class Send:
    """Send a TEXT message."""

    text: str


@dataclass(frozen=True)
class SendPing:
    """Send a PING frame."""

    payload: bytes


@dataclass(frozen=True)
class Close:
    """Close the connection, or abandon the dial, and forget it. 1006: without a CLOSE frame."""

    code: int
    reason: str


@dataclass(frozen=True)
class Lost:
    """Prices of these subscriptions are frozen until they deliver again."""

    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True)
class Emit:
    """Tell the user."""

    event: events.Event


Action = Dial | Send | SendPing | Close | Lost | Emit


# Failures -----------------------------------------------------------------------------------------------------------


class Failure(enum.Enum):
    """The ways a connection dies; each has a budget of redials in a row."""

    TRANSPORT = "transport"  # refused, unreachable, reset, timed out, name not resolved, HTTP 5xx, 1006
    SILENT = "silent"  # no pong
    UNANSWERED = "unanswered"  # requests are not answered
    CLEAN = "clean close"  # 1000
    RESTART = "server restart"  # 1001, 1012, 1013, or announced
    OVERLOAD = "overload"  # 1008, 1009, 1011
    RATE_LIMITED = "rate limited"  # HTTP 418, 429; close 3001
    AUTH = "auth"  # HTTP 401, 403
    TLS = "tls"  # the certificate is not accepted
    REFUSED = "refused"  # redirects and other HTTP 4xx
    PROTOCOL = "protocol"  # 1002, 1003, 1007, 1010
    UNKNOWN = "unknown"  # any other close code


# Redials in a row. At the default backoff 1,000 are eight hours of trying; 10 are two and a half minutes.
BUDGETS: Mapping[Failure, int] = MappingProxyType(
    {
        Failure.TRANSPORT: 1000,
        Failure.SILENT: 1000,
        Failure.UNANSWERED: 20,
        Failure.CLEAN: 1000,
        Failure.RESTART: 1000,
        Failure.OVERLOAD: 100,
        Failure.RATE_LIMITED: 100,
        Failure.AUTH: 0,
        Failure.TLS: 10,
        Failure.REFUSED: 10,
        Failure.PROTOCOL: 20,
        Failure.UNKNOWN: 100,
    }
)

_CLOSE_CODES: Mapping[int, Failure] = MappingProxyType(
    {
        1000: Failure.CLEAN,
        1001: Failure.RESTART,
        1002: Failure.PROTOCOL,
        1003: Failure.PROTOCOL,
        1005: Failure.CLEAN,
        1006: Failure.TRANSPORT,
        1007: Failure.PROTOCOL,
        1008: Failure.OVERLOAD,
        1009: Failure.OVERLOAD,
        1010: Failure.PROTOCOL,
        1011: Failure.OVERLOAD,
        1012: Failure.RESTART,
        1013: Failure.RESTART,
        3001: Failure.RATE_LIMITED,
    }
)


def classify_close(code: int) -> Failure:
    """The class of a close code (RFC 6455 7.4 and the IANA registry)."""
    return _CLOSE_CODES.get(code, Failure.UNKNOWN)


def classify_error(error: ConnectError) -> Failure:
    """The class of a failed dial."""
    if isinstance(error, AuthError):
        return Failure.AUTH
    if isinstance(error, HandshakeError):
        if error.status in (418, 429):
            return Failure.RATE_LIMITED
        return Failure.TRANSPORT if error.retryable else Failure.REFUSED
    return Failure.TRANSPORT if error.retryable else Failure.TLS


# The session --------------------------------------------------------------------------------------------------------


class State(enum.Enum):
    """Where one connection stands."""

    IDLE = "idle"
    DIALING = "dialing"
    OPEN = "open"
    WAITING = "waiting"
    STOPPED = "stopped"
    FAILED = "failed"


class Session:
    """Decides for one connection when to dial, ask, ping, redial and give up.

    Args:
        name: how events call this connection.
        host: "name:port", for error messages.
        dialect, limits: the provider's words and rules.
        random: uniform in [0, 1); spreads the backoff.
        pongs_promised: the provider promises to answer pings, so that a missing pong is death from the first ping on.
    """

    def __init__(
        self,
        name: str,
        host: str,
        *,
        dialect: Dialect,
        limits: Limits,
        backoff: Backoff,
        heartbeat: Heartbeat,
        random: Callable[[], float],
        pongs_promised: bool = True,
    ) -> None:
        self.name = name
        self.host = host
        self.state = State.IDLE
        self.book = Book(dialect.subscribe, dialect.unsubscribe, limits)
        self.pulse = Pulse(heartbeat, pongs_promised=pongs_promised)
        self.error: FastFeedError | None = None  # why the last dial or connection failed
        self.failure: GaveUp | None = None  # set once, in FAILED
        self.opened_at: float | None = None  # None while not open
        self.dials = 0
        self.reconnects = 0  # opened again after a loss
        self._dialect = dialect
        self._limits = limits
        self._backoff = backoff
        self._random = random
        self._pace = self._new_pace()
        self._failed: Counter[Failure] = Counter()  # in a row, by class
        self._dial_at = 0.0
        self._delivered = False  # since opened
        self._unanswered = 0  # overdue answers in a row on this connection
        self._lost_at: float | None = None  # since when data is missing; None once it flows again
        self._restored_at: float | None = None  # the latest first data since the loss
        self._grace_ends_at: float | None = None
        self._actions: list[Action] = []

    @property
    def restoring(self) -> bool:
        """Data was lost and has not all come back."""
        return self._lost_at is not None

    def handle(self, event: Input, now: float) -> list[Action]:
        """Take one input at monotonic time `now` (seconds) and return what to do, in order."""
        self._actions = []
        match event:
            case Start():
                if self.state is State.IDLE:
                    self._dial()
            case Stop():
                self._stop()
            case Opened():
                if self.state is State.DIALING:
                    self._opened(now)
            case DialFailed(error, retry_after):
                if self.state is State.DIALING:
                    self._failed_with(classify_error(error), error, now, retry_after)
            case Closed(code, reason):
                if self.state is State.OPEN:
                    said = f" ({reason})" if reason else ""
                    self._drop(classify_close(code), f"closed with {code}{said}", now, code, reason)
            case Control(payload):
                if self.state is State.OPEN:
                    for reply in self._dialect.read(payload):
                        self._reply(reply, now)
            case Pong(payload):
                self.pulse.pong(payload, now)
            case Delivered(subscriptions):
                if self.state is State.OPEN:
                    self._delivered = True
                    if any([self.book.delivered(subscription) for subscription in subscriptions]):
                        self._restored_at = now
            case Subscribe(wishes):
                for subscription, topic in wishes:
                    self.book.want(subscription, topic)
            case Unsubscribe(subscriptions):
                for subscription in subscriptions:
                    self.book.drop(subscription)
            case Tick():
                pass
        self._advance(now)
        return self._actions

    def deadline(self) -> float | None:
        """The monotonic time by which a `Tick` must be handed in, or None."""
        if self.state is State.WAITING:
            return self._dial_at
        if self.state is not State.OPEN:
            return None
        ready_at = self._pace.ready_at()
        times = [
            self.pulse.dead_at,
            None if self.pulse.next_at is None else max(self.pulse.next_at, ready_at),
            ready_at if self.book.pending else None,
            self.book.answer_due(ACK_TIMEOUT),
            self._grace_ends_at,
        ]
        return min((time for time in times if time is not None), default=None)

    # Time -----------------------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        """Do whatever has become due. Runs after every input, so that no input can delay a deadline."""
        if self.state is State.WAITING and now >= self._dial_at:
            self._dial()
        if self.state is not State.OPEN:
            return
        if self.pulse.dead(now):
            self._hang_up(Failure.SILENT, f"no pong within {self.pulse.options.timeout:g} s", now, 1006)
            return
        if self.book.overdue(now, ACK_TIMEOUT):
            self._unanswered += 1
            if self._unanswered > 1:
                self._hang_up(Failure.UNANSWERED, "requests are not answered", now, 1000)
                return
        if self.pulse.due(now) and now >= self._pace.ready_at():
            self._pace.spend(now)
            self._actions.append(SendPing(self.pulse.ping(now)))
        while self.book.pending and now >= self._pace.ready_at():
            request = self.book.request(now)
            assert request is not None
            self._pace.spend(now)
            self._actions.append(Send(request.text))
        self._check_restored(now)

    def _check_restored(self, now: float) -> None:
        if self._lost_at is None or not self.book.settled:
            self._grace_ends_at = None
            return
        silent = self.book.silent
        if self._grace_ends_at is None:
            self._grace_ends_at = now + RESTORE_GRACE
        if not silent or now >= self._grace_ends_at:
            restored_at = now if self._restored_at is None else self._restored_at
            missing = tuple(record.subscription for record in silent)
            self._emit(events.Restored(restored_at - self._lost_at, missing, self.name))
            self._lost_at = self._grace_ends_at = None

    # Connections ----------------------------------------------------------------------------------------------------

    def _new_pace(self) -> Pace:
        # One message a second is left for the pongs, which are answered below us and are not counted here.
        per_second = self._limits.messages_per_second
        return Pace(None if per_second is None else max(1, per_second - 1))

    def _dial(self) -> None:
        self.state = State.DIALING
        self.dials += 1
        self._actions.append(Dial())

    def _opened(self, now: float) -> None:
        self.state = State.OPEN
        self.error = None
        self.opened_at = now
        if self._lost_at is not None:
            self.reconnects += 1
        self._delivered = False
        self._unanswered = 0
        self._pace = self._new_pace()
        self.pulse.start(now)
        self._emit(events.Connected(self.name))

    def _reply(self, reply: Reply, now: float) -> None:
        match reply:
            case Ack(request_id):
                if self.book.acked(request_id):
                    self._unanswered = 0
            case Refusal(request_id, reason):
                strays = self.book.strays
                for record in self.book.refused(request_id, reason):
                    self._emit(events.Rejected(record.subscription, reason))
                if self.book.strays > strays:
                    self._emit(events.Alert("warning", f"{self.name}: the server refused something: {reason}"))
                else:
                    self._unanswered = 0
            case Notice(reason):
                if self.state is State.OPEN:
                    self._hang_up(Failure.RESTART, reason, now, 1000)

    def _hang_up(self, failure: Failure, cause: str, now: float, code: int) -> None:
        """The open connection has to go."""
        self._actions.append(Close(code, ""))
        self._drop(failure, cause, now, code, "")

    def _drop(self, failure: Failure, cause: str, now: float, code: int, reason: str) -> None:
        """The open connection is gone."""
        self._emit(events.Disconnected(self.name, code, reason, cause))
        self._failed_with(failure, ConnectError(self.host, cause), now, None)

    def _failed_with(self, failure: Failure, error: ConnectError, now: float, retry_after: float | None) -> None:
        """Decide whether and when to dial again."""
        stable = self._delivered and self.opened_at is not None and now >= self.opened_at + self._backoff.stable_after
        if self.opened_at is not None:
            self.opened_at = None
            self._delivered = False
            self.pulse.stop()
            self._lost_at = now if self._lost_at is None else self._lost_at
            self._grace_ends_at = self._restored_at = None
            self._actions.append(Lost(tuple(record.subscription for record in self.book.lost())))
        if stable:
            self._failed.clear()
        self.error = error
        if failure is Failure.AUTH:
            self._emit(events.AuthFailed(self.name, error.cause))
        attempts = self._failed.total()
        if self._spent(failure):
            self._give_up(error, attempts + 1)
            return
        delay = self._backoff.delay(attempts, self._random())
        if stable and failure in (Failure.CLEAN, Failure.RESTART):
            delay = 0.0
        if failure is Failure.RATE_LIMITED:
            delay = max(delay, self._backoff.cap if retry_after is None else retry_after)
            self._emit(events.RateLimited(self.name, delay))
        elif retry_after is not None:
            delay = max(delay, retry_after)
        self._failed[failure] += 1
        self.state = State.WAITING
        self._dial_at = now + delay
        self._emit(events.Reconnecting(self.name, attempts + 1, delay, error.cause))

    def _spent(self, failure: Failure) -> bool:
        if failure is Failure.AUTH or self._backoff.max_retries is None:
            return self._failed[failure] >= BUDGETS[failure]
        return self._failed.total() >= self._backoff.max_retries

    def _give_up(self, error: ConnectError, attempts: int) -> None:
        self.state = State.FAILED
        self.failure = GaveUp(str(error), attempts)
        self.failure.__cause__ = error
        self._emit(events.GaveUp(self.name, str(error), attempts))

    def _stop(self) -> None:
        if self.state in (State.STOPPED, State.FAILED):
            return
        if self.state in (State.OPEN, State.DIALING):
            self._actions.append(Close(1000, ""))
        self.state = State.STOPPED
        self.pulse.stop()

    def _emit(self, event: events.Event) -> None:
        self._actions.append(Emit(event))
