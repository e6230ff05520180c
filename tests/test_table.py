"""The price table behaves as a dict of rows with one conflating cursor per consumer; every consumer's books balance.

Frames go in through a decoder; no network.
"""

import gc
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import DictTable

import fastfeed
from fastfeed.schema import Message, Schema

TIME = ("T", "ns")
SCHEMA = Schema(
    Message(
        "quote", match={"e": "q"}, symbol="s", bid="b", bid_size="B", ask="a", ask_size="A", seq="u", event_time=TIME
    ),
    Message("trade", match={"e": "t"}, symbol="s", price="p", size="z", seq="u", event_time=TIME, sequence="rising"),
    name="table",
)
MARK = b'{"e":"markPriceUpdate","E":9,"s":"A","p":"11","i":"12","P":"13","r":"0.1","T":9}'
DEPTH = b'{"e":"depthUpdate","E":9,"T":9,"s":"A","U":6,"u":7,"pu":5,"b":[["1","0"]],"a":[["5","6"]]}'
UNFIT = [None, np.zeros(4), np.zeros(0, fastfeed.PRICE_DTYPE), np.zeros(4, fastfeed.TICK_DTYPE), b"x" * 128]


def quote(symbol: str, seq: int, bid="1", event_ns: int = 0) -> bytes:
    return f'{{"e":"q","s":"{symbol}","u":{seq},"b":"{bid}","B":"2","a":"3","A":"4","T":{event_ns}}}'.encode()


def trade(symbol: str, seq: int, price="5", event_ns: int = 0) -> bytes:
    return f'{{"e":"t","s":"{symbol}","u":{seq},"p":"{price}","z":"6","T":{event_ns}}}'.encode()


def by_symbol(decoder: fastfeed.Decoder, rows: np.ndarray) -> dict[str, tuple[float, int]]:
    """symbol -> (bid, conflated); a symbol comes once in a read."""
    found = {decoder.prices.symbols[row["symbol_id"]]: (float(row["bid"]), int(row["conflated"])) for row in rows}
    assert len(found) == len(rows)
    return found


def agrees(ledger: dict, twin: dict) -> bool:
    """Equal; what is unread may be counted as pending or, where already overtaken, as conflated."""
    unread = twin["conflated"] + twin["pending"]
    exact = ("received", "delivered", "dropped") if twin["pending"] else tuple(twin)
    same = all(ledger[term] == twin[term] for term in exact)
    return (
        same and ledger["conflated"] + ledger["pending"] == unread and bool(ledger["pending"]) == bool(twin["pending"])
    )


def balances(ledger: dict) -> bool:
    return ledger["received"] == sum(ledger[term] for term in ("delivered", "conflated", "dropped", "pending"))


@pytest.fixture
def decoder() -> fastfeed.Decoder:
    return fastfeed.Decoder(SCHEMA)


def test_a_row_holds_the_newest_quote_and_trade(decoder):
    decoder.decode(quote("A", 1, event_ns=10), recv_ns=11)
    decoder.decode(trade("A", 7, event_ns=20), recv_ns=21)
    decoder.decode(quote("A", 2, bid="1.5", event_ns=30), recv_ns=31)
    row = decoder.prices["A"]
    prices = [float(row[name]) for name in ("bid", "bid_size", "ask", "ask_size", "last", "last_size")]
    assert prices == [1.5, 2, 3, 4, 5, 6]
    assert [int(row[name]) for name in ("event_ns", "recv_ns", "seq", "updates")] == [30, 31, 2, 3]
    assert [int(row[name]) for name in ("quote_seq", "quote_event_ns", "trade_seq", "trade_event_ns")] == [2, 30, 7, 20]
    assert int(row["version"]) % 2 == 0


def test_what_never_came_is_nan(decoder):
    decoder.decode(trade("A", 1))
    row = decoder.prices["A"]
    assert math.isnan(row["bid"])
    assert math.isnan(row["ask_size"])
    assert row["last"] == 5.0


def test_an_absent_field_leaves_the_row(decoder):
    decoder.decode(quote("A", 1))
    decoder.decode(b'{"e":"q","s":"A","u":2,"a":"9"}')
    row = decoder.prices["A"]
    assert (row["bid"], row["bid_size"], row["ask"], row["ask_size"]) == (1, 2, 9, 4)


def test_a_withdrawn_price_does_not_live_on(decoder):
    ticks = decoder.ring.reader()
    decoder.decode(quote("A", 1))
    assert decoder.decode(b'{"e":"q","s":"A","u":2,"b":null,"B":null,"a":"9","A":"1"}') == 1
    row = decoder.prices["A"]
    assert math.isnan(row["bid"])
    assert math.isnan(row["bid_size"])
    assert row["ask"] == 9
    assert math.isnan(ticks.read()["bid"][1])


def test_a_string_declared_as_no_value_withdraws_the_price():
    schema = Schema(Message("quote", symbol="s", bid="b", ask="a", seq="u", null=("", "-")))
    decoder = fastfeed.Decoder(schema)
    decoder.decode(b'{"s":"A","b":"1","a":"2","u":1}')
    for empty in (b"", b"-"):
        decoder.decode(b'{"s":"A","b":"1","a":"2","u":%d}' % (decoder.stats()["frames"] + 1))
        assert decoder.decode(b'{"s":"A","b":"%s","a":"2","u":%d}' % (empty, decoder.stats()["frames"] + 1)) == 1
        assert math.isnan(decoder.prices["A"]["bid"])
        assert decoder.prices["A"]["ask"] == 2


def test_an_older_quote_never_overwrites_a_newer_row(decoder):
    decoder.decode(quote("A", 10, bid="10"))
    decoder.decode(quote("A", 9, bid="9"))
    decoder.decode(quote("A", 10, bid="8"))
    assert decoder.prices["A"]["bid"] == 10
    assert decoder.prices["A"]["updates"] == 1


def test_the_array_is_a_live_read_only_view(decoder):
    array = decoder.prices.array
    decoder.decode(quote("A", 1))
    decoder.decode(quote("B", 1, bid="7"))
    array = decoder.prices.array
    assert array.dtype == fastfeed.PRICE_DTYPE
    assert len(array) == len(decoder.prices) == 2
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array["bid"] = 0
    decoder.decode(quote("B", 2, bid="8"))
    assert array["bid"][1] == 8


def test_rows_never_move_under_a_view():
    decoder = fastfeed.Decoder(SCHEMA, max_symbols=4096)
    decoder.decode(quote("S0", 1))
    view = decoder.prices.array
    for number in range(1, 3000):
        decoder.decode(quote(f"S{number}", 1))
    decoder.decode(quote("S0", 2, bid="42"))
    assert view["bid"][0] == 42
    assert len(decoder.prices.array) == 3000


def test_a_row_taken_by_name_is_a_copy(decoder):
    decoder.decode(quote("A", 1))
    row = decoder.prices["A"]
    decoder.decode(quote("A", 2, bid="2"))
    assert row["bid"] == 1


def test_the_table_knows_its_symbols(decoder):
    decoder.decode(quote("A", 1))
    decoder.decode(quote("B", 1))
    prices = decoder.prices
    assert list(prices.symbols) == ["A", "B"]
    assert prices.symbols[1] == "B"
    assert len(prices.symbols) == 2
    assert "A" in prices
    assert "Z" not in prices
    assert prices.id("B") == 1
    assert prices.id("Z") is None
    assert [prices.symbols[i] for i in prices.array["symbol_id"]] == ["A", "B"]
    with pytest.raises(KeyError, match="Z"):
        prices["Z"]


def test_a_view_outlives_the_decoder():
    decoder = fastfeed.Decoder(SCHEMA)
    decoder.decode(quote("A", 1))
    array, prices = decoder.prices.array, decoder.prices
    del decoder
    gc.collect()
    assert array["bid"][0] == 1
    assert prices["A"]["bid"] == 1


def test_updates_count_what_was_merged(decoder):
    decoder.decode(quote("A", 1))
    decoder.decode(quote("B", 1))
    decoder.decode(quote("A", 2))
    decoder.decode(quote("A", 1))
    assert decoder.prices.updates == 3


# ---- readers ----


def test_a_reader_gets_the_newest_row_of_each_symbol_that_changed(decoder):
    reader = decoder.prices.reader()
    assert not reader.ready
    for seq in range(1, 6):
        decoder.decode(quote("A", seq, bid=str(seq)))
    decoder.decode(quote("B", 1))
    assert reader.ready
    rows = reader.read()
    assert rows.dtype == fastfeed.PRICE_DTYPE
    assert by_symbol(decoder, rows) == {"A": (5, 4), "B": (1, 0)}
    assert not reader.ready
    assert len(reader.read()) == 0
    assert reader.ledger() == {"received": 6, "delivered": 2, "conflated": 4, "dropped": 0, "pending": 0}


def test_a_reader_counts_from_when_it_attached(decoder):
    decoder.decode(quote("A", 1))
    reader = decoder.prices.reader()
    assert not reader.ready
    decoder.decode(quote("A", 2))
    rows = reader.read()
    assert list(rows["conflated"]) == [0]
    assert reader.ledger()["received"] == 1


def test_what_is_not_merged_is_not_received(decoder):
    reader = decoder.prices.reader()
    decoder.decode(quote("A", 5))
    decoder.decode(quote("A", 4))
    decoder.decode(b'{"e":"q","s":"A","u":"x"}')
    assert reader.ledger()["received"] == 1


def test_rows_read_are_owned(decoder):
    reader = decoder.prices.reader()
    decoder.decode(quote("A", 1))
    rows = reader.read()
    decoder.decode(quote("A", 2, bid="2"))
    assert rows["bid"][0] == 1
    rows["bid"] = 5
    assert decoder.prices["A"]["bid"] == 2


def test_only_what_changed_is_read(decoder):
    reader = decoder.prices.reader()
    for symbol in "ABCDE":
        decoder.decode(quote(symbol, 1))
    reader.read()
    for seq, symbol in enumerate("CAECB", 2):
        decoder.decode(quote(symbol, seq))
    assert by_symbol(decoder, reader.read()) == {"C": (1, 1), "A": (1, 0), "E": (1, 0), "B": (1, 0)}


def test_a_small_buffer_is_drained_by_calling_again(decoder):
    reader = decoder.prices.reader()
    for number in range(10):
        decoder.decode(quote(f"S{number}", 1, bid=str(number)))
    out = np.zeros(4, fastfeed.PRICE_DTYPE)
    bids = []
    while True:
        count = reader.drain(out)
        bids += list(out["bid"][:count])
        if count < len(out):
            break
    assert sorted(bids) == list(range(10))
    assert reader.ledger() == {"received": 10, "delivered": 10, "conflated": 0, "dropped": 0, "pending": 0}


def test_what_changes_between_two_drains_is_delivered(decoder):
    reader = decoder.prices.reader()
    for number in range(6):
        decoder.decode(quote(f"S{number}", 1))
    out = np.zeros(4, fastfeed.PRICE_DTYPE)
    assert reader.drain(out) == 4
    for number in range(6):
        decoder.decode(quote(f"S{number}", 2, bid="9"))
    newest, conflated = {}, 0
    while count := reader.drain(out):
        newest |= {int(row["symbol_id"]): float(row["bid"]) for row in out[:count]}
        conflated += int(out["conflated"][:count].sum())
    assert newest == dict.fromkeys(range(6), 9.0)
    assert conflated == 2
    assert reader.ledger() == {"received": 12, "delivered": 10, "conflated": 2, "dropped": 0, "pending": 0}


@pytest.mark.parametrize("wrong", UNFIT)
def test_an_unfit_buffer_is_refused_and_nothing_is_lost(decoder, wrong):
    reader = decoder.prices.reader()
    decoder.decode(quote("A", 1))
    with pytest.raises((TypeError, ValueError)):
        reader.drain(wrong)
    assert reader.ledger()["pending"] == 1
    assert len(reader.read()) == 1


def test_a_read_only_buffer_is_refused(decoder):
    reader = decoder.prices.reader()
    decoder.decode(quote("A", 1))
    out = np.zeros(4, fastfeed.PRICE_DTYPE)
    out.flags.writeable = False
    with pytest.raises((TypeError, ValueError, BufferError)):
        reader.drain(out)


def test_what_is_too_old_when_it_would_be_delivered_is_dropped():
    clock = fastfeed._core.Clock.manual(mono_ns=10**9, utc_ns=10**18)
    decoder = fastfeed.Decoder(SCHEMA, clock=clock)
    shedding, patient = decoder.prices.reader(max_age=2.0), decoder.prices.reader()
    decoder.decode(quote("A", 1), recv_ns=clock.utc_ns())
    decoder.decode(quote("A", 2), recv_ns=clock.utc_ns())
    clock.advance(3 * 10**9)
    decoder.decode(quote("B", 1), recv_ns=clock.utc_ns())
    assert [decoder.prices.symbols[i] for i in shedding.read()["symbol_id"]] == ["B"]
    assert len(patient.read()) == 2
    ledger = shedding.ledger()
    assert ledger["received"] == 3
    assert ledger["delivered"] == 1
    assert ledger["dropped"] >= 1
    assert balances(ledger)
    decoder.decode(quote("A", 3), recv_ns=clock.utc_ns())
    assert list(shedding.read()["seq"]) == [3]
    assert balances(shedding.ledger())


@pytest.mark.parametrize("max_age", [-1.0, math.nan])
def test_an_impossible_age_is_a_config_error(decoder, max_age):
    with pytest.raises(fastfeed.ConfigError):
        decoder.prices.reader(max_age=max_age)


def test_a_closed_reader_is_quiet(decoder):
    reader = decoder.prices.reader()
    decoder.decode(quote("A", 1))
    reader.close()
    reader.close()
    decoder.decode(quote("A", 2))
    assert not reader.ready
    assert len(reader.read()) == 0


def test_forgotten_readers_leave_nothing_behind(decoder):
    for _ in range(2000):
        decoder.prices.reader()
    gc.collect()
    reader = decoder.prices.reader()
    decoder.decode(quote("A", 1))
    assert len(reader.read()) == 1


def test_whatever_dies_in_a_reference_cycle_is_collected(decoder):
    reader = decoder.prices.reader()
    for _ in range(300):
        other = fastfeed.Decoder(SCHEMA, max_symbols=16, ring_capacity=16)
        other.decode(quote("A", 1))
        cycle: dict = {
            "decoder": other,
            "prices": other.prices,
            "rows": other.prices.reader(),
            "array": other.prices.array,
        }
        cycle |= {"ring": other.ring, "ticks": other.ring.reader(), "symbols": other.prices.symbols}
        cycle["cycle"] = cycle
        rows: dict = {"rows": other.prices.reader(), "mine": decoder.prices.reader()}
        rows["cycle"] = rows
    del other, cycle, rows
    gc.collect()
    decoder.decode(quote("A", 1))
    assert len(reader.read()) == 1


@pytest.mark.parametrize("count", [1, 4, 16])
def test_readers_at_different_paces_each_balance(count):
    choose = random.Random(count)
    decoder, oracle = fastfeed.Decoder(SCHEMA), DictTable()
    readers = [decoder.prices.reader() for _ in range(count)]
    twins = [oracle.reader() for _ in range(count)]
    symbols = [f"S{number}" for number in range(50)]
    for seq in range(1, 20_001):
        symbol = symbols[min(int(choose.paretovariate(0.7)) - 1, 49)]
        decoder.decode(quote(symbol, seq, bid=str(seq)))
        oracle.update(symbol, seq)
        for pace, (reader, twin) in enumerate(zip(readers, twins, strict=True), 1):
            if seq % (pace * pace * 7) == 0:
                rows = reader.read()
                assert by_symbol(decoder, rows) == twin.read()
                assert agrees(reader.ledger(), twin.ledger())
                assert balances(reader.ledger())
    for reader, twin in zip(readers, twins, strict=True):
        assert agrees(reader.ledger(), twin.ledger())
        assert reader.ledger()["received"] == 20_000


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.integers(0, 6)),
        st.tuples(st.just("read"), st.integers(0, 3)),
        st.tuples(st.just("drain"), st.integers(0, 3)),
        st.tuples(st.just("attach")),
        st.tuples(st.just("close"), st.integers(0, 3)),
    ),
    max_size=80,
)


@given(steps=STEPS)
@settings(max_examples=300, deadline=None)
def test_the_table_is_a_dict_with_conflating_cursors(steps):
    decoder, oracle = fastfeed.Decoder(SCHEMA), DictTable()
    pairs = [(decoder.prices.reader(), oracle.reader())]
    out = np.zeros(100, fastfeed.PRICE_DTYPE)
    for seq, step in enumerate(steps, 1):
        if step[0] == "update":
            decoder.decode(quote(f"S{step[1]}", seq, bid=str(seq)))
            oracle.update(f"S{step[1]}", seq)
        elif step[0] == "attach":
            pairs.append((decoder.prices.reader(), oracle.reader()))
        elif step[0] == "close" and len(pairs) > 1:
            pairs.pop(step[1] % len(pairs))[0].close()
        elif step[0] in ("read", "drain"):
            reader, twin = pairs[step[1] % len(pairs)]
            rows = reader.read() if step[0] == "read" else out[: reader.drain(out)]
            assert by_symbol(decoder, rows) == twin.read()
        for reader, twin in pairs:
            assert agrees(reader.ledger(), twin.ledger())
            assert reader.ready == bool(twin.ledger()["pending"])


def test_a_long_burst_without_reading_stays_bounded_and_balances(decoder):
    """Far more updates than any change log keeps: nothing is lost, only conflated."""
    reader = decoder.prices.reader()
    frames = [quote(f"S{number % 500}", 1 + number // 500, bid=str(number)) for number in range(500 * 40)]
    for start in range(10):
        decoder.connected(0)
        decoder.decode_many([f.replace(b'"u":', b'"u":%d0' % (start + 1)) for f in frames[: 500 * 20]])
    ledger = reader.ledger()
    assert balances(ledger)
    assert ledger["received"] == decoder.prices.updates
    rows = reader.read()
    assert len(rows) == 500
    assert int(rows["conflated"].sum()) + 500 == ledger["received"]
    assert balances(reader.ledger())


def test_marks_and_levels_do_not_touch_the_table():
    decoder = fastfeed.Decoder("binance-usdm")
    decoder.decode(b'{"e":"bookTicker","u":5,"s":"A","b":"1","B":"2","a":"3","A":"4","T":7,"E":8}')
    before = decoder.prices["A"].tobytes()
    reader = decoder.prices.reader()
    assert decoder.decode(DEPTH) == 2
    assert decoder.decode(MARK) == 1
    assert decoder.prices["A"].tobytes() == before
    assert not reader.ready
