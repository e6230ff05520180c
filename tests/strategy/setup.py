"""Builds the strategy the way a user would: the installed package's include folder, and no source of the project."""

import importlib.util
from pathlib import Path

from setuptools import Extension, setup

# Found, not imported: building needs the files, not the package's dependencies.
INCLUDE = Path(importlib.util.find_spec("fastfeed").origin).parent / "include"

setup(
    name="strategy",
    ext_modules=[Extension("strategy", ["strategy.pyx"], include_dirs=[str(INCLUDE)])],
)
