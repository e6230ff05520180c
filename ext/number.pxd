"""Numbers as machines write them: what number.h offers to the binary wire formats. Declarations only."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "number.h" nogil:
    uint64_t number_big(const char* p, uint32_t size)
    uint64_t number_little(const char* p, uint32_t size)
    int64_t number_signed(uint64_t v, uint32_t size)
    double number_real(uint64_t bits, uint32_t size)
    bint number_decimal(uint64_t magnitude, bint negative, int64_t exponent, double* out)
    bint number_scaled(int64_t mantissa, int64_t exponent, double* out)
    uint32_t number_spell(uint64_t magnitude, bint negative, char* out)
