"""Sequence rules: what is a gap, a duplicate, an older message, a reset; and what each does to ring, table and books.

Recordings are in test_recordings; here every rule by hand, and at random against the oracle.
"""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Decoder as Oracle
from oracle import assert_same

import fastfeed
from fastfeed import Flag, Gap
from fastfeed.records import TICK_DTYPE_PLAIN
from fastfeed.schema import Message, Schema

RULES = Schema(
    Message("quote", match={"e": "quote"}, symbol="s", bid="b", seq="u"),
    Message("trade", match={"e": "trade"}, symbol="s", price="p", seq="t"),
    Message("trade", match={"e": "loose"}, channel="loose", symbol="s", price="p", seq="t", sequence="rising"),
    Message("depth", match={"e": "range"}, channel="range", symbol="s", bids="b", asks="a", first_seq="U", seq="u"),
    Message("depth", match={"e": "linked"}, channel="linked", symbol="s", bids="b", asks="a", seq="u", prev_seq="pu"),
    Message("trade", match={"e": "conn"}, channel="conn", symbol="s", price="p", seq="n", sequence="connection"),
    Message("quote", match={"e": "time"}, channel="time", symbol="s", bid="b", event_time=("T", "ns")),
    Message("trade", match={"e": "free"}, channel="free", symbol="s", price="p", seq="t", sequence="none"),
    name="rules",
)


class Stream:
    def __init__(self) -> None:
        self.decoder = fastfeed.Decoder(RULES)
        self.ring = self.decoder.ring.reader()

    def send(self, text: str, recv_ns: int = 0) -> int:
        """The flags of the message's ticks."""
        assert self.decoder.decode(text.encode(), recv_ns=recv_ns) > 0
        flags = {int(flags) & ~(Flag.SELL | Flag.LAST_LEVEL) for flags in self.ring.read()["flags"]}
        (only,) = flags
        return only

    def quote(self, seq, symbol="A"):
        return self.send(f'{{"e":"quote","s":"{symbol}","b":{seq},"u":{seq}}}')

    def trade(self, seq, symbol="A", recv_ns=0):
        return self.send(f'{{"e":"trade","s":"{symbol}","p":{seq},"t":{seq}}}', recv_ns)

    def range(self, first, last, symbol="A"):
        return self.send(f'{{"e":"range","s":"{symbol}","U":{first},"u":{last},"b":[[1,1]],"a":[[2,2]]}}')

    def linked(self, last, prev, symbol="A"):
        return self.send(f'{{"e":"linked","s":"{symbol}","u":{last},"pu":{prev},"b":[[1,1]],"a":[]}}')

    def holes(self):
        return [(gap.stream, gap.symbol, gap.first, gap.last) for gap in self.decoder.gaps()]

    @property
    def counts(self):
        stats = self.decoder.stats()
        return stats["gaps"], stats["duplicates"], stats["resets"]


@pytest.fixture
def stream() -> Stream:
    return Stream()


# ---- contiguous: trades ----


def test_ids_that_rise_by_one_are_in_order(stream):
    assert [stream.trade(n) for n in range(100, 200)] == [0] * 100
    assert stream.counts == (0, 0, 0)
    assert list(stream.decoder.gaps()) == []


def test_a_trade_id_that_skips_is_a_gap(stream):
    stream.trade(5)
    assert stream.trade(8, recv_ns=77) == Flag.AFTER_GAP
    assert stream.trade(9) == 0
    (gap,) = stream.decoder.gaps()
    assert gap == Gap("trade", "A", 6, 7, 77, "sequence")
    assert gap.missing == 2
    assert stream.decoder.prices["A"]["last"] == 9
    assert stream.decoder.prices["A"]["flags"] & Flag.AFTER_GAP


def test_the_first_message_of_a_stream_is_never_a_gap(stream):
    assert stream.trade(10**12) == 0
    assert stream.trade(7, symbol="B") == 0
    assert stream.counts == (0, 0, 0)


def test_an_immediate_repeat_is_a_duplicate(stream):
    stream.trade(5)
    reader = stream.decoder.prices.reader()
    assert stream.trade(5) == Flag.DUPLICATE
    assert stream.trade(6) == 0
    assert stream.counts == (0, 1, 0)
    assert reader.ledger()["received"] == 1


def test_a_late_repeat_is_a_duplicate_and_neither_gap_nor_reset(stream):
    for n in range(1, 101):
        stream.trade(n)
    for late in (50, 99, 1, 3, 2):
        assert stream.trade(late) == Flag.DUPLICATE
        assert stream.decoder.prices["A"]["last"] == stream.decoder.prices["A"]["trade_seq"]
        assert stream.decoder.prices["A"]["last"] != late
    assert stream.trade(101) == 0
    assert stream.counts == (0, 5, 0)


def test_seven_late_repeats_in_a_row_are_not_a_reset(stream):
    stream.trade(100)
    assert [stream.trade(n) for n in range(1, 8)] == [Flag.DUPLICATE] * 7
    assert stream.trade(101) == 0
    assert [stream.trade(n) for n in range(1, 8)] == [Flag.DUPLICATE] * 7
    assert stream.trade(102) == 0
    assert stream.counts == (0, 14, 0)


def test_eight_rising_ids_below_the_last_are_a_reset(stream):
    stream.trade(1000)
    assert [stream.trade(n) for n in range(1, 9)] == [Flag.DUPLICATE] * 7 + [0]
    assert stream.counts == (0, 7, 1)
    assert stream.trade(9) == 0
    assert stream.trade(11) == Flag.AFTER_GAP
    assert stream.holes() == [("trade", "A", 10, 10)]
    assert stream.decoder.prices["A"]["last"] == 11


def test_falling_ids_are_never_a_reset(stream):
    stream.trade(1000)
    for n in range(900, 0, -1):
        assert stream.trade(n) == Flag.DUPLICATE
    assert stream.trade(1001) == 0


def test_a_repeat_among_rising_ids_starts_the_count_again(stream):
    stream.trade(1000)
    for n in (1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10):
        stream.trade(n)
    assert stream.counts[2] == 0
    stream.trade(11)
    assert stream.counts[2] == 1


def test_streams_of_different_symbols_do_not_meet(stream):
    for n in range(1, 50):
        assert stream.trade(n, symbol="A") == 0
        assert stream.trade(n * 10**6, symbol=f"B{n}") == 0
    assert stream.counts == (0, 0, 0)


def test_streams_of_different_channels_do_not_meet(stream):
    assert stream.trade(5) == stream.quote(500) == stream.range(1, 2) == stream.linked(70, 60) == 0
    assert stream.trade(6) == stream.quote(501) == stream.range(3, 4) == stream.linked(80, 70) == 0
    assert stream.counts == (0, 0, 0)


# ---- rising: quotes ----


def test_holes_between_quotes_are_normal(stream):
    assert [stream.quote(n) for n in (1, 5, 100, 10**15)] == [0] * 4
    assert stream.counts == (0, 0, 0)


def test_an_older_quote_is_flagged_and_overwrites_nothing(stream):
    stream.quote(10)
    assert stream.quote(9) == Flag.DUPLICATE
    assert stream.quote(10) == Flag.DUPLICATE
    assert stream.decoder.prices["A"]["bid"] == 10
    assert stream.counts == (0, 2, 0)


def test_eight_rising_quotes_below_the_last_are_a_reset(stream):
    stream.quote(10**9)
    for n in range(10, 90, 10):
        stream.quote(n)
    assert stream.counts == (0, 7, 1)
    assert stream.decoder.prices["A"]["bid"] == 80


# ---- range and linked: depth ----


def test_ranges_that_touch_are_in_order(stream):
    assert [stream.range(1, 5), stream.range(6, 6), stream.range(7, 20)] == [0] * 3
    assert stream.counts == (0, 0, 0)


def test_a_range_that_begins_too_late_is_a_gap(stream):
    stream.range(1, 5)
    assert stream.range(8, 10) == Flag.AFTER_GAP
    assert stream.holes() == [("range", "A", 6, 7)]


def test_an_overlapping_range_is_in_order_and_one_that_is_over_is_a_duplicate(stream):
    stream.range(1, 10)
    assert stream.range(8, 12) == 0
    assert stream.range(1, 12) == Flag.DUPLICATE
    assert stream.range(9, 11) == Flag.DUPLICATE
    assert stream.range(13, 13) == 0
    assert stream.counts == (0, 2, 0)


def test_linked_messages_name_their_predecessor(stream):
    assert [stream.linked(100, 90), stream.linked(150, 100), stream.linked(151, 150)] == [0] * 3
    assert stream.linked(200, 160) == Flag.AFTER_GAP
    assert stream.holes() == [("linked", "A", 152, 160)]
    assert stream.linked(210, 200) == 0


def test_a_depth_message_without_levels_moves_the_sequence(stream):
    stream.range(1, 5)
    assert stream.decoder.decode(b'{"e":"range","s":"A","U":6,"u":9,"b":[],"a":[]}') == 0
    assert stream.range(10, 11) == 0
    assert stream.counts == (0, 0, 0)


HOUR = 3600 * 10**9


@pytest.mark.parametrize("legs", [1, 2])
def test_a_lower_number_a_session_later_is_a_new_beginning(legs):
    """Polygon's numbers begin anew each day: not one quote of the next morning may be taken for a repeat."""
    schema = Schema(Message("quote", symbol="s", bid="b", seq="q", event_time=("t", "ns")))
    decoder = fastfeed.Decoder(schema)
    for leg in range(legs):
        decoder.leg(leg, leg)
    decoder.arbitrate(legs == 2)
    ring = decoder.ring.reader()

    def tell(number, hours, source=0):
        decoder.decode(b'{"s":"A","b":%d,"q":%d,"t":%d}' % (number, number, hours * HOUR), source=source)
        return [int(flags) for flags in ring.read()["flags"]], decoder.prices["A"]["bid"]

    assert tell(1000, 100) == ([0], 1000)
    assert tell(990, 103) == ([Flag.DUPLICATE], 1000)  # late, within the session
    assert tell(3, 105) == ([0], 3)
    assert tell(4, 105) == ([0], 4)
    assert tell(2, 105) == ([Flag.DUPLICATE], 4)
    assert decoder.stats()["resets"] == 1
    if legs == 2:
        for number in (3, 4):  # the other leg gets there later
            assert tell(number, 105, source=1) == ([], 4)
        assert tell(5, 106, source=1) == ([0], 5)
        assert tell(5, 106, source=0) == ([], 5)


def test_a_whole_quote_has_no_value_where_it_leaves_a_number_out():
    names = {"symbol": "s", "bid": "b", "bid_size": "B", "ask": "a", "ask_size": "A", "seq": "n"}
    decoder = fastfeed.Decoder(Schema(Message("quote", match={"e": "q"}, **names, whole=True)))
    row = lambda: [float(decoder.prices["X"][name]) for name in ("bid", "bid_size", "ask", "ask_size")]  # noqa: E731
    for number in range(3):
        decoder.decode(b'{"e":"q","s":"X","b":1.5,"B":2,"a":1.75,"A":3,"n":%d}' % number)
    assert row() == [1.5, 2, 1.75, 3]
    decoder.decode(b'{"e":"q","s":"X","a":1.25,"A":3,"n":5}')
    assert row() == pytest.approx([math.nan, math.nan, 1.25, 3], nan_ok=True)
    decoder = fastfeed.Decoder(Schema(Message("quote", each="d", symbol="^.s", bid=1, ask=0, whole=True)))
    decoder.decode(b'{"s":"X","d":[[1.75,1.5],[null,1.25]]}')
    decoder.decode(b'{"s":"X","d":[[]]}')
    assert [float(decoder.prices["X"][name]) for name in ("bid", "ask")] == pytest.approx([math.nan] * 2, nan_ok=True)
    decoder = fastfeed.Decoder(Schema(Message("trade", match={"e": "q"}, symbol="s", price="p", size="q", whole=True)))
    decoder.decode(b'{"e":"q","s":"X","p":1.5,"q":300}')
    decoder.decode(b'{"e":"q","s":"X","p":1.75}')
    assert [decoder.prices["X"]["last"], decoder.prices["X"]["last_size"]] == pytest.approx(
        [1.75, math.nan], nan_ok=True
    )
    with pytest.raises(fastfeed.ConfigError, match="whole"):
        Message("mark", symbol="s", price="p", whole=True)


def test_a_depth_gap_leaves_the_prices_alone(stream):
    stream.quote(1)
    stream.range(1, 5)
    stream.range(100, 101)
    assert stream.counts[0] == 1
    assert not stream.decoder.prices["A"]["flags"] & Flag.AFTER_GAP


# ---- connection, time, none ----


def connection(number: int, symbol: str = "A") -> bytes:
    return f'{{"e":"conn","s":"{symbol}","p":1,"n":{number}}}'.encode()


def test_a_connection_counts_over_all_its_symbols():
    decoder = fastfeed.Decoder(RULES)
    for number in range(20):
        decoder.decode(connection(number, f"S{number % 3}"))
    assert decoder.stats()["gaps"] == 0
    decoder.decode(connection(23, "S1"))
    assert [gap[:4] for gap in decoder.gaps()] == [("", "", 20, 22)]


def test_a_hole_in_a_connections_numbers_flags_every_row_until_it_is_cleared():
    decoder = fastfeed.Decoder(RULES)
    prices = decoder.prices

    def flagged() -> list[str]:
        return [symbol for symbol in prices.symbols if prices[symbol]["flags"] & Flag.AFTER_GAP]

    for number, symbol in enumerate("ABC"):
        decoder.decode(connection(number, symbol))
    decoder.decode(connection(9, "B"))
    assert flagged() == ["A", "B", "C"]
    prices.repaired("A")
    decoder.decode(connection(10, "D"))
    assert flagged() == ["B", "C"]
    decoder.decode(connection(20, "D"))
    assert flagged() == ["A", "B", "C", "D"]
    for symbol in "ABCD":
        prices.repaired(symbol)
    decoder.decode(connection(30, "E"))
    assert flagged() == ["A", "B", "C", "D", "E"]


def test_a_sequence_per_connection_restarts_at_connect():
    decoder = fastfeed.Decoder(RULES)
    for number in range(100, 120):
        decoder.decode(connection(number))
    decoder.connected(0)
    ticks = decoder.ring.reader()
    for number in range(5):
        decoder.decode(connection(number))
    assert list(ticks.read()["flags"]) == [0] * 5
    stats = decoder.stats()
    assert (stats["gaps"], stats["duplicates"], stats["resets"]) == (0, 0, 0)


def test_sequences_per_symbol_do_not_restart_at_connect():
    """What was missed while the connection was down is a gap."""
    stream = Stream()
    stream.trade(5)
    stream.decoder.connected(0)
    assert stream.trade(8) == Flag.AFTER_GAP
    assert stream.holes() == [("trade", "A", 6, 7)]


def test_where_there_is_only_time_an_older_message_overwrites_nothing(stream):
    for time, bid in ((100, 1), (100, 2), (99, 3), (101, 4), (50, 5)):
        stream.send(f'{{"e":"time","s":"A","b":{bid},"T":{time}}}')
    assert stream.decoder.prices["A"]["bid"] == 4
    assert stream.counts == (0, 2, 0)


def test_without_a_rule_nothing_is_checked(stream):
    for number in (5, 5, 3, 99, 1):
        assert stream.send(f'{{"e":"free","s":"A","p":{number},"t":{number}}}') == 0
    assert stream.counts == (0, 0, 0)
    assert stream.decoder.prices["A"]["last"] == 1


def test_messages_without_their_number_are_not_checked(stream):
    stream.trade(5)
    assert stream.send('{"e":"trade","s":"A","p":7}') == 0
    assert stream.send('{"e":"trade","s":"A","p":8,"t":null}') == 0
    assert stream.trade(6) == 0
    assert stream.counts == (0, 0, 0)


# ---- the list of gaps ----


def test_gaps_are_not_emptied_by_reading(stream):
    for number in range(1, 100, 2):
        stream.trade(number)
    gaps = stream.decoder.gaps()
    assert len(gaps) == 49
    assert gaps[0].first == 2
    assert gaps[-1].first == 98
    assert [gap.first for gap in gaps] == list(range(2, 100, 2))
    assert list(stream.decoder.gaps()) == list(gaps)
    assert len(gaps[3:7]) == 4
    with pytest.raises(IndexError):
        gaps[49]


def test_only_the_newest_gaps_are_kept_but_all_are_counted():
    decoder = fastfeed.Decoder(RULES)
    decoder.decode_many([f'{{"e":"trade","s":"A","p":1,"t":{number * 2}}}'.encode() for number in range(70_001)])
    gaps = decoder.gaps()
    assert decoder.stats()["gaps"] == 70_000
    assert len(gaps) == 65_536
    assert gaps[-1].first == 139_999
    assert gaps[0].first == 139_999 - 2 * 65_535


# ---- against the oracle ----

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["quote", "trade", "loose", "range", "linked", "conn", "time", "free"]),
        st.sampled_from("AAAB"),
        st.sampled_from([1, 1, 1, 1, 1, 1, 0, 2, 5, -1, -2, -9]),
        st.integers(0, 3),
    ),
    max_size=150,
)


@given(steps=STEPS)
@settings(max_examples=300, deadline=None)
def test_any_walk_of_numbers_is_judged_as_the_oracle_judges_it(steps):
    decoder, oracle = fastfeed.Decoder(RULES), Oracle(RULES)
    ring = decoder.ring.reader()
    numbers: dict[tuple, int] = {}
    for recv_ns, (kind, symbol, step, span) in enumerate(steps):
        key = (kind, symbol)
        before = numbers.get(key, 100)
        number = numbers[key] = max(0, before + step)
        body = {
            "quote": f'"b":1,"u":{number}',
            "time": f'"b":{number},"T":{number}',
            "range": f'"U":{number - span},"u":{number},"b":[[1,2]],"a":[]',
            "linked": f'"u":{number},"pu":{max(0, before - span // 2)},"b":[[1,2]],"a":[[3,4]]',
            "conn": f'"p":1,"n":{number}',
        }.get(kind, f'"p":1,"t":{number}')
        payload = f'{{"e":"{kind}","s":"{symbol}",{body}}}'.encode()
        assert decoder.decode(payload, recv_ns=recv_ns) == oracle.decode(payload, recv_ns)
    assert_same(decoder, ring.read(), oracle)


@given(start=st.integers(0, 1000), runs=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=25))
@settings(max_examples=200, deadline=None)
def test_replayed_stretches_are_judged_as_the_oracle_judges_them(start, runs):
    decoder, oracle = fastfeed.Decoder(RULES), Oracle(RULES)
    ring = decoder.ring.reader()
    for begin, length in runs:
        for number in range(start + begin, start + begin + length):
            for payload in (
                f'{{"e":"trade","s":"A","p":{number},"t":{number}}}'.encode(),
                f'{{"e":"quote","s":"A","b":{number},"u":{number}}}'.encode(),
            ):
                decoder.decode(payload, recv_ns=number)
                oracle.decode(payload, number)
    assert_same(decoder, ring.read(), oracle)


# ---- elements that share their message's number, and messages without ticks ----

SHARED = Schema(
    Message("trade", match={"e": "rising"}, each="d", symbol="s", price="p", seq="^.n", sequence="rising"),
    Message("trade", match={"e": "counted"}, each="d", symbol="s", price="p", seq="^.n"),
    Message("quote", match={"e": "all"}, each="d", symbol="s", bid="p", seq="^.h.n", sequence="connection"),
    Message("control", match={"e": "beat"}, seq="h.n"),
)
LETTER = {Flag(0): ".", Flag.DUPLICATE: "D", Flag.AFTER_GAP: "G"}


class Shared:
    """A decoder of SHARED beside the oracle; each message given as its sort, number and symbols."""

    def __init__(self) -> None:
        self.decoder, self.oracle = fastfeed.Decoder(SHARED), Oracle(SHARED)
        self.ring = self.decoder.ring.reader()
        self.ticks = []

    def told(self, sort: str, number: object, symbols: str = "") -> str:
        """A letter per tick: in order, a duplicate, or after a gap."""
        document = {"e": sort, "n": number, "h": {"n": number}, "d": [{"s": symbol, "p": 1} for symbol in symbols]}
        payload = json.dumps(document).encode()
        self.decoder.decode(payload, recv_ns=1)
        self.oracle.decode(payload, 1)
        ticks = self.ring.read()
        self.ticks.append(ticks.view(TICK_DTYPE_PLAIN))
        return "".join(LETTER[Flag(int(flags))] for flags in ticks["flags"])

    def check(self) -> None:
        assert_same(self.decoder, np.concatenate(self.ticks), self.oracle)


@pytest.mark.parametrize("sort", ["rising", "counted"])
def test_elements_that_share_their_messages_number_are_no_duplicates_of_each_other(sort):
    shared = Shared()
    assert shared.told(sort, 5, "AABA") == "...."
    assert shared.told(sort, 6, "AA") == ".."
    assert shared.told(sort, 6, "AA") == "DD"
    assert shared.told(sort, 5, "AB") == "DD"
    assert shared.told(sort, 7, "BAB") == "..." if sort == "rising" else "G.."
    shared.check()


def test_a_gap_is_one_gap_and_every_element_behind_it_says_so():
    shared = Shared()
    assert shared.told("counted", 5, "AA") == ".."
    assert shared.told("counted", 8, "AAA") == "GGG"
    assert [(gap.first, gap.last) for gap in shared.decoder.gaps()] == [(6, 7)]
    assert shared.told("counted", 8, "A") == "D"
    shared.check()


def test_eight_rising_messages_below_are_a_reset_however_many_elements_they_have():
    shared = Shared()
    shared.told("rising", 100, "A")
    for number in range(1, 8):
        assert shared.told("rising", number, "AAA") == "DDD"
    assert shared.told("rising", 8, "AAA") == "..."
    assert shared.told("rising", 9, "AA") == ".."
    assert shared.decoder.stats()["resets"] == 1
    shared.check()


def test_two_messages_of_one_frame_with_one_number_are_repeats():
    decoder = fastfeed.Decoder(SHARED)
    ring = decoder.ring.reader()
    message = {"e": "rising", "n": 5, "d": [{"s": "A", "p": 1}, {"s": "A", "p": 2}]}
    decoder.decode(json.dumps([message, message]).encode())
    assert [int(flags) for flags in ring.read()["flags"]] == [0, 0, Flag.DUPLICATE, Flag.DUPLICATE]


def test_a_connections_numbers_are_moved_by_control_messages_and_empty_ones():
    shared = Shared()
    assert shared.told("beat", "0") == ""
    assert shared.told("all", "1", "AB") == ".."
    assert shared.told("beat", "2") == ""
    assert shared.told("all", 3) == ""
    assert shared.told("all", "4", "BA") == ".."
    assert shared.decoder.gaps() == []
    assert shared.told("beat", "9") == ""
    assert shared.decoder.gaps() == [Gap("", "", 5, 8, 1)]
    assert shared.told("all", "10", "A") == "."
    assert shared.told("all", "12", "AB") == "GG"
    assert shared.decoder.gaps()[-1] == Gap("", "", 11, 11, 1)
    assert shared.decoder.stats()["control"] == 3
    shared.check()
    shared.decoder.connected(0)
    assert shared.told("beat", "0") == ""
    assert len(shared.decoder.gaps()) == 2


COUNTED = Schema(
    Message("quote", match={"e": "q"}, symbol="s", bid="b", seq="n", sequence="connection", event_time=("t", "ns")),
    Message("control", match={"e": "beat"}, seq="n"),
)


class Counted:
    """A decoder of COUNTED, told quotes by number, symbol and bid."""

    def __init__(self, **options: int) -> None:
        self.decoder = fastfeed.Decoder(COUNTED, **options)
        self.ring = self.decoder.ring.reader()

    def tell(self, number: int, symbol: str = "A", bid: object = 1, time: int = 0, source: int = 0) -> list[int]:
        document = {"e": "q", "s": symbol, "b": bid, "n": number, **({"t": time} if time else {})}
        self.decoder.decode(json.dumps(document).encode(), source=source)
        return [int(flags) for flags in self.ring.read()["flags"]]

    def bids(self) -> dict[str, float]:
        return {symbol: float(self.decoder.prices[symbol]["bid"]) for symbol in self.decoder.prices.symbols}


def test_a_message_that_cannot_be_read_or_has_no_row_counts_on_its_connection_all_the_same():
    counted = Counted(max_symbols=1)
    counted.tell(1)
    counted.tell(2, bid="")
    counted.tell(3, bid={})
    counted.tell(4, symbol="there is no room for it")
    assert counted.tell(5) == [0]
    assert counted.decoder.gaps() == []
    assert counted.decoder.stats()["unknown"] == 2


def test_numbers_of_a_connection_that_begin_anew_in_its_middle_are_a_hole():
    """What came before that is believed has been taken for repeats: nobody's row is as good as it looks."""
    counted = Counted()
    for number, symbol in enumerate("ABCDEFGH", 100):
        counted.tell(number, symbol)
    for number, symbol in enumerate("ABCDEFGH"):
        counted.tell(number, symbol, 2)
    assert counted.bids() == dict.fromkeys("ABCDEFG", 1.0) | {"H": 2.0}
    assert [gap[:4] for gap in counted.decoder.gaps()] == [("", "", 0, 6)]
    assert all(counted.decoder.prices[symbol]["flags"] & Flag.AFTER_GAP for symbol in "ABCDEFGH")
    assert counted.tell(8) == [0]


def test_within_one_connection_the_order_is_that_of_its_numbers_whatever_the_times():
    """One time ahead of the clock, or a step back, must not shut a row out."""
    now = 1_800_000_000 * 10**9
    counted = Counted()
    counted.decoder = fastfeed.Decoder(COUNTED, clock=fastfeed.Clock.manual(utc_ns=now))
    counted.ring = counted.decoder.ring.reader()
    for number, time in enumerate((now, now - 1000, now + 86400 * 10**9, now + 1)):
        assert counted.tell(number, bid=number, time=time) == [0]
        assert counted.bids() == {"A": number}
    counted.tell(4, bid=4, time=now + 86400 * 10**9)
    counted.decoder.connected(0)
    assert counted.tell(0, bid=5, time=now + 2) == [0], "what lies ahead of our clock is no measure"


def test_a_session_begins_once_though_its_first_trades_leave_the_row_as_old_as_it_was():
    """Trades of extended hours are NOT_LAST: their repeats, and a leg that lies behind, are no new session each."""
    schema = Schema(
        Message(
            "trade",
            symbol="s",
            price="p",
            seq="n",
            sequence="rising",
            event_time=("t", "ns"),
            conditions="c",
            not_last=("T",),
        )
    )
    decoder = fastfeed.Decoder(schema)
    ring = decoder.ring.reader()

    def tell(number, hours, condition):
        decoder.decode(b'{"s":"A","p":1,"n":%d,"t":%d,"c":"%s"}' % (number, hours * HOUR, condition))
        return int(ring.read()["flags"][0])

    assert tell(5000, 16, b"@") == 0
    assert [tell(number, 28, b"T") for number in (1, 2, 3)] == [Flag.NOT_LAST] * 3
    assert [tell(number, 28, b"T") for number in (1, 2)] == [Flag.NOT_LAST | Flag.DUPLICATE] * 2
    assert tell(4, 29, b"@") == 0
    assert decoder.stats()["resets"] == 1


@pytest.mark.parametrize("legs", [1, 2])
def test_a_connection_that_is_behind_another_takes_no_price_back(legs):
    counted = Counted()
    for leg in range(legs):
        counted.decoder.leg(leg, leg)
    counted.decoder.arbitrate(legs == 2)
    for number in range(10):
        counted.tell(number, bid=number, time=1000 + number)
    if legs == 2:
        counted.decoder.lead(1)
        counted.decoder.arbitrate(False)
    else:
        counted.decoder.connected(0)
    for number in range(5, 12):
        flags = counted.tell(number - 5, bid=number, time=1000 + number, source=legs - 1)
        assert counted.bids() == {"A": max(9.0, number)}
        assert flags == ([Flag.DUPLICATE] if number < 9 else [0])


def test_behind_a_hole_new_symbols_cost_no_walk_each():
    """Rows are flagged once: what comes up later has its own tick's flag."""
    shared = Shared()
    shared.told("all", 1, "A")
    assert shared.told("all", 3, "BCDEFGH") == "GGGGGGG"
    prices = shared.decoder.prices
    assert [bool(prices[symbol]["flags"] & Flag.AFTER_GAP) for symbol in "ABCDEFGH"] == [True] * 8
    prices.repaired("A")
    shared.told("all", 4, "I")
    shared.told("all", 9, "")
    assert [bool(prices[symbol]["flags"] & Flag.AFTER_GAP) for symbol in "AI"] == [True, True]


@pytest.mark.parametrize("number", [None, "x", 1.5, {}, [1], True])
def test_a_control_message_whose_number_cannot_be_read_is_control_all_the_same(number):
    shared = Shared()
    shared.told("all", 1, "A")
    shared.told("beat", number)
    assert shared.told("all", 2, "A") == "."
    assert shared.decoder.stats()["control"] == 1
    shared.check()


numbers = st.integers(1, 14)
shared_messages = st.tuples(
    st.sampled_from(["rising", "counted", "all", "beat"]),
    st.one_of(numbers, numbers.map(str)),
    st.text("AB", max_size=4),
)


@given(st.lists(shared_messages, max_size=40))
def test_shared_numbers_agree_with_the_oracle(messages):
    shared = Shared()
    shared.ticks.append(shared.ring.read().view(TICK_DTYPE_PLAIN))
    for message in messages:
        shared.told(*message)
    shared.check()


def test_shared_numbers_stand_alike_while_two_legs_are_weighed():
    """The first arrival of a message counts with all elements; one that fills a hole goes out whole, in its place."""
    decoder = fastfeed.Decoder(SHARED)
    ring = decoder.ring.reader()
    for leg in range(2):
        decoder.leg(leg, leg)
    decoder.arbitrate(True)

    def tell(source: int, number: int) -> list[tuple[str, int, float]]:
        document = {"e": "counted", "n": number, "d": [{"s": s, "p": n} for n, s in enumerate("ABA")]}
        decoder.decode(json.dumps(document).encode(), source=source)
        return [(decoder.prices.symbols[t["symbol_id"]], int(t["seq"]), float(t["price"])) for t in ring.read()]

    def whole(number: int) -> list[tuple[str, int, float]]:
        return [("A", number, 0), ("B", number, 1), ("A", number, 2)]

    assert tell(0, 5) == whole(5)
    assert tell(1, 5) == []
    assert tell(1, 6) == whole(6)
    assert tell(0, 6) == []
    assert tell(0, 8) == []  # 7 may still come by the other leg
    arrived = tell(1, 7)
    assert [tick for tick in arrived if tick[0] == "A"] == [("A", 7, 0), ("A", 7, 2), ("A", 8, 0), ("A", 8, 2)]
    assert [tick for tick in arrived if tick[0] == "B"] == [("B", 7, 1), ("B", 8, 1)]
    assert decoder.stats()["gaps"] == decoder.stats()["duplicates"] == decoder.stats()["held"] == 0


def test_elements_behind_a_gap_are_held_and_released_together():
    decoder = fastfeed.Decoder(SHARED)
    ring = decoder.ring.reader()
    decoder.hold_at_gaps("trade")

    def tell(number: int) -> list[tuple[int, int]]:
        document = {"e": "counted", "n": number, "d": [{"s": "A", "p": n} for n in range(2)]}
        decoder.decode(json.dumps(document).encode())
        return [(int(tick["seq"]), int(tick["flags"])) for tick in ring.read()]

    assert tell(5) == [(5, 0), (5, 0)]
    assert tell(8) == []
    assert tell(9) == []
    assert [(gap.first, gap.last) for gap in decoder.gaps()] == [(6, 7)]
    decoder.release("A", "trade")
    ticks = [(int(tick["seq"]), int(tick["flags"])) for tick in ring.read()]
    assert ticks == [(8, Flag.AFTER_GAP), (8, 0), (9, 0), (9, 0)]
    assert tell(10) == [(10, 0), (10, 0)]


def test_a_control_message_has_no_field_but_its_number():
    with pytest.raises(fastfeed.ConfigError, match="seq only"):
        Message("control", has=("e",), price="p")
    with pytest.raises(fastfeed.ConfigError, match="connection"):
        Message("control", has=("e",), seq="n", sequence="rising")
