"""Scripts of faults: what is accepted, what is refused and how clearly, and that the steps happen, in order."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_lab import DEADLINE, NAMES

from fastfeed.errors import ConfigError
from fastfeed.lab import Venue
from fastfeed.lab.process import COMMANDS
from fastfeed.lab.script import Step, follow, read_script

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "lab.md"


def script(tmp_path: Path, text: str) -> list[Step]:
    path = tmp_path / "faults.toml"
    path.write_text(text, "utf-8")
    return read_script(path, COMMANDS)


def test_steps_are_read_in_the_order_of_their_times(tmp_path: Path) -> None:
    text = """
        [[fault]]
        at = 2
        do = "closes"
        code = 1012

        [[fault]]
        at = 0.5
        do = "mutes"
        streams = ["btcusdt@*", "*@trade"]
    """
    mutes, closes = script(tmp_path, text)
    assert mutes == Step(0.5, "mutes", {"streams": ["btcusdt@*", "*@trade"]})
    assert closes == Step(2.0, "closes", {"code": 1012})
    assert str(closes) == "2 s: closes(code=1012)"


@pytest.mark.parametrize(
    "step",
    [
        'do = "refuses"\nstatus = 429\nretry_after = 1',
        'do = "refuses"\nretry_after = "Wed, 21 Oct 2026 07:28:00 GMT"',
        'do = "plays"\nphases = [[2000, 1], [10.5, 2]]',
        'do = "mutes"\nstreams = "*@trade"',
        'do = "evicts"\nwhom = "newest"\nbeyond = 0',
        'do = "drips"\nbytes_per_s = 5',
        'do = "freezes"',
    ],
)
def test_arguments_are_those_of_the_command(tmp_path: Path, step: str) -> None:
    assert len(script(tmp_path, f"[[fault]]\nat = 1\n{step}")) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[fault", "no TOML"),
        ("", r"list of \[\[fault\]\]"),
        ("fault = 1", r"list of \[\[fault\]\]"),
        ("fault = [1]", r"list of \[\[fault\]\]"),
        ("[[faults]]\nat = 1", "not 'faults'"),
        ("[[fault]]\nat = 1", "fault 1: do=None is none of accepts_again, acks_again"),
        ('[[fault]]\nat = 1\ndo = "explodes"', "fault 1: do='explodes'"),
        ('[[fault]]\nat = 1\ndo = "count"', "fault 1: do='count'"),
        ('[[fault]]\nat = 1\ndo = ["cuts"]', "fault 1: do="),
        ('[[fault]]\ndo = "cuts"', r"fault 1 \(cuts\): at=None"),
        ('[[fault]]\nat = -1\ndo = "cuts"', r"fault 1 \(cuts\): at=-1"),
        ('[[fault]]\nat = inf\ndo = "cuts"', "at=inf"),
        ('[[fault]]\nat = nan\ndo = "cuts"', "at=nan"),
        ('[[fault]]\nat = true\ndo = "cuts"', "at=True"),
        ('[[fault]]\nat = 1\ndo = "cuts"\n[[fault]]\nat = "2"\ndo = "cuts"', r"fault 2 \(cuts\): at='2'"),
        ('[[fault]]\nat = 1\ndo = "closes"\ncod = 1', "closes has no 'cod'; it takes code, reason, connection"),
        ('[[fault]]\nat = 1\ndo = "freezes"\nfor = 1', "freezes has no 'for'; it takes no arguments"),
        ('[[fault]]\nat = 1\ndo = "closes"\ncode = "1012"', "code='1012'; it wants a whole number"),
        ('[[fault]]\nat = 1\ndo = "closes"\ncode = 1.5', "code=1.5; it wants a whole number"),
        ('[[fault]]\nat = 1\ndo = "evicts"\nwhom = "me"', "it wants 'oldest' or 'newest'"),
        ('[[fault]]\nat = 1\ndo = "mutes"\nstreams = [1]', "it wants text or a list of text"),
        ('[[fault]]\nat = 1\ndo = "mutes"', "mutes needs streams"),
    ],
)
def test_a_step_that_could_not_be_carried_out_is_refused_naming_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        script(tmp_path, text)


def test_a_script_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        read_script(tmp_path / "none.toml", COMMANDS)


async def test_steps_are_followed_and_one_that_fails_does_not_stop_the_rest() -> None:
    said: list[str] = []
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        steps = [Step(0.0, "cuts", {"connection": 7}), Step(0.01, "stops_ponging")]
        await follow(venue, steps, said.append)
        assert not venue.is_ponging
    assert said == ["0 s: cuts(connection=7) failed: no open connection 7; open: []", "0.01 s: stops_ponging()"]


def run_lab(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fastfeed.lab", "binance-usdm", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_bad_script_ends_the_command_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('[[fault]]\nat = 1\ndo = "explodes"')
    with run_lab("--script", str(path)) as lab:
        out, error = lab.communicate(timeout=DEADLINE)
    assert (lab.returncode, out) == (2, "")
    assert error.startswith(f"fastfeed lab: {path}, fault 1: do='explodes' is none of ")
    assert error.count("\n") == 1


async def test_the_script_in_the_manual_runs_as_it_is_printed_there(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    path = tmp_path / "faults.toml"
    path.write_text(text)
    steps = read_script(path, COMMANDS)
    with run_lab("--symbols", "3", "--rate", "1000", "--script", str(path)) as lab:
        try:
            assert lab.stdout is not None
            assert lab.stderr is not None
            hello: dict[str, Any] = json.loads(lab.stdout.readline())
            assert hello["venue"] == "binance-usdm"
            assert [lab.stderr.readline() for _ in steps] == [f"fastfeed lab: {step}\n" for step in steps]
        finally:
            lab.kill()
