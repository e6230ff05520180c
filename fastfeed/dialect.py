"""The words of a provider: how to ask for data, and what its control messages mean. Pure data and pure functions.

What is done about a reply is the session's business; nothing here sends, waits or knows a secret.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastfeed.failures import Failure
from fastfeed.subscriptions import Render


@dataclass(frozen=True)
class Ack:
    """A request was accepted: number `id`, or these `topics`; with neither, the oldest unanswered one."""

    id: int | None = None
    topics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Active:
    """The server lists everything it serves on this connection, which answers the oldest request."""

    topics: frozenset[str]


@dataclass(frozen=True)
class Refusal:
    """Request `id`, or these `topics`, were refused; neither where the server does not say which."""

    id: int | None
    reason: str
    topics: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class Denial:
    """The server ends this connection, or ought to: why is known by class, whatever its close code would say."""

    failure: Failure
    reason: str
    retry_after: float | None = None  # seconds


@dataclass(frozen=True)
class PingAsked:
    """The server's application ping, to be answered with `answer`."""

    answer: str | bytes


@dataclass(frozen=True)
class PongSaid:
    """The answer to application ping `number` (None: it does not say), with the server's clock (epoch seconds)."""

    number: int | None = None
    server_time: float | None = None


@dataclass(frozen=True)
class Beat:
    """The server's own heartbeat."""


Reply = Ack | Active | Refusal | Greeting | Welcome | Notice | Denial | PingAsked | PongSaid | Beat


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How to ask one provider, and how to read what is not market data.

    `read` never raises: what it does not understand is no reply at all.
    """

    subscribe: Render
    unsubscribe: Render
    read: Callable[[bytes], tuple[Reply, ...]]
    ping: Callable[[int, float], str | bytes] | None = None  # (number, epoch seconds) -> an application ping
    acks: bool = True  # requests are answered; else first data is the only answer there is
    greets: bool = False  # the server speaks first: nothing may be said before its Greeting
    group: Callable[[str], str] | None = None  # of a topic: only topics of one group fit into one request
