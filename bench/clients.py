"""Whole clients over loopback, one a process: each dials the venue, subscribes, decodes and conflates every frame.

Run by run.py: `python bench/clients.py NAME URL FRAMES`. Prints "ready" once everything is acknowledged, and at the end
one JSON line: frames counted, seconds from the first to the last of them, and the process's CPU seconds in between.
"""

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import orjson

from fastfeed.lab.load import symbol_names

SYMBOLS = 500
CHUNK = 100  # streams per SUBSCRIBE
PATH = "/public/stream"


class Meter:
    """Takes the time at the first and at the last frame."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.first = self.count = 0
        self.began = self.began_cpu = 0.0
        self.done = asyncio.Event()

    def saw(self, count: int) -> None:
        """So many frames by now."""
        if not self.count:
            self.first, self.began, self.began_cpu = count, time.perf_counter(), time.process_time()
        self.count = count
        if count >= self.frames and not self.done.is_set():
            seconds, cpu = time.perf_counter() - self.began, time.process_time() - self.began_cpu
            print(json.dumps({"frames": count - self.first, "seconds": seconds, "cpu_seconds": cpu}), flush=True)
            self.done.set()


class Quotes:
    """What every rival keeps: the newest quote of each symbol, as floats, and which symbols changed."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.count = 0
        self.acks = 0
        self.table: dict[str, tuple] = {}
        self.changed: set[str] = set()

    def take(self, payload: bytes | memoryview | str) -> None:
        message = orjson.loads(payload)
        quote = message.get("data")
        if quote is None:
            self.acks += 1
            if self.acks == SYMBOLS // CHUNK:
                print("ready", flush=True)
            return
        symbol, update = quote["s"], quote["u"]
        last = self.table.get(symbol)
        if last is None or update > last[4]:
            self.table[symbol] = (float(quote["b"]), float(quote["B"]), float(quote["a"]), float(quote["A"]), update)
            self.changed.add(symbol)
        self.count += 1
        if self.count == 1 or self.count == self.meter.frames:
            self.meter.saw(self.count)


def requests() -> Iterator[str]:
    streams = [f"{name.lower()}@bookTicker" for name in symbol_names(SYMBOLS)]
    for number, start in enumerate(range(0, SYMBOLS, CHUNK), 1):
        yield json.dumps({"method": "SUBSCRIBE", "params": streams[start : start + CHUNK], "id": number})


async def by_fastfeed(url: str, meter: Meter) -> None:
    import fastfeed
    from fastfeed.providers import provider

    usdm = provider("binance-usdm")
    # One connection for everyone: the rivals have one too.
    one = dataclasses.replace(usdm, limits=dataclasses.replace(usdm.limits, streams_per_connection=1024))
    async with fastfeed.Feed(one, symbol_names(SYMBOLS), channels=["quote"], url=url) as feed:
        prices = feed.prices
        feed.on_batch(lambda rows: meter.saw(prices.updates))
        print("ready", flush=True)
        await meter.done.wait()


async def by_picows(url: str, meter: Meter) -> None:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    quotes = Quotes(meter)

    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            for request in requests():
                transport.send(WSMsgType.TEXT, request.encode())

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.TEXT:
                quotes.take(frame.get_payload_as_memoryview())

    transport, _ = await ws_connect(Listener, url + PATH)
    await meter.done.wait()
    transport.disconnect()


async def by_websockets(url: str, meter: Meter) -> None:
    import websockets

    quotes = Quotes(meter)
    async with websockets.connect(url + PATH, compression=None, max_queue=None) as socket:
        for request in requests():
            await socket.send(request)
        while not meter.done.is_set():
            quotes.take(await socket.recv(decode=False))


async def by_aiohttp(url: str, meter: Meter) -> None:
    import aiohttp

    quotes = Quotes(meter)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url + PATH, compress=0, max_msg_size=0) as socket,
    ):
        for request in requests():
            await socket.send_str(request)
        async for message in socket:
            quotes.take(message.data)
            if meter.done.is_set():
                break


CLIENTS: dict[str, Callable[[str, Meter], Awaitable[None]]] = {
    "fastfeed.Feed": by_fastfeed,
    "picows + orjson": by_picows,
    "aiohttp + orjson": by_aiohttp,
    "websockets + orjson": by_websockets,
}


async def main(name: str, url: str, frames: int) -> None:
    await CLIENTS[name](url, Meter(frames))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
