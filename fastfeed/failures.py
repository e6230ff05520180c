"""The ways a connection dies: what each close code, HTTP status and error means, and how often it is dialled again for.

Pure tables and two functions over them. What is done about a failure is the session's business.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from fastfeed.errors import AuthError, ConnectError, HandshakeError


class Failure(enum.Enum):
    """The ways a connection dies; each has a budget of redials in a row."""

    TRANSPORT = "transport"  # refused, unreachable, reset, timed out, 1006; HTTP 408, 425
    NAME = "name"  # not resolved
    SERVER_ERROR = "server error"  # HTTP 5xx
    SILENT = "silent"  # no pong
    MUTE = "mute"  # pongs, but no data, whatever was tried
    UNANSWERED = "unanswered"  # requests are not answered
    CLEAN = "clean close"  # 1000
    RESTART = "server restart"  # 1001, 1012, 1013, or announced
    OVERLOAD = "overload"  # 1008, 1009, 1011
    RATE_LIMITED = "rate limited"  # HTTP 418, 429; close 3001; a clean close right after one of these
    EVICTED = "evicted"  # HTTP 406, or the provider says so: another connection took the place of this one
    AUTH = "auth"  # HTTP 401, 403
    TLS = "tls"  # the certificate is not accepted
    REFUSED = "refused"  # redirects and other HTTP 4xx
    PROTOCOL = "protocol"  # 1002, 1003, 1007, 1010
    UNKNOWN = "unknown"  # any other close code


# Redials in a row. At the default backoff 1,000 are eight hours of trying; 10 are two and a half minutes.
BUDGETS: Mapping[Failure, int] = MappingProxyType(
    {
        Failure.TRANSPORT: 1000,
        Failure.NAME: 1000,
        Failure.SERVER_ERROR: 1000,
        Failure.SILENT: 1000,
        Failure.MUTE: 1000,
        Failure.UNANSWERED: 20,
        Failure.CLEAN: 1000,
        Failure.RESTART: 1000,
        Failure.OVERLOAD: 100,
        Failure.RATE_LIMITED: 100,
        Failure.EVICTED: 20,
        Failure.AUTH: 0,
        Failure.TLS: 10,
        Failure.REFUSED: 10,
        Failure.PROTOCOL: 20,
        Failure.UNKNOWN: 100,
    }
)

# What a connection that was stable and delivered is redialled for at once, the first time: nothing speaks against it.
AT_ONCE = frozenset({Failure.TRANSPORT, Failure.SILENT, Failure.MUTE, Failure.CLEAN, Failure.RESTART})

CLOSE_CODES: Mapping[int, Failure] = MappingProxyType(
    {
        1000: Failure.CLEAN,
        1001: Failure.RESTART,
        1002: Failure.PROTOCOL,
        1003: Failure.PROTOCOL,
        1005: Failure.CLEAN,
        1006: Failure.TRANSPORT,
        1007: Failure.PROTOCOL,
        1008: Failure.OVERLOAD,
        1009: Failure.OVERLOAD,
        1010: Failure.PROTOCOL,
        1011: Failure.OVERLOAD,
        1012: Failure.RESTART,
        1013: Failure.RESTART,
        3001: Failure.RATE_LIMITED,
    }
)


def classify_close(code: int) -> Failure:
    """The class of a close code (RFC 6455 7.4 and the IANA registry)."""
    return CLOSE_CODES.get(code, Failure.UNKNOWN)


def classify_error(error: ConnectError) -> Failure:
    """The class of a failed dial."""
    if isinstance(error, AuthError):
        return Failure.AUTH
    if isinstance(error, HandshakeError):
        if error.status in (418, 429):
            return Failure.RATE_LIMITED
        if error.status == 406:
            return Failure.EVICTED
        if error.status >= 500:
            return Failure.SERVER_ERROR
        return Failure.TRANSPORT if error.retryable else Failure.REFUSED
    return Failure.TRANSPORT if error.retryable else Failure.TLS
