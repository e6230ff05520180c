"""Who decodes: the same job by json, orjson, msgspec, pysimdjson, simdjson in C++ and fastfeed. No network.

The job: from each frame symbol, update id and the four prices as float64, the newest quote of every symbol kept by
update id (an older one is ignored), and which symbols changed. What each rival is spared is in `SPARED`.
"""

import ctypes
import json
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import orjson
import prepare
import simdjson

import fastfeed

Quote = tuple[float, float, float, float, int]
Table = dict[str, Quote]

NOT_DONE = "no sequence check, no times, no freshness, no books, one consumer"
SPARED = {
    "json": f"{NOT_DONE}; accepts NaN",
    "orjson": NOT_DONE,
    "msgspec": f"{NOT_DONE}; fields it does not name are skipped, not decoded",
    "pysimdjson": NOT_DONE,
    "simdjson on-demand": "no table, no symbol ids, no sequence check, no freshness, no books, no consumer; what it "
    "does not read it does not validate, nor the kind of the message; frames lie in one padded buffer",
}


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


class Dicts:
    """json or orjson: a dict per frame, float() on each price."""

    def __init__(self, loads: Callable[[bytes], dict], lead: Sequence[bytes]) -> None:
        self.loads = loads
        self.table: Table = {}
        self.changed: set[str] = set()
        self.take(lead)

    def take(self, frames: Sequence[bytes]) -> None:
        table, changed, loads = self.table, self.changed, self.loads
        for frame in frames:
            quote = loads(frame)
            if "data" in quote:
                quote = quote["data"]
            symbol, update = quote["s"], quote["u"]
            last = table.get(symbol)
            if last is None or update > last[4]:
                table[symbol] = (float(quote["b"]), float(quote["B"]), float(quote["a"]), float(quote["A"]), update)
                changed.add(symbol)


class Simdjson(Dicts):
    """pysimdjson: the parser is used again and again, and the object is read lazily, never made a dict."""

    def __init__(self, lead: Sequence[bytes]) -> None:
        self.parser = simdjson.Parser()
        super().__init__(self.parser.parse, lead)

    def take(self, frames: Sequence[bytes]) -> None:
        table, changed, parse = self.table, self.changed, self.parser.parse
        for frame in frames:
            document = parse(frame)
            # Asking it for a key that is not there costs more than all the rest.
            quote = document["data"] if frame.startswith(b'{"stream"') else document
            symbol, update = quote["s"], quote["u"]
            last = table.get(symbol)
            if last is None or update > last[4]:
                table[symbol] = (float(quote["b"]), float(quote["B"]), float(quote["a"]), float(quote["A"]), update)
                changed.add(symbol)
            del document, quote  # else the parser may not be used again


class Structs:
    """msgspec, with the struct that fits all frames best: bare, enveloped, or either."""

    def __init__(self, lead: Sequence[bytes], frames: Sequence[bytes]) -> None:
        is_enveloped = {frame.startswith(b'{"stream"') for frame in frames[:64]}
        self.is_bare = is_enveloped == {False}
        struct = Book if self.is_bare else Envelope if is_enveloped == {True} else Either
        self.decode = msgspec.json.Decoder(struct, strict=False).decode
        self.table: Table = {}
        self.changed: set[str] = set()
        self.take(lead)

    def take(self, frames: Sequence[bytes]) -> None:
        table, changed, decode, is_bare = self.table, self.changed, self.decode, self.is_bare
        for frame in frames:
            quote = decode(frame)
            if not is_bare:
                quote = quote.data or quote
            last = table.get(quote.s)
            if last is None or quote.u > last[4]:
                table[quote.s] = (quote.b, quote.B, quote.a, quote.A, quote.u)
                changed.add(quote.s)


class Fastfeed:
    """A decoder with one consumer attached, as a strategy would have it."""

    def __init__(self, lead: Sequence[bytes]) -> None:
        self.decoder = fastfeed.Decoder("binance-usdm", max_symbols=4096)
        self.reader = self.decoder.prices.reader()
        self.decoder.decode_many(lead)
        self.take: Callable[[Sequence[bytes]], object] = self.decoder.decode_many

    @property
    def table(self) -> Table:
        assert self.reader.ready
        names = ("bid", "bid_size", "ask", "ask_size", "quote_seq")
        columns = [self.decoder.prices.array[name].tolist() for name in names]
        return dict(zip(self.decoder.prices.symbols, zip(*columns, strict=True), strict=True))


class FastfeedEach(Fastfeed):
    """One call from Python per frame."""

    def __init__(self, lead: Sequence[bytes]) -> None:
        super().__init__(lead)
        self.take = self._take

    def _take(self, frames: Sequence[bytes]) -> None:
        decode = self.decoder.decode
        for frame in frames:
            decode(frame)


# Each is made anew for every round and has seen `lead` before: a feed runs for days, so first touches are not timed.
DECODERS: dict[str, Callable[[Sequence[bytes], Sequence[bytes]], Dicts | Structs | Fastfeed]] = {
    "json + float + dict": lambda lead, frames: Dicts(json.loads, lead),
    "orjson + float + dict": lambda lead, frames: Dicts(orjson.loads, lead),
    "pysimdjson + float + dict": lambda lead, frames: Simdjson(lead),
    "msgspec.Struct + dict": Structs,
    "fastfeed decode": lambda lead, frames: FastfeedEach(lead),
    "fastfeed decode_many": lambda lead, frames: Fastfeed(lead),
}

ROW = np.dtype([("value", "f8", 4), ("update", "i8"), ("event_ms", "i8"), ("symbol_at", "u8"), ("symbol_size", "u8")])


class OnDemand:
    """simdjson on-demand in C++ (simdjson_ondemand.cpp): every frame's fields into an array of ROW, in one call."""

    WAYS = ("one pass", "by key", "by key, time last")

    def __init__(self, frames: Sequence[bytes]) -> None:
        library = ctypes.CDLL(str(prepare.ONDEMAND))
        library.kernel.restype = ctypes.c_char_p
        library.padding.restype = ctypes.c_uint64
        library.quotes.restype = ctypes.c_int64
        pointer, number = ctypes.c_void_p, ctypes.c_uint64
        library.quotes.argtypes = [ctypes.c_char_p, number, pointer, number, ctypes.c_int, pointer]
        self.kernel = library.kernel().decode()
        self._read = library.quotes
        self._buffer = b"".join(frames) + bytes(library.padding())
        self._offsets = np.zeros(len(frames) + 1, np.uint64)
        np.cumsum([len(frame) for frame in frames], out=self._offsets[1:])
        self.rows = np.zeros(len(frames), ROW)

    def read(self, way: str) -> None:
        place, offsets = self.WAYS.index(way), self._offsets.ctypes.data
        failed = self._read(self._buffer, len(self._buffer), offsets, len(self.rows), place, self.rows.ctypes.data)
        if failed:
            raise ValueError(f"simdjson could not read {failed} frames {way}")

    def symbols(self) -> list[str]:
        places = self.rows[["symbol_at", "symbol_size"]].tolist()
        return [self._buffer[start : start + size].decode() for start, size in places]


def check_ondemand(frames: Sequence[bytes], ondemand: OnDemand) -> None:
    """Raises ValueError unless every way reads from every frame what fastfeed does: bit for bit."""
    decoder = fastfeed.Decoder("binance-usdm", max_symbols=4096, ring_capacity=1 << (len(frames) - 1).bit_length())
    reader = decoder.ring.reader()
    decoder.decode_many(frames)
    ticks = fastfeed.quotes(reader.read())
    names = decoder.prices.symbols
    symbols = [names[number] for number in ticks["symbol_id"]]
    for way in OnDemand.WAYS:
        ondemand.rows[:] = 0
        ondemand.read(way)
        prices = zip(("bid", "bid_size", "ask", "ask_size"), ondemand.rows["value"].T, strict=True)
        theirs = dict(prices) | {"seq": ondemand.rows["update"], "event_ns": ondemand.rows["event_ms"] * 1_000_000}
        for name, values in theirs.items():
            if not np.array_equal(ticks[name], values):
                raise ValueError(f"simdjson on-demand, {way}: {name} is not fastfeed's")
        if ondemand.symbols() != symbols:
            raise ValueError(f"simdjson on-demand, {way}: other symbols than fastfeed's")
