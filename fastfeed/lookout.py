"""The feed's eye on silence: it reads arrivals in the price table, tells the sessions, and keeps each row's status.

What to do about silence is the sessions' business. It runs a few times a second, never in a read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from fastfeed._core import PriceTable
from fastfeed.connection import Connection
from fastfeed.legs import Shard
from fastfeed.records import Status
from fastfeed.signals import Heard, Silent
from fastfeed.staleness import PATIENCE, Span, Staleness, Standing
from fastfeed.subscriptions import ALL, Stage, Subscription


class Lookout:
    """Who carries what, and what it is worth. `hours` is when the market is open; None: always.

    With two legs the silence of each is looked for apart.
    """

    def __init__(self, prices: PriceTable, options: Staleness, hours: Span | None, *, legs: int = 1) -> None:
        self._prices = prices
        self._options = options
        self._hours = hours
        self._legs: tuple[int | None, ...] = (0, 1) if legs == 2 else (None,)
        self._home: dict[Subscription, Shard] = {}
        self._whole: dict[str, Shard] = {}  # by channel: where all its symbols come from
        self._ranged = 0  # rows that have been told what they need, for the sake of whole channels
        self._channels: Counter[str] = Counter()
        self._wishes: dict[str, list[Subscription]] = {}  # by symbol
        self._standing: dict[str, dict[Subscription, Status]] = {}  # by symbol: of what is not LIVE
        # By leg: what fell silent while the market was closed.
        self._resting: dict[int | None, set[Subscription]] = {leg: set() for leg in self._legs}
        self._rested_until = math.inf  # monotonic seconds: when those still resting after the opening are too late
        self.market_open = True

    def __contains__(self, subscription: Subscription) -> bool:
        return subscription in self._home or subscription.channel in self._whole

    def carry(self, subscriptions: Iterable[Subscription], shard: Shard) -> None:
        """From now on `shard` is where these come from."""
        for subscription in subscriptions:
            self._home[subscription] = shard
            self._channels[subscription.channel] += 1
            self._wishes.setdefault(subscription.symbol, []).append(subscription)
            if subscription.symbol == ALL:
                self._whole[subscription.channel] = shard
                self._ranged = 0

    def carrying(self, symbol: str, channel: str, *, every: bool = False) -> list[tuple[Connection, Subscription]]:
        """The subscriptions to this stream, with the connection to ask about each, or `every` one that it comes by."""
        wishes = [*self._wishes.get(symbol, ()), *self._wishes.get(ALL, ())]
        found = [(self._home[wish], wish) for wish in wishes if wish.channel == channel]
        return [(one, wish) for home, wish in found for one in (home.connections if every else [home.spokesman])]

    def drop(self, subscription: Subscription) -> None:
        """Nobody wants it any more."""
        self.stands(subscription, Status.LIVE)
        for resting in self._resting.values():
            resting.discard(subscription)
        del self._home[subscription]
        if subscription.symbol == ALL:
            del self._whole[subscription.channel]
            self._ranged = 0
        self._channels -= Counter([subscription.channel])  # which leaves no zeros
        self._wishes[subscription.symbol].remove(subscription)

    def stands(self, subscription: Subscription, status: Status) -> None:
        """What one subscription is worth; a row has the worst of its subscriptions' standings."""
        if subscription.symbol == ALL:
            return  # its rows stand for themselves
        symbol = subscription.symbol
        marks = self._standing.setdefault(symbol, {})
        if status is Status.LIVE:
            marks.pop(subscription, None)
        else:
            marks[subscription] = status
        if marks:
            self._prices.set_status(symbol, max(marks.values()))
        else:
            del self._standing[symbol]

    def well(self, symbol: str) -> bool:
        """Nothing of the symbol stands worse than LIVE."""
        return symbol not in self._standing

    def judge(self, subscription: Subscription, standing: Standing) -> None:
        """The session's judgement. LIVE again is the whole row if nothing else of it stands worse."""
        self.stands(subscription, Status[standing.name])
        if subscription.symbol != ALL and self.well(subscription.symbol):
            self._prices.set_status(subscription.symbol, Status.LIVE)

    def keep(self) -> None:
        """Hold the standings against what other channels deliver, which makes their rows LIVE."""
        for symbol, marks in self._standing.items():
            if len(self._wishes.get(symbol, ())) + len(self._whole) > 1:
                self._prices.set_status(symbol, max(marks.values()))

    def range(self) -> None:
        """Rows that come up as parts of whole channels are fresh only if all that is wanted of them is."""
        symbols = self._prices.symbols
        if self._whole and self._ranged < len(symbols):
            for row in range(self._ranged, len(symbols)):
                wished = {wish.channel for wish in self._wishes.get(symbols[row], ())}
                self._prices.require(symbols[row], wished | set(self._whole))
            self._ranged = len(symbols)

    def rows_of(self, channel: str) -> list[str]:
        """The symbols that came up as parts of the whole channel."""
        symbols = self._prices.symbols
        rows = np.flatnonzero(self._prices.arrived(channel)).tolist()
        return [symbols[row] for row in rows if Subscription(symbols[row], channel) not in self._home]

    def look(self, now: float, utc: float) -> None:
        """Tell the sessions who has fallen silent and who is heard again, at `now` (monotonic) and `utc` seconds."""
        was_open, self.market_open = self.market_open, self._hours is None or self._hours.covers(utc)
        if self.market_open and not was_open:
            self._rested_until = now + self._options.longest
        for leg in self._legs:
            for channel in list(self._channels):  # an alert's callback may unsubscribe meanwhile
                self._look_at(channel, leg, now)
        if now >= self._rested_until:
            self._rested_until = math.inf
            for leg in self._legs:
                late, self._resting[leg] = self._resting[leg], set()
                for channel in {subscription.channel for subscription in late}:
                    self._tell_silent(channel, leg, [key for key in late if key.channel == channel], now)

    def _look_at(self, channel: str, leg: int | None, now: float) -> None:
        options = self._options
        fallen, heard = self._prices.sweep(
            channel,
            threshold=options.threshold,
            factor=options.factor,
            floor=options.floor,
            ceiling=options.ceiling,
            leg=leg,
        )
        speaking = self._wished(channel, heard)
        self._resting[leg].difference_update(speaking)
        for connection, group in self._by_home(speaking, leg).items():
            connection.handle(Heard(tuple(group)))
        if fallen:
            self._tell_silent(channel, leg, self._wished(channel, fallen), now)

    def doubt_backlog(self, since_ns: int) -> None:
        """Rows that arrived after `since_ns` (monotonic) without a time of the provider's are SUSPECT.

        After a stall of the loop nobody knows how long they waited in the kernel.
        """
        untimed = self._prices.array["event_ns"] == 0
        for channel in list(self._channels):  # an alert's callback may unsubscribe meanwhile
            arrived = self._prices.arrived(channel)[: len(untimed)] > since_ns
            for subscription in self._wished(channel, np.flatnonzero(arrived & untimed[: len(arrived)]).tolist()):
                self._prices.set_status(subscription.symbol, Status.SUSPECT)

    def _tell_silent(self, channel: str, leg: int | None, silent: Sequence[Subscription], now: float) -> None:
        arrived = self._prices.arrived(channel, leg=leg) / 1e9
        gaps = self._prices.usual_gaps(channel)
        for connection, group in self._by_home(silent, leg).items():
            if not self.market_open:
                self._resting[leg].update(group)
                connection.handle(Silent(tuple(group), usual=True))
                continue
            usual: list[Subscription] = []
            unusual: list[Subscription] = []
            for key in group:
                (usual if self._options.usual(gaps[self._row(key)]) else unusual).append(key)
            if usual:
                connection.handle(Silent(tuple(usual), usual=True))
            if not unusual:
                continue
            live = [record.subscription for record in connection.session.book.at(Stage.LIVE)]
            others = {key: self._row(key) for key in live if key.channel == channel and key.symbol != ALL}
            whole = self._whole.get(channel)
            brings_all = whole is not None and whole.speaker(leg) is connection
            if brings_all:
                others |= {key: self._row(key) for key in self._wished(channel, np.flatnonzero(arrived).tolist())}
            shortest = min(self._options.limit(gaps[self._row(key)]) for key in unusual)
            mute = bool(others) and now - max(arrived[row] for row in others.values()) > shortest
            if mute:  # whoever should be heard before a trial ends stands it together
                soon = [key for key, row in others.items() if self._options.limit(gaps[row]) <= PATIENCE]
                unusual = list(dict.fromkeys([*unusual, *soon]))
            heard = 0
            if brings_all:
                limit = self._options.limit(float("nan"))
                heard = int(np.count_nonzero((arrived > 0) & (now - arrived <= limit)))
            connection.handle(Silent(tuple(unusual), mute=mute, heard=heard))

    def _wished(self, channel: str, rows: Iterable[int]) -> list[Subscription]:
        symbols = self._prices.symbols
        found = []
        for row in rows:
            wishes = [key for key in self._wishes.get(symbols[row], ()) if key.channel == channel]
            if not wishes and channel in self._whole:
                wishes = [Subscription(symbols[row], channel)]
            found += wishes
        return found

    def _by_home(self, subscriptions: Iterable[Subscription], leg: int | None) -> dict[Connection, list[Subscription]]:
        homes: dict[Connection, list[Subscription]] = {}
        for subscription in subscriptions:
            home = self._home.get(subscription, self._whole.get(subscription.channel))
            connection = None if home is None else home.speaker(leg)
            if connection is not None:
                homes.setdefault(connection, []).append(subscription)
        return homes

    def _row(self, subscription: Subscription) -> int:
        row = self._prices.id(subscription.symbol)
        assert row is not None, "every symbol wished for has a row"
        return row
