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
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from fastfeed import events
from fastfeed.backoff import Backoff
from fastfeed.dialect import (
    Ack,
    Active,
    Beat,
    Denial,
    Dialect,
    Greeting,
    Notice,
    PingAsked,
    PongSaid,
    Refusal,
    Reply,
    Welcome,
)
from fastfeed.door import Door
from fastfeed.errors import AuthError, ConnectError, FastFeedError, GaveUp
from fastfeed.failures import Failure, classify_close, classify_error
from fastfeed.heartbeat import Beats, Heartbeat, Offset, Pulse
from fastfeed.retries import Retries
from fastfeed.rotation import Age, Rotation
from fastfeed.signals import (
    Action,
    Close,
    Closed,
    Control,
    Delivered,
    Dial,
    DialFailed,
    Emit,
    Forget,
    Heard,
    Inherit,
    Input,
    Judge,
    Login,
    Lost,
    Opened,
    Pong,
    Redial,
    Relief,
    Renew,
    Renewed,
    Resubscribe,
    Rotate,
    Say,
    Send,
    SendAppPing,
    SendPing,
    SetOffset,
    Silent,
    Start,
    Stop,
    Subscribe,
    Tick,
    Traffic,
    Unsubscribe,
    Window,
)
from fastfeed.staleness import Cause, Move, Rate, Staleness, Standing, Step, Watch
from fastfeed.subscriptions import Book, Limits, Pace, Record, Stage, Subscription, by_channel

ACK_TIMEOUT = 5.0  # seconds a request may stay unanswered before it is asked again, in halves
LOGIN_TIMEOUT = 10.0  # seconds from the handshake in which the server greets and accepts a login
RENEW_TIMEOUT = 30.0  # seconds in which fresh credentials are to be had
WRONG_CLOCK = 86400.0  # seconds between two clocks that no clock is wrong by: the server means something else
RESTORE_GRACE = 5.0  # seconds after the last ack in which a restored subscription delivers or counts as missing
_FOR_PINGS = 1  # messages a second that requests leave free, or a long restore would delay the heartbeat


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
        beats: the provider's heartbeats beside the protocol's.
        staleness: which silence is too long.
        door: the address, shared by the sessions that dial it.
        close_codes: the provider's own close codes, before the common ones.
        logs_in: nothing may be asked before a login was accepted.
        renewable: there are fresh credentials to be had, once, when the present ones are not accepted any more.
        rotation: when a successor is asked for, if at all.
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
        beats: Beats = Beats(),  # noqa: B008 - frozen
        staleness: Staleness = Staleness(),  # noqa: B008 - frozen
        door: Door | None = None,
        close_codes: Mapping[int, Failure] = MappingProxyType({}),
        logs_in: bool = False,
        renewable: bool = False,
        rotation: Rotation | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.state = State.IDLE
        self.book = Book(
            dialect.subscribe,
            dialect.unsubscribe,
            limits,
            acks=dialect.acks,
            group=dialect.group,
            echoes=dialect.echoes,
            numbered=dialect.numbered,
        )
        self.pulse = Pulse(heartbeat, pongs_promised=pongs_promised)
        # The application's pings go on where the user wants none of the protocol's: the server counts on them.
        self.app_pulse = Pulse(Heartbeat(interval=beats.interval, timeout=beats.timeout))
        self.error: FastFeedError | None = None  # why the last dial or connection failed
        self.failure: GaveUp | None = None  # set once, in FAILED
        self.opened_at: float | None = None  # of the latest connection; None once it is lost
        self.watch = Watch()
        self.rate = Rate(staleness.collapse)
        self.dials = 0
        self.reconnects = 0  # opened again after a loss
        self.beats = 0  # the server's own heartbeats
        self.unreadable = 0  # control messages that say nothing to us, or answer nothing we said
        self._dialect = dialect
        self._limits = limits
        self._backoff = backoff
        self._random = random
        self._pace = self._new_pace()
        self._retries = Retries(backoff, limits.eviction_cool_down, random)
        self._dial_at = 0.0
        self._delivered = False  # since opened
        self._unanswered = 0  # overdue answers in a row on this connection
        self._lost_at: float | None = None  # since when data is missing; None once it flows again
        self._restored_at: float | None = None  # the latest first data since the loss
        self._grace_ends_at: float | None = None
        self._door = Door(limits.dials_per_five_minutes) if door is None else door
        self._close_codes = close_codes
        self._logs_in = logs_in
        self._expected = beats.expected
        self._heard_at = 0.0  # when the server last said anything but a pong
        self._offset = Offset()
        self._ready = False  # greeted and logged in: requests may go out
        self._renewable = renewable
        self._renewed = False  # since a connection was stable
        self._renew_by: float | None = None  # the answer to Renew is due
        self._probed_at: float | None = None  # the probe that is not answered yet; inf: not sent yet
        self._owed: set[Subscription] = set()  # delivered on an earlier connection, and not yet on this one
        self._told_stale: set[Subscription] = set()
        self._tripped = False  # told that the dialect raised
        self._warned: set[str] = set()  # quotas of which four fifths are used
        self._to_say: deque[str | bytes] = deque()  # requests beside the book's
        self._age = Age(rotation, limits.lifetime)
        self._relieved = False  # a successor is on its way
        self._actions: list[Action] = []

    @property
    def strays(self) -> int:
        """Answers to nothing we asked: acks, refusals and pongs."""
        return self.book.strays + self.pulse.unsolicited + self.app_pulse.unsolicited

    @property
    def restoring(self) -> bool:
        """Data was lost and has not all come back."""
        return self._lost_at is not None

    @property
    def ready(self) -> bool:
        """Open, greeted and logged in: requests may go out."""
        return self.state is State.OPEN and self._ready

    def handle(self, event: Input, now: float) -> list[Action]:
        """Take one input at monotonic time `now` (seconds) and return what to do, in order."""
        self._actions = []
        match event:
            case Start():
                if self.state is State.IDLE:
                    self._dial(now)
            case Stop():
                self._stop()
            case Opened():
                if self.state is State.DIALING:
                    self._opened(now)
            case DialFailed(error, retry_after, failure):
                if self.state is State.DIALING:
                    self._failed_with(failure or classify_error(error), error, now, retry_after)
            case Renewed(failed):
                if self._renew_by is not None:
                    self._renew_by = None
                    if failed is not None:
                        if isinstance(failed, AuthError):
                            self._emit(events.AuthFailed(self.name, failed.cause))
                        self._give_up(failed, self._retries.attempts + 1)
                    elif self.state is State.WAITING:
                        self._dial_at = now
            case Closed(code, reason):
                if self.state is State.OPEN:
                    self._closed(code, reason, now)
            case Control(payload, utc):
                if self.state is State.OPEN:
                    self._heard_at = now
                    for reply in self._read(payload):
                        if self.state is State.OPEN:  # else the one before has ended this connection
                            self._reply(reply, now, utc)
            case Pong(payload):
                trip = self.pulse.pong(payload, now)
                if trip is not None and self._probed_at is not None and now - trip >= self._probed_at:
                    self._probed_at = None
                    self._make(self.watch.answered(now), now)
            case Delivered(subscriptions):
                if self.state is State.OPEN:
                    self._delivered = True
                    self._heard_at = now
                    if any([self.book.delivered(subscription) for subscription in subscriptions]):
                        self._restored_at = now
                    self._owed.difference_update(subscriptions)
                    self._heard(subscriptions)
            case Silent(subscriptions, mute, usual, heard):
                if self.state is State.OPEN:
                    self._silent(subscriptions, mute, usual, heard, now)
            case Heard(subscriptions):
                if self.state is State.OPEN:
                    self._heard(subscriptions)
            case Traffic(messages, judged):
                if self.state is State.OPEN:
                    self._heard_at = now if messages else self._heard_at
                    if judged and self.rate.add(messages, now):
                        self._collapsed(now)
            case Subscribe(wishes):
                for subscription, topic in wishes:
                    self.book.want(subscription, topic)
                most = self._limits.streams_per_connection
                if most is not None and self._limits.connections is not None:  # else there is one more connection
                    self._warn("streams", len(self.book) / most, f"{most} streams of a connection")
            case Unsubscribe(subscriptions):
                for subscription in subscriptions:
                    self.book.drop(subscription)
                self.watch.heard(subscriptions)
                self._owed.difference_update(subscriptions)
                self._told_stale.difference_update(subscriptions)
            case Resubscribe(subscriptions):
                if self.state is State.OPEN:
                    self._ask_anew(subscriptions)
            case Say(text):
                if self.state is State.OPEN:
                    self._to_say.append(text)
            case Window(is_open):
                self._age.is_window_open = is_open
            case Relief(is_coming):
                self._relief(is_coming, now)
            case Inherit(subscriptions):
                missing = {record.subscription for record in self.book.silent}.intersection(subscriptions)
                if missing:
                    self._lost_at = now if self._lost_at is None else self._lost_at
                    self._owed |= missing
            case Redial(reason):
                if self.state is State.OPEN:
                    self._hang_up(Failure.RESTART, reason, now, 1000)
            case Tick():
                pass
        self._advance(now)
        return self._actions

    def deadline(self) -> float | None:
        """The monotonic time by which a `Tick` must be handed in, or None."""
        if self.state is State.WAITING:
            return self._dial_at if self._renew_by is None else self._renew_by
        if self.state is not State.OPEN:
            return None
        ready_at = self._pace.ready_at()
        times = [
            self.pulse.dead_at,
            self.app_pulse.dead_at,
            None if self.pulse.next_at is None else max(self.pulse.next_at, ready_at),
            None if self.app_pulse.next_at is None else max(self.app_pulse.next_at, ready_at),
            None if self._expected is None else self._heard_at + self._expected,
            None if self._ready or self.opened_at is None else self.opened_at + LOGIN_TIMEOUT,
            self._pace.ready_at(_FOR_PINGS) if self._ready and (self._to_say or self.book.pending) else None,
            self.book.answer_due(ACK_TIMEOUT),
            self._grace_ends_at,
            self.watch.deadline,
            ready_at if self._probed_at == math.inf else None,
            self._age.at,
        ]
        return min((time for time in times if time is not None), default=None)

    # Time -----------------------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        """Do whatever has become due. Runs after every input, so that no input can delay a deadline."""
        if self.state is State.WAITING and self._renew_by is not None:
            if now < self._renew_by:
                return
            self._renew_by = None
            self._give_up(AuthError(self.host, f"no fresh credentials within {RENEW_TIMEOUT:g} s"), 1)
        if self.state is State.WAITING and now >= self._dial_at:
            self._dial(now)
        if self.state is not State.OPEN:
            return
        if (death := self._dead(now)) is not None:
            self._hang_up(Failure.SILENT, death, now, 1006)
            return
        if not self._ready and self.opened_at is not None and now >= self.opened_at + LOGIN_TIMEOUT:
            self._hang_up(Failure.UNANSWERED, f"no greeting or no login within {LOGIN_TIMEOUT:g} s", now, 1000)
            return
        if self.book.overdue(now, ACK_TIMEOUT):
            self._unanswered += 1
            if self._unanswered > 1:
                self._hang_up(Failure.UNANSWERED, "requests are not answered", now, 1000)
                return
        if not self._escalate(now):
            return
        self._check_restored(now)
        self._check_age(now)
        if self.app_pulse.due(now) and now >= self._pace.ready_at():
            self._spend(now)
            self._actions.append(SendAppPing(int(self.app_pulse.ping(now))))
        if (self.pulse.due(now) or self._probed_at == math.inf) and now >= self._pace.ready_at():
            self._spend(now)
            self._probed_at = now if self._probed_at == math.inf else self._probed_at
            self._actions.append(SendPing(self.pulse.ping(now)))
        while self._ready and self._to_say and now >= self._pace.ready_at(_FOR_PINGS):
            self._spend(now)
            self._actions.append(Send(self._to_say.popleft()))
        while self._ready and self.book.pending and now >= self._pace.ready_at(_FOR_PINGS):
            request = self.book.request(now)
            assert request is not None
            self._spend(now)
            self._actions.append(Send(request.text))

    def _check_age(self, now: float) -> None:
        """Ask for a successor when it is time for one."""
        if self._ready and (reason := self._age.ask(now)) is not None:
            self._actions.append(Rotate(reason))

    def _relief(self, is_coming: bool, now: float) -> None:
        self._relieved = is_coming
        if is_coming and self.state is not State.OPEN:
            self._stop()
        elif not is_coming:
            self._age.none_came(now)

    def _dead(self, now: float) -> str | None:
        """Why the other end counts as gone, if it does."""
        if self.pulse.dead(now):
            return f"no pong within {self.pulse.options.timeout:g} s"
        if self.app_pulse.dead(now):
            return f"no answer to an application ping within {self.app_pulse.options.timeout:g} s"
        if self._expected is not None and now >= self._heard_at + self._expected:
            return f"nothing within {self._expected:g} s, where the server beats by itself"
        return None

    def _spend(self, now: float) -> None:
        """One message goes out."""
        self._pace.spend(now)
        if self._pace.most is not None and self.book.pending:
            self._warn("messages", self._pace.used(now), f"{self._limits.messages_per_second} messages a second")

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
            owed = tuple(subscription for subscription in missing if subscription in self._owed)
            self._owed.clear()
            if owed:
                self._fell(owed, now, Cause.NOTHING_CAME, mute=not self._delivered)

    # Silence --------------------------------------------------------------------------------------------------------

    def _carried(self, fallen: Iterable[Subscription] = ()) -> Counter[str]:
        """How many subscriptions of each channel should be heard on this connection, the `fallen` among them."""
        silent = {*fallen, *self.watch.silent}
        carried = Counter(
            record.subscription.channel
            for record in self.book
            if record.subscription not in silent
            and record.stage is Stage.LIVE
            and record.subscription not in self.watch.quiet
        )
        carried.update(key.channel for key in silent)
        return carried

    def _silent(self, subscriptions: tuple[Subscription, ...], mute: bool, usual: bool, heard: int, now: float) -> None:
        known = tuple(subscription for subscription in subscriptions if subscription in self.book)
        if not known:
            return
        if usual:
            self._fresh(known)
            self.watch.rests(known)
            self._actions.append(Judge(known, Standing.QUIET))
        else:
            self._fell(known, now, Cause.MANY_SILENT, mute=mute, heard=heard)

    def _fell(
        self, subscriptions: tuple[Subscription, ...], now: float, cause: Cause, *, mute: bool, heard: int = 0
    ) -> None:
        carried = self._carried(subscriptions)
        if heard:
            carried.update(dict.fromkeys({key.channel for key in subscriptions}, heard))
        self._make(self.watch.fell(subscriptions, carried, now, cause, mute), now)

    def _heard(self, subscriptions: tuple[Subscription, ...]) -> None:
        back = tuple(key for key in subscriptions if key in self.watch.silent or key in self.watch.quiet)
        self.watch.heard(back)
        if back:
            self._actions.append(Judge(back, Standing.LIVE))
        self._fresh(subscriptions)

    def _fresh(self, subscriptions: tuple[Subscription, ...]) -> None:
        """Take back what was told of these."""
        for channel, symbols in by_channel(key for key in subscriptions if key in self._told_stale).items():
            self._emit(events.Fresh(symbols, channel))
        self._told_stale.difference_update(subscriptions)

    def _escalate(self, now: float) -> bool:
        """Take the steps that are due. False if the connection is gone now."""
        due_at = self.watch.deadline
        if due_at is None or now < due_at:
            return True
        settled = self.book.settled and not self.book.pending
        self._make(self.watch.due(now, pongs_trusted=self.pulse.trusted, settled=settled), now)
        return self.state is State.OPEN

    def _make(self, moves: list[Move], now: float) -> None:
        for move in moves:
            self._actions.append(Judge(move.subscriptions, move.standing))
            if move.step is not Step.WAIT:
                self._emit(events.Escalated(self.name, move.step.value, move.cause.value, move.subscriptions))
            if move.standing is Standing.STALE:
                news = [key for key in move.subscriptions if key not in self._told_stale]
                self._told_stale.update(news)
                for channel, symbols in by_channel(news).items():
                    self._emit(events.Stale(symbols, channel, move.cause.value))
            match move.step:
                case Step.PROBE:
                    self._probed_at = math.inf
                case Step.RESUBSCRIBE | Step.RESUBSCRIBE_ALL:
                    self._ask_anew(move.subscriptions, whole=move.step is Step.RESUBSCRIBE_ALL)
                case Step.REDIAL:
                    no_pong = move.cause is Cause.NO_PONG
                    failure = Failure.SILENT if no_pong else Failure.MUTE
                    cause = "no data, and no pong either" if no_pong else "no data, whatever was tried"
                    self._hang_up(failure, cause, now, 1006 if no_pong else 1000)
                    return

    def _ask_anew(self, subscriptions: Iterable[Subscription], *, whole: bool = False) -> None:
        asked = self.book.again(subscriptions, whole=whole)
        if asked:
            self._actions.append(Forget(tuple(asked)))

    def _collapsed(self, now: float) -> None:
        cause = f"{self.name}: {self.rate.lately:.3g} messages/s, where {self.rate.usual:.3g} are usual"
        self._emit(events.Escalated(self.name, Step.PROBE.value, Cause.RATE_COLLAPSED.value, ()))
        self._emit(events.Alert("warning", cause, "compare with another source: the server may be shedding load"))
        self._probed_at = math.inf

    # Connections ----------------------------------------------------------------------------------------------------

    def _new_pace(self) -> Pace:
        # One message a second is left for the pongs, which are answered below us and are not counted here.
        per_second = self._limits.messages_per_second
        return Pace(None if per_second is None else max(1, per_second - 1))

    def _dial(self, now: float) -> None:
        open_at = self._door.open_at(now, self)
        if now < open_at:
            self.state = State.WAITING
            self._dial_at = open_at
            return
        self._door.dialled(now, self)
        quota = self._door.quota
        self._warn("dials", quota.used(now), f"{quota.most} dials per five minutes")
        self.state = State.DIALING
        self.dials += 1
        self._actions.append(Dial())

    def _opened(self, now: float) -> None:
        self.state = State.OPEN
        self.error = None
        self.opened_at = now
        if self._lost_at is not None:
            self.reconnects += 1
            if (storm := self._retries.reopened(now)) is not None:
                cause = f"{self.name}: {storm} reconnects within {self._backoff.storm_window:g} s"
                self._emit(events.Alert("warning", cause, "look at the network, and at the causes of Disconnected"))
        self._delivered = False
        self._unanswered = 0
        self.rate.start(now)
        self._pace = self._new_pace()
        self._heard_at = now
        self.pulse.start(now)
        self.app_pulse.start(now)
        self._ready = not (self._dialect.greets or self._logs_in)
        self._age.begin(now, self._random())
        self._emit(events.Connected(self.name))
        if self._ready:
            self._door.fitted()
        elif not self._dialect.greets:
            self._login(now)

    def _login(self, now: float) -> None:
        self._spend(now)
        self._actions.append(Login())

    def _read(self, payload: bytes) -> tuple[Reply, ...]:
        """What a control message says. A dialect may be the user's: one that trips over it costs no connection."""
        try:
            replies = tuple(self._dialect.read(payload))
        except Exception as error:
            replies = ()
            if not self._tripped:
                self._tripped = True
                cause = f"{self.name}: the dialect cannot read a message: {type(error).__name__}: {error}"
                self._emit(events.Alert("warning", cause, "let its read() return () for what it does not know"))
        self.unreadable += not replies
        return replies

    def _reply(self, reply: Reply, now: float, utc: float) -> None:
        match reply:
            case Ack(request_id, topics, number):
                if self.book.acked(request_id, topics):
                    self._unanswered = 0
                    self.book.number = self.book.number if number is None else number
            case Active(topics):
                if self.book.active(topics):
                    self._unanswered = 0
            case Refusal(request_id, reason, topics):
                rejected = self.book.refused(request_id, reason, topics)
                if rejected is None:
                    self._emit(events.Alert("warning", f"{self.name}: the server refused something: {reason}"))
                else:
                    self._unanswered = 0
                    self._rejected(rejected, reason)
            case Greeting():
                if not self._ready and self._logs_in:
                    self._login(now)
                elif not self._ready:
                    self._ready = True
                    self._door.fitted()
            case Welcome():
                if self._logs_in and not self._ready:
                    self._ready = True
                    self._door.fitted()
            case PingAsked(answer):
                self._pace.spend(now)
                self._actions.append(Send(answer))
            case PongSaid(number, server_time):
                trip = self.app_pulse.pong(None if number is None else b"%d" % number, now)
                if trip is not None and server_time is not None and utc:
                    if abs(utc - server_time) > WRONG_CLOCK:
                        self.unreadable += 1
                    else:
                        self._actions.append(SetOffset(self._offset.add(trip, utc, server_time)))
            case Beat():
                self.beats += 1
            case Denial(failure, reason, retry_after):
                self._hang_up(failure, reason, now, 1000, retry_after)
            case Notice(reason):
                if self._age.counts and self._ready:
                    self._noticed(reason, now)
                else:
                    self._hang_up(Failure.RESTART, reason, now, 1000)

    def _noticed(self, reason: str, now: float) -> None:
        """The server is going to close. One that says so to every newcomer must not be dialled without end."""
        assert self.opened_at is not None
        before = self._door.noticed_at
        at = now if before is None or self.opened_at <= before else max(now, self.opened_at + self._backoff.cap)
        self._door.noticed_at = now
        self._age.noticed(at, reason)

    def _rejected(self, records: Iterable[Record], reason: str) -> None:
        """Never asked for again, so nobody waits for their data any more."""
        for record in records:
            self._emit(events.Rejected(record.subscription, reason))
        gone = tuple(record.subscription for record in records)
        self.watch.heard(gone)
        self._owed.difference_update(gone)
        self._told_stale.difference_update(gone)

    def _warn(self, name: str, used: float, limit: str) -> None:
        """Tell, once until it falls again, that four fifths of a quota are used."""
        if used < 0.8:
            self._warned.discard(name)
        elif name not in self._warned:
            self._warned.add(name)
            # That of the messages is kept by our own pace: nobody need do anything.
            severity: Literal["info", "warning"] = "info" if name == "messages" else "warning"
            self._emit(events.Alert(severity, f"{self.name}: {used:.0%} of the {limit} the provider allows are used"))

    def _closed(self, code: int, reason: str, now: float) -> None:
        """The server, or the network, has closed the connection."""
        cause = f"closed with {code}" + (f" ({reason})" if reason else "")
        failure = self._close_codes.get(code, classify_close(code))
        if failure is Failure.CLEAN and self._retries.is_limited and not self._delivered:
            failure = Failure.RATE_LIMITED  # some say 429 once, and then accept and close politely
        self._drop(failure, cause, now, code, reason)

    def _hang_up(self, failure: Failure, cause: str, now: float, code: int, retry_after: float | None = None) -> None:
        """The open connection has to go."""
        self._actions.append(Close(code, ""))
        self._drop(failure, cause, now, code, "", retry_after)

    def _drop(
        self, failure: Failure, cause: str, now: float, code: int, reason: str, retry_after: float | None = None
    ) -> None:
        """The open connection is gone."""
        self._emit(events.Disconnected(self.name, code, reason, cause))
        error = AuthError(self.host, cause) if failure is Failure.AUTH else ConnectError(self.host, cause)
        self._failed_with(failure, error, now, retry_after)

    def _failed_with(self, failure: Failure, error: ConnectError, now: float, retry_after: float | None) -> None:
        """Decide whether and when to dial again."""
        stable = self._delivered and self.opened_at is not None and now >= self.opened_at + self._backoff.stable_after
        if self.opened_at is not None:
            self.opened_at = None
            self._delivered = False
            self._to_say.clear()
            self.pulse.stop()
            self.app_pulse.stop()
            self._ready = False
            self._lost_at = now if self._lost_at is None else self._lost_at
            self._grace_ends_at = self._restored_at = None
            self._owed.update(record.subscription for record in self.book.at(Stage.LIVE))
            self._owed.update(self.watch.silent)
            self._owed -= self.watch.quiet
            self.watch.reset()
            self._probed_at = None
            self._actions.append(Lost(tuple(record.subscription for record in self.book.lost())))
        if stable:
            self._retries.settle()
            self._renewed = False
        self.error = error
        self._door.failed(self)
        if self._relieved:
            self.state = State.STOPPED
            if failure is Failure.RATE_LIMITED or retry_after is not None:
                self._door.shut(now + (self._backoff.cap if retry_after is None else retry_after))
            return
        if failure is Failure.AUTH:
            if self._renewable and not self._renewed:
                self._renew(error, now)
                return
            self._emit(events.AuthFailed(self.name, error.cause))
        attempts = self._retries.attempts + 1
        delay = self._retries.wait(failure, retry_after, stable=stable)
        if delay is None:
            self._give_up(error, attempts)
            return
        if failure is Failure.RATE_LIMITED:
            self._emit(events.RateLimited(self.name, delay))
            self._door.shut(now + delay)
        elif retry_after is not None and failure is not Failure.EVICTED:
            self._door.shut(now + retry_after)
        self.state = State.WAITING
        self._dial_at = now + delay
        self._emit(events.Reconnecting(self.name, attempts, delay, error.cause))

    def _renew(self, error: ConnectError, now: float) -> None:
        """The credentials are not accepted any more: once, before giving up, ask for fresh ones."""
        self._renewed = True
        # Not final yet, as an AuthError is: whoever waits for the connection goes on waiting.
        self.error = ConnectError(self.host, f"{error.cause}; renewing credentials")
        self.state = State.WAITING
        self._dial_at = self._renew_by = now + RENEW_TIMEOUT
        self._actions.append(Renew())
        self._emit(events.Reconnecting(self.name, self._retries.attempts + 1, 0.0, self.error.cause))

    def _give_up(self, error: ConnectError, attempts: int) -> None:
        self.state = State.FAILED
        self.error = error
        self.failure = GaveUp(str(error), attempts)
        self.failure.__cause__ = error
        self._emit(events.GaveUp(self.name, str(error), attempts))

    def _stop(self) -> None:
        if self.state in (State.STOPPED, State.FAILED):
            return
        if self.state in (State.OPEN, State.DIALING):
            self._actions.append(Close(1000, ""))
        self.state = State.STOPPED
        self.book.lost()
        self._renew_by = None
        self.pulse.stop()
        self.app_pulse.stop()

    def _emit(self, event: events.Event) -> None:
        self._actions.append(Emit(event))
