"""The address a feed dials: name, TCP, TLS, WebSocket handshake, and what a failure of any of them means.

A failed dial becomes one clear error with the host and the cause. When to dial is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from email.parser import BytesHeaderParser
from typing import Any
from urllib.parse import urlsplit

from picows import WSHandshakeError, ws_connect

from fastfeed._core import Clock
from fastfeed._wire import OFFER, Wire, agreed
from fastfeed.backoff import retry_after, retry_after_said
from fastfeed.credentials import Credentials, Given
from fastfeed.errors import AuthError, ConfigError, ConnectError, HandshakeError
from fastfeed.failures import Failure
from fastfeed.providers import Provider
from fastfeed.signals import DialFailed

_WIRE_LOG = logging.getLogger("fastfeed.wire")
# picows writes the handshake with all its headers to the log below DEBUG: not where one of them is a secret.
_KEYED_LOG = logging.getLogger("fastfeed.wire.keyed")
_KEYED_LOG.setLevel(logging.INFO)

DIAL_TIMEOUT = 5.0  # seconds for name, TCP, TLS and WebSocket handshake together


class Endpoint:
    """Where to dial and what to show there: address, TLS, credentials, socket and message sizes.

    Raises:
        ConfigError: for an address that is none, or a key the provider wants and nobody gave.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        url: str | None,
        tls: ssl.SSLContext | None,
        api_key: str | None,
        credentials: Given | None,
        receive_buffer: int,
        max_message: int,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self.url, self.host, secure = _address(provider.url if url is None else url)
        self.max_message = max_message  # bytes
        self._receive_buffer = receive_buffer  # bytes
        self._tls = ssl.create_default_context() if tls is None and secure else tls
        self._shown = dict(provider.headers)
        self._compressed = provider.compression
        if self._compressed:
            self._shown["Sec-WebSocket-Extensions"] = OFFER
        # What replaces the provider's hosts for HTTP too; None: its own.
        self.http_root = None if url is None else self.url.replace("ws", "http", 1)
        self.credentials = Credentials(
            provider.name, provider.auth, api_key=api_key, given=credentials, root=self.http_root, tls=tls
        )

    async def dial(self, path: str, wire: Wire) -> None:
        """Returns once `wire` has been told that it is connected, or the handshake was cut short."""
        await self.credentials.refresh(self._clock.mono_ns() / 1e9)
        query = self.credentials.query()
        if query:
            path += ("&" if "?" in path else "?") + query
        opened: list[socket.socket] = []

        async def open_socket(url: Any) -> socket.socket:
            opened.append(await self._open_socket(url.host, url.port))
            return opened[0]

        def answered(_request: object, response: Any) -> Wire:
            accepts, anew = agreed(response.headers.get("Sec-WebSocket-Extensions"))
            if accepts:
                wire.inflate(anew=anew)
            return wire

        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                transport, _ = await ws_connect(
                    answered if self._compressed else lambda: wire,
                    self.url + path,
                    ssl_context=self._tls,
                    logger_name=_KEYED_LOG if self.credentials.secret else _WIRE_LOG,
                    websocket_handshake_timeout=DIAL_TIMEOUT,
                    enable_auto_ping=False,
                    enable_auto_pong=False,
                    max_redirects=0,
                    max_frame_size=self.max_message,
                    extra_headers={**self._shown, **self.credentials.headers()},
                    socket_factory=open_socket,
                )
        except BaseException:
            for sock in opened:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # the transport that owns it notices, and cleans up
            raise
        # picows keeps what it thought of the end; unread, it would be reported as an exception nobody retrieved.
        asyncio.ensure_future(transport.wait_disconnected()).add_done_callback(_retrieve)

    async def _open_socket(self, host: str, port: int) -> socket.socket:
        """A connected socket. The receive buffer is set before the connect, or the window could not grow to it."""
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        error: OSError = ConnectionError("the name has no address")
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                async with asyncio.timeout(DIAL_TIMEOUT / len(addresses)):
                    await loop.sock_connect(sock, address)
            except OSError as raised:
                sock.close()
                error = raised
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise error

    def explain(self, error: Exception, utc: float) -> DialFailed:
        """What a failed dial means. `utc` is now, for a Retry-After that names a date."""
        if isinstance(error, ConnectError):
            return DialFailed(error)
        if isinstance(error, WSHandshakeError) and (answer := _http_answer(error)) is not None:
            status, raw = answer
            headers = {name.lower(): self.credentials.hide(value) for name, value in raw.items()}
            if "location" in headers:
                headers["location"] = headers["location"].partition("?")[0]  # queries are where keys stand
            body = self.credentials.hide((error.raw_body or b"").decode(errors="replace"))[:1000].strip()
            waits = [retry_after(headers.get("retry-after", ""), utc), retry_after_said(body, utc)]
            wait = max((seconds for seconds in waits if seconds is not None), default=None)
            if status not in (401, 403):
                return DialFailed(HandshakeError(status, headers, host=self.host), wait)
            return DialFailed(AuthError(self.host, f"HTTP {status}" + (f": {body[:200]}" if body else "")), wait)
        retryable, hint, failure = True, "", None
        match error:
            case WSHandshakeError():
                cause = f"the answer is not a WebSocket handshake: {error}"
                hint = "check url="
            case socket.gaierror():
                cause = f"the name cannot be resolved: {error.strerror}"
                failure = Failure.NAME
            case ssl.SSLCertVerificationError():
                cause = f"its certificate was not accepted: {error.verify_message}"
                retryable, hint = False, "pass ssl= a context that trusts it, or set SSL_CERT_FILE"
            case ssl.SSLError():
                cause = f"TLS failed: {error.reason or error}"
                retryable, hint = False, "check that the scheme of url= (ws, wss) is what the port speaks"
            case TimeoutError():
                cause = f"no answer within {DIAL_TIMEOUT:g} s"
            case OSError():
                cause = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
            case _:
                cause = f"{type(error).__name__}: {error}"
        failed = ConnectError(self.host, self.credentials.hide(cause), retryable=retryable, hint=hint)
        if isinstance(error, OSError):
            failed.__cause__ = error  # others may hold what was said, by us too
        return DialFailed(failed, failure=failure)


def _retrieve(ended: asyncio.Future[None]) -> None:
    if not ended.cancelled():
        ended.exception()


def _http_answer(error: WSHandshakeError) -> tuple[int, Mapping[str, str]] | None:
    """(status, headers) if the server answered with HTTP that is no upgrade: picows does not know every status."""
    status_line, _, rest = (error.raw_header or b"").partition(b"\r\n")
    found = re.match(rb"HTTP/1\.[01] (\d{3})\b", status_line)
    if found is None or found[1] == b"101":
        return None
    return int(found[1]), dict(BytesHeaderParser().parsebytes(rest).items())


def _address(url: str) -> tuple[str, str, bool]:
    """(`url` as "scheme://host:port", "host:port", whether it is secure)."""
    example = "write it like 'wss://stream.example.com:9443'"
    try:
        parts = urlsplit(url)
        port = parts.port
    except (ValueError, AttributeError, TypeError):
        raise ConfigError(f"url={url!r} is not a URL: {example}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigError(f"url={url!r} must begin with ws:// or wss:// and a host: {example}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")
    if parts.username or parts.password or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(f"url= replaces scheme, host and port only: write {shown!r}, the paths are the provider's")
    secure = parts.scheme == "wss"
    return shown, f"{host}:{port or (443 if secure else 80)}", secure
