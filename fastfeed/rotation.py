"""When a connection is replaced by a new one although nothing is wrong with it yet: the options, and one's age.

Sums of times only. It opens no connection and reads no clock; how one is replaced is the business of `legs`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastfeed.errors import ConfigError
from fastfeed.staleness import Span

IN_WINDOW = 3600.0  # seconds a connection must be old to be replaced in a window, unless `after` says otherwise


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """When a connection makes way for a successor that is opened beside it, in seconds.

    Always: `margin` before it reaches the age at which the provider ends it (half of that age, if that is less), and
    when the server announces that it will close. With `after` also at that age. In a `window` (Week, Period or
    Calendar) every connection older than `after` (an hour by default) is replaced; `after` then waits for the window,
    the provider's limit does not. Ages are shortened by up to `jitter` of themselves at random, so that connections
    opened together are not replaced together. Old and new deliver side by side for at most `overlap`; when no successor
    comes up, the old one stays and another is tried after `retry`.

    Raises:
        ConfigError: for a combination that cannot work.
    """

    after: float | None = None
    window: Span | None = None
    margin: float = 600.0
    jitter: float = 0.1
    overlap: float = 10.0
    retry: float = 30.0

    def __post_init__(self) -> None:
        for name in ("after", "margin", "overlap", "retry"):
            value = getattr(self, name)
            if value is None and name == "after":
                continue
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ConfigError(f"Rotation({name}={value!r}): must be a number of seconds above 0")
        if not (isinstance(self.jitter, int | float) and 0 <= self.jitter < 1):
            raise ConfigError(f"Rotation(jitter={self.jitter!r}): must be from 0 up to, but not, 1")
        if self.window is not None and not callable(getattr(self.window, "covers", None)):
            raise ConfigError(f"Rotation(window={self.window!r}): write a Week, a Period or a Calendar")

    def ripe_after(self, random: float) -> float:
        """The age at which a connection may be replaced, inf if only a limit or a notice asks for it."""
        if self.after is None and self.window is None:
            return math.inf
        return (IN_WINDOW if self.after is None else self.after) * (1 - self.jitter * random)

    def due_after(self, lifetime: float | None, random: float) -> float:
        """The age at which a connection is replaced whatever the time, where the provider ends it at `lifetime`."""
        if lifetime is None:
            return math.inf
        return (lifetime - min(self.margin, lifetime / 2)) * (1 - self.jitter * random)


class Age:
    """When one connection wants a successor; without options, never. All times are monotonic seconds.

    `lifetime`: seconds after which the provider ends a connection, if it does.
    """

    def __init__(self, options: Rotation | None, lifetime: float | None) -> None:
        self.is_window_open = options is not None and options.window is None
        self._options = options
        self._lifetime = lifetime
        self._opened_at = 0.0
        self._ripe_at = self._due_at = math.inf  # a successor is wanted in the window, and whatever the time
        self._because = ""
        self._is_asked = False

    @property
    def counts(self) -> bool:
        """Whether connections are replaced at all."""
        return self._options is not None

    def begin(self, now: float, random: float) -> None:
        """A connection has opened; `random` in [0, 1) shortens its time."""
        self._opened_at = now
        self._is_asked = False
        if self._options is not None:
            self._ripe_at = now + self._options.ripe_after(random)
            self._due_at = now + self._options.due_after(self._lifetime, random)
            self._because = f"the provider ends a connection at {self._lifetime} s"

    @property
    def at(self) -> float | None:
        """When a successor is asked for; None: not as things are."""
        if self._is_asked:
            return None
        at = min(self._due_at, self._ripe_at) if self.is_window_open else self._due_at
        return None if at == math.inf else at

    def ask(self, now: float) -> str | None:
        """Why a successor is wanted now, if it is. Said once, until `none_came`."""
        if self.at is None or now < self.at:
            return None
        self._is_asked = True
        return self._because if now >= self._due_at else f"it is {now - self._opened_at:.0f} s old"

    def noticed(self, at: float, reason: str) -> None:
        """It has to go by then, because the server says so."""
        if at < self._due_at:
            self._due_at = at
            self._because = reason

    def none_came(self, now: float) -> None:
        """No successor came up; with the next window one is asked for again anyway, else after a while."""
        if self._is_asked and self._options is not None:
            self._is_asked = False
            if self._ripe_at <= now:
                self._ripe_at = now + self._options.retry
            if self._due_at <= now:
                self._due_at = now + self._options.retry
