"""The bench's own arithmetic: promises, frames, what the source sends, instruction counts. Nothing is measured here."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import fastfeed
from fastfeed.cli import main

pytestmark = pytest.mark.tree

BENCH = Path(__file__).parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import frames  # noqa: E402
import instructions  # noqa: E402
import promises  # noqa: E402
import source  # noqa: E402
import tables  # noqa: E402


def results(**medians: float) -> dict:
    return {"question": {name: {"median": value} for name, value in medians.items()}}


def test_a_ratio_is_kept_from_its_bound_on() -> None:
    promise = promises.Promise(what="", question="question", upper="rival", lower="ours", at_least=2.0)
    assert promise.value(results(rival=20.0, ours=10.0)) == 2.0
    assert promise.is_kept(2.0)
    assert not promise.is_kept(1.99)


def test_a_cost_is_kept_up_to_its_bound() -> None:
    promise = promises.Promise(what="", question="question", upper="ours", at_most=20.0)
    assert promise.value(results(ours=20.0)) == 20.0
    assert promise.is_kept(20.0)
    assert not promise.is_kept(20.01)


def test_what_was_not_measured_is_not_kept() -> None:
    verdicts = list(promises.verdicts({"decode, made": {"orjson + float + dict": {"median": 5.0}}}))
    assert len(verdicts) == len(promises.FLOORS)
    assert {verdict["value"] for verdict in verdicts} == {None}
    assert not any(verdict["kept"] for verdict in verdicts)


def test_a_table_shows_the_slowest_first_and_simdjson_once() -> None:
    found = {
        "fastfeed decode_many": 50.0,
        f"{promises.ONDEMAND}, one pass": 110.0,
        promises.ONDEMAND: 110.0,
        "x": 500.0,
    }
    results = {"decode, made": {name: {"median": ns, "min": ns, "max": ns} for name, ns in found.items()}}
    host = {"cpu": "C", "cpus": 2, "python": "CPython 3.11 (gcc)", "when": "2026-01-01T00:00:00"}
    rows = [line for line in tables.tables({"results": results, "host": host}) if line.startswith("|")][2:]
    assert rows == [
        "| x | 500 | 500 to 500 | 10.0x |",
        "| simdjson on-demand, C++ | 110 | 110 to 110 | 2.2x |",
        "| fastfeed decode_many | 50 | 50 to 50 |  |",
    ]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("-O3 -march=native", ["-march=native"]),
        ("gcc -pthread -mavx2 -mtune=generic -m64", ["-mavx2"]),
        ("-O3 -Wall -fno-omit-frame-pointer -march=x86-64", []),
        ('extra_compile_args=["-O3", "-msse4.1"]', ["-msse4.1"]),
        ("-march=x86-64-v3", ["-march=x86-64-v3"]),
    ],
)
def test_flags_that_name_a_cpu_are_found(flags: str, found: list[str]) -> None:
    assert promises.cpu_flags(flags) == found


def prices_of(payloads: list[bytes]) -> list[tuple]:
    decoder = fastfeed.Decoder("binance-usdm")
    reader = decoder.ring.reader()
    assert decoder.decode_many(payloads) == len(payloads)
    ticks = reader.read()
    names = decoder.prices.symbols
    columns = [ticks[name].tolist() for name in ("bid", "bid_size", "ask", "ask_size", "seq")]
    return list(zip([names[number] for number in ticks["symbol_id"]], *columns, strict=True))


def test_mixed_and_shuffled_frames_are_the_made_ones_in_other_layouts() -> None:
    made = frames.quotes(1000)
    expected = prices_of(made)
    assert len(set(expected)) == 1000
    assert prices_of(frames.mixed(made)) == expected
    assert prices_of(frames.shuffled(made)) == expected
    assert len({tuple(json.loads(frame)) for frame in frames.shuffled(made)}) > 900


def test_what_a_decoder_has_seen_before_is_older_and_of_the_same_symbols() -> None:
    lead, made = (prices_of(payloads) for payloads in (frames.lead(), frames.quotes()))
    assert max(row[-1] for row in lead) < min(row[-1] for row in made)
    assert {row[0] for row in made} == {row[0] for row in lead} == set(frames.symbols())


@pytest.mark.parametrize("is_zipf", [False, True])
def test_spread_quotes_are_of_so_many_symbols_and_newer_in_a_later_pass(is_zipf: bool) -> None:
    first, second = (prices_of(frames.spread(200, 5000, passes=n, is_zipf=is_zipf)) for n in (1, 2))
    assert len({row[0] for row in first}) == 200
    assert max(row[-1] for row in first) < min(row[-1] for row in second)


def payloads_of(block: source.Block) -> list[bytes]:
    """What a client reads from the block's bytes: unmasked TEXT frames."""
    data, found = block.bytes.tobytes(), []
    while data:
        assert data[0] == 0x81
        size, start = (data[1], 2) if data[1] < 126 else (int.from_bytes(data[2:4], "big"), 4)
        found.append(data[start : start + size])
        data = data[start + size :]
    return found


@pytest.mark.parametrize("number", [0, 1, 9, 10, 123, 999_999])
def test_every_pass_of_a_block_has_update_ids_of_its_own(number: int) -> None:
    made = [b'{"u":%d,"b":"%s"}' % (source.FIRST_ID + n, b"1" * (n % 150)) for n in range(300)]
    block = source.Block(made, b'"u":7')
    block.turn(7)
    block.turn(number)
    updates = np.array([json.loads(payload)["u"] for payload in payloads_of(block)])
    assert source.place(updates).tolist() == [number * source.BLOCK + n for n in range(300)]
    assert block.ends[-1] == len(block.bytes)


def test_a_kind_that_costs_over_two_percent_more_is_worse_and_so_is_an_unknown_one() -> None:
    before = {"a": 1000, "b": 1000, "c": 1000}
    assert instructions.worse({"a": 1020, "b": 1021, "c": 500, "d": 1}, before) == ["b", "d"]


def test_callgrinds_totals_are_read_and_nothing_counted_is_a_fault() -> None:
    assert instructions.total_of("events: Ir\nsummary: 42\n\nfn=f\n1 2\n") == 42
    with pytest.raises(ValueError, match="counted nothing"):
        instructions.total_of("events: Ir\nsummary: 0\n")


def test_the_compiler_is_read_from_the_module(tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    module.write_bytes(b"\x7fELF\0GCC: (Debian 12.2.0-14) 12.2.0\0")
    assert instructions.compiler_of(module) == "gcc-12"
    module.write_bytes(b"\x7fELF\0clang version 14.0.6\0GCC: (x) 12.1\0")
    assert instructions.compiler_of(module) == "clang-14"


def test_every_kind_counted_is_what_it_is_said_to_be() -> None:
    for kind, (provider, counted, payloads) in instructions.kinds().items():
        decoder = fastfeed.Decoder(provider)
        decoder.decode_many(payloads[:50])
        assert decoder.stats()[counted] == 50, kind


def test_counts_committed_cover_every_kind() -> None:
    committed = json.loads(instructions.COMMITTED.read_text())
    assert committed
    for key, counts in committed.items():
        assert list(counts) == list(instructions.kinds()), key


def test_without_the_source_tree_the_bench_says_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fastfeed, "__file__", str(tmp_path / "fastfeed" / "__init__.py"))
    said = CliRunner().invoke(main, ["bench", "--quick"])
    assert said.exit_code == 2
    assert "make bench" in said.output
