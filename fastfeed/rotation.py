"""When a connection is replaced by a new one although nothing is wrong with it yet: the options.

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
    when the server announces that it will close. With `after` also at that age. In a `window` (Week or Period) every
    connection older than `after` (an hour by default) is replaced; `after` then waits for the window, the provider's
    limit does not. Ages are shortened by up to `jitter` of themselves at random, so that connections opened together
    are not replaced together. Old and new deliver side by side for at most `overlap`; when no successor comes up, the
    old one stays and another is tried after `retry`.

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
            raise ConfigError(f"Rotation(window={self.window!r}): write a Week or a Period")

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
