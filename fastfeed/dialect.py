"""The words of a provider: how to ask for data, and what its control messages mean. Pure data and pure functions.

What is done about a reply is the session's business; nothing here sends, waits or knows a secret. A reply that makes no
sense (an id that is text, a time that is none) cannot be made: a TypeError or ValueError says so where it is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fastfeed.failures import Failure
from fastfeed.subscriptions import Render


@dataclass(frozen=True)
class Ack:
    """A request was accepted: number `id`, or these `topics`; with neither, the oldest unanswered one.

    `number` is the server's own number of what it now serves on this connection: see `Dialect.numbered`.
    """

    id: int | None = None
    topics: tuple[str, ...] = ()
    number: int | None = None

    def __post_init__(self) -> None:
        _check_id(self.id)
        _check_id(self.number)
        _check_texts(self.topics)


@dataclass(frozen=True)
class Active:
    """The server lists everything it serves on this connection, which answers the oldest request."""

    topics: frozenset[str]

    def __post_init__(self) -> None:
        _check_texts(self.topics)


@dataclass(frozen=True)
class Refusal:
    """Request `id`, or these `topics`, were refused; neither where the server does not say which."""

    id: int | None
    reason: str
    topics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_id(self.id)
        _check_texts((self.reason, *self.topics))


@dataclass(frozen=True)
class Greeting:
    """The server is ready to be spoken to."""


@dataclass(frozen=True)
class Welcome:
    """The login was accepted."""


@dataclass(frozen=True)
class Notice:
    """The server announces that it will close this connection."""

    reason: str

    def __post_init__(self) -> None:
        _check_texts((self.reason,))


@dataclass(frozen=True)
class Denial:
    """The server ends this connection, or ought to: why is known by class, whatever its close code would say."""

    failure: Failure
    reason: str
    retry_after: float | None = None  # seconds

    def __post_init__(self) -> None:
        _check_texts((self.reason,))
        if not (self.retry_after is None or self.retry_after >= 0):
            raise ValueError(f"retry_after={self.retry_after!r}")


@dataclass(frozen=True)
class PingAsked:
    """The server's application ping, to be answered with `answer`."""

    answer: str | bytes

    def __post_init__(self) -> None:
        if not isinstance(self.answer, str | bytes):
            raise TypeError(f"answer={self.answer!r}")


@dataclass(frozen=True)
class PongSaid:
    """The answer to application ping `number` (None: it does not say), with the server's clock (epoch seconds)."""

    number: int | None = None
    server_time: float | None = None

    def __post_init__(self) -> None:
        _check_id(self.number)
        if not (self.server_time is None or math.isfinite(self.server_time)):
            raise ValueError(f"server_time={self.server_time!r}")


@dataclass(frozen=True)
class Beat:
    """The server's own heartbeat."""


Reply = Ack | Active | Refusal | Greeting | Welcome | Notice | Denial | PingAsked | PongSaid | Beat


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How to ask one provider, and how to read what is not market data.

    What `read` does not understand is no reply at all. If it raises, that counts as the same, and is told once.
    """

    subscribe: Render
    unsubscribe: Render
    read: Callable[[bytes], tuple[Reply, ...]]
    ping: Callable[[int, float], str | bytes] | None = None  # (number, epoch seconds) -> an application ping
    acks: bool = True  # requests are answered; else first data is the only answer there is
    greets: bool = False  # the server speaks first: nothing may be said before its Greeting
    group: Callable[[str], str] | None = None  # of a topic: only topics of one group fit into one request
    echoes: Callable[[str], tuple[str, ...]] | None = None  # of a topic: other spellings that answers may have
    # Adds the server's own number of what it serves (`Ack.number`) to a request, where that has to be named.
    numbered: Callable[[str | bytes, int], str | bytes] | None = None


def _check_id(value: object) -> None:
    if not (value is None or isinstance(value, int)):
        raise TypeError(f"{value!r} is the number of no request")


def _check_texts(values: Iterable[object]) -> None:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is not text")
