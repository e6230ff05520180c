"""Which silence is too long and what is tried against it, in virtual time: options, calendars, escalation, rates."""

from datetime import UTC, datetime
from typing import Any

import pytest
from test_session import A, B, C, Driven

from fastfeed import ConfigError, Period, Staleness, Subscription, Week, events
from fastfeed.heartbeat import Heartbeat
from fastfeed.session import State
from fastfeed.signals import (
    Close,
    Closed,
    Delivered,
    Dial,
    Forget,
    Heard,
    Judge,
    Opened,
    Pong,
    SendPing,
    Silent,
    Traffic,
    Unsubscribe,
)
from fastfeed.staleness import PATIENCE, PROBE_TIMEOUT, RESUBSCRIBE_EVERY, Cause, Rate, Standing, fx_week
from fastfeed.subscriptions import Stage

D, E = Subscription("D", "quote"), Subscription("A", "trade")


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def steps(driven: Driven) -> list[tuple[str, str]]:
    return [(event.step, event.cause) for event in driven.told(events.Escalated)]


def standings(driven: Driven) -> dict[Subscription, Standing]:
    found: dict[Subscription, Standing] = {}
    for judged in driven.did(Judge):
        found.update(dict.fromkeys(judged.subscriptions, judged.standing))
    return found


def answer_probe(driven: Driven) -> None:
    driven.now += 0.01
    driven.tell(Pong(driven.did(SendPing)[-1].payload))


# Options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, r"threshold=0\.0"),
        ({"threshold": 0.001}, r"threshold=0\.001"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"factor": -1}, "factor=-1"),
        ({"floor": 5.0, "ceiling": 1.0}, "floor is above ceiling"),
        ({"collapse": 1.5}, r"collapse=1\.5"),
        ({"maintenance": [Week(start="Sun 17:00", end="Sun 18:00")]}, "maintenance="),
        ({"maintenance": ("Sun",)}, "maintenance="),
        ({"hours": "always"}, "hours="),
        ({"adaptive": False}, "silence_goes_unnoticed=True"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Staleness(**options)


@pytest.mark.parametrize(
    ("start", "end", "zone"),
    [
        ("Sunday 17:00", "Fri 17:00", "UTC"),
        ("Sun 24:00", "Fri 17:00", "UTC"),
        ("Sun 17:00", "Sun 17:00", "UTC"),
        ("Sun 17:00", "Fri 17:00", "Mars/Olympus"),
        (7, "Fri 17:00", "UTC"),
    ],
)
def test_a_week_that_cannot_be_is_refused(start: Any, end: str, zone: str) -> None:
    with pytest.raises(ConfigError, match=r"Sun|zone|time of the week"):
        Week(start=start, end=end, zone=zone)


def test_a_period_needs_a_zone_and_a_length() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    with pytest.raises(ConfigError, match="time zone"):
        Period(start=datetime(2026, 3, 1), end=noon)
    with pytest.raises(ConfigError, match="empty"):
        Period(start=noon, end=noon)
    period = Period(start=noon, end=noon.replace(hour=13))
    assert period.covers(noon.timestamp())
    assert not period.covers(noon.replace(hour=13).timestamp())


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-01-11 21:59", False),  # Sunday, 16:59 in New York in winter
        ("2026-01-11 22:00", True),
        ("2026-01-14 03:00", True),
        ("2026-01-16 21:59", True),  # Friday, 16:59
        ("2026-01-16 22:00", False),
        ("2026-01-17 12:00", False),
        ("2026-07-12 20:59", False),  # an hour earlier by UTC in summer
        ("2026-07-12 21:00", True),
        ("2026-07-17 21:00", False),
        ("2026-03-08 20:59", False),  # the Sunday the clocks go forward
        ("2026-03-08 21:00", True),
        ("2026-11-01 21:59", False),  # the Sunday they go back
        ("2026-11-01 22:00", True),
    ],
)
def test_the_week_of_foreign_exchange_follows_new_york(moment: str, is_open: bool) -> None:
    assert fx_week().covers(utc(moment)) is is_open


def test_a_week_may_lie_within_one_day() -> None:
    window = Week(start="Tue 03:00", end="Tue 05:00")
    assert window.covers(utc("2026-01-13 03:00"))
    assert window.covers(utc("2026-01-13 04:59"))
    assert not window.covers(utc("2026-01-13 05:00"))
    assert not window.covers(utc("2026-01-14 04:00"))
    assert Staleness(maintenance=(window,)).muted(utc("2026-01-13 04:00"))
    assert not Staleness(maintenance=(window,)).muted(utc("2026-01-13 06:00"))


def test_limits_are_fixed_or_the_symbols_own() -> None:
    fixed, own = Staleness(threshold=0.5), Staleness(factor=4.0, floor=2.0, ceiling=60.0)
    assert [fixed.limit(gap) for gap in (0.01, 10.0, float("nan"))] == [0.5, 0.5, 0.5]
    assert [own.limit(gap) for gap in (0.01, 10.0, 100.0, float("nan"))] == [2.0, 40.0, 60.0, 60.0]
    assert [own.usual(gap) for gap in (0.01, 15.0, 15.1, float("nan"))] == [False, False, True, True]
    assert not fixed.usual(1000.0)
    assert fixed.interval <= 0.05, "looked at often enough to find silence within a tenth of the threshold"


# One silent symbol --------------------------------------------------------------------------------------------------


def test_one_silent_symbol_is_asked_for_again_then_suspect_then_stale() -> None:
    driven = Driven()
    driven.live(A, B, C)
    driven.tell(Silent((A,)))
    assert driven.sent()[-2:] == [{"id": 2, "unsub": ["a"]}, {"id": 3, "sub": ["a"]}]
    assert steps(driven) == [("resubscribe", Cause.SYMBOL_SILENT)]
    assert driven.did(Forget) == [Forget((A,))]
    assert standings(driven) == {A: Standing.SUSPECT}
    driven.ack_all()
    assert driven.told(events.Stale) == []
    driven.wait(PATIENCE)
    assert standings(driven) == {A: Standing.STALE}
    assert driven.told(events.Stale) == [events.Stale(("A",), "quote", Cause.STILL_SILENT)]
    driven.wait(600.0)
    assert len(driven.told(events.Stale)) == 1
    assert driven.did(Dial) == [Dial()], "one symbol is no reason to drop the others"


def test_a_symbol_that_speaks_again_is_fresh_and_told_so_only_if_it_was_told_stale() -> None:
    driven = Driven()
    driven.live(A, B, C)
    driven.tell(Silent((A,)))
    driven.ack_all()
    driven.tell(Delivered((A,)))
    assert standings(driven) == {A: Standing.LIVE}
    assert driven.told(events.Fresh) == []
    driven.now += RESUBSCRIBE_EVERY
    driven.tell(Silent((A,)))
    driven.ack_all()
    driven.wait(PATIENCE)
    driven.tell(Heard((A,)))
    assert driven.told(events.Fresh) == [events.Fresh(("A",), "quote")]
    driven.tell(Heard((A,)))
    assert len(driven.told(events.Fresh)) == 1


def test_lulls_do_not_nag_the_server() -> None:
    driven = Driven()
    driven.live(A, B, C)
    for _ in range(20):
        driven.tell(Silent((A,)))
        driven.ack_all()
        driven.tell(Heard((A,)))
        driven.tell(Delivered((A,)))
        driven.wait(1.0)
    assert len(driven.told(events.Escalated)) == 1


def test_silence_that_is_usual_is_quiet_and_nothing_is_tried() -> None:
    driven = Driven()
    driven.live(A)
    driven.tell(Silent((A,), usual=True))
    driven.wait(3600.0)
    assert standings(driven) == {A: Standing.QUIET}
    assert driven.told(events.Escalated) == []
    driven.tell(Heard((A,)))
    assert standings(driven) == {A: Standing.LIVE}


def test_what_is_not_wanted_any_more_is_not_missed() -> None:
    driven = Driven()
    driven.live(A, B, C)
    driven.tell(Silent((A,)))
    driven.ack_all()
    driven.tell(Unsubscribe((A,)))
    driven.tell(Silent((A,)))
    driven.wait(600.0)
    assert driven.told(events.Stale) == []


# Many silent together -----------------------------------------------------------------------------------------------


def test_many_silent_together_are_probed_asked_for_again_and_dialled_for() -> None:
    driven = Driven()
    driven.live(A, B, C)
    driven.tell(Silent((A, B)))
    assert steps(driven) == [("probe", Cause.MANY_SILENT)]
    assert len(driven.did(SendPing)) == 1
    assert standings(driven) == {A: Standing.SUSPECT, B: Standing.SUSPECT}
    assert len(driven.sent()) == 1, "nothing is asked for before the probe is answered"
    answer_probe(driven)
    assert steps(driven)[1:] == [("resubscribe all", Cause.PONG_AND_SILENCE)]
    assert driven.sent()[-2:] == [{"id": 2, "unsub": ["a", "b"]}, {"id": 3, "sub": ["a", "b"]}]
    assert driven.told(events.Stale) == [events.Stale(("A", "B"), "quote", Cause.PONG_AND_SILENCE)]
    driven.ack_all()
    driven.wait(PATIENCE)
    assert steps(driven)[2:] == [("redial", Cause.STILL_SILENT)]
    assert driven.did(Close) == [Close(1000, "")]
    assert driven.told(events.Disconnected)[0].cause == "no data, whatever was tried"
    driven.wait(1.0)
    driven.come_back(A, B, C)
    assert driven.told(events.Fresh) == [events.Fresh(("A", "B"), "quote")]
    assert len(driven.told(events.Restored)) == 1


def test_silence_without_a_pong_is_a_dead_connection() -> None:
    driven = Driven()
    driven.live(A)
    driven.tell(Silent((A,)))
    driven.wait(PROBE_TIMEOUT)
    assert steps(driven) == [("probe", Cause.MANY_SILENT), ("redial", Cause.NO_PONG)]
    assert driven.did(Close) == [Close(1006, "")], "nobody is there to say goodbye to"


def test_a_pong_sent_for_an_earlier_ping_answers_no_probe() -> None:
    driven = Driven(heartbeat=Heartbeat(interval=1.0, timeout=60.0))
    driven.live(A, stable=False)
    driven.wait(1.0)
    earlier = driven.did(SendPing)[-1].payload
    driven.now += 0.1
    driven.tell(Silent((A,)))
    driven.tell(Pong(earlier))
    assert steps(driven) == [("probe", Cause.MANY_SILENT)]


def test_where_pongs_are_not_promised_a_missing_one_proves_nothing() -> None:
    driven = Driven(pongs_promised=False)
    driven.live(A)
    driven.tell(Silent((A,)))
    driven.wait(PROBE_TIMEOUT)
    assert steps(driven) == [("probe", Cause.MANY_SILENT), ("resubscribe all", Cause.NO_PONG)]
    assert driven.session.state is State.OPEN


def test_a_mute_channel_is_on_trial_however_few_have_been_silent_for_long() -> None:
    driven = Driven()
    driven.live(A, B, C, D)
    driven.tell(Silent((A,), mute=True))
    assert steps(driven) == [("probe", Cause.MANY_SILENT)]


def test_a_channel_is_judged_by_itself() -> None:
    driven = Driven()
    driven.live(A, B, E)
    driven.tell(Silent((E,)))
    assert steps(driven) == [("probe", Cause.MANY_SILENT)], "the only trades of three subscriptions"
    answer_probe(driven)
    assert driven.told(events.Stale) == [events.Stale(("A",), "trade", Cause.PONG_AND_SILENCE)]


def test_a_trial_ends_once_half_of_the_silent_speak_and_the_rest_stays_stale() -> None:
    driven = Driven()
    driven.live(A, B, C, D)
    driven.tell(Silent((A, B, C, D)))
    answer_probe(driven)
    driven.ack_all()
    driven.tell(Delivered((A, B)))
    driven.wait(600.0)
    assert driven.session.state is State.OPEN
    assert standings(driven) == {A: Standing.LIVE, B: Standing.LIVE, C: Standing.STALE, D: Standing.STALE}


def test_patience_begins_when_the_requests_are_answered() -> None:
    driven = Driven()
    driven.live(A)
    driven.tell(Silent((A,)))
    answer_probe(driven)
    driven.wait(4.9)  # the acks come late
    driven.ack_all()
    driven.tell(Delivered((A,)))
    driven.wait(60.0)
    assert driven.session.state is State.OPEN


def test_a_redial_that_brings_no_data_is_followed_up_with_growing_waits() -> None:
    driven = Driven()
    driven.live(A, B)
    driven.tell(Closed(1006, ""))
    for _ in range(4):
        driven.pass_to(driven.now + 30.0)
        driven.tell(Opened())
        driven.ack_all()
        driven.wait(5.0)
        assert steps(driven)[-1] == ("probe", Cause.NOTHING_CAME)
        answer_probe(driven)
        driven.ack_all()
        driven.wait(PATIENCE)
        assert steps(driven)[-1] == ("redial", Cause.STILL_SILENT)
    delays = [event.delay for event in driven.told(events.Reconnecting)]
    assert delays == [0.0, 0.5, 1.0, 2.0, 4.0], "accepting without delivering is no success"


def test_what_never_delivered_is_not_missed_after_a_redial() -> None:
    driven = Driven()
    driven.open(A, B)
    driven.ack_all()
    driven.tell(Delivered((A,)))
    driven.tell(Closed(1006, ""))
    driven.wait(1.0)
    driven.come_back(A)
    driven.wait(600.0)
    assert driven.told(events.Escalated) == []
    assert driven.stages["B"] == Stage.ACKED.value


# Rate ---------------------------------------------------------------------------------------------------------------


def test_a_collapsed_rate_is_told_once_and_probed() -> None:
    driven = Driven()
    driven.live(A, stable=False)
    for second in range(240):
        driven.wait(1.0)
        driven.tell(Traffic(100 if second < 120 else 2))
    [alert] = driven.told(events.Alert)
    assert "are usual" in alert.cause
    assert steps(driven) == [("probe", Cause.RATE_COLLAPSED)]


@pytest.mark.parametrize(("before", "after"), [(100, 60), (1, 0), (100, 100)])
def test_a_calmer_market_is_no_collapse(before: int, after: int) -> None:
    rate = Rate(0.1)
    rate.start(0.0)
    assert not any(rate.add(before if second < 200 else after, float(second)) for second in range(1, 260))


def test_a_rate_that_recovered_may_collapse_again() -> None:
    rate = Rate(0.1)
    rate.start(0.0)
    told = [second for second in range(1, 2000) if rate.add(1 if second % 500 > 400 else 100, float(second))]
    assert len(told) == 4
