"""The two extension modules; all else is in pyproject.toml. setuptools hands the .pyx to Cython itself.

Not `cythonize()`: with a build directory it drops the sources from the sdist.
"""

from pathlib import Path

from setuptools import Extension, setup

HEADERS = sorted(
    str(path)
    for pattern in ("ext/*.pxd", "ext/*.h", "fastfeed/*.pxd", "fastfeed/include/*.h")
    for path in Path().glob(pattern)
)

setup(
    ext_modules=[
        Extension(
            f"fastfeed.{name}",
            sources=[f"ext/{name}.pyx"],
            depends=HEADERS,  # into the sdist; a change rebuilds
            include_dirs=[".", "ext", "fastfeed/include"],  # "." lets Cython find fastfeed/_core.pxd
            extra_compile_args=["-O3"],
        )
        for name in ("_core", "_wire")
    ]
)
