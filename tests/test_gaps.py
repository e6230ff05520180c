"""The ledger of gaps in virtual time: which step comes next, after what, how often and how fast."""

import math
from typing import Any

import pytest

from fastfeed import ConfigError, Gap
from fastfeed.gaps import (
    ANEW_EVERY,
    Answer,
    Fetch,
    Fetched,
    Ledger,
    Plan,
    Recovery,
    Repaired,
    Replay,
    Resubscribe,
    Step,
    Strategy,
    Unrepaired,
    Verdict,
)

REPLAY, REST, RESUBSCRIBE = Strategy.REPLAY, Strategy.REST, Strategy.RESUBSCRIBE
KEY = ("BTCUSDT", "trade")
REPAIRED = Answer(Verdict.REPAIRED)
FAILED = Answer(Verdict.FAILED, "HTTP 500")


def gap(first: int = 5, last: int = 9, symbol: str = "BTCUSDT", channel: str = "trade") -> Gap:
    return Gap(channel, symbol, first, last, 0)


class Desk:
    """A ledger and the time it is told; `take` also moves the time."""

    def __init__(self, *ways: Strategy, quota: int | None = None, **options: Any) -> None:
        recovery = Recovery(**options)
        plans = {
            "trade": Plan(ways=recovery.ways(ways), weight=20),
            "depth": Plan(ways=recovery.ways(ways), weight=50, fetched=Fetched.SNAPSHOT),
        }
        self.ledger = Ledger(recovery, plans, quota)
        self.now = 100.0

    def found(self, gap: Gap, *, afresh: bool = False) -> list[Step]:
        self.ledger.found(gap, self.now, afresh=afresh)
        return self.take()

    def fetched(self, answer: Answer, key: tuple[str, str] = KEY) -> list[Step]:
        self.ledger.fetched(key, answer, self.now)
        return self.take()

    def take(self, later: float = 0.0) -> list[Step]:
        self.now += later
        return self.ledger.steps(self.now)


# Ways ---------------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_fetched_and_then_the_gap_is_over() -> None:
    desk = Desk(REST, RESUBSCRIBE)
    assert desk.found(gap()) == [Fetch(KEY, 5, 9)]
    assert desk.take(3600) == []  # whoever fetches keeps the time
    assert desk.fetched(REPAIRED) == [Repaired(KEY, gap(), REST, 3600.0)]
    assert len(desk.ledger) == 0


def test_the_ways_are_replay_then_rest_then_resubscribe_then_nothing() -> None:
    desk = Desk(RESUBSCRIBE, REST, REPLAY, attempts=1)
    assert desk.found(gap()) == [Replay(KEY, 5, 9)]
    assert desk.take(4.9) == []
    assert desk.take(0.1) == [Fetch(KEY, 5, 9)]
    assert desk.fetched(FAILED) == [Resubscribe(KEY)]
    (last,) = desk.take(3600)
    assert isinstance(last, Unrepaired)
    assert last.gap == gap()
    assert last.tried
    assert "the replay did not bring it; HTTP 500; subscribed anew, and nothing has come since" in last.reason
    assert len(desk.ledger) == 0


@pytest.mark.parametrize(("strategy", "step"), [(REPLAY, Replay), (REST, Fetch), (RESUBSCRIBE, Resubscribe)])
def test_one_strategy_is_the_only_way_that_is_tried(strategy: Strategy, step: type) -> None:
    desk = Desk(REPLAY, REST, RESUBSCRIBE, strategy=strategy, attempts=1)
    assert [type(one) for one in desk.found(gap())] == [step]
    if step is Fetch:
        desk.fetched(FAILED)
    else:
        assert [type(one) for one in desk.take(3600)] == [Unrepaired]
    assert len(desk.ledger) == 0


def test_no_strategy_leaves_the_gap_and_says_so() -> None:
    desk = Desk(REPLAY, REST, RESUBSCRIBE, strategy=Strategy.NONE)
    assert desk.found(gap()) == [Unrepaired(KEY, gap(), "Recovery(strategy=Strategy.NONE)", False)]


def test_a_stream_that_has_just_begun_anew_is_not_asked_to() -> None:
    desk = Desk(REST, RESUBSCRIBE, attempts=1)
    assert desk.found(gap(), afresh=True) == [Fetch(KEY, 5, 9)]
    (last,) = desk.fetched(FAILED)
    assert isinstance(last, Unrepaired)
    bare = Desk(RESUBSCRIBE)
    (last,) = bare.found(gap(), afresh=True)
    assert last == Unrepaired(KEY, gap(), "nothing can be done about it", False)


def test_more_than_may_be_fetched_is_only_asked_for_anew() -> None:
    desk = Desk(REST, RESUBSCRIBE, longest=100)
    assert desk.found(gap(1, 101)) == [Resubscribe(KEY)]
    other = Desk(REST, RESUBSCRIBE, longest=100)
    assert other.found(gap(1, 100)) == [Fetch(KEY, 1, 100)]
    assert Desk(REST, longest=100).found(gap(1, 10**9, channel="depth")) != []  # a snapshot is one, whatever is missing


# Attempts -----------------------------------------------------------------------------------------------------------


def test_a_failed_fetch_is_tried_again_after_a_pause_that_doubles() -> None:
    desk = Desk(REST, RESUBSCRIBE, attempts=3, pause=0.5)
    desk.found(gap())
    assert desk.fetched(FAILED) == []
    assert desk.take(0.49) == []
    assert desk.take(0.01) == [Fetch(KEY, 5, 9)]
    assert desk.fetched(FAILED) == []
    assert desk.take(0.99) == []
    assert desk.take(0.01) == [Fetch(KEY, 5, 9)]
    assert desk.fetched(FAILED) == [Resubscribe(KEY)]


def test_an_answer_that_cannot_get_better_is_not_asked_for_again() -> None:
    desk = Desk(REST, RESUBSCRIBE)
    desk.found(gap())
    assert desk.fetched(Answer(Verdict.HOPELESS, "HTTP 404")) == [Resubscribe(KEY)]


def test_a_snapshot_that_is_too_old_is_fetched_again() -> None:
    desk = Desk(REST)
    key = ("BTCUSDT", "depth")
    assert desk.found(gap(channel="depth")) == [Fetch(key, 5, 9)]
    assert desk.fetched(Answer(Verdict.TOO_OLD, "too old"), key) == []
    assert desk.take(0.5) == [Fetch(key, 5, 9)]
    assert [type(step) for step in desk.fetched(REPAIRED, key)] == [Repaired]


def test_an_answer_that_brings_a_part_is_followed_by_the_next_at_once_and_costs_no_attempt() -> None:
    desk = Desk(REST, attempts=1)
    desk.found(gap(1, 3000))
    for first in (1001, 2001):
        assert desk.fetched(Answer(Verdict.MISSING, first=first, last=3000)) == [Fetch(KEY, first, 3000)]
    (last,) = desk.fetched(Answer(Verdict.MISSING, first=2001, last=3000))  # no further: an attempt
    assert last == Unrepaired(KEY, gap(1, 3000), "what is missing is not given", True)


def test_ticks_there_was_no_room_for_cannot_be_put_in_order_any_more_but_a_snapshot_begins_anew() -> None:
    desk = Desk(REST, RESUBSCRIBE)
    desk.found(gap())
    assert desk.fetched(Answer(Verdict.OVERFLOWED)) == [Resubscribe(KEY)]
    desk.found(gap(channel="depth"))
    assert desk.fetched(Answer(Verdict.OVERFLOWED), ("BTCUSDT", "depth")) == []
    assert desk.take(0.5) == [Fetch(("BTCUSDT", "depth"), 5, 9)]


def test_an_answer_nobody_waits_for_changes_nothing() -> None:
    desk = Desk(REST, attempts=1)
    assert desk.fetched(REPAIRED) == []
    desk.found(gap())
    desk.ledger.drop(KEY)
    assert desk.fetched(FAILED) == []
    assert len(desk.ledger) == 0


# Replay and resubscription ------------------------------------------------------------------------------------------


def test_a_replay_is_over_when_nothing_is_missing_any_more() -> None:
    desk = Desk(REPLAY, REST)
    desk.found(gap())
    assert desk.ledger.replaying() == [KEY]
    desk.ledger.replayed(KEY, (7, 9), desk.now)
    assert desk.take(1) == []
    desk.ledger.replayed(KEY, None, desk.now)
    assert desk.take() == [Repaired(KEY, gap(), REPLAY, 1.0)]
    assert desk.ledger.replaying() == []


def test_what_a_replay_left_is_what_is_asked_for_next() -> None:
    desk = Desk(REPLAY, REST, attempts=1)
    desk.found(gap())
    desk.ledger.replayed(KEY, (7, 9), desk.now)
    assert desk.take(5) == [Fetch(KEY, 7, 9)]


def test_a_resubscription_is_over_when_the_stream_delivers() -> None:
    desk = Desk(RESUBSCRIBE)
    assert desk.found(gap()) == [Resubscribe(KEY)]
    desk.ledger.delivered(KEY, desk.now + 1)
    assert desk.take(1) == [Repaired(KEY, gap(), RESUBSCRIBE, 1.0)]


def test_one_stream_is_not_asked_anew_more_often_than_it_may() -> None:
    desk = Desk(RESUBSCRIBE)
    desk.found(gap())
    desk.ledger.delivered(KEY, desk.now)
    desk.take()
    assert desk.found(gap(20, 21)) == []
    assert desk.take(ANEW_EVERY - 0.1) == []
    assert desk.take(0.1) == [Resubscribe(KEY)]


def test_a_lost_connection_ends_a_replay_and_the_redial_begins_anew() -> None:
    desk = Desk(REPLAY, REST, RESUBSCRIBE)
    desk.found(gap())
    desk.ledger.begun(KEY, lost=True)
    assert desk.take(3600) == []
    desk.ledger.delivered(KEY, desk.now)
    assert [type(step) for step in desk.take()] == [Repaired]


def test_a_fetch_outlives_the_connection() -> None:
    desk = Desk(REST)
    desk.found(gap())
    desk.ledger.begun(KEY, lost=True)
    desk.ledger.delivered(KEY, desk.now)
    assert [type(step) for step in desk.fetched(REPAIRED)] == [Repaired]


# Storms -------------------------------------------------------------------------------------------------------------


def test_gaps_of_one_stream_are_one_repair_that_spans_them() -> None:
    desk = Desk(REST)
    assert desk.found(gap(5, 9)) == [Fetch(KEY, 5, 9)]
    for first in range(20, 2000, 10):
        assert desk.found(gap(first, first + 1)) == []
    assert len(desk.ledger) == 1
    assert desk.fetched(REPAIRED) == [Repaired(KEY, gap(5, 1991), REST, 0.0)]


def test_no_more_are_fetched_at_once_than_allowed_and_the_others_follow_in_order() -> None:
    desk = Desk(REST, in_flight=3)
    symbols = [f"S{number}" for number in range(1000)]
    for symbol in symbols:
        desk.ledger.found(gap(symbol=symbol), desk.now)
    fetched = []
    flying = [step.key for step in desk.take() if isinstance(step, Fetch)]
    while flying:
        assert len(flying) <= 3
        fetched.append(flying.pop(0))
        flying += [step.key for step in desk.fetched(REPAIRED, fetched[-1]) if isinstance(step, Fetch)]
    assert [symbol for symbol, _ in fetched] == symbols
    assert len(desk.ledger) == 0


def test_the_share_of_the_providers_quota_is_never_exceeded_in_any_minute() -> None:
    desk = Desk(REST, quota=400, share=0.5, in_flight=1000)
    for number in range(100):
        desk.ledger.found(gap(symbol=f"S{number}"), desk.now)
    fetched: list[float] = []
    while len(desk.ledger):
        for step in desk.take(0.5):
            if isinstance(step, Fetch):
                fetched.append(desk.now)
                desk.ledger.fetched(step.key, REPAIRED, desk.now)
    assert len(fetched) == 100
    assert all(sum(start <= at < start + 60 for at in fetched) * 20 <= 200 for start in fetched)


def test_one_request_heavier_than_the_share_goes_alone_and_not_never() -> None:
    desk = Desk(REST, quota=10, share=0.5)
    assert desk.found(gap()) == [Fetch(KEY, 5, 9)]
    assert desk.found(gap(symbol="ETHUSDT")) == []
    assert desk.take(59) == []
    assert desk.take(1) == [Fetch(("ETHUSDT", "trade"), 5, 9)]


def test_nobody_is_fetched_before_the_provider_says_so() -> None:
    desk = Desk(REST)
    desk.found(gap())
    assert desk.fetched(Answer(Verdict.FAILED, "HTTP 429", retry_after=30.0)) == []
    assert desk.found(gap(symbol="ETHUSDT")) == []
    assert desk.take(29.9) == []
    assert [type(step) for step in desk.take(0.1)] == [Fetch, Fetch]


# Snapshots that are no repair ---------------------------------------------------------------------------------------


def test_a_snapshot_can_be_wanted_without_a_gap() -> None:
    desk = Desk(REST, RESUBSCRIBE, attempts=1)
    key = ("BTCUSDT", "depth")
    desk.ledger.wants(key, desk.now)
    assert desk.take() == [Fetch(key, 0, -1)]
    assert desk.fetched(REPAIRED, key) == [Repaired(key, None, REST, 0.0)]
    desk.ledger.wants(key, desk.now)
    desk.take()
    assert desk.fetched(FAILED, key) == [Unrepaired(key, None, "HTTP 500", True)]  # not by subscribing anew


def test_nothing_is_wanted_where_nothing_can_be_fetched() -> None:
    desk = Desk(RESUBSCRIBE)
    desk.ledger.wants(KEY, desk.now)
    assert desk.take() == []
    assert KEY not in desk.ledger


# Options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "rest"},
        {"strategy": None},
        {"attempts": 0},
        {"attempts": True},
        {"in_flight": 0},
        {"longest": 0},
        {"timeout": 0.0},
        {"timeout": math.inf},
        {"pause": -1.0},
        {"share": 0.0},
        {"share": 1.1},
    ],
)
def test_options_that_cannot_work_are_refused_with_their_value(options: dict[str, Any]) -> None:
    (value,) = options.values()
    with pytest.raises(ConfigError, match=f"={value!r}"):
        Recovery(**options)
