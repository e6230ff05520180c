"""What runs inside a feed: its connections, what each symbol is wanted for, and the look ten times a second.

It spreads subscriptions over shards, adds up what they tell, and passes on what readers and the user should know. It
decides nothing that a session can decide, and touches no socket.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import ssl as tls
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from fastfeed._core import Clock, PriceTable
from fastfeed.backoff import Backoff
from fastfeed.connection import Connection, Owner
from fastfeed.decoder import Decoder
from fastfeed.door import Door
from fastfeed.endpoint import Endpoint
from fastfeed.errors import ConfigError, FastFeedError, GaveUp, HandshakeError, SubscriptionRejected
from fastfeed.events import Alert, CallbackFailed, Event, Restored, alert_of
from fastfeed.gaps import Recovery
from fastfeed.heartbeat import Heartbeat
from fastfeed.legs import Shard
from fastfeed.lookout import Lookout
from fastfeed.providers import Provider
from fastfeed.records import Status
from fastfeed.repair import Repairs
from fastfeed.rotation import Rotation
from fastfeed.session import Session
from fastfeed.signals import Window
from fastfeed.staleness import Staleness, Standing
from fastfeed.streams import BatchCallback, Bell, Readers, Ticks
from fastfeed.subscriptions import ALL, Stage, Subscription, spread

_LOG = logging.getLogger("fastfeed")

_SWEEP = 0.1  # seconds between looks at gaps, silence and what has begun to deliver
_STALLED = 0.5  # seconds a look may come late before the loop counts as stalled
_TRAFFIC = 1.0  # seconds between looks at rates and at readers left behind
_SOURCES = 256  # numbers of connections, as the decoder tells them apart
_LAG_TOLD = 60.0  # seconds between alerts about the same slow reader


class Engine:
    """Everything of one feed but its face. `endpoints` are where each of two legs dials, the same twice mostly."""

    def __init__(
        self,
        provider: Provider,
        endpoints: tuple[Endpoint, Endpoint],
        *,
        heartbeat: Heartbeat,
        backoff: Backoff,
        staleness: Staleness,
        recovery: Recovery,
        rotation: Rotation | None,
        redundancy: int,
        ssl: tls.SSLContext | None,
        on_alert: Callable[[dict[str, Any]], Any] | None,
        ring_capacity: int,
        max_symbols: int,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.provider = provider
        self.endpoints = endpoints
        self.redundancy = redundancy
        self.clock = clock
        self.decoder = Decoder(provider, ring_capacity=ring_capacity, max_symbols=max_symbols, clock=clock)
        self.readers = Readers(self.now, self._callback_failed)
        self.wanted: dict[str, dict[Subscription, bool]] = {}  # by symbol; True once it delivers
        self.counted = dict.fromkeys(
            ("bytes", "pings_answered", "dials", "reconnects", "unreadable", "strays", "callbacks_failed"), 0
        )
        self.shards: list[Shard] = []
        self.retired: list[Connection] = []  # told to close, and not yet gone
        self._heartbeat = heartbeat
        self._backoff = backoff
        self._staleness = staleness
        self._rotation = rotation
        self._on_alert = on_alert
        self._rng = rng
        hours = provider.hours if staleness.hours is None else staleness.hours
        self._lookout = Lookout(self.prices, staleness, hours, legs=redundancy)
        for source in range(_SOURCES):
            self.decoder.leg(source, source % 2)
        self.decoder.arbitrate(redundancy == 2)
        first, second = endpoints
        self.repairs = Repairs(
            self,
            provider,
            self.decoder,
            recovery,
            root=first.http_root,
            headers=first.credentials.rest,
            tls=ssl,
            clock=clock,
        )
        door = Door(provider.limits.dials_per_five_minutes, locked=first.credentials.secret)
        other = Door(provider.limits.dials_per_five_minutes, locked=second.credentials.secret)
        self._doors = (door, door if second is first else other)  # by leg
        self._connections_made = 0
        self._overlaps = 0  # rotations in which two connections deliver the same
        self._window_open = False  # in which rotations are wanted
        self._changed = Bell()  # rung when a session has done something
        self._sweeper: asyncio.TimerHandle | None = None
        self._started = False
        self._stopped = False
        self._up = False  # every subscription has once been acked or rejected
        self._sweep_due = math.inf  # monotonic seconds
        self._traffic_due = 0.0  # monotonic seconds
        self._lag_told: dict[str, tuple[int, float]] = {}  # by reader: ticks lost, and when that was told
        self._stood = ("CONNECTING", clock.utc_ns() / 1e9)  # the state, and since when (epoch seconds)
        self._refused_told = 0

    @property
    def prices(self) -> PriceTable:
        """The newest row of every symbol."""
        return self.decoder.prices

    # What is wanted ------------------------------------------------------------------------------------------------

    def add(self, wishes: Iterable[Subscription]) -> None:
        """These are wanted too. Raises ConfigError where the table or the account has no room for them."""
        by_path: dict[str, list[Subscription]] = {}
        new = [wish for wish in wishes if wish not in self.wanted.get(wish.symbol, {})]
        self._check_connections(new)
        symbols = list(dict.fromkeys(wish.symbol for wish in new if wish.symbol != ALL))
        for symbol in symbols:
            self.decoder.add_symbol(symbol)  # all of them first: a full table leaves nothing half asked for
        for symbol in symbols:
            for text in self.provider.echoes(symbol) if self.provider.echoes is not None else ():
                self.decoder.add_alias(text, symbol)
        for wish in new:
            self.wanted.setdefault(wish.symbol, {})[wish] = False
            self._require(wish.symbol)
            by_path.setdefault(self.provider.channels[wish.channel].path, []).append(wish)
        most = self.provider.limits.streams_per_connection
        parts = []
        for path, wanted in by_path.items():
            for shard in self.shards:
                if shard.path == path:
                    room = len(wanted) if most is None else max(0, most - len(shard))
                    parts.append((shard, wanted[:room]))
                    wanted = wanted[room:]
            for part in spread(wanted, most):
                parts.append((Shard(self, path, legs=self.redundancy, rotation=self._rotation), part))
        for shard, part in parts:
            if part:
                self._carry(shard, part)

    def drop(self, subscriptions: Iterable[Subscription]) -> None:
        """These are not wanted any more. Raises ConfigError for what is not subscribed."""
        dropped = list(dict.fromkeys(subscriptions))
        for subscription in dropped:
            if subscription not in self.wanted.get(subscription.symbol, {}):
                raise ConfigError(f"not subscribed: {subscription!r}")
        for subscription in dropped:
            wanted = self.wanted[subscription.symbol]
            del wanted[subscription]
            self._forget(subscription, Status.CLOSED)
            self._lookout.drop(subscription)
            self.repairs.drop(subscription)
            if wanted:
                self._require(subscription.symbol)
            else:
                del self.wanted[subscription.symbol]
                if subscription.symbol != ALL:
                    self.prices.set_status(subscription.symbol, Status.CLOSED)
        for shard in list(self.shards):
            shard.drop(dropped)
            if not shard:
                shard.stop()
                self.shards.remove(shard)
                self.retired += shard.connections

    def _check_connections(self, new: Iterable[Subscription]) -> None:
        """Are there connections enough for these too? Before any of them is recorded."""
        limits = self.provider.limits
        if limits.connections is None:
            return
        wanted = Counter(self.provider.channels[wish.channel].path for wish in new)
        for shard in self.shards:
            wanted[shard.path] += len(shard)
        most = limits.streams_per_connection
        needed = self.redundancy * sum(1 if most is None else -(-count // most) for count in wanted.values())
        if needed > limits.connections:
            raise ConfigError(
                f"{sum(wanted.values())} subscriptions need {needed} connections"
                + (" with redundancy=2" if self.redundancy == 2 else "")
                + f", {self.provider.name} allows {limits.connections}"
                + (f" of {most} subscriptions each" if most is not None else "")
                + ": ask for fewer, or for channels of one kind"
            )

    def connect(self, owner: Owner, path: str, leg: int) -> Connection:
        """Called by a shard: a connection that is not started yet and speaks for that leg."""
        number = self._connections_made
        self._connections_made += 1
        endpoint = self.endpoints[leg]
        session = Session(
            f"{path}#{number}",
            endpoint.host,
            dialect=self.provider.dialect,
            limits=self.provider.limits,
            backoff=self._backoff,
            heartbeat=self._heartbeat,
            random=self._rng.random,
            pongs_promised=self.provider.pongs_promised,
            beats=self.provider.beats,
            staleness=self._staleness,
            door=self._doors[leg],
            close_codes=self.provider.close_codes,
            logs_in=endpoint.credentials.logs_in,
            renewable=endpoint.credentials.renewable,
            rotation=self._rotation,
        )
        if self._window_open:
            session.handle(Window(True), self.now())
        return Connection(
            owner,
            session,
            endpoint,
            path,
            self._source(leg),
            self.decoder,
            self.clock,
            self.provider.dialect.ping,
            leg if self.redundancy == 2 else None,
        )

    def _source(self, leg: int) -> int:
        """The lowest number that no connection has; even ones speak for leg 0, odd ones for leg 1.

        Where there are more connections than numbers, some share one.
        """
        taken = {connection.source for connection in self.connections}
        free = (number for number in range(leg, _SOURCES, 2) if number not in taken)
        return next(free, self._connections_made * 2 % _SOURCES + leg)

    def _carry(self, shard: Shard, wishes: Sequence[Subscription]) -> None:
        if shard not in self.shards:
            self.shards.append(shard)
        self._lookout.carry(wishes, shard)
        self.repairs.begin(wishes)
        shard.carry([(wish, self.provider.topic(wish)) for wish in wishes])
        if self._started:
            shard.start()

    def _require(self, symbol: str) -> None:
        """A symbol is fresh only if all that is wanted of it is."""
        if symbol == ALL:
            return
        self.prices.require(symbol, {subscription.channel for subscription in self.wanted[symbol]})

    # Life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Dial, and look at things from now on."""
        self._started = True
        for shard in list(self.shards):
            shard.start()
        self._sweep()

    def came_up(self) -> None:
        """Every subscription has been acked or rejected."""
        self._up = True
        self._mark()

    async def stop(self, seconds: float | None) -> None:
        """Close everything, in so many seconds at most. Readers end at once."""
        self._stopped = True
        for shard in self.shards:
            shard.stop()
        self._end()
        left = [*self.connections, *self.retired]
        with suppress(TimeoutError):
            await self.until(lambda: all(connection.gone for connection in left), seconds)
        for connection in left:
            connection.abort()

    def _end(self, failure: GaveUp | None = None) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._tell()
        self.repairs.close()
        for symbol in self.prices.symbols:
            self.prices.set_status(symbol, Status.CLOSED)
        self.readers.end(failure)
        self._mark()
        self._changed.ring()

    async def until(self, reached: Callable[[], bool], seconds: float | None) -> None:
        """Return once `reached()`, which is asked again whenever a session has done something. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not reached():
                await self._changed.wait()

    def settled(self, give_up_at: float) -> bool:
        """Every subscription is acked or rejected. Raises the error that makes waiting for that useless."""
        for shard in self.shards:
            errors = [self._hopeless(connection.session, give_up_at) for connection in shard.connections]
            if all(errors) and errors[0] is not None:
                raise errors[0]
        return all(shard.settled for shard in self.shards)

    @staticmethod
    def _hopeless(session: Session, give_up_at: float) -> FastFeedError | None:
        """Why it is no use to wait for that session, if it is none."""
        error = session.error
        if error is None:
            return None
        limited = isinstance(error, HandshakeError) and error.status in (418, 429)
        too_late = limited and (session.deadline() or 0.0) > give_up_at
        return error if session.failure is not None or not error.retryable or too_late else None

    def silent(self, symbols: Iterable[str] | None, channels: Iterable[str] | None) -> list[str]:
        """Symbols that do not deliver yet on every one of `channels`."""
        self.readers.ending.check()
        if self.readers.ending.reached:
            raise ConfigError("the feed is closed")
        silent = [
            subscription
            for symbol in (self.wanted if symbols is None else symbols)
            for subscription, delivers in self.wanted.get(symbol, {}).items()
            if not delivers and (channels is None or subscription.channel in channels)
        ]
        for session in self.sessions:
            for record in session.book.at(Stage.REJECTED):
                if record.subscription in silent:
                    raise SubscriptionRejected(record.subscription.symbol, record.reason)
        return list(dict.fromkeys(subscription.symbol for subscription in silent))

    # How it stands -------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """What all connections have counted, those included that are gone or going."""
        counts = dict(self.counted)
        for connection in [*self.connections, *self.retired]:
            for name, count in connection.counters().items():
                counts[name] += count
        return counts

    @property
    def state(self) -> str:
        """CONNECTING, LIVE, RECOVERING, WAITING, CLOSED or FAILED."""
        if self.readers.ending.failure is not None:
            return "FAILED"
        if self._stopped:
            return "CLOSED"
        if not self._up:
            return "CONNECTING"
        states = {shard.state for shard in self.shards}
        return next((state for state in ("WAITING", "RECOVERING") if state in states), "LIVE")

    @property
    def stood(self) -> tuple[str, float]:
        """The state, and since when (epoch seconds)."""
        self._mark()
        return self._stood

    def _mark(self) -> None:
        """Remember since when the feed is in its present state."""
        if self.state != self._stood[0]:
            self._stood = self.state, self.clock.utc_ns() / 1e9

    @property
    def connections(self) -> list[Connection]:
        """Everything that is dialled."""
        return [connection for shard in self.shards for connection in shard.connections]

    @property
    def sessions(self) -> list[Session]:
        """What decides for each of them."""
        return [connection.session for connection in self.connections]

    # A look, ten times a second ------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Look, ten times a second or more, at what needs no attention in the read."""
        now = self.now()
        late = now - self._sweep_due
        interval = min(_SWEEP, self._staleness.interval)
        self._sweeper = asyncio.get_running_loop().call_later(interval, self._sweep)
        self._sweep_due = now + interval
        self._let_out()
        for connection in self.connections:
            connection.find_live()
        for shard in list(self.shards):
            shard.look()
        self._sweep_retired()
        if late > _STALLED:
            self._tell_stall(late)  # and silence is looked for next time: what speaks may still wait in the kernel
        elif self._staleness.watching:
            self._lookout.look(now, self.clock.utc_ns() / 1e9)
        self._lookout.keep()
        self._lookout.range()
        self.readers.slowest = (0.0, "")
        if now >= self._traffic_due:
            self._traffic_due = now + _TRAFFIC
            self._look_at_traffic(now)
        self._tell()

    def _look_at_traffic(self, now: float) -> None:
        self._look_at_window()
        for connection in self.connections:
            connection.tell_traffic(judged=self._lookout.market_open)
        for stream in self.readers:
            if isinstance(stream, Ticks):
                lost, told_at = self._lag_told.get(stream.name, (0, -math.inf))
                if stream.lost > lost and now >= told_at + _LAG_TOLD:
                    self._lag_told[stream.name] = stream.lost, now
                    cause = f"{stream.name} reads too slowly: {stream.lost - lost} ticks lost"
                    self.on_event(Alert("warning", cause, "do less in its loop, or raise ring_capacity="))

    def _look_at_window(self) -> None:
        if self._rotation is not None and self._rotation.window is not None:
            is_open = self._rotation.window.covers(self.clock.utc_ns() / 1e9)
            if is_open is not self._window_open:
                self._window_open = is_open
                for shard in list(self.shards):
                    shard.window(is_open)

    def _let_out(self) -> None:
        """What waited in vain for the other leg goes to the readers."""
        before = self.decoder.ring.published
        self.decoder.expire()
        if self.decoder.ring.published > before:
            self.readers.ring()

    def _sweep_retired(self) -> None:
        for connection in [connection for connection in self.retired if connection.gone]:
            self.retired.remove(connection)
            for name, count in connection.counters().items():
                self.counted[name] += count

    def _tell_stall(self, seconds: float) -> None:
        took, name = self.readers.slowest
        what = f"on_batch callback {name} took {took:.2f} s" if took > seconds / 2 else "something on it did not yield"
        cause = f"the event loop stood still for {seconds:.2f} s: {what}"
        self.on_event(Alert("warning", cause, "move slow work to a thread or another process"))

    def _tell(self) -> None:
        """Tell what the decoder has noticed since the last time."""
        self.repairs.sweep()
        counts = self.decoder.stats()
        if counts["refused_symbols"] > self._refused_told:
            self._refused_told = counts["refused_symbols"]
            cause = f"no row for {self.decoder.refused_symbol!r}: the table is full"
            self.on_event(Alert("warning", cause, "raise max_symbols="))

    def _callback_failed(self, callback: BatchCallback, error: Exception) -> None:
        self.counted["callbacks_failed"] += 1
        if callback.failed == 1:
            _LOG.error("on_batch callback %s failed", callback.name, exc_info=error)
        self.on_event(CallbackFailed(callback.name, f"{type(error).__name__}: {error}"))

    # Told by the shards --------------------------------------------------------------------------------------------

    def on_ticks(self) -> None:
        if self.now() - self._sweep_due > _STALLED:
            self._lookout.doubt_backlog(round(self._sweep_due * 1e9))
        self.readers.show()

    def carrying(self, symbol: str, channel: str, *, every: bool = False) -> list[tuple[Connection, Subscription]]:
        return self._lookout.carrying(symbol, channel, every=every)

    def subscriptions(self) -> list[Subscription]:
        return [wish for wishes in self.wanted.values() for wish in wishes]

    def on_event(self, event: Event) -> None:
        if isinstance(event, Restored):
            missing = self._still(event.missing)
            self.repairs.silent(wish for wish in missing if not self.wanted[wish.symbol][wish])
        utc = self.clock.utc_ns() / 1e9
        alert = alert_of(event)
        if alert is not None and alert.severity != "error" and self._staleness.muted(utc):
            if event is alert:
                return
            alert = None
        _LOG.log(event.level, "%s: %s", self.provider.name, event)
        self.readers.tell(event)
        if alert is not None and self._on_alert is not None:
            told = {"severity": alert.severity, "cause": alert.cause, "feed": self.provider.name}
            try:
                self._on_alert({**told, "since": utc, "hint": alert.hint})
            except Exception:
                _LOG.exception("on_alert failed")

    def _still(self, subscriptions: Iterable[Subscription]) -> list[Subscription]:
        """Those still wanted: what an alert's callback has unsubscribed meanwhile is nobody's business."""
        return [wish for wish in subscriptions if wish in self.wanted.get(wish.symbol, ())]

    def on_lost(self, subscriptions: Iterable[Subscription]) -> None:
        lost = self._still(subscriptions)
        self.repairs.interrupt(lost, "reconnect")
        for subscription in lost:
            self.wanted[subscription.symbol][subscription] = False
            # Not fresh until it delivers again, whatever other connections deliver of the symbol.
            self._forget(subscription, Status.RECOVERING)
            self._lookout.stands(subscription, Status.RECOVERING)

    def on_forget(self, subscriptions: Iterable[Subscription]) -> None:
        asked = self._still(subscriptions)
        self.repairs.interrupt(asked, "resubscribe")
        for subscription in asked:
            self.wanted[subscription.symbol][subscription] = False
            self._forget(subscription, Status.RECOVERING)

    def _forget(self, subscription: Subscription, status: Status) -> None:
        """What it delivered vouches for nothing any more; the rows of a whole channel have that status from now on."""
        if subscription.symbol != ALL:
            self.prices.forget(subscription.symbol, subscription.channel)
            return
        for symbol in self._lookout.rows_of(subscription.channel):
            self.prices.forget(symbol, subscription.channel)
            self.prices.set_status(symbol, status)

    def on_offset(self, seconds: float) -> None:
        self.prices.set_clock_offset(seconds)

    def on_judged(self, subscriptions: Iterable[Subscription], standing: Standing) -> None:
        for subscription in subscriptions:
            if subscription in self._lookout:
                self._lookout.judge(subscription, standing)

    def on_delivered(self, subscriptions: Iterable[Subscription]) -> None:
        for subscription in subscriptions:
            wanted = self.wanted[subscription.symbol]
            wanted[subscription] = True
            self._lookout.stands(subscription, Status.LIVE)
            if subscription.symbol == ALL:
                continue
            if all(wanted.values()) and self._lookout.well(subscription.symbol):
                self.prices.set_status(subscription.symbol, Status.LIVE)
        self.repairs.delivered(list(subscriptions))

    def on_change(self, shard: Shard) -> None:
        failure = shard.failure
        if failure is not None and not self.readers.ending.reached:
            self._end(failure)
            for other in self.shards:
                other.stop()
        self._mark()
        self._changed.ring()

    def on_retired(self, connection: Connection) -> None:
        self.retired.append(connection)

    def may_connect(self) -> bool:
        most = self.provider.limits.connections
        return most is None or len(self.connections) + len(self.retired) < most

    def overlap(self, begins: bool, leg: int) -> None:
        self._overlaps += 1 if begins else -1
        self.decoder.lead(leg)
        self.decoder.arbitrate(self.redundancy == 2 or self._overlaps > 0)

    def is_caught_up(self) -> bool:
        return self.decoder.deadline is None

    def now(self) -> float:
        return self.clock.mono_ns() / 1e9
