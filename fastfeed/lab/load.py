"""What a venue of the lab plays: a recording, or a synthetic market with bursts, and the pace it is played at.

Frames are rendered once, a few thousand at a time, into blocks of finished WebSocket bytes; sending one is a copy, and
only the numbers that must move on (ids and times) are written over, whole slices at once. It opens no socket and knows
no exchange.
"""

from __future__ import annotations

import bisect
import gzip
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fastfeed.errors import ConfigError

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

PIECE = 4096  # events rendered together
NEVER = -1  # event number of a stream that has sent nothing

# Stand-ins for the numbers written over at every sending. The first character is one that no JSON text holds, so that
# the places are found by looking at the bytes; all have a fixed width, so that frames never change their length.
TIME = "\x01" + "0" * 12  # milliseconds since the epoch
BOOK_ID = "\x02" + "0" * 12
TRADE_ID = "\x03" + "0" * 8
BOOK_FIRST = "\x04" + "0" * 12  # of a depth message: the first id it covers ...
BOOK_BEFORE = "\x05" + "0" * 12  # ... and the last one of the message before it

QUOTE, TRADE, AGGREGATE, DEPTH, MARK = range(5)


class Quote(NamedTuple):
    """The best bid and ask as the venue writes them."""

    bid: str
    bid_size: str
    ask: str
    ask_size: str


Levels = Sequence[tuple[str, str]]  # price and size, size 0 removes


class Fill(NamedTuple):
    """A trade as the venue remembers it; `event` is its number for good."""

    id: int
    price: str
    size: str
    seller: bool
    event: int


class Book(NamedTuple):
    """Every level, best first, after the event with that id."""

    id: int
    bids: Levels
    asks: Levels


class Dialect(Protocol):
    """How an exchange writes a synthetic event: stream names, and texts holding the stand-ins above."""

    @property
    def decimals(self) -> int | None:
        """Digits after the point that every price is padded to, or None."""

    @property
    def kinds(self) -> Sequence[int]:
        """What kinds of streams it has, rising from QUOTE."""

    def stream(self, kind: int, symbol: str) -> str: ...
    def quote(self, symbol: str, quote: Quote) -> str: ...
    def depth(self, symbol: str, bids: Levels, asks: Levels) -> str: ...
    def mark(self, symbol: str, price: str, index: str, funding: str) -> str: ...
    def trade(self, kind: int, symbol: str, price: str, size: str, seller: bool) -> str: ...
    def wrap(self, stream: str, data: str) -> str: ...


@dataclass(slots=True, eq=False)
class Piece:
    """Up to `PIECE` consecutive events of a load as one connection gets them: one block of WebSocket text frames.

    `data` holds the frames end to end, frame i at `bounds[i]:bounds[i + 1]`; `event` is its number within one pass of
    the load (rising), `stream` the id of its stream.
    """

    data: Bytes
    bounds: Ints
    event: Ints
    stream: Ints
    places: Mapping[str, Ints]  # stand-in -> where each of its copies begins, rising

    def __len__(self) -> int:
        return len(self.event)


class Load(Protocol):
    """A finite run of events, numbered from 0, that may be passed through again and again."""

    @property
    def streams(self) -> Sequence[str]:
        """Their names, less any update speed; the position is the stream's id."""

    @property
    def events(self) -> int: ...

    @property
    def passes(self) -> float:
        """How often one play goes through it: once, or inf for ever."""

    def piece(self, number: int, wanted: Mapping[int, str], combined: bool) -> Piece:
        """Events from number * PIECE on, PIECE of them, of the streams in `wanted` (id -> name for the wrapper)."""

    def stamp(self, piece: Piece, start: int, stop: int, turn: int, utc_ms: int) -> None:
        """Write ids of pass `turn` and the time into frames [start, stop)."""

    def last_prices(self, last: Mapping[int, int]) -> dict[str, dict[str, Any]]:
        """Symbol -> prices as text, given stream id -> number of its last event (pass * events + event)."""

    # What it remembers of a symbol, seen from before event number `until`; None: of that one nothing.

    def book(self, symbol: str, until: int) -> Book | None: ...
    def fills(self, kind: int, symbol: str, first_id: int, most: int, until: int) -> list[Fill] | None: ...
    def top(self, symbol: str, until: int) -> Quote | None: ...


# --------------------------------------------------------------------------------------------------------------- pace


class Pace(Protocol):
    """How fast events fall due, in seconds since the play began."""

    def reached(self, elapsed: float) -> float:
        """Number of events due by then; inf when there is no limit."""

    def due(self, event: int, elapsed: float) -> float:
        """When that event, counted from the start of the play, fell due; `elapsed` where only readiness decides."""

    def ended(self, elapsed: float) -> bool: ...


class FlatOut:
    """As fast as each connection takes it."""

    def reached(self, elapsed: float) -> float:
        return math.inf

    def due(self, event: int, elapsed: float) -> float:
        return elapsed

    def ended(self, elapsed: float) -> bool:
        return False


class Phases:
    """Stretches of `(events per second, seconds)`; the last may last for ever (`inf`). Afterwards nothing falls due."""

    def __init__(self, phases: Sequence[Sequence[float]]) -> None:
        if not phases or any(len(phase) != 2 or not 0 <= phase[0] < math.inf or not phase[1] > 0 for phase in phases):
            raise ConfigError(f"phases {phases!r}: give (rate >= 0, seconds > 0) pairs")
        self._phases = [(rate, seconds) for rate, seconds in phases]
        self._starts = (0.0, *itertools.accumulate(seconds for _, seconds in self._phases))
        amounts = (rate * seconds if rate else 0.0 for rate, seconds in self._phases)
        self._amounts = (0.0, *itertools.accumulate(amounts))

    def amount(self, elapsed: float) -> float:
        """Rate times time, added up until then."""
        for (rate, seconds), start, before in zip(self._phases, self._starts, self._amounts, strict=False):
            if elapsed < start + seconds:
                return before + rate * max(0.0, elapsed - start)
        return self._amounts[-1]

    def time(self, amount: float) -> float:
        """When that amount was reached."""
        phase = min(max(0, bisect.bisect_left(self._amounts, amount) - 1), len(self._phases) - 1)
        rate = self._phases[phase][0]
        return self._starts[phase] + ((amount - self._amounts[phase]) / rate if rate else 0.0)

    def reached(self, elapsed: float) -> float:
        return math.floor(self.amount(elapsed))

    def due(self, event: int, elapsed: float) -> float:
        return self.time(event + 1)

    def ended(self, elapsed: float) -> bool:
        return elapsed >= self._starts[-1]


class AsRecorded:
    """The recording's own receive times, in stretches of `(times faster, seconds)`."""

    def __init__(self, recv_ns: Ints, speeds: Sequence[Sequence[float]]) -> None:
        self._recorded = (recv_ns - recv_ns[0]) / 1e9
        self._speeds = Phases(speeds)

    def reached(self, elapsed: float) -> float:
        return int(np.searchsorted(self._recorded, self._speeds.amount(elapsed), side="right"))

    def due(self, event: int, elapsed: float) -> float:
        return self._speeds.time(float(self._recorded[min(event, len(self._recorded) - 1)]))

    def ended(self, elapsed: float) -> bool:
        return self.reached(elapsed) >= len(self._recorded) or self._speeds.ended(elapsed)


# ----------------------------------------------------------------------------------------------------------- rendering


def _frames(texts: Sequence[str], event: Ints, stream: Ints) -> Piece:
    """Finished server frames (unmasked, FIN, TEXT; RFC 6455 5.2) around the texts, and where their stand-ins are."""
    payloads = [text.encode() for text in texts]
    sizes = np.fromiter(map(len, payloads), np.int64, len(payloads))
    heads = np.where(sizes < 126, 2, np.where(sizes < 0x1_0000, 4, 10))
    bounds = np.zeros(len(payloads) + 1, np.int64)
    np.cumsum(heads + sizes, out=bounds[1:])
    # The heads stay zero until the stand-ins have been found: a length byte could look like one.
    frames = (bytes(head) + payload for head, payload in zip(heads.tolist(), payloads, strict=True))
    data = np.frombuffer(bytearray(b"".join(frames)), np.uint8)
    places = {mark: np.flatnonzero(data == ord(mark[0])) for mark in (TIME, BOOK_ID, TRADE_ID, BOOK_FIRST, BOOK_BEFORE)}
    starts = bounds[:-1]
    data[starts] = 0x81
    data[starts + 1] = np.where(heads == 2, sizes, np.where(heads == 4, 126, 127))
    for head, width in ((4, 2), (10, 8)):
        at, size = starts[heads == head], sizes[heads == head]
        for place in range(width):
            data[at + 2 + place] = (size >> (8 * (width - 1 - place))) & 0xFF
    return Piece(data, bounds, event, stream, places)


_FOUR_DIGITS = np.array([b"%04d" % number for number in range(10_000)]).view(np.uint32)


def _write_digits(data: Bytes, places: Ints, numbers: Ints | np.int64, width: int) -> None:
    """Write each number with exactly `width` (4n + 1) digits at its place, four digits at a time."""
    # Overlapping four-byte windows over the bytes: window i begins at byte i, aligned or not.
    windows = np.ndarray((len(data) - 3,), np.uint32, buffer=data.data, strides=(1,))
    data[places] = 48 + numbers // 10 ** (width - 1) % 10
    for place in range(1, width, 4):
        windows[places + place] = _FOUR_DIGITS[numbers // 10 ** (width - 4 - place) % 10_000]


# ----------------------------------------------------------------------------------------------------------- synthetic

_BASES = [
    "BTC", "ETH", "SOL", "XRP", "DOGE", "BNB", "ADA", "SUI", "LINK", "AVAX", "LTC", "BCH", "DOT", "TRX", "UNI",
    "NEAR", "APT", "ARB", "OP", "TON", "FIL", "ETC", "ATOM", "INJ", "AAVE", "XLM", "HBAR", "ICP", "TIA", "SEI", "WLD",
    "ORDI", "WIF", "LDO", "ENA", "JUP", "TAO", "RENDER", "FET", "ALGO", "SAND", "MANA", "GALA", "AXS", "CRV", "MKR",
    "SNX", "COMP", "DYDX", "GMX", "RUNE", "STX", "IMX", "EGLD", "FLOW", "KAVA", "ZEC", "DASH", "XMR", "NEO", "EOS",
    "XTZ", "IOTA", "VET", "QTUM", "ONT", "ZIL", "THETA", "CHZ", "ENJ", "BAT", "ZRX", "KNC", "1INCH", "SUSHI", "YFI",
    "BAL", "UMA", "REN", "OCEAN", "BAND", "NKN", "ANKR", "CELR", "HOT", "RVN", "ONE", "SKL", "STORJ", "COTI", "CTSI",
    "LRC", "MASK", "MAGIC", "BLUR", "PENDLE", "PYTH", "JTO", "STRK", "ALT", "DYM", "MANTA", "PIXEL", "PORTAL", "AEVO",
    "ETHFI", "BOME", "TNSR", "SAGA", "OMNI", "REZ", "BB", "NOT", "IO", "ZK", "ZRO", "LISTA", "BANANA", "DOGS",
    "NEIRO", "TURBO", "POPCAT", "EIGEN", "SCR", "GOAT", "MOODENG", "PNUT", "ACT", "HYPE", "VIRTUAL", "MOVE", "ME",
    "USUAL", "PENGU", "TRUMP", "BERA", "KAITO", "LAYER", "S", "1000PEPE", "1000SHIB", "1000FLOKI", "1000BONK",
    "1000SATS", "1000RATS", "1000LUNC", "1000XEC", "1000000MOG", "EUR", "GBP", "AUD", "JPY", "XAU", "XAG", "PAXG",
]  # fmt: skip
_COUNTER = ("USDT", "USDC", "BTC", "FDUSD", "TRY", "EUR", "BRL", "BNB", "ETH")
_FAMILIAR = {  # where the best known begin, and so with how many digits after the point
    "BTCUSDT": "87654.30",
    "ETHUSDT": "3123.45",
    "SOLUSDT": "187.654",
    "XRPUSDT": "2.3456",
    "DOGEUSDT": "0.31234",
    "BNBUSDT": "654.32",
    "EURUSDT": "1.08765",
    "GBPUSDT": "1.26543",
}


def symbol_names(count: int) -> list[str]:
    """The lab's markets, busiest first; one of them, as on the real venue, is not ASCII."""
    spot = (base + counter for counter in _COUNTER for base in _BASES if base != counter)
    dated = (f"{base}USDT_{27 + turn // 12:02d}{turn % 12 + 1:02d}26" for turn in itertools.count() for base in _BASES)
    names = itertools.islice(itertools.chain(spot, dated), count)
    return ["币安人生USDT" if place == 40 else name for place, name in enumerate(names)]


class Synthetic:
    """A made market: Zipf-distributed symbols, random walks, many tick sizes; the same for the same seed.

    About four events in five are quotes, one in nine a trade and one in nine the same trade as an aggregate; every
    fourth event goes round the symbols in turn, so that the quietest also trades on. A pass of `events` events is
    played again and again: book ids rise from pass to pass and trade ids go on without a hole, only the prices start
    afresh.
    """

    passes = math.inf

    def __init__(
        self, dialect: Dialect, *, symbols: int | Sequence[str] = 500, seed: int = 1, events: int = 40 * PIECE
    ) -> None:
        self.symbols = symbol_names(max(0, symbols)) if isinstance(symbols, int) else [name.upper() for name in symbols]
        if not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise ConfigError(f"symbols {symbols!r}: give a number above 0 or different names")
        count = len(self.symbols)
        self._dialect = dialect
        self.events = max(math.ceil(events / PIECE), math.ceil(8 * count / PIECE)) * PIECE
        self.streams = [dialect.stream(kind, name) for kind in dialect.kinds for name in self.symbols]
        random = np.random.default_rng(seed)

        weights = 1.0 / np.arange(1, count + 1)
        number = np.arange(self.events)
        self._symbol = random.choice(count, self.events, p=weights / weights.sum())
        self._kind = np.full(self.events, QUOTE)
        turn = number % 4 == 0
        self._symbol[turn] = number[turn] // 4 % count
        trades = np.flatnonzero(random.random(self.events) < 1 / 4)
        # Where the next event is neither a symbol's turn nor beyond the pass.
        trades = trades[(trades % 4 == 1) | (trades % 4 == 2)]
        trades = trades[np.diff(trades, prepend=-2) > 1]
        self._kind[trades] = TRADE
        self._kind[trades + 1] = AGGREGATE
        self._symbol[trades + 1] = self._symbol[trades]
        for kind, share in ((DEPTH, 1 / 16), (MARK, 1 / 64)):
            if kind in dialect.kinds:
                self._kind[(self._kind == QUOTE) & ~turn & (random.random(self.events) < share)] = kind
        self._stream = self._kind * count + self._symbol

        self._book_id = np.cumsum(random.integers(1, 6, self.events))
        self._book_span = 10 ** len(str(int(self._book_id[-1])))
        self._book_base = 5_100_000_000_000 // self._book_span * self._book_span
        self._book_before = self._chain(self._kind == DEPTH)
        # The aggregate carries the id of the trade before it.
        is_trade = self._kind == TRADE
        self._trades_per_pass = np.bincount(self._symbol[is_trade], minlength=count)
        self._trade_id = random.integers(100_000_000, 400_000_000, count)[self._symbol] + self._rank(is_trade)
        self._walk(random)

    def _rank(self, chosen: npt.NDArray[np.bool_]) -> Ints:
        """How many chosen events of its own symbol came up to and with each event."""
        order = np.argsort(self._symbol, kind="stable")
        running = np.cumsum(chosen[order])
        first = np.searchsorted(self._symbol[order], np.arange(len(self.symbols)))
        before = np.where(first > 0, running[first - 1], 0)
        rank = np.empty(self.events, np.int64)
        rank[order] = running - before[self._symbol[order]]
        return rank

    def _chain(self, chosen: npt.NDArray[np.bool_]) -> Ints:
        """For each chosen event the book id of its symbol's chosen one before it; for the first, the last's a pass
        ago."""
        before = np.zeros(self.events, np.int64)
        events = np.flatnonzero(chosen)
        events = events[np.argsort(self._symbol[events], kind="stable")]
        symbols, ids = self._symbol[events], self._book_id[events]
        before[events] = np.roll(ids, 1)
        first = np.flatnonzero(np.diff(symbols, prepend=-1))
        last = np.append(first[1:], len(events)) - 1
        before[events[first]] = ids[last] - self._book_span
        return before

    def _walk(self, random: np.random.Generator) -> None:
        """Prices in the last digit's unit and sizes in lots, per event; digits after the point, per symbol."""
        count = len(self.symbols)
        level = 10 ** random.uniform(4.0, 6.2, count)
        digits = random.integers(1, 8, count)
        for place, name in enumerate(self.symbols):
            whole, _, part = _FAMILIAR.get(name, "").partition(".")
            if part:
                digits[place], level[place] = len(part), int(whole + part)
        tick = random.choice((1, 1, 1, 5, 10, 25), count)
        steps = random.integers(-2, 3, self.events)
        order = np.argsort(self._symbol, kind="stable")
        path = np.empty(self.events, np.int64)
        running = np.cumsum(steps[order])
        first = np.minimum(np.searchsorted(self._symbol[order], np.arange(count)), self.events - 1)
        path[order] = running - running[first][self._symbol[order]]
        ticks = np.maximum(level[self._symbol] / tick[self._symbol] + path, 20).astype(np.int64)
        self._bid = ticks * tick[self._symbol]
        self._ask = (ticks + random.integers(1, 6, self.events)) * tick[self._symbol]
        self._seller = random.random(self.events) < 0.5
        sizes = np.exp(random.normal(5.0, 2.0, (2, self.events))).astype(np.int64) + 1
        # An aggregate tells of the same fill as the trade before it.
        aggregate = np.flatnonzero(self._kind == AGGREGATE)
        for column in (self._bid, self._ask, self._seller, sizes[0]):
            column[aggregate] = column[aggregate - 1]
        self._sizes = sizes
        self._digits = digits.tolist()
        self._size_digits = random.integers(0, 4, count).tolist()

    def _price(self, symbol: int, units: int) -> str:
        digits, decimals = self._digits[symbol], self._dialect.decimals
        text = f"{units // 10**digits}.{units % 10**digits:0{digits}d}"
        return text if decimals is None else text + "0" * (decimals - digits)

    def _size(self, symbol: int, lots: int) -> str:
        digits, decimals = self._size_digits[symbol], self._dialect.decimals
        if decimals is not None:
            return f"{lots // 10**digits}.{lots % 10**digits * 10 ** (decimals - digits):0{decimals}d}"
        return f"{lots // 10**digits}.{lots % 10**digits:0{digits}d}" if digits else str(lots)

    def _quote(self, event: int) -> Quote:
        symbol = int(self._symbol[event])
        return Quote(
            self._price(symbol, int(self._bid[event])),
            self._size(symbol, int(self._sizes[0, event])),
            self._price(symbol, int(self._ask[event])),
            self._size(symbol, int(self._sizes[1, event])),
        )

    def _levels(self, event: int, side: Ints, away: int) -> list[tuple[str, str]]:
        symbol = int(self._symbol[event])
        return [
            (
                self._price(symbol, max(1, int(side[event]) + away * depth * (1 + event % 3))),
                self._size(symbol, int(self._sizes[0, event]) * ((event + depth) % 4)),
            )
            for depth in range(event % 5)
        ]

    def _fill(self, event: int) -> tuple[str, str]:
        symbol, taken = int(self._symbol[event]), self._bid if self._seller[event] else self._ask
        return self._price(symbol, int(taken[event])), self._size(symbol, int(self._sizes[0, event]))

    def piece(self, number: int, wanted: Mapping[int, str], combined: bool) -> Piece:
        low = number * PIECE
        chosen = np.zeros(len(self.streams), np.bool_)
        chosen[list(wanted)] = True
        event = low + np.flatnonzero(chosen[self._stream[low : low + PIECE]])
        texts = []
        dialect, count = self._dialect, len(self.symbols)
        for at, stream in zip(event.tolist(), self._stream[event].tolist(), strict=True):
            kind, place = divmod(stream, count)
            symbol = self.symbols[place]
            if kind == QUOTE:
                text = dialect.quote(symbol, self._quote(at))
            elif kind == DEPTH:
                text = dialect.depth(symbol, self._levels(at, self._bid, -1), self._levels(at, self._ask, 1))
            elif kind == MARK:
                funding = f"{(at % 400 - 100) / 1e6:.8f}"
                text = dialect.mark(
                    symbol, self._price(place, int(self._bid[at])), self._price(place, int(self._ask[at])), funding
                )
            else:
                text = dialect.trade(kind, symbol, *self._fill(at), bool(self._seller[at]))
            texts.append(dialect.wrap(wanted[stream], text) if combined else text)
        return _frames(texts, event, self._stream[event])

    def stamp(self, piece: Piece, start: int, stop: int, turn: int, utc_ms: int) -> None:
        low, high = piece.bounds[start], piece.bounds[stop]
        books = self._book_base + turn * self._book_span
        for mark, places in piece.places.items():
            first, last = np.searchsorted(places, (low, high))
            if first == last:
                continue
            here = places[first:last]
            if mark == TIME:
                numbers: Ints | np.int64 = np.int64(utc_ms)
            else:
                events = piece.event[np.searchsorted(piece.bounds, here, side="right") - 1]
                if mark == TRADE_ID:
                    numbers = self._trade_id[events] + turn * self._trades_per_pass[self._symbol[events]]
                elif mark == BOOK_ID:
                    numbers = self._book_id[events] + books
                else:
                    numbers = self._book_before[events] + (books + (mark == BOOK_FIRST))
            _write_digits(piece.data, here, numbers, len(mark))

    def last_prices(self, last: Mapping[int, int]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for stream, total in sorted(last.items(), key=lambda item: item[1]):
            turn, event = divmod(total, self.events)
            kind, place = divmod(stream, len(self.symbols))
            entry = found.setdefault(self.symbols[place], {})
            if kind == QUOTE:
                entry.update(self._quote(event)._asdict())
                entry["book_id"] = int(self._book_id[event] + self._book_base + turn * self._book_span)
            elif kind == MARK:
                entry["mark"] = self._price(place, int(self._bid[event]))
            elif kind != DEPTH:
                entry["last"], entry["last_size"] = self._fill(event)
                entry["trade_id"] = int(self._trade_id[event] + turn * self._trades_per_pass[place])
        return found

    def _events(self, kind: int, symbol: str) -> Ints:
        return np.flatnonzero((self._kind == kind) & (self._symbol == self.symbols.index(symbol)))

    def book(self, symbol: str, until: int) -> Book | None:
        """As if every depth event from the first on had been applied."""
        if symbol not in self.symbols:
            return None
        turn, event = divmod(until, self.events)
        events = self._events(DEPTH, symbol)
        applied = [*(events.tolist() if turn else []), *events[events < event].tolist()]
        sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
        for at in applied:
            for side, levels in zip(
                sides, (self._levels(at, self._bid, -1), self._levels(at, self._ask, 1)), strict=True
            ):
                for price, size in levels:
                    side.pop(price, None)
                    if float(size):
                        side[price] = size
        last = int(self._book_id[event - 1]) if event else 0
        bids, asks = (sorted(side.items(), key=lambda level: float(level[0])) for side in sides)
        return Book(self._book_base + turn * self._book_span + last, bids[::-1], asks)

    def fills(self, kind: int, symbol: str, first_id: int, most: int, until: int) -> list[Fill] | None:
        """Trades (or aggregates) from that id on, at most so many."""
        if symbol not in self.symbols:
            return None
        events = self._events(kind, symbol)
        per_pass = int(self._trades_per_pass[self.symbols.index(symbol)])
        found: list[Fill] = []
        if not len(events):
            return found
        ids = self._trade_id[events]
        for turn in range(max(0, (first_id - int(ids[-1])) // per_pass), until // self.events + 1):
            for at in events[ids + turn * per_pass >= first_id].tolist():
                if turn * self.events + at >= until or len(found) == most:
                    return found
                number = int(self._trade_id[at]) + turn * per_pass
                found.append(Fill(number, *self._fill(at), bool(self._seller[at]), turn * self.events + at))
        return found

    def top(self, symbol: str, until: int) -> Quote | None:
        """The last quote; before the first, the one it will be."""
        if symbol not in self.symbols:
            return None
        events = self._events(QUOTE, symbol)
        before = events[events < until % self.events]
        return self._quote(int(before[-1] if len(before) else events[-1] if until >= self.events else events[0]))


# ----------------------------------------------------------------------------------------------------------- recordings


def read_lines(path: str | Path) -> Iterator[bytes]:
    """The lines of a file, gzip or plain, without their ends."""
    path = Path(path)
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if zipped else path.open("rb") as lines:
        for line in lines:
            yield line.rstrip(b"\r\n")


def read_recording(path: str | Path) -> Iterator[tuple[int, str]]:
    """`(recv_ns, frame)` for each line `<recv ns> <raw text frame>` of a file, gzip or plain."""
    for number, line in enumerate(read_lines(path), 1):
        stamp, _, frame = line.partition(b" ")
        if not stamp.isdigit() or not frame:
            shown = line[:40].decode(errors="replace")
            raise ConfigError(f"{path}, line {number}: expected '<recv ns> <frame>', found {shown!r}")
        yield int(stamp), frame.decode()


_EVENT_TIME = re.compile(r'("[ET]":)\d{13}\b')


class Recording:
    """Recorded combined-stream frames, byte for byte as they were received; lines of another shape (snapshots) are left
    out.

    A connection gets the streams it asked for. An update speed does not count in the comparison: `@depth@0ms` in the
    file is sent to who asked for `@depth@100ms`, and named as asked. `retimed` writes the time of playing over the
    event times (E and T): old prices are stale prices.
    """

    passes = 1.0

    def __init__(self, path: str | Path, *, retimed: bool = False) -> None:
        self.streams: list[str] = []
        self._retimed = retimed
        self._texts: list[str] = []
        stamps: list[int] = []
        ids: list[int] = []
        known: dict[str, int] = {}
        for recv_ns, text in read_recording(path):
            name = text[11 : text.index('"', 11)] if text.startswith('{"stream":"') else None
            if name is None:
                continue
            stream = known.setdefault(without_speed(name), len(known))
            stamps.append(recv_ns)
            ids.append(stream)
            self._texts.append(_EVENT_TIME.sub(rf"\g<1>{TIME}", text) if retimed else text)
        if not stamps:
            raise ConfigError(f'{path} holds no combined-stream frame (\'{{"stream":...,"data":...}}\')')
        self.streams = list(known)
        self.events = len(stamps)
        self.recv_ns = np.array(stamps, np.int64)
        self._stream = np.array(ids, np.int64)

    def first(self, kind: str) -> str:
        """The first frame of a stream `...@kind`; "" where there is none."""
        return next((text for text in self._texts if f'@{kind}"' in text), "")

    def piece(self, number: int, wanted: Mapping[int, str], combined: bool) -> Piece:
        low = number * PIECE
        chosen = np.zeros(len(self.streams), np.bool_)
        chosen[list(wanted)] = True
        event = low + np.flatnonzero(chosen[self._stream[low : low + PIECE]])
        texts = []
        for at in event.tolist():
            text = self._texts[at]
            data = text[text.index('"data":') + 7 : -1]
            texts.append(f'{{"stream":"{wanted[int(self._stream[at])]}","data":{data}}}' if combined else data)
        return _frames(texts, event, self._stream[event])

    def stamp(self, piece: Piece, start: int, stop: int, turn: int, utc_ms: int) -> None:
        """Ids stay as recorded, times too unless the recording is retimed."""
        times = piece.places[TIME]
        first, last = np.searchsorted(times, (piece.bounds[start], piece.bounds[stop]))
        if self._retimed and first != last:
            _write_digits(piece.data, times[first:last], np.int64(utc_ms), len(TIME))

    # A recording does not hold what was never sent.

    def book(self, symbol: str, until: int) -> Book | None:
        return None

    def fills(self, kind: int, symbol: str, first_id: int, most: int, until: int) -> list[Fill] | None:
        return None

    def top(self, symbol: str, until: int) -> Quote | None:
        return None

    def last_prices(self, last: Mapping[int, int]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for total in sorted(last.values()):
            data = json.loads(self._texts[total % self.events].replace(TIME, "0"))["data"]
            kind = data.get("e", "bookTicker")
            if kind == "bookTicker":
                quote = {
                    "bid": data["b"],
                    "bid_size": data["B"],
                    "ask": data["a"],
                    "ask_size": data["A"],
                    "book_id": data["u"],
                }
                found.setdefault(data["s"], {}).update(quote)
            elif kind in ("trade", "aggTrade"):
                trade = {"last": data["p"], "last_size": data["q"], "trade_id": data["t" if kind == "trade" else "a"]}
                found.setdefault(data["s"], {}).update(trade)
        return found


def without_speed(stream: str) -> str:
    """A stream's name less its update speed: `btcusdt@depth@100ms` and `btcusdt@depth` carry the same thing."""
    name, _, speed = stream.rpartition("@")
    return name if "@" in name and speed.endswith("s") and speed.rstrip("ms").isdigit() else stream
