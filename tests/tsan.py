"""`make tsan`: the writer, the readers and whoever looks symbols up, run under ThreadSanitizer.

Compiles the core and tests/races with -fsanitize=thread into a folder of its own and fails on any report. There are
no suppressions; that the detector detects is shown first, by a plain race. Only what runs without the interpreter's
lock is raced: where that lock (or, without it, a critical section) orders two threads, an interpreter that is not
itself instrumented does not say so.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
FOUND = 66  # the exit code of a run with reports
FRAMES = 200_000
SECONDS = 900


def compiled(folder: Path) -> dict[str, str]:
    """Build everything instrumented; the environment to run it in."""
    flags = "-fsanitize=thread -O1 -g"
    building = {**os.environ, "CFLAGS": flags, "LDFLAGS": "-fsanitize=thread", "PYTHONPATH": str(folder)}
    built, temporary = folder / "fastfeed", folder / "objects"
    shutil.copytree(ROOT / "fastfeed", built, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    command = [sys.executable, "setup.py", "--quiet", "build_ext"]
    places = ["--build-lib", str(folder), "--build-temp", str(temporary)]
    subprocess.run([*command, *places], cwd=ROOT, env=building, check=True, timeout=SECONDS)
    races = folder / "racing"
    shutil.copytree(HERE / "races", races)
    subprocess.run([*command, "--inplace"], cwd=races, env=building, check=True, timeout=SECONDS)
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    library = subprocess.run([compiler, "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True)
    return {
        **os.environ,
        "LD_PRELOAD": library.stdout.strip(),
        "PYTHONPATH": f"{folder}{os.pathsep}{races}",
        "PYTHONSAFEPATH": "1",
        "TSAN_OPTIONS": f"exitcode={FOUND} halt_on_error=0 report_signal_unsafe=0 history_size=4",
    }


def run(what: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "tsan.py"), what]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="fastfeed-tsan-") as folder:
        environment = compiled(Path(folder))
        known = run("bump", environment)
        if known.returncode != FOUND or "data race" not in known.stderr:
            print(f"the detector does not see a plain race: exit {known.returncode}\n{known.stderr[-3000:]}")
            return 1
        done = run("race", environment)
        print(done.stdout, end="")
        if done.returncode:
            print(done.stderr[:20_000])
            print(f"exit {done.returncode}: {done.stderr.count('WARNING: ThreadSanitizer')} reports")
        return done.returncode


def together(*works: Callable[[], Any]) -> list[Any]:
    """Run each in a thread of its own; what they returned."""
    told: list[Any] = [None] * len(works)

    def note(i: int) -> None:
        told[i] = works[i]()

    threads = [threading.Thread(target=note, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def race() -> None:
    import races

    import fastfeed

    for symbols in (3, 3000):
        decoder, flag = fastfeed.Decoder("binance-usdm", ring_capacity=256), races.Flag()
        prices = decoder.prices
        rows = [prices.reader(shared=True) for _ in range(2)]
        ticks = decoder.ring.reader()

        def come_and_go(prices: Any = prices, ring: Any = decoder.ring, flag: Any = flag) -> int:
            rounds = 0
            while not flag.is_up:
                readers = prices.reader(), ring.reader()
                found = [prices.symbols[i] for i in range(len(prices))]
                found.append("never seen")
                for symbol in found[:: 1 + len(found) // 20]:
                    assert prices.is_fresh(symbol, 3600.0) <= (symbol in prices)
                assert len(prices.fresh(1.0)) <= len(prices.ages()) <= len(prices.arrived("quote")) <= len(prices)
                for reader in readers:
                    reader.read()
                    reader.ledger()
                    reader.close()
                rounds += 1
            return rounds

        told = together(
            lambda: races.write(decoder, flag, FRAMES, symbols),  # noqa: B023 - joined within the pass
            lambda: races.look(prices, flag),  # noqa: B023
            lambda: races.drain(rows[0], flag),  # noqa: B023
            lambda: races.drain(rows[1], flag, 5),  # noqa: B023
            lambda: races.follow(ticks, flag),  # noqa: B023
            come_and_go,
        )
        torn = [told[1][1], told[2][1], told[3][1], told[4][1]]
        print(f"{symbols} symbols: {told[1][0]} rows looked at, {told[2][0]} and {told[3][0]} drained, ", end="")
        print(f"{told[4][0]} ticks read, {told[5]} readers came and went, {sum(torn)} torn")
        assert sum(torn) == 0


def bump() -> None:
    import races

    together(*[lambda: races.bump(20_000_000)] * 2)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"race": race, "bump": bump}[sys.argv[1]]()
    else:
        sys.exit(main())
