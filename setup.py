"""The two extension modules; all else is in pyproject.toml. setuptools hands the .pyx to Cython itself.

Not `cythonize()`: with a build directory it drops the sources from the sdist.
"""

from pathlib import Path

from setuptools import Extension, setup

HEADERS = sorted(str(p) for p in [*Path("ext").glob("*.pxd"), *Path("ext").glob("*.h"), *Path("fastfeed").glob("*.pxd"), *Path("fastfeed/include").glob("*.h")])

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
