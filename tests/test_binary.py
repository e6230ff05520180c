"""Declared binary records: the golden frames of two protocols, forward compatibility, and any bytes against the twin.

The judges are the frames of the protocol pages and a slow reader of the same declaration (layouts.py).
"""

import itertools
import math
import random
import struct

import kernels
import numpy as np
import pytest
from exchanges import INTRINIO, INTRINIO_LAYOUT, SBE, SBE_LAYOUT, SBE_MESSAGES
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import reader
from oracle import Decoder as Oracle
from oracle import assert_same

import fastfeed
from fastfeed import Flag, Kind
from fastfeed.binary import Binary, Group, Number, Skip, Text
from fastfeed.schema import Message, Schema

TRADES = bytes.fromhex(
    "120010270100000040222246484706000822224648470600fefb190002000000df0c234b01000000f8bf850000000000"
    "7b0000000000000001e00c234b01000000f9bf8500000000009411000000000000000742544355534454"
)
QUOTE = bytes.fromhex(
    "320011270100000040222246484706007940e51700000000fefbf8bf850000000000f049020000000000f9bf85000000"
    "0000d8590000000000000742544355534454"
)
DIFF = bytes.fromhex(
    "1a0013270100000040222246484706009d00000000000000a000000000000000fefb10000200f8bf850000000000f049"
    "020000000000d8bf850000000000000000000000000010000100f9bf850000000000d859000000000000074254435553"
    "4454"
)
SNAPSHOT = bytes.fromhex(
    "12001227010000004022224648470600a000000000000000fefb10000100f8bf850000000000f0490200000000001000"
    "0100f9bf850000000000d8590000000000000742544355534454"
)
BATCH = bytes.fromhex(
    "03"
    "0022044141504c065600004016436400000000b6bbdc1ca5b51687d6120003402049"
    "011b044141504c0656008f4216432c01000000b6bbdc1ca5b51600"
    "021b044141504c065600713d1643c800000000b6bbdc1ca5b51600"
)
SBE_FRAMES = (TRADES, QUOTE, DIFF, SNAPSHOT)
TIME = 1767225600123456000


class Reader:
    """A decoder and its ticks."""

    def __init__(self, schema: Schema) -> None:
        self.decoder = fastfeed.Decoder(schema)
        self.ring = self.decoder.ring.reader()

    def ticks(self, *payloads: bytes) -> np.ndarray:
        for payload in payloads:
            self.decoder.decode(payload)
        return self.ring.read()

    def verdict(self, payload: bytes) -> str:
        before = self.decoder.stats()
        self.decoder.decode(payload)
        after = self.decoder.stats()
        (name,) = [n for n in ("data", "control", "unknown", "malformed") if after[n] > before[n]]
        return name


def side(kind: int, symbol: bytes, price: float, size: int, time: int, condition: bytes = b"") -> bytes:
    """An ask or bid record of Intrinio."""
    body = bytes([len(symbol)]) + symbol + b"\x06V\0" + struct.pack("<fIQ", price, size, time)
    return bytes([kind, len(body) + 3 + len(condition)]) + body + bytes([len(condition)]) + condition


# ---- golden frames ----


def test_several_trades_of_one_sbe_frame_are_as_many_ticks():
    first, second = Reader(SBE).ticks(TRADES)
    assert [first[n] for n in ("kind", "flags", "seq", "event_ns", "price", "size")] == [
        Kind.TRADE, Flag.SELL, 5555555551, 1767225600123400000, 87654.32, 0.00123,
    ]  # fmt: skip
    assert [second[n] for n in ("flags", "seq", "price", "size")] == [0, 5555555552, 87654.33, 0.045]


def test_an_sbe_quote_is_the_prices_its_mantissas_say():
    reader = Reader(SBE)
    (quote,) = reader.ticks(QUOTE)
    assert [quote[n] for n in ("bid", "bid_size", "ask", "ask_size", "seq")] == [
        87654.32,
        1.5,
        87654.33,
        0.23,
        400900217,
    ]
    assert list(reader.decoder.prices.symbols) == ["BTCUSDT"]


def test_sbe_depth_is_levels_and_a_snapshot_is_flagged():
    levels = Reader(SBE).ticks(DIFF)
    assert [(k["price"], k["size"], k["flags"]) for k in levels] == [
        (87654.32, 1.5, 0), (87654.0, 0.0, 0), (87654.33, 0.23, Flag.SELL | Flag.LAST_LEVEL),
    ]  # fmt: skip
    assert {(k["seq"], k["event_ns"]) for k in levels} == {(160, TIME)}
    assert [k["flags"] & Flag.SNAPSHOT for k in Reader(SBE).ticks(SNAPSHOT)] == [Flag.SNAPSHOT] * 2


def test_sbe_sockets_carry_json_control_in_text_frames():
    reader = Reader(SBE)
    assert reader.decoder.decode(b'{"result":null,"id":7}', text=True) == 0
    assert reader.decoder.stats()["control"] == 1
    assert reader.verdict(b'{"result":null,"id":7}') in ("unknown", "malformed")
    assert reader.decoder.stats()["control"] == 1


def test_one_sided_records_of_intrinio_are_joined_in_the_table():
    reader = Reader(INTRINIO)
    trade, ask, bid = reader.ticks(BATCH)
    assert (trade["kind"], trade["price"], trade["size"]) == (Kind.TRADE, 150.25, 100)
    assert (ask["ask"], ask["ask_size"]) == (150.25999450683594, 300)
    assert math.isnan(ask["bid"])
    assert (bid["bid"], bid["bid_size"]) == (150.24000549316406, 200)
    assert set(reader.ring.read()["event_ns"]) | {trade["event_ns"]} == {1636395583000000000}
    row = reader.decoder.prices["AAPL"]
    assert [row[n] for n in ("bid", "ask", "last")] == [150.24000549316406, 150.25999450683594, 150.25]


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 254, 255])
def test_batches_of_any_count_are_read(count):
    reader = Reader(INTRINIO)
    records = [side(1 + n % 2, b"S%d" % n, n, n, 10**18 + n, b"@ I"[: n % 4]) for n in range(count)]
    ticks = reader.ticks(bytes([count]) + b"".join(records))
    assert len(ticks) == count
    assert reader.decoder.stats()["malformed"] == 0
    assert [tick["ask"] if n % 2 == 0 else tick["bid"] for n, tick in enumerate(ticks)] == list(range(count))


@pytest.mark.parametrize("length", [0, 1, 2, 22, 26, 28, 255])
def test_a_record_of_no_or_a_wrong_length_is_malformed_and_ends(length):
    record = bytearray(side(1, b"AAPL", 1, 1, 1))
    record[1] = length
    for count in (1, 2, 255):
        assert Reader(INTRINIO).verdict(bytes([count]) + bytes(record)) == "malformed"


def test_a_record_of_unknown_type_is_passed_over_by_its_length():
    reader = Reader(INTRINIO)
    known = side(2, b"AAPL", 1.5, 1, 1)
    assert len(reader.ticks(b"\x03" + known + b"\x09\x05xyz" + known)) == 2
    assert reader.decoder.stats()["messages"] == 3
    assert reader.verdict(b"\x01\x09\x05xyz") == "unknown"


def test_a_record_longer_than_its_items_is_read_by_its_length():
    longer = bytearray(side(2, b"AAPL", 1.5, 1, 1) + b"new")
    longer[1] += 3
    reader = Reader(INTRINIO)
    assert len(reader.ticks(b"\x02" + bytes(longer) * 2)) == 2


# ---- forward and backward compatibility ----


def grown(frame: bytes, block: int, extra: bytes) -> bytes:
    """An SBE frame whose root block of `block` bytes has more at its end."""
    return struct.pack("<H", block + len(extra)) + frame[2 : 8 + block] + extra + frame[8 + block :]


@pytest.mark.parametrize(("frame", "block"), [(TRADES, 18), (QUOTE, 50), (DIFF, 26), (SNAPSHOT, 18)])
def test_a_longer_root_block_is_skipped_to_its_end(frame, block):
    expected = Reader(SBE).decoder
    ring = expected.ring.reader()
    expected.decode(frame, recv_ns=1)
    for extra in (b"\xff", b"\0" * 7, b"\xff" * 300):
        reader = Reader(SBE)
        reader.decoder.decode(grown(frame, block, extra), recv_ns=1)
        assert reader.ring.read().tobytes() == ring.read().tobytes()
        ring = expected.ring.reader()
        expected = Reader(SBE).decoder
        ring = expected.ring.reader()
        expected.decode(frame, recv_ns=1)


def test_longer_group_elements_are_skipped_to_their_end():
    element = TRADES[32:57]
    longer = TRADES[:26] + struct.pack("<HI", 30, 2) + element + b"xxxxx" + TRADES[57:82] + b"yyyyy" + TRADES[82:]
    assert [t["seq"] for t in Reader(SBE).ticks(longer)] == [5555555551, 5555555552]
    assert [t["price"] for t in Reader(SBE).ticks(longer)] == [87654.32, 87654.33]


def test_items_an_older_version_does_not_have_are_absent():
    shorter = struct.pack("<H", 34) + QUOTE[2:42] + QUOTE[58:]
    (quote,) = Reader(SBE).ticks(shorter)
    assert (quote["bid"], quote["bid_size"]) == (87654.32, 1.5)
    assert math.isnan(quote["ask"])


def test_only_a_later_version_may_have_more_at_its_end():
    assert Reader(SBE).verdict(QUOTE + b"\0") == "malformed"
    later = QUOTE[:6] + b"\x01\0" + QUOTE[8:]
    assert Reader(SBE).verdict(later) == "data"
    assert Reader(SBE).verdict(later + b"\x05hello") == "data"


def test_an_unknown_template_is_unknown():
    for template in (0, 9999, 10004, 65535):
        frame = QUOTE[:2] + struct.pack("<H", template) + QUOTE[4:]
        assert Reader(SBE).verdict(frame) == "unknown"


@pytest.mark.parametrize("template", [10000, 10002, 10003])
def test_a_group_of_endless_empty_elements_is_malformed(template):
    frame = {10000: TRADES, 10002: SNAPSHOT, 10003: DIFF}[template]
    at = 34 if template == 10003 else 26
    endless = frame[:at] + b"\0\0" + b"\xff" * (4 if template == 10000 else 2) + frame[at + 6 :]
    assert Reader(SBE).verdict(endless) == "malformed"


def test_unexpected_exponents_are_exact_and_impossible_ones_unknown():
    for mantissa, exponent in itertools.product(
        [1, -1, 8765432, 2**53 - 1, 2**53 + 1, 2**63 - 1, -(2**63)], range(-128, 128)
    ):
        frame = QUOTE[:24] + struct.pack("<bbqqqq", exponent, -5, mantissa, 1, 1, 1) + QUOTE[58:]
        expected = float(f"{mantissa}e{exponent}")
        reader = Reader(SBE)
        ticks = reader.ticks(frame)
        assert len(ticks) == math.isfinite(expected)
        assert all(tick["bid"] == expected for tick in ticks)


@given(mantissa=st.integers(-(2**63), 2**63 - 1), exponent=st.integers(-40, 40))
@settings(max_examples=500, deadline=None)
def test_a_mantissa_and_exponent_are_the_double_that_their_text_is(mantissa, exponent):
    frame = QUOTE[:24] + struct.pack("<bbqqqq", exponent, exponent, mantissa, mantissa, 0, 1) + QUOTE[58:]
    (quote,) = Reader(SBE).ticks(frame)
    assert quote["bid"] == quote["bid_size"] == float(f"{mantissa}e{exponent}")
    assert struct.pack("<d", quote["ask"]) == struct.pack("<d", 0.0)


def test_a_wrong_bool_makes_the_frame_unknown_and_leaves_no_tick():
    wrong = TRADES[:81] + b"\x02" + TRADES[82:]
    reader = Reader(SBE)
    assert reader.verdict(wrong) == "unknown"
    assert len(reader.ring.read()) == 0


# ---- any bytes ----

MATCHING = Schema(  # values decide, so records go through the slots
    Message("trade", match={"type": 0, "subprovider": 6}, symbol="symbol", price="price", size="size", seq="time"),
    Message("quote", has=("type", "condition"), symbol="symbol", bid="price", ask="size", event_time=("time", "ns")),
    encoding=INTRINIO_LAYOUT,
)
SLOTTED = Schema(
    *[
        Message(m.kind, **{f: getattr(m, f) for f in ("each", "channel", "symbol", "bid", "bid_size", "ask", "ask_size",
          "price", "size", "side", "bids", "asks", "level", "seq", "first_seq", "event_time", "snapshot")},
          match={**m.match, "schema": 1})
        for m in SBE_MESSAGES if m.kind != "control"
    ],
    encoding=SBE_LAYOUT,
)  # fmt: skip
ALL_TYPES = Binary(
    {
        1: (
            Number("a", "i16", exponent=-2, null=-(2**15)),
            Number("b", "u64"),
            Number("c", "f64"),
            Text("s", size=5),
            Skip(prefix="u16"),
            Number("d", "u8", exponent="e"),
            Group("g", (Number("x", "u16"), Skip(1), Number("y", "f32"), Text("t", size=2)), block=None, count="u8"),
            Number("n", "i64", null=0),
            Text("z", prefix="u16"),
        ),
        (2, -3): (
            Number("b", "i32"),
            Text("s", prefix="u8"),
            Group("g", (Number("x", "i8"),), block="u8", count="u16"),
        ),
    },
    header=(Number("kind", "i8"), Number("e", "i8")),
    select="kind",
    order="big",
)
TYPED = Schema(
    Message(
        "quote", match={"kind": 1}, symbol="s", bid="a", bid_size="b", ask="c", ask_size="d", seq="n", sequence="none"
    ),
    Message("trade", match={"kind": 2}, each="g", symbol="^.s", price="x", size="^.b", sequence="none"),
    Message("depth", match={"kind": -3}, symbol="s", asks="g", level=("x", "x")),
    encoding=ALL_TYPES,
)
ELEMENTS = Schema(
    Message(
        "trade", match={"kind": 1}, each="g", symbol="t", price="x", size="y", seq="^.n", side="x", sequence="none"
    ),
    Message("control", has=("g",)),
    encoding=ALL_TYPES,
)
TYPED_FRAMES = (
    bytes.fromhex("01fe" "3039" "0000000000000007" "3ff8000000000000" "4142432020" "0002ffff" "05" "02"
                  "0102003fc000004142" "0103003fc000004344" "8000000000000001" "000161"),
    bytes.fromhex("0200" "00000007" "0141" "010003" "05fb07"),
    bytes.fromhex("fd00" "00000007" "0141" "020002" "05fffb00"),
)  # fmt: skip
WITH_FRAMES = [
    (SBE, SBE_FRAMES),
    (SLOTTED, SBE_FRAMES),
    (INTRINIO, (BATCH, BATCH[:1] + b"\x01" + BATCH[2:], b"\x01" + side(2, "é币".encode(), 1e9, 1, 1))),
    (MATCHING, (BATCH,)),
    (TYPED, TYPED_FRAMES),
    (ELEMENTS, TYPED_FRAMES),
]
NAMES = ["sbe", "sbe by slots", "intrinio", "intrinio by slots", "all types", "elements"]


class Twins:
    """A decoder per kernel and the oracle over the slow reader, given the same frames."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.decoders = kernels.decoders(schema, max_symbols=1 << 12)
        self.rings = {kernel: decoder.ring.reader() for kernel, decoder in self.decoders.items()}
        self.oracle = Oracle(schema, reader(schema.encoding))
        self.recv_ns = 0

    def judge(self, payload: bytes, buffer=None) -> None:
        self.recv_ns += 1
        before = self.oracle.counts["malformed"]
        expected = self.oracle.decode(payload, self.recv_ns)
        malformed = self.oracle.counts["malformed"] - before
        for kernel, decoder in self.decoders.items():
            was = decoder.stats()["malformed"]
            assert decoder.decode(payload if buffer is None else buffer, recv_ns=self.recv_ns) == expected, (
                payload.hex()
            )
            assert decoder.stats()["malformed"] - was == malformed, (kernel, payload.hex())
        if malformed:
            with pytest.raises(fastfeed.DecodeError) as raised:
                fastfeed.check(payload, encoding=self.schema.encoding)
            assert 0 <= raised.value.offset <= len(payload)

    def settle(self) -> None:
        """They stand where the oracle stands, bit for bit."""
        for kernel, decoder in self.decoders.items():
            assert_same(decoder, self.rings[kernel].read(), self.oracle)


@pytest.mark.parametrize(("schema", "frames"), WITH_FRAMES, ids=NAMES)
def test_whole_frames_and_all_their_beginnings_are_read_as_the_twin_reads_them(guarded, schema, frames):
    twins = Twins(schema)
    for frame in frames:
        for end in range(len(frame) + 1):
            twins.judge(frame[:end], guarded.before_the_end(frame[:end]))
            twins.judge(frame[end:], guarded.after_the_start(frame[end:]))
        twins.judge(frame + b"\0")
    assert twins.oracle.counts["data"] + twins.oracle.counts["control"] >= len(frames)
    twins.settle()


@pytest.mark.parametrize(("schema", "frames"), WITH_FRAMES, ids=NAMES)
def test_every_bit_of_a_frame_may_flip(guarded, schema, frames):
    twins = Twins(schema)
    for frame in frames:
        for position, bit in itertools.product(range(len(frame)), range(8)):
            damaged = bytearray(frame)
            damaged[position] ^= 1 << bit
            twins.judge(bytes(damaged), guarded.before_the_end(bytes(damaged)))
    twins.settle()


@pytest.mark.parametrize(("schema", "frames"), WITH_FRAMES, ids=NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_spliced_frames_are_read_as_the_twin_reads_them(guarded, schema, frames, seed):
    choose = random.Random(seed)
    twins = Twins(schema)
    for _ in range(400):
        frame = choose.choice(frames)
        for _ in range(choose.randint(1, 3)):
            start = choose.randint(0, len(frame))
            stop = min(len(frame), start + choose.choice([0, 1, 2, 8]))
            piece = choose.choice(
                [choose.randbytes(choose.randint(0, 9)), frame[start:stop] * 2, choose.choice(frames)]
            )
            frame = frame[:start] + piece + frame[stop:]
        twins.judge(frame, guarded.before_the_end(frame))
    twins.settle()


@pytest.fixture(scope="module")
def all_twins() -> list[Twins]:
    return [Twins(schema) for schema, _ in WITH_FRAMES]


@given(
    payload=st.binary(max_size=80), head=st.sampled_from([b"", QUOTE[:8], TRADES[:32], BATCH[:3], TYPED_FRAMES[0][:9]])
)
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_read_as_the_twin_reads_them(all_twins, guarded, payload, head):
    for twins in all_twins:
        twins.judge(head + payload, guarded.before_the_end(head + payload))


@pytest.mark.parametrize("position", range(1, 4))
def test_a_malformed_record_leaves_no_tick_of_those_before_it(position):
    reader = Reader(INTRINIO)
    records = [side(2, b"AAPL", 1.5, 1, 1)] * 4
    records[position] = records[position][:-2]
    assert reader.verdict(b"\x04" + b"".join(records)) == "malformed"
    assert reader.decoder.stats()["ticks"] == len(reader.decoder.prices) == 0


# ---- what cannot be declared ----

HEAD = {"header": (Number("t", "u8"),), "select": "t"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Number("x", "u24"), "u24"),
        (lambda: Number("x", "f32", exponent=-2), "whole numbers"),
        (lambda: Number("x", "i8", exponent=500), "500"),
        (lambda: Text("x"), "size"),
        (lambda: Text("x", size=3, prefix="u8"), "size"),
        (lambda: Text("x", prefix="i8"), "i8"),
        (lambda: Skip(0), "one byte"),
        (lambda: Group("g", ()), "no items"),
        (lambda: Group("g", (Text("s", prefix="u8"),)), "fixed size"),
        (lambda: Group("g", (Group("h", (Skip(1),)),)), "fixed size"),
        (lambda: Group("g", (Skip(1),), count="u64"), "u64"),
        (lambda: Binary({}, **HEAD), "at least one"),
        (lambda: Binary({1: (Skip(1),), (2, 1): (Skip(2),)}, **HEAD), "two records"),
        (lambda: Binary({1: ()}, header=(Number("t", "f32"),), select="t"), "whole number"),
        (lambda: Binary({1: ()}, **HEAD, length="size"), "size"),
        (lambda: Binary({1: ()}, **HEAD, order="middle"), "middle"),
        (lambda: Binary({1: (Number("t", "u8"),)}, **HEAD), "two items"),
        (lambda: Binary({1: (Number("x", "i8", exponent="e"),)}, **HEAD), "exponent 'e'"),
        (lambda: Binary({1: (Number("x", "i8", exponent="e"), Number("e", "i8"))}, **HEAD), "earlier"),
    ],
)  # fmt: skip
def test_a_layout_that_reads_nothing_is_refused_with_the_reason(make, said):
    with pytest.raises(fastfeed.ConfigError, match=said):
        make()


@pytest.mark.parametrize(
    ("messages", "options", "said"),
    [
        ([Message("quote", symbol="nobody", bid="price")], {}, "nobody"),
        ([Message("quote", symbol="symbol", bid="price.x")], {}, "price.x"),
        ([Message("quote", symbol="symbol", bid=3)], {}, "3"),
        ([Message("quote", match={"colour": 1}, symbol="symbol", bid="price")], {}, "colour"),
        ([Message("trade", each="rows", symbol="symbol", price="price")], {}, "rows"),
        ([Message("depth", symbol="symbol", bids="price")], {}, "group"),
        ([Message("quote", symbol="symbol", bid="price")], {"envelope": "data"}, "envelope"),
    ],
)
def test_a_message_that_refers_to_no_item_is_refused(messages, options, said):
    with pytest.raises(fastfeed.ConfigError, match=said):
        Schema(*messages, encoding=INTRINIO_LAYOUT, **options)


@pytest.mark.parametrize("encoding", ["xml", "", None, 5])
def test_an_unknown_encoding_is_refused(encoding):
    with pytest.raises(fastfeed.ConfigError, match="msgpack"):
        Schema(Message("quote", symbol="s", bid="b"), encoding=encoding)
    with pytest.raises(fastfeed.ConfigError, match="msgpack"):
        fastfeed.check(b"", encoding=encoding)
