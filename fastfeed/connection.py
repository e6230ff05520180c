"""One connection's hands: dials, carries out what its session decides, and tells the session what the wire hears.

A failed dial becomes one clear error with the host and the cause. Nothing is decided here, and nothing runs per tick.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from email.parser import BytesHeaderParser
from typing import Any, Protocol
from urllib.parse import urlsplit

from picows import WSHandshakeError, ws_connect

from fastfeed import events
from fastfeed._core import Clock, Decoder
from fastfeed._wire import Wire
from fastfeed.backoff import retry_after, retry_after_said
from fastfeed.errors import AuthError, ConfigError, ConnectError, HandshakeError
from fastfeed.failures import Failure
from fastfeed.providers import Provider
from fastfeed.session import (
    Close,
    Closed,
    Control,
    Delivered,
    Dial,
    DialFailed,
    Emit,
    Forget,
    Input,
    Judge,
    Lost,
    Opened,
    Pong,
    Send,
    SendPing,
    Session,
    State,
    Tick,
    Traffic,
)
from fastfeed.staleness import Standing
from fastfeed.subscriptions import Stage, Subscription

_LOG = logging.getLogger("fastfeed")
_WIRE_LOG = logging.getLogger("fastfeed.wire")
# picows writes the handshake with all its headers to the log below DEBUG: not where one of them is a secret.
_KEYED_LOG = logging.getLogger("fastfeed.wire.keyed")
_KEYED_LOG.setLevel(logging.INFO)

DIAL_TIMEOUT = 5.0  # seconds for name, TCP, TLS and WebSocket handshake together


class Endpoint:
    """Where to dial and what to show there: address, TLS, key, socket and message sizes. Its secrets are never shown.

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
        credentials: Mapping[str, str] | None,
        receive_buffer: int,
        max_message: int,
    ) -> None:
        self.url, self.host, secure = _address(provider.url if url is None else url)
        self.max_message = max_message  # bytes
        self._receive_buffer = receive_buffer  # bytes
        self._tls = ssl.create_default_context() if tls is None and secure else tls
        known = dict(credentials or {})
        if api_key is not None:
            known["api_key"] = api_key
        self._headers = {}
        if provider.auth is not None:
            key = known.setdefault("api_key", os.environ.get(provider.auth.env, ""))
            if not key:
                raise ConfigError(f"{provider.name} wants a key: pass api_key= or set {provider.auth.env}")
            self._headers[provider.auth.header] = key
        self._secrets = [secret for secret in known.values() if secret]

    def hide(self, text: str) -> str:
        """`text` from outside without our secrets: servers echo them."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def dial(self, path: str, wire: Wire) -> None:
        """Returns once `wire` has been told that it is connected, or the handshake was cut short."""
        opened: list[socket.socket] = []

        async def open_socket(url: Any) -> socket.socket:
            opened.append(await self._open_socket(url.host, url.port))
            return opened[0]

        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                transport, _ = await ws_connect(
                    lambda: wire,
                    self.url + path,
                    ssl_context=self._tls,
                    logger_name=_KEYED_LOG if self._secrets else _WIRE_LOG,
                    websocket_handshake_timeout=DIAL_TIMEOUT,
                    enable_auto_ping=False,
                    enable_auto_pong=False,
                    max_redirects=0,
                    max_frame_size=self.max_message,
                    extra_headers=self._headers,
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
        if isinstance(error, WSHandshakeError) and (answer := _http_answer(error)) is not None:
            status, raw = answer
            headers = {name.lower(): self.hide(value) for name, value in raw.items()}
            body = self.hide((error.raw_body or b"")[:1000].decode(errors="replace")).strip()
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
        failed = ConnectError(self.host, self.hide(cause), retryable=retryable, hint=hint)
        failed.__cause__ = error
        return DialFailed(failed, failure=failure)


def _retrieve(ended: asyncio.Future[None]) -> None:
    if not ended.cancelled():
        ended.exception()


class Owner(Protocol):
    """What a connection tells the feed it belongs to."""

    def on_ticks(self) -> None:
        """A socket read that made ticks has ended."""

    def on_event(self, event: events.Event) -> None:
        """Something to tell the user."""

    def on_lost(self, subscriptions: Iterable[Subscription]) -> None:
        """Prices of these are frozen until they deliver again."""

    def on_forget(self, subscriptions: Iterable[Subscription]) -> None:
        """These are asked for anew on the same connection."""

    def on_judged(self, subscriptions: Iterable[Subscription], standing: Standing) -> None:
        """What these prices are worth by the session's judgement."""

    def on_delivered(self, subscriptions: Iterable[Subscription]) -> None:
        """These have delivered for the first time on the present connection."""

    def on_change(self, connection: Connection) -> None:
        """The session has done something; look at its state."""


class Connection:
    """A session, the wire it speaks through at the moment, and the timer it asked for.

    The methods `wire_*` are called by the wire, in the socket read.
    """

    def __init__(
        self, owner: Owner, session: Session, endpoint: Endpoint, path: str, number: int, decoder: Decoder, clock: Clock
    ) -> None:
        self.session = session
        self.path = path
        self._owner = owner
        self._endpoint = endpoint
        self._number = number
        self._decoder = decoder
        self._clock = clock
        self._wire: Wire | None = None  # the present one; what any other still says is not listened to
        self._connected = False  # the present wire has completed its handshake
        self._dialling: asyncio.Task[None] | None = None
        self._closing: set[Wire] = set()  # closed by us and not yet gone
        self._timer: asyncio.TimerHandle | None = None
        self._counted = {"bytes": 0, "pings_answered": 0}  # by the wires before the present one
        self._look_at = math.inf  # when to look for first data again
        self._frames_told = 0  # of the present wire

    @property
    def gone(self) -> bool:
        """Nothing of it is left on the network."""
        return self._wire is None and self._dialling is None and not self._closing

    def counters(self) -> dict[str, int]:
        """What it has counted over all its wires."""
        wire = self._wire
        return {
            "bytes": self._counted["bytes"] + (0 if wire is None else wire.bytes_received),
            "pings_answered": self._counted["pings_answered"] + (0 if wire is None else wire.pings_answered),
            "dials": self.session.dials,
            "reconnects": self.session.reconnects,
        }

    def handle(self, event: Input) -> None:
        """Give the session what happened and do what it says."""
        now = self._now()
        for action in self.session.handle(event, now):
            match action:
                case Dial():
                    self._wire = Wire(
                        self._decoder, self, source=self._number & 0xFFFF, max_message=self._endpoint.max_message
                    )
                    self._dialling = asyncio.get_running_loop().create_task(self._dial(self._wire))
                case Send(text):
                    if self._wire is not None:
                        self._wire.send(text)
                case SendPing(payload):
                    if self._wire is not None:
                        self._wire.ping(payload)
                case Close(code, reason):
                    self._hang_up(code, reason)
                case Lost(subscriptions):
                    self._owner.on_lost(subscriptions)
                case Forget(subscriptions):
                    self._owner.on_forget(subscriptions)
                case Judge(subscriptions, standing):
                    self._owner.on_judged(subscriptions, standing)
                case Emit(told):
                    self._owner.on_event(told)
        self._look_at = now if self.session.state is State.OPEN and self.session.book.silent else math.inf
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.session.deadline()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - now), self.handle, Tick())
        self._owner.on_change(self)

    def find_live(self) -> None:
        """Tell the session which silent subscriptions have delivered since the connection opened."""
        now = self._now()
        if now < self._look_at or self.session.opened_at is None:
            return
        # Often while everything is coming up, ten times a second for what stays silent.
        self._look_at = now + min(0.1, 0.005 + (now - self.session.opened_at) / 20)
        prices = self._decoder.prices
        silent = [record.subscription for record in self.session.book.at(Stage.REQUESTED, Stage.ACKED)]
        arrived = {channel: prices.arrived(channel) for channel in {wish.channel for wish in silent}}
        # Every symbol asked for has a row, and what a lost connection delivered has been forgotten.
        live = [
            wish
            for wish in silent
            if (number := prices.id(wish.symbol)) is not None and arrived[wish.channel][number] > 0
        ]
        if live:
            self._owner.on_delivered(live)
            self.handle(Delivered(tuple(live)))

    def tell_traffic(self) -> None:
        """Tell the session how many messages have come since the last time."""
        if self._wire is not None and self._connected:
            frames = self._wire.frames_received
            messages, self._frames_told = frames - self._frames_told, frames
            self.handle(Traffic(messages))

    def abort(self) -> None:
        """Let go of whatever is left."""
        if self._timer is not None:
            self._timer.cancel()
        if self._dialling is not None:
            self._dialling.cancel()
        for wire in self._closing:
            wire.abort()

    def wire_connected(self, wire: Wire) -> None:
        if wire is self._wire:
            self._connected = True
            self._frames_told = 0
            self.handle(Opened())

    def wire_control(self, wire: Wire, payload: bytes) -> None:
        if wire is self._wire:
            try:
                self.handle(Control(self._endpoint.hide(payload.decode()).encode()))
            except Exception:
                _LOG.exception("%s: a control message could not be read", self.session.name)

    def wire_pong(self, wire: Wire, payload: bytes) -> None:
        if wire is self._wire:
            self.handle(Pong(payload))

    def wire_read(self, wire: Wire, ticked: bool) -> None:
        if ticked:
            self._owner.on_ticks()
            if self._look_at < math.inf:
                self.find_live()

    def wire_closed(self, wire: Wire, code: int, reason: str) -> None:
        if wire in self._closing:
            self._closing.discard(wire)
            self._owner.on_change(self)
        elif wire is self._wire and self._connected:
            self._forget()
            self.handle(Closed(code, self._endpoint.hide(reason)))

    async def _dial(self, wire: Wire) -> None:
        error: Exception = ConnectionError("the connection was closed during the handshake")
        try:
            await self._endpoint.dial(self.path, wire)
        except Exception as raised:
            error = raised
        finally:
            if self._dialling is asyncio.current_task():
                self._dialling = None
            self._owner.on_change(self)
        if wire is self._wire and not self._connected:
            self._forget()
            self.handle(self._endpoint.explain(error, self._clock.utc_ns() / 1e9))

    def _hang_up(self, code: int, reason: str) -> None:
        wire, connected = self._wire, self._connected
        self._forget()
        if wire is not None and connected:
            self._closing.add(wire)
            if code == 1006:
                wire.abort()
            else:
                wire.close(code, reason)
        elif self._dialling is not None:
            self._dialling.cancel()

    def _forget(self) -> None:
        """The present wire has nothing more to say."""
        if self._wire is not None:
            self._counted["bytes"] += self._wire.bytes_received
            self._counted["pings_answered"] += self._wire.pings_answered
        self._wire = None
        self._connected = False

    def _now(self) -> float:
        return self._clock.mono_ns() / 1e9


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
