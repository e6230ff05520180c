"""A seeded world for the session: virtual clock, network, provider, user and faults, all from one integer.

It drives the real Session objects, several to a feed, with the hands of fastfeed.connection made small, and checks what
must always hold after every input. What flows goes through a real decoder to consumers whose books must balance. The
same seed tells the same story to the letter. As a command it sweeps seeds:
`python tests/simulation.py --hours 10000 --seed 1`. No socket and no real clock.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import itertools
import multiprocessing
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

from books import Books
from line import EPOCH, HOST, Line

from fastfeed.backoff import Backoff, retry_after
from fastfeed.door import Door
from fastfeed.endpoint import DIAL_TIMEOUT
from fastfeed.errors import AuthError, ConnectError, HandshakeError
from fastfeed.failures import Failure
from fastfeed.heartbeat import Beats, Heartbeat
from fastfeed.providers import Provider, provider
from fastfeed.rotation import Rotation
from fastfeed.session import ACK_TIMEOUT, LOGIN_TIMEOUT, RENEW_TIMEOUT, RESTORE_GRACE, State
from fastfeed.signals import (
    Closed,
    Control,
    DialFailed,
    Inherit,
    Pong,
    Relief,
    Start,
    Stop,
    Subscribe,
    Tick,
    Traffic,
    Unsubscribe,
)
from fastfeed.subscriptions import Stage, Subscription, spread

TICK = Tick()
CLOSE_CODES = (1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3001, 4000, 4999)
HTTP_STATUSES = (302, 401, 403, 404, 406, 408, 418, 429, 429, 500, 502, 503, 503)
NOTICES = (
    b'{"e":"serverShutdown","E":1}',
    b'{"stream":"!notice","data":{"e":"serverShutdown","E":1}}',
    b'[{"e":"serverShutdown"},{"e":"serverShutdown"}]',
)
# Control messages nobody asked for, and some that nobody could mean.
NONSENSE = (
    b"",
    b"[]",
    b"{}",
    b"\xff\xfe",
    b"7",
    b'{"result":null,"id":987654321}',
    b'{"result":null,"id":-1}',
    b'{"result":null}',
    b'{"result":null,"id":1}',
    b'{"result":null,"id":"1"}',
    b'{"result":null,"id":1.0}',
    b'{"error":{"code":2,"msg":"what?"},"id":987654321}',
    b'{"error":null}',
    b'{"e":"somethingNew"}',
    b'[null,[{}],{"id":{}}]',
    b'{"data":{"e":["serverShutdown"]}}',
)
QUOTA_WINDOW = 300.0  # seconds
METERED_EVERY = 5.0  # seconds
STORY_KEPT = 400  # inputs a failure looks back on
STORY_SHOWN = 40  # of them, without the beating of the clock and the heart


class Broken(AssertionError):
    """Something that must always hold did not; the message has the story and the command that tells it again."""


@dataclass
class Told:
    """What one seed came to. Adding them up adds up seeds."""

    seeds: int = 1
    steps: int = 0  # calls of Session.handle
    seconds: float = 0.0  # of virtual time
    faults: int = 0
    fewest_faults: int = 0
    with_data: int = 0  # symbols that have delivered
    fewest_with_data: int = 0
    trace: dict[int, str] = field(default_factory=dict)  # seed -> hash over every action and its time
    hits: Counter[str] = field(default_factory=Counter)  # transitions, failure classes, faults, events, inputs

    def __iadd__(self, other: Told) -> Told:
        self.seeds += other.seeds
        self.steps += other.steps
        self.seconds += other.seconds
        self.faults += other.faults
        self.with_data += other.with_data
        self.fewest_faults = min(self.fewest_faults, other.fewest_faults)
        self.fewest_with_data = min(self.fewest_with_data, other.fewest_with_data)
        self.trace.update(other.trace)
        self.hits.update(other.hits)
        return self

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.steps:,} session steps, {self.seconds / 3600:,.0f} simulated hours, "
            f"{self.faults:,} faults (at least {self.fewest_faults} a seed), "
            f"{self.with_data:,} symbols with data (at least {self.fewest_with_data} a seed)"
        )


@dataclass(frozen=True, kw_only=True)
class Feed:
    """The options of a feed and its lines, planned as fastfeed.Feed plans them."""

    backoff: Backoff
    heartbeat: Heartbeat
    pongs_promised: bool
    beats: Beats
    greets: bool
    logs_in: bool
    renewable: bool
    rotation: Rotation | None
    door: Door
    dialled: deque[float] = field(default_factory=deque)
    lines: list[Line] = field(default_factory=list)


class World:
    """Everything there is, from one seed. `run()` lives through at least `steps` session steps."""

    def __init__(self, seed: int, steps: int, faults: int) -> None:
        self.seed = seed
        self.steps_wanted, self.faults_wanted = steps, faults
        self.dice = dice = random.Random(seed)
        self.now = 1000.0 * dice.random()
        self.heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.serial = itertools.count()
        self.told = Told()
        self.trace = hashlib.blake2b(digest_size=16)
        self.story: deque[tuple[float, str, object]] = deque(maxlen=STORY_KEPT)
        self.with_data: set[str] = set()
        self.blocked_until = 0.0  # the event loop is
        self.healed_at = self.now  # when the last fault will be over
        big = seed % 100 == 7
        chosen = provider("binance-spot" if big or dice.random() < 0.3 else "binance-usdm")
        # Fewer streams than the real provider takes, so that a feed has many connections.
        streams = 1024 if big else dice.choice((40, 40, 50, 60, 80, 200))
        limits = replace(chosen.limits, streams_per_connection=streams)
        self.provider: Provider = replace(chosen, limits=limits)
        symbols = [f"S{i}USDT" for i in range(3000 if big else dice.randint(560, 640))]
        plan = [(symbol, "quote") for symbol in symbols] + [(symbol, "trade") for symbol in symbols[:20]]
        self.pool = [self.provider.subscription(Subscription(*wish)) for wish in plan]
        self.named = {wish: self.provider.topic(wish) for wish in self.pool}
        strange = dice.sample(self.pool, dice.choice((0, 0, 1, 3, 8)) + 6)
        self.quiet = {self.named[wish] for wish in strange[:6]}  # acked, and nothing ever happens
        self.bad = {self.named[wish] for wish in strange[6:]}  # not known to the provider
        self._noise = {topic: dice.random() for topic in self.named.values()}
        self.spare = deque(self.pool[-10:])  # not wished at first
        self.wanted: dict[Subscription, None] = dict.fromkeys(self.pool[:-10])
        self.lines_made = 0
        self.gave_up = False  # a line of the present feed has
        self.over = False  # and the others were stopped
        self.books = Books(self.provider, seed, self.broken)
        self.feed = self.plan()

    # Time ------------------------------------------------------------------------------------------------------------

    def at(self, when: float, do: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self.heap, (when, next(self.serial), do, args))

    def later(self, seconds: float, do: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self.heap, (self.now + seconds, next(self.serial), do, args))

    def live_until(self, when: float) -> None:
        """Let everything happen that is due until then, in order."""
        heap = self.heap
        while True:
            line, due = None, when
            for candidate in self.feed.lines:
                if candidate.due is not None and candidate.due < due:
                    line, due = candidate, candidate.due
            if heap and heap[0][0] <= due:
                at, _, do, args = heapq.heappop(heap)
                self.now = max(self.now, at, self.blocked_until)
                do(*args)
            elif line is not None:
                self.now = max(self.now, due, self.blocked_until)
                line.tell(TICK)
            else:
                self.now = max(self.now, when)
                return
            if self.gave_up and not self.over:  # one line ends the feed, as in fastfeed.Feed
                self.over = True
                for other in self.feed.lines:
                    self.stop(other)

    def count_dial(self) -> None:
        limit = self.provider.limits.dials_per_five_minutes
        if limit is not None:
            dialled = self.feed.dialled
            dialled.append(self.now)
            while dialled[0] <= self.now - QUOTA_WINDOW + 1e-6:
                dialled.popleft()
            if len(dialled) > limit:
                self.broken(f"{len(dialled)} dials of one feed within {QUOTA_WINDOW:g} s")

    def meter(self) -> None:
        """Count what has come on each line, as a feed does now and then."""
        for line in list(self.feed.lines):
            if line.connected:
                line.tell(Traffic(0 if line.cut_off_at is not None else int(1000 * (1 - line.muted))))
            if line.connected and line.cut_off_at is None:
                some = self.books.dice.sample(self.pool, 20)
                self.books.tell([wish for wish in some if wish in line.arrived], self.now)
        self.books.look()
        self.later(METERED_EVERY, self.meter)

    def noise(self, topic: str) -> float:
        return self._noise[topic]

    # The user --------------------------------------------------------------------------------------------------------

    def plan(self) -> Feed:
        dice = self.dice
        base = dice.choice((0.1, 0.5, 0.5, 0.5, 1.0))
        chosen = Backoff(
            base=base,
            cap=dice.choice((2.0, 5.0, 30.0, 30.0)),
            jitter=dice.choice((0.0, 0.3, 0.3, 1.0)),
            max_retries=dice.choice((None, None, None, None, None, 3, 40)),
            stable_after=dice.choice((0.0, 5.0, 5.0, 5.0, 30.0)),
        )
        interval = dice.choice((5.0, 5.0, 5.0, 1.0, 20.0, None) if dice.random() < 0.3 else (5.0,))
        timeout = None if dice.random() < 0.02 else dice.choice((10.0, 10.0, 2.0))
        return Feed(
            backoff=chosen,
            heartbeat=Heartbeat(interval=interval, timeout=timeout),
            pongs_promised=dice.random() < 0.95,
            beats=dice.choice(
                (
                    Beats(),
                    Beats(),
                    Beats(interval=20.0, timeout=10.0),
                    Beats(interval=5.0),
                    Beats(expected=15.0),
                    Beats(interval=3.0, timeout=5.0, expected=60.0),
                )
            ),
            greets=dice.random() < 0.3,
            logs_in=dice.random() < 0.3,
            renewable=dice.random() < 0.5,
            rotation=dice.choice(
                (None, None, None, Rotation(), Rotation(), Rotation(), Rotation(after=90.0, jitter=0.5, retry=5.0))
            ),
            door=Door(self.provider.limits.dials_per_five_minutes),
        )

    def open_feed(self) -> None:
        """The user opens a feed, the first or after one that failed."""
        self.feed = self.plan()
        self.over = self.gave_up = False
        self.carry(self.wanted, start=False)
        if self.dice.random() < 0.1:
            self.stop(self.feed.lines.pop())  # changed its mind before entering
            gone = set(self.wanted) - {r.subscription for line in self.feed.lines for r in line.session.book}
            self.carry([wish for wish in self.wanted if wish in gone], start=False)
        for line in list(self.feed.lines):
            line.tell(Start())

    def carry(self, wishes: Iterable[Subscription], *, start: bool = True) -> None:
        """Spread wishes over lines as fastfeed.Feed does."""
        limit = self.provider.limits.streams_per_connection
        by_path: dict[str, list[Subscription]] = {}
        for wish in wishes:
            by_path.setdefault(self.provider.channels[wish.channel].path, []).append(wish)
        for path, wanted in by_path.items():
            left = wanted
            successors = {id(line.successor) for line in self.feed.lines}
            for line in list(self.feed.lines):
                if line.path == path and id(line) not in successors:
                    room = len(left) if limit is None else max(0, limit - len(line.session.book))
                    self.wish(line, left[:room], start)
                    if line.successor in self.feed.lines:
                        self.wish(line.successor, left[:room], start)
                    left = left[room:]
            for part in spread(left, limit):
                line = Line(self, f"{path}#{self.lines_made}", path, self.lines_made)
                self.lines_made += 1
                self.feed.lines.append(line)
                self.wish(line, part, start)

    def wish(self, line: Line, wishes: Sequence[Subscription], start: bool) -> None:
        if wishes:
            line.tell(Subscribe(tuple((wish, self.named[wish]) for wish in wishes)))
            if start:
                line.tell(Start())
            line.flow()
        limit = self.provider.limits.streams_per_connection
        if limit is not None and len(line.session.book) > limit:
            self.broken(f"{line.name}: {len(line.session.book)} streams")

    def drop(self, wishes: Sequence[Subscription]) -> None:
        for line in list(self.feed.lines):
            mine = tuple(wish for wish in wishes if wish in line.session.book)
            if mine:
                line.arrived.difference_update(mine)
                line.silent.difference_update(mine)
                line.stale.difference_update((wish.symbol, wish.channel) for wish in mine)
                line.tell(Unsubscribe(mine))
                if not len(line.session.book):
                    self.stop(line)
                    self.feed.lines.remove(line)

    def relieve(self, line: Line) -> None:
        """A successor is opened beside the line, which is asked to go once it delivers; or none comes up."""
        if line not in self.feed.lines or line.session.state is not State.OPEN or self.over or line.successor:
            line.asked_for_relief = False
            return
        line.asked_for_relief = False
        if self.dice.random() < 0.2:
            line.tell(Relief(False))
            return
        new = Line(self, f"{line.path}#{self.lines_made}", line.path, self.lines_made)
        self.lines_made += 1
        line.successor = new
        self.feed.lines.append(new)
        line.tell(Relief(True))
        self.wish(new, [record.subscription for record in line.session.book], start=True)
        self.later(1.0 + self.dice.random() * 10, self.retire, line)

    def retire(self, line: Line) -> None:
        """The overlap is over: the successor has come up, or it is given up for the time being."""
        new = line.successor
        if new is None or line not in self.feed.lines or self.over or line.session.state is State.STOPPED:
            return
        if new not in self.feed.lines:
            line.successor = None
            line.tell(Relief(False))
        elif new.session.state is State.OPEN and new.session.book.settled:
            self.move(line, new)
            self.stop(line)
            self.feed.lines.remove(line)
            self.told.hits["replaced"] += 1
        else:
            line.successor = None
            line.tell(Relief(False))
            self.move(new, line)
            self.stop(new)
            self.feed.lines.remove(new)

    def take_over(self, line: Line) -> None:
        """The old one has died before the overlap was over: what it delivered is missing until the new one does."""
        new = line.successor
        if new is None or line not in self.feed.lines or self.over:
            return
        self.feed.lines.remove(line)
        line.stopped = True
        left = [record.subscription for record in line.session.book if record.subscription in self.wanted]
        if new not in self.feed.lines:  # nothing was left to wish of it, meanwhile
            self.carry(left)
            return
        self.move(line, new)
        missing = {record.subscription for record in new.session.book.silent}
        if new.lost_at is None and missing.intersection(left):
            new.lost_at = self.now
        new.tell(Inherit(tuple(left)))

    def move(self, old: Line, new: Line) -> None:
        """What has been wished of the one only, meanwhile, is wished of the other; what was dropped is dropped."""
        wishes = [record.subscription for record in old.session.book if record.subscription not in new.session.book]
        self.wish(new, [wish for wish in wishes if wish in self.wanted], start=True)

    def stop(self, line: Line) -> None:
        line.stopped = True
        line.tell(Stop())
        line.tell(Stop())
        if line.session.state not in (State.STOPPED, State.FAILED):
            self.broken(f"{line.name}: told to stop and is {line.session.state}")

    def change_mind(self) -> None:
        """The user wants other symbols."""
        if self.over:
            return
        dice = self.dice
        self.told.hits["user changes"] += 1
        again = dice.random() < 0.3
        some = dice.sample(list(self.wanted), dice.randint(1, 5))
        if dice.random() < 0.1:  # everything of one channel, so that a line may run empty
            some = [wish for wish in self.wanted if wish.channel == "trade"] or some
        for wish in some:
            del self.wanted[wish]
            self.spare.append(wish)
        self.drop(some)
        new = some if again else [self.spare.popleft() for _ in range(min(len(some), len(self.spare)))]
        for wish in new:
            if again:
                self.spare.remove(wish)
            self.wanted[wish] = None
        if dice.random() < 0.5:
            self.later(dice.random() * 0.2, self.wish_again, new)
        else:
            self.wish_again(new)

    def wish_again(self, wishes: Sequence[Subscription]) -> None:
        if not self.over:
            known = {wish for line in self.feed.lines for wish in wishes if wish in line.session.book}
            self.carry([wish for wish in wishes if wish in self.wanted and wish not in known])

    # Faults ----------------------------------------------------------------------------------------------------------

    def misfortune(self) -> None:
        """One fault, of all lines or one, at once or for a while."""
        dice = self.dice
        if not self.feed.lines:
            return
        self.told.faults += 1
        victims = list(self.feed.lines) if dice.random() < 0.4 else [dice.choice(self.feed.lines)]
        kinds = (
            (self.cut, 3), (self.close, 4), (self.half_open, 3), (self.shut_door, 5), (self.refuse_http, 5),
            (self.evict, 4), (self.withhold, 3), (self.lose_pongs, 2), (self.mute, 3), (self.announce, 2),
            (self.babble, 3), (self.block, 2), (self.delay, 1), (self.refuse_requests, 2), (self.ignore_logins, 1),
            (self.expire, 1),
        )  # fmt: skip
        (kind,) = dice.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        self.told.hits[f"fault: {kind.__name__}"] += 1
        self.story.append((self.now, "fault", f"{kind.__name__} {[line.name for line in victims]}"))
        kind(victims)

    def lasting(self, lines: Sequence[Line], **how: Any) -> None:
        """Set attributes of the lines' other end, and set them back after a while."""
        usual = {
            "door": Line.accept, "evicts": None, "acks": "given", "pongs": True, "muted": 0.0, "slow": 0.0,
            "welcomes": True, "renews": True,
        }  # fmt: skip
        dice = self.dice
        seconds = dice.expovariate(1 / dice.choice((5.0, 20.0, 20.0, 60.0)))
        if how.keys() & {"door", "evicts"} and dice.random() < 0.05:  # long enough to spend budgets
            seconds = min(110 * self.feed.backoff.cap, 1500.0)
            lines = list(self.feed.lines)
        self.healed_at = max(self.healed_at, self.now + seconds)

        def heal() -> None:
            for line in lines:
                for name in how:
                    setattr(line, name, usual[name])
                line.hear()
                line.flow()

        for line in lines:
            for name, value in how.items():
                setattr(line, name, value)
        self.later(seconds, heal)

    def cut(self, lines: Sequence[Line]) -> None:
        for line in lines:
            if line.connected:
                line.arrive(line.epoch, Closed(1006, ""))

    def close(self, lines: Sequence[Line]) -> None:
        code = self.dice.choice(CLOSE_CODES)
        for line in lines:
            if line.connected:
                line.answer(Closed(code, self.dice.choice(("", "bye"))))

    def half_open(self, lines: Sequence[Line]) -> None:
        """The peer is gone and nobody was told."""
        beat = self.feed.heartbeat
        for line in lines:
            if not line.reachable():
                continue
            line.cut_off_at = self.now
            self.watch([line])
            if beat.interval is None or beat.timeout is None or not line.session.pulse.trusted:
                self.later(30.0, self.reset, line, line.epoch)  # without pings TCP finds out, some time
                self.healed_at = max(self.healed_at, self.now + 31.0)
                continue
            # The pace may hold a ping back for a second; a blocked loop may do so for longer.
            found_by = beat.interval + beat.timeout + 1.0
            self.later(found_by + 0.001, self.must_have_found, line, line.epoch, self.now + found_by)

    def reset(self, line: Line, epoch: int) -> None:
        if line.epoch == epoch and line.cut_off_at is not None:
            line.cut_off_at = None
            line.arrive(epoch, Closed(1006, ""))

    def must_have_found(self, line: Line, epoch: int, by: float) -> None:
        if line.epoch == epoch and line.cut_off_at is not None and self.blocked_until < by - 60.0:
            self.broken(f"{line.name}: half-open since {line.cut_off_at} and not found by {by}")
        elif line.epoch == epoch and line.cut_off_at is not None:
            self.later(60.0, self.must_have_found, line, epoch, self.now + 60.0)

    def shut_door(self, lines: Sequence[Line]) -> None:
        cause, wait, retryable, failure = self.dice.choice(
            (
                ("connection refused", 0.01, True, None),
                ("the name cannot be resolved", 0.02, True, Failure.NAME),
                ("its certificate was not accepted", 0.1, False, None),
                ("no answer", DIAL_TIMEOUT, True, None),
            )
        )
        failed = DialFailed(ConnectError(HOST, cause, retryable=retryable), failure=failure)
        self.lasting(lines, door=lambda line: line.after(wait, failed))
        if self.dice.random() < 0.7:
            self.cut(lines)

    def refuse_http(self, lines: Sequence[Line]) -> None:
        status = self.dice.choice(HTTP_STATUSES)
        seconds = self.dice.choice((None, None, 0, 1, 7, 60, 300)) if status in (418, 429, 503) else None
        as_date = self.dice.random() < 0.5

        def refuse(line: Line) -> None:
            world = line.world
            headers = {}
            utc = EPOCH + world.now
            if seconds is not None:
                headers["Retry-After"] = formatdate(utc + seconds + 1, usegmt=True) if as_date else str(seconds)
            wait = retry_after(headers["Retry-After"], utc) if headers else None
            if seconds is not None and (wait is None or wait < seconds):
                world.broken(f"Retry-After: {headers['Retry-After']} was read as {wait}")
            if status in (401, 403):
                line.after(0.05, DialFailed(AuthError(HOST, f"HTTP {status}")))
            else:
                line.after(0.05, DialFailed(HandshakeError(status, headers, host=HOST), wait))

        self.lasting(lines, door=refuse)
        if self.dice.random() < 0.7:
            self.cut(lines)

    def evict(self, lines: Sequence[Line]) -> None:
        """The server accepts, and then closes: at once, or after acks and some data."""
        code = self.dice.choice(CLOSE_CODES)
        patience = self.dice.choice((0.0, 0.01, 1.0, 4.0))
        self.lasting(lines, evicts=lambda line: line.answer(Closed(code, "evicted"), patience))
        self.cut(lines)

    def withhold(self, lines: Sequence[Line]) -> None:
        self.lasting(lines, acks=self.dice.choice(("withheld", "lost")))
        if self.dice.random() < 0.7:
            self.cut(lines)

    def refuse_requests(self, lines: Sequence[Line]) -> None:
        self.lasting(lines, acks=self.dice.choice(("refused", "refused without an id")))
        if self.dice.random() < 0.5:
            self.cut(lines)

    def lose_pongs(self, lines: Sequence[Line]) -> None:
        self.lasting(lines, pongs=False)

    def ignore_logins(self, lines: Sequence[Line]) -> None:
        self.lasting(lines, welcomes=False)
        self.cut(lines)

    def expire(self, lines: Sequence[Line]) -> None:
        """The keys are no longer good; fresh ones are mostly to be had."""
        self.lasting(lines, renews=self.dice.choice((True, True, True, False, None)))
        for line in lines:
            if line.connected:
                line.answer(Control(b'{"say":"expired"}'))

    def mute(self, lines: Sequence[Line]) -> None:
        self.lasting(lines, muted=self.dice.choice((0.01, 0.3, 0.9, 1.0)))
        if self.dice.random() < 0.4:
            self.cut(lines)
        self.watch(lines)

    def watch(self, lines: Sequence[Line]) -> None:
        threshold = self.dice.choice((0.5, 2.0, 8.0))
        for line in lines:
            self.later(threshold, line.sweep, line.epoch)

    def delay(self, lines: Sequence[Line]) -> None:
        self.lasting(lines, slow=self.dice.choice((0.2, 1.0)))

    def announce(self, lines: Sequence[Line]) -> None:
        notice = self.dice.choice(NOTICES)
        for line in lines:
            if line.connected:
                line.answer(Control(notice))
                line.answer(Closed(self.dice.choice((1001, 1012, 1006)), ""), 2.0)

    def babble(self, lines: Sequence[Line]) -> None:
        """What nobody asked for: acks, pongs, errors, nonsense; and inputs that come too late."""
        for line in lines:
            for _ in range(self.dice.randint(1, 6)):
                if line.connected:
                    line.answer(Control(self.dice.choice(NONSENSE)))
                    line.answer(Pong(self.dice.choice((b"", b"1", b"nobody asked", b"\xff"))))
            if self.dice.random() < 0.3:
                line.tell(Pong(b"late"))

    def block(self, lines: Sequence[Line]) -> None:
        """The event loop stands still: everything is late."""
        self.blocked_until = self.now + self.dice.choice((0.05, 2.0, 12.0))

    # A life ----------------------------------------------------------------------------------------------------------

    def run(self) -> Told:
        """Storms and calms, until the session has been through its steps and there were faults and symbols enough."""
        dice = self.dice
        self.open_feed()
        self.meter()
        self.live_until(self.now + 10.0 * dice.random())
        while self.told.steps < self.steps_wanted or self.told.faults < self.faults_wanted:
            self.storm()
            self.calm()
        for line in self.feed.lines:
            self.stop(line)
        self.live_until(self.now + 100.0)
        told = self.told
        told.seconds = self.now
        told.hits.update({f"ledger: {term}": count for term, count in self.books.close().items()})
        told.with_data = told.fewest_with_data = len(self.with_data)
        told.fewest_faults = told.faults
        told.trace[self.seed] = self.trace.hexdigest()
        return told

    def storm(self) -> None:
        dice = self.dice
        self.healed_at = self.now
        for _ in range(dice.randint(3, 12)):
            if self.told.steps >= self.steps_wanted and self.told.faults >= self.faults_wanted:
                break
            self.live_until(self.now + dice.expovariate(1 / dice.choice((1.0, 10.0, 10.0))))
            self.misfortune()
            if dice.random() < 0.3:
                self.change_mind()
            if self.over and dice.random() < 0.5:
                self.live_until(self.now + dice.random() * 5)
                self.open_feed()
        self.live_until(self.healed_at + 0.001)

    def calm(self) -> None:
        """Nothing is wrong any more: within a bounded time everything flows again, or has been reported."""
        if self.blocked_until > self.healed_at:
            # What has come meanwhile is heard afterwards: it may be a wait that a server asks for.
            self.live_until(self.blocked_until + 3.0)
        if self.over:
            self.open_feed()
        beat, backoff = self.feed.heartbeat, self.feed.backoff
        waits = [line.due - self.now for line in self.feed.lines if line.session.state is State.WAITING and line.due]
        found = (beat.interval or 0.0) + (beat.timeout or 0.0)
        patience = max([0.0, *waits]) + found + backoff.cap + self.overdue_dials() + DIAL_TIMEOUT
        patience += 4 * ACK_TIMEOUT + RESTORE_GRACE + LOGIN_TIMEOUT + RENEW_TIMEOUT + 30.0
        end = self.now + patience
        while True:
            self.live_until(self.now + 2.0)
            if self.over:
                return  # spent by what was still on its way
            unsettled = [line for line in self.feed.lines if not self.settled(line)]
            if not unsettled:
                break
            if self.now > end:
                line = unsettled[0]
                stages = Counter(record.stage.value for record in line.session.book)
                self.broken(
                    f"{line.name}: not back {patience:.0f} s after the last fault: {line.session.state}, {dict(stages)}"
                    f"{', restoring' if line.session.restoring else ''}, silent {list(line.session.watch.silent)[:3]}, "
                    f"quiet {list(line.session.watch.quiet)[:3]}, told stale {sorted(line.stale)[:3]}"
                )
        if self.dice.random() < 0.5:
            self.live_until(self.now + self.dice.random() * 20.0)

    def overdue_dials(self) -> float:
        """Seconds that a nearly spent quota of dials may cost."""
        return QUOTA_WINDOW if self.feed.door.quota.used(self.now) > 0.5 else 0.0

    def settled(self, line: Line) -> bool:
        """Open, restored, and every wish active or told as rejected; those that never tick stay acked."""
        session = line.session
        if session.state is not State.OPEN or session.restoring:
            return False
        line.look()
        for record in session.book:
            if record.stage in (Stage.WANTED, Stage.REQUESTED):
                return False
            if record.stage is Stage.ACKED and record.topic not in self.quiet:
                return False
            key = record.subscription.symbol, record.subscription.channel
            silent = record.subscription in session.watch.silent or record.subscription in session.watch.quiet
            if record.stage is Stage.LIVE and (silent or key in line.stale):
                return False
        return True

    def broken(self, what: str) -> None:
        kept = [entry for entry in self.story if not isinstance(entry[2], Tick | Pong | Traffic)][-STORY_SHOWN:]
        story = "\n".join(f"  {at:.4f} {who}: {str(event)[:200]}" for at, who, event in kept)
        raise Broken(
            f"seed {self.seed}: {what}\n{story}\n"
            f"again: python tests/simulation.py --seed {self.seed} --seeds 1 --steps {self.steps_wanted} "
            f"--faults {self.faults_wanted}"
        )


def live(seed: int, steps: int, faults: int = 20) -> Told:
    """One seed, for at least so many session steps and faults."""
    world = World(seed, steps, faults)
    try:
        return world.run()
    except Broken:
        raise
    except Exception as error:
        try:
            world.broken(f"{type(error).__name__}: {error}")
        except Broken as broken:
            raise broken from error
        raise


def sweep(seeds: Iterable[int], steps: int, faults: int = 20, processes: int = 2) -> Iterator[Told]:
    """Many seeds over so many processes, in their order. The processes share nothing, not even hash seeds."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting: deque[Any] = deque()
        tasks = iter(seeds)
        try:
            while True:
                for seed in itertools.islice(tasks, 16 * processes - len(waiting)):
                    waiting.append(pool.submit(live, seed, steps, faults))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def main() -> int:
    arguments = argparse.ArgumentParser(description="Live through seeds until one breaks.")
    arguments.add_argument("--hours", type=float, default=None, help="simulated hours to reach")
    arguments.add_argument("--seed", type=int, default=1, help="the first seed")
    arguments.add_argument("--seeds", type=int, default=None, help="how many seeds")
    arguments.add_argument("--steps", type=int, default=20_000, help="session steps a seed")
    arguments.add_argument("--faults", type=int, default=20, help="faults a seed")
    arguments.add_argument("--processes", type=int, default=2)
    options = arguments.parse_args()
    first, count = options.seed, options.seeds
    seeds = itertools.count(first) if count is None else range(first, first + count)
    if options.hours is None and count is None:
        arguments.error("name --hours or --seeds")
    began = time.monotonic()
    total: Told | None = None
    try:
        for told in sweep(seeds, options.steps, options.faults, options.processes):
            if total is None:
                total = told
            else:
                total += told
            if sys.stderr.isatty():
                print(f"\r{total}", end="", file=sys.stderr)
            if options.hours is not None and total.seconds >= options.hours * 3600:
                break
    except Broken as broken:
        print(broken)
        return 1
    if total is None:
        return 0
    print(f"{total}, in {time.monotonic() - began:.0f} s")
    if total.seeds == 1:
        print(f"trace {total.trace[options.seed]}")
    print(*(f"{count:>12,}  {what}" for what, count in sorted(total.hits.items())), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
