"""A TCP proxy that stands in front of a venue, or of a real server, and makes the network between worse on command.

It moves bytes and knows no protocol; the one thing it rewrites is the Host header of a handshake, so that a server
behind TLS can be reached through it in the clear. Faults of the venue itself are commands of `Venue`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Coroutine
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from fastfeed.errors import ConfigError

CHUNK = 64 * 1024  # bytes read at a time
CHUNKS_ON_THE_WAY = 256  # per direction; more stays with the sender, as in a full pipe
HEAD = 16 * 1024  # bytes of a handshake at most
DIAL_SECONDS = 5.0
BREATH_SECONDS = 0.02  # between two portions of a narrow link


class Proxy:
    """`async with Proxy(venue.url) as proxy: ... Feed(..., url=proxy.url)`.

    `url` is "ws://host:port" or "wss://host:port" (then it dials with TLS and verifies the certificate; clients speak
    to the proxy in the clear). Commands are about every connection, open and to come, but for `cuts` and `half_opens`,
    which are about those that are open; `heals` ends all of them.

    Raises:
        ConfigError: for an address that is none, and for commands that make no sense.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None, seed: int = 1) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigError(f"Proxy({url!r}): no such port") from None
        if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.path not in ("", "/"):
            raise ConfigError(f"Proxy({url!r}): must be ws://host:port or wss://host:port, without a path")
        secure = parts.scheme == "wss"
        self._target = (parts.hostname, port or (443 if secure else 80))
        self._host = parts.netloc.encode()
        self._tls = (tls or ssl.create_default_context()) if secure else None
        self._random = random.Random(seed)
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._counts: Counter[str] = Counter()
        self.heals()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        self._port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    # ------------------------------------------------------------------------------------------------ commands

    def delays(self, seconds: float, jitter: float = 0.0) -> None:
        """Let all bytes arrive `seconds` later, in each direction, give or take up to `jitter`; never out of order."""
        if not (0 <= jitter <= seconds < math.inf):
            raise ConfigError(f"delays({seconds}, jitter={jitter}): seconds, and jitter no more than they are")
        self._delay, self._jitter = seconds, jitter

    def slices(self, size: int, pause: float = 0.0) -> None:
        """Pass on no more than `size` bytes at once, with `pause` seconds between."""
        if size < 1 or not 0 <= pause < math.inf:
            raise ConfigError(f"slices({size}, pause={pause}): at least one byte, and seconds")
        self._size, self._pause = size, pause

    def narrows(self, bytes_per_s: float) -> None:
        """Pass on no more than so many bytes a second, in each direction of each connection."""
        if not 0 < bytes_per_s < math.inf:
            raise ConfigError(f"narrows({bytes_per_s}): must be above 0; half_opens() lets nothing through")
        self._bytes_per_s = bytes_per_s

    def cuts(self) -> None:
        """Reset the open connections, on both sides."""
        for link in list(self._links):
            link.cut()

    def half_opens(self) -> None:
        """Let nothing more through on the open connections, neither bytes nor an end, and close none; new ones work."""
        for link in self._links:
            link.flowing.clear()

    def refuses(self) -> None:
        """Reset whoever dials, before a byte is exchanged."""
        self._is_refusing = True

    def heals(self) -> None:
        """End every fault; what was held back on half-open connections is passed on."""
        self._delay = self._jitter = self._pause = 0.0
        self._size = CHUNK
        self._bytes_per_s = math.inf
        self._is_refusing = False
        for link in self._links:
            link.flowing.set()

    def count(self) -> dict[str, int]:
        """`dials` taken, `refused` of them, `cut` connections, `open` now; `bytes_down` to clients, `bytes_up`."""
        names = ("dials", "refused", "cut", "bytes_down", "bytes_up")
        return {**{name: self._counts[name] for name in names}, "open": len(self._links)}

    # -------------------------------------------------------------------------------------------------- links

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._counts["dials"] += 1
        if self._is_refusing:
            self._counts["refused"] += 1
            _reset(writer)
            return
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                server_reader, server_writer = await asyncio.open_connection(*self._target, ssl=self._tls, limit=CHUNK)
        except (OSError, TimeoutError):
            _reset(writer)
            return
        except asyncio.CancelledError:
            _reset(writer)
            raise
        link = _Link((writer, server_writer))
        self._links.add(link)
        is_whole = False
        try:
            is_whole = await _all_or_none(
                self._carry(link, reader, server_writer, "bytes_up"),
                self._carry(link, server_reader, writer, "bytes_down"),
            )
        finally:
            self._links.discard(link)
            self._counts["cut"] += link.is_cut
            for side in link.writers:
                if is_whole:
                    side.close()
                else:
                    _reset(side)
            for side in link.writers:
                with contextlib.suppress(OSError):
                    await side.wait_closed()

    async def _carry(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: str
    ) -> None:
        """One direction: what is read is put on its way with the time it arrives at, then written in that order."""
        pipe: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_ON_THE_WAY)
        taking = self._take(link, reader, pipe, is_client=counted == "bytes_up")
        if not await _all_or_none(taking, self._deliver(link, pipe, writer, counted)):
            raise ConnectionResetError(f"{counted} has ended")

    async def _take(
        self, link: _Link, reader: asyncio.StreamReader, pipe: asyncio.Queue[tuple[float, bytes]], *, is_client: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            data = await self._handshake(reader) if is_client else await reader.read(CHUNK)
            while data:
                await pipe.put((loop.time() + self._delay + self._jitter * self._random.uniform(-1, 1), data))
                data = await reader.read(CHUNK)
        except OSError:
            await link.flowing.wait()  # a reset is no more let through than an end
            raise
        await pipe.put((loop.time(), b""))

    async def _handshake(self, reader: asyncio.StreamReader) -> bytes:
        """The client's first bytes, with the Host the server expects."""
        head = b""
        while b"\r\n\r\n" not in head and len(head) < HEAD:
            more = await reader.read(CHUNK)
            head += more
            if not more:
                return head
        lines = head.split(b"\r\n")
        return b"\r\n".join(b"Host: " + self._host if line[:5].lower() == b"host:" else line for line in lines)

    async def _deliver(
        self, link: _Link, pipe: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, counted: str
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            arrives, data = await pipe.get()
            await asyncio.sleep(arrives - loop.time())
            await link.flowing.wait()
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                else:
                    writer.close()  # TLS knows no half of an end
                return
            while data:
                size = int(min(self._size, max(1.0, self._bytes_per_s * BREATH_SECONDS)))
                part, data = data[:size], data[size:]
                writer.write(part)
                self._counts[counted] += len(part)
                await writer.drain()
                await asyncio.sleep(max(self._pause, len(part) / self._bytes_per_s))
                await link.flowing.wait()


class _Link:
    """One connection through the proxy: both of its ends."""

    def __init__(self, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.is_cut = False

    def cut(self) -> None:
        self.is_cut = True
        self.flowing.set()  # whoever waits finds out
        for writer in self.writers:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _all_or_none(*ways: Coroutine[Any, Any, None]) -> bool:
    """Run them until all have ended, or one has lost its connection: then the others are told to stop, and False."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.gather(*tasks)
    except OSError:
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return True
