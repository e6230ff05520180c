"""Market data for strategies that act on it: compiled decoding, conflated prices in numpy.

And at every moment an answer to "may I act on this?". The public names, and nothing else. The one check made here is
that the picows beside us is one the compiled wire was built for.
"""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING

# Asked of the installation: importing picows itself is left to whoever makes a Feed.
if not (2, 3, 1) <= tuple(int(part) for part in _version("picows").split(".")[:3] if part.isdecimal()) < (2, 4):
    # Cython checks struct sizes, not vtables: a mismatched picows could call the wrong method without a word.
    raise ImportError(
        f"fastfeed needs picows>=2.3.1,<2.4 but picows {_version('picows')} is installed: "
        'pip install "picows>=2.3.1,<2.4"'
    )

from fastfeed._core import Clock, PriceReader, PriceTable, TickReader, TickRing, kernels
from fastfeed.backoff import Backoff, Jitter
from fastfeed.calendars import Calendar
from fastfeed.decoder import Decoder
from fastfeed.errors import (
    AuthError,
    ConfigError,
    ConnectError,
    DecodeError,
    FastFeedError,
    GapError,
    GaveUp,
    HandshakeError,
    StaleError,
    SubscriptionRejected,
)
from fastfeed.gaps import Recovery, Strategy
from fastfeed.heartbeat import Heartbeat
from fastfeed.providers import Provider
from fastfeed.records import (
    MARK_DTYPE,
    PRICE_DTYPE,
    TICK_DTYPE,
    TICK_DTYPE_PLAIN,
    Flag,
    Gap,
    Kind,
    Spliced,
    Status,
    bars,
    corrections,
    levels,
    marks,
    quotes,
    trades,
)
from fastfeed.rotation import Rotation
from fastfeed.schema import GIVEN, MISSING, Message, Schema, Symbol, check
from fastfeed.staleness import Period, Staleness, Week, fx_week
from fastfeed.subscriptions import Subscription

if _TYPE_CHECKING:
    from fastfeed.feed import Feed
    from fastfeed.threaded import ThreadedFeed

__version__ = "0.1.0"

__all__ = [
    "GIVEN", "MARK_DTYPE", "MISSING", "PRICE_DTYPE", "TICK_DTYPE", "TICK_DTYPE_PLAIN", "AuthError", "Backoff",
    "Calendar", "Clock", "ConfigError", "ConnectError", "DecodeError", "Decoder", "FastFeedError", "Feed", "Flag",
    "Gap", "GapError", "GaveUp", "HandshakeError", "Heartbeat", "Jitter", "Kind", "Message", "Period",
    "PriceReader", "PriceTable", "Provider", "Recovery", "Rotation", "Schema", "Spliced", "StaleError", "Staleness",
    "Status", "Strategy", "Subscription", "SubscriptionRejected", "Symbol", "ThreadedFeed", "TickReader",
    "TickRing", "Week", "bars", "check", "corrections", "fx_week", "kernels", "levels", "marks", "quotes", "trades",
]  # fmt: skip


def __getattr__(name: str) -> object:
    # The network side (asyncio, TLS, picows) costs as much to import as all else: decoding alone need not pay for it.
    if name == "Feed":
        from fastfeed.feed import Feed

        globals()[name] = Feed
        return Feed
    if name == "ThreadedFeed":
        from fastfeed.threaded import ThreadedFeed

        globals()[name] = ThreadedFeed
        return ThreadedFeed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
