"""The session in a simulated world: faults at random moments, from a seed, checked after every input.

What is checked, and how one failing seed is told again, is in tests/simulation.py. No socket and no real time.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from simulation import Broken, Told, live, sweep

import fastfeed
import fastfeed.retries
import fastfeed.session
from fastfeed.backoff import Backoff
from fastfeed.failures import BUDGETS, Failure
from fastfeed.heartbeat import Pulse
from fastfeed.session import Session
from fastfeed.signals import DialFailed
from fastfeed.staleness import Watch
from fastfeed.subscriptions import Book, Pace, Stage

ROOT = Path(__file__).parent.parent
TRANSITIONS = {
    "IDLE -> DIALING",
    "IDLE -> STOPPED",
    "DIALING -> OPEN",
    "DIALING -> WAITING",
    "DIALING -> FAILED",
    "DIALING -> STOPPED",
    "OPEN -> DIALING",
    "OPEN -> WAITING",
    "OPEN -> FAILED",
    "OPEN -> STOPPED",
    "WAITING -> DIALING",
    "WAITING -> FAILED",
    "WAITING -> STOPPED",
}
TOLD = {
    "Alert",
    "AuthFailed",
    "Connected",
    "Disconnected",
    "Escalated",
    "Fresh",
    "GaveUp",
    "RateLimited",
    "Reconnecting",
    "Rejected",
    "Restored",
    "Stale",
}


def lived(seeds: range, *, steps: int, faults: int) -> Told:
    first, *others = sweep(seeds, steps, faults)
    for told in others:
        first += told
    return first


def test_fifty_small_worlds_keep_every_promise() -> None:
    told = lived(range(50), steps=500, faults=4)
    assert told.seeds == 50
    assert told.fewest_faults >= 4
    assert told.fewest_with_data >= 500
    assert told.hits.keys() >= {"OPEN -> WAITING", "WAITING -> DIALING", "DIALING -> OPEN", "Restored"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_worlds_keep_every_promise_and_meet_everything_there_is() -> None:
    told = lived(range(1000, 2000), steps=3400, faults=20)
    assert told.seeds == 1000
    assert told.steps >= 5_000_000
    assert told.fewest_faults >= 20
    assert told.fewest_with_data >= 500
    assert {what for what in told.hits if " -> " in what} >= TRANSITIONS
    assert {failure.name for failure in Failure if not told.hits[f"{failure.name} failure"]} == set()
    spent = {failure.name for failure in Failure if told.hits[f"{failure.name} spent"]}
    assert {failure.name for failure, budget in BUDGETS.items() if budget <= 10} <= spent
    assert set(told.hits) >= TOLD
    assert told.hits["ledger: pending"] == 0
    for term in ("delivered", "conflated", "dropped"):
        assert told.hits[f"ledger: {term}"], term
    for judged in ("live", "quiet", "suspect", "stale"):
        assert told.hits[f"judged {judged}"], judged
    assert told.hits["renewals"]
    assert told.hits["replaced"]
    assert told.hits["died while another came up"]
    assert told.hits["clock offset"]
    for shape in ("flat", "nested"):
        assert told.hits[f"refusal, {shape}"], shape


def test_the_same_seed_tells_the_same_story_in_every_process() -> None:
    first = live(3, 500, 4)
    assert live(3, 500, 4) == first
    assert live(4, 500, 4).trace[4] != first.trace[3]
    command = [sys.executable, "tests/simulation.py", "--seed=3", "--seeds=1", "--steps=500", "--faults=4"]
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"trace {first.trace[3]}" in done.stdout


# The world has teeth ------------------------------------------------------------------------------------------------
# Each of these breaks one promise of the session; the world must notice within a few seeds, and say how to see it.

real_acked = Book.acked
real_handle = Session.handle
real_lost = Book.lost
real_renew = Session._renew
real_decode_many = fastfeed.Decoder.decode_many


def ack_as_data(book: Book, request_id: int | None, topics: tuple[str, ...]) -> bool:
    answered = real_acked(book, request_id, topics)
    for record in book.at(Stage.ACKED):
        record.stage = Stage.LIVE
    return answered


def forget_the_wait(session: Session, event: Any, now: float) -> Any:
    if isinstance(event, DialFailed):
        event = DialFailed(event.error, failure=event.failure)
    return real_handle(session, event, now)


def renew_for_ever(session: Session, error: Any, now: float) -> None:
    real_renew(session, error, now)
    session._renewed = False


def keep_what_is_lost(book: Book) -> list[Any]:
    stages = {record: record.stage for record in book}
    lost = real_lost(book)
    for record, stage in stages.items():
        record.stage = stage
    return lost


def lose_the_last(decoder: fastfeed.Decoder, frames: list[bytes]) -> int:
    return real_decode_many(decoder, frames[:-1])


def nothing(*_: Any) -> None:
    return None


BREAKS: dict[str, tuple[object, str, Any, str]] = {
    "an ack counts as data": (Book, "acked", ack_as_data, "live without data"),
    "a loss keeps what was live": (Book, "lost", keep_what_is_lost, "live without data|not back"),
    "Retry-After is not read": (Session, "handle", forget_the_wait, "waits .* must be"),
    "no backoff": (Backoff, "delay", lambda *_: 0.0, "waits .* must be"),
    "401 is dialled again": (fastfeed.retries, "BUDGETS", {**BUDGETS, Failure.AUTH: 1}, "0 of 0 redials"),
    "half-open is not noticed": (Pulse, "dead_at", property(nothing), "half-open since"),
    "no pace": (Pace, "ready_at", lambda *_: float("-inf"), "messages within|dials of one feed"),
    "a wait without end": (Session, "deadline", nothing, "waits until None|waits without end"),
    "a login is waited for without end": (fastfeed.session, "LOGIN_TIMEOUT", 1e9, "not back"),
    "keys are renewed again and again": (Session, "_renew", renew_for_ever, "asks for fresh keys 2 times"),
    "nobody is heard again": (Watch, "heard", nothing, "not back"),
    "a frame is lost uncounted": (fastfeed.Decoder, "decode_many", lose_the_last, "received .* of"),
    "what is missing is not named": (Book, "silent", property(lambda _: []), "told 0 missing"),
}


def live_through(seeds: range) -> None:
    for seed in seeds:
        live(seed, 500, 4)


@pytest.mark.parametrize("what", BREAKS)
def test_the_world_notices_a_session_that_breaks_a_promise(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, broken, complaint = BREAKS[what]
    monkeypatch.setattr(where, name, broken)
    with pytest.raises(Broken, match=complaint) as raised:
        live_through(range(24, 124))
    assert "again: python tests/simulation.py --seed" in str(raised.value)
