"""Bad input to a session: whatever a server says, in whatever order, is counted and survived. Virtual time, no network.

Malformed control messages, answers to what was never asked, pongs nobody waits for, states that contradict each other.
The invariants are those of the manual's page on the session.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastfeed import events
from fastfeed.backoff import Backoff
from fastfeed.dialect import (
    Ack,
    Active,
    Beat,
    Denial,
    Dialect,
    Greeting,
    Notice,
    PingAsked,
    PongSaid,
    Refusal,
    Reply,
    Welcome,
)
from fastfeed.errors import AuthError, ConnectError, HandshakeError
from fastfeed.failures import Failure
from fastfeed.heartbeat import Beats, Heartbeat
from fastfeed.providers import names, provider
from fastfeed.retries import LONGEST_WAIT
from fastfeed.rotation import Rotation
from fastfeed.session import WRONG_CLOCK, Session, State
from fastfeed.signals import (
    Action,
    Close,
    Closed,
    Control,
    Delivered,
    Dial,
    DialFailed,
    Emit,
    Heard,
    Inherit,
    Input,
    Login,
    Opened,
    Pong,
    Redial,
    Relief,
    Renew,
    Renewed,
    Resubscribe,
    Say,
    Send,
    SendAppPing,
    SendPing,
    SetOffset,
    Silent,
    Start,
    Stop,
    Subscribe,
    Tick,
    Traffic,
    Unsubscribe,
    Window,
)
from fastfeed.subscriptions import Limits, Stage, Subscription

WISHES = [Subscription(f"S{number}", "quote" if number % 2 else "trade") for number in range(6)]
UTC = 1.8e9

# What a server may say ----------------------------------------------------------------------------------------------

numbers = st.one_of(st.none(), st.integers(0, 8), st.integers())
topics = st.lists(st.sampled_from([wish.symbol for wish in WISHES] + ["nobody's", ""]), max_size=4).map(tuple)
waits = st.one_of(st.none(), st.floats(min_value=0, allow_nan=False))
replies: st.SearchStrategy[Reply] = st.one_of(
    st.builds(Ack, numbers, topics),
    st.builds(Active, topics.map(frozenset)),
    st.builds(Refusal, numbers, st.text(max_size=5), topics),
    st.just(Greeting()),
    st.just(Welcome()),
    st.builds(Notice, st.text(max_size=5)),
    st.builds(Denial, st.sampled_from(Failure), st.text(max_size=5), waits),
    st.builds(PingAsked, st.one_of(st.text(max_size=5), st.binary(max_size=5))),
    st.builds(PongSaid, numbers, st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))),
    st.just(Beat()),
)
errors = st.one_of(
    st.builds(ConnectError, st.just("host:1"), st.just("refused"), retryable=st.booleans()),
    st.builds(HandshakeError, st.integers(100, 599)),
    st.builds(AuthError, st.just("host:1"), st.just("HTTP 401")),
)
groups = st.lists(st.sampled_from([*WISHES, Subscription("nobody", "quote")]), max_size=4).map(tuple)
inputs: st.SearchStrategy[Input | list[Reply]] = st.one_of(
    st.lists(replies, max_size=4),  # one control message that says all this
    st.just(Tick()),
    st.just(Opened()),
    st.builds(DialFailed, errors, waits, st.one_of(st.none(), st.sampled_from(Failure))),
    st.builds(Renewed, st.one_of(st.none(), errors)),
    st.builds(Closed, st.one_of(st.integers(1000, 1015), st.integers(0, 65535)), st.text(max_size=5)),
    st.builds(Pong, st.one_of(st.binary(max_size=4), st.integers(0, 9).map(lambda number: b"%d" % number))),
    st.builds(Delivered, groups),
    st.builds(Silent, groups, mute=st.booleans(), usual=st.booleans()),
    st.builds(Heard, groups),
    st.builds(Traffic, st.integers(0, 100), st.booleans()),
    st.builds(Resubscribe, groups),
    st.builds(Say, st.text(max_size=5)),
    st.builds(Window, st.booleans()),
    st.builds(Relief, st.booleans()),
    st.builds(Inherit, groups),
    st.builds(Redial, st.text(max_size=5)),
    groups.map(lambda group: Subscribe(tuple((wish, wish.symbol) for wish in group))),
    st.builds(Unsubscribe, groups),
)
steps = st.lists(st.tuples(inputs, st.sampled_from([0.0, 0.01, 0.4, 3.0, 40.0])), max_size=60)

# What may follow on a state, in one input.
LEGAL = {
    State.IDLE: {State.DIALING, State.WAITING, State.STOPPED},
    State.DIALING: {State.OPEN, State.WAITING, State.FAILED, State.STOPPED},
    State.OPEN: {State.WAITING, State.DIALING, State.FAILED, State.STOPPED},
    State.WAITING: {State.DIALING, State.FAILED, State.STOPPED},
    State.STOPPED: set(),
    State.FAILED: set(),
}


class Watched:
    """A session that is looked at after every input. A control message is the number of the replies it stands for."""

    def __init__(self, *, greets: bool = False, **options: Any) -> None:
        self.said: list[Sequence[Reply]] = []
        self.session = Session(
            "line",
            "host:1",
            dialect=Dialect(
                subscribe=lambda number, wanted: json.dumps([number, *wanted]),
                unsubscribe=lambda number, left: json.dumps([-number, *left]),
                read=lambda payload: tuple(self.said[int(payload)]),
                greets=greets,
            ),
            limits=Limits(streams_per_request=2, messages_per_second=8, dials_per_five_minutes=200),
            backoff=Backoff(stable_after=1.0),
            heartbeat=Heartbeat(interval=2.0, timeout=5.0),
            random=random.Random(1).random,
            **options,
        )
        self.now = 1000.0
        self.tell(Subscribe(tuple((wish, wish.symbol) for wish in WISHES)))
        self.tell(Start())

    def control(self, said: Sequence[Reply]) -> Control:
        self.said.append(said)
        return Control(b"%d" % (len(self.said) - 1), UTC + self.now)

    def tell(self, event: Input) -> list[Action]:
        session = self.session
        before = (session.state, session.unreadable, session.strays, session.dials)
        actions = session.handle(event, self.now)
        self._check(before, actions)
        return actions

    def wait(self, seconds: float) -> None:
        """Live through every deadline until then; each must be passed by the tick it asked for."""
        end = self.now + seconds
        ticks = 0
        while (deadline := self.session.deadline()) is not None and deadline <= end:
            ticks = ticks + 1 if deadline <= self.now else 0
            assert ticks < 4, "a deadline that its tick does not pass"
            self.now = max(self.now, deadline)
            self.tell(Tick())
        self.now = end

    def _check(self, before: tuple[State, int, int, int], actions: list[Action]) -> None:
        session, (state, unreadable, strays, dials) = self.session, before
        assert session.state is state or session.state in LEGAL[state]
        assert session.unreadable >= unreadable
        assert session.strays >= strays
        assert session.dials - dials == sum(isinstance(action, Dial) for action in actions) <= 1
        if state in (State.STOPPED, State.FAILED):
            assert actions == [], "the end is the end"
        deadline = session.deadline()
        if session.state is State.WAITING:
            assert deadline is not None
            assert deadline - self.now <= LONGEST_WAIT
        elif session.state is State.OPEN:
            assert deadline is None or math.isfinite(deadline)
            assert deadline is not None, "the heartbeat at least"
        else:
            assert deadline is None
        assert (session.failure is not None) is (session.state is State.FAILED)
        stages = {record.stage for record in session.book}
        if session.state is not State.OPEN:
            assert stages <= {Stage.WANTED, Stage.REJECTED}
            after_close = False
            for action in actions:
                after_close = after_close or isinstance(action, Close)
                assert not (after_close and isinstance(action, Send | SendPing | SendAppPing | Login))
        for action in actions:
            if isinstance(action, SetOffset):
                assert abs(action.seconds) <= WRONG_CLOCK + 1000
            if isinstance(action, Emit) and isinstance(action.event, events.Reconnecting):
                assert 0 <= action.event.delay <= LONGEST_WAIT


KINDS: list[dict[str, Any]] = [
    {},
    {"greets": True},
    {"logs_in": True, "renewable": True},
    {"greets": True, "logs_in": True},
    {"pongs_promised": False, "beats": Beats(interval=1.0, timeout=3.0)},
    {"beats": Beats(interval=1.0, expected=20.0)},
    {"rotation": Rotation()},
]


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(KINDS), story=steps, stops=st.booleans())
def test_whatever_the_server_says_in_whatever_order_is_survived(
    kind: dict[str, Any], story: list[tuple[Any, float]], stops: bool
) -> None:
    watched = Watched(**kind)
    for event, seconds in story:
        watched.tell(watched.control(event) if isinstance(event, list) else event)
        watched.wait(seconds)
    if stops:
        watched.tell(Stop())
        assert watched.session.state in (State.STOPPED, State.FAILED)
        watched.wait(100.0)


# Everything random above; what is counted where, below ---------------------------------------------------------------


def opened(**options: Any) -> Watched:
    watched = Watched(**options)
    watched.tell(Opened())
    return watched


def test_acks_for_ids_nobody_used_are_counted_and_change_nothing() -> None:
    watched = opened()
    before = [record.stage for record in watched.session.book]
    watched.tell(watched.control([Ack(99), Ack(-1), Refusal(77, "no"), Ack(topics=("nobody's",))]))
    assert watched.session.book.strays == watched.session.strays == 4
    assert [record.stage for record in watched.session.book] == before
    assert watched.session.state is State.OPEN


def test_an_ack_that_comes_twice_is_counted_once_as_a_stray() -> None:
    watched = opened()
    watched.tell(watched.control([Ack(1)]))
    acked = len(watched.session.book.at(Stage.ACKED))
    watched.tell(watched.control([Ack(1)]))
    assert watched.session.strays == 1
    assert len(watched.session.book.at(Stage.ACKED)) == acked > 0


def test_a_refusal_of_what_was_acked_has_it_asked_for_again_once() -> None:
    watched = opened()
    watched.tell(watched.control([Ack(1)]))
    acked = watched.session.book.at(Stage.ACKED)
    watched.tell(watched.control([Refusal(1, "changed my mind")]))
    assert {record.stage for record in acked} <= {Stage.WANTED, Stage.REQUESTED}
    assert len(acked) > 1
    assert watched.session.book.at(Stage.REJECTED) == []
    watched.tell(watched.control([Refusal(1, "and again")]))
    assert watched.session.strays == 1
    assert watched.session.state is State.OPEN


def test_pongs_nobody_asked_for_are_counted_and_vouch_for_nothing() -> None:
    watched = opened()
    for payload in (b"", b"7", b"\xff\xfe"):
        watched.tell(Pong(payload))
    watched.tell(watched.control([PongSaid(5), PongSaid(None), PongSaid(-1, 0.0)]))
    assert watched.session.strays == 6
    watched.wait(7.0)  # a ping after two seconds, and no pong within five
    assert watched.session.state is not State.OPEN


def test_a_pong_with_an_impossible_time_moves_no_clock() -> None:
    watched = opened(beats=Beats(interval=1.0))
    watched.wait(1.0)
    actions = watched.tell(watched.control([PongSaid(1, (UTC + watched.now) * 1000)]))  # milliseconds
    assert not [action for action in actions if isinstance(action, SetOffset)]
    assert watched.session.unreadable == 1
    watched.wait(1.0)
    actions = watched.tell(watched.control([PongSaid(2, UTC + watched.now)]))
    assert [action for action in actions if isinstance(action, SetOffset)]


def test_a_welcome_nobody_waits_for_and_a_greeting_in_the_middle_change_nothing() -> None:
    watched = opened()
    before = watched.session.deadline()
    assert watched.tell(watched.control([Welcome(), Greeting(), Beat()])) == []
    assert watched.session.deadline() == before


def test_what_follows_the_end_in_the_same_message_is_not_answered() -> None:
    watched = opened(logs_in=True, greets=True)
    actions = watched.tell(watched.control([Notice("bye"), PingAsked("pong"), Greeting()]))
    assert not [action for action in actions if isinstance(action, Send | Login)]


def test_contradictions_end_in_one_verdict() -> None:
    watched = opened()
    watched.tell(watched.control([Ack(1), Refusal(1, "no"), Active(frozenset()), Active(frozenset({"S0"}))]))
    watched.tell(Delivered((WISHES[0],)))
    watched.tell(
        watched.control([Denial(Failure.EVICTED, "full"), Denial(Failure.AUTH, "who?"), Notice("bye"), Ack(2)])
    )
    assert watched.session.state is State.WAITING, "the first verdict holds"
    assert watched.session.error is not None
    assert "full" in str(watched.session.error)
    assert watched.session.deadline() is not None


@pytest.mark.parametrize("wait", [LONGEST_WAIT + 1, 1e300, math.inf])
def test_who_is_told_to_stay_away_for_ever_gives_up_instead_of_waiting(wait: float) -> None:
    watched = Watched()
    watched.tell(DialFailed(HandshakeError(429), wait))
    assert watched.session.state is State.FAILED
    assert watched.session.failure is not None


def test_a_week_is_waited_for() -> None:
    watched = Watched()
    watched.tell(DialFailed(HandshakeError(429), LONGEST_WAIT))
    assert watched.session.deadline() == watched.now + LONGEST_WAIT


def test_a_dialect_that_trips_is_counted_told_once_and_costs_no_connection() -> None:
    watched = opened()
    told = [action for _ in range(5) for action in watched.tell(Control(b"no number"))]
    assert watched.session.unreadable == 5
    assert watched.session.state is State.OPEN
    alerts = [action.event for action in told if isinstance(action, Emit) and isinstance(action.event, events.Alert)]
    assert [alert.severity for alert in alerts] == ["warning"]
    assert "ValueError" in alerts[0].cause


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ack("7"),  # type: ignore[arg-type]
        lambda: Ack(topics=(["S0"],)),  # type: ignore[arg-type]
        lambda: Active(frozenset({7})),  # type: ignore[arg-type]
        lambda: Refusal([1], "no"),  # type: ignore[arg-type]
        lambda: Refusal(1, None),  # type: ignore[arg-type]
        lambda: Notice({}),  # type: ignore[arg-type]
        lambda: Denial(Failure.AUTH, "no", math.nan),
        lambda: Denial(Failure.AUTH, "no", -1.0),
        lambda: Denial(Failure.AUTH, "no", "soon"),  # type: ignore[arg-type]
        lambda: PingAsked({"pong": 1}),  # type: ignore[arg-type]
        lambda: PongSaid("7"),  # type: ignore[arg-type]
        lambda: PongSaid(7, math.nan),
        lambda: PongSaid(7, "noon"),  # type: ignore[arg-type]
    ],
)
def test_a_reply_that_makes_no_sense_cannot_be_made(make: Callable[[], Reply]) -> None:
    with pytest.raises((TypeError, ValueError)):
        make()


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.text(max_size=4), st.sampled_from(["id", "result", "error", "code", "msg", "e", "data"])),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", names())
@settings(max_examples=60, deadline=None)
@given(payload=st.one_of(st.binary(max_size=60), json_values.map(lambda value: json.dumps(value).encode())))
def test_every_providers_dialect_reads_anything_without_raising(name: str, payload: bytes) -> None:
    assert isinstance(provider(name).dialect.read(payload), tuple)


def test_the_inputs_and_actions_here_are_all_there_are() -> None:
    """So that an input which is added later is fed in here too."""
    fed = {Start, Stop, Control, Tick, Opened, DialFailed, Renewed, Closed, Pong, Delivered, Silent, Heard, Traffic}
    fed |= {Subscribe, Unsubscribe, Resubscribe, Say, Window, Relief, Inherit, Redial}
    assert set(Input.__args__) == fed
    assert Renew in Action.__args__
