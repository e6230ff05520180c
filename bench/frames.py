"""The frames every rival decodes: made ones, distinct and Zipf-distributed over 500 symbols, and recorded ones.

Makes bytes only; the same seed makes the same frames.
"""

import gzip
import os
import random
from pathlib import Path

SYMBOLS = 500
COUNT = 100_000


def symbols(count: int = SYMBOLS) -> list[str]:
    """Names as futures venues have them, three to twelve letters before the quote currency."""
    choose = random.Random(1)
    names = {"BTCUSDT", "ETHUSDT", "1000PEPEUSDT"}
    while len(names) < count:
        names.add("".join(choose.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=choose.randint(2, 7))) + "USDT")
    return sorted(names)


def quotes(count: int = COUNT, seed: int = 1) -> list[bytes]:
    """USD-M bookTicker frames as of 2026, about 165 bytes: all distinct, 1 to 8 decimals, 0.001 to 99999."""
    choose = random.Random(seed)
    names = symbols()
    weights = [1 / rank for rank in range(1, len(names) + 1)]
    decimals = {name: choose.randint(1, 8) for name in names}
    prices = {name: 10 ** choose.uniform(-3, 5) for name in names}
    frames, update, time_ms = [], 400_900_217, 1_767_225_600_000
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


def recorded_quotes() -> list[bytes]:
    """The recorded USD-M bookTicker frames, envelope and all; empty where FASTFEED_FRAMES names no folder."""
    folder = os.environ.get("FASTFEED_FRAMES")
    if not folder:
        return []
    with gzip.open(Path(folder) / "binance-usdm_btcusdt_20240808.gz") as lines:
        frames = [line.rstrip(b"\n").split(b" ", 1)[1] for line in lines]
    return [frame for frame in frames if b'"e":"bookTicker"' in frame]


def mixed(count: int = COUNT) -> list[bytes]:
    """The made quotes in one of two layouts each, at random: bare, and in a combined stream's envelope."""
    choose = random.Random(2)
    return [
        frame if choose.random() < 0.5 else b'{"stream":"x@bookTicker","data":' + frame + b"}"
        for frame in quotes(count)
    ]
