"""Exchange calendars: sessions, holidays, early closes, breaks and the daily halt of a futures exchange.

Moments are UTC; the days are those the exchanges published.
"""

import importlib.util
from datetime import datetime

import pytest

from fastfeed import Calendar, ConfigError, Staleness

pytest.importorskip("pandas_market_calendars")


def utc(moment: str) -> float:
    return datetime.fromisoformat(moment + "+00:00").timestamp()


@pytest.fixture(scope="module")
def calendars() -> dict[str, Calendar]:
    return {name: Calendar(name) for name in ("XNYS", "XHKG", "CMEGlobex_FX", "24/7")}


@pytest.mark.parametrize(
    ("name", "moment", "is_open"),
    [
        ("XNYS", "2026-11-25 14:29:59", False),
        ("XNYS", "2026-11-25 14:30", True),
        ("XNYS", "2026-11-25 20:59:59", True),
        ("XNYS", "2026-11-25 21:00", False),
        ("XNYS", "2026-07-01 13:30", True),  # an hour earlier by UTC in summer
        ("XNYS", "2026-11-26 16:00", False),  # Thanksgiving
        ("XNYS", "2026-11-27 17:59", True),  # and the short day after it
        ("XNYS", "2026-11-27 18:00", False),
        ("XNYS", "2026-12-25 16:00", False),
        ("XNYS", "2026-07-03 16:00", False),  # Independence Day, observed
        ("XNYS", "2026-11-28 16:00", False),  # Saturday
        ("XNYS", "2012-10-29 16:00", False),  # a hurricane: no rule would tell
        ("XHKG", "2026-02-10 03:59", True),
        ("XHKG", "2026-02-10 04:00", False),  # lunch
        ("XHKG", "2026-02-10 05:00", True),
        ("XHKG", "2026-02-16 03:59", True),  # the eve of the Lunar New Year has no afternoon
        ("XHKG", "2026-02-16 05:00", False),
        ("XHKG", "2026-02-17 03:00", False),
        ("CMEGlobex_FX", "2026-11-22 22:59", False),  # Sunday, 16:59 in Chicago
        ("CMEGlobex_FX", "2026-11-22 23:00", True),
        ("CMEGlobex_FX", "2026-11-24 21:59", True),
        ("CMEGlobex_FX", "2026-11-24 22:00", False),  # the daily halt, 16:00 to 17:00 in Chicago
        ("CMEGlobex_FX", "2026-11-24 22:59", False),
        ("CMEGlobex_FX", "2026-11-24 23:00", True),
        ("CMEGlobex_FX", "2026-11-27 18:14", True),  # the short day after Thanksgiving
        ("CMEGlobex_FX", "2026-11-27 18:15", False),
        ("CMEGlobex_FX", "2026-11-28 12:00", False),
        ("CMEGlobex_FX", "2026-12-25 12:00", False),
        ("24/7", "2026-12-25 00:00", True),
        ("24/7", "2026-12-26 23:59:59", True),
        ("XNYS", "1999-12-25 16:00", True),  # unknown counts as open: silence is looked into
        ("XNYS", "2051-12-25 16:00", True),
    ],
)
def test_an_exchange_is_open_when_it_says_so(
    calendars: dict[str, Calendar], name: str, moment: str, is_open: bool
) -> None:
    assert calendars[name].covers(utc(moment)) is is_open


def test_a_calendar_is_hours_as_a_week_is(calendars: dict[str, Calendar]) -> None:
    assert Staleness(hours=calendars["XNYS"]).hours is calendars["XNYS"]
    assert Staleness(maintenance=(calendars["XNYS"],)).muted(utc("2026-11-25 16:00"))
    assert repr(calendars["XNYS"]) == "Calendar('XNYS')"


@pytest.mark.parametrize(("name", "near"), [("NYSX", "'NYSE'"), ("cmeglobex_fx", "'CMEGlobex_FX'"), ("", "'XNYS'")])
def test_a_calendar_that_is_none_is_refused_with_some_that_are(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match="there is no calendar") as raised:
        Calendar(name)
    assert near in str(raised.value)
    assert repr(name) in str(raised.value)


def test_without_the_extra_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fastfeed\[calendars\]'"):
        Calendar("XNYS")
