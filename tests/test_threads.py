"""Tables, rings and readers used from several threads at once: nothing torn, nothing missed, the books balanced.

With the interpreter's lock only compiled code races (tests/races); without it everything here does.
"""

import math
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastfeed

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
DEADLINE = 60.0
FRAMES = 200_000


def together(*works: Callable[[], Any]) -> list[Any]:
    """Run each in a thread of its own; what they returned. What one raises is raised here."""
    told: list[Any] = [None] * len(works)
    raised: list[BaseException] = []

    def note(i: int) -> None:
        try:
            told[i] = works[i]()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=note, args=(i,), daemon=True) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive(), "a thread did not end"
    if raised:
        raise raised[0]
    return told


def balances(ledger: dict[str, int]) -> bool:
    return ledger["received"] == sum(ledger[term] for term in ("delivered", "conflated", "dropped", "pending"))


def quote(update: int, symbol: str = "BTCUSDT") -> bytes:
    """All four numbers follow from the update."""
    return b'{"e":"bookTicker","u":%d,"s":"%s","b":"%d","B":"%d","a":"%d","A":"%d","T":1,"E":1}' % (
        update,
        symbol.encode(),
        update,
        2 * update,
        3 * update,
        4 * update,
    )


def torn(rows: np.ndarray) -> int:
    n = rows["bid"]
    return int(((rows["bid_size"] != 2 * n) | (rows["ask"] != 3 * n) | (rows["ask_size"] != 4 * n)).sum())


# Compiled threads, no lock ------------------------------------------------------------------------------------------


@pytest.mark.tree
@pytest.mark.timeout(400)
@pytest.mark.parametrize("symbols", [1, 7, 4000])
def test_nothing_is_torn_or_missed_while_the_writer_writes(races: Any, symbols: int) -> None:
    decoder = fastfeed.Decoder("binance-usdm", ring_capacity=256)
    prices, flag = decoder.prices, races.Flag()
    readers = [prices.reader(shared=True) for _ in range(2)]
    ticks = decoder.ring.reader()
    _, (looked, torn_rows, back), *drained, (read, torn_ticks, disordered) = together(
        lambda: races.write(decoder, flag, FRAMES, symbols),
        lambda: races.look(prices, flag),
        lambda: races.drain(readers[0], flag),
        lambda: races.drain(readers[1], flag, 3),
        lambda: races.follow(ticks, flag),
    )
    assert looked > 0
    assert (torn_rows, back) == (0, 0)
    assert (torn_ticks, disordered) == (0, 0)
    assert read + ticks.lost == FRAMES
    newest = dict(enumerate(prices.array["seq"].tolist()))
    for reader, (delivered, torn_drained, twice, seen) in zip(readers, drained, strict=True):
        assert (torn_drained, twice) == (0, 0)
        assert seen == newest
        ledger = reader.ledger()
        assert balances(ledger)
        assert (ledger["received"], ledger["delivered"], ledger["pending"]) == (FRAMES, delivered, 0)


@pytest.mark.tree
@pytest.mark.timeout(400)
def test_readers_come_and_go_and_symbols_are_looked_up_while_the_writer_writes(races: Any) -> None:
    decoder, rounds = fastfeed.Decoder("binance-usdm", ring_capacity=256), [0, 0]
    prices = decoder.prices

    def write() -> None:
        first = 1
        while min(rounds) < 5:
            races.write(decoder, races.Flag(), 20_000, 3000, first)
            first += 20_000

    def come_and_go(mine: int) -> None:
        while min(rounds) < 5:
            readers = prices.reader(), decoder.ring.reader()
            found = [prices.symbols[i] for i in range(len(prices))]
            assert len(set(found)) == len(found)
            assert all(prices.id(found[i]) == i for i in range(0, len(found), 50))
            assert len(prices.fresh(1.0)) >= len(found)
            for reader in readers:
                reader.read()
                assert balances(reader.ledger())
                reader.close()
                assert balances(reader.ledger())
            rounds[mine] += 1

    together(write, lambda: come_and_go(0), lambda: come_and_go(1))
    assert len(prices) == len(set(prices.symbols)) > 1000


# Python threads -----------------------------------------------------------------------------------------------------


def test_rows_and_masks_read_by_name_are_never_torn() -> None:
    decoder, done = fastfeed.Decoder("binance-usdm"), threading.Event()
    names = [f"S{i}" for i in range(300)]
    decoder.decode(quote(1, "S0"))

    def write() -> None:
        for update in range(2, 30_000):
            decoder.decode(quote(update, names[update % len(names)]))
        done.set()

    def read() -> int:
        bad = looks = 0
        while not done.is_set() or looks == 0:
            for name in names[:: 1 + looks % 7]:
                if name in decoder.prices and (row := decoder.prices[name])["updates"]:
                    bad += torn(np.array([row]))
                    assert decoder.prices.is_fresh(name, math.inf)  # its event time is of 1970
            assert len(decoder.prices.fresh(1.0)) <= len(decoder.prices)
            assert len(decoder.prices.symbols) == len(decoder.prices.array) or not done.is_set()
            looks += 1
        return bad

    assert together(write, read, read)[1:] == [0, 0]


def test_one_reader_shared_by_threads_gives_each_change_to_one_of_them() -> None:
    decoder, done = fastfeed.Decoder("binance-usdm", ring_capacity=1 << 16), threading.Event()
    rows, ticks = decoder.prices.reader(), decoder.ring.reader()

    def write() -> None:
        for update in range(1, 20_001):
            decoder.decode(quote(update, f"S{update % 5}"))
        done.set()

    def read() -> tuple[int, list[int]]:
        taken, seen = 0, []
        while True:
            finished = done.is_set()
            batch, some = rows.read(), ticks.read(100)
            assert torn(batch) == 0
            taken += len(batch) + int(batch["conflated"].sum())
            seen += some["seq"].tolist()
            if finished and len(batch) == 0 and len(some) == 0:
                return taken, seen

    told = together(write, read, read, read)[1:]
    assert sum(taken for taken, _ in told) == 20_000
    assert sorted(update for _, seen in told for update in seen) == list(range(1, 20_001))
    assert balances(rows.ledger())
    assert balances(ticks.ledger())


def test_frames_decoded_by_several_threads_are_each_counted_once() -> None:
    decoder = fastfeed.Decoder("binance-usdm")

    def write(number: int) -> None:
        for update in range(1, 3001):
            decoder.decode(quote(update, f"S{number}X{update % 100}"))
            if update % 50 == 0:
                stats = decoder.stats()
                assert stats["frames"] == stats["data"] == stats["ticks"]

    together(*[lambda number=number: write(number) for number in range(4)])
    assert decoder.stats()["data"] == 12_000
    assert len(decoder.prices) == 400
    assert decoder.prices.updates == 12_000
    assert torn(decoder.prices.array) == 0


# The interpreter without its lock -----------------------------------------------------------------------------------


@pytest.mark.skipif(not FREE_THREADED, reason="this interpreter has its lock")
def test_importing_everything_leaves_the_lock_off() -> None:
    code = (
        "import sys, fastfeed; fastfeed.Feed, fastfeed.ThreadedFeed; from fastfeed import providers; "
        "[providers.provider(name) for name in providers.names()]; sys.exit(sys._is_gil_enabled())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_control_messages_are_read_alike_without_orjson() -> None:
    code = """
import sys
sys.modules["orjson"] = None
from fastfeed.text import JSONDecodeError, dumps, loads
assert dumps({"a": ["\\u00fc", 1]}) == '{"a":["\\u00fc",1]}'.encode()
assert loads(b'{"id": 1, "result": null}') == {"id": 1, "result": None}
for wrong in (b"", b"{", b'{"a":NaN}', b"\\xff"):
    try:
        loads(wrong)
    except JSONDecodeError:
        continue
    raise AssertionError(wrong)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
