"""Whole clients, one a process: each dials the source, subscribes, decodes and keeps the newest quote of every symbol.

Run by `Client` below: `python bench/clients.py NAME URL FRAMES`. Prints "ready" once everything is acknowledged, and at
the end one JSON line. Imports only what the client it is needs: nautilus_trader has an environment of its own.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import frames
from source import CERTIFICATE, MAX_TIMED, place, read_times

HERE = Path(__file__).parent
CHUNK = 100  # streams per SUBSCRIBE
PATH = "/public/stream"
SECONDS = 300.0
LEAD = 10  # a tenth of the frames are over before ages are kept

LEFT = "subscribing again, silence, sequences, freshness and books are left to its user"
MORE = f"reconnecting, fragmented messages, {LEFT}"
NOT_DONE = {
    "no-op picows listener, Cython": "it counts frames and looks into none",
    "picows + orjson": MORE,
    "picows + msgspec": MORE,
    "picows.websockets + orjson": LEFT,
    "websockets + orjson": LEFT,
    "aiohttp + orjson": f"reconnecting, {LEFT}",
    "nautilus_trader + msgspec": f"its raw client, without its adapters, which do more per message; {LEFT}",
    "python-binance": f"{LEFT}; its queue is unbounded here: with its default of 100 messages it would end",
    "massive": f"{LEFT}; its own forex quotes: shorter frames without sizes or update ids",
}


class Meter:
    """Takes the time at the first and at the last frame, and in between, if asked, the age of every price shown."""

    def __init__(self, frames: int, times: Path | None) -> None:
        self.frames = frames
        self.first = self.count = 0
        self.began = self.began_cpu = 0.0
        self.done = asyncio.Event()
        self.times = None
        if times is not None:
            self.times = read_times(times)
            self.sent = memoryview(self.times)  # a scalar of it costs a tenth of numpy's
            self.ages = self.times[:0].copy()
            self.ages.resize(MAX_TIMED)
            self.aged = 0

    def saw(self, count: int) -> None:
        """So many frames by now."""
        if not self.count:
            self.first, self.began, self.began_cpu = count, time.perf_counter(), time.process_time()
        self.count = count
        if count >= self.frames and not self.done.is_set():
            seconds, cpu = time.perf_counter() - self.began, time.process_time() - self.began_cpu
            per_frame = 1e9 / max(1, count - self.first)
            result = {"ns": seconds * per_frame, "cpu_ns": cpu * per_frame, "frames": count} | self._percentiles()
            print(json.dumps(result), flush=True)
            self.done.set()

    def shows(self, update: int) -> None:
        """The price of that update is before the user's eyes."""
        if self.times is not None:
            number = place(update)
            if number > self.frames // LEAD:
                self.ages[self.aged] = time.monotonic_ns() - self.sent[number]
                self.aged += 1

    def shows_rows(self, rows: Any) -> None:
        now = time.monotonic_ns()
        numbers = place(rows["quote_seq"])
        numbers = numbers[numbers > self.frames // LEAD]
        self.ages[self.aged : self.aged + len(numbers)] = now - self.times[numbers]
        self.aged += len(numbers)

    def _percentiles(self) -> dict[str, float]:
        if self.times is None or not self.aged:
            return {}
        kept = self.ages[: self.aged]
        kept.sort()
        return {f"p{rank:g}_us": kept[min(self.aged - 1, int(self.aged * rank / 100))] / 1e3 for rank in (50, 90, 99)}


class Quotes:
    """What every rival keeps: the newest quote of each symbol, as floats, and which symbols changed."""

    def __init__(self, meter: Meter, *, typed: bool = False) -> None:
        self.meter = meter
        self.count = 0
        self.acks = 0
        self.table: dict[str, tuple] = {}
        self.changed: set[str] = set()
        if typed:
            import msgspec

            book = msgspec.defstruct(
                "Book", [("s", str), ("u", int), ("b", float), ("B", float), ("a", float), ("A", float)]
            )
            message = msgspec.defstruct("Message", [("data", book | None, None)])
            self.decode = msgspec.json.Decoder(message, strict=False).decode
        else:
            import orjson

            self.decode = orjson.loads
        self.take = self.take_typed if typed else self.take_json

    def take_json(self, payload: bytes | memoryview | str) -> None:
        self.take_dict(self.decode(payload))

    def take_dict(self, message: dict) -> None:
        quote = message.get("data")
        if quote is None:
            self.acked()
            return
        symbol, update = quote["s"], quote["u"]
        last = self.table.get(symbol)
        if last is None or update > last[4]:
            self.table[symbol] = (float(quote["b"]), float(quote["B"]), float(quote["a"]), float(quote["A"]), update)
            self.changed.add(symbol)
        self.counted(update)

    def take_typed(self, payload: bytes | memoryview) -> None:
        quote = self.decode(payload).data
        if quote is None:
            self.acked()
            return
        last = self.table.get(quote.s)
        if last is None or quote.u > last[4]:
            self.table[quote.s] = (quote.b, quote.B, quote.a, quote.A, quote.u)
            self.changed.add(quote.s)
        self.counted(quote.u)

    def acked(self) -> None:
        self.acks += 1
        if self.acks == frames.SYMBOLS // CHUNK:
            print("ready", flush=True)

    def counted(self, update: int) -> None:
        self.count += 1
        if self.meter.times is not None:
            self.meter.shows(update)
        if self.count == 1 or self.count == self.meter.frames:
            self.meter.saw(self.count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dial:
    url: str
    tls: ssl.SSLContext | None
    receive_buffer: int


def requests() -> Iterator[str]:
    streams = [f"{name.lower()}@bookTicker" for name in frames.symbols()]
    for number, start in enumerate(range(0, frames.SYMBOLS, CHUNK), 1):
        yield json.dumps({"method": "SUBSCRIBE", "params": streams[start : start + CHUNK], "id": number})


async def by_fastfeed(dial: Dial, meter: Meter, **options: Any) -> None:
    import fastfeed
    from fastfeed.providers import provider

    usdm = provider("binance-usdm")
    # One connection for everyone: the rivals have one too.
    limits = dataclasses.replace(usdm.limits, streams_per_connection=1024)
    async with fastfeed.Feed(
        dataclasses.replace(usdm, limits=limits),
        frames.symbols(),
        channels=["quote"],
        url=dial.url,
        ssl=dial.tls,
        receive_buffer=dial.receive_buffer,
        **options,
    ) as feed:
        prices = feed.prices

        def on_rows(rows: Any) -> None:
            if meter.times is not None:
                meter.shows_rows(rows)
            meter.saw(prices.updates)

        feed.on_batch(on_rows)
        print("ready", flush=True)
        await meter.done.wait()


async def by_unwatched(dial: Dial, meter: Meter) -> None:
    """The same without pings, and without anybody who looks for silence."""
    import fastfeed

    nobody = fastfeed.Staleness(adaptive=False, silence_goes_unnoticed=True)
    await by_fastfeed(dial, meter, heartbeat=fastfeed.Heartbeat(interval=None), staleness=nobody)


async def by_noop(dial: Dial, meter: Meter) -> None:
    import importlib.util

    import prepare
    from picows import WSMsgType, WSTransport, ws_connect

    spec = importlib.util.spec_from_file_location("noop", prepare.NOOP)
    noop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(noop)
    acks = frames.SYMBOLS // CHUNK

    async def same_socket(url: Any) -> socket.socket:
        """As fastfeed's, so that both read as much at a time."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, dial.receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, (url.host, url.port))
        return sock

    def connected(transport: WSTransport) -> None:
        for request in requests():
            transport.send(WSMsgType.TEXT, request.encode())

    def saw(count: int) -> None:
        if count == acks:
            print("ready", flush=True)
        elif count > acks:
            meter.saw(count - acks)

    transport, _ = await ws_connect(
        lambda: noop.Noop(connected, saw), dial.url + PATH, ssl_context=dial.tls, socket_factory=same_socket
    )
    await meter.done.wait()
    transport.disconnect()


def by_picows(typed: bool) -> Callable[[Dial, Meter], Awaitable[None]]:
    async def run(dial: Dial, meter: Meter) -> None:
        from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

        take = Quotes(meter, typed=typed).take

        class Listener(WSListener):
            def on_ws_connected(self, transport: WSTransport) -> None:
                for request in requests():
                    transport.send(WSMsgType.TEXT, request.encode())

            def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
                if frame.msg_type == WSMsgType.TEXT:
                    take(frame.get_payload_as_memoryview())

        transport, _ = await ws_connect(Listener, dial.url + PATH, ssl_context=dial.tls)
        await meter.done.wait()
        transport.disconnect()

    return run


def by_websockets(package: str) -> Callable[[Dial, Meter], Awaitable[None]]:
    """websockets, and picows's double of it."""

    async def run(dial: Dial, meter: Meter) -> None:
        import importlib

        connect = importlib.import_module(package).connect
        quotes = Quotes(meter)
        options = {"compression": None, "max_queue": None, "proxy": None, "ssl": dial.tls}
        async with connect(dial.url + PATH, **options) as connection:
            for request in requests():
                await connection.send(request)
            while not meter.done.is_set():
                quotes.take(await connection.recv(decode=False))

    return run


async def by_aiohttp(dial: Dial, meter: Meter) -> None:
    import aiohttp

    quotes = Quotes(meter)
    options = {"compress": 0, "max_msg_size": 0, "ssl": True if dial.tls is None else dial.tls}
    async with aiohttp.ClientSession() as session, session.ws_connect(dial.url + PATH, **options) as connection:
        for request in requests():
            await connection.send_str(request)
        async for message in connection:
            quotes.take(message.data)
            if meter.done.is_set():
                break


async def by_nautilus(dial: Dial, meter: Meter) -> None:
    """Its Rust client, which hands every message to Python as bytes; decoded as its Binance adapter does."""
    from nautilus_trader.core.nautilus_pyo3 import WebSocketClient, WebSocketConfig

    quotes = Quotes(meter, typed=True)
    config = WebSocketConfig(dial.url + PATH, [])
    client = await WebSocketClient.connect(asyncio.get_running_loop(), config, quotes.take)
    for request in requests():
        await client.send_text(request.encode())
    await meter.done.wait()


async def by_python_binance(dial: Dial, meter: Meter) -> None:
    """Its socket, with orjson, and a queue that does not overflow."""
    from binance.ws.reconnecting_websocket import ReconnectingWebsocket

    quotes = Quotes(meter)
    client = ReconnectingWebsocket(url=dial.url, path=PATH, prefix="", max_queue_size=1 << 30, compression=None)
    await client.connect()
    for request in requests():
        await client.ws.send(request)
    while not meter.done.is_set():
        quotes.take_dict(await client.recv())


async def by_massive(dial: Dial, meter: Meter) -> None:
    """Its client, with orjson, on its own forex quotes."""
    import orjson
    from massive.websocket import Market, WebSocketClient

    table: dict[str, tuple] = {}
    changed: set[str] = set()
    count = 0

    class Client(WebSocketClient):
        async def _subscribe(self, topics: list[str] | set[str]) -> None:
            await super()._subscribe(topics)
            if topics:
                print("ready", flush=True)

    client = Client(
        "key",
        feed=dial.url.removeprefix("ws://"),
        market=Market.Forex,
        secure=False,
        subscriptions=["C.*"],
        custom_json=orjson,
    )

    async def on_quotes(messages: list) -> None:
        nonlocal count
        for quote in messages:
            last = table.get(quote.pair)
            if last is None or quote.timestamp >= last[2]:
                table[quote.pair] = (quote.bid_price, quote.ask_price, quote.timestamp)
                changed.add(quote.pair)
            count += 1
            if count == 1 or count == meter.frames:
                meter.saw(count)

    running = asyncio.create_task(client.connect(on_quotes, compression=None, max_queue=None, proxy=None))
    await asyncio.wait([running, asyncio.ensure_future(meter.done.wait())], return_when=asyncio.FIRST_COMPLETED)


OURS = "fastfeed.Feed"
UNWATCHED = "fastfeed.Feed, nobody watching"
NOOP = "no-op picows listener, Cython"
NAUTILUS = "nautilus_trader + msgspec"
CLIENTS: dict[str, Callable[[Dial, Meter], Awaitable[None]]] = {
    OURS: by_fastfeed,
    UNWATCHED: by_unwatched,
    NOOP: by_noop,
    "picows + orjson": by_picows(typed=False),
    "picows + msgspec": by_picows(typed=True),
    "picows.websockets + orjson": by_websockets("picows.websockets"),
    "websockets + orjson": by_websockets("websockets"),
    "aiohttp + orjson": by_aiohttp,
    NAUTILUS: by_nautilus,
    "python-binance": by_python_binance,
    "massive": by_massive,
}


def measured(
    name: str,
    source: Any,
    frames: int,
    *,
    loop: str = "asyncio",
    times: Path | None = None,
    receive_buffer: int = 1 << 20,
    **play: float,
) -> dict[str, float]:
    """One client in a fresh process: ns and client CPU ns a frame, and the ages of prices in us if `times` is given.

    `play` is how the source plays; without it, flat out. The machine belongs to the client and the source.
    """
    python = sys.executable
    if name == NAUTILUS:
        import prepare

        python = str(prepare.nautilus_python())
    command = [python, str(HERE / "clients.py"), name, source.url, str(frames), "--loop", loop]
    command += ["--receive-buffer", str(receive_buffer)] + ([] if times is None else ["--times", str(times)])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None
            said = client.stdout.readline().strip()
            if said != "ready":
                raise RuntimeError(f"{name} said {said!r} instead of subscribing")
            source.play(**(play or {"frames": frames}))
            answer = client.stdout.readline()
            if not answer:
                raise RuntimeError(f"{name} ended with status {client.wait(10)} before it had every frame")
        finally:
            client.kill()  # a goodbye of ten seconds is nobody's measure
    return json.loads(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CLIENTS)
    parser.add_argument("url")
    parser.add_argument("frames", type=int)
    parser.add_argument("--times", type=Path)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--receive-buffer", type=int, default=1 << 20)
    options = parser.parse_args()
    factory = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    context = ssl.create_default_context(cafile=CERTIFICATE) if options.url.startswith("wss") else None
    dial = Dial(url=options.url, tls=context, receive_buffer=options.receive_buffer)

    async def run() -> None:
        async with asyncio.timeout(SECONDS):
            await CLIENTS[options.name](dial, Meter(options.frames, options.times))
        os._exit(0)  # some clients leave threads and tasks behind that end only with the process

    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
