"""Slow twins that are obviously right: a decoder, a sequence checker, a ring, a table. The tests believe these.

They share nothing with the compiled core but the schema's declaration; orjson says what is malformed, the standard
json module reads the rest with every number kept as its text. Nothing here is fast, or tries to be.
"""

import collections
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import orjson

from fastfeed.records import TICK_DTYPE_PLAIN, Flag, Gap, Kind
from fastfeed.schema import MISSING, Message, Schema, Symbol

sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))  # json recurses; orjson's depth limit is 1,024

INT64_MAX = 2**63 - 1
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
INTEGER = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))?", re.ASCII
)  # fmt: skip
NUMBERS = {
    "quote": ("bid", "bid_size", "ask", "ask_size"),
    "trade": ("price", "size"),
    "correction": ("price", "size"),
    "mark": ("price", "index", "funding"),
    "bar": ("open", "high", "low", "close", "volume", "vwap", "trades", "start"),
}
KINDS = {"depth": Kind.LEVEL, **{name: Kind[name.upper()] for name in NUMBERS}}
ROW_FIELDS = ("bid", "bid_size", "ask", "ask_size", "last", "last_size")


class Number(str):
    """A JSON number as it is written."""


class Real(Number):
    """A binary float, written out exactly. It has no one spelling, so it is no symbol and no side."""

    @classmethod
    def of(cls, value: float) -> "Real":
        text = format(Decimal(value), "f") if math.isfinite(value) else str(value)
        return cls(text if "." in text or not math.isfinite(value) else text + ".0")


class Instant(int):
    """A time that says itself what it is: epoch nanoseconds."""


class Unknown(Exception):
    """The message has a field of the wrong type."""


ABSENT = object()


# ---- values ----


def parse(payload: bytes) -> object:
    """The document, numbers as their text, the last of repeated keys; raises ValueError if it is malformed."""
    orjson.loads(payload)
    return json.loads(bytes(payload).decode(), parse_int=Number, parse_float=Number)


def price(value: object) -> float:
    if not isinstance(value, str) or not NUMBER.fullmatch(value) or math.isinf(float(value)):
        raise Unknown
    return float(value)


def integer(value: object) -> int:
    if not isinstance(value, str) or not INTEGER.fullmatch(value) or abs(int(value)) > INT64_MAX:
        raise Unknown
    return int(value)


def time_ns(value: object, unit: str) -> int:
    """UTC epoch nanoseconds; digits finer than a nanosecond are cut."""
    if isinstance(value, Instant):
        if not -9223372036 * 10**9 < value < 9223372036 * 10**9:
            raise Unknown
        return int(value)
    if not isinstance(value, str):
        raise Unknown
    if unit == "iso" or (unit == "auto" and ISO.fullmatch(value)):
        return iso_ns(value)
    if not NUMBER.fullmatch(value) or value.startswith("-") or Decimal(value) > INT64_MAX:
        raise Unknown
    number = Decimal(value)
    if unit == "auto":
        unit = next((u for u, limit in (("s", 10**11), ("ms", 10**14), ("us", 10**17)) if number < limit), "ns")
    ns = int(number * {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit])
    if ns > INT64_MAX:
        raise Unknown
    return ns


def iso_ns(text: str) -> int:
    found = ISO.fullmatch(text)
    if not found:
        raise Unknown
    *moment, second, fraction, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    try:
        instant = datetime(*map(int, moment), tzinfo=timezone(offset))
    except ValueError as error:
        raise Unknown from error
    # 60 is a leap second; int64 nanoseconds cover whole years from 1678 to 2261.
    if int(second) > 60 or not 1678 <= instant.year <= 2261:
        raise Unknown
    seconds = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) + int(second)
    return seconds * 10**9 + int(((fraction or "") + "0" * 9)[:9])


# ---- references ----


def steps_of(ref: str | int) -> tuple[int, list]:
    """How many levels out, and the keys and positions from there."""
    out = 0
    while isinstance(ref, str) and ref.startswith("^."):
        out, ref = out + 1, ref[2:]
    return out, [ref] if isinstance(ref, int) else [int(s) if s.isdecimal() else s for s in ref.split(".")]


def follow(ref: str | int, stack: list) -> object:
    """What a reference leads to, counted from the innermost of `stack` (envelope, message, element ...), or ABSENT."""
    out, steps = steps_of(ref)
    if out >= len(stack) or stack[-1 - out] is ABSENT:
        return ABSENT
    value = stack[-1 - out]
    for step in steps:
        if (isinstance(step, int) and isinstance(value, list) and step < len(value)) or (
            isinstance(step, str) and isinstance(value, dict) and step in value
        ):
            value = value[step]
        else:
            return ABSENT
    return value


def equal(value: object, wanted: object) -> bool:
    if wanted is MISSING:
        return value is ABSENT
    if wanted is None or isinstance(wanted, bool):
        return value is wanted
    if isinstance(wanted, str):
        return not isinstance(value, Number) and value == wanted
    return isinstance(value, Number) and float(value) == float(wanted)


def arrays(message: Message) -> list[str]:
    """The steps of `each`: "events[].tickers" is the array `events`, then in each of its elements `tickers`."""
    return [part.strip(".") for part in (message.each or "").split("[]") if part.strip(".")]


def fits(message: Message, envelope: object, body: object) -> bool:
    stack = [envelope, body]
    if not all(equal(follow(ref, stack), wanted) for ref, wanted in message.match.items()):
        return False
    if any(follow(ref, stack) is ABSENT for ref in message.has):
        return False
    walk = arrays(message)
    if not message.match and not message.has:
        # By shape: every reference into the message itself must lead somewhere.
        out = "^." * len(walk)
        into = [
            ref if isinstance(ref, int) else ref.removeprefix(out)
            for _, ref in message.references()
            if steps_of(ref)[0] == len(walk)
        ]
        if any(follow(ref, stack) is ABSENT for ref in into):
            return False
    return not walk or isinstance(follow(walk[0], stack), list)


def elements(walk: list[str], stack: list) -> Iterator[list]:
    """The stacks of all elements under the arrays of `each`."""
    if not walk:
        yield stack
        return
    array = follow(walk[0], stack)
    if array is ABSENT:
        return
    if not isinstance(array, list):
        raise Unknown
    for element in array:
        yield from elements(walk[1:], [*stack, element])


# ---- sequences ----


class Sequence:
    """One stream's numbers: the verdict on each, and what was missed before it."""

    RESET_RUN = 8

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.last: int | None = None
        self.below: list[int] = []
        self.begun = 0  # the event time at which a new session's numbers began
        self.shared: tuple = ()  # the message judged last whose elements share its number: which, its number, how

    def goes_on(self, event_ns: int) -> None:
        """A session has got so far; times beyond 2106 are no session's."""
        if event_ns // 10**9 < 1 << 32:
            self.begun = max(self.begun, event_ns)

    def check(self, seq: int, first: int | None, prev: int | None) -> tuple[str, tuple[int, int] | None]:
        if self.last is None:
            self.last = seq
            return "in order", None
        if seq > self.last or (seq == self.last and self.rule == "time"):
            missed = self.missed(seq, first, prev)
            self.last, self.below = seq, []
            return ("gap", missed) if missed else ("in order", None)
        if seq < self.last:
            self.below = [*self.below, seq] if self.below and seq > self.below[-1] else [seq]
            if len(self.below) == self.RESET_RUN:
                self.last, self.below = seq, []
                return "reset", None
        return "duplicate", None

    def missed(self, seq: int, first: int | None, prev: int | None) -> tuple[int, int] | None:
        assert self.last is not None
        if self.rule in ("contiguous", "connection"):
            hole = (self.last + 1, seq - 1)
        elif self.rule == "range":
            hole = (self.last + 1, (seq if first is None else first) - 1)
        elif self.rule == "linked":
            hole = (self.last + 1, self.last if prev is None else prev)
        else:
            return None
        return hole if hole[0] <= hole[1] else None


# ---- the decoder ----


class Decoder:
    """What the compiled decoder must make of every payload. Ticks gather in `ticks` as tuples of the plain record."""

    SESSION_NS, BEHIND = 4 * 3600 * 10**9, 255
    COUNTERS = (
        "frames",
        "data",
        "control",
        "unknown",
        "malformed",
        "messages",
        "ticks",
        "gaps",
        "duplicates",
        "resets",
    )

    def __init__(self, schema: Schema, parse: Callable[[bytes], object] = parse) -> None:
        self.schema = schema
        self.parse = parse
        self.counts = dict.fromkeys(self.COUNTERS, 0)
        self.ticks: list[tuple] = []
        self.symbols: dict[str, int] = {}
        self.followed: dict[tuple[int, str], tuple[int, int, int]] = {}  # source, event time, how often it was kept
        self.rows: dict[str, dict] = {}
        self.gaps: list[Gap] = []
        self.sequences: dict[tuple, Sequence] = {}
        self.takes_positions = any(
            steps_of(ref)[0] == len(arrays(m)) and isinstance(steps_of(ref)[1][0], int)
            for m in schema.messages
            for _, ref in m.references()
        ) or any(
            isinstance(steps_of(ref)[1][0], int)
            for m in schema.messages
            for ref in (*m.match, *m.has, m.each or "each")
        )

    def decode(self, payload: bytes, recv_ns: int = 0, source: int = 0) -> int:
        before = len(self.ticks)
        self.counts["frames"] += 1
        try:
            document = self.parse(payload)
        except ValueError:
            self.counts["malformed"] += 1
            return 0
        verdicts, found = [], []
        for envelope, body in self.bodies(document):
            verdict, messages = self.read(envelope, body)
            verdicts.append(verdict)
            found += [(len(verdicts), *one) for one in messages]
        self.counts["messages"] += len(verdicts)
        self.counts[next((v for v in ("data", "control") if v in verdicts), "unknown")] += 1
        for ordinal, message, fields in found:
            self.commit(message, fields, recv_ns, source, (self.counts["frames"], ordinal))
        made = len(self.ticks) - before
        self.counts["ticks"] += made
        return made

    def bodies(self, document: object) -> list[tuple[object, object]]:
        """(envelope, message) pairs of a frame."""
        if isinstance(document, list):
            if self.takes_positions and self.read(ABSENT, document)[0] != "unknown":
                return [(ABSENT, document)]
            return [(ABSENT, element) for element in document]
        if self.schema.envelope is not None and isinstance(document, dict):
            inner = document.get(self.schema.envelope)
            if isinstance(inner, dict):
                return [(document, inner)]
            if isinstance(inner, list):
                return [(document, element) for element in inner]
        return [(ABSENT, document)]

    def read(self, envelope: object, body: object) -> tuple[str, list]:
        """The verdict on one message, and the fields of each of its ticks (one set per depth message)."""
        for message in self.schema.messages:
            if not fits(message, envelope, body):
                continue
            if message.kind == "control":
                return "control", self.number(message, [envelope, body])
            try:
                stacks = elements(arrays(message), [envelope, body])
                found = [(message, self.fields(message, stack)) for stack in stacks]
            except Unknown:
                return "unknown", self.number(message, [envelope, body])
            return "data", found or self.number(message, [envelope, body])
        return "unknown", []

    def number(self, message: Message, stack: list) -> list:
        """What a message without ticks adds to the numbers of its connection."""
        if message.rule != "connection" or message.seq is None:
            return []
        out, steps = steps_of(message.seq)
        depth = len(arrays(message))
        # The one reference that is looked at without an element around it: as far out as elements are deep, or more.
        if depth and out < depth:
            return []
        value = follow("^." * (out - depth) + ".".join(map(str, steps)), stack) if depth else follow(message.seq, stack)
        try:
            return [(message, {"symbol": None, "seq": integer(value)})]
        except Unknown:
            return []

    def fields(self, message: Message, stack: list) -> dict:
        """name -> value; None where the value is explicitly none; absent fields are not there."""
        taken: dict = {}
        for name, ref in message.references():
            value = follow(ref, stack)
            if value is ABSENT:
                continue
            convert = self.converter(message, name)
            is_null = value is None or (
                name not in ("symbol", "event_time", "side", "bids", "asks")
                and isinstance(value, str)
                and not isinstance(value, Number)
                and value in message.null
            )
            taken[name] = None if is_null else convert(value)
        if not taken.get("symbol"):
            raise Unknown
        taken["not_last"] = self.leaves_last(message, stack)
        return taken

    def leaves_last(self, message: Message, stack: list) -> bool:
        """Is any of a trade's conditions one that leaves the last price alone?"""
        ref, is_chars = message.conditions, isinstance(message.conditions, tuple)
        found = ABSENT if ref is None else follow(ref[0] if isinstance(ref, tuple) else ref, stack)
        if found is ABSENT:
            return False
        verdicts = []
        for one in found if isinstance(found, list) else [found]:
            if isinstance(one, Number):
                number = price(one)
                verdicts.append(any(not isinstance(w, str) and w == number for w in message.not_last))
            elif isinstance(one, str):
                parts = list(one) if is_chars else [one]
                verdicts.append(any(isinstance(w, str) and w in parts for w in message.not_last))
            elif one is not None:
                raise Unknown
        return any(verdicts)

    def converter(self, message: Message, name: str) -> Callable[[object], object]:
        if name == "symbol":
            return lambda value: self.symbol(message, value)
        if name == "event_time":
            return lambda value: time_ns(value, message.unit)
        if name == "side":
            return lambda value: self.sold(message, value)
        if name in ("bids", "asks"):
            return lambda value: self.levels(message, value)
        return integer if name in ("seq", "first_seq", "prev_seq") else price

    def symbol(self, message: Message, value: object) -> str:
        if not isinstance(value, str) or isinstance(value, Real):
            raise Unknown
        text = str(value)
        if isinstance(message.symbol, Symbol):
            if message.symbol.until:
                text = text.split(message.symbol.until)[0]
            if message.symbol.upper:
                text = "".join(c.upper() if c.isascii() else c for c in text)
        return text

    def sold(self, message: Message, value: object) -> bool:
        if isinstance(value, bool):
            return value and not isinstance(message.side, tuple)
        if not isinstance(value, str) or isinstance(value, Real):
            raise Unknown
        return value == message.side[1] if isinstance(message.side, tuple) else value[:1] in ("s", "S")

    def levels(self, message: Message, value: object) -> list[tuple[float, float]]:
        if not isinstance(value, list):
            raise Unknown
        return [(price(follow(message.level[0], [level])), price(follow(message.level[1], [level]))) for level in value]

    # -- what a message does --

    def commit(self, message: Message, fields: dict, recv_ns: int, source: int, serial: tuple) -> None:
        symbol = fields["symbol"]
        if symbol is None:
            if self.judge(message, fields, recv_ns, source, serial) == "gap":
                self.shake()
            return
        symbol_id = self.symbols.setdefault(symbol, len(self.symbols))
        flags = Flag.SNAPSHOT if message.snapshot else Flag(0)
        verdict = self.judge(message, fields, recv_ns, source, serial)
        if verdict == "gap":
            flags |= Flag.AFTER_GAP
            if message.rule == "connection":
                self.shake()
        seq, event_ns = fields.get("seq") or 0, fields.get("event_time") or 0
        row = self.rows.get(symbol, {})
        if message.rule == "connection" and verdict != "duplicate" and event_ns:
            key = self.schema.messages.index(message), symbol
            of, last, run = self.followed.get(key, (source, event_ns, 0))
            if of != source and event_ns < last <= recv_ns and run < self.BEHIND:
                self.followed[key] = of, last, run + 1
                self.counts["duplicates"] += 1
                verdict = "duplicate"
            else:
                self.followed[key] = source, event_ns, 0
        late = verdict == "duplicate" and self.spares(message) and not fields["not_last"]
        if message.rule == "time":
            late = late and event_ns > row.get("trade_event_ns", 0)
        else:
            late = late and message.rule != "connection" and fields.get("seq") is not None
            late = late and seq > row.get("trade_seq", 0)
        if verdict == "duplicate" and not late:
            flags |= Flag.DUPLICATE

        def tick(kind: Kind, flags: Flag, values: Iterable) -> None:
            four = [math.nan if value is None else value for value in values]
            four += [math.nan] * (4 - len(four))
            self.ticks.append((symbol_id, kind, flags, source, seq, event_ns, recv_ns, *four))

        if message.kind == "depth":
            levels = [(Flag(0), level) for level in fields.get("bids") or ()]
            levels += [(Flag.SELL, level) for level in fields.get("asks") or ()]
            for place, (side, level) in enumerate(levels, 1):
                tick(Kind.LEVEL, flags | side | (Flag.LAST_LEVEL if place == len(levels) else Flag(0)), level)
            return
        values = [fields.get(name) for name in NUMBERS[message.kind]]
        if fields.get("side"):
            flags |= Flag.SELL
        if fields["not_last"]:
            flags |= Flag.NOT_LAST
        tick(KINDS[message.kind], flags, values[:4])
        if message.kind == "bar":
            tick(Kind.BAR_VOLUME, flags, values[4:])
        if late:
            self.merge_last(message, fields)
        elif message.kind in ("quote", "trade") and verdict != "duplicate":
            self.merge(message, fields, flags, recv_ns)

    def spares(self, message: Message) -> bool:
        """Do some of its trades leave the last price alone, whose number (or time) then tells what comes late?"""
        alone = sum(other.kind == "trade" for other in self.schema.messages) == 1
        return message.conditions is not None and (message.rule == "time" or alone)

    def judge(self, message: Message, fields: dict, recv_ns: int, source: int, serial: tuple) -> str:
        # In a record an event time of 0 means none.
        number = (fields.get("event_time") or None) if message.rule == "time" else fields.get("seq")
        if message.rule == "none" or number is None:
            return "in order"
        key = (
            ("connection", source)
            if message.rule == "connection"
            else (self.schema.messages.index(message), fields["symbol"])
        )
        stream = self.sequences.setdefault(key, Sequence(message.rule))
        if message.rule == "rising" and stream.last is not None and number < stream.last:
            before = self.rows.get(fields["symbol"], {}).get(f"{message.kind}_event_ns", 0)
            at = fields.get("event_time") or 0
            if before > 0 and max(before, stream.begun) < at - self.SESSION_NS:
                stream.last, stream.below = None, []
                stream.goes_on(at)
                self.counts["resets"] += 1
        shares = message.each is not None and message.seq is not None and steps_of(message.seq)[0] > 0
        if shares and stream.shared[:2] == (serial, number):
            return stream.shared[2]
        verdict, missed = stream.check(number, fields.get("first_seq"), fields.get("prev_seq"))
        if message.rule == "connection" and verdict == "reset":
            self.counts["resets"] += 1
            verdict, missed = "gap", (number - Sequence.RESET_RUN + 1, number - 1)
        if shares:
            stream.shared = serial, number, verdict
        if self.spares(message) and verdict != "duplicate" and fields.get("not_last"):
            stream.goes_on(fields.get("event_time") or 0)
        if missed:
            self.counts["gaps"] += 1
            if message.rule == "connection":
                self.gaps.append(Gap("", "", *missed, recv_ns))
            else:
                self.gaps.append(Gap(message.channel or message.kind, fields["symbol"], *missed, recv_ns))
        elif verdict in ("duplicate", "reset"):
            self.counts[verdict + "s"] += 1
        return verdict

    def row(self, symbol: str) -> dict:
        return self.rows.setdefault(symbol, dict.fromkeys(ROW_FIELDS, math.nan) | {"updates": 0, "flags": Flag(0)})

    def shake(self) -> None:
        """Any row may be the one that misses something."""
        for symbol in self.symbols:
            self.row(symbol)["flags"] |= Flag.AFTER_GAP

    def merge(self, message: Message, fields: dict, flags: Flag, recv_ns: int) -> None:
        row = self.row(fields["symbol"])
        if fields["not_last"]:
            row["updates"] += 1
        else:
            self.merge_last(message, fields)
        seq, event_ns = fields.get("seq") or 0, fields.get("event_time") or 0
        row |= {"seq": seq, "event_ns": event_ns, "recv_ns": recv_ns}
        row["flags"] |= flags & Flag.AFTER_GAP

    def merge_last(self, message: Message, fields: dict) -> None:
        """The prices and what dates them."""
        row = self.row(fields["symbol"])
        for name in NUMBERS[message.kind]:
            if name in fields or (message.whole and getattr(message, name) is not None):
                cell = {"price": "last", "size": "last_size"}.get(name, name)
                row[cell] = math.nan if fields.get(name) is None else fields[name]
        seq, event_ns = fields.get("seq") or 0, fields.get("event_time") or 0
        row |= {f"{message.kind}_seq": seq, f"{message.kind}_event_ns": event_ns, "updates": row["updates"] + 1}

    def records(self) -> np.ndarray:
        """All ticks so far, dtype TICK_DTYPE_PLAIN."""
        return np.array(self.ticks, TICK_DTYPE_PLAIN)


def assert_same(decoder, ticks: np.ndarray, oracle: Decoder) -> None:
    """The compiled decoder, of which `ticks` were all ring ticks, stands where the oracle stands, bit for bit."""
    stats = decoder.stats()
    assert {name: stats[name] for name in oracle.COUNTERS} == oracle.counts
    expected, got = oracle.records(), ticks.view(TICK_DTYPE_PLAIN)
    assert len(got) == len(expected)
    if got.tobytes() != expected.tobytes():
        wrong = next(i for i in range(len(got)) if got[i].tobytes() != expected[i].tobytes())
        raise AssertionError(f"tick {wrong} of {len(got)}: got {got[wrong]}, expected {expected[wrong]}")
    assert list(decoder.prices.symbols) == list(oracle.symbols)
    for symbol, row in oracle.rows.items():
        got_row = decoder.prices[symbol]
        for name, value in row.items():
            assert np.asarray(got_row[name]).tobytes() == np.asarray(value, got_row[name].dtype).tobytes(), (
                symbol,
                name,
                got_row[name],
                value,
            )
    gaps = list(decoder.gaps())
    assert gaps == oracle.gaps, (gaps[-3:], oracle.gaps[-3:])


# ---- ring and table ----


class DequeRing:
    """The tick ring as one deque of the newest `capacity` items and a counter."""

    def __init__(self, capacity: int) -> None:
        self.kept: collections.deque = collections.deque(maxlen=capacity)
        self.published = 0

    def publish(self, items: Iterable) -> None:
        for item in items:
            self.kept.append(item)
            self.published += 1

    def reader(self) -> "DequeReader":
        return DequeReader(self)


class DequeReader:
    def __init__(self, ring: DequeRing) -> None:
        self.ring = ring
        self.start = self.place = ring.published
        self.delivered = self.dropped = 0

    def _lose(self) -> None:
        oldest = self.ring.published - len(self.ring.kept)
        if self.place < oldest:
            self.dropped += oldest - self.place
            self.place = oldest

    def read(self, limit: int | None = None) -> list:
        self._lose()
        oldest = self.ring.published - len(self.ring.kept)
        items = list(self.ring.kept)[self.place - oldest :][:limit]
        self.place += len(items)
        self.delivered += len(items)
        return items

    def ledger(self) -> dict[str, int]:
        self._lose()
        return {
            "received": self.ring.published - self.start,
            "delivered": self.delivered,
            "conflated": 0,
            "dropped": self.dropped,
            "pending": self.ring.published - self.place,
        }


class DictTable:
    """The price table as one dict, each consumer with its own dict of what changed since it last read."""

    def __init__(self) -> None:
        self.readers: list[DictReader] = []

    def update(self, symbol: str, value: object) -> None:
        for reader in self.readers:
            reader.update(symbol, value)

    def reader(self) -> "DictReader":
        self.readers.append(DictReader())
        return self.readers[-1]


class DictReader:
    def __init__(self) -> None:
        self.changed: dict[str, list] = {}
        self.received = self.delivered = self.conflated = 0

    def update(self, symbol: str, value: object) -> None:
        self.received += 1
        self.changed.setdefault(symbol, []).append(value)

    def read(self) -> dict[str, tuple]:
        """symbol -> (newest value, how many older ones this reader never saw)."""
        rows = {symbol: (values[-1], len(values) - 1) for symbol, values in self.changed.items()}
        self.delivered += len(rows)
        self.conflated += sum(skipped for _, skipped in rows.values())
        self.changed = {}
        return rows

    def ledger(self) -> dict[str, int]:
        pending = sum(len(values) for values in self.changed.values())
        return {
            "received": self.received,
            "delivered": self.delivered,
            "conflated": self.conflated,
            "dropped": 0,
            "pending": pending,
        }
