"""Fixtures shared by the rooms' tests: recordings named by FASTFEED_FRAMES, memory between unreadable pages, compiled
users of the package, the built wheel.

No test logic and no network here.
"""

import ctypes
import importlib.util
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

import fastfeed

ROOT = Path(__file__).parent.parent
PROT_NONE = 0
GUARD = 1 << 17  # bytes: no place in a frame, of sixteen bits, leads behind it
BEHIND = 64  # bytes that may be read and written behind a frame in place


class GuardedMemory:
    """Pages between unreadable ones: a read one byte past either end of a payload kills the process.

    What is handed out is valid only until the next call.
    """

    def __init__(self, pages: int = 64) -> None:
        self._size = pages * mmap.PAGESIZE
        self._map = mmap.mmap(-1, GUARD + self._size + GUARD)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._start = base + GUARD
        self._libc = ctypes.CDLL(None, use_errno=True)
        for address in (base, self._start + self._size):
            self._protect(address, PROT_NONE)

    def _protect(self, address: int, protection: int) -> None:
        if self._libc.mprotect(ctypes.c_void_p(address), GUARD, protection):
            raise OSError(ctypes.get_errno(), "mprotect")

    def _place(self, payload: bytes, address: int) -> memoryview:
        if len(payload) > self._size:
            raise ValueError(f"payload of {len(payload)} bytes, guarded memory holds {self._size}")
        ctypes.memmove(address, payload, len(payload))
        return memoryview((ctypes.c_char * len(payload)).from_address(address)).cast("B")

    def before_the_end(self, payload: bytes) -> memoryview:
        """The payload so placed that the byte after its last one cannot be read."""
        return self._place(payload, self._start + self._size - len(payload))

    def after_the_start(self, payload: bytes) -> memoryview:
        """The payload so placed that the byte before its first one cannot be read."""
        return self._place(payload, self._start)

    def lent(self, payload: bytes, *, at_the_end: bool) -> int:
        """The address of the payload with BEHIND more bytes that may be used; what follows or precedes them may not."""
        start = self._start + self._size - len(payload) - BEHIND if at_the_end else self._start
        self._place(payload + b"\xa5" * BEHIND, start)
        return start

    def object_before_the_end(self, payload: bytes) -> bytes:
        """The payload as a bytes object whose own NUL is the last byte that can be read. Let go of it at once."""
        image = ctypes.string_at(id(payload), sys.getsizeof(payload))  # as it lies in memory, its references counted
        address = self._start + self._size - len(image)
        ctypes.memmove(address, image, len(image))
        return ctypes.cast(address, ctypes.py_object).value


@pytest.fixture(scope="session")
def guarded() -> GuardedMemory:
    return GuardedMemory()


def compiled(folder: Path, name: str) -> ModuleType:
    """The extension module in tests/`name`, compiled against the package under test."""
    shutil.copytree(Path(__file__).parent / name, folder, dirs_exist_ok=True)
    package = str(Path(fastfeed.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": package}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    (built,) = [*folder.glob(f"{name}*.so"), *folder.glob(f"{name}*.pyd")]
    spec = importlib.util.spec_from_file_location(name, built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def races(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return compiled(tmp_path_factory.mktemp("racing"), "races")


@pytest.fixture(scope="session")
def inplace(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return compiled(tmp_path_factory.mktemp("inplace"), "inplace")


class Recordings:
    """The folder of recorded frames, gzipped: text ones a line each, `<recv ns> <raw text frame>`, binary ones behind
    their time and length."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def frames(self, name: str) -> list[tuple[int, bytes]]:
        """All frames of one recording as (recv_ns, payload)."""
        import gzip

        with gzip.open(self.folder / f"{name}.gz", "rb") as lines:
            split = (line.rstrip(b"\n").split(b" ", 1) for line in lines)
            return [(int(recv_ns), payload) for recv_ns, payload in split]

    def messages(self, name: str) -> list[tuple[int, bytes]]:
        """All binary messages of one recording as (recv_ns, payload): `<Q recv_ns><I length><message>` each."""
        import gzip

        with gzip.open(self.folder / f"{name}.frames.gz", "rb") as file:
            data = file.read()
        found, place = [], 0
        while place < len(data):
            recv_ns, size = struct.unpack_from("<QI", data, place)
            found.append((recv_ns, data[place + 12 : place + 12 + size]))
            place += 12 + size
        return found


@pytest.fixture(scope="session")
def recordings() -> Recordings:
    folder = os.environ.get("FASTFEED_FRAMES")
    if not folder:
        pytest.skip("FASTFEED_FRAMES does not name a folder of recorded frames")
    if not Path(folder).is_dir():
        pytest.fail(f"FASTFEED_FRAMES={folder} is not a folder")
    return Recordings(Path(folder))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this tree, made with the tools of this environment."""
    folder = tmp_path_factory.mktemp("sdist")
    _build("--sdist", ROOT, folder)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made from the source distribution, as a user without a ready wheel makes it."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    folder = tmp_path_factory.mktemp("wheel")
    _build("--wheel", source, folder)
    (made,) = folder.glob("*.whl")
    return made


def _build(what: str, source: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "build", what, "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
