"""How long until a loss is noticed, and until every symbol delivers again? fastfeed and two clients that reconnect.

`python bench/bench_recovery.py [--fault cut] [--client fastfeed.Feed]`. The rivals are what their libraries offer for
this: websockets' `async for socket in connect(...)`, and the loop of picows' `examples/reconnecting_client.py`. All
ping every half second and give up half a second later (picows allows no more); what each waits before it dials again
is its own. Venue, proxy and client share one process and one loop.
"""

import argparse
import asyncio
import json
import logging
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import orjson
import picows
import websockets
from websockets.asyncio.client import connect

import fastfeed
from fastfeed.lab import Proxy, Venue, VenueProcess
from fastfeed.lab.load import symbol_names

HERE = Path(__file__).parent
SYMBOLS = symbol_names(10)
PATH = "/public/stream"
PING_INTERVAL, PONG_TIMEOUT = 0.5, 0.5
STABLE = 0.4  # seconds everything flows before the fault
REQUEST = json.dumps({"method": "SUBSCRIBE", "params": [f"{name.lower()}@bookTicker" for name in SYMBOLS], "id": 1})
LIMITS = {"messages_per_second": 1000}
RESTORED, ROUNDS = 1000, 9  # subscriptions, and how often they are cut and restored


class Client:
    """What is asked of each: how often every symbol has ticked, and whether a loss was noticed."""

    not_done = ""  # what it leaves to its user

    def __init__(self) -> None:
        self.has_noticed = False
        self._counts: Counter[str] = Counter()

    def counts(self) -> list[int]:
        return [self._counts[name] for name in SYMBOLS]

    def take(self, payload: bytes | memoryview | str) -> None:
        message = orjson.loads(payload)
        if "data" in message:
            self._counts[message["data"]["s"]] += 1

    async def run(self, url: str) -> None:
        raise NotImplementedError


class ByFastfeed(Client):
    def __init__(self) -> None:
        super().__init__()
        self._feed: fastfeed.Feed | None = None

    def counts(self) -> list[int]:
        prices = None if self._feed is None else self._feed.prices
        if prices is None or len(prices.symbols) < len(SYMBOLS):
            return [0] * len(SYMBOLS)
        return [int(prices.array["updates"][prices.id(name)]) for name in SYMBOLS]

    async def run(self, url: str) -> None:
        heartbeat = fastfeed.Heartbeat(interval=PING_INTERVAL, timeout=PONG_TIMEOUT)
        # Real connections live for days, these for a second: so they count as stable sooner than after five.
        backoff = fastfeed.Backoff(stable_after=STABLE / 2)
        self._feed = fastfeed.Feed("binance-usdm", SYMBOLS, url=url, heartbeat=heartbeat, backoff=backoff)
        async with self._feed as feed:
            async for event in feed.events():
                if isinstance(event, fastfeed.events.Disconnected | fastfeed.events.Stale):
                    self.has_noticed = True


class ByWebsockets(Client):
    not_done = "subscribing again, Retry-After (any 4xx ends the loop), silence, a bound on dials, what is missing"

    async def run(self, url: str) -> None:
        options = {"ping_interval": PING_INTERVAL, "ping_timeout": PONG_TIMEOUT}
        async for socket in connect(url + PATH, compression=None, max_queue=None, **options):
            try:
                await socket.send(REQUEST)
                async for message in socket:
                    self.take(message)
            except websockets.ConnectionClosed:
                pass
            self.has_noticed = True


class ByPicows(Client):
    not_done = "subscribing again, backoff, Retry-After, silence, a bound on dials, what is missing"

    async def run(self, url: str) -> None:
        client = self

        class Listener(picows.WSListener):
            def on_ws_connected(self, transport: picows.WSTransport) -> None:
                transport.send(picows.WSMsgType.TEXT, REQUEST.encode())

            def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
                if frame.msg_type == picows.WSMsgType.TEXT:
                    client.take(frame.get_payload_as_memoryview())

        while True:
            try:
                transport, _ = await picows.ws_connect(
                    Listener,
                    url + PATH,
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=PING_INTERVAL,
                    auto_ping_reply_timeout=PONG_TIMEOUT,
                )
                await transport.wait_disconnected()
                self.has_noticed = True
            except Exception:
                self.has_noticed = True
                await asyncio.sleep(5)


CLIENTS: dict[str, type[Client]] = {"fastfeed.Feed": ByFastfeed, "websockets": ByWebsockets, "picows": ByPicows}


# Each fault begins at once; what it returns ends it, if anything must.
async def cut(venue: Venue, proxy: Proxy) -> None:
    venue.cuts()


async def close(venue: Venue, proxy: Proxy) -> None:
    venue.closes(1012)


async def half_open(venue: Venue, proxy: Proxy) -> None:
    proxy.half_opens()


async def refuse(venue: Venue, proxy: Proxy) -> None:
    """Sent away, and 429 with Retry-After: 1 until that second is over."""
    venue.refuses(429, retry_after=1)
    venue.cuts()
    if await until(lambda: venue.totals["refused"] > 0, math.inf):
        await asyncio.sleep(1.0)
    venue.accepts_again()


async def unreachable(venue: Venue, proxy: Proxy) -> None:
    """Nobody listens for a second."""
    proxy.refuses()
    proxy.cuts()
    await asyncio.sleep(1.0)
    proxy.heals()


async def accept_then_close(venue: Venue, proxy: Proxy) -> None:
    """For a second whoever comes is accepted and politely sent away: the dials of that second are what to look at."""
    venue.evicts("newest", beyond=0, code=1000)
    venue.cuts()
    await asyncio.sleep(1.0)
    venue.tolerates_all()


async def freeze(venue: Venue, proxy: Proxy) -> None:
    """The other end is stopped like a process, and goes on once somebody has dialled it anew."""
    dials = proxy.count()["dials"]
    venue.freezes()
    await until(lambda: proxy.count()["dials"] > dials, math.inf)
    venue.thaws()


async def silence(venue: Venue, proxy: Proxy) -> None:
    """The data of a subscription ends, pongs flow; whoever subscribes again, here or on a new connection, gets it."""
    asked = venue.count()["requests"]
    venue.falls_silent()
    await until(lambda: venue.count()["requests"] > asked, math.inf)
    venue.speaks_again()


FAULTS: dict[str, tuple[str, Callable[[Venue, Proxy], Awaitable[None]]]] = {
    "cut": ("connection reset", cut),
    "close": ("CLOSE 1012", close),
    "unreachable": ("connection refused for 1 s", unreachable),
    "accept-then-close": ("accepted, then CLOSE 1000, for 1 s", accept_then_close),
    "half-open": ("half-open link", half_open),
    "freeze": ("the other end is frozen", freeze),
    "refuse": ("reset, then 429 Retry-After: 1", refuse),
    "silence": ("no data, pongs flow", silence),
}


async def until(condition: Callable[[], bool], seconds: float) -> float | None:
    """Seconds it took, or None."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < seconds:
        if condition():
            return loop.time() - began
        await asyncio.sleep(0.001)
    return None


async def measure(client: Client, fault: Callable[[Venue, Proxy], Awaitable[None]], patience: float) -> dict:
    """Seconds from the fault until it is noticed, and until every symbol has ticked after that; None: not in time."""
    async with Venue("binance-usdm", symbols=SYMBOLS, rate=5_000, **LIMITS) as venue, Proxy(venue.url) as proxy:
        running = asyncio.create_task(client.run(proxy.url))
        if await until(lambda: min(client.counts()) > 5, 5.0) is None:
            raise RuntimeError(f"{type(client).__name__} does not deliver")
        await asyncio.sleep(STABLE)
        client.has_noticed = False
        dials = proxy.count()["dials"]
        causing = asyncio.create_task(fault(venue, proxy))
        noticed = await until(lambda: client.has_noticed, patience)
        recovered = None
        if noticed is not None:
            before = client.counts()
            after = await until(
                lambda: all(now > then for now, then in zip(client.counts(), before, strict=True)), patience - noticed
            )
            recovered = None if after is None else noticed + after
        ended = f"ended by {type(running.exception()).__name__}" if running.done() else ""
        result = {
            "noticed": noticed,
            "recovered": recovered,
            "dials": proxy.count()["dials"] - dials,
            "refused": venue.totals["refused"],
            "ended": ended,
        }
        for task in (causing, running):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
    return result


async def restore() -> dict:
    """Milliseconds from the handshake until every subscription delivers again, the provider's pace lifted.

    `cpu_ms` is what this process worked meanwhile; the rest it waited for the venue and the machine.
    """
    provider = fastfeed.providers.provider("binance-usdm")
    unlimited = replace(
        provider, limits=replace(provider.limits, messages_per_second=None, dials_per_five_minutes=None)
    )
    names = symbol_names(RESTORED)
    took, worked = [], []
    # So many ticks a second that the wait for a symbol's first one is short beside our own work.
    with VenueProcess("binance-usdm", symbols=RESTORED, rate=200_000, messages_per_second=1000) as venue:
        backoff = fastfeed.Backoff(stable_after=STABLE / 2)
        async with fastfeed.Feed(unlimited, names, url=venue.url, backoff=backoff) as feed:
            await feed.wait_live()
            told, connections = feed.events(), feed.stats()["connections"]
            for _ in range(ROUNDS):
                await asyncio.sleep(STABLE)
                venue.cuts()
                opened, restored = math.inf, 0  # the first of the connections counts, and all are waited for
                async for event in told:
                    now = asyncio.get_running_loop().time()
                    if isinstance(event, fastfeed.events.Connected) and opened == math.inf:
                        opened, begun = now, time.process_time()
                    if isinstance(event, fastfeed.events.Restored):
                        if event.missing:
                            raise RuntimeError(f"{len(event.missing)} subscriptions are missing")
                        restored += 1
                        if restored == connections:
                            break
                took.append((now - opened) * 1e3)
                worked.append((time.process_time() - begun) * 1e3)
    medians = {"median_ms": statistics.median(took), "cpu_ms": statistics.median(worked)}
    return {"subscriptions": RESTORED, "connections": connections, "ms": took, **medians}


def lines(results: dict[str, dict[str, dict]], patience: float) -> Iterator[str]:
    def seconds(value: float | None) -> str:
        return f"{value:.3f}" if value is not None else f"> {patience:g}"

    yield f"{'fault':36}{'client':16}{'noticed s':>10}{'again s':>10}{'dials':>7}{'refused':>9}"
    for fault, by_client in results.items():
        for name, result in by_client.items():
            times = f"{seconds(result['noticed']):>10}{seconds(result['recovered']):>10}"
            counts = f"{result['dials']:>7}{result['refused']:>9}"
            yield f"{FAULTS[fault][0]:36}{name:16}{times}{counts}  {result['ended']}"
    for name, client in CLIENTS.items():
        if client.not_done:
            yield f"{name} leaves to its user: {client.not_done}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fault", choices=FAULTS, action="append", help="may be repeated; default all")
    parser.add_argument("--client", choices=CLIENTS, action="append", help="may be repeated; default all")
    parser.add_argument("--patience", type=float, default=12.0, help="seconds waited for each (default 12)")
    parser.add_argument("--json", type=Path, default=HERE / "recovery.json", help="where to write the numbers")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the faults are meant
    results: dict[str, dict[str, dict]] = {}
    for fault in options.fault or FAULTS:
        for name in options.client or CLIENTS:
            measured = asyncio.run(measure(CLIENTS[name](), FAULTS[fault][1], options.patience))
            results.setdefault(fault, {})[name] = measured
    print("\n".join(lines(results, options.patience)))
    restored = asyncio.run(restore())
    spread = f"{min(restored['ms']):.0f} to {max(restored['ms']):.0f} ms in {ROUNDS} cuts"
    print(f"{RESTORED:,} subscriptions on {restored['connections']} connections deliver {restored['median_ms']:.0f} ms")
    print(f"after the first handshake ({spread}), {restored['cpu_ms']:.0f} ms of it work of this process")
    written = {"patience": options.patience, "results": results, "restore": restored}
    options.json.write_text(json.dumps(written, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
