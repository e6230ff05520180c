"""The hands of the ledger of gaps: it hears of holes, fetches what is missing, puts it in its place and tells what came
of it.

What to do next is decided in `gaps`, and what goes where in the decoder. It runs in sweeps, never in a read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from fastfeed import events, rest
from fastfeed._core import Clock, Decoder
from fastfeed.backoff import retry_after
from fastfeed.connection import Connection
from fastfeed.errors import ConfigError, ConnectError
from fastfeed.gaps import (
    SHUT_FOR,
    Answer,
    Fetch,
    Fetched,
    Key,
    Ledger,
    Plan,
    Recovery,
    Repaired,
    Replay,
    Resubscribe,
    Strategy,
    Unrepaired,
    Verdict,
)
from fastfeed.providers import Provider, Recipe
from fastfeed.records import Flag, Gap
from fastfeed.signals import Resubscribe as AskAnew
from fastfeed.signals import Say
from fastfeed.subscriptions import ALL, Subscription

GAPS_KEPT = 65_536  # newest gaps remembered, as in the decoder
_NAMED = 10  # streams an alert calls by name

_RECIPE = Recipe()
_NO_PLAN = Plan()
_VERDICTS = {
    "repaired": (Verdict.REPAIRED, ""),
    "missing": (Verdict.MISSING, "the answer lacks some of what is missing"),
    "too old": (Verdict.TOO_OLD, "the snapshot is older than the stream"),
    "unreadable": (Verdict.FAILED, "the answer holds nothing of it"),
    "overflowed": (Verdict.OVERFLOWED, "no room for the ticks that had to wait"),
    "not held": (Verdict.OVERFLOWED, "the stream went on without it"),
}


@dataclass(frozen=True)
class Break:
    """Where a stream was interrupted: why, its last arrival (UTC, ns; 0: none) and its last number, if they count."""

    cause: str
    from_ns: int
    number: int | None


class Owner(Protocol):
    """What the repairs need of the feed they work for."""

    def on_event(self, event: events.Event) -> None:
        """Something to tell the user."""

    def on_ticks(self) -> None:
        """There are ticks, or rows have changed."""

    def carrying(self, symbol: str, channel: str, *, every: bool = False) -> list[tuple[Connection, Subscription]]:
        """The subscriptions to a stream, with the connection to ask about each, or `every` one that it comes by."""

    def subscriptions(self) -> list[Subscription]:
        """All that are wanted."""


class Repairs:
    """All gaps of a feed. `root` replaces the provider's HTTP host; `tls` is the user's context, if there is one.

    `headers` gives those that a request has to show.

    Raises:
        ConfigError: only HTTP is allowed, and there is none.
    """

    def __init__(
        self,
        owner: Owner,
        provider: Provider,
        decoder: Decoder,
        options: Recovery,
        *,
        root: str | None,
        headers: Callable[[], Mapping[str, str]],
        tls: ssl.SSLContext | None,
        clock: Clock,
    ) -> None:
        self._owner = owner
        self._provider = provider
        self._decoder = decoder
        self._prices = decoder.prices
        self._options = options
        self._root = provider.rest if root is None else root
        self._headers = headers
        self._tls = tls
        self._clock = clock
        self._fetches = rest.is_possible() and bool(self._root)
        if options.strategy is Strategy.REST and not rest.is_possible():
            raise ConfigError("Recovery(strategy=Strategy.REST) needs the http extra: pip install 'fastfeed[http]'")
        plans = {
            channel: provider.recovery.get(channel, _RECIPE).plan(options, fetches=self._fetches)
            for channel in provider.channels
        }
        self._plans = plans
        self._ledger = Ledger(options, plans, provider.rest_weight_per_minute)
        for channel, plan in plans.items():
            if {Strategy.REST, Strategy.REPLAY}.intersection(plan.ways) and plan.fetched is not Fetched.LAST:
                decoder.hold_at_gaps(channel)
        messages = [message for message in provider.schema.messages if message.kind != "control"]
        rules = [(message.channel or message.kind, message.rule, message.kind) for message in messages]
        # Where the numbers themselves show what an interruption has cost.
        self._numbered = {channel for channel, rule, _ in rules if rule in ("contiguous", "range", "linked")}
        self._counted = {channel for channel, rule, _ in rules if rule == "connection"}
        self._priced = {channel for channel, _, kind in rules if kind in ("quote", "trade")}
        self._gaps: deque[Gap] = deque(maxlen=GAPS_KEPT)
        self._looked = 0  # gaps of the decoder's that have been told
        self._breaks: dict[Key, Break] = {}  # of streams that have not delivered since
        self._flagged: dict[str, set[Key]] = defaultdict(set)  # by symbol: why its row is flagged
        self._doubted: dict[Key, Gap] = {}  # asked anew, and what may have swallowed their new beginning
        self._failed: set[Key] = set()  # those of them nothing more is done about
        self._alerted: set[Key] = set()  # of those that were told as unrepaired, and are still
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # What the feed tells -------------------------------------------------------------------------------------------

    def begin(self, subscriptions: Iterable[Subscription]) -> None:
        """These are wanted from now on."""
        for subscription in subscriptions:
            key = _key(subscription)
            if subscription.symbol != ALL:
                self._breaks[key] = Break("start", 0, self._decoder.newest(*key))

    def interrupt(self, subscriptions: Sequence[Subscription], cause: str) -> None:
        """These are cut off by `cause` ("reconnect", "resubscribe"). Called before their arrivals are forgotten."""
        self.look()
        behind = self._clock.utc_ns() - self._clock.mono_ns()
        arrived = self._arrived(subscriptions)
        for subscription in subscriptions:
            key = _key(subscription)
            arrivals = arrived[subscription.channel]
            if subscription.symbol == ALL:
                at, number = int(arrivals.max(initial=0)), None
            else:
                row = self._prices.id(subscription.symbol)
                at, number = 0 if row is None else int(arrivals[row]), self._decoder.newest(*key)
            if at:
                self._breaks[key] = Break(cause, at + behind, number)
            lost = cause == "reconnect"
            for one in self._parts(key):
                self._ledger.begun(one, lost=lost)
                if lost and self._doubted.pop(one, None) is not None and one not in self._ledger:
                    self._settled(one)
            if lost:
                self._doubted.pop(key, None)

    def delivered(self, subscriptions: Sequence[Subscription]) -> None:
        """These deliver since they were begun or interrupted."""
        self.look()
        now = self._now()
        behind = self._clock.utc_ns() - self._clock.mono_ns()
        arrived = self._arrived(subscriptions)
        for subscription in subscriptions:
            key = _key(subscription)
            broken = self._breaks.pop(key, None)
            if key[0] == ALL and (doubt := self._doubted.pop(key, None)) is not None:
                for place in arrived[key[1]].nonzero()[0].tolist():
                    self._doubted.setdefault((self._prices.symbols[place], key[1]), doubt)
            for one in self._parts(key):
                # Where another connection delivers too, only the ledger knows of a new beginning. And what it has just
                # heard of, in the first messages of this one, they have not mended.
                awaited = self._ledger.awaits(one)
                if broken is None and not awaited:
                    continue
                if one in self._doubted:
                    self._doubt(one, self._doubted.pop(one), now)
                    continue
                if awaited:
                    self._ledger.delivered(one, now)
                if one in self._alerted and one not in self._ledger:
                    self._settled(one)
            if broken is None:
                continue
            recipe = self._provider.recovery.get(subscription.channel, _RECIPE)
            is_whole = any(name in recipe.whole for name, _ in subscription.params)
            if broken.cause == "start":
                if recipe.fetched is Fetched.SNAPSHOT and not is_whole:
                    self._ledger.wants(key, now)
            elif broken.from_ns and (is_whole or subscription.channel not in self._numbered):
                arrivals = arrived[subscription.channel]
                row = self._prices.id(subscription.symbol)
                at = int(arrivals.max() if row is None else arrivals[row])
                utc_ns = self._clock.utc_ns()
                self._tell(Gap(key[1], key[0], 0, -1, utc_ns, "window", broken.from_ns, at + behind))
        self._take(now, anew=False)

    def _arrived(self, subscriptions: Sequence[Subscription]) -> Mapping[str, NDArray[np.int64]]:
        """When each symbol last arrived, by the channels of these: read once, as it costs every row."""
        return {channel: self._prices.arrived(channel) for channel in {one.channel for one in subscriptions}}

    def silent(self, subscriptions: Iterable[Subscription]) -> None:
        """These have not come back after a redial: what can be had of them is fetched."""
        for subscription in subscriptions:
            if subscription.symbol != ALL and self._plan(subscription.channel).fetched is Fetched.LAST:
                self._ledger.wants(_key(subscription), self._now())

    def refresh(self, subscriptions: Iterable[Subscription]) -> bool:
        """Fetch snapshots and last values of these, where there are any; whether there were."""
        found = False
        for subscription in subscriptions:
            plan = self._plan(subscription.channel)
            if subscription.symbol != ALL and Strategy.REST in plan.ways and plan.fetched is not Fetched.MISSING:
                self._ledger.wants(_key(subscription), self._now())
                found = True
        return found

    def drop(self, subscription: Subscription) -> None:
        """Nobody wants it any more."""
        key = _key(subscription)
        self._breaks.pop(key, None)
        self._doubted.pop(key, None)
        for one in self._parts(key):
            self._ledger.drop(one)
            self._doubted.pop(one, None)
            self._release(one)
            self._settled(one)

    def gaps(self) -> list[Gap]:
        """The newest gaps, oldest first."""
        return [*self._gaps, *self._decoder.gaps(since=self._looked)]

    def sweep(self) -> None:
        """Look for gaps and do what is due."""
        self.look()
        now = self._now()
        for key in self._ledger.replaying():
            self._ledger.replayed(key, self._decoder.missing(*key), now)
        flags = self._prices.array["flags"]
        for key in [key for key in self._failed if not flags[self._prices.id(key[0])] & Flag.AFTER_GAP]:
            self._settled(key)  # cleared by hand
        self._take(now)

    def close(self) -> None:
        """Let go of everything that is still on its way."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    # Inside --------------------------------------------------------------------------------------------------------

    def _parts(self, key: Key) -> list[Key]:
        """The streams under repair that a subscription to `key` carries: of a whole channel, any of its symbols."""
        if key[0] != ALL:
            return [key]
        kept = dict.fromkeys((*self._ledger.keys(), *self._alerted, *self._doubted))
        return [one for one in kept if one[1] == key[1] and one[0] != ALL]

    def _plan(self, channel: str) -> Plan:
        return self._plans.get(channel, _NO_PLAN)

    def _now(self) -> float:
        return self._clock.mono_ns() / 1e9

    def look(self) -> None:
        """Tell the gaps the decoder has found since the last time."""
        found = self._decoder.gaps(since=self._looked)
        if not found:
            return
        self._looked = self._decoder.stats()["gaps"]
        now = self._now()
        fresh = set()
        shaken: Gap | None = None
        for gap in found:
            if not gap.symbol:
                self._tell(gap)
                shaken = shaken or gap
                continue
            key = gap.symbol, gap.stream
            whole = self._breaks.get((ALL, gap.stream))
            broken = whole or self._breaks.get(key)
            wanted = bool(self._owner.carrying(*key))
            if broken is not None and (broken is whole or broken.number == gap.first - 1):
                # The stream has just begun anew, so that its prices are as good as any.
                to_ns = gap.recv_ns if broken.from_ns else 0
                gap = gap._replace(cause=broken.cause, from_ns=broken.from_ns, to_ns=to_ns)
            afresh = gap.cause != "sequence"
            if afresh or not wanted:
                fresh.add(gap.symbol)
            elif gap.stream in self._priced:
                self._flagged[gap.symbol].add(key)
            self._tell(gap)
            if gap.cause == "start" or not wanted:
                self._release(key)  # nobody has asked for what is missing
                continue
            if self._plan(gap.stream).fetched is Fetched.SNAPSHOT and len(self._ledger) >= self._options.in_flight:
                self._release(key)  # it has to queue; once it is fetched it is held again
            self._ledger.found(gap, now, afresh=afresh)
        if shaken is not None:
            self._shaken(shaken, now)
            symbols = self._prices.symbols
            rows: list[int] = (self._prices.array["flags"] & Flag.AFTER_GAP).nonzero()[0].tolist()
            fresh.update(symbols[row] for row in rows)
        for symbol in fresh:
            self._clear(symbol)  # unless there is a reason to doubt it

    def _shaken(self, gap: Gap, now: float) -> None:
        """A hole in what a whole connection counts: any stream so counted may be the one that misses something."""
        counted = [wish for wish in self._owner.subscriptions() if wish.channel in self._counted]
        arrived = self._arrived(counted)
        symbols = self._prices.symbols
        for wish in counted:
            mine = [wish.symbol]
            begins = _key(wish) in self._breaks
            if wish.symbol == ALL:
                mine = [symbols[row] for row in arrived[wish.channel].nonzero()[0].tolist()]
                if begins:
                    self._doubted[_key(wish)] = gap
            for symbol in mine:
                key = symbol, wish.channel
                if begins or self._ledger.awaits(key):
                    self._doubted[key] = gap
                    broken = self._breaks.get(key)
                    if key[1] in self._priced and (broken is None or broken.from_ns):  # else it has never delivered
                        self._flagged[symbol].add(key)
                else:
                    self._doubt(key, gap, now)

    def _doubt(self, key: Key, gap: Gap, now: float) -> None:
        if key[1] in self._priced:
            self._flagged[key[0]].add(key)
        self._ledger.missed(gap._replace(symbol=key[0], stream=key[1]), now)

    def _release(self, key: Key) -> None:
        if self._decoder.release(*key).ticks:
            self._owner.on_ticks()

    def _tell(self, gap: Gap) -> None:
        self._gaps.append(gap)
        self._owner.on_event(events.Gap(gap))

    def _settled(self, key: Key) -> None:
        """The row need not be flagged because of this stream."""
        self._failed.discard(key)
        self._alerted.discard(key)
        if key in self._flagged.get(key[0], ()):
            self._flagged[key[0]].discard(key)
            self._clear(key[0])

    def _clear(self, symbol: str) -> None:
        if not self._flagged.get(symbol):
            self._flagged.pop(symbol, None)
            self._prices.repaired(symbol)

    def _take(self, now: float, *, anew: bool = True) -> None:
        """Do what the ledger says; `anew`: see `Ledger.steps`."""
        if self._closed:
            return
        unrepaired: dict[str, list[Unrepaired]] = {}
        asked: dict[Connection, list[Subscription]] = {}
        for step in self._ledger.steps(now, anew=anew):
            if isinstance(step, Fetch | Replay) and step.key not in self._ledger:
                continue  # an alert's callback has unsubscribed from it meanwhile
            match step:
                case Fetch(key):
                    self._decoder.hold(*key)
                    task = asyncio.get_running_loop().create_task(self._fetch(step))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                case Replay(key, first, last):
                    self._decoder.hold(*key)
                    self._replay(key, first, last)
                case Resubscribe(key):
                    self._release(key)
                    # Of shared numbers nobody knows which of two legs a row has followed: it begins anew on both.
                    for connection, subscription in self._owner.carrying(*key, every=key[1] in self._counted):
                        asked.setdefault(connection, []).append(subscription)
                case Repaired(key, gap, how, seconds):
                    self._release(key)
                    # What was given up before is mended by a new beginning only.
                    if key not in self._failed or how is Strategy.RESUBSCRIBE:
                        self._settled(key)
                    if gap is not None:
                        self._owner.on_event(events.GapRepaired(gap, how.value, seconds))
                case Unrepaired(key, gap, reason, tried):
                    self._release(key)
                    if key in self._flagged.get(key[0], ()):
                        self._failed.add(key)
                    matters = key in self._failed or (gap and self._plan(key[1]).fetched is Fetched.SNAPSHOT)
                    if (tried or matters) and key not in self._alerted:
                        self._alerted.add(key)
                        unrepaired.setdefault(reason, []).append(step)
        for connection, subscriptions in asked.items():
            connection.handle(AskAnew(tuple(subscriptions)))
        for reason, steps in unrepaired.items():
            self._alert(reason, steps)

    def _alert(self, reason: str, steps: Sequence[Unrepaired]) -> None:
        named = ", ".join(f"{step.key[1]} of {step.key[0]}" for step in steps[:_NAMED])
        more = f" and {len(steps) - _NAMED} more" if len(steps) > _NAMED else ""
        what = "gap unrepaired" if any(step.gap is not None for step in steps) else "no snapshot"
        hint = "feed.prices.repaired(symbol) clears the flag of a row by hand"
        if not self._fetches and any(self._provider.recovery.get(step.key[1], _RECIPE).path for step in steps):
            hint = "pip install 'fastfeed[http]' lets it be fetched; " + hint
        self._owner.on_event(events.Alert("warning", f"{what}: {named}{more}: {reason}", hint))

    def _replay(self, key: Key, first: int, last: int) -> None:
        replay = self._provider.recovery[key[1]].replay
        assert replay is not None, "planned only where there is one"
        for connection, subscription in self._owner.carrying(*key):
            connection.handle(Say(replay(self._provider.topic(subscription), first, last)))

    async def _fetch(self, step: Fetch) -> None:
        recipe = self._provider.recovery[step.key[1]]
        assert recipe.path is not None, "planned only where there is one"
        symbol = quote(step.key[0], safe="")
        path = recipe.path.format(symbol=symbol, lower=symbol.lower(), first=step.first, last=step.last)
        try:
            reply = await rest.ask(
                "GET", self._root + path, headers=self._headers(), timeout=self._options.timeout, tls=self._tls
            )
        except ConnectError as error:
            answer = Answer(Verdict.FAILED, error.message())
        else:
            answer = self._read(step.key, recipe, reply)
        now = self._now()
        if step.key not in self._ledger:
            self._release(step.key)
        self._ledger.fetched(step.key, answer, now)
        self._take(now)

    def _read(self, key: Key, recipe: Recipe, reply: rest.Answer) -> Answer:
        if reply.status == 200:
            assert recipe.schema is not None, "path and schema go together"
            self.look()  # what it fills must be known, or it would be asked for again
            spliced = self._decoder.splice(*key, reply.body, recipe.schema)
            self._owner.on_ticks()
            verdict, reason = _VERDICTS[spliced.outcome]
            first, last = (0, -1) if spliced.first is None or spliced.last is None else (spliced.first, spliced.last)
            return Answer(verdict, reason, first, last)
        said = f"HTTP {reply.status}"
        wait = retry_after(reply.headers.get("retry-after", ""), self._clock.utc_ns() / 1e9)
        if reply.status in (418, 429):
            return Answer(Verdict.FAILED, said, retry_after=SHUT_FOR if wait is None else wait)
        if reply.status >= 500 or reply.status == 408:
            return Answer(Verdict.FAILED, said, retry_after=wait)
        return Answer(Verdict.HOPELESS, said)


def _key(subscription: Subscription) -> Key:
    return subscription.symbol, subscription.channel
