"""What the sessions of one feed know together about the address they dial: its quota, its Retry-After, its lock.

It refuses to decide: it says from when on a session may dial. No clock, no session.
"""

from __future__ import annotations

from fastfeed.subscriptions import Pace

WAIT_FOR_KEY = 0.1  # seconds between looks at whether the key has fitted


class Door:
    """One address. `locked`: it wants a key, so that one session tries it before the others dial.

    A wrong key is thus shown once, however many connections a feed has.
    """

    def __init__(self, dials_per_five_minutes: int | None, *, locked: bool = False) -> None:
        self.quota = Pace(dials_per_five_minutes, 300.0)
        self.noticed_at: float | None = None  # when a server there last said that it will close
        self._shut_until = float("-inf")
        self._locked = locked
        self._trying: object | None = None  # the session whose key is in the lock

    def open_at(self, now: float, session: object) -> float:
        """The monotonic time from which `session` may dial, as far as is known at `now`."""
        at = max(self.quota.ready_at(), self._shut_until)
        if self._locked and self._trying not in (None, session):
            at = max(at, now + WAIT_FOR_KEY)
        return at

    def dialled(self, now: float, session: object) -> None:
        """`session` dials now."""
        self.quota.spend(now)
        if self._locked:
            self._trying = session

    def fitted(self) -> None:
        """The key is accepted."""
        self._locked = False
        self._trying = None

    def failed(self, session: object) -> None:
        """The dial, or the connection, of `session` is over."""
        if self._trying is session:
            self._trying = None

    def shut(self, until: float) -> None:
        """The server wants no dial before `until` (monotonic seconds), from whichever session."""
        self._shut_until = max(self._shut_until, until)
