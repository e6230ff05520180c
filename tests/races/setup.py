"""Builds the racing threads against the package that is importable, wherever it lies."""

import importlib.util
from pathlib import Path

from setuptools import Extension, setup

PACKAGE = Path(importlib.util.find_spec("fastfeed").origin).parent
FOLDERS = [str(PACKAGE / "include"), str(PACKAGE.parent)]

setup(name="races", ext_modules=[Extension("races", ["races.pyx"], include_dirs=FOLDERS)])
