"""What do rows cost: per tick as symbols and consumers grow, per drain as the changed ones grow, beside a dict?"""

import numpy as np
import pytest

import fastfeed
from fastfeed.schema import Message, Schema

TICKS = 100_000
SCHEMA = Schema(
    Message(
        "quote", match={"e": "q"}, symbol="s", bid="b", bid_size="B", ask="a", ask_size="A", seq="u", sequence="none"
    ),
    name="table",
)


def quotes(symbols: int, count: int = TICKS) -> list[bytes]:
    order = np.random.default_rng(1).integers(0, symbols, count)
    return [
        b'{"e":"q","s":"S%d","b":"%d.25","B":"1","a":"2.5","A":"4","u":%d}' % (s, s, n) for n, s in enumerate(order)
    ]


@pytest.mark.parametrize("symbols", [100, 10_000, 50_000])
def test_ticks_over_many_symbols(benchmark, symbols):
    decoder = fastfeed.Decoder(SCHEMA, max_symbols=65_536)
    reader = decoder.prices.reader()
    frames = quotes(symbols)
    decoder.decode_many(frames)
    benchmark.extra_info["ticks"] = TICKS
    benchmark(decoder.decode_many, frames)
    assert reader.ready


@pytest.mark.parametrize("consumers", [0, 1, 16])
def test_ticks_with_many_consumers(benchmark, consumers):
    decoder = fastfeed.Decoder(SCHEMA)
    readers = [decoder.prices.reader() for _ in range(consumers)]
    frames = quotes(500)
    benchmark.extra_info["ticks"] = TICKS
    benchmark(decoder.decode_many, frames)
    assert all(reader.ready for reader in readers)


@pytest.mark.parametrize("changed", [10, 1000])
@pytest.mark.parametrize("symbols", [1000, 50_000])
def test_drain(benchmark, symbols, changed):
    decoder = fastfeed.Decoder(SCHEMA)
    decoder.decode_many([b'{"e":"q","s":"S%d","b":"1","u":1}' % number for number in range(symbols)])
    reader = decoder.prices.reader()
    out = np.zeros(2000, fastfeed.PRICE_DTYPE)
    step = symbols // changed
    frames = [b'{"e":"q","s":"S%d","b":"2","u":2}' % number for number in range(0, symbols, step)][:changed]

    def change() -> None:
        decoder.decode_many(frames)

    assert benchmark.pedantic(reader.drain, args=(out,), setup=change, rounds=200) == changed


@pytest.mark.parametrize("changed", [10, 1000])
def test_drain_of_a_dict(benchmark, changed):
    table = {f"S{number}": (1.0, 2.0, 3.0, 4.0) for number in range(50_000)}
    dirty = dict.fromkeys(f"S{number}" for number in range(changed))

    def drain() -> int:
        return len([(symbol, table[symbol]) for symbol in dirty])

    assert benchmark(drain) == changed


def test_is_fresh(benchmark):
    decoder = fastfeed.Decoder(SCHEMA)
    decoder.decode_many(quotes(500))
    assert benchmark(decoder.prices.is_fresh, "S7", 60.0)


def test_fresh_of_50_000_symbols(benchmark):
    decoder = fastfeed.Decoder(SCHEMA)
    decoder.decode_many(quotes(50_000))
    assert benchmark(decoder.prices.fresh, 60.0).any()
