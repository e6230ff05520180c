"""How long to wait before dialling again: pure arithmetic over the number of failures.

It refuses to sleep, to draw random numbers and to read a clock; whoever asks brings them.
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from fastfeed.errors import ConfigError

# 2**64 seconds outlast any cap; a larger exponent would only overflow the float.
_MAX_EXPONENT = 64


class Jitter(enum.Enum):
    """How a wait is spread, so that clients that fell together do not come back together, where no share says it."""

    EQUAL = "equal"  # over its upper half
    FULL = "full"  # over all of it, from nothing


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential backoff with jitter, in seconds.

    The n-th failure in a row (from 0) waits `base * 2**n`, never more than `cap`, spread over +-`jitter` of itself, or
    as `jitter=Jitter.EQUAL` or `Jitter.FULL` says. The count starts again only once a connection has lived for
    `stable_after` **and** delivered data: a server that accepts and drops is never redialled in a tight loop.
    `max_retries` is the number of redials allowed in a row whatever the failure; None leaves each class of failure its
    own budget (`fastfeed.failures.BUDGETS`); `math.inf` never ends, which takes `retries_for_ever=True`. More than
    `storm` reconnects of one connection within `storm_window` seconds raise an alert. A `ladder` names the waits one by
    one, the last for all that follow, in place of `base` and `cap`; jitter is spread over them likewise, and no
    redial is made at once.

    Raises:
        ConfigError: for a combination that cannot work.
    """

    base: float = 0.5
    cap: float = 30.0
    jitter: float | Jitter = 0.3
    max_retries: float | None = None
    stable_after: float = 5.0
    storm: int = 10
    storm_window: float = 300.0
    retries_for_ever: bool = False
    ladder: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (_is_number(self.base) and self.base > 0):
            raise ConfigError(f"Backoff(base={self.base!r}): must be a number of seconds above 0")
        if not (_is_number(self.cap) and self.cap >= self.base):
            raise ConfigError(f"Backoff(cap={self.cap!r}): must be a number of seconds, at least base={self.base!r}")
        steps = self.ladder
        if steps is not None and not (
            isinstance(steps, tuple) and steps and all(_is_number(step) and step > 0 for step in steps)
        ):
            raise ConfigError(f"Backoff(ladder={steps!r}): must be a tuple of numbers of seconds above 0, or None")
        if steps is not None:  # so that `cap` is the longest wait either way
            object.__setattr__(self, "cap", max(steps))
        if not (isinstance(self.jitter, Jitter) or (_is_number(self.jitter) and 0 <= self.jitter <= 1)):
            raise ConfigError(f"Backoff(jitter={self.jitter!r}): must be between 0 and 1, or a Jitter")
        if self.max_retries == math.inf:
            if not self.retries_for_ever:
                raise ConfigError("Backoff(max_retries=inf) never gives up: say retries_for_ever=True if that is meant")
        elif self.max_retries is not None and not (isinstance(self.max_retries, int) and self.max_retries >= 0):
            raise ConfigError(f"Backoff(max_retries={self.max_retries!r}): must be 0 or more, or None")
        if not (_is_number(self.stable_after) and self.stable_after >= 0):
            raise ConfigError(f"Backoff(stable_after={self.stable_after!r}): must be a number of seconds, 0 or more")
        if not (isinstance(self.storm, int) and self.storm >= 0):
            raise ConfigError(f"Backoff(storm={self.storm!r}): must be a number of reconnects, 0 or more")
        if not (_is_number(self.storm_window) and self.storm_window > 0):
            raise ConfigError(f"Backoff(storm_window={self.storm_window!r}): must be a number of seconds above 0")

    def delay(self, failures: int, random: float) -> float:
        """Seconds to wait after `failures` earlier failures in a row; `random` is uniform in [0, 1)."""
        if self.ladder is not None:
            wait = self.ladder[min(failures, len(self.ladder) - 1)]
        else:
            wait = min(self.cap, self.base * 2.0 ** min(failures, _MAX_EXPONENT))
        if self.jitter is Jitter.FULL:
            return wait * random
        if self.jitter is Jitter.EQUAL:
            return wait * (1 + random) / 2
        assert not isinstance(self.jitter, Jitter)
        return min(self.cap, wait * (1 + self.jitter * (2 * random - 1)))

    @property
    def least(self) -> float:
        """The share of a wait that the jitter leaves of it at least."""
        if isinstance(self.jitter, Jitter):
            return 0.0 if self.jitter is Jitter.FULL else 0.5
        return 1 - self.jitter


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def retry_after(value: str, utc: float) -> float | None:
    """Seconds from `utc` (epoch seconds) that a Retry-After header asks for, or None if it cannot be read.

    Source: RFC 9110 10.2.3, delay in seconds or an HTTP date.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - utc)


def retry_after_said(body: str, utc: float) -> float | None:
    """The same as `retry_after`, for a body that says `"retryAfter": 5`, in seconds or as a moment in epoch s or ms.

    Source: Binance gives the moment in ms, others seconds; nothing standardises it.
    """
    found = re.search(r'"retry_?after"\s*:\s*"?(\d{1,15}(?:\.\d+)?)', body, re.IGNORECASE)
    if found is None:
        return None
    value = float(found[1])
    moment = value / 1000 if value >= 1e11 else value
    return max(0.0, moment - utc) if moment >= 1e9 else value
