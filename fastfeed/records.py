"""The records as numpy and Python see them: dtypes, kinds, flags, statuses, gaps.

The C side is `fastfeed.h`; tests hold the two equal.
Declarations and the safe selections of one kind from mixed ticks. Nothing here decodes or stores.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Kind(IntEnum):
    """Which four numbers a tick holds."""

    QUOTE = 1
    TRADE = 2
    LEVEL = 3
    MARK = 4
    BAR = 5
    BAR_VOLUME = 6
    CORRECTION = 7


class Flag(IntFlag):
    """What else is known of a tick; of a row only AFTER_GAP."""

    SNAPSHOT = 1
    LAST_LEVEL = 2
    AFTER_GAP = 4
    DUPLICATE = 8
    NOT_LAST = 16
    SELL = 32


class Status(IntEnum):
    """What a symbol's prices are worth, as of the last sweep. NO_DATA until the first tick."""

    NO_DATA = 0
    LIVE = 1
    QUIET = 2
    SUSPECT = 3
    STALE = 4
    RECOVERING = 5
    CLOSED = 6


class Gap(NamedTuple):
    """A hole in a stream: `first` to `last` were never received. `recv_ns` is when that was noticed (UTC, ns).

    Of one in the numbers that all streams of a connection share, nobody knows whose messages are missing: `stream` and
    `symbol` are empty, and every row is flagged AFTER_GAP.

    `cause`: "sequence" (the numbers skipped while the connection stood), "reconnect", "resubscribe" or "start" (they
    skipped to the first message after one of these), or "window": a stream without usable numbers was interrupted, and
    nobody knows what it missed. Then `first` is 0 and `last` -1. `from_ns` and `to_ns` are when the last message before
    an interruption and the first after it were received (UTC, ns); 0 where there was none.
    """

    stream: str
    symbol: str
    first: int
    last: int
    recv_ns: int
    cause: str = "sequence"
    from_ns: int = 0
    to_ns: int = 0

    @property
    def missing(self) -> int:
        """How many numbers the hole spans; 0 for a window, where nobody knows."""
        return self.last - self.first + 1


class Spliced(NamedTuple):
    """How a held stream stands after `Decoder.splice` or `Decoder.release`.

    `outcome`: "repaired" (everything is published, the hold is over), "missing" (`first` to `last` still are, the hold
    goes on), "too old" (the snapshot does not reach the held deltas: fetch again, the hold goes on), "released",
    "overflowed" (the hold ended before, for want of room), "not held", "unreadable" (the reply holds nothing of this
    stream; the hold goes on). `ticks`: how many went to the ring by this call. `first` and `last` are None unless
    something is missing.
    """

    outcome: str
    ticks: int = 0
    first: int | None = None
    last: int | None = None


_HEAD: list[tuple[str, str, int]] = [
    ("symbol_id", "u4", 0), ("kind", "u1", 4), ("flags", "u1", 5), ("source", "u2", 6),
    ("seq", "i8", 8), ("event_ns", "i8", 16), ("recv_ns", "i8", 24),
]  # fmt: skip
_VALUES = (  # the four numbers by kind; the names overlay each other
    ("bid", "bid_size", "ask", "ask_size"),
    ("price", "size"),
    ("price", "index", "funding"),
    ("open", "high", "low", "close"),
    ("volume", "vwap", "trades", "start"),
)


def _dtype(cells: list[tuple[str, str, int]], size: int) -> np.dtype[np.void]:
    names, formats, offsets = zip(*cells, strict=True)
    return np.dtype({"names": list(names), "formats": list(formats), "offsets": list(offsets), "itemsize": size})


_OVERLAY = {name: (name, "f8", 32 + 8 * i) for names in _VALUES for i, name in enumerate(names)}

TICK_DTYPE = _dtype([*_HEAD, *_OVERLAY.values()], 64)
"""One tick, 64 bytes. The last four float64 are named by kind and overlay each other.

Select with `quotes`, `trades`, ... first.
"""

TICK_DTYPE_PLAIN = _dtype(_HEAD + [(f"value{i}", "f8", 32 + 8 * i) for i in range(4)], 64)
"""The same bytes without overlay, for saving and for buffers."""

PRICE_DTYPE = _dtype(
    [
        ("symbol_id", "u4", 0), ("status", "u1", 4), ("flags", "u1", 5), ("version", "u4", 8), ("conflated", "u4", 12),
        ("bid", "f8", 16), ("bid_size", "f8", 24), ("ask", "f8", 32), ("ask_size", "f8", 40),
        ("last", "f8", 48), ("last_size", "f8", 56),
        ("event_ns", "i8", 64), ("recv_ns", "i8", 72), ("seq", "i8", 80), ("updates", "u8", 88),
        ("quote_seq", "i8", 96), ("quote_event_ns", "i8", 104), ("trade_seq", "i8", 112), ("trade_event_ns", "i8", 120),
    ],
    128,
)  # fmt: skip
"""One row of the price table, 128 bytes; NaN where a price is absent, times UTC epoch nanoseconds."""

MARK_DTYPE = _dtype(
    [
        ("price", "f8", 0), ("index", "f8", 8), ("funding", "f8", 16),
        ("event_ns", "i8", 24), ("recv_ns", "i8", 32), ("updates", "u8", 40),
    ],
    48,
)  # fmt: skip
"""One record of the side table of marks, 48 bytes."""

_HEAD_NAMES = [name for name, _, _ in _HEAD]


def _select(ticks: NDArray[np.void], kind: Kind, names: tuple[str, ...]) -> NDArray[Any]:
    """A copy of the ticks of one kind, with the names that are valid for it."""
    selected: NDArray[Any] = ticks[ticks["kind"] == kind][[*_HEAD_NAMES, *names]]
    return selected


def quotes(ticks: NDArray[np.void]) -> NDArray[Any]:
    """The quotes among ticks: bid, bid_size, ask, ask_size."""
    return _select(ticks, Kind.QUOTE, ("bid", "bid_size", "ask", "ask_size"))


def trades(ticks: NDArray[np.void]) -> NDArray[Any]:
    """The trades among ticks: price, size; SELL in flags where the aggressor sold."""
    return _select(ticks, Kind.TRADE, ("price", "size"))


def corrections(ticks: NDArray[np.void]) -> NDArray[Any]:
    """What the trade told before as `seq` turned out to be: price, size; a size of NaN where it did not happen."""
    return _select(ticks, Kind.CORRECTION, ("price", "size"))


def levels(ticks: NDArray[np.void]) -> NDArray[Any]:
    """The depth levels among ticks: price, size (0 removes); SELL in flags marks asks."""
    return _select(ticks, Kind.LEVEL, ("price", "size"))


def marks(ticks: NDArray[np.void]) -> NDArray[Any]:
    """The mark prices among ticks: price, index, funding."""
    return _select(ticks, Kind.MARK, ("price", "index", "funding"))


def bars(ticks: NDArray[np.void]) -> NDArray[Any]:
    """The bars among ticks: open, high, low, close."""
    return _select(ticks, Kind.BAR, ("open", "high", "low", "close"))
