"""For Cython and C users: a small strategy compiled against the installed wheel runs per tick with no Python.

The source tree is kept out of the way: what the strategy finds is what `pip install` laid down.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

STRATEGY = Path(__file__).parent / "strategy"
pytestmark = [pytest.mark.slow, pytest.mark.tree, pytest.mark.timeout(600)]

DRIVE = """
import ctypes, json, sys, time
import numpy as np
import fastfeed, strategy

decoder = fastfeed.Decoder("binance-usdm")
player = strategy.Strategy(decoder)
ring = decoder.ring.reader()
for update in range(1, 1001):
    mid = 100 + (update % 10 < 5) * 2
    decoder.decode(b'{"e":"bookTicker","u":%d,"s":"S%d","b":"%d.25","B":"1","a":"%d.75","A":"2","T":%d,"E":1}'
                   % (update, update % 40, mid, mid, time.time_ns() // 1_000_000))
    if update % 10 == 0:
        decoder.decode(b'{"e":"aggTrade","E":1,"s":"S1","a":%d,"p":"5","q":"1","T":1,"m":true}' % update)
handled = player.run()
ticks = ring.read()
spread = ctypes.CDLL(sys.argv[1]).mean_spread
spread.restype, spread.argtypes = ctypes.c_double, [ctypes.c_void_p, ctypes.c_long]
again = player.run()
print(json.dumps({
    "where": fastfeed.__file__, "handled": handled, "again": again, "quotes": player.quotes, "trades": player.trades,
    "crossings": player.crossings, "rows": player.rows, "last_bid": player.last_bid,
    "bid": player.bid(decoder.prices.id("S0")), "unknown": player.bid(9999),
    "spread": spread(ticks.ctypes.data, len(ticks)), "ticks": len(ticks),
}))
"""


def run(*command: str, cwd: Path, path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the unpacked wheel and nothing of the source tree."""
    folder = tmp_path_factory.mktemp("site")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder),
        str(wheel),
    ]
    run(*pip, cwd=folder, path=folder)
    return folder


@pytest.fixture(scope="module")
def told(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the strategy says after a run of a thousand quotes and a hundred trades."""
    folder = tmp_path_factory.mktemp("strategy")
    for source in STRATEGY.iterdir():
        if source.is_file():
            (folder / source.name).write_bytes(source.read_bytes())
    run(sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", cwd=folder, path=installed)
    kernel = folder / ("spread" + (sysconfig.get_config_var("SHLIB_SUFFIX") or ".so"))
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    include = str(installed / "fastfeed" / "include")
    warnings = ["-Wall", "-Wextra", "-Werror", "-std=c11", "-pedantic"]
    run(
        *compiler,
        *warnings,
        "-shared",
        "-fPIC",
        "-O2",
        f"-I{include}",
        "spread.c",
        "-o",
        str(kernel),
        cwd=folder,
        path=installed,
    )
    both = Path(f"{installed}{os.pathsep}{folder}")
    return json.loads(run(sys.executable, "-c", DRIVE, str(kernel), cwd=folder, path=both))


def test_the_strategy_runs_against_the_installed_package(told, installed):
    assert Path(told["where"]).is_relative_to(installed)


def test_the_strategy_sees_every_tick(told):
    assert told["handled"] == told["ticks"] == 1100
    assert (told["quotes"], told["trades"]) == (1000, 100)
    assert told["again"] == 0


def test_the_strategy_computes_what_the_ticks_say(told):
    average, above, crossings = None, False, 0
    for update in range(1, 1001):
        middle = 100 + (update % 10 < 5) * 2 + 0.5
        average = middle if average is None else average
        average += (middle - average) / 16
        if (middle > average) != above:
            above, crossings = not above, crossings + 1
    assert told["crossings"] == crossings > 100
    assert told["last_bid"] == 102.25


def test_the_strategy_reads_rows_and_freshness_from_the_table(told):
    assert told["rows"] == 40
    assert told["bid"] == [102.25, True]
    assert told["unknown"] is None


def test_a_c_kernel_reads_the_ticks_through_the_shipped_header(told):
    assert told["spread"] == 0.5
