"""What a feed tells whoever reads `feed.events()`: frozen records, one class per kind of news.

Nothing here acts, and nothing here ever carries a credential. `connection` names one socket of the feed ("/stream#0").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from fastfeed import records
    from fastfeed.subscriptions import Subscription


@dataclass(frozen=True)
class Event:
    """The base of all events. `level` is how loudly a log should say it, as in the standard library's `logging`."""

    level: ClassVar[int] = 20


@dataclass(frozen=True)
class Connected(Event):
    """The WebSocket handshake succeeded; subscriptions follow."""

    connection: str


@dataclass(frozen=True)
class Disconnected(Event):
    """An open connection is gone: the close `code` and `reason` (1006: no CLOSE frame came), and what it means."""

    level = 30
    connection: str
    code: int
    reason: str
    cause: str


@dataclass(frozen=True)
class Reconnecting(Event):
    """The next dial, number `attempt` in a row, follows in `delay` seconds."""

    level = 30
    connection: str
    attempt: int
    delay: float
    cause: str


@dataclass(frozen=True)
class Restored(Event):
    """Data flows again `duration` seconds after the loss; `missing` are the subscriptions that are still silent."""

    duration: float
    missing: tuple[Subscription, ...]
    connection: str = ""


@dataclass(frozen=True)
class Rejected(Event):
    """The server refused a subscription; it is not asked for again."""

    level = 30
    subscription: Subscription
    reason: str


@dataclass(frozen=True)
class RateLimited(Event):
    """The server told us to slow down; no dial for `retry_after` seconds."""

    level = 30
    connection: str
    retry_after: float


@dataclass(frozen=True)
class AuthFailed(Event):
    """The server does not accept who we are. Never retried blindly."""

    level = 40
    connection: str
    reason: str


@dataclass(frozen=True)
class GaveUp(Event):
    """Terminal: the budget of redials is spent."""

    level = 40
    connection: str
    reason: str
    attempts: int


@dataclass(frozen=True)
class Stale(Event):
    """Prices of `symbols` on `channel` may not be acted on, because of `cause`."""

    symbols: tuple[str, ...]
    channel: str
    cause: str


@dataclass(frozen=True)
class Fresh(Event):
    """Prices of `symbols` on `channel` may be acted on again."""

    symbols: tuple[str, ...]
    channel: str


@dataclass(frozen=True)
class Escalated(Event):
    """A step against silence: `step` as in `fastfeed.staleness.Step`, `cause` a code of `fastfeed.staleness.Cause`."""

    level = 30
    connection: str
    step: str
    cause: str
    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True)
class Rotated(Event):
    """`successor` carries on for `connection`, which was replaced because of `reason`.

    Both delivered side by side for `overlap` seconds: 0 where another leg bridged the change or the old one died early.
    """

    connection: str
    successor: str
    reason: str
    overlap: float


@dataclass(frozen=True)
class RedundancyLost(Event):
    """Only one leg delivers in full: `connection` does not, because of `cause`. Prices carry on."""

    level = 30
    connection: str
    cause: str


@dataclass(frozen=True)
class RedundancyRegained(Event):
    """Both legs deliver again, `duration` seconds after the loss."""

    duration: float


@dataclass(frozen=True)
class Gap(Event):
    """Messages are missing: `gap` says which stream, symbol, sequence numbers, when and why."""

    level = 10
    gap: records.Gap


@dataclass(frozen=True)
class GapRepaired(Event):
    """What `gap` missed is there now, or does not matter any more: `how` is a way of `fastfeed.gaps.Strategy`.

    "rest" and "replay" brought what was missing, or a snapshot that makes up for it; after "resubscribe" it stays
    missing, and the stream has begun afresh. `seconds` after the gap was noticed.
    """

    gap: records.Gap
    how: str
    seconds: float


@dataclass(frozen=True)
class CallbackFailed(Event):
    """The `on_batch` callback `name` raised `error` ("ValueError: ..."); the feed goes on."""

    name: str
    error: str


@dataclass(frozen=True)
class EventsLost(Event):
    """This event stream was read too slowly: `lost` older events were thrown away at this point."""

    lost: int


@dataclass(frozen=True)
class Alert(Event):
    """Something a person should look at: `cause` says what, `hint` what to do."""

    level = 30
    severity: Literal["info", "warning", "error"]
    cause: str
    hint: str = ""


def alert_of(event: Event) -> Alert | None:
    """What a person should be told of an event, or None."""
    match event:
        case Alert():
            return event
        case Stale(symbols, channel, cause):
            more = f" and {len(symbols) - 10} more" if len(symbols) > 10 else ""
            said = f"{channel} of {', '.join(symbols[:10])}{more} is stale: {cause}"
            return Alert("warning", said, "act on none of these prices until Fresh is told")
        case AuthFailed(connection, reason):
            return Alert("error", f"{connection}: not authorised: {reason}", "check api_key= and what the key may do")
        case GaveUp(connection, reason):
            return Alert("error", f"{connection}: gave up: {reason}", "open a new Feed once the cause is gone")
        case _:
            return None
