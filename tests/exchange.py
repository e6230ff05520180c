"""A scripted exchange for the feed's tests: a real WebSocket server on a port of its own that speaks Binance's words.

It acks what it is asked unless told otherwise, sends only what the test says, and misbehaves on command. It decides
nothing by time.
"""

import asyncio
import json
import ssl
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

DEADLINE = 10.0  # seconds any wait of a test may take
PEM = Path(__file__).with_name("localhost.pem")


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition that the event loop brings about."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 - any condition, not only those that could ring
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"waited {DEADLINE:g} s for {what}") from None


def balances(ledger: dict[str, int]) -> bool:
    return ledger["received"] == sum(ledger[term] for term in ("delivered", "conflated", "dropped", "pending"))


def quote(symbol: str = "BTCUSDT", update: int = 1, bid: float = 1.0, event_ms: int = 0) -> str:
    time = f'"E":{event_ms},"T":{event_ms},' if event_ms else ""
    return (
        f'{{"stream":"{symbol.lower()}@bookTicker","data":{{"e":"bookTicker","u":{update},{time}"s":"{symbol}",'
        f'"b":"{bid}","B":"1","a":"{bid + 1}","A":"2"}}}}'
    )


def trade(symbol: str = "BTCUSDT", number: int = 1, price: float = 1.0) -> str:
    return (
        f'{{"stream":"{symbol.lower()}@aggTrade","data":{{"e":"aggTrade","a":{number},"s":"{symbol}","p":"{price}",'
        f'"q":"1","m":true}}}}'
    )


def depth(symbol: str, previous: int, last: int) -> str:
    return (
        f'{{"stream":"{symbol.lower()}@depth","data":{{"e":"depthUpdate","s":"{symbol}","U":{previous + 1},"u":{last},'
        f'"pu":{previous},"b":[["1","2"]],"a":[]}}}}'
    )


def ack(request: dict[str, Any]) -> str | None:
    return json.dumps({"result": None, "id": request["id"]})


class Line:
    """One connection as the exchange sees it."""

    def __init__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.socket = socket
        self.path = socket.request.path
        self.headers = socket.request.headers
        self.requests: list[dict[str, Any]] = []

    @property
    def topics(self) -> list[str]:
        """What it is subscribed to, in order."""
        topics: dict[str, None] = {}
        for request in self.requests:
            for topic in request["params"]:
                if request["method"] == "SUBSCRIBE":
                    topics[topic] = None
                else:
                    topics.pop(topic, None)
        return list(topics)

    async def send(self, *messages: str) -> None:
        for message in messages:
            await self.socket.send(message)

    def send_together(self, *messages: str) -> None:
        """All in one write, so that the other end gets them in one read (keep it to a few kilobytes)."""
        frames = b""
        for message in messages:
            payload = message.encode()
            size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
            frames += b"\x81" + size + payload
        self.socket.transport.write(frames)  # type: ignore[attr-defined]

    def freeze(self) -> None:
        """Read nothing more, answer nothing more; the socket stays open."""
        self.socket.transport.pause_reading()  # type: ignore[attr-defined]


class Exchange:
    """`async with Exchange() as exchange`: `lines` are the connections so far, `dials` counts the handshakes asked for.

    `answer` makes the reply to a request (None: no reply); `status` refuses handshakes with HTTP instead; `http`
    answers the requests for which it returns (status, body), before they count as dials.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.lines: list[Line] = []
        self.dials = 0
        self.answer: Callable[[dict[str, Any]], str | None] = ack
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = ""
        self.http: Callable[[Request], tuple[int, str] | None] = lambda request: None
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(PEM)
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        self._server = await serve(
            self._talk,
            "127.0.0.1",
            port,
            ssl=self._tls,
            process_request=self._receive,
            compression=None,
            ping_interval=None,
            close_timeout=0.2,
        )
        self.port: int = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            for line in self.lines:
                line.socket.transport.abort()
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}" if self._tls is None else f"wss://localhost:{self.port}"

    @property
    def line(self) -> Line:
        """The newest connection."""
        return self.lines[-1]

    async def send(self, *messages: str) -> None:
        await self.line.send(*messages)

    def cut(self) -> None:
        """Drop every connection without a word."""
        for line in self.lines:
            line.socket.transport.abort()

    async def has_lines(self, count: int) -> None:
        """Wait until so many connections were made and each has asked for something."""
        await until(
            lambda: len(self.lines) >= count and all(line.requests for line in self.lines), f"{count} connections"
        )

    def _receive(self, connection: ServerConnection, request: Request) -> Response | None:
        if (answer := self.http(request)) is not None:
            return connection.respond(HTTPStatus(answer[0]), answer[1])
        self.dials += 1
        if self.status is None:
            return None
        response = connection.respond(HTTPStatus(self.status), self.body)
        for name, value in self.headers.items():
            response.headers[name] = value
        return response

    async def _talk(self, socket: ServerConnection) -> None:
        line = Line(socket)
        self.lines.append(line)
        async for message in socket:
            request = json.loads(message)
            line.requests.append(request)
            reply = self.answer(request)
            if reply is not None:
                await socket.send(reply)
