"""After a failure: is there another dial, and after how long? What one connection has been through, class by class.

Counts and sums of times only; it reads no clock and dials nothing. What a failure is called is decided in `failures`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from fastfeed.backoff import Backoff
from fastfeed.failures import AT_ONCE, BUDGETS, Failure

LONGEST_WAIT = 7 * 86400.0  # seconds a server may tell us to stay away; whoever says more means for ever


class Retries:
    """The failures in a row of one connection, and what follows from them.

    `cool_down`: seconds after an eviction. `random` is uniform in [0, 1) and spreads the backoff.
    """

    def __init__(self, backoff: Backoff, cool_down: float, random: Callable[[], float]) -> None:
        self.is_limited = False  # the last failure was a rate limit
        self._backoff = backoff
        self._cool_down = cool_down
        self._random = random
        self._failed: Counter[Failure] = Counter()  # in a row, by class
        self._is_free = False  # the first redial since a stable connection did not wait
        self._reopened: deque[float] = deque()  # the latest reconnects, monotonic seconds
        self._is_stormy = False

    @property
    def attempts(self) -> int:
        """How many redials have failed in a row."""
        return self._failed.total()

    def settle(self) -> None:
        """A connection was stable and delivered: what was before counts no more."""
        self._failed.clear()

    def wait(self, failure: Failure, retry_after: float | None, *, stable: bool) -> float | None:
        """Seconds until the next dial after `failure`; None: the budget is spent.

        `retry_after` is what the server asks for, `stable` whether the connection that failed was.
        """
        if self._is_spent(failure) or (retry_after or 0.0) > LONGEST_WAIT:
            return None
        if stable:
            self._is_free = (
                failure in AT_ONCE and self._backoff.ladder is None
            )  # whose first step is the least there is
        delay = self._backoff.delay(max(0, self.attempts - self._is_free), self._random())
        if stable and self._is_free:
            delay = 0.0
        self.is_limited = failure is Failure.RATE_LIMITED
        if failure is Failure.EVICTED:
            delay = max(delay, self._cool_down)
        if retry_after is not None:
            delay = max(delay, retry_after)
        elif self.is_limited:
            delay = max(delay, self._backoff.cap)
        self._failed[failure] += 1
        return delay

    def reopened(self, now: float) -> int | None:
        """A lost connection is open again: how many have been within the storm window, where that is a storm now."""
        self._reopened.append(now)
        while self._reopened[0] <= now - self._backoff.storm_window:
            self._reopened.popleft()
        was_stormy, self._is_stormy = self._is_stormy, len(self._reopened) > self._backoff.storm
        return len(self._reopened) if self._is_stormy and not was_stormy else None

    def _is_spent(self, failure: Failure) -> bool:
        if failure is Failure.AUTH or self._backoff.max_retries is None:
            return self._failed[failure] >= BUDGETS[failure]
        return self.attempts >= self._backoff.max_retries
