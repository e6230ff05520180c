"""Bytes to numbers and string ends: what scan.h offers to the rest of the machine room.

Declarations only; the contract (padded frames, a NUL at the end, `simd` a constant) stands in scan.h.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "scan.h" nogil:
    enum:
        FF_PADDING
    uint64_t scan_load8(const char* p)
    uint32_t scan_same16(const char* p, const uint8_t* q)
    void scan_last16(uint64_t* out, const char* p, uint32_t n)
    const char* scan_string(const char* p, int* escaped, bint simd)
    const char* scan_string_fault(const char* p)
    const char* scan_text_fault(const char* p, const char* end)
    uint32_t scan_unescape(const char* p, uint32_t size, char* out)
    const char* scan_space(const char* p)
    const char* scan_bare(const char* p, bint simd)
    bint scan_price(const char* s, uint32_t n, double* out, bint simd)
    bint scan_integer(const char* s, uint32_t n, int64_t* out)
    bint scan_iso(const char* s, uint32_t n, int64_t* out)
