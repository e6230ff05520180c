"""How many instructions does a frame cost, by kind of frame? Counted by callgrind: the machine's load changes nothing.

Compares with instructions.json and exits with 1 if a kind costs over 2 % more; `--update` writes the counts anew. They
hold for the compiler that made the module and Python's minor version. Where there are none for these, it tells what it
counted, says that nothing was compared, and fails nobody. Needs valgrind.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import formats
import frames

from fastfeed.schema import Schema

HERE = Path(__file__).parent
COMMITTED = HERE / "instructions.json"
KERNEL = "sse2"  # every x86-64 has it, and callgrind counts it
TOLERANCE = 0.02
COUNT = 2000  # frames of a kind; as many before them teach the decoder their layouts
TIMED = rb"__pyx_pw_\w+Decoder_\w*decode_many[\w.]*"  # as the module's symbol table has it

# name -> (provider or schema, what the decoder counts them as, frames)
Kinds = dict[str, tuple[str | Schema, str, list[bytes]]]


def numbered(text: str) -> list[bytes]:
    """Distinct frames: `%d` is replaced by a number that rises by one, `%p` by a price."""
    return [
        text.replace("%d", str(7_000_000 + number)).replace("%p", f"{100 + number % 977 / 7:.4f}").encode()
        for number in range(2 * COUNT)
    ]


def kinds() -> Kinds:
    made = frames.quotes(2 * COUNT)
    stocks = formats.stock_quotes(2 * COUNT)
    other = [(name, formats.FORMATS[name]) for name in ("msgpack", "sbe")]
    levels = ",".join(f'["%p","{size}.125"]' for size in range(10))
    time = '"E":1767225600003,"T":1767225600000'
    trade = '{"e":"aggTrade","E":1767225600003,"s":"BTCUSDT","a":%d,"p":"%p","q":"0.125","f":1,"l":2,'
    depth = f'{{"e":"depthUpdate",{time},"s":"BTCUSDT","U":%d,"u":%d,"pu":%d,"b":[{levels}],"a":[{levels}]}}'
    mark = '{"e":"markPriceUpdate","E":1767225600003,"s":"BTCUSDT","p":"%p","i":"%p","P":"%p","r":"0.0001","T":%d}'
    return {
        "usdm quote": ("binance-usdm", "data", made),
        "usdm quote, enveloped": ("binance-usdm", "data", [frames.enveloped(frame) for frame in made]),
        "usdm quote, two layouts at random": ("binance-usdm", "data", frames.mixed(made)),
        "usdm quote, keys shuffled": ("binance-usdm", "data", frames.shuffled(made)),
        "usdm trade": ("binance-usdm", "data", numbered(trade + '"T":1767225600000,"m":true}')),
        "usdm mark price": ("binance-usdm", "data", numbered(mark)),
        "usdm depth, 20 levels": ("binance-usdm", "data", numbered(depth)),
        "spot quote": (
            "binance-spot",
            "data",
            numbered('{"u":%d,"s":"BTCUSDT","b":"%p","B":"1.5","a":"%p","A":"2.25"}'),
        ),
        "stock quote in an array of one": ("polygon", "data", [formats.array("json", [quote]) for quote in stocks]),
        "stock quotes, ten in an array": (
            "polygon",
            "data",
            [formats.array("json", [stocks[(i + k) % len(stocks)] for k in range(10)]) for i in range(2 * COUNT)],
        ),
        **{f"{name} quote": (schema, "data", list(map(pack, map(json.loads, made)))) for name, (schema, pack) in other},
        "ack": ("binance-usdm", "control", numbered('{"result":null,"id":%d}')),
        "unknown": ("binance-usdm", "unknown", numbered('{"e":"somethingNew","s":"BTCUSDT","p":"%p","u":%d}')),
    }


def play() -> None:
    """What runs under callgrind: two calls a kind, the first to learn and the second to count."""
    import fastfeed

    assert os.environ["FASTFEED_SIMD"] == KERNEL
    for kind, (provider, counted, payloads) in kinds().items():
        decoder = fastfeed.Decoder(provider, clock=fastfeed.Clock.manual(utc_ns=frames.TIME_MS * 1_000_000))
        decoder.prices.reader()
        decoder.decode_many(payloads[:COUNT])
        decoder.decode_many(payloads[COUNT:])
        if decoder.stats()[counted] != 2 * COUNT:
            raise ValueError(f"not every frame of {kind!r} is {counted}: {decoder.stats()}")


def measured() -> dict[str, int]:
    """Instructions a frame, by kind."""
    found = re.search(TIMED, module().read_bytes())
    if found is None:
        sys.exit(f"instructions: {module().name} has no function like {TIMED.decode()}: is it stripped?")
    # The whole name: callgrind does not give one pattern with a star both meanings.
    name = found[0].decode()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        subprocess.run(
            [
                "valgrind", "--tool=callgrind", f"--toggle-collect={name}", f"--dump-after={name}",
                f"--callgrind-out-file={out}", sys.executable, __file__, "--play",
            ],
            env=os.environ | {"FASTFEED_SIMD": KERNEL, "PYTHONHASHSEED": "0"},
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        dumps = [total_of((Path(folder) / f"out.{number}").read_text()) for number in range(1, 2 * len(kinds()) + 1)]
    return {kind: round(total / COUNT) for kind, total in zip(kinds(), dumps[1::2], strict=True)}


def total_of(dump: str) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", dump, re.M)
    if found is None or int(found[1]) == 0:
        raise ValueError("callgrind counted nothing")
    return int(found[1])


def module() -> Path:
    from fastfeed import _core

    return Path(_core.__file__)


def compiler_of(module: Path) -> str:
    """What compiled it, as it says itself: "gcc-12", "clang-14"."""
    binary = module.read_bytes()
    for name, pattern in (("clang", rb"clang version (\d+)"), ("gcc", rb"GCC: \([^)]*\) (\d+)")):
        found = re.search(pattern, binary)
        if found is not None:
            return f"{name}-{found[1].decode()}"
    return "unknown"


def key() -> str:
    return f"{platform.machine()} {compiler_of(module())} python-{sys.version_info.major}.{sys.version_info.minor}"


def worse(now: Mapping[str, int], before: Mapping[str, int]) -> list[str]:
    """The kinds that cost more than they may, and those that nobody has counted before."""
    return [kind for kind, count in now.items() if kind not in before or count > before[kind] * (1 + TOLERANCE)]


def lines(now: Mapping[str, int], before: Mapping[str, int]) -> list[str]:
    def change(kind: str, count: int) -> str:
        return f"{100 * (count / before[kind] - 1):+7.1f} %" if kind in before else "      new"

    return [f"  {kind:36}{count:8,} {change(kind, count)}" for kind, count in now.items()]


def main(measure: Callable[[], dict[str, int]] = measured) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the counts anew instead of comparing")
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        play()
        return 0
    import fastfeed

    if KERNEL not in fastfeed.kernels():
        print(f"instructions: not compared, this machine has no {KERNEL} (it has {', '.join(fastfeed.kernels())})")
        return 0
    if shutil.which("valgrind") is None:
        sys.exit("instructions: valgrind is not installed: `apt-get install valgrind`, or your system's package of it")
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    now, here = measure(), key()
    before = committed.get(here, {})
    print(f"instructions a frame, kernel {KERNEL}, {here}\n" + "\n".join(lines(now, before)))
    if options.update:
        COMMITTED.write_text(json.dumps(committed | {here: now}, indent=1) + "\n")
        print(f"written to {COMMITTED.name}")
        return 0
    if not before:
        print(f"not compared: {COMMITTED.name} has counts for {', '.join(committed) or 'nothing'}; add with --update")
        return 0
    if found := worse(now, before):
        print(f"over {TOLERANCE:.0%} more than committed: {', '.join(found)}. If that is meant: --update")
        return 1
    if any(now[kind] < before[kind] * (1 - TOLERANCE) for kind in now):
        print("cheaper than committed: keep it with --update")
    return 0


if __name__ == "__main__":
    sys.exit(main())
