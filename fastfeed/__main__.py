"""`python -m fastfeed` and the `fastfeed` command: start the command line, or say in one line what it lacks."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f'fastfeed: the command line needs {" and ".join(missing)}: pip install "fastfeed[cli]"')
    from fastfeed.cli import main as run

    run()


if __name__ == "__main__":
    main()
