"""The session in virtual time: every input by hand, every action looked at. No socket, no clock, no waiting."""

import itertools
import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pytest

from fastfeed import events
from fastfeed.backoff import Backoff
from fastfeed.dialect import Ack, Beat, Denial, Dialect, Notice, PingAsked, PongSaid, Refusal, Reply
from fastfeed.door import Door
from fastfeed.errors import AuthError, ConnectError, GaveUp, HandshakeError
from fastfeed.failures import BUDGETS, CLOSE_CODES, Failure, classify_close, classify_error
from fastfeed.heartbeat import Beats, Heartbeat
from fastfeed.session import ACK_TIMEOUT, RESTORE_GRACE, Session, State
from fastfeed.signals import (
    Action,
    Close,
    Closed,
    Control,
    Delivered,
    Dial,
    DialFailed,
    Emit,
    Forget,
    Heard,
    Input,
    Lost,
    Opened,
    Pong,
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
)
from fastfeed.subscriptions import Limits, Stage, Subscription

A, B, C, D = (Subscription(name, "quote") for name in "ABCD")
REFUSED = DialFailed(ConnectError("host:1", "refused"))
T = TypeVar("T")


def read(payload: bytes) -> tuple[Reply, ...]:
    try:
        said = json.loads(payload)
    except ValueError:
        return ()
    if not isinstance(said, dict):
        return ()
    if "ack" in said:
        return (Ack(said["ack"]),)
    if "no" in said:
        return (Refusal(said["no"], said["why"]),)
    if "denied" in said:
        return (Denial(Failure[said["denied"]], said["why"], said.get("wait")),)
    if "ping" in said:
        return (PingAsked(json.dumps({"pong": said["ping"]}, separators=(",", ":"))),)
    if "pong" in said:
        return (PongSaid(said["pong"], said.get("time")),)
    if "beat" in said:
        return (Beat(),)
    return (Notice(said["bye"]),) if "bye" in said else ()


DIALECT = Dialect(
    subscribe=lambda request_id, topics: json.dumps({"id": request_id, "sub": list(topics)}),
    unsubscribe=lambda request_id, topics: json.dumps({"id": request_id, "unsub": list(topics)}),
    read=read,
)


class Driven:
    """A session with the time in our hand: `tell` hands in an input now, `pass_to` lives through every deadline."""

    def __init__(
        self,
        *,
        backoff: Backoff | None = None,
        heartbeat: Heartbeat | None = None,
        limits: Limits | None = None,
        dice: Callable[[], float] = lambda: 0.5,
        pongs_promised: bool = True,
        door: Door | None = None,
        beats: Beats | None = None,
        close_codes: Mapping[int, Failure] = MappingProxyType({}),
    ) -> None:
        self.session = Session(
            "line",
            "host:1",
            dialect=DIALECT,
            limits=limits or Limits(),
            backoff=backoff or Backoff(jitter=0.0),
            heartbeat=heartbeat or Heartbeat(interval=None),
            random=dice,
            pongs_promised=pongs_promised,
            door=door,
            beats=beats or Beats(),
            close_codes=close_codes,
        )
        self.now = 100.0
        self.log: list[tuple[float, Action]] = []

    def tell(self, event: Input) -> list[Action]:
        actions = self.session.handle(event, self.now)
        self.log += [(self.now, action) for action in actions]
        return actions

    def pass_to(self, when: float) -> None:
        while (deadline := self.session.deadline()) is not None and deadline <= when:
            self.now = max(self.now, deadline)
            self.tell(Tick())
        self.now = when

    def wait(self, seconds: float) -> None:
        self.pass_to(self.now + seconds)

    def open(self, *wishes: Subscription) -> None:
        self.tell(Subscribe(tuple((wish, wish.symbol.lower()) for wish in wishes)))
        self.tell(Start())
        self.tell(Opened())

    def live(self, *wishes: Subscription, stable: bool = True) -> None:
        """Open, acked, delivering, and for long enough to count as stable."""
        self.open(*wishes)
        self.ack_all()
        self.tell(Delivered(wishes))
        if stable:
            self.wait(60.0)

    def come_back(self, *wishes: Subscription) -> None:
        self.tell(Opened())
        self.ack_all()
        self.tell(Delivered(wishes))

    def ack_all(self) -> None:
        for request in self.sent():
            self.say(ack=request["id"])

    def say(self, **message: object) -> list[Action]:
        return self.tell(Control(json.dumps(message).encode()))

    def sent(self) -> list[dict[str, object]]:
        return [json.loads(action.text) for _, action in self.log if isinstance(action, Send)]

    def did(self, kind: type[T]) -> list[T]:
        return [action for _, action in self.log if isinstance(action, kind)]

    def when(self, kind: type[Action]) -> list[float]:
        return [at for at, action in self.log if isinstance(action, kind)]

    def told(self, kind: type[T]) -> list[T]:
        return [action.event for action in self.did(Emit) if isinstance(action.event, kind)]

    @property
    def stages(self) -> dict[str, str]:
        return {record.subscription.symbol: record.stage.value for record in self.session.book}


def kinds(actions: list[Action]) -> list[str]:
    return [type(action.event).__name__ if isinstance(action, Emit) else type(action).__name__ for action in actions]


# Coming up ----------------------------------------------------------------------------------------------------------


def test_it_dials_subscribes_and_is_acked() -> None:
    driven = Driven()
    driven.tell(Subscribe(((A, "a"), (B, "b"))))
    assert driven.session.state is State.IDLE
    assert driven.tell(Start()) == [Dial()]
    assert driven.tell(Start()) == [], "started once"
    actions = driven.tell(Opened())
    assert kinds(actions) == ["Connected", "Send"]
    assert driven.sent() == [{"id": 1, "sub": ["a", "b"]}]
    driven.say(ack=1)
    assert driven.stages == {"A": "acked", "B": "acked"}
    driven.tell(Delivered((A,)))
    assert driven.stages == {"A": "live", "B": "acked"}
    assert driven.told(events.Restored) == [], "nothing was lost"


def test_a_rejected_subscription_is_told_by_name_and_the_others_stay() -> None:
    driven = Driven()
    driven.open(A, B)
    driven.say(no=1, why="bad symbol")
    assert [request["sub"] for request in driven.sent()] == [["a", "b"], ["a"], ["b"]]
    driven.say(no=2, why="bad symbol")
    driven.say(ack=3)
    assert driven.told(events.Rejected) == [events.Rejected(A, "bad symbol")]
    assert driven.stages == {"A": "rejected", "B": "acked"}
    assert driven.session.book.settled


def test_subscribing_while_open_is_sent_at_once_and_while_waiting_on_return() -> None:
    driven = Driven()
    driven.live(A)
    driven.tell(Subscribe(((B, "b"),)))
    assert driven.sent()[-1] == {"id": 2, "sub": ["b"]}
    driven.tell(Closed(1006, ""))
    driven.tell(Subscribe(((C, "c"),)))
    driven.tell(Unsubscribe((A,)))
    assert len(driven.sent()) == 2
    driven.wait(1.0)
    driven.tell(Opened())
    assert driven.sent()[-1] == {"id": 3, "sub": ["b", "c"]}


def test_unsubscribing_while_open_is_sent() -> None:
    driven = Driven()
    driven.live(A, B)
    driven.tell(Unsubscribe((A,)))
    assert driven.sent()[-1] == {"id": 2, "unsub": ["a"]}
    driven.say(ack=2)
    assert driven.stages == {"B": "live"}


def test_requests_and_pings_keep_to_the_pace_with_room_for_pongs() -> None:
    driven = Driven(limits=Limits(streams_per_request=1, messages_per_second=5), heartbeat=Heartbeat(interval=0.1))
    wishes = [Subscription(f"S{i}", "quote") for i in range(40)]
    driven.open(*wishes)
    driven.wait(4.9)  # until the first request would be asked again
    times = sorted(driven.when(Send) + driven.when(SendPing))
    assert len(times) > 15
    for first, fifth in zip(times, times[4:], strict=False):
        assert fifth - first >= 1.0, "more than four messages within a second: the fifth is kept for a pong"
    assert driven.did(SendPing), "requests do not starve the heartbeat"


def test_a_long_restore_does_not_delay_the_heartbeat() -> None:
    driven = Driven(limits=Limits(streams_per_request=1, messages_per_second=5), heartbeat=Heartbeat(interval=0.7))
    driven.open(*(Subscription(f"S{i}", "quote") for i in range(40)))
    for _ in range(6):
        due = driven.session.pulse.next_at
        assert due is not None
        driven.pass_to(due)
        assert driven.when(SendPing)[-1] == due


# Requests that go unanswered ----------------------------------------------------------------------------------------


def test_an_unanswered_request_is_asked_again_and_then_the_connection_is_dropped() -> None:
    driven = Driven()
    driven.open(A, B)
    driven.wait(ACK_TIMEOUT)
    assert [request["sub"] for request in driven.sent()] == [["a", "b"], ["a"], ["b"]]
    assert driven.did(Close) == []
    driven.wait(ACK_TIMEOUT)
    assert driven.did(Close) == [Close(1000, "")]
    assert driven.told(events.Disconnected)[0].cause == "requests are not answered"
    assert driven.session.state is State.WAITING


def test_answers_to_nothing_asked_and_nonsense_are_survived() -> None:
    driven = Driven()
    driven.live(A)
    before = driven.session.state, driven.stages
    for payload in (b"", b"[]", b"{}", b"\xff", b"7", b'{"ack": 77}', b'{"no": 78, "why": "x"}'):
        driven.tell(Control(payload))
    driven.tell(Pong(b"never sent"))
    driven.tell(Delivered((C,)))
    driven.tell(Opened())
    driven.tell(REFUSED)
    assert (driven.session.state, driven.stages) == before
    assert driven.session.book.strays == 2
    assert driven.session.pulse.unsolicited == 1


# Heartbeat ----------------------------------------------------------------------------------------------------------


def test_a_half_open_connection_is_found_within_the_timeout_and_one_interval() -> None:
    driven = Driven(heartbeat=Heartbeat(interval=5.0, timeout=10.0))
    driven.live(A, stable=False)
    lost_at = driven.now
    driven.wait(15.0)
    [died_at] = driven.when(Close)
    assert died_at - lost_at <= 15.0
    assert driven.did(Close) == [Close(1006, "")], "nobody is there to say goodbye to"
    assert driven.told(events.Disconnected)[0].cause == "no pong within 10 s"


def test_answered_pings_keep_the_connection_and_measure_the_round_trip() -> None:
    driven = Driven(heartbeat=Heartbeat(interval=5.0, timeout=10.0))
    driven.live(A, stable=False)
    for _ in range(100):
        assert driven.session.pulse.next_at is not None
        driven.pass_to(driven.session.pulse.next_at)
        driven.now += 0.02
        driven.tell(Pong(driven.did(SendPing)[-1].payload))
    assert driven.session.state is State.OPEN
    assert driven.session.pulse.round_trips[-1] == pytest.approx(0.02)


def test_pongs_and_acks_are_not_data() -> None:
    driven = Driven(heartbeat=Heartbeat(interval=1.0))
    driven.open(A)
    driven.ack_all()
    for _ in range(30):
        driven.wait(1.0)
        driven.tell(Pong(driven.did(SendPing)[-1].payload))
    driven.tell(Closed(1000, ""))
    assert driven.stages == {"A": "wanted"}
    assert driven.told(events.Reconnecting)[-1].delay == 0.5, "a mute connection was never stable"


# Redialling ---------------------------------------------------------------------------------------------------------


def test_a_refused_dial_is_retried_with_backoff() -> None:
    driven = Driven(backoff=Backoff(base=1.0, cap=8.0, jitter=0.0))
    driven.tell(Start())
    for _ in range(6):
        driven.tell(REFUSED)
        driven.wait(8.0)
    assert [event.delay for event in driven.told(events.Reconnecting)] == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert [event.attempt for event in driven.told(events.Reconnecting)] == [1, 2, 3, 4, 5, 6]
    assert len(driven.did(Dial)) == 7


def test_after_a_loss_everything_is_subscribed_again_and_the_restoration_is_told() -> None:
    driven = Driven()
    driven.live(A, B)
    actions = driven.tell(Closed(1006, ""))
    assert kinds(actions) == ["Disconnected", "Lost", "Reconnecting", "Dial"]
    assert driven.did(Lost) == [Lost((A, B))]
    driven.wait(0.5)
    driven.tell(Opened())
    assert driven.sent()[-1] == {"id": 2, "sub": ["a", "b"]}
    driven.say(ack=2)
    assert driven.session.restoring
    driven.now += 0.25
    driven.tell(Delivered((A, B)))
    assert driven.told(events.Restored) == [events.Restored(0.75, (), "line")]
    assert not driven.session.restoring
    assert driven.session.reconnects == 1


def test_a_restoration_names_what_stays_silent_and_does_not_count_the_waiting() -> None:
    driven = Driven()
    driven.live(A, B)
    driven.tell(Closed(1006, ""))
    driven.wait(0.5)
    driven.come_back(A)
    driven.wait(RESTORE_GRACE)
    assert driven.told(events.Restored) == [events.Restored(0.5, (B,), "line")]


def test_the_backoff_starts_again_only_after_a_stable_connection_that_delivered() -> None:
    driven = Driven(backoff=Backoff(base=1.0, cap=64.0, jitter=0.0, stable_after=5.0))
    driven.live(A, stable=False)
    for _ in range(4):  # accepts, delivers, and drops at once
        driven.tell(Closed(1006, ""))
        driven.wait(64.0)
        driven.come_back(A)
    assert [event.delay for event in driven.told(events.Reconnecting)] == [1.0, 2.0, 4.0, 8.0]
    driven.wait(5.0)
    driven.tell(Closed(1006, ""))
    assert driven.told(events.Reconnecting)[-1].delay == 0.0, "nothing speaks against it"
    driven.tell(REFUSED)
    assert driven.told(events.Reconnecting)[-1].delay == 1.0


def test_a_connection_that_lives_long_but_delivers_nothing_does_not_reset_the_backoff() -> None:
    driven = Driven(backoff=Backoff(base=1.0, jitter=0.0))
    driven.open(A)
    for _ in range(3):
        driven.ack_all()
        driven.wait(3600.0)
        driven.tell(Closed(1006, ""))
        driven.wait(30.0)
        driven.tell(Opened())
    assert [event.delay for event in driven.told(events.Reconnecting)] == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1012, 1013])
def test_the_first_cut_clean_close_or_restart_after_stable_delivery_redials_at_once(code: int) -> None:
    driven = Driven()
    driven.live(A)
    assert kinds(driven.tell(Closed(code, "bye")))[-1] == "Dial"
    assert driven.told(events.Disconnected)[0].cause == f"closed with {code} (bye)"
    driven.tell(Opened())
    driven.tell(Closed(code, "bye"))
    assert driven.told(events.Reconnecting)[-1].delay > 0


def test_an_announced_shutdown_redials_at_once_and_a_second_one_waits() -> None:
    driven = Driven()
    driven.live(A)
    assert kinds(driven.say(bye="restart")) == ["Close", "Disconnected", "Lost", "Reconnecting", "Dial"]
    assert driven.told(events.Disconnected)[0].cause == "restart"
    driven.tell(Opened())
    driven.say(bye="restart")
    assert driven.session.state is State.WAITING


def test_jitter_comes_from_the_dice_handed_in() -> None:
    delays = []
    for dice in (0.0, 0.5, 0.999):
        driven = Driven(backoff=Backoff(base=1.0, jitter=0.3), dice=lambda dice=dice: dice)
        driven.tell(Start())
        driven.tell(REFUSED)
        delays.append(driven.told(events.Reconnecting)[0].delay)
    assert delays == pytest.approx([0.7, 1.0, 1.2994])


# Budgets ------------------------------------------------------------------------------------------------------------


def test_authentication_failure_is_dialled_once() -> None:
    driven = Driven(backoff=Backoff(max_retries=100))
    driven.tell(Start())
    error = AuthError("host:1", "HTTP 401")
    assert kinds(driven.tell(DialFailed(error))) == ["AuthFailed", "GaveUp"]
    driven.wait(1e6)
    assert len(driven.did(Dial)) == 1
    assert driven.session.state is State.FAILED
    assert isinstance(driven.session.failure, GaveUp)
    assert driven.session.failure.__cause__ is error


@pytest.mark.parametrize("retry_after", [120.0, None])
def test_retry_after_is_never_undercut(retry_after: float | None) -> None:
    driven = Driven(backoff=Backoff(base=0.1, cap=30.0, jitter=0.0))
    driven.tell(Start())
    driven.tell(DialFailed(HandshakeError(429), retry_after))
    wanted = 30.0 if retry_after is None else retry_after
    assert driven.told(events.RateLimited) == [events.RateLimited("line", wanted)]
    driven.wait(wanted - 0.001)
    assert len(driven.did(Dial)) == 1
    driven.wait(0.001)
    assert len(driven.did(Dial)) == 2


def test_retry_after_of_an_overloaded_server_is_kept_too() -> None:
    driven = Driven()
    driven.tell(Start())
    driven.tell(DialFailed(HandshakeError(503), 60.0))
    assert driven.session.deadline() == driven.now + 60.0


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_an_explicit_number_of_retries_is_kept_whatever_the_failures(retries: int) -> None:
    driven = Driven(backoff=Backoff(max_retries=retries))
    driven.tell(Start())
    failures = [REFUSED, DialFailed(HandshakeError(503)), DialFailed(HandshakeError(404))]
    for turn in range(20):
        driven.tell(failures[turn % 3])
        driven.wait(30.0)
    assert len(driven.did(Dial)) == 1 + retries
    assert driven.told(events.GaveUp)[0].attempts == 1 + retries
    assert driven.session.state is State.FAILED
    assert driven.session.deadline() is None


@pytest.mark.parametrize(
    ("event", "failure"),
    [
        (DialFailed(ConnectError("host:1", "bad certificate", retryable=False)), Failure.TLS),
        (DialFailed(HandshakeError(302, {"location": "wss://elsewhere"})), Failure.REFUSED),
        (DialFailed(HandshakeError(404)), Failure.REFUSED),
    ],
)
def test_each_class_of_failure_has_a_budget_of_its_own(event: DialFailed, failure: Failure) -> None:
    driven = Driven()
    driven.tell(Start())
    for _ in range(BUDGETS[failure] + 5):
        driven.tell(event)
        driven.wait(30.0)
    assert len(driven.did(Dial)) == 1 + BUDGETS[failure]
    assert driven.session.state is State.FAILED


@pytest.mark.parametrize("code", [1000, 1006, 1008, 1011, 1012, 4000])
def test_a_server_that_accepts_and_closes_is_outlasted_without_a_tight_loop(code: int) -> None:
    driven = Driven()
    driven.open(A)
    until = driven.now + 600.0
    while driven.now < until:
        driven.tell(Closed(code, ""))
        driven.wait(0.01)
        driven.tell(Opened())
    assert driven.session.failure is None
    assert len(driven.did(Dial)) < 30


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (1000, Failure.CLEAN),
        (1005, Failure.CLEAN),
        (1003, Failure.PROTOCOL),
        (1007, Failure.PROTOCOL),
        (1010, Failure.PROTOCOL),
        (1001, Failure.RESTART),
        (1002, Failure.PROTOCOL),
        (1006, Failure.TRANSPORT),
        (1008, Failure.OVERLOAD),
        (1009, Failure.OVERLOAD),
        (1011, Failure.OVERLOAD),
        (1012, Failure.RESTART),
        (1013, Failure.RESTART),
        (3001, Failure.RATE_LIMITED),
        (4999, Failure.UNKNOWN),
    ],
)
def test_every_close_code_has_a_class(code: int, failure: Failure) -> None:
    assert classify_close(code) is failure


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ConnectError("h", "refused"), Failure.TRANSPORT),
        (ConnectError("h", "certificate", retryable=False), Failure.TLS),
        (AuthError("h", "HTTP 403"), Failure.AUTH),
        (HandshakeError(429), Failure.RATE_LIMITED),
        (HandshakeError(418), Failure.RATE_LIMITED),
        (HandshakeError(408), Failure.TRANSPORT),
        (HandshakeError(406), Failure.EVICTED),
        (HandshakeError(500), Failure.SERVER_ERROR),
        (HandshakeError(503), Failure.SERVER_ERROR),
        (HandshakeError(301), Failure.REFUSED),
        (HandshakeError(404), Failure.REFUSED),
    ],
)
def test_every_failed_dial_has_a_class(error: ConnectError, failure: Failure) -> None:
    assert classify_error(error) is failure


def test_every_class_of_failure_has_a_budget() -> None:
    assert set(BUDGETS) == set(Failure)


def test_the_manual_lists_every_class_of_failure_with_its_codes_and_budget() -> None:
    page = (Path(__file__).parent.parent / "docs" / "guide" / "errors.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z ]+)` \|([^|]*)\|([^|]*)\|[^|]*\| (\d+) \|$", page, re.M)
    assert {name: int(budget) for name, _, _, budget in rows} == {f.value: n for f, n in BUDGETS.items()}
    codes = {int(code): name for name, said, _, _ in rows for code in re.findall(r"\d{4}", said)}
    assert codes == {code: failure.value for code, failure in CLOSE_CODES.items()}
    statuses = {int(status): name for name, _, said, _ in rows for status in re.findall(r"\d{3}", said)}
    assert len(statuses) > 8
    for status, name in statuses.items():
        error = AuthError("h", "x") if status in (401, 403) else HandshakeError(status)
        assert classify_error(error).value == name


# Classes that need more than a delay --------------------------------------------------------------------------------


def test_the_servers_denial_decides_the_class_whatever_the_code_would_be() -> None:
    driven = Driven()
    driven.live(A)
    driven.say(denied="RATE_LIMITED", why="slow down", wait=90)
    assert driven.did(Close) == [Close(1000, "")]
    assert driven.told(events.RateLimited) == [events.RateLimited("line", 90)]
    driven.wait(89.9)
    assert len(driven.did(Dial)) == 1
    driven.wait(0.1)
    assert len(driven.did(Dial)) == 2


def test_a_denied_key_is_not_shown_again() -> None:
    driven = Driven()
    driven.open(A)
    driven.say(denied="AUTH", why="unknown key")
    driven.wait(1e6)
    assert len(driven.did(Dial)) == 1
    assert driven.told(events.AuthFailed) == [events.AuthFailed("line", "unknown key")]
    assert driven.session.state is State.FAILED
    assert isinstance(driven.session.error, AuthError)


def test_an_evicted_connection_cools_down_and_never_duels() -> None:
    driven = Driven()
    driven.live(A)
    until = driven.now + 3600.0
    while driven.now < until and driven.session.state is not State.FAILED:
        driven.say(denied="EVICTED", why="max_connections")
        driven.wait(Limits().eviction_cool_down)
        driven.tell(Opened())
        driven.ack_all()
        driven.tell(Delivered((A,)))
    times = driven.when(Dial)
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= Limits().eviction_cool_down
    assert len(times) <= 1 + BUDGETS[Failure.EVICTED]


def test_a_clean_close_right_after_a_rate_limit_is_one_too() -> None:
    driven = Driven(backoff=Backoff(cap=30.0, jitter=0.0))
    driven.tell(Start())
    driven.tell(DialFailed(HandshakeError(429), 5.0))
    driven.wait(5.0)
    driven.tell(Opened())
    driven.tell(Closed(1000, ""))
    assert driven.told(events.RateLimited)[-1] == events.RateLimited("line", 30.0)
    driven.wait(30.0)
    driven.come_back()
    driven.tell(Delivered((A,)))
    driven.tell(Closed(1000, ""))
    assert len(driven.told(events.RateLimited)) == 2, "it has delivered since"


def test_the_providers_own_close_codes_come_first() -> None:
    driven = Driven(close_codes={4401: Failure.AUTH, 1008: Failure.EVICTED})
    driven.live(A)
    driven.tell(Closed(1008, "policy"))
    assert driven.told(events.Reconnecting)[-1].delay == Limits().eviction_cool_down
    driven.wait(Limits().eviction_cool_down)
    driven.tell(Opened())
    driven.tell(Closed(4401, "token"))
    assert driven.session.state is State.FAILED


def test_a_storm_of_reconnects_is_told_once_until_it_calms_down() -> None:
    driven = Driven(backoff=Backoff(storm=3, storm_window=600.0, jitter=0.0))
    driven.live(A)
    for _ in range(6):
        driven.tell(Closed(1006, ""))
        driven.wait(30.0)
        driven.come_back(A)
    [alert] = driven.told(events.Alert)
    assert alert.cause == "line: 4 reconnects within 600 s"
    driven.wait(3600.0)
    for _ in range(4):
        driven.tell(Closed(1006, ""))
        driven.wait(30.0)
        driven.come_back(A)
    assert len(driven.told(events.Alert)) == 2


def test_the_providers_dials_are_counted_over_all_connections_and_never_exceeded() -> None:
    door = Door(10)
    pair = [Driven(door=door, backoff=Backoff(base=0.1, cap=0.1)) for _ in range(2)]
    for driven in pair:
        driven.tell(Start())
    for _ in range(1000):
        for driven in pair:
            driven.tell(REFUSED)
            driven.wait(1.0)
    dials = sorted(pair[0].when(Dial) + pair[1].when(Dial))
    assert len(dials) > 20
    for first, eleventh in zip(dials, dials[10:], strict=False):
        assert eleventh - first >= 300.0
    alerts = [alert.cause for driven in pair for alert in driven.told(events.Alert)]
    assert min(alerts).endswith("80% of the 10 dials per five minutes the provider allows are used")


def test_four_fifths_of_the_streams_are_told_where_there_is_no_second_connection_for_more() -> None:
    wishes = tuple((Subscription(f"S{number}", "quote"), f"s{number}") for number in range(10))
    driven = Driven(limits=Limits(streams_per_connection=10, connections=1))
    driven.tell(Subscribe(wishes[:7]))
    assert not driven.told(events.Alert)
    driven.tell(Subscribe(wishes[7:9]))
    driven.tell(Subscribe(wishes[9:]))
    assert [alert.cause for alert in driven.told(events.Alert)] == [
        "line: 90% of the 10 streams of a connection the provider allows are used"
    ]
    roomy = Driven(limits=Limits(streams_per_connection=10))
    roomy.tell(Subscribe(wishes))
    assert not roomy.told(events.Alert), "the next one gets a connection of its own"


# Stopping -----------------------------------------------------------------------------------------------------------


def test_stopping_closes_once_and_for_good() -> None:
    driven = Driven()
    driven.live(A)
    assert kinds(driven.tell(Stop())) == ["Close"]
    assert driven.tell(Stop()) == []
    assert driven.session.deadline() is None
    for event in (Tick(), Opened(), Closed(1006, ""), REFUSED, Start(), Delivered((A,)), Pong(b"1")):
        assert driven.tell(event) == []
    assert driven.session.state is State.STOPPED


def test_stopping_abandons_a_dial_and_a_wait() -> None:
    driven = Driven()
    driven.tell(Start())
    assert kinds(driven.tell(Stop())) == ["Close"]
    driven = Driven()
    driven.tell(Start())
    driven.tell(REFUSED)
    assert driven.tell(Stop()) == []
    assert driven.session.deadline() is None


# Any order ----------------------------------------------------------------------------------------------------------


def live_a_random_life(seed: int, steps: int) -> list[tuple[float, Action]]:
    """A seeded world that answers, delivers and fails at random, checked after every step."""
    dice = random.Random(seed)
    driven = Driven(
        backoff=Backoff(stable_after=2.0),
        heartbeat=Heartbeat(interval=1.0, timeout=3.0),
        limits=Limits(streams_per_request=3, messages_per_second=5),
        dice=dice.random,
    )
    wishes = [Subscription(f"S{i}", "quote") for i in range(12)]
    driven.tell(Subscribe(tuple((wish, wish.symbol) for wish in wishes[:6])))
    driven.tell(Start())
    session = driven.session
    for _ in range(steps):
        unanswered = [request["id"] for request in driven.sent()[-4:]]
        pings = driven.did(SendPing)
        wish = dice.choice(wishes)
        choices: list[Input] = [
            Tick(),
            Opened(),
            Opened(),
            REFUSED,
            DialFailed(HandshakeError(429), 7.0),
            Closed(dice.choice([1000, 1001, 1006, 1011, 1013, 3001, 4000]), "x"),
            Control(json.dumps({"ack": dice.choice(unanswered or [0])}).encode()),
            Control(json.dumps({"ack": dice.choice(unanswered or [0])}).encode()),
            Control(json.dumps({"no": dice.choice([*unanswered, None]), "why": "x"}).encode()),
            Control(b'{"bye": "x"}'),
            Pong(pings[-1].payload if pings else b""),
            Pong(b"?"),
            Delivered(tuple(dice.sample(wishes, 3))),
            Silent(tuple(dice.sample(wishes, 3)), mute=dice.random() < 0.3, usual=dice.random() < 0.3),
            Heard(tuple(dice.sample(wishes, 3))),
            Traffic(dice.randrange(100)),
            Subscribe(((wish, wish.symbol),)),
            Unsubscribe((wish,)),
        ]
        driven.tell(dice.choice(choices))
        # Never stuck: up, on its way, or waiting with a bounded deadline.
        if session.state is State.WAITING:
            deadline = session.deadline()
            assert deadline is not None
            assert deadline - driven.now <= 30.001
        assert session.state in (State.OPEN, State.DIALING, State.WAITING)
        if session.state is State.OPEN and session.book.pending:
            assert session.deadline() is not None
        if session.state is not State.OPEN:
            assert not session.book.at(Stage.REQUESTED, Stage.ACKED, Stage.LIVE), "nothing is live without a connection"
        driven.wait(dice.choice([0.0, 0.01, 0.3, 2.0]))
        driven.log = driven.log[-400:] if steps > 400 else driven.log
    return driven.log


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_it_is_never_stuck(seed: int) -> None:
    live_a_random_life(seed, 400)


def test_the_same_inputs_give_the_same_actions() -> None:
    assert live_a_random_life(7, 200) == live_a_random_life(7, 200)


# The application's heartbeats ---------------------------------------------------------------------------------------


def beating(beats: Beats, **options: Any) -> Driven:
    driven = Driven(beats=beats, **options)
    driven.open(A)
    driven.ack_all()
    return driven


def test_the_application_ping_goes_out_on_the_providers_interval_and_its_pong_is_measured() -> None:
    driven = beating(Beats(interval=20.0, timeout=10.0))
    driven.wait(20.0)
    assert driven.did(SendAppPing) == [SendAppPing(1)]
    driven.now += 0.25
    driven.say(pong=1)
    assert list(driven.session.app_pulse.round_trips) == [0.25]
    driven.wait(60.0)
    assert len(driven.did(SendAppPing)) > 1


def test_an_application_ping_that_is_not_answered_in_time_is_death() -> None:
    driven = beating(Beats(interval=20.0, timeout=10.0))
    driven.wait(29.999)
    assert driven.session.state is State.OPEN
    driven.wait(0.001)
    assert driven.told(events.Disconnected)[0].cause == "no answer to an application ping within 10 s"


def test_an_application_ping_nobody_promises_to_answer_kills_nothing() -> None:
    driven = beating(Beats(interval=20.0))
    driven.wait(500.0)
    assert driven.session.state is State.OPEN
    assert len(driven.did(SendAppPing)) == 25


def test_the_application_ping_goes_on_where_protocol_pings_are_not_wanted() -> None:
    driven = beating(Beats(interval=20.0), heartbeat=Heartbeat(interval=None))
    driven.wait(20.0)
    assert driven.did(SendAppPing)
    assert not driven.did(SendPing)


def test_the_servers_application_ping_is_answered_at_once_with_what_it_wants() -> None:
    driven = beating(Beats())
    actions = driven.tell(Control(b'{"ping":"7"}'))
    assert [action for action in actions if isinstance(action, Send)] == [Send('{"pong":"7"}')]


def test_a_server_that_beats_by_itself_and_stops_is_dead() -> None:
    driven = beating(Beats(expected=15.0))
    for _ in range(10):
        driven.wait(14.0)
        driven.say(beat=True)
    assert driven.session.state is State.OPEN
    assert driven.session.beats == 10
    driven.wait(15.0)
    assert driven.told(events.Disconnected)[0].cause == "nothing within 15 s, where the server beats by itself"


def test_data_stands_for_a_heartbeat_but_a_heartbeat_never_for_data() -> None:
    driven = beating(Beats(expected=15.0))
    for _ in range(5):
        driven.wait(10.0)
        driven.tell(Traffic(3))
    assert driven.session.state is State.OPEN
    driven.say(beat=True)
    assert [record.stage for record in driven.session.book] == [Stage.ACKED]


def test_the_clock_offset_is_taken_from_the_fastest_of_the_latest_round_trips() -> None:
    driven = beating(Beats(interval=20.0))
    offsets = []
    # This machine is 3 s ahead; the way back takes longer than the way there, so a slow trip misleads.
    for there, back in ((0.5, 1.5), (0.01, 0.01), (0.1, 0.9)):
        assert driven.session.app_pulse.next_at is not None
        driven.pass_to(driven.session.app_pulse.next_at)
        number = driven.did(SendAppPing)[-1].number
        sent_utc = 1000.0 + driven.now + 3.0
        driven.now += there + back
        said = json.dumps({"pong": number, "time": sent_utc - 3.0 + there}).encode()
        actions = driven.tell(Control(said, sent_utc + there + back))
        offsets += [action.seconds for action in actions if isinstance(action, SetOffset)]
    assert offsets == pytest.approx([3.5, 3.0, 3.0])


def test_an_application_pong_nobody_asked_for_is_counted_and_survived() -> None:
    driven = beating(Beats(interval=20.0, timeout=10.0))
    driven.say(pong=99)
    driven.say(pong=None)
    assert driven.session.app_pulse.unsolicited == 2
    assert not driven.did(SetOffset)


def test_control_messages_that_say_nothing_are_counted() -> None:
    driven = beating(Beats())
    driven.tell(Control(b'{"news":"none"}'))
    assert driven.session.unreadable == 1


# What the simulated world found -------------------------------------------------------------------------------------


def test_a_probe_that_a_restore_check_asks_for_goes_out_in_the_same_step() -> None:
    driven = Driven(heartbeat=Heartbeat(interval=1000.0))
    driven.live(A, B)
    driven.tell(Closed(1006, ""))
    driven.tell(Opened())
    driven.ack_all()
    driven.wait(RESTORE_GRACE)
    assert driven.did(SendPing), "what delivered before is silent now"
    deadline = driven.session.deadline()
    assert deadline is not None
    assert deadline > driven.now


def test_a_subscription_that_is_rejected_while_silent_is_not_told_stale() -> None:
    driven = Driven(heartbeat=Heartbeat(interval=1000.0))
    driven.live(A, B, C, D)
    driven.tell(Silent((A,)))
    number = driven.sent()[-1]["id"]
    driven.say(ack=number - 1)
    driven.say(no=number, why="delisted")
    assert [event.subscription for event in driven.told(events.Rejected)] == [A]
    driven.wait(60.0)
    assert not driven.told(events.Stale)


# Gaps ---------------------------------------------------------------------------------------------------------------


def test_a_stream_is_asked_anew_when_told_and_delivers_anew() -> None:
    driven = Driven()
    driven.live(A, B)
    actions = driven.tell(Resubscribe((A, C)))  # C is nothing of ours
    assert kinds(actions) == ["Forget", "Send", "Send"]
    assert actions[0] == Forget((A,))
    assert [request.keys() - {"id"} for request in driven.sent()[-2:]] == [{"unsub"}, {"sub"}]
    assert driven.stages == {"A": "requested", "B": "live"}
    driven.tell(Delivered((A,)))
    assert driven.stages == {"A": "live", "B": "live"}


def test_what_is_to_be_said_is_said_at_the_providers_pace_and_not_on_the_next_connection() -> None:
    driven = Driven(limits=Limits(messages_per_second=5))
    driven.live(A)
    for number in range(6):
        driven.tell(Say(f'{{"id":0,"again":{number}}}'))
    assert [request["again"] for request in driven.sent()[1:]] == [0, 1, 2]  # one is left for pings, one for pongs
    driven.wait(1.2)
    assert [request["again"] for request in driven.sent()[1:]] == [0, 1, 2, 3, 4, 5]
    for number in range(6, 12):
        driven.tell(Say(f'{{"id":0,"again":{number}}}'))
    driven.tell(Closed(1006, ""))
    driven.wait(5.0)
    driven.come_back(A)
    driven.wait(60.0)
    assert max(request.get("again", 0) for request in driven.sent()) < 11


def test_nothing_is_asked_anew_or_said_while_there_is_no_connection() -> None:
    driven = Driven()
    driven.tell(Start())
    assert driven.tell(Resubscribe((A,))) == []
    assert driven.tell(Say("a")) == []
    driven.tell(Opened())
    assert driven.sent() == []
