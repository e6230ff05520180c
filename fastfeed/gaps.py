"""Holes in streams and what to do about them next, Sans-I/O: gaps, answers and the time go in, steps come out.

One repair per stream at a time, whatever it misses; few at once, at the pace the provider allows. It fetches nothing,
holds no ticks and tells nobody: whoever runs it takes the steps and brings back what came of them.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fastfeed.errors import ConfigError

if TYPE_CHECKING:
    from fastfeed.records import Gap

Key = tuple[str, str]
"""A stream: symbol and channel."""

ANEW_EVERY = 10.0  # seconds between two resubscriptions of one stream
SHUT_FOR = 60.0  # seconds without a request after "too many requests" that does not say until when
_QUOTA_WINDOW = 60.0  # seconds over which a provider weighs requests


class Strategy(enum.Enum):
    """A way to make up for what is missing."""

    REPLAY = "replay"  # the provider sends it again, on the same connection
    REST = "rest"  # it is fetched over HTTP: the missing messages, a snapshot or a last value
    RESUBSCRIBE = "resubscribe"  # the stream is asked for anew, and begins afresh
    NONE = "none"


class Fetched(enum.Enum):
    """What a provider gives over HTTP."""

    MISSING = "missing"  # the messages themselves, by number
    SNAPSHOT = "snapshot"  # a book, from which the stream's deltas go on
    LAST = "last value"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What is done about messages that are missing.

    "auto" tries what the provider has, in the order replay, REST, resubscribe; a Strategy allows that one only, NONE
    leaves every gap as it is. Each way is tried `attempts` times, an answer being waited for `timeout` seconds and the
    next attempt following after `pause`, then twice that. At most `in_flight` requests are out at a time, which use at
    most `share` of what the provider allows one address. More than `longest` missing messages are not fetched.

    Raises:
        ConfigError: for a combination that cannot work.
    """

    strategy: Strategy | Literal["auto"] = "auto"
    attempts: int = 3
    timeout: float = 5.0
    pause: float = 0.5
    in_flight: int = 4
    share: float = 0.5
    longest: int = 10_000

    def __post_init__(self) -> None:
        if self.strategy != "auto" and not isinstance(self.strategy, Strategy):
            named = ", ".join(f"Strategy.{strategy.name}" for strategy in Strategy)
            raise ConfigError(f"Recovery(strategy={self.strategy!r}): must be 'auto', {named}")
        for name, number in (("attempts", self.attempts), ("in_flight", self.in_flight), ("longest", self.longest)):
            if not (isinstance(number, int) and not isinstance(number, bool) and number >= 1):
                raise ConfigError(f"Recovery({name}={number!r}): must be a whole number, 1 or more")
        for name, seconds in (("timeout", self.timeout), ("pause", self.pause)):
            if not (isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0):
                raise ConfigError(f"Recovery({name}={seconds!r}): must be a number of seconds above 0")
        if not (isinstance(self.share, int | float) and 0 < self.share <= 1):
            raise ConfigError(f"Recovery(share={self.share!r}): must be above 0, at most 1")

    def ways(self, possible: Iterable[Strategy]) -> tuple[Strategy, ...]:
        """Those of the `possible` ways that may be tried, in order."""
        offered = set(possible) - {Strategy.NONE}
        return tuple(way for way in Strategy if way in offered and self.strategy in ("auto", way))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What can be done for one channel: the ways, in order, and what one request over HTTP weighs and brings."""

    ways: tuple[Strategy, ...] = ()
    fetched: Fetched = Fetched.MISSING
    weight: int = 1


# Steps --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fetch:
    """Hold the stream and fetch `first` to `last` (or a snapshot); answer with `Ledger.fetched`."""

    key: Key
    first: int
    last: int


@dataclass(frozen=True)
class Replay:
    """Hold the stream and ask for `first` to `last` again; tell with `Ledger.replayed` how it stands."""

    key: Key
    first: int
    last: int


@dataclass(frozen=True)
class Resubscribe:
    """Let go of what is held, and ask for the stream anew; tell with `Ledger.delivered` when it delivers."""

    key: Key


@dataclass(frozen=True)
class Repaired:
    """Nothing is missing any more, or nothing that still matters. `gap` None: it was no gap that was filled."""

    key: Key
    gap: Gap | None
    how: Strategy
    seconds: float


@dataclass(frozen=True)
class Unrepaired:
    """Nothing more is tried, because of `reason`; let go of what is held. Not `tried`: there was nothing to try."""

    key: Key
    gap: Gap | None
    reason: str
    tried: bool


Step = Fetch | Replay | Resubscribe | Repaired | Unrepaired


# Answers ------------------------------------------------------------------------------------------------------------


class Verdict(enum.Enum):
    """What came of a fetch."""

    REPAIRED = enum.auto()
    MISSING = enum.auto()  # something still is
    TOO_OLD = enum.auto()  # a snapshot that does not reach the deltas
    FAILED = enum.auto()  # no answer, or none that can be read: another may be better
    HOPELESS = enum.auto()  # no answer will be better
    OVERFLOWED = enum.auto()  # there was no room for the ticks that had to wait


@dataclass(frozen=True)
class Answer:
    """What came of a fetch. `first`, `last`: what is missing still. `retry_after`: no request for so many seconds."""

    verdict: Verdict
    reason: str = ""
    first: int = 0
    last: int = -1
    retry_after: float | None = None


# The ledger ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Repair:
    """One stream on its way back."""

    gap: Gap | None  # from the first to the last number, over all gaps it has shown meanwhile
    since: float
    ways: list[Strategy]  # the present one, and those left after it
    first: int
    last: int
    due: float  # when the next attempt may be made
    attempts: int = 0  # of the present way
    until: float | None = None  # an answer is waited for, until then
    reason: str = ""  # why the last attempt came to nothing


@dataclass(slots=True)
class _Quota:
    """Weights spent in the last minute, as requests count against the address."""

    allowed: float
    _spent: deque[tuple[float, int]] = field(default_factory=deque)
    _sum: int = 0

    def fits(self, weight: int, now: float) -> bool:
        while self._spent and self._spent[0][0] <= now - _QUOTA_WINDOW:
            self._sum -= self._spent.popleft()[1]
        return self._sum == 0 or self._sum + weight <= self.allowed

    def spend(self, weight: int, now: float) -> None:
        self._spent.append((now, weight))
        self._sum += weight


class Ledger:
    """Every repair under way. `plans`: what can be done, by channel. `quota`: weight per minute the provider allows."""

    def __init__(self, options: Recovery, plans: Mapping[str, Plan], quota: int | None = None) -> None:
        self._options = options
        self._plans = plans
        self._open: dict[Key, _Repair] = {}  # oldest first
        self._quota = _Quota(math.inf if quota is None else quota * options.share)
        self._shut_until = -math.inf  # the provider has said: too many requests
        self._asked_anew: dict[Key, float] = {}  # when each stream was last subscribed anew for a gap
        self._news: list[Step] = []

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: Key) -> bool:
        return key in self._open

    def keys(self) -> list[Key]:
        """The streams under repair."""
        return list(self._open)

    def found(self, gap: Gap, now: float, *, afresh: bool = False, shared: bool = False) -> None:
        """`gap` has been noticed. `afresh`: the stream has just begun anew, so nothing is gained by asking it to.

        `shared`: it is of numbers that other streams share, by which nothing can be fetched or replayed.
        """
        key = gap.symbol, gap.stream
        known = self._open.get(key)
        if known is not None:
            if known.gap is not None:
                gap = gap._replace(first=min(known.gap.first, gap.first), last=max(known.gap.last, gap.last))
            known.gap, known.last = gap, max(known.last, gap.last)
            if known.ways[0] is Strategy.RESUBSCRIBE and known.until is None and not afresh:
                known.first = min(known.first, gap.first)
            return
        ways = list(self._plan(key).ways)
        if shared or afresh:
            ways = [way for way in ways if (way is Strategy.RESUBSCRIBE) is shared]
        self._begin(key, gap, ways, gap.first, gap.last, now)

    def wants(self, key: Key, now: float) -> None:
        """A snapshot or last value is wanted of a stream that misses nothing, if there is one to fetch."""
        if Strategy.REST in self._plan(key).ways and key not in self._open:
            self._begin(key, None, [Strategy.REST], 0, -1, now)

    def fetched(self, key: Key, answer: Answer, now: float) -> None:
        """What came of a Fetch."""
        repair = self._open.get(key)
        if repair is None or repair.ways[0] is not Strategy.REST or repair.until is None:
            return
        repair.until = None
        if answer.retry_after is not None:
            self._shut_until = max(self._shut_until, now + answer.retry_after)
        match answer.verdict:
            case Verdict.REPAIRED:
                self._done(key, repair, now)
            case Verdict.MISSING:
                forward = answer.first > repair.first or answer.last < repair.last
                repair.first, repair.last = answer.first, answer.last
                if forward:
                    repair.attempts, repair.due = 0, now
                else:
                    self._again(key, repair, answer.reason or "what is missing is not given", now)
            case Verdict.HOPELESS:
                self._next_way(key, repair, answer.reason, now)
            case Verdict.OVERFLOWED if self._plan(key).fetched is Fetched.MISSING:
                self._next_way(key, repair, answer.reason, now)
            case _:
                self._again(key, repair, answer.reason, now)

    def awaits(self, key: Key) -> bool:
        """Has the stream been asked anew, and is its data waited for?"""
        repair = self._open.get(key)
        return repair is not None and repair.ways[0] is Strategy.RESUBSCRIBE and repair.until is not None

    def replaying(self) -> list[Key]:
        """Streams whose replay is waited for."""
        return [key for key, one in self._open.items() if one.ways[0] is Strategy.REPLAY and one.until is not None]

    def replayed(self, key: Key, missing: tuple[int, int] | None, now: float) -> None:
        """What a stream still misses while it is replayed; None: nothing."""
        repair = self._open[key]
        if missing is None:
            self._done(key, repair, now)
        else:
            repair.first, repair.last = missing

    def delivered(self, key: Key, now: float) -> None:
        """The stream has begun anew and delivers: what it was asked anew for is over."""
        repair = self._open.get(key)
        if repair is not None and repair.ways[0] is Strategy.RESUBSCRIBE:
            self._done(key, repair, now)

    def missed(self, gap: Gap, now: float) -> None:
        """The stream delivers, but `gap`, of shared numbers, lies before its first message since it was asked anew."""
        repair = self._open.get((gap.symbol, gap.stream))
        if repair is not None and repair.ways[0] is Strategy.RESUBSCRIBE:
            repair.until = None
        else:
            self.found(gap, now, shared=True)

    def begun(self, key: Key, *, lost: bool) -> None:
        """The stream is asked anew for another reason. `lost`: its connection is gone, so that only a fetch goes on."""
        repair = self._open.get(key)
        if repair is None or repair.ways[0] is Strategy.REST:
            return
        if not lost and (repair.ways[0] is not Strategy.RESUBSCRIBE or repair.until is not None):
            return
        repair.ways = [Strategy.RESUBSCRIBE]
        repair.until = math.inf

    def drop(self, key: Key) -> None:
        """Nobody wants the stream any more."""
        self._open.pop(key, None)
        self._asked_anew.pop(key, None)

    def steps(self, now: float, *, anew: bool = True) -> list[Step]:
        """What is to be done now, outcomes included. Asked after everything that was told, and a few times a second.

        `anew`: streams may be asked anew; not while a session is in the middle of telling what they delivered.
        """
        flying = sum(one.until is not None and one.ways[0] is Strategy.REST for one in self._open.values())
        full = now < self._shut_until  # then whoever came first comes first again
        steps: list[Step] = []
        for key, repair in list(self._open.items()):
            if repair.until is not None:
                if now < repair.until:
                    continue
                repair.until = None
                self._again(key, repair, _OVERDUE[repair.ways[0]], now)
                if key not in self._open:
                    continue
            if now < repair.due:
                continue
            way = repair.ways[0]
            if way is Strategy.REST:
                if full:
                    continue
                weight = self._plan(key).weight
                full = flying >= self._options.in_flight or not self._quota.fits(weight, now)
                if full:
                    continue
                flying += 1
                self._quota.spend(weight, now)
                steps.append(Fetch(key, repair.first, repair.last))
                repair.until = math.inf  # whoever fetches keeps the time, and answers
            elif way is Strategy.REPLAY:
                steps.append(Replay(key, repair.first, repair.last))
                repair.until = now + self._options.timeout
            elif anew:
                again = self._asked_anew.get(key, -math.inf) + ANEW_EVERY
                if now < again:
                    repair.due = again
                    continue
                self._asked_anew[key] = now
                steps.append(Resubscribe(key))
                # The session asks until it is answered; here only the data is waited for.
                repair.until = now + max(self._options.timeout, 2 * ANEW_EVERY)
        news, self._news = self._news, []
        return news + steps

    # Inside --------------------------------------------------------------------------------------------------------

    def _plan(self, key: Key) -> Plan:
        return self._plans.get(key[1], _NOTHING)

    def _begin(self, key: Key, gap: Gap | None, ways: list[Strategy], first: int, last: int, now: float) -> None:
        plan = self._plan(key)
        reason = "nothing can be done about it"
        if gap is not None and plan.fetched is Fetched.MISSING and gap.missing > self._options.longest:
            reason = f"more than longest={self._options.longest} messages"
            ways = [way for way in ways if way is Strategy.RESUBSCRIBE]
        if self._options.strategy is Strategy.NONE:
            reason = "Recovery(strategy=Strategy.NONE)"
        if not ways:
            self._news.append(Unrepaired(key, gap, reason, False))
            return
        self._open[key] = _Repair(gap, now, ways, first, last, now)

    def _again(self, key: Key, repair: _Repair, reason: str, now: float) -> None:
        """This attempt came to nothing."""
        repair.attempts += 1
        if repair.attempts >= (1 if repair.ways[0] is Strategy.RESUBSCRIBE else self._options.attempts):
            self._next_way(key, repair, reason, now)
            return
        repair.reason = reason
        repair.due = now + self._options.pause * 2 ** (repair.attempts - 1)

    def _next_way(self, key: Key, repair: _Repair, reason: str, now: float) -> None:
        del repair.ways[0]
        repair.reason = f"{repair.reason}; {reason}" if repair.reason not in ("", reason) else reason
        repair.attempts, repair.due, repair.until = 0, now, None
        if not repair.ways:
            del self._open[key]
            self._news.append(Unrepaired(key, repair.gap, repair.reason, True))

    def _done(self, key: Key, repair: _Repair, now: float) -> None:
        del self._open[key]
        self._news.append(Repaired(key, repair.gap, repair.ways[0], now - repair.since))


_NOTHING = Plan()
_OVERDUE = {
    Strategy.REPLAY: "the replay did not bring it",
    Strategy.RESUBSCRIBE: "subscribed anew, and nothing has come since",
}
