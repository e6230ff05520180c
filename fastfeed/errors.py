"""The error tree: everything fastfeed raises on purpose, and nothing else.

* FastFeedError
  * ConfigError (also a ValueError): a name or option that cannot work; raised before any network
  * ConnectError(host, cause): no usable connection (name, port, TLS, timeout)
    * HandshakeError(status, headers): the server answered the WebSocket handshake with HTTP instead
    * AuthError(host, cause): the server does not accept who we are; never retried blindly
  * SubscriptionRejected(symbol, reason): the server refused one subscription
  * DecodeError(offset, window): why a payload is malformed, and where
  * GapError(gap): messages are known to be missing and were not recovered
  * StaleError(symbols, cause): prices that are too old, or have not come at all
  * GaveUp(reason, attempts): terminal; the feed stopped trying
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastfeed.records import Gap


class FastFeedError(Exception):
    """The base of every error here.

    `retryable` says whether the same call may succeed later without anybody changing anything; `hint` says what to
    change otherwise ("" where the message already does).
    """

    retryable: bool = False
    hint: str = ""

    def __str__(self) -> str:
        message = self.message()
        return f"{message} ({self.hint})" if self.hint else message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def message(self) -> str:
        """What happened, without the hint."""
        return super().__str__()


class ConfigError(FastFeedError, ValueError):
    """A name or option that cannot work. The message carries the value and the valid ones."""


class ConnectError(FastFeedError):
    """No usable connection to `host` ("name:port"), because of `cause`."""

    retryable = True

    def __init__(self, host: str, cause: str, *, retryable: bool = True, hint: str = "") -> None:
        super().__init__(host, cause)
        self.host = host
        self.cause = cause
        self.retryable = retryable
        self.hint = hint

    def message(self) -> str:
        return f"cannot connect to {self.host}: {self.cause}"


class HandshakeError(ConnectError):
    """The server answered the WebSocket handshake with HTTP `status` instead of 101.

    `headers` are the response's, by lower-case name.
    """

    def __init__(self, status: int, headers: Mapping[str, str] | None = None, *, host: str = "the server") -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}
        retryable = status in (408, 418, 425, 429) or status >= 500
        super().__init__(host, f"HTTP {status} {_phrase(status)}".rstrip(), retryable=retryable, hint=self._advice())
        self.args = (status, headers)

    def _advice(self) -> str:
        if 300 <= self.status < 400:
            target = self.headers.get("location", "").partition("?")[0]
            return f"redirects are not followed: pass the final address as url=, it points to {target or 'nowhere'}"
        if self.status in (418, 429):
            return f"rate limited: wait {self.headers.get('retry-after', 'a while')} before dialling again"
        if self.status == 404:
            return "the host has no WebSocket there: check url="
        return ""


class AuthError(ConnectError):
    """The server does not accept who we are."""

    def __init__(self, host: str, cause: str, *, hint: str = "check api_key= and what the key may do") -> None:
        super().__init__(host, cause, retryable=False, hint=hint)


class SubscriptionRejected(FastFeedError):
    """The server refused the subscription of `symbol`, giving `reason`."""

    def __init__(self, symbol: str, reason: str) -> None:
        super().__init__(symbol, reason)
        self.symbol = symbol
        self.reason = reason

    def message(self) -> str:
        return f"subscription of {self.symbol} was rejected: {self.reason}"


class DecodeError(FastFeedError):
    """A malformed payload: `offset` is the byte where reading stopped, `window` the bytes around it."""

    def __init__(self, offset: int, window: bytes, reason: str = "malformed payload") -> None:
        super().__init__(offset, window, reason)
        self.offset = offset
        self.window = window
        self.reason = reason

    def message(self) -> str:
        return f"{self.reason} at byte {self.offset}, near {self.window!r}"


class GapError(FastFeedError):
    """Messages are known to be missing: `gap` says which."""

    retryable = True

    def __init__(self, gap: Gap) -> None:
        super().__init__(gap)
        self.gap = gap

    def message(self) -> str:
        what = (
            f"{self.gap.first}..{self.gap.last}" if self.gap.missing else "nobody knows what: it has no usable numbers"
        )
        return f"{self.gap.symbol} {self.gap.stream} misses {what}"


class StaleError(FastFeedError):
    """Prices of `symbols` are too old, or have not come at all, because of `cause`."""

    retryable = True

    def __init__(self, symbols: Sequence[str], cause: str) -> None:
        super().__init__(symbols, cause)
        self.symbols = tuple(symbols)
        self.cause = cause

    def message(self) -> str:
        shown = ", ".join(self.symbols[:10])
        more = f" and {len(self.symbols) - 10} more" if len(self.symbols) > 10 else ""
        return f"{self.cause}: {shown}{more}"


class GaveUp(FastFeedError):
    """Terminal: after `attempts` failed attempts in a row the feed stopped trying. `__cause__` is the last failure."""

    hint = "open a new Feed once the cause is gone"

    def __init__(self, reason: str, attempts: int = 0) -> None:
        super().__init__(reason, attempts)
        self.reason = reason
        self.attempts = attempts

    def message(self) -> str:
        return f"gave up after {self.attempts} failed attempts: {self.reason}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
