"""Streams held back while their gap is repaired: snapshots spliced by the provider's rule, trades put into their hole,
last values put in their place, what does not fit let out.

The replies are read by schemas of their own; where they come from is the feed's business.
"""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfeed
from fastfeed import Clock, Flag
from fastfeed.records import Spliced
from fastfeed.schema import GIVEN, Message, Schema

FEED = Schema(
    Message("trade", match={"e": "trade"}, symbol="s", price="p", size="q", seq="t", event_time=("T", "ns")),
    Message("quote", match={"e": "quote"}, symbol="s", bid="b", ask="a", seq="u"),
    Message("quote", match={"e": "time"}, channel="time", symbol="s", bid="b", event_time=("T", "ns")),
    Message("depth", match={"e": "range"}, channel="range", symbol="s", bids="b", asks="a", first_seq="U", seq="u"),
    Message(
        "depth",
        match={"e": "linked"},
        channel="linked",
        symbol="s",
        bids="b",
        asks="a",
        first_seq="U",
        seq="u",
        prev_seq="pu",
    ),
    name="held",
)
BOOK = Schema(Message("depth", symbol=GIVEN, bids="bids", asks="asks", seq="lastUpdateId", snapshot=True))
TRADES = Schema(Message("trade", symbol=GIVEN, price="p", size="q", seq="id", event_time=("T", "ns")))
QUOTE = Schema(Message("quote", symbol=GIVEN, bid="bidPrice", ask="askPrice", event_time=("T", "ns")))
NUMBERED = Schema(Message("quote", symbol="symbol", bid="bidPrice", ask="askPrice", seq="u"))


class Held:
    def __init__(self, **kwargs: int) -> None:
        self.clock = Clock.manual()
        self.decoder = fastfeed.Decoder(FEED, clock=self.clock, **kwargs)
        self.reader = self.decoder.ring.reader()

    def trade(self, *ids: int) -> None:
        for n in ids:
            self.decoder.decode(b'{"e":"trade","s":"A","p":%d,"q":1,"t":%d,"T":%d}' % (n, n, n))

    def quote(self, *ids: int) -> None:
        for n in ids:
            self.decoder.decode(b'{"e":"quote","s":"A","b":%d,"a":%d,"u":%d}' % (n, n + 1, n))

    def range(self, first: int, last: int) -> None:
        self.decoder.decode(b'{"e":"range","s":"A","U":%d,"u":%d,"b":[["1","%d"]],"a":[]}' % (first, last, last))

    def linked(self, prev: int, first: int, last: int) -> None:
        self.decoder.decode(
            b'{"e":"linked","s":"A","U":%d,"u":%d,"pu":%d,"b":[["1","%d"]],"a":[]}' % (first, last, prev, last)
        )

    def book(self, channel: str, number: int) -> Spliced:
        reply = b'{"lastUpdateId":%d,"bids":[["1","7"],["2","8"]],"asks":[["3","9"]]}' % number
        return self.decoder.splice("A", channel, reply, BOOK)

    def fetched(self, *ids: int) -> Spliced:
        reply = orjson.dumps([{"id": n, "p": str(n), "q": "1", "T": n} for n in ids])
        return self.decoder.splice("A", "trade", reply, TRADES)

    def read(self) -> list[int]:
        """Numbers of the ticks in the ring; negative: after a gap; a fraction more: of a snapshot."""
        return [
            (-1 if t["flags"] & Flag.AFTER_GAP else 1) * int(t["seq"]) + (0.5 if t["flags"] & Flag.SNAPSHOT else 0)
            for t in self.reader.read()
        ]

    def count(self, *names: str) -> tuple[int, ...]:
        stats = self.decoder.stats()
        return tuple(stats[name] for name in names)

    def balances(self) -> bool:
        stats = self.decoder.stats()
        made = stats["ticks"] + stats["spliced"] - stats["superseded"] - stats["held"]
        return self.reader.ledger()["received"] == made


@pytest.fixture
def held() -> Held:
    return Held()


# ---- hold and release ----


def test_a_held_stream_goes_to_the_table_and_not_to_the_ring(held):
    held.trade(1)
    held.decoder.hold("A", "trade")
    held.trade(2, 3)
    held.quote(7)
    assert held.read() == [1, 7]
    assert held.decoder.prices["A"]["last"] == 3
    assert held.decoder.prices.arrived("trade")[0] == held.clock.mono_ns()
    assert held.count("held") == (2,)
    assert held.reader.ledger()["pending"] == 0
    assert held.decoder.release("A", "trade") == Spliced("released", 2)
    assert held.read() == [2, 3]
    held.trade(4)
    assert held.read() == [4]
    assert held.balances()


def test_release_flags_what_comes_behind_each_hole(held):
    held.trade(1)
    held.decoder.hold("A", "trade")
    held.trade(4, 5, 8)
    assert held.count("gaps") == (2,)
    assert held.decoder.release("A", "trade") == Spliced("released", 3, 2, 7)
    assert held.read() == [1, -4, 5, -8]
    assert held.decoder.prices["A"]["flags"] == Flag.AFTER_GAP


def test_repeats_keep_their_place_while_held(held):
    held.trade(1)
    held.decoder.hold("A", "trade")
    held.trade(2, 2, 3)
    held.decoder.release("A", "trade")
    ticks = held.reader.read()
    assert ticks["seq"].tolist() == [1, 2, 2, 3]
    assert ticks["flags"].tolist() == [0, 0, Flag.DUPLICATE, 0]


def test_what_is_not_held_cannot_be_released_or_spliced(held):
    assert held.decoder.release("A", "trade") == Spliced("not held")
    held.decoder.hold("A", "trade")
    held.decoder.release("A", "trade")
    assert held.decoder.release("A", "trade") == Spliced("not held")
    assert held.fetched(1) == Spliced("not held")
    with pytest.raises(fastfeed.ConfigError):
        held.decoder.hold("A", "nothing")


def test_holding_twice_is_holding_once(held):
    held.trade(1)
    held.decoder.hold("A", "trade")
    held.trade(2)
    held.decoder.hold("A", "trade")
    held.trade(3)
    assert held.decoder.release("A", "trade").ticks == 2


def test_a_full_store_ends_the_hold_and_says_so():
    held = Held(hold_ticks=3)
    held.range(1, 5)
    held.decoder.hold("A", "range")
    for n in range(6, 10):
        held.range(n, n)
    assert held.read() == [5, -6, 7, 8, 9]
    held.range(10, 10)
    assert held.read() == [10]
    assert held.book("range", 9) == Spliced("overflowed")
    assert held.book("range", 9) == Spliced("not held")
    assert held.balances()


def test_a_message_larger_than_the_store_is_flagged_itself():
    held = Held(hold_ticks=2)
    held.decoder.hold("A", "range")
    held.decoder.decode(b'{"e":"range","s":"A","U":1,"u":4,"b":[["1","1"],["2","1"],["3","1"]],"a":[]}')
    assert held.read() == [-4, -4, -4]
    assert held.decoder.release("A", "range") == Spliced("overflowed")


def test_a_symbol_may_be_held_before_it_ever_spoke(held):
    held.decoder.hold("A", "quote")
    held.quote(1)
    assert held.read() == []
    assert held.decoder.release("A", "quote") == Spliced("released", 1)


# ---- depth snapshots ----


def test_a_snapshot_comes_before_the_held_deltas_by_the_range_rule(held):
    held.range(1, 5)
    held.decoder.hold("A", "range")
    held.range(9, 10)
    held.range(11, 12)
    held.range(13, 15)
    assert held.book("range", 12) == Spliced("repaired", 4)
    ticks = held.reader.read()
    assert ticks["seq"].tolist() == [5, 12, 12, 12, 15]
    snapshot = ticks[1:4]
    assert snapshot["price"].tolist() == [1, 2, 3]
    assert [bool(f & Flag.LAST_LEVEL) for f in snapshot["flags"]] == [False, False, True]
    assert [bool(f & Flag.SELL) for f in snapshot["flags"]] == [False, False, True]
    assert all(f & Flag.SNAPSHOT for f in snapshot["flags"])
    assert ticks["flags"][4] == Flag.LAST_LEVEL
    assert held.count("superseded", "spliced", "held") == (2, 3, 0)
    held.range(16, 16)
    assert held.read() == [16]
    assert held.balances()


@pytest.mark.parametrize(("number", "outcome"), [(7, "too old"), (8, "repaired"), (9, "repaired"), (10, "repaired")])
def test_the_first_delta_kept_must_touch_the_snapshot_range(held, number, outcome):
    held.range(1, 5)
    held.decoder.hold("A", "range")
    held.range(9, 10)
    assert held.book("range", number).outcome == outcome
    assert held.read() == [5] + ([number + 0.5] * 3 + [10] * (number < 10) if outcome == "repaired" else [])


@pytest.mark.parametrize(
    ("number", "outcome", "kept"),
    [
        (148, "too old", []),
        (149, "repaired", [160, 170]),
        (156, "repaired", [160, 170]),
        (160, "repaired", [160, 170]),
        (161, "repaired", [170]),
        (170, "repaired", [170]),
    ],
)
def test_the_first_delta_kept_must_touch_the_snapshot_linked(held, number, outcome, kept):
    """u < id is dropped, u == id is not; `pu` 149 follows an id from 149 on, and U 157 leaves room between."""
    held.linked(90, 91, 100)
    held.decoder.hold("A", "linked")
    held.linked(149, 157, 160)
    held.linked(160, 163, 170)
    assert held.book("linked", number).outcome == outcome
    assert held.read() == [100] + [number + 0.5] * (3 * (outcome == "repaired")) + kept
    assert held.balances()


def test_a_too_old_snapshot_leaves_the_hold_on_for_the_next(held):
    held.range(1, 5)
    held.decoder.hold("A", "range")
    held.range(20, 21)
    assert held.book("range", 10) == Spliced("too old")
    held.range(22, 23)
    assert held.read() == [5]
    assert held.book("range", 21) == Spliced("repaired", 4)
    assert held.read() == [21.5] * 3 + [23]


def test_a_hole_behind_the_snapshot_makes_it_too_old(held):
    held.range(1, 5)
    held.decoder.hold("A", "range")
    held.range(8, 9)
    held.range(15, 16)
    assert held.book("range", 9).outcome == "too old"
    assert held.book("range", 14).outcome == "repaired"
    assert held.read() == [5] + [14.5] * 3 + [16]


def test_a_snapshot_ahead_of_the_stream_leaves_out_what_it_covers(held):
    """Ten deltas below it are neither duplicates nor a reset; the first above must follow on."""
    held.range(1, 5)
    held.decoder.hold("A", "range")
    assert held.book("range", 20) == Spliced("repaired", 3)
    for n in range(6, 21):
        held.range(n, n)
    held.range(19, 22)
    held.range(23, 24)
    held.range(27, 28)
    assert held.read() == [5] + [20.5] * 3 + [22, 24, -28]
    assert held.count("duplicates", "resets", "superseded", "gaps") == (0, 0, 15, 1)
    assert held.balances()


def test_a_linked_snapshot_ahead_of_the_stream_is_followed_too(held):
    held.linked(90, 91, 100)
    held.decoder.hold("A", "linked")
    assert held.book("linked", 115) == Spliced("repaired", 3)
    held.linked(100, 103, 110)
    held.linked(110, 112, 120)
    held.linked(120, 121, 130)
    held.linked(135, 136, 140)
    assert held.read() == [100] + [115.5] * 3 + [120, 130, -140]
    assert held.count("gaps", "duplicates", "resets") == (1, 0, 0)


def test_a_snapshot_behind_what_is_published_is_too_old(held):
    held.range(1, 5)
    held.range(9, 10)
    held.decoder.hold("A", "range")
    assert held.book("range", 9).outcome == "too old"
    assert held.book("range", 10).outcome == "repaired"


def test_what_the_reply_does_not_hold_changes_nothing(held):
    held.decoder.hold("A", "range")
    held.range(1, 2)
    for reply in (b"", b"{", b'{"code":-1121}', b'{"lastUpdateId":1,"bids":[["x","1"]],"asks":[]}'):
        assert held.decoder.splice("A", "range", reply, BOOK) == Spliced("unreadable")
    assert held.decoder.splice("A", "range", b'[{"id":1,"p":"1","q":"1"}]', TRADES) == Spliced("unreadable")
    assert held.read() == []
    assert held.count("held") == (1,)


LEVELS = 5


def book_after(i: int) -> dict[int, int]:
    """The true book after message `i`: message n sets level n % LEVELS to n."""
    return {n % LEVELS: n for n in range(max(1, i - LEVELS + 1), i + 1)}


@settings(max_examples=400, deadline=None)
@given(
    linked=st.booleans(),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("deltas"), st.integers(1, 4)),
            st.tuples(st.just("lose"), st.integers(1, 4)),
            st.tuples(st.just("fetch"), st.integers(-6, 3)),
            st.tuples(st.just("hold"), st.just(0)),
        ),
        min_size=3,
        max_size=30,
    ),
)
def test_a_book_built_from_the_ring_is_right_whenever_it_was_repaired(linked, steps):
    """Deltas, losses, holds and snapshots of any age: what a reader builds is the true book, unless it was told."""
    held = Held()
    channel = "linked" if linked else "range"
    sent = 0
    published = 0
    book: dict[int, int] = {}
    good = False
    for step, n in [("hold", 0), *steps]:
        if step == "hold":
            held.decoder.hold("A", channel)
        elif step == "lose":
            sent += n
        elif step == "deltas":
            for i in range(sent + 1, sent + n + 1):
                number = b'"U":%d,"u":%d,"pu":%d' % (10 * i - 4 * linked, 10 * i + 5, 10 * i - 5)
                if not linked:
                    number = b'"U":%d,"u":%d' % (10 * i - 4, 10 * i + 5)
                held.decoder.decode(
                    b'{"e":"%s","s":"A",%s,"b":[["%d","%d"]],"a":[]}' % (channel.encode(), number, i % LEVELS, i)
                )
            sent += n
        else:
            at = max(1, sent + n)
            bids = [[str(price), str(size)] for price, size in book_after(at).items()]
            reply = orjson.dumps({"lastUpdateId": 10 * at + 5, "bids": bids, "asks": []})
            outcome = held.decoder.splice("A", channel, reply, BOOK).outcome
            assert outcome in ("repaired", "too old", "not held")
        fresh = False
        for tick in held.reader.read():
            if tick["flags"] & Flag.SNAPSHOT:
                if not fresh:
                    book, fresh, good = {}, True, True
            else:
                fresh = False
                good = good and not tick["flags"] & Flag.AFTER_GAP
            book[int(tick["price"])] = int(tick["size"])
            published = (int(tick["seq"]) - 5) // 10
            if good and not fresh:
                assert book == book_after(published)
        if good:
            assert book == book_after(published)
        assert held.balances()
    assert held.count("duplicates", "resets") == (0, 0)


# ---- missing trades ----


def test_missing_trades_go_into_the_hole(held):
    held.trade(1, 2)
    held.decoder.hold("A", "trade")
    held.trade(6, 7)
    assert held.fetched(1, 2, 3, 4, 5, 6) == Spliced("repaired", 5)
    assert held.read() == [1, 2, 3, 4, 5, 6, 7]
    row = held.decoder.prices["A"]
    assert (row["last"], row["updates"], row["flags"]) == (7, 4, Flag.AFTER_GAP)
    held.decoder.prices.repaired("A")
    assert held.decoder.prices["A"]["flags"] == 0
    held.trade(8)
    assert held.read() == [8]
    assert held.balances()


def test_half_the_missing_trades_leave_the_rest_missing(held):
    held.trade(1, 2)
    held.decoder.hold("A", "trade")
    held.trade(9)
    assert held.fetched(3, 4, 8) == Spliced("missing", 0, 5, 7)
    assert held.read() == [1, 2]
    assert held.fetched(6) == Spliced("missing", 0, 5, 7)
    assert held.decoder.release("A", "trade") == Spliced("released", 5, 5, 7)
    assert held.read() == [3, 4, -6, -8, 9]
    assert held.balances()


def test_trades_newest_first_are_put_in_order(held):
    held.trade(1)
    held.decoder.hold("A", "trade")
    held.trade(5)
    assert held.fetched(6, 5, 4, 3, 2) == Spliced("repaired", 5)
    assert held.read() == [1, 2, 3, 4, 5, 6]
    assert held.count("gaps") == (1,)


def test_trades_above_the_last_are_new_and_what_the_stream_repeats_of_them_is_left_out(held):
    held.trade(1)
    held.decoder.hold("A", "trade")
    assert held.fetched(2, 3, 4) == Spliced("repaired", 3)
    assert held.decoder.prices["A"]["last"] == 4
    held.trade(*range(2, 7))
    assert held.read() == [1, 2, 3, 4, 5, 6]
    assert held.count("gaps", "duplicates", "superseded") == (0, 0, 3)
    assert held.balances()


def test_a_gap_told_before_the_hold_is_repaired_behind_what_is_published(held):
    held.trade(1, 5, 6)
    held.decoder.hold("A", "trade")
    held.trade(7)
    assert held.fetched(2, 3, 4) == Spliced("repaired", 4)
    assert held.read() == [1, -5, 6, 2, 3, 4, 7]


def test_a_gap_that_was_released_is_not_looked_for_again(held):
    held.trade(1, 5)
    held.decoder.hold("A", "trade")
    assert held.decoder.release("A", "trade") == Spliced("released", 0, 2, 4)
    held.decoder.hold("A", "trade")
    held.trade(6)
    assert held.fetched(3) == Spliced("repaired", 1)
    assert held.read() == [1, -5, 6]


def test_another_symbols_gap_is_not_this_ones(held):
    held.trade(1)
    for n in (1, 5):
        held.decoder.decode(b'{"e":"trade","s":"B","p":1,"q":1,"t":%d}' % n)
    held.decoder.hold("A", "trade")
    held.trade(2)
    assert held.fetched(1) == Spliced("repaired", 1)


def test_no_room_for_fetched_trades_ends_the_hold():
    held = Held(hold_ticks=3)
    held.trade(1)
    held.decoder.hold("A", "trade")
    held.trade(9)
    assert held.fetched(2, 3, 4, 5) == Spliced("overflowed", 3)
    assert held.read() == [1, -2, 3, -9]
    assert held.balances()


# ---- last values ----


def test_a_last_value_goes_to_ring_and_row_by_time(held):
    held.decoder.hold("A", "time")
    assert held.decoder.splice("A", "time", b'{"bidPrice":"5","askPrice":"6","T":100}', QUOTE).outcome == "repaired"
    (tick,) = held.reader.read()
    assert (tick["flags"], tick["bid"], tick["ask"], tick["event_ns"]) == (Flag.SNAPSHOT, 5, 6, 100)
    assert held.decoder.prices["A"]["bid"] == 5
    assert not held.decoder.prices.is_fresh("A", 1e6), "what was fetched is not the stream"
    for at in (98, 99, 100, 101):
        held.decoder.decode(b'{"e":"time","s":"A","b":%d,"T":%d}' % (at, at))
    assert held.reader.read()["event_ns"].tolist() == [100, 101]
    assert held.count("superseded", "duplicates") == (2, 0)


def test_an_older_last_value_leaves_the_row(held):
    held.quote(5)
    held.decoder.hold("A", "quote")
    held.quote(10)
    reply = b'{"symbol":"A","bidPrice":"7","askPrice":"8","u":7}'
    assert held.decoder.splice("A", "quote", reply, NUMBERED) == Spliced("repaired", 2)
    assert held.decoder.prices["A"]["bid"] == 10
    assert held.read() == [5, 7.5, 10]


def test_a_newer_last_value_is_the_row_until_the_stream_has_passed_it(held):
    held.quote(5)
    held.decoder.hold("A", "quote")
    held.quote(10)
    reply = b'{"symbol":"A","bidPrice":"70","askPrice":"80","u":70}'
    assert held.decoder.splice("A", "quote", reply, NUMBERED) == Spliced("repaired", 2)
    assert held.decoder.prices["A"]["bid"] == 70
    held.quote(*range(11, 70, 3), 71)
    assert held.decoder.prices["A"]["bid"] == 71
    assert held.read() == [5, 10, 70.5, 71]
    assert held.count("duplicates", "resets") == (0, 0)
    assert held.balances()


def test_the_last_value_of_another_symbol_is_passed_over(held):
    held.decoder.hold("A", "quote")
    reply = b'[{"symbol":"B","bidPrice":"7","askPrice":"8","u":7},{"symbol":"A","bidPrice":"1","askPrice":"2","u":3}]'
    assert held.decoder.splice("A", "quote", reply, NUMBERED) == Spliced("repaired", 1)
    assert held.read() == [3.5]
    assert "B" not in held.decoder.prices


def test_a_live_frame_is_never_read_as_a_message_without_symbol():
    decoder = fastfeed.Decoder(BOOK)
    assert decoder.decode(b'{"lastUpdateId":1,"bids":[["1","1"]],"asks":[]}') == 0
    assert decoder.stats()["unknown"] == 1


# ---- with two legs ----


def test_a_hold_and_two_legs_go_together(held):
    held.decoder.leg(1, 1)
    held.decoder.arbitrate(True)
    held.trade(1)
    held.decoder.hold("A", "trade")
    held.trade(5)
    for n in (1, 3):
        held.decoder.decode(b'{"e":"trade","s":"A","p":%d,"q":1,"t":%d}' % (n, n), source=1)
    held.clock.advance(2_000_000_000)
    assert held.decoder.expire() == 1  # 4; that 2 is missing on both was told by 3
    assert held.fetched(2) == Spliced("missing", 0, 4, 4)
    assert held.fetched(4) == Spliced("repaired", 4)
    assert held.read() == [1, 2, 3, 4, 5]
    assert held.balances()


def walk() -> st.SearchStrategy[list[tuple[str, int]]]:
    """Steps of two legs that lose trades, come and go, and of a session that holds, fetches, releases and expires."""
    return st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["deliver 0", "deliver 1"]), st.integers(1, 6)),
            st.tuples(st.sampled_from(["deliver 0", "deliver 1"]), st.integers(1, 6)),
            st.tuples(st.sampled_from(["lose 0", "lose 1"]), st.integers(1, 3)),
            st.tuples(st.just("fetch"), st.integers(1, 8)),
            st.tuples(st.sampled_from(["hold", "release", "wait", "two", "one"]), st.integers(0, 1)),
        ),
        min_size=5,
        max_size=40,
    )


@settings(max_examples=600, deadline=None)
@given(steps=walk(), hold_ticks=st.sampled_from([1, 3, 8, 1000]))
def test_no_trade_is_published_twice_and_none_vanishes_untold(steps, hold_ticks):
    """Whatever happens: each number at most once, every one that is not there is in a gap, and the books balance."""
    held = Held(hold_ticks=hold_ticks)
    held.decoder.leg(1, 1)
    held.decoder.arbitrate(True, patience=1.0)
    at = [1, 1]
    left = None  # the one leg, while there is only one
    spoken = late = False
    seen: list[int] = []
    for step, n in [("deliver 0", 1), *steps]:
        what, _, leg_name = step.partition(" ")
        leg = int(leg_name or 0)
        if what in ("deliver", "lose") and left in (None, leg):
            for number in range(at[leg], at[leg] + n) if what == "deliver" else ():
                held.decoder.decode(b'{"e":"trade","s":"A","p":%d,"q":1,"t":%d}' % (number, number), source=leg)
            at[leg] += n
            spoken = spoken or what == "deliver"
        elif what == "hold":
            held.decoder.hold("A", "trade")
            late = late or held.count("gaps")[0] > 0  # the gap told before is repaired behind what is published
        elif what == "release":
            held.decoder.release("A", "trade")
        elif what == "fetch":
            held.fetched(*range(max(1, min(at) - 4), min(at) + n))
        elif what == "wait":
            held.clock.advance(200_000_000)
            held.decoder.expire()
        elif what == "two" and left is not None:
            held.decoder.arbitrate(True)
            left, spoken = None, False
        elif what == "one" and left is None and spoken:
            held.decoder.arbitrate(False)
            left = n
        seen += [abs(int(number)) for number in held.read()]
        assert held.balances()
        assert held.count("held")[0] <= hold_ticks
    held.decoder.release("A", "trade")
    held.decoder.expire(held.clock.mono_ns() + 10**12)
    seen += [abs(int(number)) for number in held.read()]
    assert len(seen) == len(set(seen))
    assert late or seen == sorted(seen)
    told = {number for gap in held.decoder.gaps() for number in range(gap.first, gap.last + 1)}
    assert set(range(1, max(seen) + 1)) - set(seen) <= told
    assert held.count("held", "duplicates", "resets") == (0, 0, 0)
    assert held.decoder.deadline is None
