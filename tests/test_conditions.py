"""Trade conditions: which trades leave the last price alone, in every encoding, and that only they do.

The judges are the oracle, the declared sets, and the frames of the protocol pages.
"""

import json
import struct

import kernels
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import reader as twin
from oracle import Decoder as Oracle
from oracle import assert_same
from test_msgpack import unpack

import fastfeed
from fastfeed import Flag, Kind
from fastfeed.binary import Binary, Group, Number, Text
from fastfeed.providers import provider
from fastfeed.schema import Message, Schema

NOT_LAST = (2, 7, "I", "late", -3)
TRADE = Message(
    "trade",
    has=("s", "p"),
    symbol="s",
    price="p",
    size="q",
    event_time=("t", "ms"),
    conditions="c",
    not_last=NOT_LAST,
    sequence="none",
)
QUOTE = Message("quote", match={"e": "q"}, symbol="s", bid="b", ask="a")
SCHEMA = Schema(QUOTE, TRADE)
PACKED = Schema(QUOTE, TRADE, encoding="msgpack")
LETTERS = Schema(Message("trade", symbol="s", price="p", conditions=("c", "chars"), not_last=("I", "T", " ")))


def flags_of(schema: Schema, *documents: dict) -> list[bool]:
    """Of each trade: is it NOT_LAST? On every kernel."""
    found = []
    for decoder in kernels.decoders(schema).values():
        ring = decoder.ring.reader()
        pack = msgpack.packb if schema.encoding == "msgpack" else lambda document: json.dumps(document).encode()
        for document in documents:
            decoder.decode(pack(document))
        found.append([bool(flag & Flag.NOT_LAST) for flag in ring.read()["flags"]])
    assert all(flags == found[0] for flags in found)
    return found[0]


@pytest.mark.parametrize("schema", [SCHEMA, PACKED])
@pytest.mark.parametrize(
    ("conditions", "leaves_last"),
    [
        ([], False),
        (None, False),
        ([14, 41], False),
        ([14, 7, 41], True),
        ([2], True),
        ([2.0], True),
        ([2.5], False),
        ([-3], True),
        ([3], False),
        (["2"], False),
        (["I"], True),
        (["i"], False),
        (["@", "I"], True),
        (["late"], True),
        (["latest", "lat", ""], False),
        ([None, None], False),
        ([None, 2], True),
        (7, True),
        ("I", True),
        ("@", False),
        ("@ I", False),
    ],
)
def test_a_trade_is_not_last_if_any_of_its_conditions_is_in_the_set(schema, conditions, leaves_last):
    document = {"s": "A", "p": 1.5, "q": 2, "c": conditions}
    assert flags_of(schema, *[document] * 3) == [leaves_last] * 3


@pytest.mark.parametrize("schema", [SCHEMA, PACKED])
def test_a_trade_without_conditions_is_a_trade_like_any_other(schema):
    assert flags_of(schema, *[{"s": "A", "p": 1.5, "q": 2}] * 3) == [False] * 3


@pytest.mark.parametrize("schema", [SCHEMA, PACKED])
@pytest.mark.parametrize("conditions", [True, {}, {"a": 2}, [True], [[2]], [{"a": 2}], [2, False], [[], 2]])
def test_conditions_of_the_wrong_type_make_the_message_unknown(schema, conditions):
    assert flags_of(schema, *[{"s": "A", "p": 1.5, "c": conditions}] * 2) == []


def test_characters_of_a_text_are_conditions_where_the_schema_says_so():
    found = flags_of(LETTERS, *({"s": "A", "p": 1, "c": text} for text in ("@", "@I", "@ ", "", "ÉT", "ÉÉ", "@FX")))
    assert found == [False, True, True, False, True, False, False]
    assert flags_of(LETTERS, {"s": "A", "p": 1, "c": ["@F", "XI"]}) == [True]


def test_an_escaped_condition_is_the_same_condition():
    for decoder in kernels.decoders(SCHEMA).values():
        ring = decoder.ring.reader()
        for text in (b'["\\u0049"]', b'["\\u006cate"]', b'["\\u0040"]'):
            decoder.decode(b'{"s":"A","p":1,"c":' + text + b"}")
        assert list(ring.read()["flags"] & Flag.NOT_LAST) == [Flag.NOT_LAST, Flag.NOT_LAST, 0]


def test_a_late_trade_is_the_last_price_if_those_that_overtook_it_were_none():
    by_number = Schema(
        Message("trade", symbol="s", price="p", seq="n", conditions="c", not_last=("I",), sequence="rising")
    )
    by_time = Schema(
        Message("trade", symbol="s", price="p", event_time=("n", "ns"), conditions="c", not_last=("I",)),
    )
    for schema in (by_number, by_time):
        decoder = fastfeed.Decoder(schema)
        ring = decoder.ring.reader()
        for number, price, condition in ((5, 100, "@"), (7, 101, "I"), (6, 200, "@"), (6, 201, "I"), (4, 300, "@")):
            decoder.decode(b'{"s":"A","p":%d,"n":%d,"c":["%s"]}' % (price, number, condition.encode()))
        late, old = [0, Flag.NOT_LAST, 0], [Flag.NOT_LAST | Flag.DUPLICATE, Flag.DUPLICATE]
        assert list(ring.read()["flags"]) == late + old
        row = decoder.prices["A"]
        assert (row["last"], row["updates"]) == (200, 3)
        decoder.decode(b'{"s":"A","p":400,"n":8}')
        assert decoder.prices["A"]["last"] == 400


@pytest.mark.parametrize("way", ["legs", "splice"])
def test_a_trade_that_fills_a_hole_is_the_last_price_if_those_behind_it_are_none(way):
    schema = Schema(Message("trade", symbol="s", price="p", seq="n", conditions="c", not_last=("I",)))
    decoder = fastfeed.Decoder(schema)
    ring = decoder.ring.reader()
    for leg in range(2):
        decoder.leg(leg, leg)
    if way == "legs":
        decoder.arbitrate(True)
    else:
        decoder.hold_at_gaps("trade")
    decoder.decode(b'{"s":"A","p":100,"n":5}')
    decoder.decode(b'{"s":"A","p":101,"n":7,"c":["I"]}')
    if way == "legs":
        decoder.decode(b'{"s":"A","p":200,"n":6}', source=1)
    else:
        assert decoder.splice("A", "trade", b'{"s":"A","p":200,"n":6}', schema).outcome == "repaired"
    assert list(ring.read()["seq"]) == [5, 6, 7]
    assert (decoder.prices["A"]["last"], decoder.prices["A"]["trade_seq"]) == (200, 6)


def test_a_correction_is_a_tick_and_moves_no_row():
    schema = Schema(
        Message("correction", match={"T": "c"}, symbol="s", price="p", size="q", seq="i"),
        Message("correction", match={"T": "x"}, symbol="s", price="p", seq="i"),
        Message("trade", match={"T": "t"}, symbol="s", price="p", size="q", seq="i", sequence="rising"),
    )
    clock = fastfeed.Clock.manual()
    decoder = fastfeed.Decoder(schema, clock=clock)
    ring = decoder.ring.reader()
    for kind, number, price in (("t", 7, 10), ("t", 8, 11), ("c", 7, 10.5), ("x", 8, 11)):
        decoder.decode(json.dumps({"T": kind, "s": "A", "i": number, "p": price, "q": 3}).encode())
        decoder.decode(json.dumps({"T": kind, "s": "A", "i": number, "p": price, "q": 3}).encode())
        clock.advance(1_000_000_000)
    ticks = ring.read()
    assert list(fastfeed.trades(ticks)["flags"]) == [0, Flag.DUPLICATE, 0, Flag.DUPLICATE]
    found = fastfeed.corrections(ticks)
    assert [tuple(tick) for tick in found[["seq", "price", "flags"]]] == [(7, 10.5, 0)] * 2 + [(8, 11.0, 0)] * 2
    assert list(found["size"][:2]) == [3, 3]
    assert np.isnan(found["size"][2:]).all()
    row = decoder.prices["A"]
    assert (row["last"], row["trade_seq"], row["updates"]) == (11, 8, 2)
    assert decoder.prices.ages(channel="trade")[0] == pytest.approx(3.0)
    assert decoder.stats()["duplicates"] == 2


# ---- the row ----


def test_such_a_trade_leaves_last_and_its_date_alone_and_everything_else_moves_on():
    clock = fastfeed.Clock.manual()
    decoder = fastfeed.Decoder(SCHEMA, clock=clock)
    changes = decoder.prices.reader()
    decoder.decode(b'{"s":"A","p":"10","q":"5","t":1000}', recv_ns=1)
    decoder.decode(b'{"s":"A","p":"99","q":"1","t":2000,"c":[37,2]}', recv_ns=2)
    row = decoder.prices["A"]
    assert (row["last"], row["last_size"], row["trade_event_ns"]) == (10, 5, 1_000_000_000)
    assert (row["event_ns"], row["recv_ns"], row["updates"]) == (2_000_000_000, 2, 2)
    assert changes.read()["conflated"][0] == 1
    decoder.decode(b'{"s":"A","p":"11","q":"6","t":3000,"c":[37]}', recv_ns=3)
    row = decoder.prices["A"]
    assert (row["last"], row["last_size"], row["trade_event_ns"]) == (11, 6, 3_000_000_000)


def test_such_a_trade_alone_gives_no_last_price_and_withdraws_none():
    decoder = fastfeed.Decoder(SCHEMA)
    decoder.decode(b'{"s":"A","p":"99","q":"1","c":[2]}')
    assert np.isnan(decoder.prices["A"]["last"])
    decoder.decode(b'{"s":"A","p":"10","q":"1"}')
    decoder.decode(b'{"s":"A","p":null,"q":null,"c":[2]}')
    assert decoder.prices["A"]["last"] == 10


def test_such_a_trade_keeps_its_channel_fresh():
    """The stream lives: what is silent is not the channel, and `trade_event_ns` tells how old the last price is."""
    clock = fastfeed.Clock.manual()
    decoder = fastfeed.Decoder(SCHEMA, clock=clock)
    decoder.decode(b'{"s":"A","p":"10","q":"1"}')
    clock.advance(2_000_000_000)
    assert not decoder.prices.is_fresh("A", max_age=1.0, channel="trade")
    decoder.decode(b'{"s":"A","p":"99","q":"1","c":["I"]}')
    assert decoder.prices.is_fresh("A", max_age=1.0, channel="trade")


# ---- in any layout and order ----

condition = st.one_of(
    st.sampled_from([2, 7, -3, 14, 2.0, "I", "@", "late", "", "IL", None, "é"]),
    st.integers(-9, 60),
    st.text(max_size=3),
)
conditions = st.one_of(st.lists(condition, max_size=4), condition, st.sampled_from([True, [[]], [{}], {}]))
trade = st.fixed_dictionaries(
    {"s": st.sampled_from(["A", "B"]), "p": st.sampled_from(["1.5", 2, 3.25])},
    optional={"c": conditions, "q": st.sampled_from([1, "2"]), "t": st.sampled_from([5, 6]), "x": conditions},
)
quote = st.fixed_dictionaries({"e": st.just("q"), "s": st.just("A"), "b": st.just(1)}, optional={"c": conditions})
documents = st.lists(st.one_of(trade, trade, quote, st.lists(trade, max_size=3)), max_size=12)


@given(documents)
def test_json_agrees_with_the_oracle(documents):
    oracle, decoders = Oracle(SCHEMA), kernels.decoders(SCHEMA, max_symbols=256)
    rings = {kernel: decoder.ring.reader() for kernel, decoder in decoders.items()}
    for recv_ns, document in enumerate(documents * 2):
        payload = json.dumps(document, ensure_ascii=recv_ns % 2 == 0).encode()
        oracle.decode(payload, recv_ns)
        for decoder in decoders.values():
            decoder.decode(payload, recv_ns=recv_ns)
    for kernel, decoder in decoders.items():
        assert_same(decoder, rings[kernel].read(), oracle)


@given(documents)
def test_msgpack_agrees_with_the_oracle(documents):
    oracle, decoder = Oracle(PACKED, unpack), fastfeed.Decoder(PACKED, max_symbols=256)
    ring = decoder.ring.reader()
    for recv_ns, document in enumerate(documents * 2):
        payload = msgpack.packb(document)
        oracle.decode(payload, recv_ns)
        decoder.decode(payload, recv_ns=recv_ns)
    assert_same(decoder, ring.read(), oracle)


# ---- binary records ----

LAYOUT = Binary(
    {
        1: (Text("symbol", prefix="u8"), Number("price", "f32"), Text("condition", prefix="u8")),
        2: (Text("symbol", size=4), Number("price", "f64"), Number("condition", "i16", null=-1)),
        3: (Group("trades", (Number("price", "f64"), Text("condition", size=2))), Text("symbol", prefix="u8")),
    },
    header=(Number("type", "u8"),),
    select="type",
)
RECORDS = Schema(
    Message(
        "trade",
        match={"type": 1},
        symbol="symbol",
        price="price",
        conditions=("condition", "chars"),
        not_last=("I", "T"),
    ),
    Message("trade", match={"type": 2}, symbol="symbol", price="price", conditions="condition", not_last=(2, 300)),
    Message(
        "trade",
        match={"type": 3},
        each="trades",
        symbol="^.symbol",
        price="price",
        conditions="condition",
        not_last=("I", "AB"),
    ),
    encoding=LAYOUT,
)
ODD_LOT = b"\x01\x01A" + struct.pack("<f", 1.5) + b"\x03@ I"
REGULAR = b"\x01\x01A" + struct.pack("<f", 1.5) + b"\x01@"


def test_conditions_of_binary_records_are_read_straight_and_by_slots():
    trades = b"".join(struct.pack("<d", 2) + condition for condition in (b"I\0", b"AB", b"IA"))
    payloads = [
        ODD_LOT,
        REGULAR,
        b"\x01\x01A" + struct.pack("<f", 1.5) + b"\0",
        b"\x02A\0\0\0" + struct.pack("<dh", 1.5, 300),
        b"\x02A\0\0\0" + struct.pack("<dh", 1.5, 3),
        b"\x02A\0\0\0" + struct.pack("<dh", 1.5, -1),
        b"\x03" + struct.pack("<HH", 10, 3) + trades + b"\x01A",
        # elements shorter than declared lack their conditions: the long way
        b"\x03" + struct.pack("<HHd", 8, 1, 2) + b"\x01A",
    ]
    decoder, oracle = fastfeed.Decoder(RECORDS), Oracle(RECORDS, twin(LAYOUT))
    ring = decoder.ring.reader()
    for payload in payloads:
        decoder.decode(payload, recv_ns=1)
        oracle.decode(payload, 1)
    ticks = ring.read()
    assert_same(decoder, ticks, oracle)
    expected = [True, False, False, True, False, False, True, True, False, False]
    assert [bool(flag & Flag.NOT_LAST) for flag in ticks["flags"]] == expected


@pytest.mark.parametrize("payload", [ODD_LOT, REGULAR])
def test_a_binary_record_cut_anywhere_is_malformed(payload):
    decoder = fastfeed.Decoder(RECORDS)
    for size in range(len(payload)):
        decoder.decode(payload[:size])
    assert decoder.stats()["malformed"] == len(payload)
    assert decoder.stats()["ticks"] == 0


# ---- declarations that say nothing ----


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"conditions": "c"}, "needs not_last"),
        ({"conditions": "c", "not_last": True}, "tuple"),
        ({"not_last": (1,)}, "needs conditions"),
        ({"conditions": ("c", "words"), "not_last": ("I",)}, "chars"),
        ({"conditions": ("c", "chars"), "not_last": ("IT",)}, "single"),
        ({"conditions": ("c", "chars"), "not_last": (1,)}, "single"),
        ({"conditions": ("c", "chars"), "not_last": ("é",)}, "single"),
        ({"conditions": "c", "not_last": (True,)}, "True"),
        ({"conditions": "c", "not_last": ("",)}, "''"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(options, named):
    with pytest.raises(fastfeed.ConfigError, match=named):
        Message("trade", symbol="s", price="p", **options)


def test_messages_may_judge_the_same_conditions_by_sets_of_their_own():
    """As the tapes do: B is an average price on A and B, and a bunched trade on C."""
    schema = Schema(
        Message("trade", match={"z": "C"}, symbol="s", price="p", conditions="c", not_last=("W", "I")),
        Message("trade", match={"z": "A"}, symbol="s", price="p", conditions="c", not_last=("B", "I")),
        encoding="msgpack",
    )
    documents = [{"z": tape, "s": "A", "p": 1, "c": [letter]} for letter in "BWI@" for tape in "AC"] * 2
    assert flags_of(schema, *documents) == [True, False, False, True, True, True, False, False] * 2
    assert flags_of(Schema(*schema.messages), *documents) == [True, False, False, True, True, True, False, False] * 2


def test_more_sets_than_fit_are_refused():
    messages = [
        Message("trade", match={"z": n}, symbol="s", price="p", conditions="c", not_last=(n,)) for n in range(32)
    ]
    with pytest.raises(fastfeed.ConfigError, match="32 sets"):
        fastfeed.Decoder(Schema(*messages))
    assert flags_of(Schema(*messages[:31]), {"z": 30, "s": "A", "p": 1, "c": [30]}) == [True]


def test_only_trades_have_conditions():
    with pytest.raises(fastfeed.ConfigError, match="quote"):
        Message("quote", symbol="s", bid="b", conditions="c", not_last=(1,))


@pytest.mark.parametrize(
    "other",
    [
        Message("trade", match={"x": 1}, symbol="s", price="c.0"),
        Message("trade", match={"x": 1}, symbol="^.s", price="p", each="c"),
        Message("depth", match={"x": 1}, symbol="s", bids="c"),
    ],
)
def test_what_holds_conditions_holds_nothing_else(other):
    with pytest.raises(fastfeed.ConfigError, match="conditions"):
        fastfeed.Decoder(Schema(TRADE, other))


def test_a_group_of_a_binary_record_is_no_condition():
    with pytest.raises(fastfeed.ConfigError, match="group"):
        Schema(
            Message("trade", match={"type": 3}, symbol="symbol", price="type", conditions="trades", not_last=("I",)),
            encoding=LAYOUT,
        )


# ---- providers ----


def ticks_of(name: str, *frames: str) -> tuple[np.ndarray, fastfeed.Decoder]:
    decoder = fastfeed.Decoder(provider(name).schema)
    ring = decoder.ring.reader()
    for frame in frames:
        decoder.decode(frame.encode())
    return ring.read(), decoder


def test_polygon_odd_lots_leave_the_last_price_alone():
    """The official frames: an odd lot, then a round lot without conditions; before them a sweep."""
    ticks, decoder = ticks_of(
        "polygon",
        '[{"ev":"T","sym":"AAPL","i":"5096","x":10,"p":161.87,"s":300,"c":[14,41],"t":1651684192462,"q":4009402,"z":3}]',
        '[{"ev":"T","sym":"AMZN","i":"72815","x":12,"p":161.5,"s":1,"c":[14,37,41],"t":1651684192536,"q":4009408,"z":3},'
        '{"ev":"T","sym":"AMZN","i":"799","x":4,"p":161.87,"s":100,"t":1651684192717,"q":4009434,"z":3}]',
        '[{"ev":"T","sym":"AMZN","x":4,"p":162,"s":100,"c":[12],"t":1651684192718,"q":4009435,"z":3}]',
    )
    assert [bool(flag & Flag.NOT_LAST) for flag in ticks["flags"]] == [False, True, False, True]
    assert (decoder.prices["AAPL"]["last"], decoder.prices["AMZN"]["last"]) == (161.87, 161.87)


def test_polygon_option_cancels_and_late_reports_leave_the_last_price_alone():
    frame = '[{{"ev":"T","sym":"O:A","p":{price},"s":1,"c":[{condition}],"t":1651684192462,"q":{seq}}}]'
    codes = (209, 227, 232, 201, 202, 204, 207, 248, 37)
    ticks, decoder = ticks_of(
        "polygon-options", *(frame.format(price=n + 1, condition=code, seq=n) for n, code in enumerate(codes))
    )
    assert [code for code, tick in zip(codes, ticks, strict=True) if tick["flags"] & Flag.NOT_LAST] == [
        201, 202, 207, 248,
    ]  # fmt: skip
    assert decoder.prices["O:A"]["last"] == 9


def test_finnhub_conditions_are_texts_of_its_own_table():
    """After hours, one share: both by Form T and as an odd lot. Of 2020, without conditions; and null."""
    ticks, decoder = ticks_of(
        "finnhub",
        '{"data":[{"p":284.45,"s":"AAPL","t":1586876152227,"v":300}],"type":"trade"}',
        '{"data":[{"c":["1","8","24","12"],"p":122.1,"s":"TSLA","t":1672348887195,"v":1},'
        '{"c":["1","24","12"],"p":129.58,"s":"AAPL","t":1672348887666,"v":1}],"type":"trade"}',
        '{"data":[{"c":null,"p":1.5,"s":"OANDA:EUR_USD","t":1672348887666,"v":0}],"type":"trade"}',
        '{"data":[{"c":["1","8"],"p":130,"s":"AAPL","t":1672348887667,"v":100}],"type":"trade"}',
    )
    assert list(ticks["kind"]) == [Kind.TRADE] * 5
    assert [bool(flag & Flag.NOT_LAST) for flag in ticks["flags"]] == [False, True, True, False, False]
    assert np.isnan(decoder.prices["TSLA"]["last"])
    assert decoder.prices["AAPL"]["last"] == 130
