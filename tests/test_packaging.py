"""What users install: the contents of sdist and wheel, what `import fastfeed` costs and refuses, in fresh interpreters.

Needs the source tree and a compiler; no network.
"""

import os
import statistics
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import fastfeed

pytestmark = pytest.mark.tree

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
IMPORT_BUDGET = 0.150  # seconds on top of `import numpy`
ROUNDS = 7
SHIPPED = {".py", ".pyi", ".pxd", ".h", ".typed"}


def run(code: str, environment: Mapping[str, str] = os.environ) -> str:
    """What a fresh interpreter prints for this code."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_version_is_the_one_in_pyproject() -> None:
    assert fastfeed.__version__ == PROJECT["project"]["version"]


@pytest.mark.parametrize("version", ["2.2.9", "2.3.0", "2.4.0", "3.0.0"])
def test_importing_beside_an_unsupported_picows_fails_with_one_line_that_says_what_to_do(
    version: str, tmp_path: Path
) -> None:
    (tmp_path / "picows").mkdir()
    (tmp_path / "picows" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    information = tmp_path / f"picows-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: picows\nVersion: {version}\n")
    said = run(
        "try:\n    import fastfeed\nexcept ImportError as error:\n    print(error)\nelse:\n    print('imported')",
        {**os.environ, "PYTHONPATH": str(tmp_path)},
    ).strip()
    (supported,) = (name for name in PROJECT["project"]["dependencies"] if name.startswith("picows"))
    assert len(said.splitlines()) == 1, said
    assert version in said
    assert supported in said
    assert "pip install" in said


def test_the_build_uses_the_lowest_supported_picows() -> None:
    (pinned,) = (name for name in PROJECT["build-system"]["requires"] if name.startswith("picows"))
    (supported,) = (name for name in PROJECT["project"]["dependencies"] if name.startswith("picows"))
    assert supported.startswith(pinned.replace("==", ">="))


def test_tests_compile_with_the_cython_of_the_build() -> None:
    tools = {name for name in PROJECT["build-system"]["requires"] if not name.startswith("picows")}
    assert tools <= set(PROJECT["project"]["optional-dependencies"]["test"])


def test_importing_costs_little_on_top_of_numpy(record_property: Callable[[str, object], None]) -> None:
    """Processor time of the importing thread, so that a busy machine does not fail it; the median, for a cold disk."""
    code = "import time, numpy; start = time.thread_time(); import fastfeed; print(time.thread_time() - start)"
    costs = [float(run(code)) for _ in range(ROUNDS)]
    median = statistics.median(costs)
    record_property("import_seconds", median)
    assert median < IMPORT_BUDGET, f"import fastfeed: {median * 1e3:.0f} ms on top of numpy, rounds {costs}"


def test_importing_loads_no_extra_and_neither_the_lab_nor_the_command_line() -> None:
    loaded = set(run("import sys, fastfeed; print(*sys.modules)").split())
    assert not loaded & {"click", "rich", "uvloop", "fastfeed.lab", "fastfeed.cli"}


def test_the_sdist_holds_every_source_and_nothing_generated(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    sources = {
        str(p.relative_to(ROOT))
        for folder in ("ext", "fastfeed", "tests", "bench", "examples", "docs")
        for p in (ROOT / folder).rglob("*")
        if p.suffix in {".py", ".pyx", ".pxd", ".pyi", ".h", ".c", ".md", ".typed"}
    } - {"ext/_core.c", "ext/_wire.c"}
    assert sources - names == set()
    assert {"pyproject.toml", "setup.py", "Makefile", "LICENSE", "README.md", "CHANGELOG.md"} <= names
    assert not {n for n in names if n.endswith((".so", ".pyc", ".html"))} | names & {"ext/_core.c", "ext/_wire.c"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_built_from_the_sdist_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    compiled = {n for n in names if n.endswith((".so", ".pyd"))}
    house = {str(p.relative_to(ROOT)) for p in (ROOT / "fastfeed").rglob("*") if p.suffix in SHIPPED}
    assert {n.split(".")[0] for n in compiled} == {"fastfeed/_core", "fastfeed/_wire"}
    assert names - compiled == house
