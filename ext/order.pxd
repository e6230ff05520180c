"""Memory order by name, from order.h: acquire loads, release stores, relaxed words, fences. Declarations only."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "order.h" nogil:
    uint64_t order_load64(const uint64_t* p)
    void order_store64(uint64_t* p, uint64_t v)
    uint32_t order_load32(const uint32_t* p)
    void order_store32(uint32_t* p, uint32_t v)
    void* order_load_pointer(void** p)
    void order_store_pointer(void** p, void* v)
    void order_add32(uint32_t* p, uint32_t v)
    void order_fence()
    void order_full_fence()
    void order_expect(const void* p)
    void order_expect_frame(const void* p)
    uint64_t order_get64(const void* p)
    void order_set64(void* p, uint64_t v)
    uint32_t order_get32(const void* p)
    void order_set32(void* p, uint32_t v)
    uint8_t order_get8(const void* p)
    void order_set8(void* p, uint8_t v)
    void order_put(void* to, const void* source, size_t words)
    void order_take(void* to, const void* source, size_t words)
    void order_count(uint64_t* p)
    int64_t order_scan64(const int64_t* p)
    uint32_t order_scan32(const uint32_t* p)
    uint8_t order_scan8(const uint8_t* p)
