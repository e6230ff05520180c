"""Backoff and heartbeat: pure policies, tested with the times and the dice in the test's hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastfeed.backoff import Backoff, Jitter, retry_after, retry_after_said
from fastfeed.errors import ConfigError
from fastfeed.heartbeat import Heartbeat, Pulse

DICE = st.floats(0, 1, exclude_max=True)


@given(failures=st.integers(0, 10_000), random=DICE)
def test_a_delay_lies_within_the_jitter_and_never_above_the_cap(failures: int, random: float) -> None:
    backoff = Backoff()
    delay = backoff.delay(failures, random)
    middle = min(30.0, 0.5 * 2.0 ** min(failures, 100))
    assert middle * 0.7 <= delay <= min(30.0, middle * 1.3)


def test_delays_double_up_to_the_cap() -> None:
    backoff = Backoff(base=1.0, cap=10.0, jitter=0.0)
    assert [backoff.delay(n, 0.5) for n in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


@given(failures=st.integers(0, 100), random=DICE)
def test_full_jitter_takes_any_part_of_the_wait_and_equal_jitter_its_upper_half(failures: int, random: float) -> None:
    wait = min(10.0, 1.0 * 2.0 ** min(failures, 64))
    assert Backoff(base=1.0, cap=10.0, jitter=Jitter.FULL).delay(failures, random) == wait * random
    assert wait / 2 <= Backoff(base=1.0, cap=10.0, jitter=Jitter.EQUAL).delay(failures, random) <= wait


def test_a_ladder_names_the_waits_and_its_last_step_repeats() -> None:
    backoff = Backoff(ladder=(10.0, 30.0, 60.0), jitter=0.0)
    assert [backoff.delay(n, 0.5) for n in range(5)] == [10.0, 30.0, 60.0, 60.0, 60.0]
    assert backoff.cap == 60.0


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0, *Jitter])
@given(failures=st.integers(0, 100), random=DICE)
def test_no_jitter_goes_below_the_share_it_names(jitter: float | Jitter, failures: int, random: float) -> None:
    backoff = Backoff(base=1.0, cap=10.0, jitter=jitter)
    wait = min(10.0, 1.0 * 2.0 ** min(failures, 64))
    assert wait * backoff.least - 1e-12 <= backoff.delay(failures, random) <= 10.0


def test_retrying_for_ever_has_to_be_meant() -> None:
    with pytest.raises(ConfigError, match="retries_for_ever=True"):
        Backoff(max_retries=math.inf)
    assert Backoff(max_retries=math.inf, retries_for_ever=True).max_retries == math.inf


@given(random=DICE)
def test_a_jitter_of_the_whole_wait_spreads_from_nothing_to_the_cap(random: float) -> None:
    backoff = Backoff(base=1.0, cap=10.0, jitter=1.0)
    assert 0.0 <= backoff.delay(0, random) < 2.0
    assert backoff.delay(3, 0.0) == 0.0
    assert backoff.delay(99, random) <= 10.0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"base": 0}, "base=0"),
        ({"base": "1"}, "base='1'"),
        ({"cap": None}, "cap=None"),
        ({"jitter": "full"}, "jitter='full'"),
        ({"max_retries": 1.5}, "max_retries=1.5"),
        ({"base": math.inf}, "base=inf"),
        ({"base": 5.0, "cap": 1.0}, "cap=1.0"),
        ({"cap": math.inf}, "cap=inf"),
        ({"cap": math.nan}, "cap=nan"),
        ({"jitter": 1.5}, "jitter=1.5"),
        ({"jitter": -0.1}, "jitter=-0.1"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"stable_after": -1.0}, "stable_after=-1.0"),
    ],
)
def test_an_impossible_backoff_is_refused_by_name_and_value(options: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Backoff(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),  # a date ten seconds ahead
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0.0),  # a date in the past asks for no wait
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),  # the obsolete form RFC 9110 still asks recipients to read
        ("soon", None),
        ("-5", None),
        ("", None),
        ("²", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(value, utc=784_111_777.0) == seconds


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "5"])
@pytest.mark.parametrize("name", ["interval", "timeout"])
def test_an_impossible_heartbeat_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        Heartbeat(**{name: value})


def test_a_ping_is_due_every_interval() -> None:
    pulse = Pulse(Heartbeat(interval=5.0))
    pulse.start(100.0)
    assert not pulse.due(104.9)
    assert pulse.due(105.0)
    pulse.ping(105.0)
    assert not pulse.due(109.9)
    assert pulse.due(110.0)


def test_a_pong_gives_the_round_trip_and_answers_older_pings() -> None:
    pulse = Pulse(Heartbeat())
    pulse.start(0.0)
    first, second = pulse.ping(5.0), pulse.ping(10.0)
    assert first != second
    assert pulse.pong(second, 10.25) == 0.25
    assert pulse.dead_at is None
    assert list(pulse.round_trips) == [0.25]
    assert pulse.pong(first, 11.0) is None, "the older ping was answered by the newer pong"


def test_an_unanswered_ping_means_death_after_the_timeout() -> None:
    pulse = Pulse(Heartbeat(interval=5.0, timeout=10.0))
    pulse.start(0.0)
    pulse.ping(5.0)
    pulse.ping(10.0)
    assert not pulse.dead(14.9)
    assert pulse.dead(15.0)


def test_a_missing_pong_is_no_death_where_none_was_promised_or_seen() -> None:
    pulse = Pulse(Heartbeat(), pongs_promised=False)
    pulse.start(0.0)
    payload = pulse.ping(5.0)
    assert not pulse.dead(1e9)
    pulse.pong(payload, 6.0)
    pulse.ping(10.0)
    assert pulse.dead(20.0), "one pong was seen on this connection"
    pulse.start(30.0)
    pulse.ping(35.0)
    assert not pulse.dead(1e9), "trust does not outlive the connection"


def test_a_pong_never_asked_for_is_counted_and_nothing_else() -> None:
    pulse = Pulse(Heartbeat(), pongs_promised=False)
    pulse.start(0.0)
    pulse.ping(5.0)
    assert pulse.pong(b"never sent", 6.0) is None
    assert pulse.unsolicited == 1
    assert not pulse.round_trips
    assert not pulse.dead(1e9)


def test_pings_never_answered_do_not_pile_up() -> None:
    pulse = Pulse(Heartbeat(timeout=None))
    pulse.start(0.0)
    for second in range(10_000):
        pulse.ping(float(second))
    assert len(pulse._sent) < 100
    assert pulse.dead_at is None


def test_without_an_interval_no_ping_is_due() -> None:
    pulse = Pulse(Heartbeat(interval=None))
    pulse.start(0.0)
    assert not pulse.due(1e9)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ('{"code":-1003,"data":{"serverTime":1700000000000,"retryAfter":1700000030000}}', 30.0),
        ('{"retry_after": 1700000005}', 5.0),
        ('{"message": "slow down", "retry_after": 0.65, "global": false}', 0.65),
        ('{"retryAfter": "12"}', 12.0),
        ('{"retryAfter": 1600000000000}', 0.0),
        ('{"retryAfter": "soon"}', None),
        ("<html>Too Many Requests</html>", None),
        ("", None),
    ],
)
def test_a_wait_asked_for_in_a_body_is_read(body: str, seconds: float | None) -> None:
    assert retry_after_said(body, 1_700_000_000.0) == seconds
