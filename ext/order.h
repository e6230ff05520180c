/* Memory order by name: what a lock-free reader and the single writer may assume of each other. */
#ifndef FF_ORDER_H
#define FF_ORDER_H

#include <stdint.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
/* x86-64: loads acquire and stores release by themselves, the compiler only must not reorder. */
static __forceinline uint64_t order_load64(const uint64_t *p) {
    uint64_t v = *(const volatile uint64_t *)p;
    _ReadWriteBarrier();
    return v;
}
static __forceinline void order_store64(uint64_t *p, uint64_t v) { _ReadWriteBarrier(); *(volatile uint64_t *)p = v; }
static __forceinline uint32_t order_load32(const uint32_t *p) {
    uint32_t v = *(const volatile uint32_t *)p;
    _ReadWriteBarrier();
    return v;
}
static __forceinline void order_store32(uint32_t *p, uint32_t v) { _ReadWriteBarrier(); *(volatile uint32_t *)p = v; }
#define order_fence() _ReadWriteBarrier()
#else
static inline uint64_t order_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void order_store64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline uint32_t order_load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void order_store32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
#define order_fence() __atomic_thread_fence(__ATOMIC_ACQ_REL)
#endif

#endif
