"""Makes what `make bench` needs beyond pip's packages: the C++ and Cython rivals, and nautilus_trader's environment.

Everything goes into `rivals/` of the running environment and is made again when its source changes. Without simdjson
there is no bench: it says how to get it and fails. nautilus_trader wants CPython 3.12 or newer; where there is none it
is left out, which is told.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOM = Path(sys.prefix) / "rivals"
CXX_FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-Wall")  # no -march: simdjson dispatches by itself
C_FLAGS = ("-O3", "-fPIC", "-shared")
ONDEMAND_SOURCE = HERE / "simdjson_ondemand.cpp"
ONDEMAND = ROOM / "simdjson_ondemand.so"
NOOP_SOURCE = HERE / "noop.pyx"
NOOP = ROOM / f"noop{sysconfig.get_config_var('EXT_SUFFIX')}"
NAUTILUS = ROOM / "nautilus"
NAUTILUS_REQUIREMENTS = ("nautilus_trader>=1.231", "msgspec>=0.19")
NAUTILUS_PYTHONS = ("python3.12", "python3.13", "python3.14")
REQUIRED = ("Cython", "aiohttp", "binance", "massive", "matplotlib", "msgspec", "simdjson", "uvloop", "websockets")
LEFT_OUT = ROOM / "nautilus-left-out"  # why


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True)


def is_current(made: Path, source: Path) -> bool:
    newest = max(source.stat().st_mtime, Path(__file__).stat().st_mtime)
    return made.exists() and made.stat().st_mtime > newest


def compiler(variable: str, default: str) -> list[str]:
    return os.environ.get(variable, default).split()


def has_simdjson() -> bool:
    probe = [*compiler("CXX", "c++"), "-std=c++17", "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(probe, input=b"#include <simdjson.h>\n", capture_output=True).returncode == 0


def simdjson() -> None:
    if is_current(ONDEMAND, ONDEMAND_SOURCE):
        return
    if not has_simdjson() and os.geteuid() == 0 and shutil.which("apt-get"):
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", "libsimdjson-dev")
    if not has_simdjson():
        sys.exit(
            "the bench compares with simdjson and does not run without it: as root, `apt-get install libsimdjson-dev` "
            "(or your system's package of simdjson's headers and library), and a C++ compiler"
        )
    run(*compiler("CXX", "c++"), *CXX_FLAGS, ONDEMAND_SOURCE, "-o", ONDEMAND, "-lsimdjson")


def noop() -> None:
    """The listener that does nothing, in Cython against picows's own declarations."""
    if is_current(NOOP, NOOP_SOURCE):
        return
    code = ROOM / "noop.c"
    run(sys.executable, "-m", "cython", "-3", NOOP_SOURCE, "-o", code)
    include = sysconfig.get_paths()["include"]
    run(*compiler("CC", "cc"), *C_FLAGS, f"-I{include}", code, "-o", NOOP)


def nautilus_python() -> Path | None:
    """nautilus_trader's interpreter, or None where it was left out."""
    python = NAUTILUS / "bin" / "python"
    return python if python.exists() and not LEFT_OUT.exists() else None


def newer_python() -> str | None:
    """A CPython of at least 3.12: on the path, or one of pyenv's."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [sys.executable, *filter(None, map(shutil.which, NAUTILUS_PYTHONS))]
    candidates += [str(path) for name in NAUTILUS_PYTHONS for path in versions.glob(f"3.*/bin/{name}")]
    for candidate in candidates:
        asked = subprocess.run(
            [candidate, "-c", "import sys, venv; sys.exit(sys.version_info < (3, 12))"], capture_output=True
        )
        if asked.returncode == 0:
            return candidate
    return None


def nautilus() -> None:
    if nautilus_python() is not None:
        return
    python = newer_python()
    if python is None:
        LEFT_OUT.write_text("no CPython 3.12 or newer was found")
        return
    try:
        run(python, "-m", "venv", "--clear", NAUTILUS)
        run(NAUTILUS / "bin" / "python", "-m", "pip", "install", "--quiet", *NAUTILUS_REQUIREMENTS)
        run(NAUTILUS / "bin" / "python", "-c", "from nautilus_trader.core import nautilus_pyo3")
    except subprocess.CalledProcessError as error:
        LEFT_OUT.write_text(f"its installation failed: {error}")
    else:
        LEFT_OUT.unlink(missing_ok=True)


def left_out() -> dict[str, str]:
    """Rivals that are not here, and why."""
    return {} if nautilus_python() is not None else {"nautilus_trader": LEFT_OUT.read_text()}


def main(arguments: Sequence[str] = ()) -> int | str:
    """With "nautilus" only its environment is made."""
    if arguments:
        ROOM.mkdir(exist_ok=True)
        nautilus()
        return 0 if nautilus_python() is not None else f"nautilus_trader is left out: {LEFT_OUT.read_text()}"
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"the bench has no {', '.join(missing)}: `make bench`, or pip install -e '.[bench]'")
    ROOM.mkdir(exist_ok=True)
    simdjson()
    noop()
    nautilus()
    for name, why in left_out().items():
        print(f"{name} is left out: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
