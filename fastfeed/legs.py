"""A share of a feed's subscriptions and who carries it: one connection, two legs, or one and its successor.

It knows what each of them delivers, tells the feed what they are worth together, and carries out a rotation. When to
rotate is a session's decision, and which arrival is the first the decoder's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from fastfeed import events
from fastfeed._core import PriceTable
from fastfeed.connection import Connection, Owner
from fastfeed.errors import GaveUp
from fastfeed.rotation import Rotation
from fastfeed.session import State
from fastfeed.signals import Inherit, Redial, Relief, Silent, Start, Stop, Subscribe, Unsubscribe, Window
from fastfeed.staleness import Standing
from fastfeed.subscriptions import ALL, Record, Stage, Subscription, by_channel

SETTLING = 0.25  # seconds after the last ack in which what the old connection has on its way still arrives
BRIDGED = 10.0  # seconds a leg may take to come back from a rotation before redundancy counts as lost

_WORSE = frozenset({Standing.SUSPECT, Standing.STALE})
_PROGRESS = (Stage.REJECTED, Stage.WANTED, Stage.REQUESTED, Stage.ACKED, Stage.LIVE)


class House(Protocol):
    """What a shard needs of the feed it belongs to."""

    @property
    def prices(self) -> PriceTable:
        """Where arrivals are read."""

    def on_ticks(self) -> None:
        """A socket read that made ticks has ended."""

    def on_event(self, event: events.Event) -> None:
        """Something to tell the user."""

    def on_lost(self, subscriptions: Iterable[Subscription]) -> None:
        """Nobody delivers these any more."""

    def on_forget(self, subscriptions: Iterable[Subscription]) -> None:
        """These are asked for anew, and nobody else delivers them."""

    def on_offset(self, seconds: float) -> None:
        """This machine's clock is so far ahead of the provider's."""

    def on_judged(self, subscriptions: Iterable[Subscription], standing: Standing) -> None:
        """What these prices are worth."""

    def on_delivered(self, subscriptions: Iterable[Subscription]) -> None:
        """Somebody delivers these."""

    def on_change(self, shard: Shard) -> None:
        """A session of the shard has done something."""

    def on_retired(self, connection: Connection) -> None:
        """This connection has been told to close and is nobody's any more."""

    def connect(self, owner: Owner, path: str, leg: int) -> Connection:
        """A connection that is not started yet and speaks for that leg."""

    def may_connect(self) -> bool:
        """Whether the provider allows one more connection than there are."""

    def overlap(self, begins: bool, leg: int) -> None:
        """Two connections deliver the same from now on; or `leg` is the one that is left."""

    def is_caught_up(self) -> bool:
        """Whether no tick waits for the slower of two connections."""

    def now(self) -> float:
        """Monotonic seconds."""


class Leg:
    """One connection of a shard, and what it delivers. What the connection tells goes to the shard, by its name."""

    def __init__(self, shard: Shard, house: House, number: int) -> None:
        self.number = number
        self.live: set[Subscription] = set()
        self.worse: set[Subscription] = set()  # SUSPECT or STALE
        self.quiet: set[Subscription] = set()
        self.wants: str | None = None  # a successor, because of this
        self.cause = ""  # of its latest loss
        self._shard = shard
        self.on_ticks = house.on_ticks  # once per socket read: no detour
        self.on_offset = house.on_offset
        self.connection = house.connect(self, shard.path, number)

    @property
    def name(self) -> str:
        """How events call it."""
        return self.connection.session.name

    def delivers(self, subscription: Subscription) -> bool:
        """Whether this connection alone keeps these prices fresh."""
        if subscription in self.worse:
            return False
        return subscription in self.live or Subscription(ALL, subscription.channel) in self.live

    def on_event(self, event: events.Event) -> None:
        self._shard.on_event(self, event)

    def on_lost(self, subscriptions: Iterable[Subscription]) -> None:
        self._shard.on_lost(self, subscriptions)

    def on_forget(self, subscriptions: Iterable[Subscription]) -> None:
        self._shard.on_forget(self, subscriptions)

    def on_judged(self, subscriptions: Iterable[Subscription], standing: Standing) -> None:
        self._shard.on_judged(self, subscriptions, standing)

    def on_delivered(self, subscriptions: Iterable[Subscription]) -> None:
        self._shard.on_delivered(self, subscriptions)

    def on_rotate(self, reason: str) -> None:
        self.wants = reason
        self._shard.rotate()

    def on_change(self, connection: Connection) -> None:
        self._shard.on_change(self)


class Shard:
    """`legs` is how many connections deliver the same at all times: 1 or 2. `rotation`: how one is replaced."""

    def __init__(self, house: House, path: str, *, legs: int, rotation: Rotation | None) -> None:
        self.path = path
        self._house = house
        self._rotation = rotation
        self._wishes: dict[Subscription, str] = {}  # the provider's name for each
        self._told: set[tuple[str, str]] = set()  # (symbol, channel) of which Stale was told
        self._rejected: set[Subscription] = set()
        self._stopped = False
        self._paired = False  # both legs have once delivered in full
        self._unpaired_at: float | None = None
        self._bridged_until = 0.0  # a leg is being replaced behind the back of the other
        self._old: Leg | None = None  # what the successor is to replace
        self._successor: Leg | None = None
        self._reason = ""
        self._overlap_at: float | None = None  # since when both are open
        self._settled_at: float | None = None  # since when the successor has been promised everything
        self.legs = [Leg(self, house, number) for number in range(legs)]

    def __len__(self) -> int:
        return len(self._wishes)

    @property
    def connections(self) -> list[Connection]:
        """Everything that is dialled for it."""
        more = [] if self._successor is None else [self._successor]
        return [leg.connection for leg in [*self.legs, *more]]

    def speaker(self, leg: int | None) -> Connection | None:
        """Who is asked when that leg is silent (None: there is only one)."""
        if leg is None:
            return self.legs[0].connection
        return next((one.connection for one in self.legs if one.number == leg), None)

    @property
    def spokesman(self) -> Connection:
        """Who asks for something that need be asked for once only."""
        ready = (leg.connection for leg in self.legs if leg.connection.session.ready)
        return next(ready, self.legs[0].connection)

    # What is wanted -------------------------------------------------------------------------------------------------

    def carry(self, wishes: Sequence[tuple[Subscription, str]]) -> None:
        """Wish for more."""
        self._wishes.update(wishes)
        for connection in self.connections:
            connection.handle(Subscribe(tuple(wishes)))

    def start(self) -> None:
        for leg in self.legs:
            leg.connection.handle(Start())

    def drop(self, subscriptions: Iterable[Subscription]) -> None:
        """Wish for less."""
        gone = tuple(wish for wish in subscriptions if wish in self._wishes)
        if not gone:
            return
        for wish in gone:
            del self._wishes[wish]
            self._told.discard((wish.symbol, wish.channel))
            self._rejected.discard(wish)
        for leg in self._speaking:
            for kept in (leg.live, leg.worse, leg.quiet):
                kept.difference_update(gone)
        for connection in self.connections:
            connection.handle(Unsubscribe(gone))

    def stop(self) -> None:
        """Close everything, for good."""
        self._stopped = True
        self._end_rotation()
        for connection in self.connections:
            connection.handle(Stop())

    # How it stands --------------------------------------------------------------------------------------------------

    @property
    def failure(self) -> GaveUp | None:
        """Set once nobody is left who could deliver."""
        failures = [leg.connection.session.failure for leg in self.legs]
        return None if None in failures else failures[0]

    @property
    def settled(self) -> bool:
        """Everything is acked or rejected, by one leg at least."""
        sessions = [leg.connection.session for leg in self.legs]
        return any(session.state is State.OPEN and session.book.settled for session in sessions)

    @property
    def state(self) -> str:
        """LIVE, RECOVERING or WAITING, as of the leg that is best off."""
        sessions = [leg.connection.session for leg in self.legs]
        if any(session.state is State.OPEN and not session.restoring for session in sessions):
            return "LIVE"
        return "WAITING" if all(session.state is State.WAITING for session in sessions) else "RECOVERING"

    @property
    def records(self) -> list[Record]:
        """Of each subscription the record of the leg that has come furthest with it."""
        found: dict[Subscription, Record] = {}
        for leg in self.legs:
            for record in leg.connection.session.book:
                known = found.setdefault(record.subscription, record)
                if _PROGRESS.index(record.stage) > _PROGRESS.index(known.stage):
                    found[record.subscription] = record
        return list(found.values())

    @property
    def _speaking(self) -> list[Leg]:
        return self.legs if self._successor is None else [*self.legs, self._successor]

    def _elsewhere(self, leg: Leg, subscription: Subscription) -> bool:
        return any(other.delivers(subscription) for other in self._speaking if other is not leg)

    # Told by the legs -----------------------------------------------------------------------------------------------

    def on_lost(self, leg: Leg, subscriptions: Iterable[Subscription]) -> None:
        lost = list(subscriptions)
        leg.live.clear()
        leg.worse.clear()
        leg.quiet.clear()
        leg.wants = None
        self._house.on_lost([key for key in lost if not self._elsewhere(leg, key)])

    def on_forget(self, leg: Leg, subscriptions: Iterable[Subscription]) -> None:
        forgotten = list(subscriptions)
        leg.live.difference_update(forgotten)
        self._house.on_forget([key for key in forgotten if not self._elsewhere(leg, key)])

    def on_judged(self, leg: Leg, subscriptions: Iterable[Subscription], standing: Standing) -> None:
        judged = list(subscriptions)
        leg.quiet.difference_update(judged)
        if standing in _WORSE:
            leg.worse.update(judged)
        else:
            leg.worse.difference_update(judged)
        if standing is Standing.QUIET:
            leg.quiet.update(judged)
        if standing is not Standing.LIVE:
            judged = [key for key in judged if not self._elsewhere(leg, key)]
        self._house.on_judged(judged, standing)
        if standing is Standing.LIVE:
            self._tell_fresh(judged)
        self._look_at_pair()

    def on_delivered(self, leg: Leg, subscriptions: Iterable[Subscription]) -> None:
        delivered = list(subscriptions)
        leg.live.update(delivered)
        leg.worse.difference_update(delivered)
        self._house.on_delivered(delivered)
        self._tell_fresh(delivered)

    def on_event(self, leg: Leg, event: events.Event) -> None:
        told: events.Event | None = event
        match event:
            case events.Stale(symbols, channel, cause):
                others = [other for other in self._speaking if other is not leg]
                # With whatever parameters; in one pass, as many symbols fall silent at once.
                covered = {
                    key.symbol
                    for other in others
                    for key in other.live
                    if key.channel == channel and other.delivers(key)
                }
                left = [
                    symbol
                    for symbol in symbols
                    if (symbol, channel) not in self._told
                    and symbol not in covered
                    and not any(other.delivers(Subscription(symbol, channel)) for other in others)
                ]
                self._told.update((symbol, channel) for symbol in left)
                told = events.Stale(tuple(left), channel, cause) if left else None
            case events.Fresh(symbols, channel):
                back = [symbol for symbol in symbols if (symbol, channel) in self._told]
                self._told.difference_update((symbol, channel) for symbol in back)
                told = events.Fresh(tuple(back), channel) if back else None
            case events.Rejected(subscription):
                told = None if subscription in self._rejected else event
                self._rejected.add(subscription)
            case events.Disconnected(cause=cause):
                leg.cause = cause
            case events.GaveUp(connection, reason) if leg is self._successor:
                hint = "the old connection stays; another successor is tried later"
                told = events.Alert("warning", f"{connection}: no successor came up: {reason}", hint)
        if told is not None:
            self._house.on_event(told)

    def _tell_fresh(self, subscriptions: Iterable[Subscription]) -> None:
        back = [key for key in subscriptions if (key.symbol, key.channel) in self._told]
        self._told.difference_update((key.symbol, key.channel) for key in back)
        for channel, symbols in by_channel(back).items():
            self._house.on_event(events.Fresh(symbols, channel))

    def on_change(self, leg: Leg) -> None:
        session = leg.connection.session
        if leg is self._successor:
            if session.failure is not None:
                self._abandon("")
            elif self._is_bridged:
                if session.ready:
                    self._swap()
            elif session.state is State.OPEN and self._overlap_at is None:
                self._begin_overlap()
            elif session.state is not State.OPEN and self._overlap_at is not None:
                self._end_overlap(self._kept)
        elif leg is self._old and session.state is State.STOPPED:
            self._take_over()
        self._look_at_pair()
        self._house.on_change(self)

    # Two legs -------------------------------------------------------------------------------------------------------

    def _is_full(self, leg: Leg) -> bool:
        """Whether the leg delivers all that it should: what is silent on both is the market's silence."""
        session = leg.connection.session
        if not session.ready or session.restoring:
            return False
        return not any(self._elsewhere(leg, key) for key in leg.worse)

    def _look_at_pair(self) -> None:
        """Tell when one of two legs stops or begins to deliver in full."""
        if len(self.legs) < 2 or self._stopped:
            return
        now = self._house.now()
        lacking = [leg for leg in self.legs if not self._is_full(leg)]
        if not lacking:
            if self._unpaired_at is not None:
                self._house.on_event(events.RedundancyRegained(now - self._unpaired_at))
            self._paired, self._unpaired_at, self._bridged_until = True, None, 0.0
            return
        leg = lacking[0]
        error = leg.connection.session.error
        # While both come up for the first time nothing is lost yet, unless one of them fails.
        if self._unpaired_at is None and now >= self._bridged_until and (self._paired or error is not None):
            self._unpaired_at = now
            cause = f"{len(leg.worse)} subscriptions are silent on it" if leg.worse else leg.cause or str(error)
            self._house.on_event(events.RedundancyLost(leg.name, cause))

    # Rotation -------------------------------------------------------------------------------------------------------

    @property
    def _is_bridged(self) -> bool:
        """The other leg carries on while one is replaced, so that old and new need not deliver side by side."""
        return len(self.legs) > 1

    @property
    def _kept(self) -> int:
        assert self._old is not None
        return self._old.number

    def window(self, is_open: bool) -> None:
        """The stretch of time in which the user wants rotations begins or ends."""
        for connection in self.connections:
            connection.handle(Window(is_open))

    def rotate(self) -> None:
        """Begin to replace a connection that wants it, if that can be now; one at a time, the other leg in full."""
        for leg in self.legs:
            if self._successor is not None or leg.wants is None or not leg.connection.session.ready:
                continue
            others = [other for other in self.legs if other is not leg]
            if all(self._is_full(other) and other.connection.session.book.settled for other in others):
                reason, leg.wants = leg.wants, None
                self._begin(leg, reason)

    def _begin(self, leg: Leg, reason: str) -> None:
        if not self._house.may_connect():
            self._bridged_until = self._house.now() + BRIDGED
            leg.connection.handle(Redial(f"{reason}; no second connection is allowed, so it is closed first"))
            return
        self._old, self._reason = leg, reason
        self._successor = Leg(self, self._house, leg.number if self._is_bridged else 1 - leg.number)
        leg.connection.handle(Relief(True))
        if not self._is_bridged:
            self._successor.connection.handle(Subscribe(tuple(self._wishes.items())))
        self._successor.connection.handle(Start())

    def _begin_overlap(self) -> None:
        assert self._old is not None
        self._overlap_at = self._house.now()
        self._house.overlap(True, self._old.number)
        self._old.connection.leg = self._old.number

    def _end_overlap(self, left: int) -> float:
        """Seconds it lasted."""
        if self._overlap_at is None:
            return 0.0
        assert self._old is not None
        assert self._successor is not None
        lasted = self._house.now() - self._overlap_at
        self._overlap_at = self._settled_at = None
        self._old.connection.leg = None
        self._house.overlap(False, left)
        return lasted

    def look(self) -> None:
        """A few times a second: begin what could not begin, and end an overlap in which nothing is missing any more."""
        self._look_at_pair()
        if self._successor is None:
            self.rotate()
        elif self._overlap_at is not None:
            self._look_at_overlap()

    def _look_at_overlap(self) -> None:
        assert self._rotation is not None
        assert self._successor is not None
        now = self._house.now()
        session = self._successor.connection.session
        if not (session.ready and session.book.settled):
            self._settled_at = None
        elif self._settled_at is None:
            self._settled_at = now
        elif now >= self._settled_at + SETTLING:
            missing = self._missing(self._settled_at)
            if not missing and self._house.is_caught_up():
                self._finish()
            elif now >= self._settled_at + self._rotation.overlap:
                waits = f"{len(missing)} subscriptions did not deliver on it" if missing else "it has not caught up"
                self._abandon(f"{waits} within {self._rotation.overlap:g} s")

    def _missing(self, since: float) -> list[Subscription]:
        """What the old connection has delivered since then (monotonic seconds) and the successor never."""
        assert self._old is not None
        assert self._successor is not None
        prices = self._house.prices
        since_ns = int(since * 1e9)
        missing = []
        arrived: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for wish in self._wishes:
            if wish.channel not in arrived:
                old, new = (prices.arrived(wish.channel, leg=leg.number) for leg in (self._old, self._successor))
                arrived[wish.channel] = old > since_ns, new >= self._successor.connection.listens_from_ns
            by_old, by_new = arrived[wish.channel]
            if wish.symbol == ALL:
                lacks = bool((by_old & ~by_new).any())
            else:
                row = prices.id(wish.symbol)
                lacks = row is not None and bool(by_old[row] and not by_new[row])
            if lacks:
                missing.append(wish)
        return missing

    def _finish(self) -> None:
        """The successor delivers everything: the old connection may go."""
        assert self._old is not None
        assert self._successor is not None
        old, new = self._old, self._successor
        overlap = self._end_overlap(new.number)
        new.connection.listens_alone()
        self._replace(old, new)
        old.connection.handle(Stop())
        self._inherit(old, new)
        self._house.on_event(events.Rotated(old.name, new.name, self._reason, overlap))

    def _swap(self) -> None:
        """The other leg delivers everything: the old connection goes before the new one gets anything.

        Two connections of one leg must not deliver side by side: what comes twice on a leg is the provider's repeat.
        """
        assert self._old is not None
        assert self._successor is not None
        old, new = self._old, self._successor
        self._bridged_until = self._house.now() + BRIDGED
        self._replace(old, new)
        new.connection.handle(Subscribe(tuple(self._wishes.items())))
        old.connection.handle(Stop())
        self._inherit(old, new)
        self._house.on_event(events.Rotated(old.name, new.name, self._reason, 0.0))

    def _take_over(self) -> None:
        """The old connection has died, and its successor is on its way or there."""
        assert self._old is not None
        assert self._successor is not None
        old, new = self._old, self._successor
        overlap = self._end_overlap(new.number)
        self._replace(old, new)
        new.connection.listens_alone()
        if self._is_bridged:
            new.connection.handle(Subscribe(tuple(self._wishes.items())))
        new.connection.handle(Inherit(tuple(self._wishes)))
        self._house.on_event(events.Rotated(old.name, new.name, f"{self._reason}; then {old.cause}", overlap))

    def _replace(self, old: Leg, new: Leg) -> None:
        self.legs[self.legs.index(old)] = new
        self._old = self._successor = None
        if not self._is_bridged:
            new.connection.leg = None
        self._house.on_retired(old.connection)

    def _inherit(self, old: Leg, new: Leg) -> None:
        """What the old connection delivered counts for the new one until it is silent there; what was silent is so."""
        new.live |= old.live
        for silent, usual in ((old.worse, False), (old.quiet, True)):
            if silent:
                new.connection.handle(Silent(tuple(silent), usual=usual))

    def _abandon(self, why: str) -> None:
        """The old connection stays. `why` is empty where the successor has said so itself."""
        assert self._old is not None
        assert self._successor is not None
        old, new = self._old, self._successor
        self._end_rotation()
        if why:
            hint = "the old connection stays; another successor is tried later"
            self._house.on_event(events.Alert("warning", f"{new.name}: no successor: {why}", hint))
        old.connection.handle(Relief(False))

    def _end_rotation(self) -> None:
        if self._successor is not None and self._old is not None:
            new = self._successor
            self._end_overlap(self._old.number)
            self._old = self._successor = None
            new.connection.handle(Stop())
            self._house.on_retired(new.connection)
