"""A session at the door: greeting, login, lapsing credentials, and what the sessions of one feed share. No network."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from fastfeed import events
from fastfeed.backoff import Backoff
from fastfeed.credentials import Auth, Credentials
from fastfeed.dialect import Ack, Denial, Dialect, Greeting, Reply, Welcome
from fastfeed.door import WAIT_FOR_KEY, Door
from fastfeed.errors import AuthError, ConnectError, HandshakeError
from fastfeed.failures import Failure
from fastfeed.heartbeat import Heartbeat
from fastfeed.session import LOGIN_TIMEOUT, RENEW_TIMEOUT, Session, State
from fastfeed.signals import (
    Action,
    Close,
    Closed,
    Control,
    Delivered,
    Dial,
    DialFailed,
    Emit,
    Input,
    Login,
    Opened,
    Renew,
    Renewed,
    Send,
    Start,
    Stop,
    Subscribe,
    Tick,
)
from fastfeed.subscriptions import Limits, Subscription

A = Subscription("A", "quote")
DENIED = DialFailed(AuthError("host:1", "HTTP 401"))
GREETING, WELCOME = Control(b'{"say":"hello"}'), Control(b'{"say":"welcome"}')
LAPSED = Control(b'{"say":"expired"}')


def read(payload: bytes) -> tuple[Reply, ...]:
    said = json.loads(payload)
    replies: dict[str, Reply] = {
        "hello": Greeting(),
        "welcome": Welcome(),
        "expired": Denial(Failure.AUTH, "token expired"),
        "full": Denial(Failure.EVICTED, "too many connections"),
    }
    return (replies[said["say"]],) if "say" in said else (Ack(said["ack"]),)


def ask(number: int, topics: Any) -> str:
    return json.dumps({"id": number, "sub": list(topics)})


class Caller:
    """A session, its clock and what it did."""

    def __init__(self, *, greets: bool = False, door: Door | None = None, **options: Any) -> None:
        self.session = Session(
            "line",
            "host:1",
            dialect=Dialect(subscribe=ask, unsubscribe=ask, read=read, greets=greets),
            limits=Limits(),
            backoff=Backoff(jitter=0.0),
            heartbeat=Heartbeat(interval=None),
            random=lambda: 0.5,
            door=door,
            **options,
        )
        self.now = 100.0
        self.did: list[Action] = []

    def tell(self, event: Input) -> list[Action]:
        actions = self.session.handle(event, self.now)
        self.did += actions
        return actions

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.session.deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.tell(Tick())
        self.now = end

    def count(self, kind: type[Action]) -> int:
        return sum(isinstance(action, kind) for action in self.did)

    def told(self, kind: type[events.Event]) -> list[Any]:
        return [action.event for action in self.did if isinstance(action, Emit) and isinstance(action.event, kind)]

    def start(self) -> None:
        self.tell(Subscribe(((A, "a"),)))
        self.tell(Start())

    def deliver(self) -> None:
        """Open, acked, delivering and stable."""
        self.tell(Opened())
        self.tell(Control(b'{"ack":%d}' % self.count(Send)))
        self.tell(Delivered((A,)))
        self.wait(60.0)


# Greeting and login -------------------------------------------------------------------------------------------------


def test_nothing_is_said_before_the_server_has_greeted() -> None:
    caller = Caller(greets=True)
    caller.start()
    caller.tell(Opened())
    assert caller.count(Send) == 0
    caller.tell(GREETING)
    assert caller.count(Send) == 1
    caller.tell(GREETING)
    assert caller.count(Send) == 1, "a second greeting changes nothing"


def test_a_login_is_sent_at_once_where_nobody_greets_and_requests_wait_for_the_welcome() -> None:
    caller = Caller(logs_in=True)
    caller.start()
    caller.tell(Opened())
    assert [caller.count(Login), caller.count(Send)] == [1, 0]
    caller.tell(WELCOME)
    assert [caller.count(Login), caller.count(Send)] == [1, 1]


def test_where_the_server_greets_the_login_waits_for_it() -> None:
    caller = Caller(greets=True, logs_in=True)
    caller.start()
    caller.tell(Opened())
    assert caller.count(Login) == 0
    caller.tell(GREETING)
    assert [caller.count(Login), caller.count(Send)] == [1, 0]
    caller.tell(WELCOME)
    assert caller.count(Send) == 1


@pytest.mark.parametrize("greeted", [False, True])
def test_a_server_that_does_not_greet_or_welcome_in_time_is_left(greeted: bool) -> None:
    caller = Caller(greets=True, logs_in=True)
    caller.start()
    caller.tell(Opened())
    if greeted:
        caller.tell(GREETING)
    caller.wait(LOGIN_TIMEOUT - 0.001)
    assert caller.session.state is State.OPEN
    caller.wait(0.001)
    assert caller.session.state is State.WAITING
    assert "no greeting or no login" in caller.told(events.Disconnected)[0].cause


def test_a_refused_login_is_not_tried_again() -> None:
    caller = Caller(logs_in=True)
    caller.start()
    caller.tell(Opened())
    caller.tell(LAPSED)
    assert caller.session.state is State.FAILED
    assert caller.count(Dial) == 1
    assert [event.reason for event in caller.told(events.AuthFailed)] == ["token expired"]


def test_a_login_that_is_accepted_and_then_evicted_is_redialled_after_the_cool_down_only() -> None:
    caller = Caller(logs_in=True)
    caller.start()
    for dials in range(1, 4):
        caller.tell(Opened())
        caller.tell(WELCOME)
        caller.tell(Control(b'{"say":"full"}'))
        caller.wait(Limits().eviction_cool_down - 0.001)
        assert caller.count(Dial) == dials
        caller.wait(0.001)
        assert caller.count(Dial) == dials + 1


# Credentials that lapse ---------------------------------------------------------------------------------------------


def by_denial(caller: Caller) -> None:
    caller.tell(LAPSED)


def by_dial(caller: Caller) -> None:
    caller.tell(Closed(1006, ""))
    caller.tell(DENIED)


@pytest.mark.parametrize("lapse", [by_denial, by_dial])
def test_lapsed_credentials_are_renewed_once_and_dialled_with_at_once(lapse: Callable[[Caller], None]) -> None:
    caller = Caller(renewable=True)
    caller.start()
    caller.deliver()
    lapse(caller)
    dials = caller.count(Dial)
    assert [caller.count(Renew), caller.session.state] == [1, State.WAITING]
    assert not caller.told(events.AuthFailed), "nobody need act yet"
    caller.wait(5.0)
    assert caller.count(Dial) == dials, "not before the fresh ones are there"
    caller.tell(Renewed())
    assert caller.count(Dial) == dials + 1
    caller.tell(DENIED)
    assert [caller.count(Renew), caller.session.state] == [1, State.FAILED]
    assert caller.told(events.AuthFailed)
    assert caller.count(Dial) == dials + 1


def test_credentials_may_lapse_again_after_a_stable_connection() -> None:
    caller = Caller(renewable=True)
    caller.start()
    caller.deliver()
    for renewals in range(1, 4):
        caller.tell(LAPSED)
        assert caller.count(Renew) == renewals
        caller.tell(Renewed())
        caller.deliver()
    assert caller.session.state is State.OPEN


def test_no_fresh_credentials_end_the_session_with_their_error() -> None:
    caller = Caller(renewable=True)
    caller.start()
    caller.tell(DENIED)
    error = ConnectError("auth:443", "no token: HTTP 503")
    caller.tell(Renewed(error))
    assert caller.session.state is State.FAILED
    assert caller.session.failure is not None
    assert caller.session.failure.__cause__ is error
    assert caller.session.error is error, "and no longer that they are being renewed"


def test_fresh_credentials_that_do_not_come_are_not_waited_for_without_end() -> None:
    caller = Caller(renewable=True)
    caller.start()
    caller.tell(DENIED)
    caller.wait(RENEW_TIMEOUT)
    assert caller.session.state is State.FAILED
    caller.tell(Renewed())
    assert caller.count(Dial) == 1


def test_stopping_while_credentials_are_renewed_is_final() -> None:
    caller = Caller(renewable=True)
    caller.start()
    caller.tell(DENIED)
    caller.tell(Stop())
    assert caller.tell(Renewed()) == []
    assert caller.session.state is State.STOPPED


# The door that sessions share ---------------------------------------------------------------------------------------


def test_a_wrong_key_is_shown_once_however_many_connections_there_are() -> None:
    door = Door(None, locked=True)
    callers = [Caller(door=door) for _ in range(5)]
    for caller in callers:
        caller.start()
    assert sum(caller.count(Dial) for caller in callers) == 1
    for caller in callers[1:]:
        caller.wait(3.0)
        assert caller.session.deadline() is not None, "waits, but with a bound"
    callers[0].tell(DENIED)
    for caller in callers[1:]:
        caller.tell(Stop())  # as the feed does when one of its sessions has failed
    assert sum(caller.count(Dial) for caller in callers) == 1


def test_once_the_key_has_fitted_everybody_dials() -> None:
    door = Door(None, locked=True)
    first, second = Caller(door=door, logs_in=True), Caller(door=door, logs_in=True)
    first.start()
    second.start()
    first.tell(Opened())
    second.wait(WAIT_FOR_KEY)
    assert second.count(Dial) == 0, "connected, but not accepted yet"
    first.tell(WELCOME)
    second.wait(WAIT_FOR_KEY)
    assert second.count(Dial) == 1


def test_a_dial_that_fails_otherwise_lets_another_try_the_key() -> None:
    door = Door(None, locked=True)
    first, second = Caller(door=door), Caller(door=door)
    first.start()
    second.start()
    first.tell(DialFailed(ConnectError("host:1", "Connection refused")))
    second.wait(WAIT_FOR_KEY)
    assert second.count(Dial) == 1


def test_a_retry_after_that_one_session_heard_holds_for_all() -> None:
    door = Door(None)
    first, second = Caller(door=door), Caller(door=door)
    first.start()
    first.tell(DialFailed(HandshakeError(429, {"retry-after": "30"}, host="host:1"), 30.0))
    second.start()
    second.wait(29.999)
    assert second.count(Dial) == 0
    second.wait(0.002)
    assert second.count(Dial) == 1


def test_leaving_is_a_polite_close() -> None:
    caller = Caller(logs_in=True)
    caller.start()
    caller.tell(Opened())
    assert caller.tell(Stop()) == [Close(1000, "")]


# Credentials that every request carries -----------------------------------------------------------------------------


def test_a_request_is_stamped_with_the_key_only_on_its_way_out() -> None:
    auth = Auth(env={"api_key": "NOBODY_SETS_THIS"}, stamps={"<key>": "{api_key}"})
    known = Credentials("mine", auth, api_key="hunter2")
    assert known.stamped('{"authorization":"<key>"}') == '{"authorization":"hunter2"}'
    assert known.stamped(b"\x01<key>") == b"\x01<key>", "only text has such places"
    assert known.hide('{"authorization":"hunter2"}') == '{"authorization":"***"}'
    assert "hunter2" not in repr(known)
