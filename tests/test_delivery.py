"""How prices get from the socket to the strategy: on either loop, with or without TLS, by one wake-up a read, into
memory that is already there.
"""

import asyncio
import socket
import ssl
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiofastnet
import numpy as np
import pytest
from exchange import DEADLINE, PEM, Exchange, quote, until

import fastfeed
from fastfeed import Decoder, Feed
from fastfeed.streams import CALLBACK_ROWS, BatchCallback, Records

LOOPS = ["asyncio", *([] if sys.platform == "win32" else ["uvloop"])]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Runs a coroutine on the loop of that name."""
    factory = pytest.importorskip("uvloop").new_event_loop if request.param == "uvloop" else None

    def run(work: Any) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            assert type(runner.get_loop()).__module__.startswith(request.param)
            return runner.run(asyncio.wait_for(work, 2 * DEADLINE))

    return run


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(PEM))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_feed_delivers_everything_and_comes_back_after_a_cut(run: Callable[[Any], Any], tls: bool) -> None:
    async def live() -> None:
        async with Exchange(tls=tls) as exchange:
            options = {"ssl": trusting()} if tls else {}
            backoff = fastfeed.Backoff(base=0.01, cap=0.02)
            async with Feed(
                "binance-usdm", ["BTCUSDT", "ETHUSDT"], url=exchange.url, backoff=backoff, **options
            ) as feed:
                ticks, batches = feed.ticks(), feed.batches()
                exchange.line.send_together(*(quote(update=update, bid=update) for update in range(1, 101)))
                seen: list[int] = []
                async for part in ticks:
                    seen += part["seq"].tolist()
                    if len(seen) == 100:
                        break
                assert seen == list(range(1, 101))
                assert (await anext(batches))["bid"].tolist()[-1] == 100
                await (await exchange.line.socket.ping())
                exchange.cut()
                await exchange.has_lines(2)
                await exchange.send(quote("ETHUSDT", update=101, bid=7))
                async for batch in batches:
                    if 7 in batch["bid"]:
                        break
                stats = feed.stats()
                assert (stats["data"], stats["reconnects"], stats["pings_answered"]) == (101, 1, 1)
                for ledger in stats["consumers"].values():
                    total = sum(ledger[term] for term in ("delivered", "conflated", "dropped", "pending"))
                    assert ledger["received"] == total

    run(live())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_connection_runs_over_aiofastnet(
    run: Callable[[Any], Any], tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    create = aiofastnet.create_connection

    async def noted(*arguments: Any, **options: Any) -> Any:
        found = await create(*arguments, **options)
        made.append(found[0])
        return found

    monkeypatch.setattr(aiofastnet, "create_connection", noted)

    async def live() -> None:
        async with (
            Exchange(tls=tls) as exchange,
            Feed("binance-usdm", ["BTCUSDT"], url=exchange.url, **({"ssl": trusting()} if tls else {})),
        ):
            assert [type(transport).__module__.split(".")[0] for transport in made] == ["aiofastnet"]
            assert (made[0].get_extra_info("ssl_object") is not None) == tls

    run(live())


def test_one_read_is_one_wake_up_and_one_callback(run: Callable[[Any], Any]) -> None:
    async def live() -> None:
        async with Exchange() as exchange, Feed("binance-usdm", ["BTCUSDT"], url=exchange.url) as feed:
            shown: list[tuple[int, int]] = []
            feed.on_batch(lambda rows: shown.append((len(rows), int(rows["conflated"][0]))))
            batches = feed.batches()
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            exchange.line.send_together(*(quote(update=update, bid=update) for update in range(1, 21)))
            batch = await waiting
            assert (batch["bid"].tolist(), batch["conflated"].tolist()) == ([20], [19])
            assert shown == [(1, 19)]

    run(live())


# The callback's memory ----------------------------------------------------------------------------------------------


def frames(update: int, symbols: int) -> list[bytes]:
    return [quote(f"S{i}USDT", update * symbols + i, bid=update).encode() for i in range(symbols)]


@pytest.mark.parametrize("symbols", [1, 10, 200])
def test_a_callback_is_shown_its_batches_without_allocating(symbols: int) -> None:
    decoder = Decoder("binance-usdm")
    shown = [0]

    def look(rows: Records) -> None:
        shown[0] = len(rows)

    callback = BatchCallback("mine", look, decoder.prices.reader(), lambda handle, error: None)
    decoder.decode_many(frames(1, symbols))
    callback.run()  # makes the view of this length
    batches = [frames(update, symbols) for update in range(2, 52)]
    peaks = [0] * len(batches)
    tracemalloc.start()
    try:
        for i, batch in enumerate(batches):
            decoder.decode_many(batch)
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            callback.run()
            peaks[i] = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert shown == [symbols]
    assert max(peaks) < 64, peaks  # bytes: now and then an int of the measuring; a view takes more, and each time
    assert peaks.count(0) >= 45
    assert callback.ledger()["delivered"] == 51 * symbols


def test_batches_of_any_length_are_shown_whole_from_one_buffer() -> None:
    decoder = Decoder("binance-usdm")
    seen: list[list[float]] = []
    buffers: set[int] = set()

    def look(rows: Records) -> None:
        seen.append(rows["bid"].tolist())
        buffers.add(rows.__array_interface__["data"][0])

    callback = BatchCallback("mine", look, decoder.prices.reader(), lambda handle, error: None)
    lengths = [3, 1, 3, 2, CALLBACK_ROWS, 1, CALLBACK_ROWS + 5]
    for update, length in enumerate(lengths, 1):
        decoder.decode_many([quote(f"S{i}USDT", update * 10_000 + i, bid=update).encode() for i in range(length)])
        callback.run()
    expected = [[float(update)] * length for update, length in enumerate(lengths, 1)]
    assert seen == [*expected[:-1], [7.0] * CALLBACK_ROWS, [7.0] * 5]
    assert len(buffers) == 1


def test_a_reader_drains_into_any_array_and_keeps_only_the_first() -> None:
    decoder = Decoder("binance-usdm")
    reader = decoder.prices.reader()
    first, second = (np.zeros(4, fastfeed.PRICE_DTYPE) for _ in range(2))
    held = [sys.getrefcount(first), sys.getrefcount(second)]
    for update, out in enumerate([first, second, first, second], 1):
        decoder.decode_many(frames(update, 3))
        assert reader.drain(out) == 3
        assert out["bid"].tolist()[:3] == [update] * 3
    del out
    assert sys.getrefcount(second) == held[1]
    assert sys.getrefcount(first) > held[0]
    del reader
    assert sys.getrefcount(first) == held[0]


# The socket ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [8192, 1 << 20])
async def test_the_receive_buffer_is_bounded_before_the_connection_is_made(
    asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later the window could no longer be scaled to it. The kernel doubles what it is asked for, up to its limit."""
    opened: list[Any] = []
    limit = int(Path("/proc/sys/net/core/rmem_max").read_text()) if sys.platform == "linux" else 0  # noqa: ASYNC240

    class Noting(socket.socket):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.size_at_connect = 0
            opened.append(self)

        def connect(self, address: Any) -> None:
            self.size_at_connect = self.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            super().connect(address)

    async with Exchange() as exchange:
        feed = Feed("binance-usdm", ["BTCUSDT"], url=exchange.url, receive_buffer=asked)
        monkeypatch.setattr(socket, "socket", Noting)
        async with feed:
            monkeypatch.undo()
            (dialled,) = [one for one in opened if one.size_at_connect]
            now = dialled.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            assert dialled.size_at_connect == now
            if sys.platform == "linux":
                assert now == 2 * min(asked, limit)
            await until(lambda: feed.state == "LIVE", "the feed")
