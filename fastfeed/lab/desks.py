"""Which desks there are, by the name of the provider they stand for, each with symbols it understands.

A desk's module is imported only when it is asked for. Nothing here speaks or listens.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from fastfeed.errors import ConfigError

if TYPE_CHECKING:
    from fastfeed.lab.stage import Desk

_SHARES = ("AAPL", "MSFT", "AMZN", "GOOG", "TSLA", "BRK.A")
_PAIRS = ("EUR/USD", "USD/JPY", "GBP/USD", "USD/CNH")
_CURRENCIES = ("EURUSD", "USDJPY", "GBPUSD", "EURNOK")

# Provider -> module, class, symbols.
_DESKS: Mapping[str, tuple[str, str, tuple[str, ...]]] = MappingProxyType(
    {
        **{
            f"{house}{market}": ("polygon", "PolygonDesk", symbols)
            for house in ("polygon", "massive")
            for market, symbols in {
                "": _SHARES,
                "-options": ("O:SPY241220P00720000", "O:AMC210827C00037000"),
                "-forex": _PAIRS,
                "-crypto": ("BTC-USD", "ETH-USD", "BCD-USD"),
                "-indices": ("I:SPX", "I:NDX"),
                "-futures": ("ESZ4", "NQZ4", "CLF5"),
            }.items()
        },
        **{
            f"alpaca{stream}{encoding}": ("alpaca", "AlpacaDesk", symbols)
            for stream, symbols in {
                **dict.fromkeys(("", "-iex", "-delayed", "-boats", "-overnight"), _SHARES),
                "-test": ("FAKEPACA",),
                **dict.fromkeys(("-crypto", "-crypto-us-1", "-crypto-eu-1"), ("BTC/USD", "AVAX/USD", "MKR/USD")),
            }.items()
            for encoding in ("", "-msgpack")
        },
        **dict.fromkeys(
            ("alpaca-options", "alpaca-options-indicative"),
            ("alpaca", "AlpacaDesk", ("AAPL240315C00172500", "SPXW240327P04925000")),
        ),
        **{
            f"intrinio{source}{kinds}": ("intrinio", "IntrinioDesk", _SHARES)
            for source in ("", "-delayed-sip", "-nasdaq-basic", "-cboe-one", "-equities-edge")
            for kinds in ("", "-trades")
        },
        "finnhub": ("finnhub", "FinnhubDesk", ("AAPL", "BINANCE:BTCUSDT", "IC MARKETS:1", "OANDA:EUR_USD")),
        "tiingo-fx": ("tiingo", "TiingoDesk", _CURRENCIES),
        "tradermade": ("tradermade", "TradermadeDesk", _CURRENCIES),
        "tickdb": ("tickdb", "TickdbDesk", ("700.HK", "AAPL.US", "BTCUSDT", "EURUSD", "600519.SH")),
        "iex": ("iex", "IexDesk", _SHARES),
        "cme": ("cme", "CmeDesk", ("CLG6", "CLH6", "ESH6", "NQH6")),
    }
)


@dataclass(frozen=True)
class Offer:
    """A desk and symbols to play with."""

    desk: type[Desk]
    symbols: tuple[str, ...]


def names() -> list[str]:
    """The names `find` knows."""
    return list(_DESKS)


def find(name: str) -> Offer:
    """The desk that stands for the provider of that name. Raises ConfigError if there is none."""
    if name not in _DESKS:
        raise ConfigError(f"there is no desk {name!r}; there are {', '.join(_DESKS)}")
    module, desk, symbols = _DESKS[name]
    return Offer(getattr(importlib.import_module(f"fastfeed.lab.{module}"), desk), symbols)
