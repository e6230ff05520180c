"""MessagePack: every type read as the reference package reads it, malformed exactly what that refuses.

The judges are the `msgpack` package and the oracle, which reads what the package unpacked.
"""

import itertools
import math
import random
import struct

import kernels
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Decoder as Oracle
from oracle import Instant, Number, Real, assert_same
from test_any_schema import Maker

import fastfeed
from fastfeed.schema import Message, Schema

QUOTE = Message(
    "quote",
    match={"T": "q"},
    symbol="S",
    bid="bp",
    bid_size="bs",
    ask="ap",
    ask_size="as",
    event_time=("t", "iso"),
)
TRADE = Message("trade", match={"T": "t"}, symbol="S", price="p", size="s", seq="i", event_time=("t", "iso"))
BOOK = Message("depth", match={"T": "o"}, symbol="S", bids="b", asks="a", level=("p", "s"), event_time=("t", "iso"))
MESSAGES = (QUOTE, TRADE, BOOK, Message("control", match={"T": "success"}), Message("control", match={"T": "error"}))
ALPACA = Schema(*MESSAGES, encoding="msgpack", name="alpaca-like")

CONNECTED = bytes.fromhex("9182a154a773756363657373a36d7367a9636f6e6e6563746564")
AAPL = bytes.fromhex(
    "9189a154a174a153a44141504ca169cd0274a178a14ba170cb40645d70a3d70a3d"
    "a17303a16394a140a146a154a149a17aa143a174d7ffc7d9a284642eb2f2"
)
REFUSED = bytes.fromhex(
    "9183a154a56572726f72a4636f6465cd0196a36d7367b9636f6e6e656374696f6e206c696d6974206578636565646564"
)
CRYPTO = msgpack.packb(
    [
        {"T": "o", "S": "BTC/USD", "t": msgpack.Timestamp(1710240530, 796132210), "r": True,
         "b": [{"p": 71859.53, "s": 0.27994}, {"p": 71849, "s": 1}], "a": [{"s": 0.83953, "p": 71939.7}]},
        {"T": "q", "S": "AMD", "bx": "K", "bp": 91.95, "bs": 2, "ax": "Q", "ap": 91, "as": 1, "c": ["R"], "z": "C",
         "t": msgpack.Timestamp(1680782061, 670905508)},
    ]
)  # fmt: skip
FRAMES = (CONNECTED, AAPL, REFUSED, CRYPTO)
BIG_ID = 3447222699101865076


def reference(payload: bytes) -> object:
    """What the package makes of a payload; raises ValueError if it is malformed.

    Extensions go to a hook: the package's own class refuses the reserved types, which are well-formed.
    """
    return msgpack.unpackb(payload, ext_hook=lambda code, data: (code, data))


def unpack(payload: bytes) -> object:
    """The same with numbers as the oracle wants them."""
    return told(reference(payload))


def told(value: object) -> object:
    if isinstance(value, list):
        return [told(element) for element in value]
    if isinstance(value, dict):
        return {key: told(element) for key, element in value.items()}
    if isinstance(value, msgpack.Timestamp):
        return Instant(value.to_unix_nano())
    if isinstance(value, float):
        return Real.of(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Number(value)
    return value


def is_well_formed(payload: bytes) -> bool:
    try:
        reference(payload)
    except ValueError:
        return False
    return True


class Reader:
    """A decoder of one message, given values."""

    def __init__(self, *messages: Message, **options) -> None:
        self.decoder = fastfeed.Decoder(Schema(*messages, encoding="msgpack", **options))
        self.ring = self.decoder.ring.reader()

    def tick(self, payload: bytes) -> np.void | None:
        """The one tick of a payload; None where it is unknown."""
        assert is_well_formed(payload), payload
        self.decoder.decode(payload)
        assert self.decoder.stats()["malformed"] == 0, payload
        ticks = self.ring.read()
        assert len(ticks) <= 1
        return ticks[0] if len(ticks) else None

    def price(self, packed: bytes) -> float | None:
        tick = self.tick(b"\x82\xa1s\xa1A\xa1p" + packed)
        return None if tick is None else float(tick["price"])


@pytest.fixture(scope="module")
def prices() -> Reader:
    return Reader(Message("trade", symbol="s", price="p", sequence="none"))


# ---- the recorded shapes ----


def test_the_golden_trade_is_read_to_the_nanosecond():
    decoder = fastfeed.Decoder(ALPACA)
    ring = decoder.ring.reader()
    assert decoder.decode(AAPL) == 1
    (tick,) = ring.read()
    assert (tick["price"], tick["size"], tick["seq"]) == (162.92, 3.0, 628)
    assert tick["event_ns"] == 1680782066838232225
    assert list(decoder.prices.symbols) == ["AAPL"]


def test_control_messages_are_handed_up_as_their_own_bytes():
    decoder = fastfeed.Decoder(ALPACA)
    assert decoder.decode_many([CONNECTED, REFUSED]) == 0
    assert decoder.stats()["control"] == 2


def test_the_same_schema_reads_the_same_messages_as_json():
    text = (
        b'[{"T":"t","S":"AAPL","i":628,"x":"K","p":162.92,"s":3,"c":["@","F","T","I"],"z":"C",'
        b'"t":"2023-04-06T11:54:26.838232225Z"}]'
    )
    both = [fastfeed.Decoder(ALPACA), fastfeed.Decoder(Schema(*MESSAGES))]
    rings = [decoder.ring.reader() for decoder in both]
    assert both[0].decode(AAPL, recv_ns=5) == both[1].decode(text, recv_ns=5) == 1
    assert rings[0].read().tobytes() == rings[1].read().tobytes()
    # a TEXT frame of a MessagePack connection is JSON
    assert both[0].decode(text, text=True) == 1
    assert both[0].decode(text) == 0
    assert both[0].stats()["malformed"] == 1


def test_ids_above_two_to_the_53_are_exact():
    reader = Reader(TRADE)
    packed = msgpack.packb({"T": "t", "S": "AVAX/USD", "p": 47.299, "s": 29.205707815, "i": BIG_ID})
    assert reader.tick(packed)["seq"] == BIG_ID


def test_a_book_of_maps_and_a_book_of_arrays_are_levels():
    reader = fastfeed.Decoder(ALPACA)
    ring = reader.ring.reader()
    assert reader.decode(CRYPTO) == 4
    levels = ring.read()[:3]
    assert [(level["price"], level["size"]) for level in levels] == [
        (71859.53, 0.27994), (71849.0, 1.0), (71939.7, 0.83953),
    ]  # fmt: skip
    pairs = fastfeed.Decoder(Schema(Message("depth", symbol="s", bids="b", asks="a"), encoding="msgpack"))
    ring = pairs.ring.reader()
    assert pairs.decode(msgpack.packb({"s": "A", "b": [["1.5", "2"], [1, 2.5]], "a": []})) == 2
    assert [(level["price"], level["size"]) for level in ring.read()] == [(1.5, 2.0), (1.0, 2.5)]


# ---- types ----

# One value in every form that holds it.
VECTORS = [
    (0, "00 cc00 cd0000 ce00000000 cf0000000000000000 d000 d10000 d200000000 d30000000000000000 ca00000000"),
    (1, "01 cc01 cd0001 ce00000001 cf0000000000000001 d001 d10001 d200000001 d30000000000000001 ca3f800000"),
    (127, "7f cc7f cd007f ce0000007f cf000000000000007f d07f d1007f d20000007f d3000000000000007f ca42fe0000"),
    (128, "cc80 cd0080 ce00000080 cf0000000000000080 d10080 d200000080 d30000000000000080 cb4060000000000000"),
    (255, "ccff cd00ff ce000000ff cf00000000000000ff d100ff d2000000ff d300000000000000ff"),
    (256, "cd0100 ce00000100 cf0000000000000100 d10100 d200000100 d30000000000000100"),
    (65535, "cdffff ce0000ffff cf000000000000ffff d20000ffff d3000000000000ffff"),
    (65536, "ce00010000 cf0000000000010000 d200010000 d30000000000010000"),
    (2**31 - 1, "ce7fffffff cf000000007fffffff d27fffffff d3000000007fffffff"),
    (2**31, "ce80000000 cf0000000080000000 d30000000080000000 ca4f000000 cb41e0000000000000"),
    (2**32 - 1, "ceffffffff cf00000000ffffffff d300000000ffffffff cb41efffffffe00000"),
    (2**32, "cf0000000100000000 d30000000100000000 ca4f800000 cb41f0000000000000"),
    (2**48, "cf0001000000000000 d30001000000000000 ca57800000 cb42f0000000000000"),
    (-1, "ff d0ff d1ffff d2ffffffff d3ffffffffffffffff cabf800000 cbbff0000000000000"),
    (-32, "e0 d0e0 d1ffe0 d2ffffffe0 d3ffffffffffffffe0 cac2000000 cbc040000000000000"),
    (-33, "d0df d1ffdf d2ffffffdf d3ffffffffffffffdf"),
    (-128, "d080 d1ff80 d2ffffff80 d3ffffffffffffff80"),
    (-256, "d1ff00 d2ffffff00 d3ffffffffffffff00"),
    (-32768, "d18000 d2ffff8000 d3ffffffffffff8000"),
    (-65536, "d2ffff0000 d3ffffffffffff0000"),
    (-(2**31), "d280000000 d3ffffffff80000000 cbc1e0000000000000"),
    (-(2**32), "d3ffffffff00000000 cbc1f0000000000000"),
    (-(2**48), "d3ffff000000000000 cad7800000 cbc2f0000000000000"),
    (0.5, "ca3f000000 cb3fe0000000000000"),
    (-0.5, "cabf000000 cbbfe0000000000000"),
    (2**63 - 1, "d37fffffffffffffff cf7fffffffffffffff"),
    (-(2**63) + 1, "d38000000000000001"),
    (2**63, "cf8000000000000000"),
    (-(2**63), "d38000000000000000"),
    (2**64 - 1, "cfffffffffffffffff"),
]
FORMS = [(value, bytes.fromhex(form)) for value, forms in VECTORS for form in forms.split()]


@pytest.mark.parametrize(("value", "packed"), FORMS, ids=lambda v: v.hex() if isinstance(v, bytes) else str(v))
def test_a_number_in_any_form_is_that_price(prices, value, packed):
    assert msgpack.unpackb(packed) == value
    assert prices.price(packed) == float(value)


@pytest.mark.parametrize(("value", "packed"), FORMS, ids=lambda v: v.hex() if isinstance(v, bytes) else str(v))
def test_a_whole_number_in_any_form_is_that_sequence_number_and_a_float_never_is(value, packed):
    reader = Reader(Message("quote", symbol="s", bid="p", seq="i", sequence="none"))
    tick = reader.tick(b"\x83\xa1s\xa1A\xa1p\x01\xa1i" + packed)
    if packed[0] in (0xCA, 0xCB) or not -(2**63) < value < 2**63:
        assert tick is None
    else:
        assert tick["seq"] == value


def test_a_32_bit_float_is_widened_exactly(prices):
    assert prices.price(b"\xca" + struct.pack(">f", 150.26)) == 150.25999450683594


@pytest.mark.parametrize(
    "packed", ["ca7fc00000", "ca7f800000", "caff800000", "cb7ff8000000000000", "cbfff0000000000000"]
)
def test_what_is_not_finite_makes_the_message_unknown(prices, packed):
    assert prices.price(bytes.fromhex(packed)) is None


@pytest.mark.parametrize(
    "packed", ["c2", "c3", "90", "80", "9101", "c40131", "c50000", "c600000000", "d40501", "d6ff5a4af6a5", "a0", "a178"]
)
def test_what_is_no_number_is_no_price(prices, packed):
    assert prices.price(bytes.fromhex(packed)) is None


@pytest.mark.parametrize("text", ["1.5", "0", "-1.5", "61800.20", "1e5", "12345678.12345678", "5e-324", "123456789012"])
def test_text_that_is_a_number_is_that_price_whatever_follows(text):
    reader = Reader(Message("trade", symbol="s", price="p", sequence="none"))
    for behind in (0x30, 0x39, 0x2E, 0x65, 0x45, 0x2B, 0x2D, 0xFF, 0x00):
        body = b"\x83\xa1s\xa1A\xa1p" + msgpack.packb(text) + b"\xa1z" + bytes([behind])
        assert reader.tick(body)["price"] == float(text)
        keyed = b"\x92\x82\xa1s\xa1A\xa1p" + msgpack.packb(text) + bytes([behind])
        reader.decoder.decode(keyed)
        assert [tick["price"] for tick in reader.ring.read()] == [float(text)]


STRINGS = ["", "a", "1234567890123456789012345678901", "12345678901234567890123456789012", "x" * 255, "y" * 70000]
STRINGS += ["Кириллица", "ひらがな", "한글", "汉字", "❤", "🍺", "币安人生USDT", "\0", "é" * 9]


@pytest.mark.parametrize("text", STRINGS, ids=lambda text: text[:9])
def test_text_in_any_form_is_that_symbol(text):
    reader = Reader(Message("trade", symbol="s", price="p", sequence="none"))
    data = text.encode()
    heads = [b"\xdb" + struct.pack(">I", len(data))]
    heads += [bytes([0xA0 | len(data)])] if len(data) < 32 else []
    heads += [bytes([0xD9, len(data)])] if len(data) < 256 else []
    heads += [b"\xda" + struct.pack(">H", len(data))] if len(data) < 65536 else []
    for head in heads:
        tick = reader.tick(b"\x82\xa1p\x01\xa1s" + head + data)
        assert (tick is None) == (text == "")
        assert text == "" or reader.decoder.prices.symbols[tick["symbol_id"]] == text


def test_whole_numbers_are_symbols_and_sides_by_their_digits():
    reader = Reader(Message("trade", symbol="s", price="p", side=("side", "2"), sequence="none"))
    for number in (0, 7, -7, 2**64 - 1, -(2**63)):
        tick = reader.tick(msgpack.packb({"s": number, "p": 1, "side": 2}))
        assert reader.decoder.prices.symbols[tick["symbol_id"]] == str(number)
        assert tick["flags"] == fastfeed.Flag.SELL
    assert reader.tick(msgpack.packb({"s": 1.5, "p": 1})) is None


SECONDS = [0, 1, 1514862245, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**34 - 1, 9223372035, 2**34, -1, -2208988800]


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("ns", [0, 1, 678901234, 999999999])
@pytest.mark.parametrize("unit", ["iso", "s", "ms", "auto"])
def test_a_timestamp_in_all_its_forms_is_that_event_time_whatever_the_unit(seconds, ns, unit):
    reader = Reader(Message("trade", symbol="s", price="p", event_time=("t", unit), sequence="none"))
    forms = [b"\xc7\x0c\xff" + struct.pack(">Iq", ns, seconds)]
    if 0 <= seconds < 2**34:
        forms += [head + struct.pack(">Q", ns << 34 | seconds) for head in (b"\xd7\xff", b"\xc7\x08\xff")]
    if 0 <= seconds < 2**32 and not ns:
        forms += [head + struct.pack(">I", seconds) for head in (b"\xd6\xff", b"\xc7\x04\xff", b"\xc8\x00\x04\xff")]
    for form in forms:
        assert msgpack.unpackb(form) == msgpack.Timestamp(seconds, ns)
        tick = reader.tick(b"\x83\xa1s\xa1A\xa1p\x01\xa1t" + form)
        if abs(seconds) < 9223372036:
            assert tick["event_ns"] == seconds * 10**9 + ns
        else:
            assert tick is None


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1700000000, "s", 1700000000 * 10**9),
        (1700000000123, "auto", 1700000000123 * 10**6),
        (1700000000.5, "s", 1700000000500000000),
        (1700000000123.25, "ms", 1700000000123250000),
        (1700000000.1, "s", int(1700000000.1) * 10**9 + 99999904),
        ("2023-11-14T22:13:20Z", "iso", 1700000000 * 10**9),
        ("1700000000", "s", 1700000000 * 10**9),
        (1700000000, "iso", None),
        (1700000000.5, "iso", None),
        (-1, "s", None),
        (-1.0, "s", None),
        (math.nan, "s", None),
        (math.inf, "s", None),
        (1e300, "s", None),
        (2**64 - 1, "ns", None),
        (True, "s", None),
    ],
)
def test_times_that_are_no_timestamp_are_read_by_their_unit(value, unit, expected):
    reader = Reader(Message("trade", symbol="s", price="p", event_time=("t", unit), sequence="none"))
    tick = reader.tick(msgpack.packb({"s": "A", "p": 1, "t": value}))
    assert (None if tick is None else tick["event_ns"]) == expected


def test_nil_is_an_explicit_null_and_an_absent_key_is_none():
    reader = Reader(Message("quote", has=("s",), symbol="s", bid="b", ask="a"))
    for document in ({"s": "A", "b": 1, "a": 2}, {"s": "A", "b": None}):
        reader.tick(msgpack.packb(document))
    row = reader.decoder.prices["A"]
    assert math.isnan(row["bid"])
    assert row["ask"] == 2


def test_extensions_bytes_and_unknown_keys_are_passed_over():
    reader = Reader(TRADE)
    for junk in [
        "d401aa",
        "d502aabb",
        "d603" + "00" * 4,
        "d704" + "00" * 8,
        "d805" + "00" * 16,
        "c70006",
        "c7037f010203",
    ]:
        for more in (junk, "c80001fe00", "c900000001fd00", "c403000102", "c50001ff", "c6000000020102", "92c0" + junk):
            body = b"\x85\xa1T\xa1t\xa1z" + bytes.fromhex(more) + b"\xc4\x01S\x01\xa1S\xa1A\xa1p\x07"
            assert reader.tick(body)["price"] == 7


def test_the_last_of_repeated_keys_wins():
    reader = Reader(Message("trade", symbol="s", price="p", sequence="none"))
    assert reader.tick(b"\x83\xa1s\xa1A\xa1p\x01\xa1p\x02")["price"] == 2
    assert reader.tick(b"\x83\xa1s\xa1A\xa1p\x01\xa1p\x90") is None


# ---- malformed ----


class Decoders:
    """A decoder per kernel, each payload counted once and on the right side."""

    SCHEMAS = (
        ALPACA,
        Schema(Message("trade", each="zz", symbol="^.s", price="a", size="b"), encoding="msgpack"),
        Schema(Message("quote", match={2: "x"}, symbol=0, bid=1, ask="3.0"), encoding="msgpack", envelope="data"),
    )

    def __init__(self) -> None:
        self.decoders = [d for s in self.SCHEMAS for d in kernels.decoders(s, max_symbols=1 << 14).values()]

    def judge(self, payload: bytes, buffer=None) -> None:
        well_formed = is_well_formed(payload)
        for decoder in self.decoders:
            before = decoder.stats()
            made = decoder.decode(payload if buffer is None else buffer)
            after = decoder.stats()
            counted = {key: after[key] - before[key] for key in ("data", "control", "unknown", "malformed")}
            assert sum(counted.values()) == 1, (payload[:200], counted)
            assert counted["malformed"] == (not well_formed), (payload[:200], f"msgpack accepts: {well_formed}")
            assert made == 0 or counted["data"], payload[:200]


@pytest.fixture(scope="module")
def decoders() -> Decoders:
    return Decoders()


def test_every_beginning_of_every_code_is_judged_as_the_reference_judges_it(decoders, guarded):
    tails = [
        b"",
        b"\0",
        b"\xff" * 8,
        b"\0" * 20,
        b"\x01\xffA",
        b"\0\0\0\1\xff",
        b"\x04\xff\0\0\0\0",
        b"\x0c\xff" + b"\xff" * 12,
    ]
    for code, tail in itertools.product(range(256), tails):
        for end in range(len(tail) + 1):
            payload = bytes([code]) + tail[:end]
            decoders.judge(payload, guarded.before_the_end(payload))


def test_a_frame_cut_anywhere_is_malformed(decoders, guarded):
    for frame in FRAMES:
        for end in range(len(frame)):
            assert not is_well_formed(frame[:end])
            decoders.judge(frame[:end], guarded.before_the_end(frame[:end]))
            decoders.judge(frame[end:], guarded.after_the_start(frame[end:]))


def test_every_bit_of_a_frame_may_flip(decoders, guarded):
    for frame in FRAMES:
        for position, bit in itertools.product(range(len(frame)), range(8)):
            damaged = bytearray(frame)
            damaged[position] ^= 1 << bit
            decoders.judge(frame)
            decoders.judge(bytes(damaged), guarded.before_the_end(bytes(damaged)))


@pytest.mark.parametrize("depth", [1, 2, 64, 1023, 1024, 1025, 1026, 100_000])
def test_depth_is_limited_as_the_reference_limits_it(decoders, depth):
    for opener in (b"\x91", b"\x81\xa1a", b"\x81\xa2zz", b"\xdc\0\1", b"\xdf\0\0\0\1\xa1a"):
        for inner in (b"\x01", b"\x90", b"\x80", b"\xa1x"):
            if depth > 2000:
                with pytest.raises((msgpack.StackError, ValueError)):
                    msgpack.unpackb(opener * depth + inner)
            decoders.judge(opener * depth + inner)


@pytest.mark.parametrize(
    "payload",
    ["", "c1", "0102", "9101ff", "8101a161", "81c0a161", "819001", "81c301", "81d6ff0000000001", "81a1ff01", "a1c3",
     "a2c328", "a3eda080", "a4f4908080", "a2c080", "d4ff00", "d5ff0000", "d8ff" + "00" * 16, "c700ff",
     "d7ffffffffff00000001",
     "c70cff3b9aca000000000000000000", "ddffffffff", "dfffffffff", "dbffffffff", "c6ffffffff", "c9ffffffff01"],
)  # fmt: skip
def test_what_the_reference_refuses_is_malformed(decoders, guarded, payload):
    data = bytes.fromhex(payload)
    assert not is_well_formed(data)
    decoders.judge(data, guarded.before_the_end(data))
    with pytest.raises(fastfeed.DecodeError, match="MessagePack") as raised:
        fastfeed.check(data, encoding="msgpack")
    assert 0 <= raised.value.offset <= len(data)


def test_check_names_the_offset_of_the_fault():
    assert fastfeed.check(AAPL, encoding="msgpack") is None
    for position, expected in ((0, 0), (10, 10)):
        damaged = bytearray(b"\x9f" + b"\x01" * 15)
        damaged[position] = 0xC1
        with pytest.raises(fastfeed.DecodeError) as raised:
            fastfeed.check(bytes(damaged), encoding="msgpack")
        assert raised.value.offset == expected


def test_a_malformed_frame_leaves_no_tick_behind():
    decoder = fastfeed.Decoder(ALPACA)
    ring = decoder.ring.reader()
    trade = msgpack.packb({"T": "t", "S": "A", "p": 1, "s": 1, "i": 1})
    for _ in range(5):
        assert decoder.decode(b"\x93" + trade + trade + b"\xc1") == 0
        assert decoder.decode(b"\x92" + trade + trade + b"\x00") == 0
        assert decoder.decode(b"\x93" + trade + trade) == 0
    assert decoder.stats()["malformed"] == 15
    assert len(ring.read()) == len(decoder.prices) == 0


def test_data_and_control_in_one_frame_count_once():
    decoder = fastfeed.Decoder(ALPACA)
    mixed = [{"T": "success"}, {"T": "t", "S": "A", "p": 1, "s": 1}, {"T": "?"}, 7]
    assert decoder.decode(msgpack.packb(mixed)) == 1
    stats = decoder.stats()
    assert (stats["data"], stats["control"], stats["messages"]) == (1, 0, 4)


# ---- hypothesis, and schemas nobody would write ----

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(width=64) | st.floats(width=32)
    | st.text(max_size=40) | st.binary(max_size=20)
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999999999))
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(
            st.sampled_from(["T", "S", "p", "zz", "a", "data", "a longer key than eight"]), inner, max_size=7
        )
    ),
    max_leaves=30,
)


@given(value=VALUES, cut=st.integers(0, 3), extra=st.binary(max_size=2))
@settings(max_examples=400, deadline=None)
def test_any_value_is_judged_as_the_reference_judges_it(decoders, guarded, value, cut, extra):
    packed = msgpack.packb(value)
    payload = packed[: max(0, len(packed) - cut)] + extra
    decoders.judge(payload, guarded.before_the_end(payload))


@given(payload=st.binary(max_size=64))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_judged_as_the_reference_judges_them(decoders, guarded, payload):
    decoders.judge(payload, guarded.before_the_end(payload))


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_spliced_frames_are_judged_as_the_reference_judges_them(decoders, guarded, data):
    frame = data.draw(st.sampled_from(FRAMES))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(frame)))
        stop = data.draw(st.integers(start, min(len(frame), start + 9)))
        piece = data.draw(st.binary(max_size=6) | st.sampled_from(FRAMES) | st.just(frame[start:stop] * 2))
        frame = frame[:start] + piece + frame[stop:]
    decoders.judge(frame, guarded.before_the_end(frame))


class Packer:
    """Documents of the maker, with other types where JSON has but one."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)

    def pack(self, document: object) -> bytes:
        return msgpack.packb(self.varied(document), use_single_float=self.choose.random() < 0.2)

    def varied(self, value: object) -> object:
        if isinstance(value, dict):
            return {key: self.varied(element) for key, element in value.items()}
        if isinstance(value, list):
            return [self.varied(element) for element in value]
        chance = self.choose.random()
        if chance > 0.3 or value is None:
            return value
        if chance < 0.04:
            return self.choose.choice(
                [msgpack.Timestamp(1700000000, 5), b"bytes", msgpack.ExtType(5, b"x"), math.nan, 2**63, -(2**63), -0.0]
            )
        if isinstance(value, str) and chance < 0.2:
            try:
                return float(value)
            except ValueError:
                return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value) if chance < 0.15 else value + self.choose.randrange(3)
        return value


@pytest.mark.parametrize("seed", range(300))
def test_a_random_schema_reads_random_documents_as_the_oracle_does(seed):
    maker, packer = Maker(seed), Packer(seed)
    try:
        schema = maker.schema()
        schema = Schema(*schema.messages, envelope=schema.envelope, encoding="msgpack")
        decoders = kernels.decoders(schema, max_symbols=1024)
    except fastfeed.ConfigError:
        return
    oracle = Oracle(schema, unpack)
    rings = {kernel: decoder.ring.reader() for kernel, decoder in decoders.items()}
    documents = [maker.document(schema) if maker.chance(0.8) else maker.value(3) for _ in range(6)]
    for recv_ns in range(50):
        payload = packer.pack(maker.choose.choice(documents) if maker.chance(0.7) else maker.document(schema))
        expected = oracle.decode(payload, recv_ns)
        for kernel, decoder in decoders.items():
            assert decoder.decode(payload, recv_ns=recv_ns) == expected, (kernel, schema.messages, payload)
    for kernel, decoder in decoders.items():
        assert_same(decoder, rings[kernel].read(), oracle)


PLACES = ["A", 1.5, 2, True, 7, msgpack.Timestamp(1700000000, 5), ["x"], "y"]
OTHERS = [
    "B", "", "1.5", "x" * 40, 0, 5, -3, 2**63, 1.25, -0.0, math.nan, math.inf, True, False, None, [], {}, ["s"],
    {"p": 1}, [[1], {"t": 2}], msgpack.Timestamp(5, 0), msgpack.Timestamp(2**40, 1), b"raw", msgpack.ExtType(3, b"xx"),
]  # fmt: skip


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("shape", ["bare", "element", "enveloped", "element of an envelope"])
def test_what_was_learned_from_one_map_reads_no_other_wrongly(place, shape):
    """Each place of a map, seen many times with its usual value, then with values of every other type, and cut."""
    schema = Schema(
        Message("control", match={"z": "stop"}),
        Message("trade", match={"z": 9}, each="w", symbol="^.s", price="p"),
        Message("trade", has=("z",), symbol="s", price="p", size="q", side="m", seq="t", event_time=("T", "s")),
        envelope="data",
        encoding="msgpack",
    )
    wrap = {
        "bare": lambda body: body,
        "element": lambda body: [body, body],
        "enveloped": lambda body: {"stream": "x", "data": body},
        "element of an envelope": lambda body: {"data": [body]},
    }[shape]
    oracle, decoders = Oracle(schema, unpack), kernels.decoders(schema, max_symbols=256)
    rings = {kernel: decoder.ring.reader() for kernel, decoder in decoders.items()}
    keys = ["s", "p", "q", "m", "t", "T", "w", "z"]
    payloads = []
    for number, other in enumerate([*OTHERS, 9, "stop"]):
        usual = [*PLACES[:4], number + 7, *PLACES[5:]]
        for values in (usual, usual, [*usual[:place], other, *usual[place + 1 :]]):
            payloads.append(msgpack.packb(wrap(dict(zip(keys, values, strict=True)))))
        payloads += [payloads[-1][:-1], payloads[-1] + b"\0"]
    for payload in payloads:
        expected = oracle.decode(payload, 1)
        for kernel, decoder in decoders.items():
            assert decoder.decode(payload, recv_ns=1) == expected, (kernel, payload)
    for kernel, decoder in decoders.items():
        assert_same(decoder, rings[kernel].read(), oracle)
