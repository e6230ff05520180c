"""When an exchange trades: its sessions with holidays, early closes, breaks and daily halts (the `calendars` extra).

The one room that knows pandas_market_calendars. It refuses to guess: a calendar that cannot be had is a ConfigError.
"""

from __future__ import annotations

import difflib
import importlib.util
import warnings
from bisect import bisect_right
from typing import Any

from fastfeed.errors import ConfigError

FIRST, LAST = 2000, 2050  # the years whose sessions are known


class Calendar:
    """When the exchange `name` trades: `Calendar("XNYS")` by ISO 10383 code, `Calendar("CMEGlobex_FX")` by product.

    A Span for `Staleness(hours=...)` and `Provider(hours=...)`. Names are those of pandas_market_calendars; of CME take
    the product's, as "CMES" knows no daily halt. Sessions are as the installed version of that package knows them: an
    exchange that closes unexpectedly is known after an update. Years before 2000 and after 2050 count as open, so that
    silence is looked into. Loading takes about a second, here and not later.

    Raises:
        ConfigError: there is no such calendar, or the extra is not installed.
    """

    def __init__(self, name: str) -> None:
        if importlib.util.find_spec("pandas_market_calendars") is None:
            raise ConfigError("exchange calendars need the calendars extra: pip install 'fastfeed[calendars]'")
        self.name = name
        # Epoch seconds, rising: the market opens at each even position and closes at each odd one.
        self._edges = _edges(_schedule(name))

    def covers(self, utc: float) -> bool:
        """Whether the exchange trades at the moment `utc` (epoch seconds)."""
        place = bisect_right(self._edges, utc)
        return place % 2 == 1 or place in (0, len(self._edges))

    def __repr__(self) -> str:
        return f"Calendar({self.name!r})"


def _schedule(name: str) -> Any:
    """A table with a row per session and the columns market_open, market_close, and in some break_start, break_end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that package's about pandas, which our users cannot mend
        import pandas_market_calendars

        known = pandas_market_calendars.get_calendar_names()
        if name not in known:
            plain = {spelling.lower(): spelling for spelling in known}
            near = [plain[found] for found in difflib.get_close_matches(str(name).lower(), plain)]
            near = near or ["XNYS", "XLON", "CMEGlobex_FX"]
            raise ConfigError(f"there is no calendar {name!r}; there are {', '.join(map(repr, near))} and others")
        try:
            return pandas_market_calendars.get_calendar(name).schedule(f"{FIRST}-01-01", f"{LAST}-12-31")
        except Exception as error:
            raise ConfigError(f"calendar {name!r} cannot be made: {type(error).__name__}: {error}") from error


def _edges(schedule: Any) -> list[float]:
    columns = [name for name in ("market_open", "break_start", "break_end", "market_close") if name in schedule]
    # Whatever the resolution the table is kept in.
    seconds = schedule[columns].apply(
        lambda column: column.dt.tz_localize(None).astype("datetime64[s]").astype("int64")
    )
    edges: list[float] = []
    for times in seconds.to_numpy().tolist():
        for start, end in zip(times[::2], times[1::2], strict=True):
            if start >= end:
                continue  # a break that falls away on a short day
            if edges and start <= edges[-1]:
                edges[-1] = max(end, edges[-1])
            else:
                edges += [start, end]
    return edges
