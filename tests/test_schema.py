"""Schemas: what they recognise, what they read where, and that an impossible one is refused with the reason.

Each declaration is also run by the oracle, so a test here shows the rule and test_decode the agreement.
"""

import math

import numpy as np
import pytest

import fastfeed
from fastfeed import Flag, Kind
from fastfeed.schema import MISSING, Message, Schema, Symbol


class Reader:
    """A decoder and all its ticks so far."""

    def __init__(self, schema: Schema) -> None:
        self.decoder = fastfeed.Decoder(schema)
        self.ring = self.decoder.ring.reader()

    def ticks(self, *payloads: bytes | str) -> np.ndarray:
        """The ticks made by these payloads."""
        for payload in payloads:
            self.decoder.decode(payload.encode() if isinstance(payload, str) else payload)
        return self.ring.read()

    def verdict(self, payload: bytes | str) -> str:
        before = self.decoder.stats()
        self.ticks(payload)
        after = self.decoder.stats()
        (name,) = [n for n in ("data", "control", "unknown", "malformed") if after[n] > before[n]]
        return name

    def symbol(self, tick: np.void) -> str:
        return self.decoder.prices.symbols[tick["symbol_id"]]


def reader(*messages: Message, **options) -> Reader:
    return Reader(Schema(*messages, **options))


QUOTE = Message("quote", symbol="s", bid="b", ask="a")


# ---- recognising ----


@pytest.mark.parametrize(
    ("value", "good", "bad"),
    [
        ("q", '"q"', ['"Q"', '"qq"', '""', "1", "null", "true", '["q"]', '{"q":1}']),
        ("", '""', ['" "', "null"]),
        ("é", '"\\u00e9"', ['"e"', '"\\u00c9"']),
        (1, "1", ["2", '"1"', "true", "null", "-1", "1.5"]),
        (1, "1.0", ["10"]),
        (0, "0", ["false", "null", '"0"', "1e-300"]),
        (2.5, "2.50", ["2", '"2.5"']),
        (True, "true", ["1", '"true"', "false", "null"]),
        (False, "false", ["0", "null", "true"]),
        (None, "null", ["0", "false", '""', '"null"']),
    ],
)
def test_a_match_is_equality_of_value_and_type(value, good, bad):
    r = reader(Message("quote", match={"e": value}, symbol="s", bid="b"))
    assert r.verdict(f'{{"e":{good},"s":"A","b":1}}') == "data"
    assert r.verdict(f'{{"s":"A","b":1,"e":{good}}}') == "data"
    assert r.verdict('{"s":"A","b":1}') == "unknown"
    for other in bad:
        assert r.verdict(f'{{"e":{other},"s":"A","b":1}}') == "unknown", other


def test_all_of_several_matches_must_hold():
    r = reader(Message("quote", match={"e": "q", "x.y": 1, "z": MISSING}, symbol="s", bid="b"))
    assert r.verdict('{"e":"q","x":{"y":1},"s":"A","b":1}') == "data"
    assert r.verdict('{"e":"q","x":{"y":2},"s":"A","b":1}') == "unknown"
    assert r.verdict('{"e":"q","x":{},"s":"A","b":1}') == "unknown"
    assert r.verdict('{"e":"q","x":1,"s":"A","b":1}') == "unknown"
    assert r.verdict('{"e":"q","x":{"y":1},"z":null,"s":"A","b":1}') == "unknown"


def test_the_first_message_that_fits_is_the_one():
    r = reader(
        Message("quote", match={"e": "x"}, channel="first", symbol="s", bid="b"),
        Message("trade", match={"e": "x"}, symbol="s", price="b"),
    )
    assert list(r.ticks('{"e":"x","s":"A","b":1}')["kind"]) == [Kind.QUOTE]
    assert r.verdict('{"e":"x","s":"A","b":"?"}') == "unknown"


def test_without_a_match_all_references_must_be_present():
    r = reader(Message("quote", symbol="s", bid="b", bid_size="B", ask="a", ask_size="A", seq="u"))
    whole = '{"u":1,"s":"A","b":"1","B":"2","a":"3","A":"4"}'
    assert r.verdict(whole) == "data"
    for key in ('"u":1,', '"s":"A",', '"b":"1",', '"B":"2",', '"a":"3",', ',"A":"4"'):
        assert r.verdict(whole.replace(key, "")) == "unknown", key


def test_shapes_are_told_apart_by_a_key_one_lacks():
    r = reader(
        Message("quote", match={"p": MISSING}, symbol="s", bid="b"),
        Message("trade", symbol="s", price="p"),
    )
    assert list(r.ticks('{"s":"A","b":1}', '{"s":"A","p":1,"b":1}')["kind"]) == [Kind.QUOTE, Kind.TRADE]


def test_control_messages_are_told_by_what_they_have():
    r = reader(QUOTE, Message("control", has=("result", "id")), Message("control", match={"e": "bye"}))
    assert r.verdict('{"result":null,"id":1}') == "control"
    assert r.verdict('{"id":1,"result":[1,{}]}') == "control"
    assert r.verdict('{"result":null}') == "unknown"
    assert r.verdict('{"e":"bye"}') == "control"
    assert len(r.decoder.prices) == 0


@pytest.mark.parametrize(
    "document", ["{}", "[]", "1", '"x"', "null", "true", '{"x":[{"s":"A","b":1,"a":2}]}', "[[]]", "[1]", "[null]"]
)
def test_what_is_not_declared_is_unknown(document):
    assert reader(QUOTE).verdict(document) == "unknown"


# ---- where fields are ----


def test_fields_are_found_by_key_path_and_position():
    r = reader(Message("quote", match={"h.type": "q"}, symbol="h.instrument.id", bid="x.0.1", ask="x.1.1", seq="h.n"))
    (tick,) = r.ticks('{"x":[["b","1.5"],["a",2.5]],"h":{"n":7,"instrument":{"id":"A"},"type":"q"}}')
    assert (r.symbol(tick), tick["bid"], tick["ask"], tick["seq"]) == ("A", 1.5, 2.5, 7)


def test_a_positional_array_is_read_by_position():
    message = Message(
        "quote",
        match={"messageType": "A", "data.0": "Q"},
        symbol="data.1",
        event_time=("data.2", "iso"),
        bid_size="data.3",
        bid="data.4",
        ask_size="data.6",
        ask="data.7",
    )
    r = reader(message)
    frame = (
        '{"messageType":"A","service":"fx","data":["Q","eurnok","2019-07-05T15:49:15.157000+00:00",'
        "5000000.0,9.6764,9.678135,4000000.0,9.67987]}"
    )
    (tick,) = r.ticks(frame)
    assert r.symbol(tick) == "eurnok"
    assert [float(tick[n]) for n in ("bid", "bid_size", "ask", "ask_size")] == [9.6764, 5e6, 9.67987, 4e6]
    assert tick["event_ns"] == 1562341755157000000
    assert r.verdict('{"messageType":"H","response":{"code":200,"message":"HeartBeat"}}') == "unknown"


def test_a_frame_that_is_itself_a_positional_array_is_one_message():
    r = reader(Message("depth", match={2: "book"}, symbol=3, bids="1.b", asks="1.a"))
    ticks = r.ticks('[992,{"b":[["354.15","5.0","1618678133.365913"]],"c":"2583817756"},"book","XMR/USD"]')
    assert [(r.symbol(t), t["price"], t["size"], t["flags"]) for t in ticks] == [
        ("XMR/USD", 354.15, 5.0, Flag.LAST_LEVEL)
    ]
    assert r.verdict('[992,{"b":[]},"trade","XMR/USD"]') == "unknown"


def test_the_envelope_is_opened_where_there_is_one():
    r = reader(QUOTE, envelope="data")
    inner = '{"s":"A","b":"1","a":2}'
    for document in (inner, f'{{"stream":"x","data":{inner}}}', f'{{"data":{inner},"stream":"x"}}'):
        assert r.verdict(document) == "data", document
    for document in (
        '{"stream":"x","data":1}',
        '{"stream":"x"}',
        '{"data":{}}',
        '{"data":null}',
        f'{{"other":{inner}}}',
    ):
        assert r.verdict(document) == "unknown", document


def test_a_match_in_the_envelope_is_never_forgotten():
    """However often one type came, in the same layout, the next frame is of the type it names."""
    r = reader(
        Message("trade", match={"^.type": "trade"}, symbol="s", price="p"),
        Message("quote", match={"^.type": "quote"}, symbol="s", bid="p"),
        Message("mark", match={"^.n": 1}, symbol="^.type", price="p"),
        envelope="data",
    )
    for _ in range(3):
        for name, kind in (("trade", Kind.TRADE), ("quote", Kind.QUOTE)):
            for _ in range(5):
                assert list(r.ticks(f'{{"type":"{name}","data":{{"s":"A","p":"1"}}}}')["kind"]) == [kind]
        for _ in range(3):
            assert r.verdict('{"type":"other","data":{"s":"A","p":"1"}}') == "unknown"
            assert list(r.ticks('{"n":1,"type":"B","data":{"s":"A","p":"1"}}')["kind"]) == [Kind.MARK]
            assert r.verdict('{"n":2,"type":"B","data":{"s":"A","p":"1"}}') == "unknown"


def test_envelope_and_message_may_use_the_same_keys():
    r = reader(
        Message("trade", match={"^.c.d": "y"}, each="c", symbol="s", price="p"),
        Message("quote", match={"c.b": 1}, symbol="s", bid="z"),
        envelope="data",
    )
    for _ in range(4):
        assert r.ticks('{"c":{"d":"y"},"data":{"c":[{"s":"A","p":"5"}],"z":9}}')["price"][0] == 5
        assert r.ticks('{"data":{"c":{"b":1},"s":"A","z":"7"},"c":{"d":"n"}}')["bid"][0] == 7
        assert r.verdict('{"c":{"d":"n"},"data":{"c":[{"s":"A","p":"5"}]}}') == "unknown"


def test_one_key_may_hold_levels_for_one_message_and_elements_for_another():
    r = reader(
        Message("depth", match={"t": "book"}, symbol="s", bids="data"),
        Message("trade", match={"t": "trades"}, each="data", symbol="s", price="p"),
        Message("quote", match={"t": "top"}, each="data", symbol="^.s", bid=0, ask=1),
    )
    for _ in range(3):
        assert list(r.ticks('{"t":"book","s":"A","data":[["1","2"],["3","4"]]}')["price"]) == [1, 3]
        assert list(r.ticks('{"t":"trades","data":[{"s":"A","p":"5"}]}')["price"]) == [5]
        assert list(r.ticks('{"data":[{"s":"A","p":"5"},{"s":"B","p":"6"}],"t":"trades"}')["price"]) == [5, 6]
        assert list(r.ticks('{"t":"top","s":"A","data":[["1","2"]]}')["ask"]) == [2]
        assert r.verdict('{"t":"book","s":"A","data":[{"s":"A","p":"5"}]}') == "unknown"


def test_an_array_in_the_envelope_is_its_elements():
    r = reader(QUOTE, envelope="data")
    ticks = r.ticks('{"stream":"!x@arr","data":[{"s":"A","b":1,"a":2},{"s":"B","b":3,"a":4}]}')
    assert [(r.symbol(t), t["bid"]) for t in ticks] == [("A", 1), ("B", 3)]
    assert r.decoder.stats()["messages"] == 2
    assert r.decoder.stats()["frames"] == 1


def test_each_makes_a_tick_per_element_and_takes_what_it_lacks_from_the_message():
    r = reader(
        Message(
            "trade",
            match={"channel": "trades"},
            each="data",
            symbol="^.s",
            price="p",
            size="q",
            side="side",
            seq="id",
            event_time=("^.t", "ms"),
        )
    )
    ticks = r.ticks(
        '{"channel":"trades","t":5,"s":"A","data":[{"p":1,"q":2,"id":1,"side":"buy"},{"p":"3","q":"4","id":2,"side":"sell"}]}'
    )
    assert [(r.symbol(t), t["price"], t["size"], t["seq"], t["event_ns"]) for t in ticks] == [
        ("A", 1, 2, 1, 5_000_000),
        ("A", 3, 4, 2, 5_000_000),
    ]
    assert list(ticks["flags"] & Flag.SELL) == [0, Flag.SELL]
    assert r.decoder.stats()["messages"] == 1
    late = '{"channel":"trades","data":[{"p":5,"q":6,"id":3}],"s":"B","t":6}'
    assert [(r.symbol(t), t["price"], t["event_ns"]) for t in r.ticks(late)] == [("B", 5, 6_000_000)]


def test_each_reaches_through_nested_arrays():
    r = reader(
        Message(
            "quote",
            match={"channel": "ticker"},
            each="events[].tickers",
            symbol="id",
            bid="b",
            ask="a",
            event_time=("^.^.t", "ms"),
        )
    )
    ticks = r.ticks(
        '{"channel":"ticker","t":1,"events":[{"type":"x","tickers":[{"id":"A","b":1,"a":2},{"id":"B","b":3,"a":4}]},'
        '{"tickers":[]},{"type":"y"},{"tickers":[{"id":"C","b":5,"a":6}]}]}'
    )
    assert [(r.symbol(t), t["bid"], t["event_ns"]) for t in ticks] == [
        ("A", 1, 10**6),
        ("B", 3, 10**6),
        ("C", 5, 10**6),
    ]


def test_an_array_of_no_elements_is_data_without_ticks():
    r = reader(Message("trade", match={"e": "t"}, each="data", symbol="s", price="p"))
    assert r.verdict('{"e":"t","data":[]}') == "data"
    assert r.verdict('{"e":"t"}') == "unknown"
    assert r.verdict('{"e":"t","data":{}}') == "unknown"


def test_one_element_of_the_wrong_type_makes_the_whole_message_unknown():
    r = reader(Message("trade", match={"e": "t"}, each="data", symbol="s", price="p", seq="i"))
    assert r.verdict('{"e":"t","data":[{"s":"A","p":1,"i":1},{"s":"A","p":"x","i":2}]}') == "unknown"
    assert len(r.decoder.prices) == 0
    assert r.verdict('{"e":"t","data":[{"s":"A","p":1,"i":1}]}') == "data"
    assert r.decoder.stats()["duplicates"] == 0


def test_the_elements_of_an_array_frame_are_messages_of_their_own():
    r = reader(
        Message("trade", match={"ev": "T"}, symbol="sym", price="p"),
        Message("quote", match={"ev": "Q"}, symbol="sym", bid="bp", ask="ap"),
        Message("control", match={"ev": "status"}),
    )
    frame = (
        '[{"ev":"T","sym":"A","p":1},{"ev":"status","x":1},{"ev":"?"},{"ev":"Q","sym":"B","bp":2,"ap":3},'
        '{"ev":"T","sym":"A","p":"x"}]'
    )
    assert r.verdict(frame) == "data"
    assert r.decoder.stats()["messages"] == 5
    assert r.decoder.stats()["ticks"] == 2
    assert r.verdict('[{"ev":"status"},{"ev":"?"}]') == "control"
    assert r.verdict('[{"ev":"?"}]') == "unknown"
    assert r.verdict("[]") == "unknown"
    assert r.verdict('[{"ev":"T","sym":"A","p":1},{"ev":"T"') == "malformed"


@pytest.mark.parametrize(
    ("side", "sells", "buys"),
    [
        ("m", ["true", '"sell"', '"SELL"', '"s"', '"S"', '"Sold"'], ["false", '"buy"', '"BUY"', '"b"', '""', "null"]),
        (("m", "ask"), ['"ask"'], ['"bid"', '"sell"', '"asks"', '"ASK"', '""', "null"]),
        (("m", "2"), ['"2"', "2"], ['"1"', "1", '"22"']),
    ],
)
def test_the_side_marks_what_the_aggressor_sold(side, sells, buys):
    r = reader(Message("trade", match={"e": "t"}, symbol="s", price="p", side=side))
    for text in sells:
        assert list(r.ticks(f'{{"e":"t","s":"A","p":1,"m":{text}}}')["flags"]) == [Flag.SELL], text
    for text in [*buys, None]:
        tail = "" if text is None else f',"m":{text}'
        assert list(r.ticks(f'{{"e":"t","s":"A","p":1{tail}}}')["flags"]) == [0], text


def test_a_depth_message_is_one_tick_per_level():
    r = reader(Message("depth", match={"e": "d"}, symbol="s", bids="b", asks="a", seq="u", event_time=("T", "ms")))
    ticks = r.ticks('{"e":"d","s":"A","u":9,"T":1,"a":[["3","30"],["4","0"]],"b":[[1,10],["2.5","20.5","x"]]}')
    assert list(ticks["kind"]) == [Kind.LEVEL] * 4
    assert list(ticks["price"]) == [1, 2.5, 3, 4]
    assert list(ticks["size"]) == [10, 20.5, 30, 0]
    assert list(ticks["flags"]) == [0, 0, Flag.SELL, Flag.SELL | Flag.LAST_LEVEL]
    assert set(ticks["seq"]) == {9}
    assert set(ticks["event_ns"]) == {10**6}
    assert np.isnan(ticks.view(fastfeed.TICK_DTYPE_PLAIN)["value2"]).all()


def test_levels_may_be_objects_or_longer_arrays():
    r = reader(Message("depth", match={"e": "d"}, symbol="s", bids="b", asks="a", level=("px", "q.sz")))
    ticks = r.ticks('{"e":"d","s":"A","b":[{"q":{"sz":"2"},"px":"1"}],"a":[{"n":5,"px":3,"q":{"sz":4,"x":0}}]}')
    assert [(t["price"], t["size"]) for t in ticks] == [(1, 2), (3, 4)]
    r = reader(Message("depth", match={"e": "d"}, symbol="s", bids="b", asks="a", level=(1, 2)))
    ticks = r.ticks('{"e":"d","s":"A","b":[["new",0.5,10.0]],"a":[["delete",0.6,0]]}')
    assert [(t["price"], t["size"]) for t in ticks] == [(0.5, 10), (0.6, 0)]


@pytest.mark.parametrize(
    "levels",
    [
        '[["x","1"]]',
        '[["1","x"]]',
        '[["1"]]',
        "[[]]",
        "[1]",
        '["1"]',
        "[null]",
        '[["1",null]]',
        '[["1","2"],["",""]]',
        "{}",
        "1",
        '"x"',
        '[["1","5."]]',
        '[["1",true]]',
        '[["1",["2"]]]',
        '[["1","1e999"]]',
        '[{"0":"1","1":"2"}]',
    ],
)
def test_levels_that_are_none_make_the_message_unknown(levels):
    r = reader(Message("depth", match={"e": "d"}, symbol="s", bids="b", asks="a"))
    assert r.verdict(f'{{"e":"d","s":"A","a":[["1","2"]],"b":{levels}}}') == "unknown"
    assert r.verdict(f'{{"e":"d","b":{levels},"s":"A","a":[["1","2"]]}}') == "unknown"


def test_missing_null_and_empty_sides_have_no_levels():
    r = reader(Message("depth", match={"e": "d"}, symbol="s", bids="b", asks="a"))
    for frame in ('{"e":"d","s":"A"}', '{"e":"d","s":"A","b":[],"a":[]}', '{"e":"d","s":"A","b":null,"a":null}'):
        assert r.verdict(frame) == "data"
    (tick,) = r.ticks('{"e":"d","s":"A","b":[["1","2"]],"a":[]}')
    assert tick["flags"] == Flag.LAST_LEVEL


def test_a_snapshot_is_flagged():
    r = reader(Message("depth", match={"t": "snapshot"}, symbol="s", bids="b", asks="a", snapshot=True))
    ticks = r.ticks('{"t":"snapshot","s":"A","b":[["1","2"],["3","4"]],"a":[]}')
    assert list(ticks["flags"]) == [Flag.SNAPSHOT, Flag.SNAPSHOT | Flag.LAST_LEVEL]


def test_marks_and_bars_have_their_own_numbers():
    r = reader(
        Message("mark", match={"e": "m"}, symbol="s", price="p", index="i", funding="r"),
        Message(
            "bar",
            match={"e": "b"},
            symbol="s",
            open="o",
            high="h",
            low="l",
            close="c",
            volume="v",
            vwap="w",
            trades="n",
            start="t",
        ),
    )
    (mark,) = r.ticks('{"e":"m","s":"A","p":"1","i":"2","r":"-0.001"}')
    assert (mark["kind"], mark["price"], mark["index"], mark["funding"]) == (Kind.MARK, 1, 2, -0.001)
    bar, volume = r.ticks('{"e":"b","s":"A","o":1,"h":"4","l":0.5,"c":2,"v":100,"w":1.5,"n":7,"t":1700000000000}')
    assert (bar["kind"], volume["kind"]) == (Kind.BAR, Kind.BAR_VOLUME)
    assert [float(bar[n]) for n in ("open", "high", "low", "close")] == [1, 4, 0.5, 2]
    assert [float(volume[n]) for n in ("volume", "vwap", "trades", "start")] == [100, 1.5, 7, 1700000000000]


# ---- values ----


@pytest.mark.parametrize(
    "value",
    [
        '"x"',
        '""',
        '"5."',
        '".5"',
        '"+5"',
        '" 5"',
        '"5 "',
        '"1e999"',
        "true",
        "false",
        "[]",
        "{}",
        "[5]",
        '"null"',
        '"NaN"',
        '"0x5"',
        '"05"',
    ],
)
def test_a_price_of_the_wrong_type_makes_the_message_unknown(value):
    r = reader(Message("quote", match={"e": "q"}, symbol="s", bid="b", bid_size="B", ask="a", ask_size="A"))
    for field in "bBaA":
        frame = '{"e":"q","s":"A","b":1,"B":1,"a":1,"A":1}'.replace(f'"{field}":1', f'"{field}":{value}')
        assert r.verdict(frame) == "unknown", frame
    assert len(r.decoder.prices) == 0


def test_absent_and_null_are_nan_in_the_tick():
    r = reader(
        Message(
            "quote", match={"e": "q"}, symbol="s", bid="b", bid_size="B", ask="a", ask_size="A", seq="u", event_time="T"
        )
    )
    for frame in ('{"e":"q","s":"A","a":1}', '{"e":"q","s":"A","b":null,"B":null,"a":1,"A":null,"u":null,"T":null}'):
        (tick,) = r.ticks(frame)
        assert math.isnan(tick["bid"])
        assert math.isnan(tick["ask_size"])
        assert tick["ask"] == 1
        assert (tick["seq"], tick["event_ns"]) == (0, 0)


def test_a_number_declared_as_no_value_is_none_however_often_prices_came_before():
    """The usual shape of a frame, learned from real prices, must not read a declared "no bid" as a price of zero."""
    r = reader(Message("quote", match={"e": "q"}, symbol="s", bid="b", ask="a", null=("0", "0.00", "-1")))
    for number in range(200):
        (tick,) = r.ticks(f'{{"e":"q","s":"A","b":"{number + 1}.25","a":"9"}}')
        assert tick["bid"] == number + 1.25
    for text in ("0", "0.00", "-1"):
        (tick,) = r.ticks(f'{{"e":"q","s":"A","b":"{text}","a":"9"}}')
        assert math.isnan(tick["bid"]), text
        assert math.isnan(r.decoder.prices["A"]["bid"])
        (tick,) = r.ticks('{"e":"q","s":"A","b":"7","a":"9"}')
        assert tick["bid"] == 7


def test_strings_that_only_look_like_no_value_are_read():
    r = reader(Message("quote", match={"e": "q"}, symbol="s", bid="b", null=("", "0")))
    assert r.ticks('{"e":"q","s":"A","b":"0.0"}')["bid"][0] == 0.0
    assert r.ticks('{"e":"q","s":"A","b":0}')["bid"][0] == 0.0


def test_key_order_whitespace_and_strangers_change_nothing():
    r = reader(Message("quote", match={"e": "q"}, symbol="s", bid="b", ask="a", seq="u", sequence="none"))
    frames = [
        '{"e":"q","s":"A","b":"1","a":"2","u":3}',
        '{"u":3,"a":"2","b":"1","s":"A","e":"q"}',
        ' {\n"e" : "q" ,\t"s":"A", "b": "1" ,"a" :"2","u": 3 }\r\n',
        '{"x":{"e":"z","b":9},"e":"q","y":[1,"b",{"s":"Z"}],"s":"A","b":"1","é":null,"a":"2","u":3,"":0,"bb":5}',
        '{"\\u0065":"\\u0071","\\u0073":"\\u0041","\\u0062":"1","a":"2","u":3}',
        '{"b":"9","s":"Z","e":"q","s":"A","b":"1","a":"2","u":3}',
        '{"b":{"x":1},"s":["Z"],"e":5,"u":"x","e":"q","s":"A","b":"1","a":"2","u":3}',
        '{"e":"q","s":"A","b":"9","\\u0062":"1","a":"2","u":3}',
    ]
    for frame in frames * 3:
        (tick,) = r.ticks(frame)
        assert (r.symbol(tick), tick["bid"], tick["ask"], tick["seq"]) == ("A", 1, 2, 3), frame


@pytest.mark.parametrize(
    ("frame", "prices"),
    [
        ('{"e":"d","s":"A","b":[["1","2"],["3","4"]],"b":[["5","6"]],"a":[]}', [5]),
        ('{"e":"d","s":"A","b":[["x","y"]],"b":[["5","6"]],"a":[]}', [5]),
        ('{"e":"d","s":"A","b":[["1","2"]],"b":[],"a":[]}', []),
        ('{"e":"d","s":"A","b":[["1","2"]],"b":null,"a":[]}', []),
        ('{"e":"d","s":"A","a":[["1","2"]],"b":[["3","4"]],"a":[["5","6"],["7","8"]]}', [3, 5, 7]),
    ],
)
def test_the_last_of_repeated_keys_wins_arrays_included(frame, prices):
    r = reader(Message("depth", match={"e": "d"}, symbol="s", bids="b", asks="a"))
    assert r.verdict(frame) == "data"
    r = reader(Message("depth", match={"e": "d"}, symbol="s", bids="b", asks="a"))
    assert list(r.ticks(frame)["price"]) == prices


def test_the_last_of_repeated_objects_wins_whole():
    """Nothing of an earlier object of the same key shines through."""
    r = reader(Message("quote", match={"e": "q"}, symbol="d.s", bid="d.b", ask="d.a"))
    assert r.verdict('{"e":"q","d":{"s":"A","b":1,"a":2},"d":{"b":3}}') == "unknown"
    (tick,) = r.ticks('{"e":"q","d":{"s":"A","b":1,"a":2},"d":{"s":"A","b":3}}')
    assert tick["bid"] == 3
    assert math.isnan(tick["ask"])
    assert r.verdict('{"e":"q","d":{"s":"A","b":1,"a":2},"d":5}') == "unknown"
    r = reader(QUOTE, envelope="data")
    assert r.verdict('{"data":{"s":"A","b":1,"a":2},"data":{"s":"A","b":3}}') == "unknown"
    assert r.verdict('{"data":{"s":"A","b":1,"a":2},"data":[]}') == "unknown"


def test_keys_of_any_length_are_told_apart():
    keys = (
        ["k" * length for length in range(1, 40)]
        + ["k" * length + "x" for length in range(1, 40)]
        + ["x" + "k" * 20, "bid", "Bid", "币", "é"]
    )
    for key in keys:
        r = reader(Message("quote", match={"e": "q"}, symbol="s", bid=key))
        others = ",".join(f'"{other}":"9"' for other in keys if other != key)
        (tick,) = r.ticks(f'{{"e":"q","s":"A",{others},"{key}":"1"}}')
        assert tick["bid"] == 1, key


def test_many_keys_in_one_schema_are_told_apart():
    names = ("open", "high", "low", "close", "volume", "vwap", "trades", "start")
    for round_ in range(20):
        keys = {name: f"{name[0]}{round_ * 7919 % 97}{name if round_ % 2 else ''}" for name in names}
        if len(set(keys.values())) < len(names):
            continue
        r = reader(Message("bar", match={"type": "bar"}, symbol="symbol", **keys))
        text = ",".join(f'"{key}":{number}' for number, key in enumerate(keys.values()))
        bar, volume = r.ticks(f'{{"type":"bar","symbol":"A",{text}}}')
        assert [
            *bar.view(fastfeed.TICK_DTYPE_PLAIN).tolist()[-4:],
            *volume.view(fastfeed.TICK_DTYPE_PLAIN).tolist()[-4:],
        ] == [*range(8)]


def test_the_same_value_may_be_two_fields():
    r = reader(Message("quote", match={"e": "q"}, symbol="s", bid="p", ask="p", seq="n", event_time=("n", "ns")))
    for number in range(1, 50):
        (tick,) = r.ticks(f'{{"e":"q","s":"A","p":"{number}","n":{number}}}')
        assert (tick["bid"], tick["ask"], tick["seq"], tick["event_ns"]) == (number,) * 4


def test_a_key_used_to_match_may_also_be_read():
    r = reader(
        Message("trade", match={"price": 5}, symbol="s", price="price"), Message("trade", symbol="s", price="price")
    )
    for price in (5, 6, 5, 7, 5):
        assert r.ticks(f'{{"s":"A","price":{price}}}')["price"][0] == price


# ---- what cannot be declared ----


@pytest.mark.parametrize(
    ("declare", "named"),
    [
        (lambda: Message("nope", symbol="s", bid="b"), "nope"),
        (lambda: Message("quote", symbol="s", price="p"), "price"),
        (lambda: Message("quote", bid="b"), "symbol"),
        (lambda: Message("quote", symbol="s"), "bid"),
        (lambda: Message("control"), "match"),
        (lambda: Message("control", match={"e": 1}, symbol="s"), "symbol"),
        (lambda: Message("quote", symbol="s", bid="b", sequence="sometimes"), "sometimes"),
        (lambda: Message("quote", symbol="s", bid="b", event_time=("T", "weeks")), "weeks"),
        (lambda: Schema(), "message"),
        (lambda: Schema("quote"), "quote"),
        (lambda: Schema(Message("control", has=("x",))), "data"),
        (lambda: fastfeed.Decoder(Schema(Message("quote", symbol="s", bid="^.b"))), "b"),
        (lambda: fastfeed.Decoder(Schema(Message("quote", symbol="s", bid="a..b"))), "a..b"),
        (lambda: fastfeed.Decoder(Schema(Message("quote", symbol="s", bid=-1))), "-1"),
        (lambda: fastfeed.Decoder(Schema(Message("quote", symbol="s", bid="b", match={"e": [1]}))), "1"),
        (lambda: fastfeed.Decoder(Schema(Message("quote", symbol=Symbol("s", until="ab"), bid="b"))), "ab"),
        (lambda: fastfeed.Decoder("no-such-venue"), "no-such-venue"),
        (lambda: fastfeed.Decoder(""), "binance-usdm"),
    ],
)
def test_an_impossible_declaration_is_refused_by_name(declare, named):
    with pytest.raises(fastfeed.ConfigError, match=named.replace(".", r"\.")):
        declare()


@pytest.mark.parametrize("wrong", [5, None, object(), b"binance-usdm", ["binance-usdm"]])
def test_what_is_neither_name_nor_schema_is_refused(wrong):
    with pytest.raises((fastfeed.ConfigError, TypeError)):
        fastfeed.Decoder(wrong)


def test_a_schema_may_serve_several_decoders():
    schema = Schema(QUOTE)
    first, second = Reader(schema), Reader(schema)
    first.ticks('{"s":"A","b":1,"a":2}')
    assert len(second.decoder.prices) == 0
    (tick,) = second.ticks('{"s":"B","b":3,"a":4}')
    assert second.symbol(tick) == "B"
    assert second.decoder.schema is schema


# ---- raw texts that are control ----


def test_a_plain_text_that_is_declared_is_control_and_any_other_is_malformed():
    r = reader(QUOTE, plain=("pong", "Connected", "é"))
    for text in ("pong", "Connected", "é"):
        assert r.verdict(text) == "control", text
    for text in ("ping", "pon", "pong ", " pong", "Pong", "pongpong", "Connected\n", "", "{", "\0"):
        assert r.verdict(text) == "malformed", text
    assert r.decoder.stats()["messages"] == 3
    assert r.verdict('{"s":"A","b":1,"a":2}') == "data"


def test_a_plain_text_is_control_and_nothing_else_whatever_it_begins_like():
    r = reader(QUOTE, plain=('[{"s":"A","b":1,"a":2},',))
    assert r.verdict('[{"s":"A","b":1,"a":2},') == "control"
    assert r.decoder.stats()["ticks"] == 0
    assert r.verdict('[{"s":"A","b":1,"a":2}]') == "data"


def test_what_is_json_is_never_looked_up_among_the_plain_texts():
    r = reader(QUOTE, plain=("true", '"pong"', "7"))
    for text in ("true", '"pong"', "7"):
        assert r.verdict(text) == "unknown", text


def test_plain_texts_are_for_text_frames_only():
    r = reader(QUOTE, plain=("pong",), encoding="msgpack")
    assert r.verdict("pong") == "malformed"
    r.decoder.decode(b"pong", text=True)
    assert r.decoder.stats()["control"] == 1


@pytest.mark.parametrize("plain", ["pong", ("",), (5,), ("a\0b",)])
def test_plain_texts_that_cannot_be_are_refused(plain):
    with pytest.raises(fastfeed.ConfigError, match="plain"):
        Schema(QUOTE, plain=plain)
