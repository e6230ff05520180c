"""What is wanted and how far each wish has come: wanted -> requested -> acked -> live, or rejected.

Batching, pacing and the spreading of wishes over connections live here too. It refuses to know any provider's words, to
send anything and to read a clock.
"""

from __future__ import annotations

import enum
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

ALL = "*"  # the symbol that stands for every symbol of a channel
_REMEMBERED = 100  # accepted requests of a connection that a later refusal may still mean


@dataclass(frozen=True, init=False, repr=False)
class Subscription:
    """One wish: a `channel` of a `symbol`, with the provider's parameters.

    `Subscription("BTCUSDT", "depth", levels=5)` may stand wherever a feed takes a symbol; the symbol "*" stands for the
    whole channel, where the provider has such a stream. Hashable; two with the same parameters in any order are equal.
    """

    symbol: str
    channel: str
    params: tuple[tuple[str, object], ...]  # sorted by name

    def __init__(self, symbol: str, channel: str, **params: object) -> None:
        object.__setattr__(self, "symbol", symbol)
        object.__setattr__(self, "channel", channel)
        object.__setattr__(self, "params", tuple(sorted(params.items())))

    def __repr__(self) -> str:
        params = "".join(f", {name}={value!r}" for name, value in self.params)
        return f"Subscription({self.symbol!r}, {self.channel!r}{params})"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a provider lets one connection do. None: no limit known."""

    streams_per_connection: int | None = None
    streams_per_request: int | None = None
    bytes_per_request: int | None = None
    messages_per_second: int | None = None  # everything we send counts: requests, pings and pongs
    dials_per_five_minutes: int | None = None  # of one address, whatever the connection
    connections: int | None = None  # open at a time; one more is refused, or another dies for it
    eviction_cool_down: float = 60.0  # seconds: whoever took our place keeps it, and two clients never duel for one
    lifetime: float | None = None  # seconds after which the server ends a connection


class Stage(enum.Enum):
    """How far one subscription has come on the present connection. An ack is not data: only LIVE has delivered."""

    WANTED = "wanted"
    REQUESTED = "requested"
    ACKED = "acked"
    LIVE = "live"
    REJECTED = "rejected"


@dataclass(slots=True, eq=False)
class Record:
    """One subscription, the provider's name for it, and its progress."""

    subscription: Subscription
    topic: str
    stage: Stage = Stage.WANTED
    reason: str = ""  # why it was rejected
    batch: int | None = None  # at most this many in its next request: a refused request is asked again in halves


@dataclass(frozen=True, eq=False)
class Request:
    """One request on its way, remembered until it is answered."""

    id: int
    text: str | bytes
    sent_at: float
    records: tuple[Record, ...]
    subscribes: bool


Render = Callable[[int, Sequence[str]], str | bytes]
"""(request id, topics) -> the message that asks for them: TEXT, or BINARY where it is bytes."""


def by_channel(subscriptions: Iterable[Subscription]) -> dict[str, tuple[str, ...]]:
    """Symbols by channel, each once, in order."""
    found: dict[str, dict[str, None]] = {}
    for subscription in subscriptions:
        found.setdefault(subscription.channel, {})[subscription.symbol] = None
    return {channel: tuple(symbols) for channel, symbols in found.items()}


@dataclass(slots=True)
class Pace:
    """How often we may send: at most `most` messages in any `window` seconds. None: as often as we like."""

    most: int | None
    window: float = 1.1  # seconds; a little over one, as the network may push our messages together
    _sent: deque[float] = field(default_factory=deque)

    def ready_at(self, spare: int = 0) -> float:
        """The monotonic time from which one more message may go out, if `spare` more are to stay possible."""
        allowed = None if self.most is None else max(1, self.most - spare)
        if allowed is None or len(self._sent) < allowed:
            return float("-inf")
        return self._sent[-allowed] + self.window

    def used(self, now: float) -> float:
        """The part of what is allowed that the last `window` seconds have used, 0 where nothing limits it."""
        if self.most is None:
            return 0.0
        return sum(now < at + self.window for at in self._sent) / self.most

    def spend(self, now: float) -> None:
        """One message goes out now."""
        if self.most is not None:
            self._sent.append(now)
            while len(self._sent) > self.most:
                self._sent.popleft()


class Book:
    """The record of one connection: the truth about what is wanted, whatever happens to the socket.

    `acks`: requests are answered. `group`: only topics of one group fit into one request. `echoes`: other spellings of
    a topic that answers may have. `numbered` adds the server's number of what it serves to a request.
    """

    def __init__(
        self,
        subscribe: Render,
        unsubscribe: Render,
        limits: Limits,
        *,
        acks: bool = True,
        group: Callable[[str], str] | None = None,
        echoes: Callable[[str], tuple[str, ...]] | None = None,
        numbered: Callable[[str | bytes, int], str | bytes] | None = None,
    ) -> None:
        self._render = {True: subscribe, False: unsubscribe}
        self._limits = limits
        self._acks = acks
        self._group = group
        self._echoes = echoes
        self._numbered = numbered
        self.number: int | None = None  # the server's, of what it serves on this connection
        self._records: dict[Subscription, Record] = {}  # in order of importance
        self._whole: dict[str, Record] = {}  # by channel: the record of all its symbols
        self._unwanted: dict[str, Record] = {}  # by topic: on the wire, but no longer wanted
        self._topics: Counter[str] = Counter()  # how many wishes each topic serves
        self._requests: dict[int, Request] = {}  # unanswered, oldest first
        self._accepted: deque[Request] = deque(maxlen=_REMEMBERED)  # a server may think better of it
        self._last_id = 0
        self._unnamed = 0  # refusals that do not say of which of several requests
        self._singly = False  # one request at a time, so that such a refusal can only mean that one
        self.strays = 0  # answers to nothing we asked

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def __contains__(self, subscription: Subscription) -> bool:
        """Wanted by itself, or as a part of a whole channel."""
        return subscription in self._records or subscription.channel in self._whole

    def record_of(self, subscription: Subscription) -> Record | None:
        """The record that brings it: its own, or that of its whole channel."""
        return self._records.get(subscription) or self._whole.get(subscription.channel)

    def at(self, *stages: Stage) -> list[Record]:
        """The records at any of `stages`."""
        return [record for record in self if record.stage in stages]

    @property
    def settled(self) -> bool:
        """Every subscription has been acked (or delivers) or rejected."""
        wanted, requested = Stage.WANTED, Stage.REQUESTED
        for record in self._records.values():  # noqa: SIM110 - plain: asked for at every step of the session
            if record.stage is wanted or record.stage is requested:
                return False
        return True

    @property
    def waits(self) -> bool:
        """Is anything `silent`?"""
        live, rejected = Stage.LIVE, Stage.REJECTED
        for record in self._records.values():  # noqa: SIM110 - plain: asked for at every step of the connection
            if record.stage is not live and record.stage is not rejected:
                return True
        return False

    @property
    def silent(self) -> list[Record]:
        """Wanted and not rejected, but no data yet on this connection."""
        return self.at(Stage.WANTED, Stage.REQUESTED, Stage.ACKED)

    def want(self, subscription: Subscription, topic: str) -> None:
        """Add a wish. Wishing twice changes nothing; a rejected wish may be wished again."""
        known = self._records.get(subscription)
        if known is None:
            kept = self._unwanted.pop(topic, None)  # not yet unsubscribed on the wire
            if kept is not None and kept.subscription != subscription:
                kept = None  # it was another wish with the same topic
            if kept is not None and kept.stage is Stage.LIVE:
                kept.stage = Stage.ACKED  # a new wish waits for new data
            self._records[subscription] = kept or Record(subscription, topic)
            self._topics[topic] += 1
        elif known.stage is Stage.REJECTED:
            self._records[subscription] = Record(subscription, topic)
        if subscription.symbol == ALL:
            self._whole[subscription.channel] = self._records[subscription]

    def drop(self, subscription: Subscription) -> None:
        """Take a wish back. On the wire its topic stays as long as it serves another wish."""
        record = self._records.pop(subscription, None)
        if record is None:
            return
        if self._whole.get(subscription.channel) is record:
            del self._whole[subscription.channel]
        self._topics[record.topic] -= 1
        if self._topics[record.topic]:
            return
        del self._topics[record.topic]
        if record.stage not in (Stage.WANTED, Stage.REJECTED):
            self._unwanted[record.topic] = record

    def again(self, subscriptions: Iterable[Subscription], *, whole: bool) -> list[Subscription]:
        """Ask for these anew, taking them back first: the server may think it serves them. Returns those asked.

        `whole`: for a part of a whole channel the channel is asked for; else nothing is, as the others speak.
        """
        asked = []
        for record in dict.fromkeys(map(self.record_of if whole else self._records.get, subscriptions)):
            if record is not None and record.stage in (Stage.ACKED, Stage.LIVE):
                self._unwanted[record.topic] = Record(record.subscription, record.topic, Stage.ACKED)
                record.stage = Stage.WANTED
                asked.append(record.subscription)
        return asked

    def lost(self) -> list[Record]:
        """The connection is gone: everything but the rejected is wanted again. Returns those."""
        self._requests.clear()
        self._accepted.clear()
        self.number = None
        self._unwanted.clear()
        self._unnamed = 0
        self._singly = False
        wanted = [record for record in self if record.stage is not Stage.REJECTED]
        for record in wanted:
            record.stage = Stage.WANTED
            record.batch = None
        return wanted

    @property
    def pending(self) -> bool:
        """There is something to ask for, and it may be asked now."""
        singly = self._singly or (self._numbered is not None and self.number is None)
        if singly and self._requests:
            return False
        wanted = Stage.WANTED
        for record in self._records.values():
            if record.stage is wanted:
                return True
        return bool(self._unwanted)

    def request(self, now: float) -> Request | None:
        """The next message to send, sized to the provider's limits, or None when there is nothing left to ask."""
        subscribes = not self._unwanted
        waiting = self.at(Stage.WANTED) if subscribes else list(self._unwanted.values())
        if not waiting:
            return None
        self._last_id += 1
        render = self._render[subscribes]
        batch = self._fill(waiting, 0 if self._limits.bytes_per_request is None else len(render(self._last_id, ())))
        topics = dict.fromkeys(record.topic for record in batch)
        if subscribes and len(self._topics) < len(self._records):
            batch = [record for record in waiting if record.topic in topics]  # one topic serves several wishes
        text = render(self._last_id, list(topics))
        if self._numbered is not None and self.number is not None:
            text = self._numbered(text, self.number)
        request = Request(self._last_id, text, now, tuple(batch), subscribes)
        if self._acks:
            self._requests[request.id] = request
        for record in batch:
            if subscribes:
                record.stage = Stage.REQUESTED if self._acks else Stage.ACKED
            else:
                del self._unwanted[record.topic]
        return request

    def _fill(self, waiting: Sequence[Record], size: int) -> list[Record]:
        """As many of `waiting` as one request may carry, at least one; `size` is the bytes of an empty request."""
        if self._group is not None:
            group = self._group(waiting[0].topic)
            waiting = [record for record in waiting if self._group(record.topic) == group]
        count = min(len(waiting), waiting[0].batch or len(waiting), self._limits.streams_per_request or len(waiting))
        batch: list[Record] = []
        for record in waiting[:count]:
            size += len(record.topic.encode()) + 3  # two quotes and a comma
            if batch and self._limits.bytes_per_request is not None and size > self._limits.bytes_per_request:
                break
            batch.append(record)
        return batch

    def acked(self, request_id: int | None = None, topics: Sequence[str] = ()) -> bool:
        """Request `request_id`, or these topics, were accepted; with neither, the oldest request.

        False if we never made it, or it was answered before.
        """
        if topics:
            return self._answered(topics, Stage.ACKED, "")
        request = self._answered_request(request_id)
        if request is None:
            return False
        self._accepted.append(request)
        for record in request.records:
            if record.stage is Stage.REQUESTED:
                record.stage = Stage.ACKED
        return True

    def active(self, topics: frozenset[str]) -> bool:
        """The server says all that it serves, in answer to the oldest request. False if there was none.

        What that request asked for and the server does not list is asked for again, in halves; so is what it listed
        before and dropped.
        """
        request = self._answered_request(None)
        for record in self:
            if record.stage is Stage.REQUESTED and record.topic in topics:
                record.stage = Stage.ACKED
            elif record.stage in (Stage.ACKED, Stage.LIVE) and record.topic not in topics:
                record.stage = Stage.WANTED
        if request is not None and request.subscribes:
            left = [record for record in request.records if record.stage is Stage.REQUESTED]
            if len(request.records) == 1 and left:
                left[0].stage, left[0].reason = Stage.REJECTED, "the server does not list it"
            else:
                self._halve(left)
        return request is not None

    def refused(self, request_id: int | None, reason: str, topics: Sequence[str] = ()) -> list[Record] | None:
        """Request `request_id`, or these topics, were refused. What is rejected now; None: nothing we asked for.

        One bad name refuses a whole request, so a request for several is asked again in halves until the culprit stands
        alone. A refusal that names neither means the only request on its way; with several on their way it is counted
        until it must mean all that are left, and from then on one is asked at a time. One that contradicts an ack is
        believed for what has not delivered: asking again costs less than waiting for what nobody sends.
        """
        if topics:
            named = frozenset(topics)
            known = self._rejected([r for r in self if self._is_of(r, named) and r.stage is not Stage.REJECTED], reason)
            self._answered(topics, Stage.REJECTED, reason)
            return known or None
        if request_id is not None:
            for accepted in self._accepted:
                if accepted.id == request_id and accepted.subscribes:
                    self._accepted.remove(accepted)
                    return self._refuse(accepted, reason, Stage.ACKED)
            request = self._answered_request(request_id)
            return None if request is None else self._refuse(request, reason)
        if not self._acks:
            # Without acks the newest that has not delivered is what the server is most likely to mean.
            silent = self.at(Stage.ACKED)
            return self._rejected(silent[-1:], reason) if silent else None
        if not self._requests:
            self.strays += 1
            return None
        self._unnamed += 1
        if self._unnamed < len(self._requests):
            return []
        self._singly = self._singly or self._unnamed > 1
        self._unnamed = 0
        rejected: list[Record] = []
        for request in list(self._requests.values()):
            del self._requests[request.id]
            rejected += self._refuse(request, reason)
        return rejected

    def _refuse(self, request: Request, reason: str, at: Stage = Stage.REQUESTED) -> list[Record]:
        asked = [record for record in request.records if record.stage is at]
        if not request.subscribes or len(request.records) > 1:
            self._halve(asked)
            return []
        return self._rejected(asked, reason)

    @staticmethod
    def _rejected(records: list[Record], reason: str) -> list[Record]:
        for record in records:
            record.stage = Stage.REJECTED
            record.reason = reason
        return records

    def _answered_request(self, request_id: int | None) -> Request | None:
        """Take the request off those on their way; None: the oldest. A stray answer is counted."""
        if request_id is None:
            request_id = next(iter(self._requests), None)
        request = self._requests.pop(request_id, None) if request_id is not None else None
        if request is None:
            self.strays += 1
        return request

    def _is_of(self, record: Record, named: frozenset[str]) -> bool:
        """Does an answer for these topics mean this one?"""
        spellings = () if self._echoes is None else self._echoes(record.topic)
        return record.topic in named or not named.isdisjoint(spellings)

    def _answered(self, topics: Sequence[str], stage: Stage, reason: str) -> bool:
        """The server has answered for these topics one by one; a request is answered once all of its topics are."""
        named = frozenset(topics)
        found = False
        for request in list(self._requests.values()):
            mine = [record for record in request.records if self._is_of(record, named)]
            found = found or bool(mine)
            for record in mine:
                if record.stage is Stage.REQUESTED:
                    record.stage, record.reason = stage, reason
            if mine and (not request.subscribes or all(r.stage is not Stage.REQUESTED for r in request.records)):
                del self._requests[request.id]
        self.strays += not found
        return found

    def answer_due(self, timeout: float) -> float | None:
        """When the oldest unanswered request becomes overdue."""
        return min((request.sent_at + timeout for request in self._requests.values()), default=None)

    def overdue(self, now: float, timeout: float) -> int:
        """Put every request unanswered for `timeout` seconds back among the wanted, in halves.

        Returns how many the server has not answered at all: a refusal that does not say of what is an answer.
        """
        late = [request for request in self._requests.values() if now >= request.sent_at + timeout]
        for request in late:
            del self._requests[request.id]
            self._halve([record for record in request.records if record.stage is Stage.REQUESTED])
        unanswered = max(0, len(late) - self._unnamed)
        if late and self._unnamed:
            self._unnamed = 0
            self._singly = True
        return unanswered

    @staticmethod
    def _halve(records: Sequence[Record]) -> None:
        for record in records:
            record.stage = Stage.WANTED
            record.batch = max(1, len(records) // 2)

    def delivered(self, subscription: Subscription) -> bool:
        """Data of `subscription` came. True if it is the first on this connection."""
        record = self._records.get(subscription)
        if record is None or record.stage not in (Stage.REQUESTED, Stage.ACKED):
            return False
        record.stage = Stage.LIVE
        return True


def spread(wishes: Iterable[T], limit: int | None) -> list[list[T]]:
    """Cut `wishes` into as few connections as `limit` streams each allow, evenly, keeping their order."""
    items = list(wishes)
    connections = 1 if limit is None else -(-len(items) // limit)
    edges = [index * len(items) // connections for index in range(connections + 1)] if items else [0]
    return [items[start:stop] for start, stop in itertools.pairwise(edges)]
