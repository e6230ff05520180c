"""The public face of live data: what is wanted, who reads it, and how it stands.

It spreads subscriptions over connections, wakes the readers once per socket read and adds up what the connections say.
It decides nothing that a session can decide, and touches no socket.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import random
import ssl as tls
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from fastfeed import providers
from fastfeed._core import Clock, PriceTable
from fastfeed.backoff import Backoff
from fastfeed.confirm import Confirmation, confirmation, translated
from fastfeed.connection import Connection, Owner
from fastfeed.credentials import Given
from fastfeed.decoder import Decoder
from fastfeed.door import Door
from fastfeed.endpoint import Endpoint
from fastfeed.errors import (
    ConfigError,
    ConnectError,
    FastFeedError,
    GaveUp,
    HandshakeError,
    StaleError,
    SubscriptionRejected,
)
from fastfeed.events import (
    Alert,
    CallbackFailed,
    Disconnected,
    Event,
    RedundancyLost,
    RedundancyRegained,
    Restored,
    alert_of,
)
from fastfeed.gaps import Recovery
from fastfeed.heartbeat import Heartbeat
from fastfeed.legs import Shard
from fastfeed.lookout import Lookout
from fastfeed.providers import Provider
from fastfeed.records import Gap, Status
from fastfeed.repair import Repairs
from fastfeed.rotation import Rotation
from fastfeed.session import Session, State
from fastfeed.signals import Window
from fastfeed.staleness import Staleness, Standing
from fastfeed.streams import BatchCallback, Batches, Bell, Ending, Events, Records, Stream, Ticks
from fastfeed.subscriptions import ALL, Stage, Subscription, spread

_LOG = logging.getLogger("fastfeed")

S = TypeVar("S", bound=Stream[Any])

_PERCENTILES = ("p50", "p90", "p99", "max")
_SWEEP = 0.1  # seconds between looks at gaps, silence and what has begun to deliver
_STALLED = 0.5  # seconds a look may come late before the loop counts as stalled
_TRAFFIC = 1.0  # seconds between looks at rates and at readers left behind
_SOURCES = 256  # numbers of connections, as the decoder tells them apart
_LAG_TOLD = 60.0  # seconds between alerts about the same slow reader


class Feed:
    """Live market data of one provider: `async with Feed("binance-usdm", ["BTCUSDT"], channels=["quote"]) as feed`.

    Args:
        provider: a name (`fastfeed.providers.names()`) or a Provider of your own; with redundancy=2 also two of them.
        symbols: what to subscribe to, each on every one of `channels`; a Subscription stands for itself.
        channels: the provider's channel names.
        url: replaces scheme, host and port ("ws://127.0.0.1:9000"); the provider's paths are kept. A list for two.
        api_key, credentials: secrets, if the provider wants any; else its environment variables are read. `credentials`
            may be a function that returns them (awaited if it is async), called again when they are refused.
        ssl: a context; by default certificates are verified and SSL_CERT_FILE is honoured.
        backoff: how long to wait before a redial; None: as the provider asks for, else `Backoff()`.
        staleness: which silence is too long, and when alerts are mute.
        recovery: what is done about messages that are missing.
        rotation: when a connection is replaced by one that is opened beside it; None: never, it ends when it ends.
        redundancy: 2 has two connections deliver the same at all times, of which the first arrival counts. Of two
            providers that do not share a `numbering` the first one's prices are the feed's, and `secondary` is a feed
            of the second, for `confirms`.
        symbol_map: what the second provider calls the first one's symbols, where it calls them something else.
        on_alert: called on the loop with a dict of `severity`, `cause`, `feed`, `since` (UTC epoch seconds) and `hint`,
            ready for a webhook, for what a person should look at. An exception in it is logged.
        max_symbols: rows reserved (default 65,536); a symbol beyond them is refused, counted and told.
        whole_market_unbounded: needed beside the symbol "*" where max_symbols= does not say how many it may bring.
        accept_any_certificate: needed beside an `ssl` context that verifies nothing, so that nobody uses one unawares.
        connect_timeout: seconds for every subscription to be acked or rejected; entering raises after that.
        close_timeout: seconds `close()` waits for the other end. None waits for ever, in both.
        receive_buffer: bytes of the socket's receive buffer (SO_RCVBUF), about rate times round trip.
        max_message: bytes of the longest message taken; a longer one closes the connection.
        clock, rng: where time and jitter come from (`fastfeed.Clock`, `random.Random`).

    Raises:
        ConfigError: for anything that cannot work, before any network.
    """

    def __init__(
        self,
        provider: str | Provider | Sequence[str | Provider],
        symbols: Iterable[str | Subscription],
        *,
        channels: Iterable[str] = ("quote",),
        url: str | Sequence[str] | None = None,
        api_key: str | None = None,
        credentials: Given | None = None,
        ssl: tls.SSLContext | None = None,
        heartbeat: Heartbeat = Heartbeat(),  # noqa: B008 - frozen
        backoff: Backoff | None = None,
        staleness: Staleness = Staleness(),  # noqa: B008 - frozen
        recovery: Recovery = Recovery(),  # noqa: B008 - frozen
        rotation: Rotation | None = Rotation(),  # noqa: B008 - frozen
        redundancy: int = 1,
        symbol_map: Mapping[str, str] | None = None,
        on_alert: Callable[[dict[str, Any]], Any] | None = None,
        accept_any_certificate: bool = False,
        connect_timeout: float | None = 10.0,
        close_timeout: float | None = 5.0,
        receive_buffer: int = 1 << 20,
        max_message: int = 10 << 20,
        ring_capacity: int = 65536,
        max_symbols: int | None = None,
        whole_market_unbounded: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.provider, second = _pair(provider, redundancy)
        addresses = [url] if url is None or isinstance(url, str) else list(url)
        if len(addresses) > (1 if second is None else 2):
            raise ConfigError(f"url={url!r}: one address per provider")
        self._channels = _names("channels", channels)
        symbols = _items("symbols", symbols)
        wishes = self._wishes(symbols, self._channels)
        if not wishes:
            raise ConfigError("symbols is empty: name at least one symbol or Subscription")
        _expect("heartbeat", heartbeat, Heartbeat)
        backoff = self.provider.backoff if backoff is None else backoff
        _expect("backoff", backoff, Backoff)
        if ssl is not None:
            _expect("ssl", ssl, tls.SSLContext)
            if ssl.verify_mode is not tls.CERT_REQUIRED and not accept_any_certificate:
                raise ConfigError("ssl= does not verify certificates: say accept_any_certificate=True if that is meant")
        _expect("staleness", staleness, Staleness)
        _expect("recovery", recovery, Recovery)
        if rotation is not None:
            _expect("rotation", rotation, Rotation)
        if redundancy not in (1, 2):
            raise ConfigError(f"redundancy={redundancy!r}: 1 is one connection, 2 are two that deliver the same")
        if on_alert is not None and (not callable(on_alert) or inspect.iscoroutinefunction(on_alert)):
            raise ConfigError(f"on_alert takes a plain function, not {on_alert!r}")
        self._dangers = []
        if ssl is not None and ssl.verify_mode is not tls.CERT_REQUIRED:
            self._dangers.append("certificates are not verified (accept_any_certificate=True)")
        if not staleness.watching:
            self._dangers.append("dead subscriptions are not looked for (silence_goes_unnoticed=True)")
        if max_symbols is None and any(wish.symbol == ALL for wish in wishes):
            if not whole_market_unbounded:
                raise ConfigError(
                    "the symbol '*' brings as many symbols as the provider has: say max_symbols=, or "
                    "whole_market_unbounded=True"
                )
            self._dangers.append("nobody knows how many symbols will come (whole_market_unbounded=True)")
        if backoff.max_retries == math.inf:
            self._dangers.append("it redials for ever (retries_for_ever=True)")
        for name, size in (("receive_buffer", receive_buffer), ("max_message", max_message)):
            if not (isinstance(size, int) and 4096 <= size < 1 << 31):
                raise ConfigError(f"{name}={size!r}: must be a number of bytes from 4096 to 2 GiB")
        self._clock = clock if clock is not None else Clock()
        self._endpoint = Endpoint(
            self.provider,
            url=addresses[0],
            tls=ssl,
            api_key=api_key,
            credentials=credentials,
            receive_buffer=receive_buffer,
            max_message=max_message,
            clock=self._clock,
        )
        shared = second is not None and bool(second.numbering) and second.numbering == self.provider.numbering
        if shared and second is not None and second.schema is not self.provider.schema:
            raise ConfigError(f"{second.name} and {self.provider.name} share a numbering, but not a schema")
        self.secondary: Feed | None = None
        self._second_endpoint: Endpoint | None = None
        if second is not None and shared:
            self._second_endpoint = Endpoint(
                second,
                url=addresses[-1],
                tls=ssl,
                api_key=api_key,
                credentials=credentials,
                receive_buffer=receive_buffer,
                max_message=max_message,
                clock=self._clock,
            )
        elif second is not None:
            redundancy = 1
            self.secondary = Feed(
                second,
                translated(symbols, symbol_map or {}),
                channels=self._channels,
                url=addresses[-1],
                ssl=ssl,
                heartbeat=heartbeat,
                backoff=backoff,
                staleness=staleness,
                recovery=recovery,
                rotation=rotation,
                accept_any_certificate=accept_any_certificate,
                connect_timeout=None,
                close_timeout=close_timeout,
                receive_buffer=receive_buffer,
                max_message=max_message,
                ring_capacity=ring_capacity,
                max_symbols=max_symbols,
                whole_market_unbounded=whole_market_unbounded,
                clock=clock,
                rng=rng,
            )
        self._symbol_map = dict(symbol_map or {})
        self._beside: asyncio.Task[None] | None = None  # enters the secondary and tells what happens to it
        self._heartbeat = heartbeat
        self._backoff = backoff
        self._staleness = staleness
        self._rotation = rotation
        self._redundancy = redundancy
        self._on_alert = on_alert
        self._connect_timeout = _seconds("connect_timeout", connect_timeout)
        self._close_timeout = _seconds("close_timeout", close_timeout)
        self._rng = rng if rng is not None else random.Random()

        room = 65536 if max_symbols is None else max_symbols
        self.decoder = Decoder(self.provider, ring_capacity=ring_capacity, max_symbols=room, clock=self._clock)
        hours = self.provider.hours if staleness.hours is None else staleness.hours
        self._lookout = Lookout(self.prices, staleness, hours, legs=redundancy)
        for source in range(_SOURCES):
            self.decoder.leg(source, source % 2)
        self.decoder.arbitrate(redundancy == 2)
        self._repairs = Repairs(
            self, self.provider, self.decoder, recovery, root=self._endpoint.http_root, tls=ssl, clock=self._clock
        )
        self._door = Door(self.provider.limits.dials_per_five_minutes, locked=self._endpoint.credentials.secret)
        second_door = self._door
        if self._second_endpoint is not None:
            assert second is not None
            locked = self._second_endpoint.credentials.secret
            second_door = Door(second.limits.dials_per_five_minutes, locked=locked)
        self._doors = (self._door, second_door)  # by leg
        self._shards: list[Shard] = []
        self._retired: list[Connection] = []  # told to close, and not yet gone
        self._connections_made = 0
        self._overlaps = 0  # rotations in which two connections deliver the same
        self._window_open = False  # in which rotations are wanted
        self._wanted: dict[str, dict[Subscription, bool]] = {}  # by symbol; True once it delivers
        self._callbacks: list[BatchCallback] = []
        self._streams: weakref.WeakValueDictionary[str, Stream[Any]] = weakref.WeakValueDictionary()
        self._names_made = 0
        self._data = Bell()  # rung at the end of each socket read that made ticks
        self._changed = Bell()  # rung when a session has done something
        self._ending = Ending()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._entered = False
        self._up = False  # every subscription has once been acked or rejected
        self._sweep_due = math.inf  # monotonic seconds
        self._traffic_due = 0.0  # monotonic seconds
        self._slowest = (0.0, "")  # the longest run of a callback since the last sweep: seconds, name
        self._lag_told: dict[str, tuple[int, float]] = {}  # by reader: ticks lost, and when that was told
        self._stood = ("CONNECTING", self._clock.utc_ns() / 1e9)  # the state, and since when (epoch seconds)
        self._refused_told = 0
        counted = ("bytes", "pings_answered", "dials", "reconnects", "unreadable", "strays", "callbacks_failed")
        self._counted = dict.fromkeys(counted, 0)
        self._add(wishes)

    # Reading -------------------------------------------------------------------------------------------------------

    @property
    def prices(self) -> PriceTable:
        """The newest row of every symbol: live, zero-copy, read-only views. Survives redials."""
        return self.decoder.prices

    def confirms(self, symbol: str, *, max_age: float = 2.0, tolerance: float = 0.001) -> Confirmation:
        """Whether the secondary's fresh price (within `max_age` seconds) is within `tolerance` (relative) of ours.

        While ours is not fresh, whether it still stands: our last price is held against the secondary's present one.

        Raises:
            ConfigError: the feed has no secondary provider, or no such symbol.
        """
        if self.secondary is None:
            raise ConfigError("there is no secondary: Feed([first, second], ..., redundancy=2) has one")
        name = self._subscribed(symbol)
        other = self.secondary._subscribed(self._symbol_map.get(name, name))
        theirs = self.secondary.prices[other] if self.secondary.prices.is_fresh(other, max_age) else None
        return confirmation(name, self.prices[name], self.prices.is_fresh(name, max_age), theirs, tolerance)

    def gaps(self) -> Sequence[Gap]:
        """The newest 65,536 gaps, oldest first: a sequence of Gap."""
        return self._repairs.gaps()

    def batches(self, *, window: float = 0.0, max_age: float | None = None, name: str | None = None) -> Batches:
        """Conflated batches, each an owned array of PRICE_DTYPE: the newest row of every symbol that changed.

        `window=0` delivers at the end of each socket read, otherwise at most every `window` seconds. Rows older than
        `max_age` seconds when they would be delivered are dropped and counted.
        """
        if window != 0:
            _seconds("window", window)
        reader = self.prices.reader(max_age=_seconds("max_age", max_age))
        return self._keep(Batches(self._name("batches", name), self._data, self._ending, reader, window))

    def ticks(self, *, name: str | None = None) -> Ticks:
        """Every tick in order, in owned arrays of TICK_DTYPE. A reader that is lapped loses the oldest, counted."""
        return self._keep(Ticks(self._name("ticks", name), self._data, self._ending, self.decoder.ring.reader()))

    def events(self, *, name: str | None = None) -> Events:
        """What happens to the feed from now on: the types of `fastfeed.events`."""
        return self._keep(Events(self._name("events", name), self._ending))

    def on_batch(
        self, callback: Callable[[Records], Any], *, max_age: float | None = None, name: str | None = None
    ) -> BatchCallback:
        """Call `callback(rows)` in the socket read, synchronously; `rows` is valid only until it returns.

        An exception in it is caught, counted and told as CallbackFailed. `.cancel()` on what is returned ends it.
        """
        if not callable(callback) or inspect.iscoroutinefunction(callback):
            raise ConfigError(f"on_batch takes a plain function, not {callback!r}: use batches() to await")
        handle = BatchCallback(
            self._name("on_batch", name),
            callback,
            self.prices.reader(max_age=_seconds("max_age", max_age)),
            self._callback_failed,
        )
        self._callbacks.append(handle)
        return handle

    def _name(self, kind: str, name: str | None) -> str:
        self._callbacks = [callback for callback in self._callbacks if not callback.cancelled]
        taken = {consumer.name for consumer in self._consumers}
        if name is None:
            self._names_made += 1
            return f"{kind}-{self._names_made}"
        if name in taken:
            raise ConfigError(f"name={name!r} is taken by another consumer of this feed: {', '.join(sorted(taken))}")
        return name

    @property
    def _consumers(self) -> list[Stream[Any] | BatchCallback]:
        """Everybody who reads, the streams nobody holds any more and the closed ones left out."""
        streams = [stream for stream in list(self._streams.values()) if not stream.closed]
        return [*streams, *(callback for callback in self._callbacks if not callback.cancelled)]

    def _keep(self, stream: S) -> S:
        self._streams[stream.name] = stream
        return stream

    def refresh(self, symbols: Iterable[str] | None = None, *, channels: Iterable[str] | None = None) -> None:
        """Fetch anew, over HTTP, the depth snapshots and last quotes of `symbols` on `channels` (None: all).

        They go to the ring flagged SNAPSHOT, each in its place in its stream: for a reader of `ticks()` that has just
        come. A depth stream's first snapshot, and those after a gap, are fetched without being asked for.

        Raises:
            ConfigError: there is nothing to fetch for any of them, or no way to.
        """
        self._check_open()
        names = list(self._wanted) if symbols is None else [self._subscribed(s) for s in _items("symbols", symbols)]
        only = None if channels is None else [self.provider.channel_named(c) for c in _names("channels", channels)]
        wished = [wish for name in names for wish in self._wanted[name] if only is None or wish.channel in only]
        if not self._repairs.refresh(wished):
            raise ConfigError("nothing of this can be fetched: see the provider's `recovery`, and the http extra")

    # What is wanted ------------------------------------------------------------------------------------------------

    def subscribe(self, symbols: Iterable[str | Subscription], *, channels: Iterable[str] | None = None) -> None:
        """Wish for more, on `channels` or those of the feed. While disconnected it is recorded and sent on return.

        Raises:
            ConfigError: for what the provider does not have, or when the table is full.
        """
        self._check_open()
        symbols = _items("symbols", symbols)
        self._add(self._wishes(symbols, self._channels if channels is None else _names("channels", channels)))
        if self.secondary is not None:
            self.secondary.subscribe(translated(symbols, self._symbol_map), channels=channels)

    def unsubscribe(self, symbols: Iterable[str | Subscription], *, channels: Iterable[str] | None = None) -> None:
        """Wish for less: of a symbol, `channels` or all it is subscribed to. Its row stays and is CLOSED."""
        self._check_open()
        dropped = []
        symbols = _items("symbols", symbols)
        if self.secondary is not None:
            self.secondary.unsubscribe(translated(symbols, self._symbol_map), channels=channels)
        for item in symbols:
            if isinstance(item, Subscription) or channels is not None:
                dropped += self._wishes([item], () if channels is None else _names("channels", channels))
            else:
                symbol = ALL if item == ALL else self.provider.symbol_named(item)
                dropped += list(self._wanted.get(symbol, {})) or [Subscription(symbol, "any channel")]
        for subscription in dropped:
            if subscription not in self._wanted.get(subscription.symbol, {}):
                raise ConfigError(f"not subscribed: {subscription!r}")
        for subscription in dict.fromkeys(dropped):
            wanted = self._wanted[subscription.symbol]
            del wanted[subscription]
            self._forget(subscription, Status.CLOSED)
            self._lookout.drop(subscription)
            self._repairs.drop(subscription)
            if wanted:
                self._require(subscription.symbol)
            else:
                del self._wanted[subscription.symbol]
                if subscription.symbol != ALL:
                    self.prices.set_status(subscription.symbol, Status.CLOSED)
        for shard in list(self._shards):
            shard.drop(dropped)
            if not shard:
                shard.stop()
                self._shards.remove(shard)
                self._retired += shard.connections

    @property
    def subscriptions(self) -> dict[Subscription, str]:
        """Every subscription and how far it has come: wanted, requested, acked, live or rejected."""
        return {record.subscription: record.stage.value for shard in self._shards for record in shard.records}

    def _wishes(self, symbols: Iterable[str | Subscription], channels: Iterable[str]) -> list[Subscription]:
        wishes: dict[Subscription, None] = {}
        for item in _items("symbols", symbols):
            if isinstance(item, Subscription):
                wishes[self.provider.subscription(item)] = None
            elif isinstance(item, str):
                for channel in channels:
                    wishes[self.provider.subscription(Subscription(item, channel))] = None
            else:
                raise ConfigError(f"symbols holds {item!r}: write symbols as str, or Subscription objects")
        return list(wishes)

    def _add(self, wishes: Iterable[Subscription]) -> None:
        by_path: dict[str, list[Subscription]] = {}
        new = [wish for wish in wishes if wish not in self._wanted.get(wish.symbol, {})]
        self._check_connections(new)
        for wish in new:
            if wish.symbol != ALL:
                self.decoder.add_symbol(wish.symbol)  # all of them first: a full table leaves nothing half done
        for wish in new:
            self._wanted.setdefault(wish.symbol, {})[wish] = False
            self._require(wish.symbol)
            by_path.setdefault(self.provider.channels[wish.channel].path, []).append(wish)
        most = self.provider.limits.streams_per_connection
        parts = []
        for path, wanted in by_path.items():
            for shard in self._shards:
                if shard.path == path:
                    room = len(wanted) if most is None else max(0, most - len(shard))
                    parts.append((shard, wanted[:room]))
                    wanted = wanted[room:]
            for part in spread(wanted, most):
                parts.append((Shard(self, path, legs=self._redundancy, rotation=self._rotation), part))
        for shard, part in parts:
            if part:
                self._carry(shard, part)

    def _check_connections(self, new: Iterable[Subscription]) -> None:
        """Are there connections enough for these too? Before any of them is recorded."""
        limits = self.provider.limits
        if limits.connections is None:
            return
        wanted = Counter(self.provider.channels[wish.channel].path for wish in new)
        for shard in self._shards:
            wanted[shard.path] += len(shard)
        most = limits.streams_per_connection
        needed = self._redundancy * sum(1 if most is None else -(-count // most) for count in wanted.values())
        if needed > limits.connections:
            raise ConfigError(
                f"{sum(wanted.values())} subscriptions need {needed} connections"
                + (" with redundancy=2" if self._redundancy == 2 else "")
                + f", {self.provider.name} allows {limits.connections}"
                + (f" of {most} subscriptions each" if most is not None else "")
                + ": ask for fewer, or for channels of one kind"
            )

    def connect(self, owner: Owner, path: str, leg: int) -> Connection:
        """Called by a shard: a connection that is not started yet and speaks for that leg."""
        number = self._connections_made
        self._connections_made += 1
        endpoint = self._second_endpoint if leg and self._second_endpoint is not None else self._endpoint
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
            session.handle(Window(True), self._now())
        return Connection(
            owner,
            session,
            endpoint,
            path,
            self._source(leg),
            self.decoder,
            self._clock,
            self.provider.dialect.ping,
            leg if self._redundancy == 2 else None,
        )

    def _source(self, leg: int) -> int:
        """The lowest number that no connection has; even ones speak for leg 0, odd ones for leg 1.

        Where there are more connections than numbers, some share one.
        """
        taken = {connection.source for connection in self._connections}
        free = (number for number in range(leg, _SOURCES, 2) if number not in taken)
        return next(free, self._connections_made * 2 % _SOURCES + leg)

    def _carry(self, shard: Shard, wishes: Sequence[Subscription]) -> None:
        if shard not in self._shards:
            self._shards.append(shard)
        self._lookout.carry(wishes, shard)
        self._repairs.begin(wishes)
        shard.carry([(wish, self.provider.topic(wish)) for wish in wishes])
        if self._entered:
            shard.start()

    def _require(self, symbol: str) -> None:
        """A symbol is fresh only if all that is wanted of it is."""
        if symbol == ALL:
            return
        self.prices.require(symbol, {subscription.channel for subscription in self._wanted[symbol]})

    # Life ----------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ConfigError("a feed is entered once: make a new Feed")
        self._entered = True
        for danger in self._dangers:
            _LOG.warning("%s: %s", self.provider.name, danger)
        for shard in list(self._shards):
            shard.start()
        self._sweep()
        if self.secondary is not None:
            self._beside = asyncio.create_task(self._run_beside(self.secondary))
        give_up_at = math.inf if self._connect_timeout is None else self._now() + self._connect_timeout
        try:
            await self._until(lambda: self._settled(give_up_at), self._connect_timeout)
        except TimeoutError:
            error = next((session.error for session in self._sessions if session.error is not None), None)
            if error is None:
                waiting = sum(len(session.book.at(Stage.WANTED, Stage.REQUESTED)) for session in self._sessions)
                cause = f"{waiting} of {len(self.subscriptions)} subscriptions not acked in {self._connect_timeout} s"
                error = ConnectError(self._endpoint.host, cause)
            await self.close()
            raise error from None
        except BaseException:
            await self.close()
            raise
        self._up = True
        self._mark()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Unsubscribe from everything by closing the connections, and end all streams. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def wait_live(
        self,
        symbols: Iterable[str] | None = None,
        *,
        channels: Iterable[str] | None = None,
        timeout: float | None = 10.0,  # noqa: ASYNC109
    ) -> None:
        """Return once every subscription of `symbols` on `channels` (None: all) delivers on its present connection.

        An ack is no promise of data, so data is waited for; a quiet symbol's first trade may take hours, its quote not.

        Raises:
            StaleError: some do not within `timeout` seconds; it names them.
            SubscriptionRejected: one of them was rejected by the server.
            GaveUp: the feed failed.
        """
        names = None if symbols is None else [self._subscribed(symbol) for symbol in _items("symbols", symbols)]
        only = None if channels is None else [self.provider.channel_named(c) for c in _names("channels", channels)]
        try:
            await self._until(lambda: not self._silent(names, only), timeout)
        except TimeoutError:
            raise StaleError(self._silent(names, only), f"no data within {timeout} s") from None

    @property
    def state(self) -> str:
        """CONNECTING, LIVE, RECOVERING, WAITING, CLOSED or FAILED."""
        if self._ending.failure is not None:
            return "FAILED"
        if self._closing is not None:
            return "CLOSED"
        if not self._up:
            return "CONNECTING"
        states = {shard.state for shard in self._shards}
        return next((state for state in ("WAITING", "RECOVERING") if state in states), "LIVE")

    def stats(self) -> dict[str, Any]:
        """Counters and percentiles: the decoder's counters, and

        `bytes` received, `dials`, `reconnects`, `pings_answered`, `callbacks_failed`, open `connections`; `unreadable`
        control messages, which say nothing to us, and `strays`, which answer nothing we asked; `rtt_ms` over the latest
        pings of both kinds and `lag_ms` (receipt minus event time) over all ticks, as p50, p90, p99 and max;
        `consumers`, each name's ledger (received == delivered + conflated + dropped + pending); `legs`, where there are
        two, for each its `wins` and `win_rate` (messages that came first by it), `seconds`, and `behind_ms` (how far
        its seconds came behind the first, as p50 and p99).
        """
        stats: dict[str, Any] = dict(self.decoder.stats())
        stats.update(self._counted)
        for connection in [*self._connections, *self._retired]:
            for name, count in connection.counters().items():
                stats[name] += count
        stats["connections"] = sum(session.state is State.OPEN for session in self._sessions)
        pulses = [pulse for session in self._sessions for pulse in (session.pulse, session.app_pulse)]
        trips = [trip for pulse in pulses for trip in pulse.round_trips]
        rtt = np.percentile(trips, [50, 90, 99, 100]) if trips else np.full(4, math.nan)
        stats["rtt_ms"] = dict(zip(_PERCENTILES, (rtt * 1e3).tolist(), strict=True))
        stats["lag_ms"] = dict(zip(_PERCENTILES, self._lags_ms(0.5, 0.9, 0.99, 1.0), strict=True))
        stats["consumers"] = {consumer.name: consumer.ledger() for consumer in self._consumers}
        stats["legs"] = []
        if self._redundancy == 2:
            legs = self.decoder.legs()
            wins = sum(leg["wins"] for leg in legs)
            stats["legs"] = [
                {**leg, "win_rate": leg["wins"] / wins if wins else math.nan}
                for leg in ({name: leg[name] for name in ("wins", "seconds", "behind_ms")} for leg in legs)
            ]
        return stats

    def health(self, max_age: float | None = None) -> dict[str, Any]:
        """How the feed stands, for whoever watches it from outside: a dict that is JSON as it is.

        `healthy` is the answer, the rest says why: LIVE, and all `symbols` are `fresh`. Fresh are those that may be
        acted on: `prices.fresh(max_age)`, or without `max_age` those LIVE or QUIET. `state`, and `since` when (UTC
        epoch seconds); `oldest`, the symbol that has been silent for longest on any of its channels, and `oldest_age`
        for how many seconds (None: nothing has come since the connection opened); the median `lag_ms` (None: no event
        times); `reconnects`; and `error`, what is wrong with a connection now, or None.
        """
        self._mark()
        state, since = self._stood
        rows = {symbol: self.prices.id(symbol) for symbol in self._wanted}
        if (seconds := _seconds("max_age", max_age)) is None:
            fresh = np.isin(self.prices.array["status"], (Status.LIVE, Status.QUIET))
        else:
            fresh = self.prices.fresh(seconds)
        channels = {subscription.channel for wanted in self._wanted.values() for subscription in wanted}
        ages = {channel: np.nan_to_num(self.prices.ages(channel), nan=math.inf) for channel in channels}
        silences = [(float(ages[key.channel][rows[name]]), name) for name, keys in self._wanted.items() for key in keys]
        age, oldest = max(silences, default=(math.inf, None))
        count = sum(bool(fresh[row]) for row in rows.values())
        lag = self._lags_ms(0.5)[0]
        errors = [self._ending.failure, *(session.error for session in self._sessions)]
        return {
            "healthy": state == "LIVE" and count == len(rows),
            "provider": self.provider.name,
            "state": state,
            "since": since,
            "symbols": len(rows),
            "fresh": count,
            "oldest": oldest,
            "oldest_age": age if age < math.inf else None,
            "lag_ms": lag if lag == lag else None,
            "reconnects": self._counted["reconnects"] + sum(session.reconnects for session in self._sessions),
            "error": next((str(error) for error in errors if error is not None), None),
        }

    def __repr__(self) -> str:
        status = self.prices.array["status"]
        live = np.count_nonzero((status == Status.LIVE) | (status == Status.QUIET))
        stale = np.count_nonzero((status == Status.SUSPECT) | (status == Status.STALE))
        total = len(status) if ALL in self._wanted else len(self._wanted)
        return (
            f"<Feed {self.provider.name} {self.state}, {live}/{total} symbols live, {stale} stale, "
            f"{self.decoder.stats()['gaps']} gaps, lag {self._lags_ms(0.5)[0]:.1f} ms>"
        )

    # Inside --------------------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        """Remember since when the feed is in its present state."""
        if self.state != self._stood[0]:
            self._stood = self.state, self._clock.utc_ns() / 1e9

    def _now(self) -> float:
        return self._clock.mono_ns() / 1e9

    @property
    def _connections(self) -> list[Connection]:
        return [connection for shard in self._shards for connection in shard.connections]

    @property
    def _sessions(self) -> list[Session]:
        return [connection.session for connection in self._connections]

    async def _until(self, reached: Callable[[], bool], seconds: float | None) -> None:
        """Return once `reached()`, which is asked again whenever a session has done something. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not reached():
                await self._changed.wait()

    def _settled(self, give_up_at: float) -> bool:
        """Every subscription is acked or rejected. Raises the error that makes waiting for that useless."""
        for shard in self._shards:
            errors = [self._hopeless(connection.session, give_up_at) for connection in shard.connections]
            if all(errors) and errors[0] is not None:
                raise errors[0]
        return all(shard.settled for shard in self._shards)

    @staticmethod
    def _hopeless(session: Session, give_up_at: float) -> FastFeedError | None:
        """Why it is no use to wait for that session, if it is none."""
        error = session.error
        if error is None:
            return None
        limited = isinstance(error, HandshakeError) and error.status in (418, 429)
        too_late = limited and (session.deadline() or 0.0) > give_up_at
        return error if session.failure is not None or not error.retryable or too_late else None

    def _silent(self, symbols: Iterable[str] | None, channels: Iterable[str] | None) -> list[str]:
        """Symbols that do not deliver yet on every one of `channels`."""
        self._ending.check()
        if self._ending.reached:
            raise ConfigError("the feed is closed")
        silent = [
            subscription
            for symbol in (self._wanted if symbols is None else symbols)
            for subscription, delivers in self._wanted.get(symbol, {}).items()
            if not delivers and (channels is None or subscription.channel in channels)
        ]
        for session in self._sessions:
            for record in session.book.at(Stage.REJECTED):
                if record.subscription in silent:
                    raise SubscriptionRejected(record.subscription.symbol, record.reason)
        return list(dict.fromkeys(subscription.symbol for subscription in silent))

    def _subscribed(self, symbol: str) -> str:
        found = ALL if symbol == ALL else self.provider.symbol_named(symbol)
        if found not in self._wanted:
            raise ConfigError(f"not subscribed to {symbol!r}; symbols are {', '.join(list(self._wanted)[:20])}")
        return found

    def _lags_ms(self, *quantiles: float) -> list[float]:
        lags = [seconds * 1e3 for seconds in self.decoder.lag_quantiles(*quantiles)]
        return lags if any(lags) else [math.nan] * len(lags)  # 0: no tick carried a time

    def _check_open(self) -> None:
        if self._closing is not None or self._ending.reached:
            raise ConfigError("the feed is closed")

    def _sweep(self) -> None:
        """Look, ten times a second or more, at what needs no attention in the read."""
        now = self._now()
        late = now - self._sweep_due
        interval = min(_SWEEP, self._staleness.interval)
        self._sweeper = asyncio.get_running_loop().call_later(interval, self._sweep)
        self._sweep_due = now + interval
        self._let_out()
        for connection in self._connections:
            connection.find_live()
        for shard in list(self._shards):
            shard.look()
        self._sweep_retired()
        if late > _STALLED:
            self._tell_stall(late)  # and silence is looked for next time: what speaks may still wait in the kernel
        elif self._staleness.watching:
            self._lookout.look(now, self._clock.utc_ns() / 1e9)
        self._lookout.keep()
        self._lookout.range()
        self._slowest = (0.0, "")
        if now >= self._traffic_due:
            self._traffic_due = now + _TRAFFIC
            self._look_at_traffic(now)
        self._tell()

    def _look_at_traffic(self, now: float) -> None:
        self._look_at_window()
        for connection in self._connections:
            connection.tell_traffic(judged=self._lookout.market_open)
        for stream in self._consumers:
            if isinstance(stream, Ticks):
                lost, told_at = self._lag_told.get(stream.name, (0, -math.inf))
                if stream.lost > lost and now >= told_at + _LAG_TOLD:
                    self._lag_told[stream.name] = stream.lost, now
                    cause = f"{stream.name} reads too slowly: {stream.lost - lost} ticks lost"
                    self.on_event(Alert("warning", cause, "do less in its loop, or raise ring_capacity="))

    def _look_at_window(self) -> None:
        if self._rotation is not None and self._rotation.window is not None:
            is_open = self._rotation.window.covers(self._clock.utc_ns() / 1e9)
            if is_open is not self._window_open:
                self._window_open = is_open
                for shard in list(self._shards):
                    shard.window(is_open)

    def _let_out(self) -> None:
        """What waited in vain for the other leg goes to the readers."""
        before = self.decoder.ring.published
        self.decoder.expire()
        if self.decoder.ring.published > before:
            self._data.ring()

    def _sweep_retired(self) -> None:
        for connection in [connection for connection in self._retired if connection.gone]:
            self._retired.remove(connection)
            for name, count in connection.counters().items():
                self._counted[name] += count

    def _tell_stall(self, seconds: float) -> None:
        took, name = self._slowest
        what = f"on_batch callback {name} took {took:.2f} s" if took > seconds / 2 else "something on it did not yield"
        cause = f"the event loop stood still for {seconds:.2f} s: {what}"
        self.on_event(Alert("warning", cause, "move slow work to a thread or another process"))

    def _tell(self) -> None:
        """Tell what the decoder has noticed since the last time."""
        self._repairs.sweep()
        counts = self.decoder.stats()
        if counts["refused_symbols"] > self._refused_told:
            self._refused_told = counts["refused_symbols"]
            cause = f"no row for {self.decoder.refused_symbol!r}: the table is full"
            self.on_event(Alert("warning", cause, "raise max_symbols="))

    def _callback_failed(self, callback: BatchCallback, error: Exception) -> None:
        self._counted["callbacks_failed"] += 1
        if callback.failed == 1:
            _LOG.error("on_batch callback %s failed", callback.name, exc_info=error)
        self.on_event(CallbackFailed(callback.name, f"{type(error).__name__}: {error}"))

    async def _run_beside(self, secondary: Feed) -> None:
        """Enter the secondary, whose failures are told and never this feed's own."""
        async with secondary.events() as told:
            try:
                await secondary.__aenter__()
            except FastFeedError as error:
                self.on_event(RedundancyLost(secondary.provider.name, str(error)))
                return
            try:
                async for event in told:
                    match event:
                        case Disconnected(connection, cause=cause):
                            self.on_event(RedundancyLost(f"{secondary.provider.name} {connection}", cause))
                        case Restored(duration):
                            self.on_event(RedundancyRegained(duration))
            except GaveUp as error:
                self.on_event(RedundancyLost(secondary.provider.name, str(error)))

    # Told by the shards --------------------------------------------------------------------------------------------

    def on_ticks(self) -> None:
        started = self._now()
        if started - self._sweep_due > _STALLED:
            self._lookout.doubt_backlog(round(self._sweep_due * 1e9))
        for callback in self._callbacks:
            callback.run()
            ended = self._now()
            self._slowest = max(self._slowest, (ended - started, callback.name))
            started = ended
        self._data.ring()

    def carrying(self, symbol: str, channel: str) -> list[tuple[Connection, Subscription]]:
        return self._lookout.carrying(symbol, channel)

    def on_event(self, event: Event) -> None:
        if isinstance(event, Restored):
            missing = self._still(event.missing)
            self._repairs.silent(wish for wish in missing if not self._wanted[wish.symbol][wish])
        utc = self._clock.utc_ns() / 1e9
        alert = alert_of(event)
        if alert is not None and alert.severity != "error" and self._staleness.muted(utc):
            if event is alert:
                return
            alert = None
        _LOG.log(event.level, "%s: %s", self.provider.name, event)
        for stream in self._consumers:
            if isinstance(stream, Events):
                stream.push(event)
        if alert is not None and self._on_alert is not None:
            told = {"severity": alert.severity, "cause": alert.cause, "feed": self.provider.name}
            try:
                self._on_alert({**told, "since": utc, "hint": alert.hint})
            except Exception:
                _LOG.exception("on_alert failed")

    def _still(self, subscriptions: Iterable[Subscription]) -> list[Subscription]:
        """Those still wanted: what an alert's callback has unsubscribed meanwhile is nobody's business."""
        return [wish for wish in subscriptions if wish in self._wanted.get(wish.symbol, ())]

    def on_lost(self, subscriptions: Iterable[Subscription]) -> None:
        lost = self._still(subscriptions)
        self._repairs.interrupt(lost, "reconnect")
        for subscription in lost:
            self._wanted[subscription.symbol][subscription] = False
            # Not fresh until it delivers again, whatever other connections deliver of the symbol.
            self._forget(subscription, Status.RECOVERING)
            self._lookout.stands(subscription, Status.RECOVERING)

    def on_forget(self, subscriptions: Iterable[Subscription]) -> None:
        asked = self._still(subscriptions)
        self._repairs.interrupt(asked, "resubscribe")
        for subscription in asked:
            self._wanted[subscription.symbol][subscription] = False
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
            wanted = self._wanted[subscription.symbol]
            wanted[subscription] = True
            self._lookout.stands(subscription, Status.LIVE)
            if subscription.symbol == ALL:
                continue
            if all(wanted.values()) and self._lookout.well(subscription.symbol):
                self.prices.set_status(subscription.symbol, Status.LIVE)
        self._repairs.delivered(list(subscriptions))

    def on_change(self, shard: Shard) -> None:
        failure = shard.failure
        if failure is not None and not self._ending.reached:
            self._end(failure)
            for other in self._shards:
                other.stop()
        self._mark()
        self._changed.ring()

    def on_retired(self, connection: Connection) -> None:
        self._retired.append(connection)

    def may_connect(self) -> bool:
        most = self.provider.limits.connections
        return most is None or len(self._connections) + len(self._retired) < most

    def overlap(self, begins: bool, leg: int) -> None:
        self._overlaps += 1 if begins else -1
        self.decoder.lead(leg)
        self.decoder.arbitrate(self._redundancy == 2 or self._overlaps > 0)

    def is_caught_up(self) -> bool:
        return self.decoder.deadline is None

    def now(self) -> float:
        return self._now()

    # The end -------------------------------------------------------------------------------------------------------

    def _end(self, failure: GaveUp | None = None) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._tell()
        self._repairs.close()
        for symbol in self.prices.symbols:
            self.prices.set_status(symbol, Status.CLOSED)
        self._ending.reach(failure)
        self._mark()
        self._data.ring()
        self._changed.ring()
        for stream in self._consumers:
            if isinstance(stream, Events):
                stream.end()

    async def _close(self) -> None:
        if self._beside is not None:
            self._beside.cancel()
        if self.secondary is not None:
            await self.secondary.close()
        for shard in self._shards:
            shard.stop()
        self._end()
        left = [*self._connections, *self._retired]
        with suppress(TimeoutError):
            await self._until(lambda: all(connection.gone for connection in left), self._close_timeout)
        for connection in left:
            connection.abort()


def _items(what: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str | Subscription):
        raise ConfigError(f"{what}={values!r}: write a list, [{values!r}]")
    try:
        return list(values)
    except TypeError:
        raise ConfigError(f"{what}={values!r}: write a list") from None


def _pair(given: str | Provider | Sequence[str | Provider], redundancy: int) -> tuple[Provider, Provider | None]:
    """The provider, and the second one if there are two."""
    if isinstance(given, str | Provider):
        return providers.provider(given), None
    both = [providers.provider(one) for one in _items("provider", given)]
    if len(both) == 1:
        return both[0], None
    if len(both) != 2 or redundancy != 2:
        raise ConfigError(f"provider={given!r}, redundancy={redundancy!r}: two providers are taken with redundancy=2")
    return both[0], both[1]


def _names(what: str, values: Iterable[str]) -> list[str]:
    names = _items(what, values)
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{what} holds {name!r}: write names as str")
    if not names:
        raise ConfigError(f"{what} is empty: name at least one")
    return names


def _expect(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise ConfigError(f"{name}={value!r}: must be a {kind.__name__}")


def _seconds(name: str, value: float | None) -> float | None:
    if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ConfigError(f"{name}={value!r}: must be a number of seconds above 0")
    return value
