"""Symbols: any UTF-8 of any length to a dense id, the same id forever; a full table refuses, counts and goes on."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfeed
from fastfeed.schema import Message, Schema, Symbol

SCHEMA = Schema(Message("quote", symbol="s", bid="b", seq="u"), name="symbols")


def frame(symbol: str, seq: int = 1, escaped: bool = False) -> bytes:
    return json.dumps({"s": symbol, "b": "1", "u": seq}, ensure_ascii=escaped).encode()


def test_ids_are_dense_in_order_of_first_sight():
    decoder = fastfeed.Decoder(SCHEMA)
    for seq, symbol in enumerate(["B", "A", "B", "C", "A"], 1):
        decoder.decode(frame(symbol, seq))
    assert list(decoder.prices.symbols) == ["B", "A", "C"]
    assert [decoder.prices.id(symbol) for symbol in ("B", "A", "C")] == [0, 1, 2]
    assert list(decoder.prices.array["symbol_id"]) == [0, 1, 2]


@pytest.mark.parametrize(
    "symbol",
    [
        "A",
        "BTCUSDT",
        "这是测试币456",
        "币安人生USDT",
        "é",
        "😀",
        "a b",
        "A/B",
        "A.B-C_D",
        "x" * 15,
        "x" * 16,
        "x" * 17,
        "x" * 63,
        "x" * 64,
        "x" * 65,
        "x" * 255,
        "x" * 256,
        "x" * 10000,
        'quo"te',
        "back\\slash",
        "new\nline",
        "nul\x00nul",
        "\x7f",
        "\U0010ffff",
    ],
)
def test_any_symbol_keeps_its_name(symbol):
    decoder = fastfeed.Decoder(SCHEMA)
    assert decoder.decode(frame(symbol, 1)) == 1
    assert decoder.decode(frame(symbol, 2, escaped=True)) == 1
    assert list(decoder.prices.symbols) == [symbol]
    assert symbol in decoder.prices
    assert decoder.prices[symbol]["seq"] == 2


def test_symbols_that_share_beginnings_and_ends_stay_apart():
    decoder = fastfeed.Decoder(SCHEMA)
    names = ["x" * length for length in range(1, 80)]
    names += ["x" * length + "y" for length in range(80)] + ["y" + "x" * length for length in range(1, 80)]
    names += [f"{number:016d}" for number in range(500)] + [f"{number}USDT" for number in range(500)]
    for name in names:
        decoder.decode(frame(name))
    assert list(decoder.prices.symbols) == names
    assert [decoder.prices.id(name) for name in names] == list(range(len(names)))


@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), unique=True, max_size=40)
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_symbol_of_its_own(names):
    decoder = fastfeed.Decoder(SCHEMA)
    for name in names:
        for escaped in (False, True):
            decoder.decode(frame(name, 1 + escaped, escaped))
    assert list(decoder.prices.symbols) == names
    assert [int(decoder.prices[name]["seq"]) for name in names] == [2] * len(names)


@pytest.mark.parametrize("text", ["null", "true", "[]", '["A"]', "{}", '""'])
def test_what_is_no_symbol_makes_the_message_unknown(text):
    decoder = fastfeed.Decoder(SCHEMA)
    assert decoder.decode(b'{"s":%s,"b":"1","u":1}' % text.encode()) == 0
    assert decoder.stats()["unknown"] == 1
    assert len(decoder.prices) == 0


def test_a_full_table_refuses_counts_and_goes_on():
    decoder = fastfeed.Decoder(SCHEMA, max_symbols=3)
    for seq, symbol in enumerate(["A", "B", "C", "D", "A", "E", "D"], 1):
        decoder.decode(frame(symbol, seq))
    assert list(decoder.prices.symbols) == ["A", "B", "C"]
    assert decoder.prices["A"]["seq"] == 5
    stats = decoder.stats()
    assert stats["refused_symbols"] >= 2
    assert stats["frames"] == 7 == stats["data"] + stats["control"] + stats["unknown"] + stats["malformed"]
    assert stats["malformed"] == 0
    assert "D" not in decoder.prices
    assert not decoder.prices.is_fresh("D", max_age=10.0)


def test_a_refused_symbol_makes_no_tick():
    decoder = fastfeed.Decoder(SCHEMA, max_symbols=1)
    ticks = decoder.ring.reader()
    decoder.decode(frame("A"))
    assert decoder.decode(frame("B")) == 0
    assert len(ticks.read()) == 1


def test_a_flood_of_symbols_into_a_full_table_ends():
    decoder = fastfeed.Decoder(SCHEMA, max_symbols=100)
    decoder.decode_many([frame(f"S{number}") for number in range(20_000)])
    assert len(decoder.prices) == 100
    assert decoder.prices["S99"]["bid"] == 1


def test_a_table_fills_to_its_last_row():
    decoder = fastfeed.Decoder(SCHEMA, max_symbols=5000)
    decoder.decode_many([frame(f"S{number}") for number in range(5000)])
    assert len(decoder.prices) == 5000
    assert decoder.stats()["refused_symbols"] == 0
    assert all(decoder.prices.id(f"S{number}") == number for number in range(0, 5000, 7))


def test_symbols_may_be_registered_before_their_first_tick():
    decoder = fastfeed.Decoder(SCHEMA, max_symbols=2)
    assert decoder.add_symbol("A") == 0
    assert decoder.add_symbol("B") == 1
    assert decoder.add_symbol("A") == 0
    with pytest.raises(fastfeed.ConfigError, match="2"):
        decoder.add_symbol("C")
    assert len(decoder.prices.array) == 2
    decoder.decode(frame("B"))
    assert decoder.prices["B"]["bid"] == 1


@pytest.mark.parametrize("name", ["", 5, None, b"A"])
def test_an_impossible_symbol_is_refused(name):
    with pytest.raises((fastfeed.ConfigError, TypeError)):
        fastfeed.Decoder(SCHEMA).add_symbol(name)


@pytest.mark.parametrize("max_symbols", [0, -1, 2**40])
def test_an_impossible_table_is_a_config_error(max_symbols):
    with pytest.raises(fastfeed.ConfigError, match=str(max_symbols)):
        fastfeed.Decoder(SCHEMA, max_symbols=max_symbols)


def test_the_symbol_may_come_from_the_envelope():
    schema = Schema(
        Message("quote", symbol=Symbol("^.stream", until="@", upper=True), bid="b", seq="u"),
        envelope="data",
        name="enveloped",
    )
    decoder = fastfeed.Decoder(schema)
    assert decoder.decode(b'{"stream":"btcusdt@depth5","data":{"b":"1","u":1}}') == 1
    assert decoder.decode(b'{"data":{"b":"2","u":2},"stream":"btcusdt@depth5"}') == 1
    assert decoder.decode(b'{"stream":"ethusdt","data":{"b":"1","u":1}}') == 1
    assert list(decoder.prices.symbols) == ["BTCUSDT", "ETHUSDT"]
    assert decoder.prices["BTCUSDT"]["bid"] == 2


def test_only_ascii_letters_are_raised():
    schema = Schema(Message("quote", symbol=Symbol("s", upper=True), bid="b"), name="upper")
    decoder = fastfeed.Decoder(schema)
    decoder.decode('{"s":"abc币é1","b":1}'.encode())
    assert list(decoder.prices.symbols) == ["ABC币é1"]


def test_the_symbols_are_a_sequence():
    decoder = fastfeed.Decoder(SCHEMA)
    for symbol in "ABC":
        decoder.decode(frame(symbol))
    symbols = decoder.prices.symbols
    assert symbols[-1] == "C"
    assert "B" in symbols
    assert symbols.index("B") == 1
    assert [*reversed(symbols)] == ["C", "B", "A"]
    with pytest.raises(IndexError):
        symbols[3]


# ---- aliases ----

ECHO = Schema(Message("quote", symbol="s", bid="b"))


def _bid(decoder: fastfeed.Decoder, text: str, bid: float) -> None:
    assert decoder.decode(json.dumps({"s": text, "b": bid}, ensure_ascii=False).encode()) == 1


@pytest.mark.parametrize("text", ["700", "x", "exactly sixteen!", "é" * 40, "a" * 1000, "日本", "7" * 17])
def test_an_alias_leads_to_the_row_of_its_symbol(text):
    decoder = fastfeed.Decoder(ECHO)
    ring = decoder.ring.reader()
    first = decoder.add_symbol("other")
    assert decoder.add_alias(text, "700.HK") == first + 1
    assert decoder.add_alias(text, "700.HK") == first + 1
    _bid(decoder, text, 1.5)
    _bid(decoder, "700.HK", 2.5)
    assert list(decoder.prices.symbols) == ["other", "700.HK"]
    assert decoder.prices["700.HK"]["bid"] == decoder.prices[text]["bid"] == 2.5
    assert list(ring.read()["symbol_id"]) == [first + 1] * 2
    assert decoder.prices["700.HK"]["updates"] == 2


def test_an_alias_that_would_mix_two_symbols_is_refused():
    decoder = fastfeed.Decoder(ECHO)
    _bid(decoder, "700", 1)
    with pytest.raises(fastfeed.ConfigError, match="symbol of its own"):
        decoder.add_alias("700", "700.HK")
    decoder.add_alias("701", "701.HK")
    with pytest.raises(fastfeed.ConfigError, match=r"stands for '701\.HK'"):
        decoder.add_alias("701", "701.US")
    with pytest.raises(fastfeed.ConfigError, match="empty"):
        decoder.add_alias("", "701.HK")
    _bid(decoder, "701", 3)
    assert decoder.prices["701.HK"]["bid"] == 3
    assert decoder.prices["700"]["bid"] == 1


def test_an_alias_is_no_symbol_of_its_own():
    decoder = fastfeed.Decoder(ECHO, max_symbols=1)
    decoder.add_alias("700", "700.HK")
    with pytest.raises(fastfeed.ConfigError, match=r"stands for '700\.HK'"):
        decoder.add_symbol("700")
    assert list(decoder.prices.symbols) == ["700.HK"]


def test_two_symbols_with_one_echo_are_refused_before_either_is_asked_for():
    for symbols in (["BTC.X", "BTC"], ["BTC", "BTC.X"]):
        with pytest.raises(fastfeed.ConfigError, match="symbol of its own"):
            fastfeed.Feed("tickdb", symbols, channels=["quote"], api_key="k")


def test_as_many_aliases_fit_as_symbols_and_none_is_lost_as_the_index_grows():
    decoder = fastfeed.Decoder(ECHO, max_symbols=5000)
    for number in range(4999):
        assert decoder.add_alias(f"alias {number}", f"{number}.HK") == number
    decoder.add_alias("the last one", "0.HK")
    with pytest.raises(fastfeed.ConfigError, match="5000 already"):
        decoder.add_alias("one more", "0.HK")
    for number in range(0, 4999, 7):
        assert decoder.prices.id(f"alias {number}") == decoder.prices.id(f"{number}.HK") == number
        _bid(decoder, f"alias {number}", number)
    assert len(decoder.prices) == 4999
    assert decoder.add_symbol("the last") == 4999
    with pytest.raises(fastfeed.ConfigError, match="all 5000 are taken"):
        decoder.add_symbol("beyond")


def test_a_provider_says_which_spellings_its_messages_may_have():
    feed = fastfeed.Feed("tickdb", ["700.HK", "BTCUSDT"], channels=["quote"], api_key="k")
    frame = b'{"cmd":"ticker","data":{"symbol":"700","bid_price":"1","ask_price":"2","timestamp":1}}'
    assert feed.decoder.decode(frame) == 1
    assert feed.prices["700.HK"]["ask"] == 2
    assert list(feed.prices.symbols) == ["700.HK", "BTCUSDT"]
    with pytest.raises(fastfeed.ConfigError, match=r"'700' of '700.US': it stands for '700.HK'"):
        feed.subscribe(["700.US"])
