"""The commands: what they print and how they exit. What they show is tested where it is made."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import fastfeed
from fastfeed.cli import main
from fastfeed.lab import VenueProcess
from fastfeed.screen import Screen

GOOD = b'{"u":1,"s":"A","b":"1","B":"1","a":"2","A":"1"}'


def fastfeed_says(*arguments: str, given: bytes | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=given)


def test_help_names_every_command() -> None:
    said = fastfeed_says("--help").output
    assert all(f"  {command} " in said for command in ("bench", "check", "demo", "doctor", "lab", "providers", "watch"))


def test_the_version_is_the_package_version() -> None:
    assert fastfeed_says("--version").output.split()[-1] == fastfeed.__version__


@pytest.mark.parametrize("zipped", [False, True])
def test_check_counts_frames_of_a_file_and_of_a_recording(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "frames"
    content = GOOD + b"\n1723161255030314667 " + GOOD + b"\r\n\n"
    file.write_bytes(gzip.compress(content) if zipped else content)
    result = fastfeed_says("check", str(file))
    assert (result.exit_code, result.output) == (0, "2 frames, 0 malformed\n")


def test_check_names_place_and_fault_and_fails() -> None:
    result = fastfeed_says("check", given=GOOD + b'\n{"a":}\n7 \xff\n')
    assert result.exit_code == 1
    first, second, total = result.output.splitlines()
    assert first.startswith("-:2: ")
    assert "byte 5" in first
    assert second.startswith("-:3: ")
    assert total == "3 frames, 2 malformed"


def test_check_lists_ten_faults_and_counts_the_rest() -> None:
    lines = fastfeed_says("check", given=b"x\n" * 25).output.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "25 frames, 25 malformed"


def test_check_decodes_as_a_provider() -> None:
    given = GOOD + b'\n{"result":null,"id":1}\n{"other":1}\n{'
    result = fastfeed_says("check", "--provider", "binance-spot", given=given)
    assert "1 data, 1 control, 1 unknown, 1 malformed" in result.output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["check", "--provider", "nope"], "'nope'"),
        (["watch", "nope", "A"], "'nope'"),
        (["watch", "binance-usdm", "BTCUSDT", "--channel", "gossip"], "'gossip'"),
        (["check", "/no/such/file"], "/no/such/file"),
        (["demo", "--frames", "/no/such/file"], "/no/such/file"),
        (["watch", "binance-usdm"], "SYMBOLS"),
    ],
)
def test_a_wrong_argument_is_named_and_is_no_traceback(arguments: list[str], named: str) -> None:
    result = fastfeed_says(*arguments)
    assert result.exit_code == 2
    assert named in result.output
    assert "Traceback" not in result.output


def test_doctor_names_what_matters() -> None:
    result = fastfeed_says("doctor")
    assert result.exit_code == 0
    facts = dict(line.split(maxsplit=1) for line in result.output.splitlines())
    assert facts["fastfeed"] == fastfeed.__version__
    assert facts["kernels"].split(", ")[0] in fastfeed.kernels()
    assert "GIL" in facts["python"]
    assert {"platform", "picows", "numpy", "orjson", "uvloop", "monotonic", "utc", "tls"} <= set(facts)


def test_providers_lists_names_and_channels() -> None:
    said = fastfeed_says("providers").output
    assert "binance-usdm\n  wss://fstream.binance.com\n  quote, " in said
    (usdm,) = (one for one in json.loads(fastfeed_says("providers", "--json").output) if one["name"] == "binance-usdm")
    assert "quote" in usdm["channels"]


def test_a_provider_whose_extra_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    monkeypatch.delitem(sys.modules, "fastfeed.providers.alpaca_msgpack", raising=False)
    said = fastfeed_says("providers")
    assert said.exit_code == 0
    assert (
        "alpaca-msgpack\n  Alpaca's MessagePack needs the msgpack extra: pip install 'fastfeed[msgpack]'" in said.output
    )
    assert "alpaca-crypto\n  wss://" in said.output
    listed = [one["name"] for one in json.loads(fastfeed_says("providers", "--json").output)]
    assert "alpaca" in listed
    assert "alpaca-options" not in listed


def test_watch_prints_prices_and_ends() -> None:
    with VenueProcess("binance-usdm", symbols=3, rate=1000) as venue:
        result = fastfeed_says("watch", "binance-usdm", "BTCUSDT", "ETHUSDT", "--url", venue.url, "--seconds", "2.5")
        assert result.exit_code == 0, result.output
    last = result.output[: result.output.rindex("LIVE") + 4].splitlines()[-2:]
    assert [line.split()[0] for line in last] == ["BTCUSDT", "ETHUSDT"]
    assert all(float(price) > 0 for line in last for price in line.split()[1:3])


def test_lab_help_is_that_of_the_venues_process() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "fastfeed", "lab", "--help"], capture_output=True, text=True, timeout=30, check=True
    )
    assert "--messages-per-second" in said.stdout
    assert "--symbols" in said.stdout


def without_click(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that has neither click nor rich."""
    hide = "import sys; sys.modules.update(click=None, rich=None)\n"
    hide += "import importlib.util as u; f = u.find_spec\n"
    hide += "u.find_spec = lambda name, *rest: None if name in ('click', 'rich') else f(name, *rest)\n"
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, timeout=30, check=False)


def test_without_the_extra_the_command_line_says_what_to_install() -> None:
    result = without_click("from fastfeed.__main__ import main; main()")
    assert result.returncode == 1
    assert result.stderr == 'fastfeed: the command line needs click and rich: pip install "fastfeed[cli]"\n'


def test_the_lab_and_the_demo_need_no_extra() -> None:
    result = without_click("import fastfeed.demo, fastfeed.lab, fastfeed.lab.process")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_screen_without_a_terminal_prints_lines_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(live=False) as screen:
        screen.draw("title", ["a"], [["1"]])
        screen.draw("too soon", ["a"], [["2"]])
        screen.say("said")
    assert capsys.readouterr().out == "title\nsaid\n"


def test_a_screen_on_a_terminal_draws_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(live=True) as screen:
        screen.draw("title", ["symbol", "bid"], [["[A]", "1.5"]])
        screen.stop()
        screen.say("below")
    said = capsys.readouterr().out
    assert "title" in said
    assert "[A]" in said
    assert "1.5" in said
    assert said.endswith("below\n")
