"""Two legs of one stream: every tick once and in order, a gap only where both miss something, and what each is worth.

At random against a slow oracle that knows sets and lists only; special moments by hand; recordings with different cuts.
"""

import random

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfeed
from fastfeed import Clock, ConfigError, Flag, Kind
from fastfeed.schema import Message, Schema

RULES = Schema(
    Message("quote", match={"e": "quote"}, symbol="s", bid="b", seq="u"),
    Message("trade", match={"e": "trade"}, symbol="s", price="p", seq="t"),
    Message("depth", match={"e": "range"}, channel="range", symbol="s", bids="b", asks="a", first_seq="U", seq="u"),
    Message("depth", match={"e": "linked"}, channel="linked", symbol="s", bids="b", asks="a", seq="u", prev_seq="pu"),
    Message("trade", match={"e": "conn"}, channel="conn", symbol="s", price="p", seq="n", sequence="connection"),
    Message("quote", match={"e": "time"}, channel="time", symbol="s", bid="b", event_time=("T", "ns")),
    Message("trade", match={"e": "timed"}, channel="timed", symbol="s", price="p", event_time=("T", "ns")),
    Message("trade", match={"e": "free"}, channel="free", symbol="s", price="p"),
    Message("bar", match={"e": "bar"}, channel="bar", symbol="s", open="o", volume="v", seq="n", sequence="contiguous"),
    name="legs",
)
MS = 1_000_000
WIDTH = 3  # numbers a depth message covers


def payload(rule: str, i: int) -> bytes:
    """Message `i` of the true stream of a rule."""
    if rule == "contiguous":
        return b'{"e":"trade","s":"A","p":%d,"t":%d}' % (i, 100 + i)
    if rule == "rising":
        return b'{"e":"quote","s":"A","b":%d,"u":%d}' % (i, 100 + 7 * i)
    if rule == "bar":
        return b'{"e":"bar","s":"A","o":%d,"v":%d,"n":%d}' % (i, i, 100 + i)
    levels = b'"b":[["%d","1"]],"a":[["%d","0"],["%d","2"]]' % (i, i + 1, i + 2)
    last = 100 + WIDTH * i
    if rule == "range":
        return b'{"e":"range","s":"A","U":%d,"u":%d,%s}' % (last - WIDTH + 1, last, levels)
    return b'{"e":"linked","s":"A","u":%d,"pu":%d,%s}' % (last, last - WIDTH, levels)


def numbers(rule: str, i: int) -> tuple[int, int]:
    """What message `i` covers."""
    if rule in ("contiguous", "bar"):
        return 100 + i, 100 + i
    if rule == "rising":
        return 100 + 7 * i, 100 + 7 * i
    return 100 + WIDTH * (i - 1) + 1, 100 + WIDTH * i


class Pair:
    """A decoder between two legs: connection 0 is leg 0, connection 1 is leg 1."""

    def __init__(self, *, patience: float = 1.0, schema: Schema = RULES, **kwargs: int) -> None:
        self.clock = Clock.manual()
        self.decoder = fastfeed.Decoder(schema, clock=self.clock, **kwargs)
        self.decoder.leg(1, 1)
        self.decoder.arbitrate(True, patience=patience)
        self.reader = self.decoder.ring.reader()

    def send(self, leg: int, data: bytes) -> int:
        return self.decoder.decode(data, source=leg)

    def trades(self, leg: int, *ids: int, e: str = "trade") -> None:
        for n in ids:
            self.send(leg, b'{"e":"%s","s":"A","p":%d,"t":%d}' % (e.encode(), n, n))

    def timed(self, leg: int, *times: int, e: str = "time") -> None:
        for n in times:
            self.send(leg, b'{"e":"%s","s":"A","b":%d,"p":%d,"T":%d}' % (e.encode(), n, n, n))

    def read(self) -> list[int]:
        """Numbers of the ticks in the ring, negative where flagged AFTER_GAP, without the duplicates."""
        ticks = self.reader.read()
        ticks = ticks[(ticks["flags"] & Flag.DUPLICATE) == 0]
        return [int(-t["seq"] if t["flags"] & Flag.AFTER_GAP else t["seq"]) for t in ticks]

    def prices(self) -> list[float]:
        return self.reader.read()["price"].tolist()

    def holes(self) -> list[tuple[int, int]]:
        return [(gap.first, gap.last) for gap in self.decoder.gaps()]

    def count(self, *names: str) -> tuple[int, ...]:
        stats = self.decoder.stats()
        return tuple(stats[name] for name in names)

    def balances(self) -> bool:
        stats = self.decoder.stats()
        made = stats["ticks"] + stats["spliced"] - stats["superseded"] - stats["held"]
        return self.reader.ledger()["received"] == made


class Oracle:
    """What must come out, told with sets: the numbers missing, the messages that wait, what each leg has passed."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.last = -1
        self.missing: set[float] = set()
        self.joined = [False, False]
        self.passed = [-1, -1]
        self.had: list[set[int]] = [set(), set()]
        self.waiting: list[tuple[int, bool]] = []  # message, is a repeat
        self.out: list[tuple[int, bool, bool]] = []  # message, after a gap, is a repeat
        self.gaps: list[tuple[int, int]] = []
        self.told: set[int] = set()
        self.seconds = self.duplicates = 0
        self.wins = [0, 0]

    def runs(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for i in map(int, sorted(self.missing)):
            if found and found[-1][1] == i - 1:
                found[-1] = (found[-1][0], i)
            else:
                found.append((i, i))
        return found

    def tell(self, below: float) -> None:
        if self.rule == "rising":  # nobody knows whether it is missing
            self.missing = {i for i in self.missing if i > below}
            return
        for first, last in self.runs():
            if last <= below:
                self.gaps.append((numbers(self.rule, first)[0], numbers(self.rule, last)[1]))
                self.missing -= set(range(first, last + 1))
                self.told |= set(range(first, last + 1))

    def flush(self) -> None:
        while self.waiting:
            i, repeat = self.waiting[0]
            if not repeat and any(m < i for m in self.missing):
                return
            self.waiting.pop(0)
            self.publish(i, repeat)

    def publish(self, i: int, repeat: bool) -> None:
        gap = not repeat and (i - 1) in self.told
        self.out.append((i, gap, repeat))

    def message(self, leg: int, i: int) -> None:
        again = i <= self.passed[leg]
        joins = not self.joined[leg] and self.joined[1 - leg]
        self.joined[leg] = True
        self.passed[leg] = max(self.passed[leg], i)
        if i in self.missing:
            self.missing.remove(i)
            self.wins[leg] += 1
            at = next((n for n, (other, repeat) in enumerate(self.waiting) if not repeat and other > i), None)
            self.waiting.insert(len(self.waiting) if at is None else at, (i, False))
        elif again:
            self.duplicates += 1
            if self.waiting:
                self.waiting.append((i, True))
            else:
                self.publish(i, True)
        elif i <= self.last:
            self.seconds += 1
        else:
            if self.last >= 0 and (joins or self.rule != "rising"):
                self.missing |= set(range(self.last + 1, i))
            if joins and self.rule == "rising":  # until the other leg has passed what this one begins with
                self.missing.add(i - 0.5)
            self.last = i
            self.wins[leg] += 1
            self.waiting.append((i, False))
        self.tell(min(self.passed))
        self.flush()

    def end(self) -> None:
        self.tell(float("inf"))
        self.flush()


@st.composite
def two_legs(draw: st.DrawFn) -> list[tuple[int, int]]:
    """(leg, message) as they arrive: each leg loses some, repeats some, lags as it likes. 0 comes first."""
    n = draw(st.integers(2, 40))
    lost = draw(st.sampled_from([0.05, 0.3, 0.6]))
    choose = draw(st.randoms(use_true_random=False))
    lines: list[list[int]] = []
    for leg in range(2):
        line = [0] if leg == 0 or choose.random() < 0.8 else []
        for i in range(1, n):
            if choose.random() >= lost:
                line.append(i)
                line += [line[-choose.randrange(1, min(4, len(line)) + 1)]] * (choose.random() < 0.15)
        lines.append(line)
    events = [(0, lines[0].pop(0))]
    lead = draw(st.sampled_from([0.1, 0.5, 0.9]))
    while lines[0] or lines[1]:
        leg = 0 if not lines[1] or (lines[0] and choose.random() < lead) else 1
        for _ in range(choose.choice([1, 1, 2, 5])):
            if lines[leg]:
                events.append((leg, lines[leg].pop(0)))
    return events


def messages_of(ticks: np.ndarray, rule: str) -> list[tuple[int, bool, bool]]:
    """(message, after a gap, is a repeat); every tick of a message must be there, together and flagged alike."""
    found: list[tuple[int, bool, bool]] = []
    size = {"range": 3, "linked": 3, "bar": 2}.get(rule, 1)
    assert len(ticks) % size == 0
    for at in range(0, len(ticks), size):
        part = ticks[at : at + size]
        (seq,) = set(part["seq"].tolist())
        flags = {int(f) & (Flag.AFTER_GAP | Flag.DUPLICATE) for f in part["flags"]}
        (flag,) = flags
        if size == 3:
            assert [bool(f & Flag.LAST_LEVEL) for f in part["flags"]] == [False, False, True]
            assert [bool(f & Flag.SELL) for f in part["flags"]] == [False, True, True]
            assert part["size"].tolist() == [1, 0, 2]
        if rule == "bar":
            assert part["kind"].tolist() == [Kind.BAR, Kind.BAR_VOLUME]
        i = (int(seq) - 100) // {"range": WIDTH, "linked": WIDTH, "rising": 7}.get(rule, 1)
        assert rule == "bar" or part[0]["price"] == i
        found.append((i, bool(flag & Flag.AFTER_GAP), bool(flag & Flag.DUPLICATE)))
    return found


@pytest.mark.parametrize("rule", ["contiguous", "range", "linked", "rising", "bar"])
@settings(max_examples=250, deadline=None)
@given(events=two_legs())
def test_two_legs_make_one_stream_as_the_oracle_says(rule, events):
    pair, oracle = Pair(), Oracle(rule)
    for leg, i in events:
        pair.send(leg, payload(rule, i))
        oracle.message(leg, i)
        pair.clock.advance(1000)
        if rule == "contiguous":
            assert pair.decoder.prices["A"]["last"] == oracle.last, "the newest is in the table at once"
    pair.decoder.expire(pair.clock.mono_ns() + 10**12)
    oracle.end()
    out = messages_of(pair.reader.read(), rule)
    assert out == oracle.out
    assert pair.holes() == oracle.gaps
    assert pair.count("seconds", "duplicates", "resets", "held") == (oracle.seconds, oracle.duplicates, 0, 0)
    assert [leg["wins"] for leg in pair.decoder.legs()] == oracle.wins
    assert sum(leg["seconds"] for leg in pair.decoder.legs()) == oracle.seconds
    assert pair.balances()
    # and, with no oracle at all: what either leg brought is there once and in order
    once = [i for i, _, repeat in out if not repeat]
    assert once == sorted(set(once))
    if rule != "rising":
        assert set(once) == {i for _, i in events}
    assert pair.decoder.deadline is None


# ---- holes ----


def test_what_the_other_leg_brings_fills_the_hole_and_is_no_gap():
    pair = Pair()
    pair.trades(0, 1, 2, 5, 6)
    assert pair.read() == [1, 2]
    assert pair.decoder.prices["A"]["last"] == 6
    assert pair.count("held") == (2,)
    pair.trades(1, 1, 2, 3)
    assert pair.read() == [3]
    pair.trades(1, 4, 5, 6, 7)
    assert pair.read() == [4, 5, 6, 7]
    assert pair.holes() == []
    assert pair.decoder.prices["A"]["flags"] == 0
    assert pair.decoder.prices["A"]["updates"] == 5
    assert pair.count("seconds", "duplicates", "held") == (4, 0, 0)
    assert pair.balances()


def test_what_both_legs_miss_is_a_gap_as_soon_as_the_second_shows_it():
    pair = Pair()
    pair.trades(0, 1, 2, 6)
    pair.trades(1, 1, 2, 3, 5)
    assert pair.holes() == [(4, 4)]
    assert pair.read() == [1, 2, 3, -5, 6]
    assert pair.decoder.prices["A"]["flags"] == Flag.AFTER_GAP


def test_a_hole_nobody_fills_is_a_gap_when_its_time_is_up():
    pair = Pair(patience=0.5)
    pair.trades(0, 1, 4)
    assert pair.decoder.deadline == pair.clock.mono_ns() + 500 * MS
    pair.clock.advance(499 * MS)
    assert pair.decoder.expire() == 0
    assert pair.read() == [1]
    pair.clock.advance(1 * MS)
    assert pair.decoder.expire() == 1
    assert pair.read() == [-4]
    assert pair.holes() == [(2, 3)]
    assert pair.decoder.deadline is None
    pair.trades(1, 1, 2, 3, 4)
    assert pair.read() == []
    assert pair.count("seconds") == (4,)


def test_a_message_of_the_stream_finds_the_time_up_too():
    pair = Pair(patience=0.5)
    pair.trades(0, 1, 4)
    pair.clock.advance(600 * MS)
    pair.trades(0, 5)
    assert pair.read() == [1, -4, 5]


def test_a_late_number_of_the_same_leg_fills_its_own_hole():
    pair = Pair()
    pair.trades(0, 1, 3, 2)
    assert pair.read() == [1, 2, 3]
    assert pair.count("duplicates", "gaps") == (0, 0)


def test_a_repeat_on_one_leg_is_a_duplicate_and_on_the_other_a_second():
    pair = Pair()
    pair.trades(0, 1, 2, 2)
    pair.trades(1, 1, 2, 2)
    assert pair.count("duplicates", "seconds") == (2, 2)
    assert [int(t["flags"]) for t in pair.reader.read()] == [0, 0, Flag.DUPLICATE, Flag.DUPLICATE]


def test_a_full_store_lets_everything_out_instead_of_losing_it():
    pair = Pair(hold_ticks=4)
    pair.trades(0, 1, *range(3, 20))
    assert pair.read() == [1, -3, *range(4, 20)]
    assert pair.holes() == [(2, 2)]
    pair.trades(1, 1, 2, 3)
    assert pair.read() == []
    assert pair.balances()


def test_more_holes_than_there_is_room_for_are_gaps_and_lose_nothing():
    pair = Pair()
    pair.trades(0, *range(0, 200, 2))
    assert pair.holes() == [(n, n) for n in range(1, 128, 2)]
    pair.trades(1, *range(1, 200, 2))
    pair.decoder.expire(pair.clock.mono_ns() + 10**12)
    numbers = [abs(n) for n in pair.read()]
    assert numbers == [*range(0, 129, 2), *range(129, 199), 199]
    assert pair.balances()


def test_more_streams_with_holes_than_there_is_room_for_are_told_at_once():
    pair = Pair()
    for n in (1, 3):
        for symbol in range(300):
            pair.send(0, b'{"e":"trade","s":"S%d","p":1,"t":%d}' % (symbol, n))
    assert pair.count("gaps", "held") == (300 - 256, 256)
    for n in (1, 2, 3, 4):
        for symbol in range(300):
            pair.send(1, b'{"e":"trade","s":"S%d","p":1,"t":%d}' % (symbol, n))
    ticks = pair.reader.read()
    for symbol in range(300):
        numbers = ticks["seq"][ticks["symbol_id"] == symbol].tolist()
        assert numbers == ([1, 2, 3, 4] if symbol < 256 else [1, 3, 4])
    assert pair.count("gaps", "held") == (300 - 256, 0)


def test_a_second_stream_does_not_wait_for_the_hole_of_the_first():
    pair = Pair()
    pair.trades(0, 1, 3)
    pair.send(0, payload("rising", 5))
    assert pair.read() == [1, 135]


# ---- resets ----


def test_both_legs_beginning_anew_is_one_reset():
    pair = Pair()
    for leg in (0, 1):
        pair.trades(leg, 1000, 1001)
    pair.trades(0, *range(1, 11))
    assert pair.count("resets") == (1,)
    pair.read()
    pair.trades(1, 1002, 1003)  # still of before
    assert pair.read() == []
    pair.trades(1, *range(1, 13))
    assert pair.count("resets", "gaps") == (1, 0)
    assert pair.read() == [11, 12]


def test_a_leg_that_was_thought_to_begin_anew_does_not_silence_the_other():
    pair = Pair()
    for leg in (0, 1):
        pair.trades(leg, *range(990, 1001))
    pair.trades(1, *range(980, 989))  # replays a stretch: taken for a reset
    pair.read()
    pair.trades(0, 1001)
    assert pair.read() == []
    pair.clock.advance(11_000 * MS)
    pair.trades(0, 1002, 1003)
    assert pair.read() == [1002, 1003]


def test_a_provider_that_restarts_between_the_legs_is_believed_in_the_end():
    pair = Pair()
    pair.trades(0, 1000, 1001)
    pair.clock.advance(11_000 * MS)
    pair.trades(1, *range(1, 12))
    assert pair.count("resets", "seconds") == (1, 7)
    assert pair.read() == [1000, 1001, 8, 9, 10, 11]


# ---- streams without numbers ----


def test_without_numbers_only_the_lead_leg_counts():
    pair = Pair()
    for n in range(5):
        pair.timed(1, n, e="free")
        pair.timed(0, n, e="free")
    assert pair.prices() == [0, 1, 2, 3, 4]
    assert pair.count("seconds") == (5,)


def test_the_lead_changes_when_it_is_silent_while_the_other_speaks():
    pair = Pair(patience=0.5)
    pair.timed(0, 1, e="free")
    pair.clock.advance(500 * MS)
    pair.timed(1, 2, e="free")
    pair.clock.advance(1 * MS)
    pair.timed(1, 3, e="free")
    pair.timed(0, 4, e="free")
    assert pair.prices() == [1, 3]
    assert pair.count("seconds") == (2,)


def test_a_lead_named_before_the_other_joins_is_waited_for():
    pair = Pair(patience=0.5)
    pair.decoder.arbitrate(False)
    pair.timed(0, 1, e="free")
    pair.decoder.lead(0)
    pair.decoder.arbitrate(True)
    pair.timed(1, 1, e="free")
    pair.timed(0, 2, e="free")
    pair.timed(1, 2, e="free")
    pair.clock.advance(501 * MS)
    pair.timed(1, 3, e="free")
    assert pair.prices() == [1, 2, 3]


def test_the_lead_changes_at_once_on_command():
    pair = Pair()
    pair.timed(0, 1, e="free")
    pair.timed(1, 1, e="free")
    pair.decoder.lead(1)
    pair.timed(0, 2, e="free")
    pair.timed(1, 3, e="free")
    assert pair.prices() == [1, 3]


def test_a_lead_that_has_not_spoken_yet_does_not_silence_the_other():
    pair = Pair()
    pair.timed(0, 1, e="free")
    pair.decoder.lead(1)
    pair.timed(0, 2, e="free")
    pair.timed(0, 3, e="free")
    pair.timed(1, 4, e="free")
    pair.timed(0, 5, e="free")
    assert pair.prices() == [1, 2, 3, 4]


@pytest.mark.parametrize(("kind", "again"), [("time", [5, 6]), ("timed", [6])])
def test_a_new_lead_that_lags_brings_nothing_older(kind, again):
    """A quote of the same moment may be newer; a trade of the same moment has been counted."""
    pair = Pair()
    pair.timed(0, *range(1, 6), e=kind)
    pair.timed(1, 1, e=kind)
    pair.decoder.lead(1)
    pair.read()
    pair.timed(1, *range(2, 7), e=kind)
    assert pair.reader.read()["event_ns"].tolist() == again
    assert pair.count("duplicates", "resets") == (0, 0)


def test_connections_keep_their_own_sequences_and_are_led():
    pair = Pair()
    for n in (1, 2, 4):
        for leg in (0, 1):
            pair.send(leg, b'{"e":"conn","s":"A","p":%d,"n":%d}' % (n, n + 100 * leg))
    assert pair.read() == [1, 2, -4]
    assert pair.holes() == [(3, 3), (103, 103)]
    assert pair.count("seconds") == (3,)


def test_a_late_trade_that_has_no_room_to_wait_is_let_out():
    """Held back are two of two; a third, late behind those that are not last, must not be written behind them."""
    schema = Schema(
        Message("trade", symbol="s", price="p", seq="n", sequence="rising", conditions="c", not_last=("I",))
    )
    decoder = fastfeed.Decoder(schema, hold_ticks=2)
    ring = decoder.ring.reader()
    for leg in range(2):
        decoder.leg(leg, leg)
    decoder.arbitrate(True)
    for leg, number, condition in ((0, 5, "@"), (1, 10, "I"), (1, 13, "I"), (1, 12, "@"), (1, 14, "@"), (0, 15, "@")):
        decoder.decode(b'{"s":"A","p":1,"n":%d,"c":"%s"}' % (number, condition.encode()), source=leg)
        assert decoder.stats()["held"] <= 2
    assert sorted(ring.read()["seq"]) == [5, 10, 12, 13, 14, 15]


# ---- one leg left ----


@pytest.mark.parametrize("left", [0, 1])
def test_the_leg_left_goes_on_without_a_false_gap_duplicate_or_reset(left):
    """Leg 0 is thirty trades ahead; either may stay."""
    pair = Pair()
    pair.trades(1, *range(1, 11))
    pair.trades(0, *range(1, 41))
    pair.read()
    pair.decoder.arbitrate(False)
    pair.trades(left, *range(41 if left == 0 else 11, 60))
    assert pair.read() == list(range(41, 60))
    assert pair.count("gaps", "duplicates", "resets") == (0, 0, 0)
    pair.trades(left, 59, 61)
    assert pair.read() == [-61]
    assert pair.count("gaps", "duplicates") == (1, 1)


def test_the_leg_left_still_fills_the_hole_of_the_one_lost():
    pair = Pair()
    pair.trades(1, 1, 2)
    pair.trades(0, 1, 2, 3, 6, 7)
    pair.decoder.arbitrate(False)
    pair.trades(1, *range(3, 9))
    assert pair.read() == list(range(1, 9))
    assert pair.count("gaps", "duplicates", "held") == (0, 0, 0)


def test_a_hole_of_the_leg_left_becomes_a_gap_in_time():
    pair = Pair(patience=0.5)
    pair.trades(0, 1, 2, 5)
    pair.decoder.arbitrate(False)
    pair.trades(0, 6)
    assert pair.read() == [1, 2]
    pair.clock.advance(500 * MS)
    assert pair.decoder.expire() == 1
    assert pair.read() == [-5, 6]
    pair.trades(0, 7, 9)
    assert pair.read() == [7, -9]


@pytest.mark.parametrize("left", [0, 1])
def test_times_go_on_with_the_leg_left(left):
    pair = Pair()
    pair.timed(0, *range(1, 21))
    pair.timed(1, *range(1, 3))
    pair.read()
    pair.decoder.arbitrate(False)
    pair.timed(left, *range(21 if left == 0 else 3, 25))
    times = pair.reader.read()["event_ns"].tolist()
    assert times == list(range(21 if left == 0 else 20, 25))
    assert pair.count("duplicates", "resets") == (0, 0)


def test_rotation_after_rotation_misses_nothing_and_repeats_nothing():
    """Make before break, ten times over; the new connection lags at first, the old one is closed somewhere."""
    choose = random.Random(3)
    pair = Pair()
    pair.decoder.arbitrate(False)
    at = [1, 1]
    old = 0
    for _ in range(10):
        new = 1 - old
        pair.trades(old, *range(at[old], at[old] + 20))
        at[old] += 20
        pair.decoder.arbitrate(True)
        at[new] = at[old] - choose.randrange(1, 8)
        for _ in range(60):
            leg = choose.randrange(2)
            if at[leg] < at[old] + (leg == old) * 5:
                pair.trades(leg, at[leg])
                at[leg] += 1
        pair.decoder.lead(new)
        pair.decoder.arbitrate(False)
        old = new
    pair.trades(old, *range(at[old], at[old] + 20))
    assert pair.read() == list(range(1, at[old] + 20))
    assert pair.count("gaps", "duplicates", "resets", "held") == (0, 0, 0, 0)
    assert pair.balances()


def quotes(pair: Pair, leg: int, *ids: int) -> None:
    for n in ids:
        pair.send(leg, b'{"e":"quote","s":"A","b":%d,"u":%d}' % (n, n))


def test_quotes_still_on_their_way_when_a_faster_connection_joins_are_not_taken_for_overtaken():
    pair = Pair()
    pair.decoder.arbitrate(False)
    quotes(pair, 0, 10, 20)
    assert pair.read() == [10, 20]
    pair.decoder.lead(0)
    pair.decoder.arbitrate(True)
    quotes(pair, 1, 50, 60)
    assert pair.decoder.prices["A"]["bid"] == 60, "the newest is in the table at once"
    assert pair.read() == []
    quotes(pair, 0, 30, 40, 50, 60)
    assert pair.read() == [30, 40, 50, 60]
    assert pair.decoder.deadline is None
    quotes(pair, 1, 80)
    assert pair.read() == [80], "waited for once only"
    assert pair.count("gaps", "seconds", "duplicates") == (0, 2, 0)
    assert pair.balances()


def test_a_connection_that_comes_back_joins_again():
    pair = Pair()
    for leg in (0, 1):
        pair.decoder.connected(leg)
        quotes(pair, leg, 10)
    pair.decoder.connected(1)
    quotes(pair, 0, 20)
    quotes(pair, 1, 40)
    quotes(pair, 0, 30, 40)
    assert pair.read() == [10, 20, 30, 40]


def test_nobody_is_waited_for_who_does_not_speak():
    pair = Pair(patience=0.5)
    quotes(pair, 0, 10)
    pair.clock.advance(501 * MS)
    quotes(pair, 1, 40)
    assert pair.read() == [10, 40]


def test_a_joining_leg_that_lags_is_second_and_makes_no_gap():
    decoder = fastfeed.Decoder(RULES)
    reader = decoder.ring.reader()
    for n in range(1, 101):
        decoder.decode(payload("contiguous", n))
    decoder.leg(7, 1)
    decoder.arbitrate(True)
    for n in range(50, 120):
        decoder.decode(payload("contiguous", n), source=7)
    assert reader.read()["price"].tolist() == list(range(1, 120))
    stats = decoder.stats()
    assert (stats["seconds"], stats["duplicates"], stats["resets"], stats["gaps"]) == (51, 0, 0, 0)


# ---- what each leg is worth ----


def test_wins_and_lag_are_told_per_leg():
    pair = Pair()
    for n in range(1, 1001):
        pair.trades(0, n)
        pair.clock.advance(3 * MS)
        pair.trades(1, n)
        pair.clock.advance(1 * MS)
    first, second = pair.decoder.legs()
    assert (first["wins"], first["seconds"], second["wins"], second["seconds"]) == (1000, 0, 0, 1000)
    assert first["behind_ms"] == {"p50": 0, "p99": 0}
    assert second["behind_ms"]["p50"] == pytest.approx(3, rel=0.04)
    assert second["behind_ms"]["p99"] == pytest.approx(3, rel=0.04)
    now = pair.clock.mono_ns()
    assert first["arrived"] == {"trade": now - 4 * MS}
    assert second["arrived"] == {"trade": now - 1 * MS}


def test_a_mute_leg_shows_although_the_other_keeps_the_prices_fresh():
    pair = Pair()
    prices = pair.decoder.prices
    for n in range(1, 100):
        pair.trades(0, n)
        if n < 50:
            pair.trades(1, n)
        pair.clock.advance(100 * MS)
    assert prices.is_fresh("A", 0.2)
    assert prices.sweep("trade", threshold=1.0) == ([], [])
    assert prices.sweep("trade", threshold=1.0, leg=0) == ([], [])
    assert prices.sweep("trade", threshold=1.0, leg=1) == ([0], [])
    assert prices.arrived("trade", leg=1)[0] == prices.arrived("trade")[0] - 5000 * MS
    pair.trades(1, 50)
    assert prices.sweep("trade", threshold=1.0, leg=1) == ([], [0])
    assert prices.sweep("trade", threshold=1.0) == ([], [])


def test_seconds_do_not_make_a_price_fresh():
    pair = Pair()
    pair.trades(0, 1, 2, 3)
    pair.clock.advance(1000 * MS)
    pair.trades(1, 1, 2, 3)
    assert not pair.decoder.prices.is_fresh("A", 0.5)


def test_wrong_legs_are_refused():
    decoder = fastfeed.Decoder(RULES)
    for call in (
        lambda: decoder.leg(0, 2),
        lambda: decoder.leg(256, 0),
        lambda: decoder.lead(-1),
        lambda: decoder.arbitrate(True, patience=0),
        lambda: decoder.prices.arrived("trade", leg=0),
    ):
        with pytest.raises(ConfigError):
            call()
    decoder.arbitrate(True)
    with pytest.raises(ConfigError):
        decoder.prices.sweep("trade", leg=2)


# ---- recordings ----


@pytest.mark.parametrize("name", ["binance-usdm_btcusdt_20240808", "binance-spot_btcusdt_20240808"])
def test_a_recording_played_as_two_cut_legs_is_the_whole_recording(recordings, name):
    """Each leg loses a tenth, never the same frames, and lags up to 200 frames: every numbered tick once, in order."""
    provider = name.split("_")[0]
    frames = [p for _, p in recordings.frames(name) if b"depthUpdate" in p or b'"e":"trade"' in p][:20_000]
    choose = random.Random(1)
    lost = [choose.choice([None] * 18 + [0, 1]) for _ in frames]
    lost[:200] = [None] * 200  # what comes before a leg's first word cannot be missed
    whole = fastfeed.Decoder(provider, ring_capacity=1 << 20)
    reader = whole.ring.reader()
    whole.decode_many(frames, recv_ns=1)
    ticks = reader.read()
    pair = Pair(schema=whole.schema, ring_capacity=1 << 20, patience=3600)
    at = [0, 0]
    lag = 200
    while min(at) < len(frames):
        leg = choose.randrange(2)
        for _ in range(choose.randrange(1, 12)):
            if at[leg] < min(len(frames), at[1 - leg] + lag):
                if lost[at[leg]] != leg:
                    pair.decoder.decode(frames[at[leg]], recv_ns=1, source=leg)
                at[leg] += 1
    pair.decoder.expire(pair.clock.mono_ns() + 10**13)
    merged = pair.reader.read()
    assert pair.holes() == []
    for kind in np.unique(ticks["kind"]):
        both = ticks[ticks["kind"] == kind].copy(), merged[merged["kind"] == kind].copy()
        for part in both:
            part["source"] = 0
        assert both[0].tobytes() == both[1].tobytes()
    assert pair.count("duplicates", "resets", "held") == (0, 0, 0)
    assert sum(leg["wins"] for leg in pair.decoder.legs()) == len(frames)
    last = orjson.loads([p for p in frames if b'"e":"trade"' in p][-1])["data"]
    assert pair.decoder.prices["BTCUSDT"]["last"] == float(last["p"])
