"""Do two providers agree on a price? Two rows and a tolerance go in, an answer that can be read comes out.

Nothing is remembered here, and no price of one provider ever becomes a price of the other.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fastfeed.subscriptions import Subscription


class Verdict(enum.Enum):
    """What the secondary says about the primary's price."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNKNOWN = "unknown"  # the secondary has no fresh price, or the primary never had one


@dataclass(frozen=True)
class Confirmation:
    """`verdict` on the primary's price of `symbol`; true if it agrees.

    `primary` and `secondary` are the middle of bid and ask, or the last trade where there is no quote; NaN: none.
    `difference` is relative to the secondary's. With `is_fresh` False the primary's is its last price, which the
    secondary then still stands by or does not.
    """

    symbol: str
    verdict: Verdict
    primary: float
    secondary: float
    difference: float
    is_fresh: bool

    def __bool__(self) -> bool:
        return self.verdict is Verdict.AGREES


def confirmation(
    symbol: str, primary: np.void, is_fresh: bool, secondary: np.void | None, tolerance: float
) -> Confirmation:
    """The secondary's word on a row of the primary's; `secondary` is None where it has no fresh price."""
    ours, theirs = price(primary), math.nan if secondary is None else price(secondary)
    difference = abs(ours - theirs) / abs(theirs) if theirs else math.nan
    verdict = Verdict.UNKNOWN
    if not math.isnan(difference):
        verdict = Verdict.AGREES if difference <= tolerance else Verdict.DIFFERS
    return Confirmation(symbol, verdict, ours, theirs, difference, is_fresh)


def price(row: np.void) -> float:
    """The middle of bid and ask, else the last trade, else NaN."""
    middle = (float(row["bid"]) + float(row["ask"])) / 2
    return float(row["last"]) if math.isnan(middle) else middle


def translated(items: Iterable[str | Subscription], names: Mapping[str, str]) -> list[str | Subscription]:
    """The same wishes in the secondary's symbols; what has no other name there is called the same."""
    found: list[str | Subscription] = []
    for item in items:
        if isinstance(item, Subscription):
            found.append(Subscription(names.get(item.symbol, item.symbol), item.channel, **dict(item.params)))
        else:
            found.append(names.get(item, item))
    return found
