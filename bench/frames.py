"""The frames every rival decodes: made ones, distinct and Zipf-distributed over 500 symbols, and recorded ones.

Makes bytes only; the same seed makes the same frames. Needs nothing installed.
"""

import gzip
import json
import os
import random
from pathlib import Path

SYMBOLS = 500
COUNT = 100_000
FIRST_UPDATE = 400_900_217
TIME_MS = 1_767_225_600_000
RECORDING = "binance-usdm_btcusdt_20240808.gz"


def symbols(count: int = SYMBOLS) -> list[str]:
    """Names as futures venues have them, three to twelve letters before the quote currency."""
    choose = random.Random(1)
    names = {"BTCUSDT", "ETHUSDT", "1000PEPEUSDT"}
    while len(names) < count:
        names.add("".join(choose.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=choose.randint(2, 7))) + "USDT")
    return sorted(names)


def quotes(count: int = COUNT, seed: int = 1, *, update: int = FIRST_UPDATE, time_ms: int = TIME_MS) -> list[bytes]:
    """USD-M bookTicker frames as of 2026, about 165 bytes: all distinct, 1 to 8 decimals, 0.001 to 99999."""
    choose = random.Random(seed)
    names = symbols()
    weights = [1 / rank for rank in range(1, len(names) + 1)]
    decimals = {name: choose.randint(1, 8) for name in names}
    prices = {name: 10 ** choose.uniform(-3, 5) for name in names}
    frames = []
    for name in choose.choices(names, weights, k=count):
        prices[name] *= 1 + choose.uniform(-0.001, 0.001)
        update += choose.randint(1, 5)
        time_ms += choose.random() < 0.3
        digits, bid = decimals[name], prices[name]
        ask, sizes = bid * 1.0001 + 10**-digits, [choose.uniform(0.001, 9999) for _ in range(2)]
        frames.append(
            f'{{"e":"bookTicker","u":{update},"E":{time_ms + 3},"T":{time_ms},"s":"{name}","b":"{bid:.{digits}f}",'
            f'"B":"{sizes[0]:.3f}","a":"{ask:.{digits}f}","A":"{sizes[1]:.3f}","st":1,"ps":"{name}"}}'.encode()
        )
    assert len(set(frames)) == count
    return frames


def lead(count: int = COUNT) -> list[bytes]:
    """Quotes older than all others here, for the same symbols: what a decoder has seen before it is timed."""
    return quotes(count, seed=3, update=1_000_000, time_ms=TIME_MS - 100_000_000)


def recorded_quotes() -> list[bytes]:
    """The recorded USD-M bookTicker frames, envelope and all; empty where FASTFEED_FRAMES names no folder."""
    folder = os.environ.get("FASTFEED_FRAMES")
    if not folder:
        return []
    with gzip.open(Path(folder) / RECORDING) as lines:
        frames = [line.rstrip(b"\n").split(b" ", 1)[1] for line in lines]
    return [frame for frame in frames if b'"e":"bookTicker"' in frame]


def enveloped(frame: bytes) -> bytes:
    """As it comes on a combined stream."""
    return b'{"stream":"x@bookTicker","data":' + frame + b"}"


def mixed(made: list[bytes]) -> list[bytes]:
    """The made quotes in one of two layouts each, at random: bare, and in a combined stream's envelope."""
    choose = random.Random(2)
    return [frame if choose.random() < 0.5 else enveloped(frame) for frame in made]


def shuffled(made: list[bytes]) -> list[bytes]:
    """The made quotes, the keys of each in an order of its own: no layout can be predicted."""
    choose = random.Random(4)
    frames = []
    for frame in made:
        fields = list(json.loads(frame).items())
        choose.shuffle(fields)
        frames.append(json.dumps(dict(fields), separators=(",", ":")).encode())
    return frames


def spread(symbols: int, count: int = COUNT, *, passes: int = 1, is_zipf: bool = False) -> list[bytes]:
    """Bare quotes of that many symbols, all newer than those of an earlier pass.

    Every symbol comes equally often and in no order, the worst a cache can be given; or Zipf-distributed.
    """
    choose = random.Random(f"{symbols} {passes}")
    names = [f"S{number:05}USDT" for number in range(symbols)]
    order: list[str] = []
    if is_zipf:
        order = choose.choices(names, [1 / rank for rank in range(1, symbols + 1)], k=count)
    while len(order) < count:
        order += choose.sample(names, min(symbols, count))
    frames = []
    for update, name in enumerate(order[:count], FIRST_UPDATE + passes * COUNT):
        bid, size = choose.uniform(1, 1000), choose.uniform(0.001, 9999)
        frames.append(
            f'{{"e":"bookTicker","u":{update},"E":{TIME_MS + 3},"T":{TIME_MS},"s":"{name}","b":"{bid:.4f}",'
            f'"B":"{size:.3f}","a":"{bid + 0.01:.4f}","A":"{size + 1:.3f}","st":1,"ps":"{name}"}}'.encode()
        )
    return frames
