"""Fixtures shared by the rooms' tests: recordings named by FASTFEED_FRAMES, and memory that ends at an unreadable page.

No test logic and no network here.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

PROT_NONE, PROT_READ_WRITE = 0, 3


class GuardedMemory:
    """Pages between two unreadable ones: a read one byte past either end of a payload kills the process.

    The views handed out are valid only until the next call.
    """

    def __init__(self, pages: int = 64) -> None:
        page = mmap.PAGESIZE
        self._map = mmap.mmap(-1, (pages + 2) * page)
        self._size = pages * page
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._start = base + page
        self._libc = ctypes.CDLL(None, use_errno=True)
        for address in (base, self._start + self._size):
            self._protect(address, PROT_NONE)

    def _protect(self, address: int, protection: int) -> None:
        if self._libc.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, protection):
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


@pytest.fixture(scope="session")
def guarded() -> GuardedMemory:
    return GuardedMemory()


class Recordings:
    """The folder of recorded frames: one line each, `<recv ns> <raw text frame>`, gzipped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def frames(self, name: str) -> list[tuple[int, bytes]]:
        """All frames of one recording as (recv_ns, payload)."""
        import gzip

        with gzip.open(self.folder / f"{name}.gz", "rb") as lines:
            split = (line.rstrip(b"\n").split(b" ", 1) for line in lines)
            return [(int(recv_ns), payload) for recv_ns, payload in split]


@pytest.fixture(scope="session")
def recordings() -> Recordings:
    folder = os.environ.get("FASTFEED_FRAMES")
    if not folder:
        pytest.skip("FASTFEED_FRAMES does not name a folder of recorded frames")
    if not Path(folder).is_dir():
        pytest.fail(f"FASTFEED_FRAMES={folder} is not a folder")
    return Recordings(Path(folder))


@pytest.fixture
def fixed_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Decoders made in this test use the kernel every machine has."""
    monkeypatch.setenv("FASTFEED_SIMD", "scalar")
    yield
