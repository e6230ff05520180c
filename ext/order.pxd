"""Memory order by name, from order.h: acquire loads, release stores, a fence. Declarations only."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "order.h" nogil:
    uint64_t order_load64(const uint64_t* p)
    void order_store64(uint64_t* p, uint64_t v)
    uint32_t order_load32(const uint32_t* p)
    void order_store32(uint32_t* p, uint32_t v)
    void order_fence()
