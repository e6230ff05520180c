"""The records as C compiles them and as numpy names them are the same, offset by offset.

The contract's own numbers are written out here once more, so that neither side can drift with the other.
"""

import numpy as np
import pytest

import fastfeed
from fastfeed import _core

TICK = {
    "symbol_id": ("u4", 0),
    "kind": ("u1", 4),
    "flags": ("u1", 5),
    "source": ("u2", 6),
    "seq": ("i8", 8),
    "event_ns": ("i8", 16),
    "recv_ns": ("i8", 24),
}
ROW = {
    "symbol_id": ("u4", 0),
    "status": ("u1", 4),
    "flags": ("u1", 5),
    "version": ("u4", 8),
    "conflated": ("u4", 12),
    "bid": ("f8", 16),
    "bid_size": ("f8", 24),
    "ask": ("f8", 32),
    "ask_size": ("f8", 40),
    "last": ("f8", 48),
    "last_size": ("f8", 56),
    "event_ns": ("i8", 64),
    "recv_ns": ("i8", 72),
    "seq": ("i8", 80),
    "updates": ("u8", 88),
    "quote_seq": ("i8", 96),
    "quote_event_ns": ("i8", 104),
    "trade_seq": ("i8", 112),
    "trade_event_ns": ("i8", 120),
}
VALUES = [
    ("bid", "bid_size", "ask", "ask_size"),
    ("price", "size"),
    ("open", "high", "low", "close"),
    ("volume", "vwap", "trades", "start"),
    ("price", "index", "funding"),
]


def offsets(dtype: np.dtype) -> dict[str, tuple[np.dtype, int]]:
    return {name: (field[0], field[1]) for name, field in dtype.fields.items()}


def test_the_row_lies_as_the_contract_says():
    assert fastfeed.PRICE_DTYPE.itemsize == 128
    assert offsets(fastfeed.PRICE_DTYPE) == {name: (np.dtype("<" + kind), at) for name, (kind, at) in ROW.items()}


def test_the_tick_lies_as_the_contract_says():
    assert fastfeed.TICK_DTYPE.itemsize == 64
    found = offsets(fastfeed.TICK_DTYPE)
    for name, (kind, at) in TICK.items():
        assert found[name] == (np.dtype("<" + kind), at), name
    for names in VALUES:
        for position, name in enumerate(names):
            assert found[name] == (np.dtype("<f8"), 32 + 8 * position), name


def test_the_plain_tick_has_the_same_bytes_without_overlay():
    plain = fastfeed.TICK_DTYPE_PLAIN
    assert plain.itemsize == 64
    assert not plain.hasobject
    found = sorted(plain.fields.values(), key=lambda field: field[1])
    ends = [at + dtype.itemsize for dtype, at in (field[:2] for field in found)]
    assert [field[1] for field in found] == [0, *ends[:-1]]
    assert ends[-1] == 64
    for name, (kind, at) in TICK.items():
        assert offsets(plain)[name] == (np.dtype("<" + kind), at), name


def test_c_agrees_with_numpy_offset_by_offset():
    c = _core.layout()
    assert c["tick"]["size"] == fastfeed.TICK_DTYPE.itemsize
    assert c["row"]["size"] == fastfeed.PRICE_DTYPE.itemsize
    assert {name: at for name, at in c["row"].items() if name != "size"} == {n: at for n, (_, at) in ROW.items()}
    expected = {name: at for name, (_, at) in TICK.items()} | {"value": 32}
    assert {name: at for name, at in c["tick"].items() if name != "size"} == expected


def test_kinds_flags_and_statuses_have_their_numbers():
    kinds = {kind.name: kind.value for kind in fastfeed.Kind}
    assert kinds == {"QUOTE": 1, "TRADE": 2, "LEVEL": 3, "MARK": 4, "BAR": 5, "BAR_VOLUME": 6, "CORRECTION": 7}
    flags = {flag.name: flag.value for flag in fastfeed.Flag}
    assert flags == {"SNAPSHOT": 1, "LAST_LEVEL": 2, "AFTER_GAP": 4, "DUPLICATE": 8, "NOT_LAST": 16, "SELL": 32}
    statuses = {status.name: status.value for status in fastfeed.Status}
    assert {name: statuses[name] for name in ("LIVE", "QUIET", "SUSPECT", "STALE", "RECOVERING", "CLOSED")} == {
        "LIVE": 1,
        "QUIET": 2,
        "SUSPECT": 3,
        "STALE": 4,
        "RECOVERING": 5,
        "CLOSED": 6,
    }


def test_the_records_survive_a_file(tmp_path):
    decoder = fastfeed.Decoder("binance-usdm")
    ticks = decoder.ring.reader()
    decoder.decode(b'{"e":"bookTicker","u":5,"s":"A","b":"1","B":"2","a":"3","A":"4","T":7,"E":8}', recv_ns=9)
    plain = ticks.read().view(fastfeed.TICK_DTYPE_PLAIN)
    np.save(tmp_path / "ticks.npy", plain, allow_pickle=False)
    loaded = np.load(tmp_path / "ticks.npy").view(fastfeed.TICK_DTYPE)
    assert loaded["bid"][0] == 1.0
    assert loaded["ask_size"][0] == 4.0
    assert loaded["recv_ns"][0] == 9


@pytest.mark.parametrize(("select", "kind"), [("quotes", 1), ("trades", 2)])
def test_selecting_by_kind_leaves_the_other_kinds_out(select, kind):
    ticks = np.zeros(6, fastfeed.TICK_DTYPE)
    ticks["kind"] = [1, 2, 3, 1, 2, 4]
    ticks["seq"] = range(6)
    selected = getattr(fastfeed, select)(ticks)
    assert set(selected["kind"]) == {kind}
    assert list(selected["seq"]) == [i for i, k in enumerate(ticks["kind"]) if k == kind]
