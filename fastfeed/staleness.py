"""Which silence is too long, and what is tried against it: the options, the calendar, and one connection's escalation.

It is told who fell silent and who is heard again, and says which step comes next. It refuses to read clocks, to look at
prices and to send anything.
"""

from __future__ import annotations

import enum
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastfeed.errors import ConfigError
from fastfeed.subscriptions import Subscription

PROBE_TIMEOUT = 5.0  # seconds a probe may stay unanswered: silence has already spoken against the connection
PATIENCE = 5.0  # seconds a resubscription has to bring data
RESUBSCRIBE_EVERY = 60.0  # seconds between targeted resubscriptions of one symbol: a lull may be just that

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


# Options ------------------------------------------------------------------------------------------------------------


class Span(Protocol):
    """A stretch of time, once or again and again."""

    def covers(self, utc: float) -> bool:
        """Whether the moment `utc` (epoch seconds) lies in it."""


@dataclass(frozen=True, kw_only=True)
class Week:
    """The same stretch of every week, in the local time of `zone`: `Week(start="Sun 17:00", end="Fri 17:00")`.

    Raises:
        ConfigError: for a time not written like "Sun 17:00", an empty stretch, or an unknown zone.
    """

    start: str
    end: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if _minute(self.start) == _minute(self.end):
            raise ConfigError(f"Week(start={self.start!r}, end={self.end!r}): is empty")
        _zone(self.zone)

    def covers(self, utc: float) -> bool:
        """Whether the moment `utc` (epoch seconds) lies in it."""
        local = datetime.fromtimestamp(utc, _zone(self.zone))
        minute = (local.weekday() * 24 + local.hour) * 60 + local.minute
        start, end = _minute(self.start), _minute(self.end)
        return start <= minute < end if start < end else minute >= start or minute < end


@dataclass(frozen=True, kw_only=True)
class Period:
    """One stretch of time, from `start` up to `end`, both with a time zone.

    Raises:
        ConfigError: for a time without a zone, or an empty stretch.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name, moment in (("start", self.start), ("end", self.end)):
            if not (isinstance(moment, datetime) and moment.tzinfo is not None):
                raise ConfigError(f"Period({name}={moment!r}): must be a datetime with a time zone")
        if self.start >= self.end:
            raise ConfigError(f"Period(start={self.start}, end={self.end}): is empty")

    def covers(self, utc: float) -> bool:
        """Whether the moment `utc` (epoch seconds) lies in it."""
        return self.start.timestamp() <= utc < self.end.timestamp()


def fx_week() -> Week:
    """When foreign exchange trades: from Sunday to Friday, five in the afternoon of New York, summer time included."""
    return Week(start="Sun 17:00", end="Fri 17:00", zone="America/New_York")


@dataclass(frozen=True, kw_only=True)
class Staleness:
    """When silence is too long, in seconds.

    With `threshold` the same for every symbol. Without, and `adaptive`: `factor` times the 99th percentile of the
    symbol's own inter-arrival times, kept between `floor` and `ceiling`; a symbol that usually pauses for longer than
    `ceiling / factor` is QUIET then, and nothing is tried. In `maintenance` alerts are mute; freshness never is.
    `hours` is when the market is open, instead of what the provider says; outside of it silence is QUIET.
    A connection whose rate of messages falls below `collapse` of its recent rate raises an alert; None: never.
    Without `threshold` and not `adaptive` nobody watches for silence: that takes `silence_goes_unnoticed=True`.

    Raises:
        ConfigError: for a combination that cannot work.
    """

    threshold: float | None = None
    adaptive: bool = True
    factor: float = 4.0
    floor: float = 2.0
    ceiling: float = 60.0
    collapse: float | None = 0.1
    maintenance: tuple[Span, ...] = ()
    hours: Span | None = None
    silence_goes_unnoticed: bool = False

    def __post_init__(self) -> None:
        for name in ("threshold", "factor", "floor", "ceiling"):
            value = getattr(self, name)
            if not (value is None and name == "threshold") and not (_is_number(value) and value > 0):
                raise ConfigError(f"Staleness({name}={value!r}): must be a number above 0")
        if self.threshold is not None and self.threshold < 0.01:
            raise ConfigError(f"Staleness(threshold={self.threshold!r}): must be 0.01 seconds or more")
        if self.floor > self.ceiling:
            raise ConfigError(f"Staleness(floor={self.floor!r}, ceiling={self.ceiling!r}): floor is above ceiling")
        if self.collapse is not None and not (_is_number(self.collapse) and 0 < self.collapse < 1):
            raise ConfigError(f"Staleness(collapse={self.collapse!r}): must be between 0 and 1, or None")
        for name, spans in (("maintenance", self.maintenance), ("hours", () if self.hours is None else (self.hours,))):
            if not isinstance(spans, tuple) or not all(callable(getattr(span, "covers", None)) for span in spans):
                raise ConfigError(f"Staleness({name}={getattr(self, name)!r}): write Week, Period or Calendar objects")
        if not self.watching and not self.silence_goes_unnoticed:
            raise ConfigError(
                "Staleness(adaptive=False) without threshold= finds no dead subscription: set one, or say "
                "silence_goes_unnoticed=True"
            )

    @property
    def watching(self) -> bool:
        """Whether anybody watches for silence."""
        return self.threshold is not None or self.adaptive

    @property
    def longest(self) -> float:
        """Seconds after which any silence has been found."""
        return self.ceiling if self.threshold is None else self.threshold

    @property
    def interval(self) -> float:
        """Seconds between looks that find silence within a tenth of the threshold."""
        return min(0.1, (self.floor if self.threshold is None else self.threshold) / 10)

    def limit(self, gap: float) -> float:
        """Seconds of silence that are too long for a symbol whose usual gap is `gap` seconds (or NaN)."""
        if self.threshold is not None:
            return self.threshold
        return min(self.ceiling, max(self.floor, gap * self.factor)) if gap == gap else self.ceiling

    def usual(self, gap: float) -> bool:
        """Whether silence beyond the ceiling is nothing new for a symbol whose usual gap is `gap` seconds (or NaN)."""
        return self.threshold is None and not gap * self.factor <= self.ceiling

    def muted(self, utc: float) -> bool:
        """Whether alerts are mute at `utc` (epoch seconds)."""
        return any(span.covers(utc) for span in self.maintenance)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _minute(text: str) -> int:
    """The minute of the week."""
    found = re.fullmatch(r"(\w{3}) (\d\d):(\d\d)", text) if isinstance(text, str) else None
    if found is None or found[1] not in _DAYS or int(found[2]) > 23 or int(found[3]) > 59:
        raise ConfigError(f"{text!r} is no time of the week: write it like 'Sun 17:00', days are {', '.join(_DAYS)}")
    return (_DAYS.index(found[1]) * 24 + int(found[2])) * 60 + int(found[3])


def _zone(name: str) -> tzinfo:
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError):
        raise ConfigError(f"there is no time zone {name!r}: write it like 'America/New_York'") from None


# Escalation ---------------------------------------------------------------------------------------------------------


class Cause(enum.StrEnum):
    """Why a step was taken, as a code to count and to search for."""

    SYMBOL_SILENT = "symbol-silent"  # one of many on its channel
    MANY_SILENT = "many-silent"  # more than half of a channel, or all that the connection carries of it
    NOTHING_CAME = "nothing-came"  # acked on a new connection, and silent where the last one delivered
    PONG_AND_SILENCE = "pong-and-silence"  # the other end lives, the subscriptions do not
    NO_PONG = "no-pong"
    STILL_SILENT = "still-silent"  # the step before did not help
    RATE_COLLAPSED = "rate-collapsed"


class Step(enum.StrEnum):
    """What is tried, from the mildest to the strongest."""

    WAIT = "wait"
    RESUBSCRIBE = "resubscribe"
    PROBE = "probe"
    RESUBSCRIBE_ALL = "resubscribe all"
    REDIAL = "redial"


class Standing(enum.Enum):
    """What silence makes of a subscription; the names are those of `fastfeed.Status`."""

    LIVE = "live"
    QUIET = "quiet"
    SUSPECT = "suspect"
    STALE = "stale"


@dataclass(frozen=True)
class Move:
    """One step against the silence of `subscriptions`, which have this standing from now on."""

    step: Step
    cause: Cause
    subscriptions: tuple[Subscription, ...]
    standing: Standing


@dataclass(slots=True)
class _Trial:
    """A channel most of which is silent: first a probe, then all of it is asked for again, then the dial."""

    cause: Cause
    probing: bool
    ends_at: float  # monotonic seconds
    size: int  # subscriptions it is about


@dataclass(slots=True)
class Watch:
    """Who is silent on one connection, and how far the escalation has come. All times are monotonic seconds.

    `silent` and `quiet` are disjoint: what is quiet is silent as usual, or the market is closed.
    """

    silent: dict[Subscription, float | None] = field(default_factory=dict)  # STALE from then on; None: is STALE
    quiet: set[Subscription] = field(default_factory=set)
    _asked: dict[Subscription, float] = field(default_factory=dict)  # the latest targeted resubscription
    _trials: dict[str, _Trial] = field(default_factory=dict)  # by channel

    def rests(self, subscriptions: Iterable[Subscription]) -> None:
        """These are silent, and that is nothing new."""
        self.heard(subscriptions)
        self.quiet.update(subscriptions)

    def fell(
        self, subscriptions: Iterable[Subscription], carried: Mapping[str, int], now: float, cause: Cause, mute: bool
    ) -> list[Move]:
        """These have fallen silent, of `carried` subscriptions on each channel; `mute`: nothing else speaks either.

        More than half of a channel, or a mute one, is put on trial as a whole.
        """
        new: dict[str, list[Subscription]] = {}
        for subscription in subscriptions:
            self.quiet.discard(subscription)
            if subscription not in self.silent:
                self.silent[subscription] = now + PATIENCE
                new.setdefault(subscription.channel, []).append(subscription)
        moves = []
        counts = self._counts()
        for channel, fallen in new.items():
            if channel in self._trials:
                self._trials[channel].size += len(fallen)
                moves.append(Move(Step.WAIT, self._trials[channel].cause, tuple(fallen), Standing.SUSPECT))
            elif mute or counts[channel] * 2 > carried.get(channel, 0):
                self._trials[channel] = _Trial(cause, True, now + PROBE_TIMEOUT, counts[channel])
                moves.append(Move(Step.PROBE, cause, self._on(channel), Standing.SUSPECT))
            else:
                moves += self._ask_again(fallen, now)
        return moves

    def heard(self, subscriptions: Iterable[Subscription]) -> None:
        """These speak again, or are not wanted any more. A trial ends once half of those it is about speak."""
        for subscription in subscriptions:
            self.silent.pop(subscription, None)
            self.quiet.discard(subscription)
        counts = self._counts() if self._trials else Counter()
        for channel in [channel for channel, trial in self._trials.items() if counts[channel] * 2 <= trial.size]:
            del self._trials[channel]

    def answered(self, now: float) -> list[Move]:
        """The probe came back."""
        return self._resubscribe_all(Cause.PONG_AND_SILENCE, now, [c for c, t in self._trials.items() if t.probing])

    def due(self, now: float, *, pongs_trusted: bool, settled: bool) -> list[Move]:
        """What has become due; `settled`: every request is answered, so that data could come."""
        moves = []
        late = [channel for channel, trial in self._trials.items() if now >= trial.ends_at]
        for channel in late:
            trial = self._trials[channel]
            if trial.probing and not pongs_trusted:
                moves += self._resubscribe_all(Cause.NO_PONG, now, [channel])
            elif trial.probing:
                return [Move(Step.REDIAL, Cause.NO_PONG, self._on(channel), Standing.STALE)]
            elif not settled:
                trial.ends_at = now + PATIENCE
            else:
                return [Move(Step.REDIAL, Cause.STILL_SILENT, self._on(channel), Standing.STALE)]
        stale = [
            subscription
            for subscription, at in self.silent.items()
            if at is not None and now >= at and subscription.channel not in self._trials
        ]
        if stale:
            self.silent.update(dict.fromkeys(stale))
            moves.append(Move(Step.WAIT, Cause.STILL_SILENT, tuple(stale), Standing.STALE))
        return moves

    @property
    def deadline(self) -> float | None:
        """When `due` has something to say."""
        times = [trial.ends_at for trial in self._trials.values()]
        times += [at for key, at in self.silent.items() if at is not None and key.channel not in self._trials]
        return min(times, default=None)

    def reset(self) -> None:
        """The connection is gone, and with it what was tried on it."""
        self.silent.clear()
        self._trials.clear()

    def _counts(self) -> Counter[str]:
        return Counter(subscription.channel for subscription in self.silent)

    def _on(self, channel: str) -> tuple[Subscription, ...]:
        return tuple(subscription for subscription in self.silent if subscription.channel == channel)

    def _ask_again(self, fallen: Iterable[Subscription], now: float) -> list[Move]:
        groups: dict[Step, list[Subscription]] = {}
        for subscription in fallen:
            asked_at = self._asked.get(subscription)
            if asked_at is None or now >= asked_at + RESUBSCRIBE_EVERY:
                self._asked[subscription] = now
                groups.setdefault(Step.RESUBSCRIBE, []).append(subscription)
            else:
                groups.setdefault(Step.WAIT, []).append(subscription)
        return [Move(step, Cause.SYMBOL_SILENT, tuple(group), Standing.SUSPECT) for step, group in groups.items()]

    def _resubscribe_all(self, cause: Cause, now: float, channels: Iterable[str]) -> list[Move]:
        moves = []
        for channel in channels:
            trial = self._trials[channel]
            trial.probing, trial.ends_at = False, now + PATIENCE
            group = self._on(channel)
            self.silent.update(dict.fromkeys(group))
            moves.append(Move(Step.RESUBSCRIBE_ALL, cause, group, Standing.STALE))
        return moves


# Rate ---------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Rate:
    """Messages per second, lately and of late: the first over about 5 s, the second over about a minute."""

    collapse: float | None
    lately: float = 0.0
    usual: float = 0.0
    collapsed: bool = False
    _since: float | None = None
    _at: float = 0.0

    def start(self, now: float) -> None:
        """A connection opened."""
        self.lately = self.usual = 0.0
        self.collapsed = False
        self._since = self._at = now

    def add(self, messages: int, now: float) -> bool:
        """So many came since the last time. True when the rate has just collapsed."""
        if self._since is None or now <= self._at:
            return False
        elapsed, self._at = now - self._at, now
        self.lately += (messages / elapsed - self.lately) * (1 - math.exp(-elapsed / 5.0))
        self.usual += (messages / elapsed - self.usual) * (1 - math.exp(-elapsed / 60.0))
        if self.collapse is None or now < self._since + 60.0:
            return False
        if self.collapsed:
            self.collapsed = self.lately < self.usual / 2
            return False
        # Twenty messages expected in five seconds: fewer say nothing.
        self.collapsed = self.usual * 5.0 >= 20 and self.lately < self.usual * self.collapse
        return self.collapsed
