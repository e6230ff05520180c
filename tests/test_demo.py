"""The demo: its books find every kind of loss, and it passes, fails and ends when it should.

The runs are real (a venue in its own process), but short; nothing is said about how fast they are.
"""

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastfeed import demo
from fastfeed.demo import Latencies, Plan, balance, run
from fastfeed.lab import VenueProcess
from fastfeed.screen import Screen

SHORT = Plan(symbols=20, rate=500, burst=20, seconds=(0.3, 0.5, 2.0))


def books() -> dict[str, Any]:
    """What two connections sent and one feed received: BTC's was cut with two quotes in flight."""
    return {
        "stats": {
            "frames": 10,
            "data": 8,
            "control": 2,
            "unknown": 0,
            "malformed": 0,
            "consumers": {"a": {"received": 8, "delivered": 4, "conflated": 2, "dropped": 1, "pending": 1}},
        },
        "count": {
            "frames": 12,
            "streams": {"btcusdt@bookTicker": 5, "btcusdt@depth": 1, "ethusdt@bookTicker": 2, "ethusdt@aggTrade": 2},
            "last": {
                "BTCUSDT": {"bid": "1.5", "ask": "1.6", "book_id": 9},
                "ETHUSDT": {"bid": "2.5", "ask": "2.6", "book_id": 8, "last": "2.55", "trade_id": 7},
            },
        },
        "cut": {"connection": 1, "streams": {"btcusdt@bookTicker": 4, "btcusdt@depth": 1}},
        "rows": {
            "BTCUSDT": {"updates": 3, "bid": 1.5, "ask": 1.6, "last": math.nan, "quote_seq": 9, "trade_seq": 0},
            "ETHUSDT": {"updates": 4, "bid": 2.5, "ask": 2.6, "last": 2.55, "quote_seq": 8, "trade_seq": 7},
        },
    }


def test_books_with_a_loss_in_the_cut_connection_balance() -> None:
    assert balance(**books()) == []


def change(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def act(found: dict[str, Any]) -> None:
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = to

    return act


@pytest.mark.parametrize(
    ("error", "finding"),
    [
        (change("stats", "unknown", to=1), "1 frames unknown"),
        (change("stats", "malformed", to=2), "2 frames malformed"),
        (change("stats", "data", to=7), "10 frames, but 9 by kind"),
        (change("stats", "consumers", "a", "pending", to=0), "8 received, 7 accounted for"),
        (change("stats", "frames", to=13), "-1 frames missing"),
        (change("stats", "frames", to=6), "6 frames missing, the connection that was cut had been sent 5"),
        (change("rows", "ETHUSDT", "updates", to=3), "ETHUSDT: 1 of 4 updates missing, at most 0"),
        (change("rows", "ETHUSDT", "updates", to=5), "ETHUSDT: -1 of 4"),
        (change("rows", "BTCUSDT", "updates", to=0), "BTCUSDT: no data at all"),
        (change("rows", "BTCUSDT", "updates", to=2), "2 frames missing, but 3 updates"),
        (change("rows", "BTCUSDT", "updates", to=5), "2 frames missing, but 0 updates"),
        (change("rows", "BTCUSDT", "bid", to=1.4), "BTCUSDT: bid is 1.4, the last sent was 1.5"),
        (change("rows", "ETHUSDT", "last", to=math.nan), "ETHUSDT: last is nan"),
        (change("rows", "ETHUSDT", "trade_seq", to=6), "ETHUSDT: trade_seq is 6, the last sent was 7"),
    ],
)
def test_every_kind_of_loss_is_found(error: Callable[[dict[str, Any]], None], finding: str) -> None:
    wrong = copy.deepcopy(books())
    error(wrong)
    found = balance(**wrong)
    assert any(finding in line for line in found), found


async def test_a_run_passes_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    status = await run(SHORT, Screen(live=False))
    said = capsys.readouterr().out
    assert status == 0, said
    for part in ("cut: connection", "venue sent", "feed received", "lost in the cut", "recovery", "p50", "p99"):
        assert part in said
    assert said.rstrip().endswith("OK: the books balance, all 20 symbols came back")


async def test_what_was_in_flight_at_the_cut_is_told_and_balances(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loop stands still while the sockets fill up and the venue resets a connection."""
    cut_one = demo._cut_one

    async def blocked_cut(venue: VenueProcess, seen: demo.Seen) -> dict[str, Any]:
        time.sleep(0.5)  # noqa: ASYNC251 - that is the point
        monkeypatch.setattr("asyncio.to_thread", in_the_loop)
        cut = await cut_one(venue, seen)
        monkeypatch.undo()
        return cut

    async def in_the_loop(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(demo, "_cut_one", blocked_cut)
    status = await run(Plan(symbols=20, rate=2000, burst=100, seconds=(0.1, 1.0, 2.0)), Screen(live=False))
    said = capsys.readouterr().out
    assert status == 0, said
    (lost,) = (line.split()[4] for line in said.splitlines() if line.startswith("lost in the cut"))
    assert int(lost.replace(",", "")) > 0


def write_recording(file: Path, quote: dict[str, Any]) -> None:
    """Two seconds of two symbols."""
    lines = []
    for number in range(400):
        symbol = ("AUSDT", "BUSDT")[number % 2]
        data = quote | {"u": number + 1, "s": symbol, "b": f"{number}.5", "B": "1", "a": f"{number}.75", "A": "2"}
        frame = json.dumps({"stream": f"{symbol.lower()}@bookTicker", "data": data}, separators=(",", ":"))
        lines.append(f"{10**18 + number * 5 * 10**6} {frame}")
    file.write_text("\n".join(lines))


@pytest.mark.parametrize("quote", [{}, {"e": "bookTicker", "E": 1_700_000_000_000, "T": 1_700_000_000_000}])
async def test_a_recording_is_run_the_same_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quote: dict[str, Any]
) -> None:
    file = tmp_path / "recording"
    write_recording(file, quote)
    status = await run(Plan(frames=file, seconds=(0.3, 0.5, 2.0)), Screen(live=False))
    said = capsys.readouterr().out
    assert status == 0, said
    assert ("binance-usdm" if quote else "binance-spot") in said
    assert "all 2 symbols came back" in said


async def test_symbols_that_stay_away_fail_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cuts = VenueProcess.cuts

    def cuts_for_good(venue: VenueProcess, connection: int | None = None) -> list[dict[str, Any]]:
        venue.refuses(503)
        return cuts(venue, connection)

    monkeypatch.setattr(VenueProcess, "cuts", cuts_for_good)
    assert await run(SHORT, Screen(live=False)) == 1
    assert "FAILED: what the cut took did not all come back" in capsys.readouterr().out


async def test_a_run_that_takes_too_long_ends_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(Plan(symbols=3, limit=1.5), Screen(live=False)) == 1
    assert "FAILED: not finished after 1.5 s" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "no recording at all\n"])
async def test_a_recording_that_cannot_be_played_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    file = tmp_path / "frames"
    if content is not None:
        file.write_text(content)
    assert await run(Plan(frames=file), Screen(live=False)) == 1
    said = capsys.readouterr().out
    assert said.startswith("FAILED: ")
    assert str(file) in said
    assert said.count("\n") == 1


def test_percentiles_are_within_two_percent() -> None:
    latencies = Latencies()
    assert math.isnan(latencies.percentile(50))
    values = np.arange(1, 100_001) * 1000
    latencies.add(values)
    for percent in (1, 50, 99):
        assert latencies.percentile(percent) == pytest.approx(percent / 100 * 0.1, rel=0.02)
    latencies.add(np.array([0, -5, 10**15]))
    assert latencies.counts.sum() == 100_003
