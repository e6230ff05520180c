"""Is the other end still there: pings of both kinds, the pongs that answer them, the round trip and the clocks between.

It refuses to touch sockets and clocks, and a pong never counts as market data.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from fastfeed.errors import ConfigError

_SAMPLES = 512  # round trips kept for percentiles: 43 minutes at the default interval
_UNANSWERED = 64  # pings remembered where pongs never come
_OFFSETS = 16  # round trips the clock offset is taken from


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """Ping every `interval` seconds; a ping unanswered for `timeout` seconds means the connection is dead.

    `interval=None` sends no pings; `timeout=None` never declares death. A missing pong counts only where the provider
    promises pongs, or once one has been seen on the connection.

    Raises:
        ConfigError: for a number that is not a positive, finite number of seconds.
    """

    interval: float | None = 5.0
    timeout: float | None = 10.0

    def __post_init__(self) -> None:
        for name, value in (("interval", self.interval), ("timeout", self.timeout)):
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ConfigError(f"Heartbeat({name}={value!r}): must be a number of seconds above 0, or None")


@dataclass(frozen=True, kw_only=True)
class Beats:
    """A provider's heartbeats beside the protocol's own, in seconds; None: it has none of that kind.

    We send an application ping every `interval`, or the server ends the connection; it is answered within `timeout`
    where the provider promises that. The server says something at least every `expected` seconds without being asked.

    Raises:
        ConfigError: for a number that is not a positive, finite number of seconds.
    """

    interval: float | None = None
    timeout: float | None = None
    expected: float | None = None

    def __post_init__(self) -> None:
        for name in ("interval", "timeout", "expected"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ConfigError(f"Beats({name}={value!r}): must be a number of seconds above 0, or None")


class Offset:
    """How far this machine's clock is ahead of the provider's, from application pings that show the server's clock.

    The round trip is taken to be as long there as back, which errs by half of it at most: so the fastest of the latest
    round trips is believed.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_OFFSETS)  # round trip, offset

    def add(self, trip: float, utc: float, server_time: float) -> float:
        """The estimate after an answer that came at `utc`, `trip` seconds after its ping. All in seconds."""
        self._samples.append((trip, utc - trip / 2 - server_time))
        return min(self._samples)[1]


class Pulse:
    """The ping/pong bookkeeping of one connection. All times are monotonic seconds."""

    def __init__(self, options: Heartbeat, *, pongs_promised: bool = True) -> None:
        self.options = options
        self.round_trips: deque[float] = deque(maxlen=_SAMPLES)  # survives reconnects, newest last
        self.unsolicited = 0  # pongs that answer nothing we sent
        self._pongs_promised = pongs_promised
        self._pongs_trusted = pongs_promised
        self.next_at: float | None = None
        self._sent: dict[bytes, float] = {}  # unanswered pings by payload, oldest first
        self._serial = 0

    def start(self, now: float) -> None:
        """A connection opened: forget what the last one owed us."""
        self.stop()
        if self.options.interval is not None:
            self.next_at = now + self.options.interval

    def stop(self) -> None:
        """The connection is gone."""
        self._sent.clear()
        self.next_at = None
        self._pongs_trusted = self._pongs_promised

    def due(self, now: float) -> bool:
        """A ping should go out now."""
        return self.next_at is not None and now >= self.next_at

    def ping(self, now: float) -> bytes:
        """The payload of the ping that is sent now, because it is due or as a probe."""
        self._serial += 1
        payload = b"%d" % self._serial
        self._sent[payload] = now
        if len(self._sent) > _UNANSWERED:
            del self._sent[next(iter(self._sent))]
        if self.options.interval is not None:
            self.next_at = now + self.options.interval
        return payload

    def pong(self, payload: bytes | None, now: float) -> float | None:
        """The round trip in seconds if `payload` answers a ping of ours, else None.

        A pong also answers every older ping (RFC 6455 5.5.3). None: it does not say which, so it is the oldest.
        """
        if payload is None:
            payload = next(iter(self._sent), b"")
        sent_at = self._sent.get(payload)
        if sent_at is None:
            self.unsolicited += 1
            return None
        for older in list(self._sent):
            del self._sent[older]
            if older == payload:
                break
        self._pongs_trusted = True
        self.round_trips.append(now - sent_at)
        return now - sent_at

    @property
    def trusted(self) -> bool:
        """A missing pong means something: pongs are promised, or have been seen on this connection."""
        return self._pongs_trusted

    @property
    def dead_at(self) -> float | None:
        """When the oldest unanswered ping means death, or None."""
        if not self._sent or not self._pongs_trusted or self.options.timeout is None:
            return None
        return next(iter(self._sent.values())) + self.options.timeout

    def dead(self, now: float) -> bool:
        """A ping has gone unanswered for too long."""
        return self.dead_at is not None and now >= self.dead_at
