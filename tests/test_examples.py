"""Every example and the README's programs run as a user runs them and print what is promised; links lead somewhere."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Example -> what its output must match, line by line in order; every example has an entry.
PROMISED = {
    "every_tick": r"\d{4} trades, turnover [\d,]+ USDT, lost 0\n",
    "fresh_or_not": r"while prices flow: True\nafter silence: False\nnever subscribed: False\n",
    "latest_prices": r"((BTC|ETH)USDT bid [\d.]+ ask [\d.]+ last ([\d.]+|nan) conflated \d+\n){3,6}",
    "own_exchange": re.escape(
        "EUR/USD 1.08312 / 1.08314, last 1.08313\n"
        "{'frames': 3, 'data': 2, 'control': 1, 'unknown': 0, 'malformed': 0}\n"
    ),
    "own_provider": re.escape(
        "the row is what the server said: True\n"
        "may I act on it? True\n"
        "{'unknown': 0, 'malformed': 0, 'unreadable': 0, 'strays': 0, 'gaps': 0}\n"
        "cut and back, still missing: 0\n"
    ),
    "slow_consumer": r"(\d+ rows, \d+ updates conflated\n){5}\{.*\} balances: True\n",
    "two_legs": r"one leg is lost, fresh: True\nboth deliver again, gaps: 0\n",
    "survives_a_cut": r"Disconnected\n(\w+\n)*Restored\nback after \d+\.\d\d s, still missing: 0\n",
}


def printed_by(*command: str) -> str:
    # Warnings are errors here too: an unclosed socket in an example teaches the wrong thing.
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_example_has_a_promised_output() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(PROMISED)


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_an_example_prints_what_it_promises(name: str) -> None:
    printed = printed_by(str(ROOT / "examples" / f"{name}.py"))
    assert re.fullmatch(PROMISED[name], printed), printed


def test_a_whole_provider_is_declared_in_under_forty_lines() -> None:
    program = (ROOT / "examples" / "own_provider.py").read_text("utf-8")
    declaration = re.search(r"# The declaration: from here -+\n(.*?)# The declaration: to here -+\n", program, re.S)
    assert declaration is not None
    assert len(declaration[1].splitlines()) < 40
    for part in ("Provider(", "Channel(", "Schema(", "Dialect(", "Limits("):
        assert part in declaration[1], part


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROGRAM = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.S)


def shape(printed: str) -> set[str]:
    """The lines without their numbers, in any order: what a live market leaves the same."""
    return {re.sub(r"\d[\d.]*", "#", line) for line in printed.splitlines()}


PRINTING = [
    pytest.param(program, promised, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (program, promised) in enumerate(PROGRAM.findall(page.read_text("utf-8")))
    if promised
]


@pytest.mark.parametrize(("program", "promised"), PRINTING)
def test_a_program_in_the_manual_prints_what_stands_below_it(program: str, promised: str) -> None:
    assert shape(printed_by("-c", program)) == shape(promised)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_program_in_the_manual_is_valid_python(page: Path) -> None:
    for program, _ in PROGRAM.findall(page.read_text("utf-8")):
        compile(program, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
