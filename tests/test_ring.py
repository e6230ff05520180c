"""The tick ring behaves as a bounded deque with a cursor per reader: order kept, oldest overwritten, loss counted.

Pure: no decoder, no threads but where the test is about them.
"""

import gc
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import DequeRing

import fastfeed


def numbered(first: int, count: int) -> np.ndarray:
    """`count` ticks whose every field tells their number."""
    ticks = np.zeros(count, fastfeed.TICK_DTYPE)
    numbers = np.arange(first, first + count)
    ticks["seq"] = ticks["event_ns"] = ticks["recv_ns"] = numbers
    ticks["symbol_id"] = numbers % 1000
    ticks["kind"] = fastfeed.Kind.QUOTE
    ticks["bid"] = ticks["ask_size"] = numbers
    return ticks


def test_what_is_published_is_read_in_order_and_whole():
    ring = fastfeed.TickRing(16)
    reader = ring.reader()
    ring.publish(numbered(0, 5))
    ring.publish(numbered(5, 3))
    got = reader.read()
    assert got.dtype == fastfeed.TICK_DTYPE
    assert got.tobytes() == numbered(0, 8).tobytes()
    assert len(reader.read()) == 0


def test_a_reader_starts_at_the_present():
    ring = fastfeed.TickRing(16)
    ring.publish(numbered(0, 5))
    reader = ring.reader()
    assert not reader.ready
    ring.publish(numbered(5, 1))
    assert reader.ready
    assert list(reader.read()["seq"]) == [5]
    assert reader.lost == 0
    assert reader.ledger() == {"received": 1, "delivered": 1, "conflated": 0, "dropped": 0, "pending": 0}


def test_at_most_max_ticks_are_read():
    ring = fastfeed.TickRing(16)
    reader = ring.reader()
    ring.publish(numbered(0, 10))
    assert list(reader.read(3)["seq"]) == [0, 1, 2]
    assert list(reader.read(max=4)["seq"]) == [3, 4, 5, 6]
    assert reader.ledger()["pending"] == 3
    assert list(reader.read(100)["seq"]) == [7, 8, 9]


def test_a_lapped_reader_loses_the_oldest_and_knows_how_many():
    ring = fastfeed.TickRing(16)
    reader = ring.reader()
    ring.publish(numbered(0, 100))
    got = list(reader.read()["seq"])
    assert got == list(range(100 - len(got), 100))
    assert 0 < len(got) <= 16
    assert reader.lost == 100 - len(got)
    ledger = reader.ledger()
    assert ledger["received"] == 100
    assert ledger["delivered"] == len(got)
    assert ledger["dropped"] == reader.lost


def test_each_reader_has_its_own_place_and_loss():
    ring = fastfeed.TickRing(16)
    slow, quick = ring.reader(), ring.reader()
    seen = []
    for start in range(0, 80, 4):
        ring.publish(numbered(start, 4))
        seen += list(quick.read()["seq"])
    assert seen == list(range(80))
    assert quick.lost == 0
    slow.read()
    assert slow.lost >= 64


def test_what_was_read_is_owned_by_the_reader():
    ring = fastfeed.TickRing(16)
    reader = ring.reader()
    ring.publish(numbered(0, 4))
    got = reader.read()
    kept = got.tobytes()
    ring.publish(numbered(100, 64))
    assert got.tobytes() == kept
    assert got.flags.owndata or got.base is not None
    got["bid"] = 0
    assert got.flags.writeable


@pytest.mark.parametrize("capacity", [0, -1, 2**62])
def test_an_impossible_capacity_is_a_config_error(capacity):
    with pytest.raises(fastfeed.ConfigError, match=str(capacity)):
        fastfeed.TickRing(capacity)


@pytest.mark.parametrize("capacity", [1, 2, 3, 1000])
def test_at_least_the_capacity_is_kept(capacity):
    ring = fastfeed.TickRing(capacity)
    reader = ring.reader()
    ring.publish(numbered(0, capacity))
    assert list(reader.read()["seq"]) == list(range(capacity))
    assert reader.lost == 0


def test_what_is_no_tick_array_is_refused():
    ring = fastfeed.TickRing(16)
    for wrong in (np.zeros(3), np.zeros(3, fastfeed.PRICE_DTYPE), b"x" * 63, None):
        with pytest.raises((TypeError, ValueError)):
            ring.publish(wrong)
    assert ring.published == 0


def test_a_closed_reader_costs_nothing_and_says_so():
    ring = fastfeed.TickRing(16)
    reader = ring.reader()
    ring.publish(numbered(0, 4))
    reader.close()
    reader.close()
    ring.publish(numbered(4, 4))
    assert not reader.ready
    assert len(reader.read()) == 0


def test_a_reader_keeps_its_ring_alive():
    ring = fastfeed.TickRing(16)
    reader = ring.reader()
    ring.publish(numbered(0, 4))
    del ring
    assert list(reader.read()["seq"]) == [0, 1, 2, 3]


def test_a_reader_in_a_reference_cycle_is_collected():
    """As when a strategy holds its reader and its feed's callback holds the strategy."""
    ring = fastfeed.TickRing(16)
    kept = ring.reader()
    for _ in range(500):
        cycle: dict = {"reader": ring.reader(), "ring": ring}
        cycle["cycle"] = cycle
        lonely: dict = {"reader": fastfeed.TickRing(16).reader()}
        lonely["cycle"] = lonely
    del cycle, lonely
    gc.collect()
    ring.publish(numbered(0, 4))
    assert list(kept.read()["seq"]) == [0, 1, 2, 3]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 40)),
        st.tuples(st.just("read"), st.integers(0, 4), st.none() | st.integers(1, 12)),
        st.tuples(st.just("attach")),
    ),
    max_size=60,
)


@given(operations=OPERATIONS)
@settings(max_examples=300, deadline=None)
def test_the_ring_is_a_deque_with_cursors(operations):
    capacity = 16
    ring, oracle = fastfeed.TickRing(capacity), DequeRing(capacity)
    readers, twins, next_number = [], [], 0
    for operation in [("attach",), *operations]:
        if operation[0] == "attach" and len(readers) < 5:
            readers.append(ring.reader())
            twins.append(oracle.reader())
        elif operation[0] == "publish":
            ring.publish(numbered(next_number, operation[1]))
            oracle.publish(range(next_number, next_number + operation[1]))
            next_number += operation[1]
        elif operation[0] == "read":
            reader, twin = readers[operation[1] % len(readers)], twins[operation[1] % len(readers)]
            assert list(reader.read(operation[2])["seq"]) == twin.read(operation[2])
        for reader, twin in zip(readers, twins, strict=True):
            assert reader.ledger() == twin.ledger()
            assert reader.ready == bool(twin.ledger()["pending"])
    assert ring.published == next_number


def test_the_decoder_publishes_to_its_ring_in_order():
    decoder = fastfeed.Decoder("binance-usdm", ring_capacity=64)
    reader = decoder.ring.reader()
    for update in range(1, 51):
        decoder.decode(b'{"e":"bookTicker","u":%d,"s":"A","b":"1","B":"1","a":"1","A":"1","T":1,"E":1}' % update)
    assert list(reader.read()["seq"]) == list(range(1, 51))
    assert decoder.ring.published == 50


def test_one_message_of_more_levels_than_the_ring_holds_laps_it():
    decoder = fastfeed.Decoder("binance-usdm", ring_capacity=16)
    reader = decoder.ring.reader()
    levels = b",".join(b'["%d","1"]' % price for price in range(1, 101))
    frame = b'{"e":"depthUpdate","E":1,"T":1,"s":"A","U":1,"u":2,"pu":0,"b":[%s],"a":[]}' % levels
    assert decoder.decode(frame) == 100
    got = reader.read()
    assert list(got["price"]) == list(range(101 - len(got), 101))
    assert reader.lost == 100 - len(got)
    ledger = reader.ledger()
    assert ledger["received"] == 100 == ledger["delivered"] + ledger["dropped"]


def test_a_reader_in_another_thread_never_sees_a_torn_tick():
    ring = fastfeed.TickRing(64)
    reader = ring.reader()
    done = threading.Event()
    torn, order = [], []

    def read() -> None:
        while True:
            finished = done.is_set()
            ticks = reader.read()
            numbers = ticks["seq"]
            for name in ("event_ns", "recv_ns", "bid", "ask_size"):
                torn.extend(numbers[ticks[name] != numbers])
            order.extend(int(number) for number in numbers)
            if finished and len(ticks) == 0:
                return

    thread = threading.Thread(target=read)
    thread.start()
    for start in range(0, 200_000, 50):
        ring.publish(numbered(start, 50))
    done.set()
    thread.join(30)
    assert not thread.is_alive(), "the reading thread did not end within 30 s"
    assert torn == []
    assert order == sorted(set(order))
    assert len(order) + reader.lost == 200_000
