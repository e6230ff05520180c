"""When the session asks for a successor, and what a connection that has one does when it ends. Virtual time only."""

import math
from typing import Any

import pytest
from test_session import DIALECT, REFUSED, A, B

from fastfeed import ConfigError, Rotation, Week, events
from fastfeed.backoff import Backoff
from fastfeed.door import Door
from fastfeed.heartbeat import Heartbeat
from fastfeed.session import Session, State
from fastfeed.signals import (
    Action,
    Close,
    Closed,
    Control,
    Delivered,
    DialFailed,
    Emit,
    Inherit,
    Input,
    Lost,
    Opened,
    Redial,
    Relief,
    Rotate,
    Start,
    Stop,
    Subscribe,
    Tick,
    Window,
)
from fastfeed.subscriptions import Limits

BYE = Control(b'{"bye": "shutdown"}')


class Life:
    """One session that delivers A and B, with the time in our hand."""

    def __init__(
        self,
        rotation: Rotation | None = None,
        *,
        lifetime: float | None = None,
        dice: float = 0.0,
        door: Door | None = None,
    ) -> None:
        self.session = Session(
            "line",
            "host:1",
            dialect=DIALECT,
            limits=Limits(lifetime=lifetime),
            backoff=Backoff(jitter=0.0),
            heartbeat=Heartbeat(interval=None),
            random=lambda: dice,
            rotation=rotation or Rotation(),
            door=door,
        )
        self.now = 1000.0
        self.tell(Subscribe(((A, "a"), (B, "b"))))
        self.tell(Start())

    def tell(self, event: Input) -> list[Action]:
        return self.session.handle(event, self.now)

    def opens(self) -> None:
        self.tell(Opened())
        self.tell(Control(b'{"ack": 1}'))
        self.tell(Delivered((A, B)))

    def rotates_at(self) -> float:
        """Seconds from now at which it asks for a successor, given only the ticks it wants; inf: never."""
        began = self.now
        while (deadline := self.session.deadline()) is not None:
            self.now = max(self.now, deadline)
            if any(isinstance(action, Rotate) for action in self.tell(Tick())):
                return self.now - began
        return math.inf


def reasons(actions: list[Action]) -> list[str]:
    return [action.reason for action in actions if isinstance(action, Rotate)]


def told(actions: list[Action]) -> list[Any]:
    return [action.event for action in actions if isinstance(action, Emit)]


def test_a_successor_is_asked_for_before_the_limit_of_the_provider() -> None:
    life = Life(lifetime=86400.0)
    life.opens()
    assert life.rotates_at() == pytest.approx(86400.0 - 600.0)
    assert life.session.state is State.OPEN


def test_a_short_limit_leaves_half_of_it() -> None:
    life = Life(lifetime=100.0)
    life.opens()
    assert life.rotates_at() == pytest.approx(50.0)


def test_jitter_spreads_connections_that_were_opened_together() -> None:
    ages = []
    for dice in (0.0, 0.5, 0.999):
        life = Life(lifetime=86400.0, dice=dice)
        life.opens()
        ages.append(life.rotates_at())
    assert ages[0] > ages[1] > ages[2] >= 0.9 * 85800.0 - 1


def test_without_a_limit_or_an_age_nothing_rotates() -> None:
    life = Life()
    life.opens()
    assert life.rotates_at() == math.inf


def test_the_age_the_user_names_rotates_without_a_limit() -> None:
    life = Life(Rotation(after=60.0))
    life.opens()
    assert life.rotates_at() == pytest.approx(60.0)


def test_an_age_with_a_window_waits_for_the_window_and_the_limit_does_not() -> None:
    rotation = Rotation(after=60.0, window=Week(start="Sun 02:00", end="Sun 03:00"))
    life = Life(rotation)
    life.opens()
    life.now += 1000.0
    assert reasons(life.tell(Tick())) == []
    assert reasons(life.tell(Window(True))) == ["it is 1000 s old"]
    bounded = Life(rotation, lifetime=10_000.0)
    bounded.opens()
    assert bounded.rotates_at() == pytest.approx(9400.0)


def test_a_window_that_has_ended_rotates_nothing() -> None:
    life = Life(Rotation(after=60.0, window=Week(start="Sun 02:00", end="Sun 03:00")))
    life.opens()
    life.tell(Window(True))
    life.tell(Window(False))
    life.now += 100.0
    assert reasons(life.tell(Tick())) == []


def test_a_successor_is_asked_for_once_and_again_after_none_came_up() -> None:
    life = Life(Rotation(after=60.0, retry=7.0))
    life.opens()
    assert life.rotates_at() == pytest.approx(60.0)
    life.now += 100.0
    assert reasons(life.tell(Tick())) == []
    life.tell(Relief(True))
    assert reasons(life.tell(Tick())) == []
    life.tell(Relief(False))
    assert life.rotates_at() == pytest.approx(7.0)


def test_a_notice_asks_for_a_successor_at_once_and_the_connection_stays() -> None:
    life = Life()
    life.opens()
    actions = life.tell(BYE)
    assert reasons(actions) == ["shutdown"]
    assert not [action for action in actions if isinstance(action, Close | Lost)]
    assert life.session.state is State.OPEN


def test_a_server_that_says_so_to_every_newcomer_is_not_dialled_without_end() -> None:
    door = Door(None)
    first = Life(door=door)
    first.opens()
    assert reasons(first.tell(BYE)) == ["shutdown"]
    second = Life(door=door)
    second.now += 1.0
    second.opens()
    assert reasons(second.tell(BYE)) == []
    assert second.rotates_at() == pytest.approx(30.0), "the backoff's cap"


def test_all_connections_told_at_the_same_time_rotate() -> None:
    door = Door(None)
    lives = [Life(door=door), Life(door=door)]
    for life in lives:
        life.opens()
    for life in lives:
        life.now += 5.0
        assert reasons(life.tell(BYE)) == ["shutdown"]


@pytest.mark.parametrize("end", [Closed(1006, ""), Closed(1001, "gone"), Control(b'{"denied": "AUTH", "why": "old"}')])
def test_a_connection_with_a_successor_is_not_dialled_again(end: Input) -> None:
    life = Life()
    life.opens()
    life.tell(BYE)
    life.tell(Relief(True))
    actions = life.tell(end)
    assert [type(event) for event in told(actions)] == [events.Disconnected]
    assert [action.subscriptions for action in actions if isinstance(action, Lost)] == [(A, B)]
    assert life.session.state is State.STOPPED
    assert life.session.deadline() is None


def test_a_retry_after_holds_for_the_successor_too() -> None:
    door = Door(None)
    life = Life(door=door)
    life.opens()
    life.tell(BYE)
    life.tell(Relief(True))
    life.tell(Control(b'{"denied": "RATE_LIMITED", "why": "slow", "wait": 40}'))
    assert door.open_at(life.now, object()) == life.now + 40.0


def test_without_a_successor_any_more_it_is_dialled_again_as_ever() -> None:
    life = Life()
    life.opens()
    life.tell(BYE)
    life.tell(Relief(True))
    life.tell(Relief(False))
    life.tell(Closed(1006, ""))
    assert life.session.state in (State.WAITING, State.DIALING)


def test_a_successor_that_cannot_connect_keeps_trying_by_its_own_backoff() -> None:
    life = Life()
    life.tell(REFUSED)
    assert life.session.state is State.WAITING
    assert life.session.deadline() == pytest.approx(1000.5)


def test_relief_for_a_connection_that_is_down_already_ends_it() -> None:
    life = Life()
    assert life.session.state is State.DIALING
    actions = life.tell(Relief(True))
    assert life.session.state is State.STOPPED
    assert [action for action in actions if isinstance(action, Close)]


def test_the_old_connection_is_retired_politely_and_tells_no_loss() -> None:
    life = Life()
    life.opens()
    life.tell(BYE)
    life.tell(Relief(True))
    actions = life.tell(Stop())
    assert actions == [Close(1000, "")]
    assert life.session.state is State.STOPPED


def test_what_is_inherited_from_a_dead_connection_is_told_restored_when_it_is_all_back() -> None:
    life = Life()
    life.tell(Inherit((A, B)))
    life.now += 2.0
    life.tell(Opened())
    life.tell(Control(b'{"ack": 1}'))
    assert life.session.restoring
    actions = life.tell(Delivered((A, B)))
    assert told(actions) == [events.Restored(2.0, (), "line")]


def test_nothing_is_inherited_of_what_is_delivered_already() -> None:
    life = Life()
    life.opens()
    life.tell(Inherit((A, B)))
    assert not life.session.restoring


def test_without_room_for_two_it_closes_and_dials_again() -> None:
    life = Life()
    life.opens()
    life.now += 100.0
    life.tell(BYE)
    actions = life.tell(Redial("shutdown; no room"))
    assert told(actions)[0].cause == "shutdown; no room"
    assert life.session.state is State.DIALING, "it was stable: at once"


def test_pointless_inputs_change_nothing() -> None:
    life = Life()
    for event in (Redial("x"), Relief(False), Window(True), Inherit(())):
        life.tell(event)
    assert life.session.state is State.DIALING
    life.tell(DialFailed(REFUSED.error))
    life.tell(Redial("x"))
    assert life.session.state is State.WAITING


@pytest.mark.parametrize(
    "wrong",
    [
        {"after": 0},
        {"after": math.inf},
        {"margin": -1},
        {"overlap": None},
        {"retry": 0},
        {"jitter": 1},
        {"jitter": -0.1},
        {"window": "Sun"},
    ],
)
def test_options_that_cannot_work_are_refused_with_their_value(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Rotation(**wrong)
