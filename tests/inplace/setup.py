"""Builds what decodes frames where they lie, against the package that is importable, wherever it lies."""

import importlib.util
from pathlib import Path

from setuptools import Extension, setup

PACKAGE = Path(importlib.util.find_spec("fastfeed").origin).parent
FOLDERS = [str(PACKAGE / "include"), str(PACKAGE.parent)]

setup(name="inplace", ext_modules=[Extension("inplace", ["inplace.pyx"], include_dirs=FOLDERS)])
