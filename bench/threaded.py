"""What does a thread of its own cost? A Feed and a ThreadedFeed over loopback, in turn, in one run.

`python bench/threaded.py [--rounds 7] [--busy]`. Two questions: CPU seconds a million messages when the venue sends all
it can, and how long from the socket read to the consumer's hands at 1,000 reads a second. `--busy` asks the second one
again beside a thread that computes without pause, which is what a ThreadedFeed is for: there a Feed has no answer, for
the computing would be on its own loop. Nothing is decoded by anybody else.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np

import fastfeed

SYMBOLS = [f"S{i}USDT" for i in range(100)]
FLOOD = 400_000  # messages
STEADY = 2_000  # reads of one message, 1 ms apart


def frame(text: str) -> bytes:
    payload = text.encode()
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    return b"\x81" + size + payload


def quote(update: int) -> bytes:
    symbol = SYMBOLS[update % len(SYMBOLS)]
    return frame(
        f'{{"stream":"{symbol.lower()}@bookTicker","data":{{"e":"bookTicker","u":{update},"s":"{symbol}",'
        f'"b":"{update}.25","B":"31.21","a":"{update}.5","A":"40.66","T":1568014460891,"E":1568014460893}}}}'
    )


async def venue(mode: str) -> None:
    """Acks one request, then sends: all at once, or a message a millisecond."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b":")[1].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        writer.write(upgrade + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        await reader.read(1 << 16)
        writer.write(frame(json.dumps({"result": None, "id": 1})))
        await asyncio.sleep(0.2)
        if mode == "flood":
            for start in range(1, FLOOD + 1, 500):
                writer.write(b"".join(quote(update) for update in range(start, start + 500)))
                await writer.drain()
        else:
            for update in range(1, STEADY + 1):
                writer.write(quote(update))
                await asyncio.sleep(0.001)
        await reader.read()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


class Meter:
    """Counts what a consumer is handed; the age of each row when it is."""

    def __init__(self, until: int) -> None:
        self._until = until
        self._count = 0
        self._cpu = 0.0
        self.ages_ns: list[int] = []
        self.cpu = 0.0

    def take(self, batch: np.ndarray) -> bool:
        now = time.time_ns()
        if not self._count:
            self._cpu = time.process_time()
        self._count += len(batch) + int(batch["conflated"].sum())
        self.ages_ns.append(now - int(batch["recv_ns"].max()))
        self.cpu = time.process_time() - self._cpu
        return self._count >= self._until


def by_feed(port: int, meter: Meter) -> None:
    async def run() -> None:
        async with fastfeed.Feed("binance-usdm", SYMBOLS, url=f"ws://127.0.0.1:{port}") as feed:
            async for batch in feed.batches():
                if meter.take(batch):
                    return

    asyncio.run(run())


def by_threaded(port: int, meter: Meter) -> None:
    with fastfeed.ThreadedFeed("binance-usdm", SYMBOLS, url=f"ws://127.0.0.1:{port}") as feed:
        for batch in feed.batches():
            if meter.take(batch):
                return


def by_callback(port: int, meter: Meter) -> None:
    done = threading.Event()
    with fastfeed.ThreadedFeed("binance-usdm", SYMBOLS, url=f"ws://127.0.0.1:{port}") as feed:
        feed.on_batch(lambda rows: done.set() if meter.take(rows) else None)
        done.wait()


WAYS = {"Feed, async for": by_feed, "ThreadedFeed, for": by_threaded, "ThreadedFeed, on_batch": by_callback}


def measured(way: str, mode: str) -> Meter:
    command = [sys.executable, __file__, "--venue", mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            meter = Meter(FLOOD if mode == "flood" else STEADY)
            WAYS[way](int(process.stdout.readline()), meter)
        finally:
            process.kill()
    return meter


def told(ways: list[str], mode: str, rounds: int) -> Iterator[str]:
    found: dict[str, list[list[float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            meter = measured(way, mode)
            ages = np.percentile(meter.ages_ns, [50, 99]) / 1e3
            found[way].append([1e9 * meter.cpu / FLOOD] if mode == "flood" else ages.tolist())
    for way, values in found.items():
        medians = [statistics.median(value) for value in zip(*values, strict=True)]
        if mode == "flood":
            yield f"{way:<24}{medians[0]:>8,.0f} ns CPU a message"
        else:
            yield f"{way:<24}{medians[0]:>8,.0f} us p50 {medians[1]:>8,.0f} us p99, socket read to consumer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--venue", choices=["flood", "steady"])
    chosen = parser.parse_args()
    if chosen.venue:
        asyncio.run(venue(chosen.venue))
        return
    for mode in ("flood", "steady"):
        print(*told(list(WAYS), mode, chosen.rounds), sep="\n", flush=True)
    if chosen.busy:
        over = threading.Event()

        def compute() -> None:
            while not over.is_set():
                sum(range(1000))

        threading.Thread(target=compute).start()
        try:
            print(f"beside a thread that computes (switch interval {sys.getswitchinterval() * 1e3:g} ms)")
            print(*told(list(WAYS)[1:], "steady", chosen.rounds), sep="\n", flush=True)
        finally:
            over.set()


if __name__ == "__main__":
    main()
