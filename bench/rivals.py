"""Who decodes: the same job by json, orjson, msgspec and fastfeed. No network.

The job: from each frame the four prices as float64, the newest quote of every symbol kept by update id (an older one is
ignored), and which symbols changed. fastfeed also validates as strictly as orjson, checks sequences, notes arrivals for
freshness and keeps a conflating cursor for every consumer; the rivals are spared that.
"""

import json
from collections.abc import Callable, Sequence

import msgspec
import orjson

import fastfeed

Quote = tuple[float, float, float, float, int]
Table = dict[str, Quote]


class Book(msgspec.Struct):
    """A bookTicker as msgspec reads it: typed, strings taken as floats (strict=False), unknown keys skipped."""

    s: str
    u: int
    b: float
    B: float
    a: float
    A: float


class Envelope(msgspec.Struct):
    data: Book


class Either(msgspec.Struct):
    """Bare or enveloped: what is missing is None."""

    s: str | None = None
    u: int = 0
    b: float = 0.0
    B: float = 0.0
    a: float = 0.0
    A: float = 0.0
    data: Book | None = None


def by_dict(loads: Callable[[bytes], dict]) -> Callable[[Sequence[bytes]], Table]:
    """json or orjson: a dict per frame, float() on each price."""

    def run(frames: Sequence[bytes]) -> Table:
        table: Table = {}
        changed: set[str] = set()
        for frame in frames:
            quote = loads(frame)
            quote = quote.get("data", quote)
            symbol, update = quote["s"], quote["u"]
            last = table.get(symbol)
            if last is None or update > last[4]:
                table[symbol] = (float(quote["b"]), float(quote["B"]), float(quote["a"]), float(quote["A"]), update)
                changed.add(symbol)
        return table

    return run


def by_msgspec(frames: Sequence[bytes]) -> Table:
    """The struct that fits all frames best: bare, enveloped, or either."""
    is_enveloped = [frame.startswith(b'{"stream"') for frame in (frames[0], frames[-1], *frames[:64])]
    struct = Envelope if all(is_enveloped) else Either if any(is_enveloped) else Book
    decode = msgspec.json.Decoder(struct, strict=False).decode
    table: Table = {}
    changed: set[str] = set()
    for frame in frames:
        quote = decode(frame)
        if struct is not Book:
            quote = quote.data or quote
        last = table.get(quote.s)
        if last is None or quote.u > last[4]:
            table[quote.s] = (quote.b, quote.B, quote.a, quote.A, quote.u)
            changed.add(quote.s)
    return table


def as_table(decoder: fastfeed.Decoder) -> Table:
    names = ("bid", "bid_size", "ask", "ask_size", "quote_seq")
    columns = [decoder.prices.array[name].tolist() for name in names]
    return dict(zip(decoder.prices.symbols, zip(*columns, strict=True), strict=True))


def new_decoder() -> tuple[fastfeed.Decoder, fastfeed.PriceReader]:
    """A decoder with one consumer attached, as a strategy would have it."""
    decoder = fastfeed.Decoder("binance-usdm", max_symbols=4096)
    return decoder, decoder.prices.reader()


def by_decode(frames: Sequence[bytes]) -> fastfeed.Decoder:
    """One call from Python per frame."""
    decoder, reader = new_decoder()
    decode = decoder.decode
    for frame in frames:
        decode(frame)
    assert reader.ready
    return decoder


def by_decode_many(frames: Sequence[bytes]) -> fastfeed.Decoder:
    """One call for all frames."""
    decoder, reader = new_decoder()
    decoder.decode_many(frames)
    assert reader.ready
    return decoder


DECODERS: dict[str, Callable[[Sequence[bytes]], Table | fastfeed.Decoder]] = {
    "json + float + dict": by_dict(json.loads),
    "orjson + float + dict": by_dict(orjson.loads),
    "msgspec.Struct + dict": by_msgspec,
    "fastfeed decode": by_decode,
    "fastfeed decode_many": by_decode_many,
}
BASELINES = ("orjson + float + dict", "msgspec.Struct + dict")
