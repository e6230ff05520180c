"""The public face of live data: what is wanted, who reads it, and how it stands.

It checks what users ask for and hands it to the engine inside. It decides nothing that a session can decide, and
touches no socket.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import random
import ssl as tls
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from fastfeed import providers
from fastfeed._core import Clock, PriceTable
from fastfeed.backoff import Backoff
from fastfeed.confirm import Confirmation, confirmation, translated
from fastfeed.credentials import Given
from fastfeed.decoder import Decoder
from fastfeed.endpoint import Endpoint
from fastfeed.engine import Engine
from fastfeed.errors import ConfigError, ConnectError, FastFeedError, GaveUp, StaleError
from fastfeed.events import Disconnected, RedundancyLost, RedundancyRegained, Restored
from fastfeed.gaps import Recovery
from fastfeed.heartbeat import Heartbeat
from fastfeed.providers import Provider
from fastfeed.records import Gap, Status
from fastfeed.rotation import Rotation
from fastfeed.session import State
from fastfeed.staleness import Staleness
from fastfeed.streams import BatchCallback, Batches, Events, Records, Ticks
from fastfeed.subscriptions import ALL, Stage, Subscription

_LOG = logging.getLogger("fastfeed")

_PERCENTILES = ("p50", "p90", "p99", "max")


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
        addresses: list[Any] = list(url) if isinstance(url, list | tuple) else [url]
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
        clock = clock if clock is not None else Clock()
        shared = second is not None and bool(second.numbering) and second.numbering == self.provider.numbering
        if shared and second is not None and second.schema is not self.provider.schema:
            raise ConfigError(f"{second.name} and {self.provider.name} share a numbering, but not a schema")

        def endpoint(dialled: Provider, address: str | None) -> Endpoint:
            return Endpoint(
                dialled,
                url=address,
                tls=ssl,
                api_key=api_key,
                credentials=credentials,
                receive_buffer=receive_buffer,
                max_message=max_message,
                clock=clock,
            )

        first = endpoint(self.provider, addresses[0])
        endpoints = (first, endpoint(second, addresses[-1]) if second is not None and shared else first)
        self.secondary: Feed | None = None
        if second is not None and not shared:
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
        self._connect_timeout = _seconds("connect_timeout", connect_timeout)
        self._close_timeout = _seconds("close_timeout", close_timeout)
        self._entered = False
        self._closing: asyncio.Task[None] | None = None
        self._engine = Engine(
            self.provider,
            endpoints,
            heartbeat=heartbeat,
            backoff=backoff,
            staleness=staleness,
            recovery=recovery,
            rotation=rotation,
            redundancy=redundancy,
            ssl=ssl,
            on_alert=on_alert,
            ring_capacity=ring_capacity,
            max_symbols=65536 if max_symbols is None else max_symbols,
            clock=clock,
            rng=rng if rng is not None else random.Random(),
        )
        self._readers = self._engine.readers
        self._engine.add(wishes)

    # Reading -------------------------------------------------------------------------------------------------------

    @property
    def decoder(self) -> Decoder:
        """What the frames go through: its ring, its counters."""
        return self._engine.decoder

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
        return self._engine.repairs.gaps()

    def batches(self, *, window: float = 0.0, max_age: float | None = None, name: str | None = None) -> Batches:
        """Conflated batches, each an owned array of PRICE_DTYPE: the newest row of every symbol that changed.

        `window=0` delivers at the end of each socket read, otherwise at most every `window` seconds. Rows older than
        `max_age` seconds when they would be delivered are dropped and counted.
        """
        if window != 0:
            _seconds("window", window)
        reader = self.prices.reader(max_age=_seconds("max_age", max_age))
        return self._readers.keep(
            Batches(self._readers.named("batches", name), self._readers.bell, self._readers.ending, reader, window)
        )

    def ticks(self, *, name: str | None = None) -> Ticks:
        """Every tick in order, in owned arrays of TICK_DTYPE. A reader that is lapped loses the oldest, counted."""
        return self._readers.keep(
            Ticks(
                self._readers.named("ticks", name), self._readers.bell, self._readers.ending, self.decoder.ring.reader()
            )
        )

    def events(self, *, name: str | None = None) -> Events:
        """What happens to the feed from now on: the types of `fastfeed.events`."""
        return self._readers.keep(Events(self._readers.named("events", name), self._readers.ending))

    def on_batch(
        self, callback: Callable[[Records], Any], *, max_age: float | None = None, name: str | None = None
    ) -> BatchCallback:
        """Call `callback(rows)` in the socket read, synchronously; `rows` is valid only until it returns.

        An exception in it is caught, counted and told as CallbackFailed. `.cancel()` on what is returned ends it.
        """
        if not callable(callback) or inspect.iscoroutinefunction(callback):
            raise ConfigError(f"on_batch takes a plain function, not {callback!r}: use batches() to await")
        return self._readers.callback(callback, self.prices.reader(max_age=_seconds("max_age", max_age)), name)

    def refresh(self, symbols: Iterable[str] | None = None, *, channels: Iterable[str] | None = None) -> None:
        """Fetch anew, over HTTP, the depth snapshots and last quotes of `symbols` on `channels` (None: all).

        They go to the ring flagged SNAPSHOT, each in its place in its stream: for a reader of `ticks()` that has just
        come. A depth stream's first snapshot, and those after a gap, are fetched without being asked for.

        Raises:
            ConfigError: there is nothing to fetch for any of them, or no way to.
        """
        self._check_open()
        wanted = self._engine.wanted
        names = list(wanted) if symbols is None else [self._subscribed(symbol) for symbol in _items("symbols", symbols)]
        only = None if channels is None else [self.provider.channel_named(c) for c in _names("channels", channels)]
        wished = [wish for name in names for wish in wanted[name] if only is None or wish.channel in only]
        if not self._engine.repairs.refresh(wished):
            raise ConfigError("nothing of this can be fetched: see the provider's `recovery`, and the http extra")

    # What is wanted ------------------------------------------------------------------------------------------------

    def subscribe(self, symbols: Iterable[str | Subscription], *, channels: Iterable[str] | None = None) -> None:
        """Wish for more, on `channels` or those of the feed. While disconnected it is recorded and sent on return.

        Raises:
            ConfigError: for what the provider does not have, or when the table is full.
        """
        self._check_open()
        symbols = _items("symbols", symbols)
        self._engine.add(self._wishes(symbols, self._channels if channels is None else _names("channels", channels)))
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
                dropped += list(self._engine.wanted.get(symbol, {})) or [Subscription(symbol, "any channel")]
        self._engine.drop(dropped)

    @property
    def subscriptions(self) -> dict[Subscription, str]:
        """Every subscription and how far it has come: wanted, requested, acked, live or rejected."""
        return {record.subscription: record.stage.value for shard in self._engine.shards for record in shard.records}

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

    # Life ----------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ConfigError("a feed is entered once: make a new Feed")
        self._entered = True
        for danger in self._dangers:
            _LOG.warning("%s: %s", self.provider.name, danger)
        self._engine.start()
        if self.secondary is not None:
            self._beside = asyncio.create_task(self._run_beside(self.secondary))
        give_up_at = math.inf if self._connect_timeout is None else self._engine.now() + self._connect_timeout
        try:
            await self._engine.until(lambda: self._engine.settled(give_up_at), self._connect_timeout)
        except TimeoutError:
            error = next((session.error for session in self._engine.sessions if session.error is not None), None)
            if error is None:
                waiting = sum(len(session.book.at(Stage.WANTED, Stage.REQUESTED)) for session in self._engine.sessions)
                cause = f"{waiting} of {len(self.subscriptions)} subscriptions not acked in {self._connect_timeout} s"
                error = ConnectError(self._engine.endpoints[0].host, cause)
            await self.close()
            raise error from None
        except BaseException:
            await self.close()
            raise
        self._engine.came_up()
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
            await self._engine.until(lambda: not self._engine.silent(names, only), timeout)
        except TimeoutError:
            raise StaleError(self._engine.silent(names, only), f"no data within {timeout} s") from None

    @property
    def state(self) -> str:
        """CONNECTING, LIVE, RECOVERING, WAITING, CLOSED or FAILED."""
        return self._engine.state

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
        stats.update(self._engine.counts())
        stats["connections"] = sum(session.state is State.OPEN for session in self._engine.sessions)
        pulses = [pulse for session in self._engine.sessions for pulse in (session.pulse, session.app_pulse)]
        trips = [trip for pulse in pulses for trip in pulse.round_trips]
        rtt = np.percentile(trips, [50, 90, 99, 100]) if trips else np.full(4, math.nan)
        stats["rtt_ms"] = dict(zip(_PERCENTILES, (rtt * 1e3).tolist(), strict=True))
        stats["lag_ms"] = dict(zip(_PERCENTILES, self._lags_ms(0.5, 0.9, 0.99, 1.0), strict=True))
        stats["consumers"] = {consumer.name: consumer.ledger() for consumer in self._readers}
        stats["legs"] = []
        if self._engine.redundancy == 2:
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
        state, since = self._engine.stood
        wished = self._engine.wanted
        rows = {symbol: self.prices.id(symbol) for symbol in wished}
        if (seconds := _seconds("max_age", max_age)) is None:
            fresh = np.isin(self.prices.array["status"], (Status.LIVE, Status.QUIET))
        else:
            fresh = self.prices.fresh(seconds)
        channels = {subscription.channel for wanted in wished.values() for subscription in wanted}
        ages = {channel: np.nan_to_num(self.prices.ages(channel), nan=math.inf) for channel in channels}
        silences = [
            (float(ages[key.channel][rows[name]]), name) for name, keys in self._engine.wanted.items() for key in keys
        ]
        age, oldest = max(silences, default=(math.inf, None))
        count = sum(bool(fresh[row]) for row in rows.values())
        lag = self._lags_ms(0.5)[0]
        sessions = self._engine.sessions
        errors = [self._readers.ending.failure, *(session.error for session in sessions)]
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
            "reconnects": self._engine.counts()["reconnects"],
            "error": next((str(error) for error in errors if error is not None), None),
        }

    def __repr__(self) -> str:
        status = self.prices.array["status"]
        live = np.count_nonzero((status == Status.LIVE) | (status == Status.QUIET))
        stale = np.count_nonzero((status == Status.SUSPECT) | (status == Status.STALE))
        total = len(status) if ALL in self._engine.wanted else len(self._engine.wanted)
        return (
            f"<Feed {self.provider.name} {self.state}, {live}/{total} symbols live, {stale} stale, "
            f"{self.decoder.stats()['gaps']} gaps, lag {self._lags_ms(0.5)[0]:.1f} ms>"
        )

    # Inside --------------------------------------------------------------------------------------------------------

    def _subscribed(self, symbol: str) -> str:
        found = ALL if symbol == ALL else self.provider.symbol_named(symbol)
        if found not in self._engine.wanted:
            raise ConfigError(f"not subscribed to {symbol!r}; symbols are {', '.join(list(self._engine.wanted)[:20])}")
        return found

    def _lags_ms(self, *quantiles: float) -> list[float]:
        lags = [seconds * 1e3 for seconds in self.decoder.lag_quantiles(*quantiles)]
        return lags if any(lags) else [math.nan] * len(lags)  # 0: no tick carried a time

    def _check_open(self) -> None:
        if self._closing is not None or self._readers.ending.reached:
            raise ConfigError("the feed is closed")

    async def _run_beside(self, secondary: Feed) -> None:
        """Enter the secondary, whose failures are told and never this feed's own."""
        async with secondary.events() as told:
            try:
                await secondary.__aenter__()
            except FastFeedError as error:
                self._engine.on_event(RedundancyLost(secondary.provider.name, str(error)))
                return
            try:
                async for event in told:
                    match event:
                        case Disconnected(connection, cause=cause):
                            self._engine.on_event(RedundancyLost(f"{secondary.provider.name} {connection}", cause))
                        case Restored(duration):
                            self._engine.on_event(RedundancyRegained(duration))
            except GaveUp as error:
                self._engine.on_event(RedundancyLost(secondary.provider.name, str(error)))

    async def _close(self) -> None:
        if self._beside is not None:
            self._beside.cancel()
        if self.secondary is not None:
            await self.secondary.close()
        await self._engine.stop(self._close_timeout)


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
