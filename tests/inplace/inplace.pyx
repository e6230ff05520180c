# cython: language_level=3
"""Decodes a frame where it lies, as the wire does in a connection's buffer: for tests that choose where that is."""

from libc.stdint cimport int64_t

from fastfeed._core cimport Decoder


def decode(Decoder decoder not None, size_t address, Py_ssize_t size, Py_ssize_t readable, int64_t recv_ns):
    """How many ticks the frame of `size` bytes made, of which `readable` bytes behind may be read and written."""
    before = decoder.stats()["ticks"]
    decoder.frame(<char*>address, size, readable, recv_ns, 1, 0, True)
    decoder.flush()
    return decoder.stats()["ticks"] - before
