"""Prints requirements written in pyproject.toml, one a line, for `pip install -r`: `build`, or the names of extras.

So that no version is written twice. Refuses to resolve or install anything.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
known = {"build": project["build-system"]["requires"], **project["project"]["optional-dependencies"]}
for name in sys.argv[1:]:
    if name not in known:
        sys.exit(f"no requirements named {name!r}; there are: {', '.join(sorted(known))}")
    print(*known[name], sep="\n")
