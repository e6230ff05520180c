"""One connection of the simulated world: the real session, the hands that carry out what it says, the far end of the
wire, and what must hold after every input of it.

Everything random, and every fault, is the world's (`simulation.py`). No socket and no real clock.
"""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastfeed import events
from fastfeed.dialect import Beat, Denial, Dialect, Greeting, PingAsked, PongSaid, Reply, Welcome
from fastfeed.errors import ConnectError
from fastfeed.failures import AT_ONCE, BUDGETS, Failure, classify_close, classify_error
from fastfeed.session import RENEW_TIMEOUT, Session, State
from fastfeed.signals import (
    Close,
    Closed,
    Control,
    Delivered,
    Dial,
    DialFailed,
    Emit,
    Forget,
    Heard,
    Input,
    Judge,
    Login,
    Lost,
    Opened,
    Pong,
    Renew,
    Renewed,
    Rotate,
    Send,
    SendAppPing,
    SendPing,
    SetOffset,
    Silent,
)
from fastfeed.staleness import Standing
from fastfeed.subscriptions import Record, Stage, Subscription

if TYPE_CHECKING:
    from simulation import World

HOST = "venue:443"
EPOCH = 1_700_000_000  # UTC seconds at which every world begins
# Words that Binance lacks, so that every kind of reply is met: a greeting, a login, lapsing keys, heartbeats.
SAID: dict[bytes, tuple[Reply, ...]] = {
    b'{"say":"hello"}': (Greeting(),),
    b'{"say":"welcome"}': (Welcome(),),
    b'{"say":"expired"}': (Denial(Failure.AUTH, "the key has expired"),),
    b'{"say":"beat"}': (Beat(),),
    b'{"say":"ping"}': (PingAsked('{"method":"PONG"}'),),
}
LOST_STATES = (State.DIALING, State.WAITING, State.FAILED)  # of a connection that was open


def names(subscriptions: Iterable[Subscription]) -> str:
    return " ".join([wish.symbol for wish in subscriptions])


def words(dialect: Dialect, *, greets: bool) -> Dialect:
    """The provider's dialect with the words it lacks."""

    def read(payload: bytes) -> tuple[Reply, ...]:
        if payload.startswith(b'{"pong":'):
            said = json.loads(payload)
            return (PongSaid(said["pong"], said["time"]),)
        return SAID.get(payload) or dialect.read(payload)

    return replace(dialect, read=read, greets=greets)


class Line:
    """One connection: its session, the hands that carry out what it says, and the other end of the wire.

    `epoch` numbers the dials; whatever is on its way for an older one never arrives.
    """

    def __init__(self, world: World, name: str, path: str, number: int) -> None:
        feed = world.feed
        self.world = world
        self.path = path
        self.name = name
        self.session = Session(
            name,
            HOST,
            dialect=words(world.provider.dialect, greets=feed.greets),
            limits=world.provider.limits,
            backoff=feed.backoff,
            heartbeat=feed.heartbeat,
            random=random.Random(f"{world.seed}/{name}/{number}").random,
            pongs_promised=feed.pongs_promised,
            door=feed.door,
            beats=feed.beats,
            logs_in=feed.logs_in,
            renewable=feed.renewable,
            rotation=feed.rotation,
        )
        self.due: float | None = None  # when the timer goes off
        self.epoch = 0
        self.connected = False
        # The other end.
        self.topics: dict[str, None] = {}
        self.arrived: set[Subscription] = set()  # delivered on this connection
        self.given: set[Subscription] = set()  # handed to the session as Delivered on this connection
        self.silent: set[Subscription] = set()  # handed to the session as Silent, and not heard since
        self.asked_at = self.heard_at = 0.0  # what was sent last arrives then, there and here: a wire keeps the order
        self.flowing = False  # a look for first data is on its way
        self.cut_off_at: float | None = None  # half-open since
        # How it misbehaves.
        self.door: Callable[[Line], None] = Line.accept
        self.evicts: Callable[[Line], None] | None = None
        self.acks = "given"
        self.pongs = True
        self.muted = 0.0  # the share of symbols that is silent
        self.slow = 0.0  # seconds more, each way
        self.welcomes = True  # greets and accepts logins
        self.renews: bool | None = True  # fresh keys are to be had; None: the answer never comes
        # What must hold.
        self.hurried = 0  # deadlines in a row that had already passed
        self.delivered = False  # anything, on this connection
        self.sent: deque[float] = deque(maxlen=world.provider.limits.messages_per_second or 1)
        self.spent: Counter[Failure] = Counter()  # redials since the last stable connection, by class
        self.opened_at: float | None = None
        self.lost_at: float | None = None
        self.first_data_at: float | None = None  # the latest first data since the loss
        self.limited = False  # the last failure was a rate limit
        self.at_once = False  # the first redial since a stable connection did not wait
        self.not_before = 0.0  # what the server asked for
        self.stale: set[tuple[str, str]] = set()  # told as Stale: symbol, channel
        self.refused: set[Subscription] = set()  # told as Rejected
        self.reopened = 0  # while something was lost
        self.gave_up = False
        self.stopped = False
        self.logged_in = False
        self.renewals = 0  # since the last stable connection
        self.successor: Line | None = None  # opened beside it, to take its place
        self.asked_for_relief = False

    # Hands -----------------------------------------------------------------------------------------------------------

    def tell(self, event: Input) -> None:
        """Give the session what happened, do what it says, and check everything that must hold."""
        world, session = self.world, self.session
        now = world.now
        before = session.state
        world.story.append((now, self.name, event))
        actions = session.handle(event, now)
        world.told.steps += 1
        told: list[events.Event] = []
        doubted: set[Subscription] = set()
        for action in actions:
            kind = type(action)
            if kind is SendPing:
                world.trace.update(b"%r P %s\n" % (now, action.payload))
                self.pace()
                if self.reachable() and self.pongs:
                    self.answer(Pong(action.payload))
            elif kind is Send:
                world.trace.update(f"{now!r} S {action.text}\n".encode())
                self.pace()
                self.request(action.text)
            elif kind is Emit:
                news = action.event
                about = getattr(news, "subscriptions", None) or getattr(news, "missing", None)
                said = f"{type(news).__name__} {names(about)}" if about else repr(news)
                world.trace.update(f"{now!r} {said}\n".encode())
                told.append(news)
            elif kind is Dial:
                world.trace.update(b"%r D\n" % now)
                self.dial()
            elif kind is SendAppPing:
                world.trace.update(b"%r A %d\n" % (now, action.number))
                self.pace()
                if self.reachable() and self.pongs:
                    said = json.dumps({"pong": action.number, "time": EPOCH + now}).encode()
                    self.answer(Control(said))
            elif kind is Login:
                world.trace.update(b"%r I\n" % now)
                self.pace()
                if not world.feed.logs_in:
                    world.broken(f"{self.name}: logs in where nobody asks for it")
                if self.reachable() and self.welcomes:
                    self.answer(Control(b'{"say":"welcome"}'))
            elif kind is Renew:
                world.trace.update(b"%r R\n" % now)
                self.renew()
            elif kind is Rotate:
                world.trace.update(f"{now!r} T {action.reason}\n".encode())
                world.told.hits["rotations"] += 1
                if world.feed.rotation is None or self.asked_for_relief:
                    world.broken(f"{self.name}: asks for a successor once more: {action.reason}")
                self.asked_for_relief = True
                world.later(world.dice.random() * 0.5, world.relieve, self)
            elif kind is SetOffset:
                world.trace.update(b"%r O\n" % now)
                world.told.hits["clock offset"] += 1
                if abs(action.seconds) > 7.0:  # half the longest round trip there is, as the clocks are one
                    world.broken(f"{self.name}: takes the clocks to be {action.seconds} s apart")
            elif kind is Close:
                world.trace.update(f"{now!r} C {action}\n".encode())
                self.forget()
            elif kind is Forget:
                world.trace.update(f"{now!r} F {names(action.subscriptions)}\n".encode())
                self.forget_data(action.subscriptions)
            elif kind is Judge:
                world.trace.update(f"{now!r} J {action.standing} {names(action.subscriptions)}\n".encode())
                world.told.hits[f"judged {action.standing.value}"] += 1
                if action.standing is not Standing.LIVE:
                    doubted.update(action.subscriptions)
                elif not (type(event) in (Delivered, Heard) and set(action.subscriptions) <= set(event.subscriptions)):
                    world.broken(f"{self.name}: judged live without data")
            elif kind is Lost:
                world.trace.update(f"{now!r} L {names(action.subscriptions)}\n".encode())
                self.arrived.clear()
                self.silent.clear()
            else:
                world.broken(f"{self.name}: an action nobody knows: {action}")
        if type(event) is Delivered:
            self.first_data_at = now
        elif type(event) is Silent and not doubted.issuperset(event.subscriptions):
            world.broken(f"{self.name}: silent, and taken for live all the same")
        if before is not session.state or told:
            self.judge(event, before, actions, told)
        self.due = session.deadline()
        state = session.state
        if state is State.WAITING:
            longest = max(
                RENEW_TIMEOUT,
                world.feed.backoff.cap,
                self.not_before - now,
                world.feed.door.open_at(now, session) - now,
            )
            if self.due is None or self.due - now > longest + 1e-6:
                world.broken(f"{self.name}: waits without end, until {self.due}")
        elif state is State.OPEN:
            self.hurried = self.hurried + 1 if self.due is not None and self.due <= now else 0
            if self.hurried > 2:
                world.broken(f"{self.name}: asks again and again for a tick at {self.due}, which is not later than now")
            if world.told.steps & 63 == 0 or type(event) is Delivered:
                self.look()
        elif self.due is not None:
            world.broken(f"{self.name}: {state} waits for a tick at {self.due}")

    def pace(self) -> None:
        """A message goes out."""
        now, limit = self.world.now, self.world.provider.limits.messages_per_second
        if limit is not None:
            if len(self.sent) == limit and now - self.sent[0] < 1.0 - 1e-9:
                self.world.broken(f"{self.name}: {limit + 1} messages within {now - self.sent[0]} s")
            self.sent.append(now)

    def dial(self) -> None:
        self.epoch += 1
        self.connected = False
        self.world.told.hits["dials"] += 1
        if self.world.now < self.not_before - 1e-6:
            self.world.broken(f"{self.name}: dials {self.not_before - self.world.now} s before it may")
        if self.stopped or self.gave_up:
            self.world.broken(f"{self.name}: dials after the end")
        if self.successor is not None:
            self.world.broken(f"{self.name}: dials although another takes its place")
        self.world.count_dial()
        self.door(self)

    def renew(self) -> None:
        """Fresh keys are asked for."""
        world = self.world
        world.told.hits["renewals"] += 1
        if self.renews is not None:
            error = None if self.renews else ConnectError(HOST, "no fresh keys")
            world.later(0.1 + world.dice.random(), self.tell, Renewed(error))

    def forget_data(self, subscriptions: Iterable[Subscription]) -> None:
        """What these delivered so far vouches for nothing."""
        self.arrived.difference_update(subscriptions)
        self.given.difference_update(subscriptions)
        self.silent.difference_update(subscriptions)

    def forget(self) -> None:
        """The hands let go of the wire."""
        self.epoch += 1
        self.connected = False
        self.topics.clear()
        self.cut_off_at = None

    def after(self, seconds: float, event: Input) -> None:
        """The outcome of the present dial."""
        self.world.later(seconds, self.arrive, self.epoch, event)

    def answer(self, event: Input, delay: float = 0.0) -> None:
        """The other end says something: it arrives after all it said before."""
        self.heard_at = max(self.heard_at, self.world.now + delay + self.latency() * 2)
        self.world.at(self.heard_at, self.arrive, self.epoch, event)

    def arrive(self, epoch: int, event: Input) -> None:
        if epoch != self.epoch or self.cut_off_at is not None:
            return
        if isinstance(event, Opened):
            self.connected = True
            self.topics.clear()
            self.arrived.clear()
            self.given.clear()
            self.delivered = False
            self.sent.clear()
            self.asked_at = self.heard_at = 0.0
            self.logged_in = False
            self.tell(event)
            if self.world.feed.greets and self.welcomes:
                self.answer(Control(b'{"say":"hello"}'))
            if self.world.feed.beats.expected is not None:
                self.world.later(self.world.feed.beats.expected / 2, self.beat, self.epoch)
            if self.evicts is not None and self.connected:
                self.evicts(self)
            return
        if isinstance(event, Closed | DialFailed):
            self.forget()
        if isinstance(event, Control):
            event = replace(event, utc=EPOCH + self.world.now)
        self.tell(event)

    def beat(self, epoch: int) -> None:
        """The server's own heartbeat, and now and then a ping of its own."""
        expected = self.world.feed.beats.expected
        if epoch == self.epoch and self.reachable() and expected is not None:
            if self.pongs:
                self.answer(Control(b'{"say":"beat"}' if self.world.dice.random() < 0.9 else b'{"say":"ping"}'))
            self.world.later(expected / 2, self.beat, epoch)

    def latency(self) -> float:
        return self.world.dice.random() * 0.05 + 0.001 + self.slow

    def reachable(self) -> bool:
        return self.connected and self.cut_off_at is None

    # The other end ---------------------------------------------------------------------------------------------------

    def accept(self) -> None:
        self.after(2 * self.latency(), Opened())

    def request(self, text: str) -> None:
        size = len(text.encode())
        limits = self.world.provider.limits
        if limits.bytes_per_request is not None and size > limits.bytes_per_request:
            self.world.broken(f"{self.name}: a request of {size} bytes")
        self.asked_at = max(self.asked_at, self.world.now + self.latency())
        self.world.at(self.asked_at, self.serve, self.epoch, text)

    def serve(self, epoch: int, text: str) -> None:
        """A request has come to the provider."""
        if epoch != self.epoch or not self.reachable():
            return
        world = self.world
        request = json.loads(text)
        if request["method"] == "PONG":
            return
        topics, number = request["params"], request["id"]
        subscribes = request["method"] == "SUBSCRIBE"
        if not topics:
            world.broken(f"{self.name}: asks for nothing")
        if self.acks == "lost":  # the request itself is
            return
        nested = world.dice.random() < 0.5
        problem: dict[str, Any] = {"code": 2, "msg": "Invalid request: unknown stream"}
        if self.acks in ("refused", "refused without an id") or (subscribes and world.bad.intersection(topics)):
            reply = {"error": problem} if nested else dict(problem)
            if self.acks != "refused without an id":
                reply["id"] = number
            world.told.hits["refusal, nested" if nested else "refusal, flat"] += 1
            self.answer(Control(json.dumps(reply).encode()))
            return
        for topic in topics:
            if subscribes:
                self.topics[topic] = None
            else:
                self.topics.pop(topic, None)
        if self.acks == "given":
            self.answer(Control(b'{"result":null,"id":%d}' % number))
            if world.dice.random() < 0.02:
                self.answer(Control(b'{"result":null,"id":%d}' % number))  # and once more
        self.flow()

    def flow(self) -> None:
        """Data flows: make sure that somebody looks for first data."""
        if not self.flowing and self.reachable():
            self.flowing = True
            self.world.later(self.world.dice.random() * 0.1, self.read, self.epoch, 0)

    def read(self, epoch: int, looked: int) -> None:
        """A socket read with data: what connection.find_live does after it."""
        self.flowing = False
        if epoch != self.epoch or not self.reachable():
            if self.reachable():
                self.flow()
            return
        world, book = self.world, self.session.book
        silent = [record for record in book.at(Stage.REQUESTED, Stage.ACKED) if record.topic in self.topics]
        live: list[Subscription] = []
        later = 0
        share = world.dice.random()
        for record in silent:
            noise = world.noise(record.topic)
            if noise < self.muted or record.topic in world.quiet:
                continue
            if noise <= share or looked > 1:
                live.append(record.subscription)
            else:
                later += 1
        if live:
            self.arrived.update(live)
            self.given.update(live)
            self.delivered = True
            self.silent.difference_update(live)
            world.with_data.update(wish.symbol for wish in live)
            world.books.tell(live, world.now)
            self.tell(Delivered(tuple(live)))
        if later and epoch == self.epoch and not self.flowing:
            self.flowing = True
            world.later(0.02 + world.dice.random() * 0.5, self.read, epoch, looked + 1)

    def mutes(self, record: Record) -> bool:
        return self.cut_off_at is not None or self.world.noise(record.topic) < self.muted

    def sweep(self, epoch: int) -> None:
        """The threshold has passed: tell who is silent, as the sweep of the price table finds them."""
        if epoch != self.epoch or not self.connected:
            return
        by_channel: dict[str, list[Record]] = {}
        for record in self.session.book.at(Stage.LIVE):
            by_channel.setdefault(record.subscription.channel, []).append(record)
        for records in by_channel.values():
            fallen = [r.subscription for r in records if self.mutes(r) and r.subscription not in self.silent]
            if fallen and epoch == self.epoch:
                self.silent.update(fallen)
                mute = all(self.mutes(record) for record in records)
                self.tell(Silent(tuple(fallen), mute, usual=self.world.dice.random() < 0.05))

    def hear(self) -> None:
        """Tell who of the silent speaks again."""
        if not self.reachable():
            return
        records = self.session.book.at(Stage.LIVE)
        back = tuple(r.subscription for r in records if r.subscription in self.silent and not self.mutes(r))
        if back:
            self.silent.difference_update(back)
            self.tell(Heard(back))

    # What must hold --------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """No subscription is live without data, and none is rejected without having been told."""
        live = {record.subscription for record in self.session.book.at(Stage.LIVE)}
        if not live <= self.given:
            self.world.broken(f"{self.name}: live without data: {sorted(map(str, live - self.given))[:3]}")
        rejected = {record.subscription for record in self.session.book.at(Stage.REJECTED)}
        if not rejected <= self.refused:
            self.world.broken(f"{self.name}: rejected in silence: {sorted(map(str, rejected - self.refused))[:3]}")

    def judge(self, event: Input, before: State, actions: Sequence[object], told: Sequence[events.Event]) -> None:
        """The state has changed, or something was told: the two must agree, and budgets and waits must be kept."""
        world, session, now = self.world, self.session, self.world.now
        hits, after = world.told.hits, session.state
        by_kind = {type(news): news for news in told}
        for news in told:
            hits[type(news).__name__] += 1
            if isinstance(news, events.Rejected):
                self.refused.add(news.subscription)
            elif isinstance(news, events.Stale):
                self.stale.update((symbol, news.channel) for symbol in news.symbols)
            elif isinstance(news, events.Fresh):
                fresh = {(symbol, news.channel) for symbol in news.symbols}
                if not fresh <= self.stale:
                    world.broken(f"{self.name}: fresh again, and never told as stale: {sorted(fresh - self.stale)[:3]}")
                self.stale -= fresh
        if before is not after:
            hits[f"{before.name} -> {after.name}"] += 1
        if isinstance(event, Opened) and before is State.DIALING:
            self.opened_at = now
            self.reopened += self.lost_at is not None
            if events.Connected not in by_kind:
                world.broken(f"{self.name}: opened, and nobody was told")
            if session.reconnects != self.reopened:
                world.broken(f"{self.name}: counts {session.reconnects} reconnects of {self.reopened}")
        failed = isinstance(event, DialFailed) or (before is State.OPEN and after in LOST_STATES)
        relieved = after is State.STOPPED and not self.stopped and self.successor is not None
        if before is State.OPEN and (after in LOST_STATES or relieved):
            self.asked_for_relief = False
            self.lost_at = now if self.lost_at is None else self.lost_at
            if events.Disconnected not in by_kind or not any(isinstance(action, Lost) for action in actions):
                world.broken(f"{self.name}: lost, and nobody was told")
        elif events.Disconnected in by_kind:
            world.broken(f"{self.name}: told a loss that was none")
        if failed and before in (State.OPEN, State.DIALING):
            self.judge_failure(event, before, actions, by_kind)
        restored = by_kind.get(events.Restored)
        if isinstance(restored, events.Restored):
            silent = {r.subscription for r in session.book if r.stage not in (Stage.LIVE, Stage.REJECTED)}
            if set(restored.missing) != silent:
                world.broken(f"{self.name}: told {len(restored.missing)} missing, {len(silent)} are")
            if self.lost_at is None:
                world.broken(f"{self.name}: restored what was not lost")
            else:
                took = (now if self.first_data_at is None else self.first_data_at) - self.lost_at
                if abs(restored.duration - took) > 1e-6:
                    world.broken(f"{self.name}: said it took {restored.duration} s to restore, it took {took} s")
            self.lost_at = None
        if after is State.OPEN and session.restoring and self.lost_at is None:
            world.broken(f"{self.name}: restoring what was not lost")
        if after is State.FAILED and before is not State.FAILED:
            self.gave_up = world.gave_up = True
            if events.GaveUp not in by_kind or session.failure is None:
                world.broken(f"{self.name}: gave up in silence")
        elif events.GaveUp in by_kind:
            world.broken(f"{self.name}: says it gave up, and is {after}")
        if after is State.STOPPED and not self.stopped:
            if self.successor is None:
                world.broken(f"{self.name}: stopped by itself")
            else:
                world.told.hits["died while another came up"] += 1
                world.at(now, world.take_over, self)

    def judge_failure(
        self,
        event: Input,
        before: State,
        actions: Sequence[object],
        by_kind: dict[type[events.Event], events.Event],
    ) -> None:
        """A dial or a connection has failed: which class, is the budget kept, is the wait long enough."""
        world, session, now = self.world, self.session, self.world.now
        backoff = world.feed.backoff
        wanted = None
        if isinstance(event, DialFailed):
            failure, wanted = event.failure or classify_error(event.error), event.retry_after
        elif isinstance(event, Closed):
            failure = classify_close(event.code)
            if failure is Failure.CLEAN and self.limited and not self.delivered:
                failure = Failure.RATE_LIMITED  # a polite close right after a rate limit
        elif isinstance(event, Control) and b"serverShutdown" in event.payload:
            failure = Failure.RESTART
        elif isinstance(event, Control) and b"expired" in event.payload:
            failure = Failure.AUTH
        else:
            gone = by_kind[events.Disconnected]
            assert isinstance(gone, events.Disconnected)
            if gone.code == 1006:
                failure = Failure.SILENT
            else:
                failure = Failure.MUTE if "no data" in gone.cause else Failure.UNANSWERED
        world.told.hits[f"{failure.name} failure"] += 1
        # Ours, not the session's: it has lived, and data came.
        stable = before is State.OPEN and self.delivered and self.opened_at is not None
        stable = stable and now >= (self.opened_at or 0.0) + backoff.stable_after
        if stable:
            self.spent.clear()
            self.renewals = 0
        if failure is Failure.AUTH and any(isinstance(action, Renew) for action in actions):
            self.renewals += 1  # once between two stable connections
            if not world.feed.renewable or self.renewals > 1:
                world.broken(f"{self.name}: asks for fresh keys {self.renewals} times")
            self.opened_at = self.first_data_at = None
            self.not_before = now
            return
        self.opened_at = self.first_data_at = None
        earlier = self.spent.total()
        budget = BUDGETS[failure] if backoff.max_retries is None or failure is Failure.AUTH else backoff.max_retries
        used = self.spent[failure] if backoff.max_retries is None or failure is Failure.AUTH else earlier
        if session.state is State.FAILED:
            if used < budget:
                world.broken(f"{self.name}: gave up after {used} redials of {budget} for {failure}")
            world.told.hits[f"{failure.name} spent"] += 1
            return
        if used >= budget:
            world.broken(f"{self.name}: redials though {used} of {budget} redials for {failure} are spent")
        self.spent[failure] += 1
        self.limited = failure is Failure.RATE_LIMITED
        coming = by_kind.get(events.Reconnecting)
        if not isinstance(coming, events.Reconnecting):
            world.broken(f"{self.name}: redials, and nobody was told")
        elif session.state is State.WAITING:
            due = session.deadline()
            if due is None or due < now + coming.delay - 1e-6:
                world.broken(f"{self.name}: said {coming.delay} s, waits until {due}")
        if stable:
            self.at_once = failure in AT_ONCE
        least = min(backoff.cap, backoff.base * 2.0 ** min(max(0, earlier - self.at_once), 60)) * backoff.least
        if stable and failure in AT_ONCE:
            least = 0.0
        if failure is Failure.RATE_LIMITED and wanted is None:
            least = backoff.cap
        if failure is Failure.EVICTED:
            least = world.provider.limits.eviction_cool_down
        least = max(least, wanted or 0.0)
        self.not_before = now + least
        if coming is not None and coming.delay < least - 1e-6:
            world.broken(f"{self.name}: waits {coming.delay} s after {earlier} failures, {failure}; must be {least} s")
