"""The lab's proxy: each way it worsens the network, seen by plain sockets, and what a feed behind it makes of that.

Times are only ever bounded from below: a loaded machine is slower, never faster.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest
from exchange import DEADLINE, PEM, Exchange, quote, until

from fastfeed import Backoff, Feed, Heartbeat, events
from fastfeed.errors import ConfigError
from fastfeed.lab import Proxy, Venue

NAMES = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
HELLO = b"GET / HTTP/1.1\r\nHost: proxy\r\n\r\n"
T = TypeVar("T")


async def soon(what: Awaitable[T]) -> T:
    async with asyncio.timeout(DEADLINE):
        return await what


class Peers:
    """A client and a server with a proxy between; the handshake's head is already through."""

    def __init__(self, proxy: Proxy, up: asyncio.StreamWriter, down: asyncio.StreamReader) -> None:
        self.proxy, self.up, self.down = proxy, up, down
        self.server_in: asyncio.StreamReader
        self.server_out: asyncio.StreamWriter


@contextlib.asynccontextmanager
async def peers() -> AsyncIterator[Peers]:
    met: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda *streams: met.put_nowait(streams), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Proxy(f"ws://127.0.0.1:{port}") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        pair = Peers(proxy, writer, reader)
        writer.write(HELLO)
        pair.server_in, pair.server_out = await soon(met.get())
        head = await soon(pair.server_in.readuntil(b"\r\n\r\n"))
        assert head == f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        try:
            yield pair
        finally:
            for end in (writer, pair.server_out, *(met.get_nowait()[1] for _ in range(met.qsize()))):
                end.transport.abort()
            server.close()
            await asyncio.sleep(0)  # the transports close their sockets


async def test_bytes_pass_in_both_directions_and_so_does_the_end() -> None:
    async with peers() as pair:
        pair.up.write(b"up" * 100_000)
        assert await soon(pair.server_in.readexactly(200_000)) == b"up" * 100_000
        pair.server_out.write(b"down")
        pair.server_out.close()
        assert await soon(pair.down.read()) == b"down"
        assert pair.proxy.count()["bytes_down"] == 4


async def test_a_delay_keeps_bytes_back_and_in_order() -> None:
    async with peers() as pair:
        pair.proxy.delays(0.05, jitter=0.05)
        loop = asyncio.get_running_loop()
        sent = b"".join(b"%05d" % number for number in range(1000))
        for start in range(0, len(sent), 500):
            pair.server_out.write(sent[start : start + 500])
            await pair.server_out.drain()
            await asyncio.sleep(0)
        assert await soon(pair.down.readexactly(len(sent))) == sent
        pair.proxy.delays(0.1)
        began = loop.time()
        pair.server_out.write(b"!")
        await soon(pair.down.readexactly(1))
        assert loop.time() - began >= 0.1


async def test_a_cut_resets_both_sides() -> None:
    async with peers() as pair:
        pair.proxy.cuts()
        for reader in (pair.down, pair.server_in):
            with pytest.raises(ConnectionResetError):
                await soon(reader.read())
        await until(lambda: pair.proxy.count()["open"] == 0, "the link to be forgotten")
        assert pair.proxy.count()["cut"] == 1


async def test_a_reset_passes_through() -> None:
    async with peers() as pair:
        pair.server_out.transport.abort()
        pair.up.write(b"?")
        with contextlib.suppress(ConnectionResetError):
            assert await soon(pair.down.read()) == b""


async def test_half_open_lets_neither_bytes_nor_an_end_through_and_new_connections_work() -> None:
    async with peers() as pair:
        pair.proxy.half_opens()
        pair.up.write(b"up")
        pair.server_out.write(b"down")
        pair.server_out.write_eof()
        down, up = asyncio.create_task(pair.down.read()), asyncio.create_task(pair.server_in.read(10))
        _, writer = await asyncio.open_connection("127.0.0.1", int(pair.proxy.url.rpartition(":")[2]))
        writer.write(HELLO)
        await until(lambda: pair.proxy.count()["bytes_up"] >= 2 * len(HELLO), "the new connection's first bytes")
        assert not down.done()
        assert not up.done()
        writer.transport.abort()
        pair.proxy.heals()
        assert await soon(up) == b"up"
        assert await soon(down) == b"down"


async def test_slices_are_no_longer_than_said() -> None:
    async with peers() as pair:
        pair.proxy.slices(3, pause=0.002)
        pair.server_out.write(b"0123456789" * 3)
        pieces = []
        while sum(map(len, pieces)) < 30:
            pieces.append(await soon(pair.down.read(100)))
        assert b"".join(pieces) == b"0123456789" * 3
        assert len(pieces) > 1


async def test_a_narrow_link_takes_its_time() -> None:
    async with peers() as pair:
        pair.proxy.narrows(10_000)
        began = asyncio.get_running_loop().time()
        pair.server_out.write(bytes(2_000))
        await soon(pair.down.readexactly(2_000))
        assert asyncio.get_running_loop().time() - began >= 0.15


async def test_who_dials_a_refusing_proxy_is_reset_until_it_heals() -> None:
    async with Venue("binance-usdm", symbols=NAMES, rate=1000) as venue, Proxy(venue.url) as proxy:
        proxy.refuses()
        feed = Feed("binance-usdm", NAMES, url=proxy.url, backoff=Backoff(base=0.05, cap=0.1))
        entering = asyncio.create_task(feed.__aenter__())
        await until(lambda: proxy.count()["refused"] >= 2, "two refused dials")
        proxy.heals()
        await soon(entering)
        await feed.close()


async def test_nobody_behind_the_proxy_is_a_reset() -> None:
    async with Venue("binance-usdm", symbols=1) as venue:
        gone = venue.url
    async with Proxy(gone) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        with pytest.raises(ConnectionResetError):
            await soon(reader.read())
        writer.close()


@pytest.mark.parametrize("url", ["127.0.0.1:80", "http://x:1", "ws://", "ws://x:port", "ws://x:1/path"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="Proxy"):
        Proxy(url)


@pytest.mark.parametrize(
    "command",
    [
        lambda proxy: proxy.delays(-1),
        lambda proxy: proxy.delays(0.1, jitter=0.2),
        lambda proxy: proxy.slices(0),
        lambda proxy: proxy.slices(1, pause=-1),
        lambda proxy: proxy.narrows(0),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(command: Callable[[Proxy], None]) -> None:
    with pytest.raises(ConfigError):
        command(Proxy("ws://127.0.0.1:1"))


async def test_a_server_behind_tls_is_reached_in_the_clear() -> None:
    trusted = ssl.create_default_context(cafile=str(PEM))
    async with (
        Exchange(tls=True) as exchange,
        Proxy(exchange.url, tls=trusted) as proxy,
        Feed("binance-usdm", ["BTCUSDT"], url=proxy.url) as feed,
    ):
        await exchange.send(quote(bid=7.0))
        await until(lambda: len(feed.prices.symbols) and feed.prices["BTCUSDT"]["bid"] == 7.0, "the quote")
        assert exchange.line.headers["Host"] == f"localhost:{exchange.port}"


# ---------------------------------------------------------------------------------------------------- a feed behind it


@contextlib.asynccontextmanager
async def feed_behind() -> AsyncIterator[tuple[Feed, Proxy, Venue]]:
    async with (
        Venue("binance-usdm", symbols=NAMES, rate=1000) as venue,
        Proxy(venue.url) as proxy,
        Feed(
            "binance-usdm",
            NAMES,
            url=proxy.url,
            heartbeat=Heartbeat(interval=0.1, timeout=0.3),
            backoff=Backoff(base=0.05, cap=0.2, stable_after=0.1),
        ) as feed,
    ):
        await feed.wait_live(timeout=DEADLINE)
        yield feed, proxy, venue


async def delivers_again(feed: Feed) -> None:
    before = feed.prices.array["updates"].copy()
    await until(lambda: bool((feed.prices.array["updates"] > before).all()), "every symbol to deliver again")


async def test_a_half_open_connection_is_found_out_and_replaced() -> None:
    async with feed_behind() as (feed, proxy, venue):
        told = feed.events()
        proxy.half_opens()
        async with asyncio.timeout(DEADLINE):
            async for event in told:
                if isinstance(event, events.Disconnected):
                    break
        await delivers_again(feed)
        assert proxy.count()["dials"] == 2
        assert len(venue.connections) == 2  # the venue has not been told that the first is gone


async def test_a_cut_is_redialled() -> None:
    async with feed_behind() as (feed, proxy, _):
        proxy.cuts()
        await until(lambda: proxy.count()["dials"] == 2, "the redial")
        await delivers_again(feed)


async def test_frames_cut_into_crumbs_are_read_whole() -> None:
    async with feed_behind() as (feed, proxy, venue):
        proxy.slices(7)
        await delivers_again(feed)
        venue.rests()
        await until(lambda: feed.decoder.stats()["data"] == venue.count()["data"], "every frame to be read")
        stats = feed.decoder.stats()
        assert (stats["malformed"], stats["unknown"], len(feed.gaps())) == (0, 0, 0)


async def test_a_slow_network_is_not_taken_for_a_dead_one() -> None:
    async with feed_behind() as (feed, proxy, _):
        proxy.delays(0.05, jitter=0.02)
        await delivers_again(feed)
        await until(lambda: feed.stats()["rtt_ms"]["p50"] >= 60, "a round trip of twice the delay")
        assert proxy.count()["dials"] == 1
