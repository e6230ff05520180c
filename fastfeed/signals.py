"""What goes into a session and what comes out: inputs, which say what happened, and actions, which say what to do.

Frozen records without behaviour. They carry no secrets, so that a session's whole story may be kept and shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastfeed import events
from fastfeed.errors import ConnectError
from fastfeed.failures import Failure
from fastfeed.staleness import Standing
from fastfeed.subscriptions import Subscription

# Inputs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Connect now."""


@dataclass(frozen=True)
class Stop:
    """Close, for good."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class Opened:
    """The dial succeeded and the handshake is complete."""


@dataclass(frozen=True)
class DialFailed:
    """The dial failed; `retry_after` is what the server asked for, in seconds.

    `failure` is its class, where the error alone does not show it.
    """

    error: ConnectError
    retry_after: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Renewed:
    """The credentials asked for by `Renew` are there, or could not be had because of `error`."""

    error: ConnectError | None = None


@dataclass(frozen=True)
class Closed:
    """The open connection is gone; 1006 if no CLOSE frame came."""

    code: int
    reason: str


@dataclass(frozen=True)
class Control:
    """A message that is not market data, received at `utc` (epoch seconds)."""

    payload: bytes
    utc: float = 0.0


@dataclass(frozen=True)
class Pong:
    """A PONG frame."""

    payload: bytes


@dataclass(frozen=True)
class Delivered:
    """Market data of `subscriptions` has come on this connection."""

    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True)
class Subscribe:
    """Wish for more: (subscription, the provider's name for it), most important first."""

    wishes: tuple[tuple[Subscription, str], ...]


@dataclass(frozen=True)
class Unsubscribe:
    """Wish for less."""

    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True)
class Resubscribe:
    """Ask for these anew, because of what they missed. What is not subscribed just now will be asked for anyway."""

    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True)
class Say:
    """Send this request as soon as the provider's pace allows; dropped with the connection."""

    text: str | bytes


@dataclass(frozen=True)
class Silent:
    """These delivered on this connection and have fallen silent; `mute`: nothing else of their channel speaks either.

    `usual`: that is nothing new (a rare symbol, a closed market). `heard`: how many symbols of the channel still speak
    that nobody asked for by name, but as part of the whole channel.
    """

    subscriptions: tuple[Subscription, ...]
    mute: bool = False
    usual: bool = False
    heard: int = 0


@dataclass(frozen=True)
class Heard:
    """These deliver again."""

    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True)
class Traffic:
    """So many messages have come since the last time. Not `judged`: the market is closed, and few are no wonder."""

    messages: int
    judged: bool = True


@dataclass(frozen=True)
class Window:
    """The stretch of time in which the user wants connections to be replaced has begun or ended."""

    is_open: bool


@dataclass(frozen=True)
class Relief:
    """A successor is on its way, so that this connection is not dialled again if it ends; or (False) none came up."""

    is_coming: bool


@dataclass(frozen=True)
class Inherit:
    """The connection this one was to succeed has died; these are missing until they deliver here."""

    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True)
class Redial:
    """Close and dial again: there cannot be a second connection beside this one. `reason` is why it has to go."""

    reason: str


Input = (
    Start
    | Stop
    | Tick
    | Opened
    | DialFailed
    | Renewed
    | Closed
    | Control
    | Pong
    | Delivered
    | Silent
    | Heard
    | Traffic
    | Subscribe
    | Unsubscribe
    | Resubscribe
    | Say
    | Window
    | Relief
    | Inherit
    | Redial
)


# Actions ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dial:
    """Open a connection; answer with Opened or DialFailed."""


@dataclass(frozen=True)
class Renew:
    """Get fresh credentials; answer with Renewed."""


@dataclass(frozen=True)
class Login:
    """Send the provider's login, which only whoever knows the secrets can write."""


@dataclass(frozen=True)
class Send:
    """Send a TEXT message, or a BINARY one of bytes."""

    text: str | bytes


@dataclass(frozen=True)
class SendAppPing:
    """Send the dialect's application ping `number`, which may carry the time."""

    number: int


@dataclass(frozen=True)
class SendPing:
    """Send a PING frame."""

    payload: bytes


@dataclass(frozen=True)
class Close:
    """Close the connection, or abandon the dial, and forget it. 1006: without a CLOSE frame."""

    code: int
    reason: str


@dataclass(frozen=True)
class Lost:
    """Prices of these subscriptions are frozen until they deliver again."""

    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True)
class Forget:
    """These are asked for anew: what they delivered before vouches for nothing."""

    subscriptions: tuple[Subscription, ...]


@dataclass(frozen=True)
class Judge:
    """What the prices of these subscriptions are worth from now on."""

    subscriptions: tuple[Subscription, ...]
    standing: Standing


@dataclass(frozen=True)
class SetOffset:
    """This machine's clock is ahead of the provider's by so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Rotate:
    """Have a successor opened beside this connection; answer with Relief, or Redial where that cannot be."""

    reason: str


@dataclass(frozen=True)
class Emit:
    """Tell the user."""

    event: events.Event


Action = (
    Dial | Renew | Login | Send | SendAppPing | SendPing | Close | Lost | Forget | Judge | SetOffset | Rotate | Emit
)
