/* Memory order by name: what a lock-free reader and the single writer may assume of each other.
 * Everything both touch at the same time goes through here, so that a race detector has nothing to forgive. No locks, no
 * waiting. */
#ifndef FF_ORDER_H
#define FF_ORDER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define ORDER_INLINE static __forceinline
/* x86-64: loads acquire and stores release by themselves, the compiler only must not reorder. */
typedef uint64_t order_word;
typedef uint32_t order_half;
#define ORDER_GET(p) (*(volatile const order_word *)(p))
#define ORDER_SET(p, v) ((void)(*(volatile order_word *)(p) = (v)))
#define ORDER_GET_HALF(p) (*(volatile const order_half *)(p))
#define ORDER_SET_HALF(p, v) ((void)(*(volatile order_half *)(p) = (v)))
#define ORDER_GET_BYTE(p) (*(volatile const uint8_t *)(p))
#define ORDER_SET_BYTE(p, v) ((void)(*(volatile uint8_t *)(p) = (v)))
ORDER_INLINE uint64_t order_load64(const uint64_t *p) { uint64_t v = ORDER_GET(p); _ReadWriteBarrier(); return v; }
ORDER_INLINE void order_store64(uint64_t *p, uint64_t v) { _ReadWriteBarrier(); ORDER_SET(p, v); }
ORDER_INLINE uint32_t order_load32(const uint32_t *p) { uint32_t v = ORDER_GET_HALF(p); _ReadWriteBarrier(); return v; }
ORDER_INLINE void order_store32(uint32_t *p, uint32_t v) { _ReadWriteBarrier(); ORDER_SET_HALF(p, v); }
ORDER_INLINE void *order_load_pointer(void *const *p) { return (void *)order_load64((const uint64_t *)p); }
ORDER_INLINE void order_store_pointer(void **p, void *v) { order_store64((uint64_t *)p, (uint64_t)v); }
ORDER_INLINE void order_add32(uint32_t *p, uint32_t v) { _InterlockedExchangeAdd((volatile long *)p, (long)v); }
#define order_fence() _ReadWriteBarrier()
#define order_full_fence() _mm_mfence()
#define order_expect(p) ((void)(p))
#else
#define ORDER_INLINE static inline
#define order_expect(p) __builtin_prefetch(p) /* have it on its way from memory; nothing is read there */
/* Also over doubles and bytes: the cells of a record are copied as the words they are. */
typedef uint64_t __attribute__((may_alias)) order_word;
typedef uint32_t __attribute__((may_alias)) order_half;
#define ORDER_GET(p) __atomic_load_n((const order_word *)(p), __ATOMIC_RELAXED)
#define ORDER_SET(p, v) __atomic_store_n((order_word *)(p), (v), __ATOMIC_RELAXED)
#define ORDER_GET_HALF(p) __atomic_load_n((const order_half *)(p), __ATOMIC_RELAXED)
#define ORDER_SET_HALF(p, v) __atomic_store_n((order_half *)(p), (v), __ATOMIC_RELAXED)
#define ORDER_GET_BYTE(p) __atomic_load_n((const uint8_t *)(p), __ATOMIC_RELAXED)
#define ORDER_SET_BYTE(p, v) __atomic_store_n((uint8_t *)(p), (uint8_t)(v), __ATOMIC_RELAXED)
ORDER_INLINE uint64_t order_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
ORDER_INLINE void order_store64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
ORDER_INLINE uint32_t order_load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
ORDER_INLINE void order_store32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
ORDER_INLINE void *order_load_pointer(void *const *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
ORDER_INLINE void order_store_pointer(void **p, void *v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
ORDER_INLINE void order_add32(uint32_t *p, uint32_t v) { (void)__atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
#define order_fence() __atomic_thread_fence(__ATOMIC_ACQ_REL)
/* The only one that keeps a load behind an earlier store; about 20 cycles on x86-64. */
#define order_full_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif

/* The same of 256 bytes, which is most frames. */
ORDER_INLINE void order_expect_frame(const void *p) {
    for (int i = 0; i < 256; i += 64) order_expect((const char *)p + i);
}

/* Relaxed: whole, but in no order of its own. */
ORDER_INLINE uint64_t order_get64(const void *p) { return ORDER_GET(p); }
ORDER_INLINE void order_set64(void *p, uint64_t v) { ORDER_SET(p, v); }
ORDER_INLINE uint32_t order_get32(const void *p) { return ORDER_GET_HALF(p); }
ORDER_INLINE void order_set32(void *p, uint32_t v) { ORDER_SET_HALF(p, v); }
ORDER_INLINE uint8_t order_get8(const void *p) { return ORDER_GET_BYTE(p); }
ORDER_INLINE void order_set8(void *p, uint8_t v) { ORDER_SET_BYTE(p, v); }

#if defined(__SANITIZE_THREAD__)
#define ORDER_DETECTED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ORDER_DETECTED 1
#endif
#endif

/* `words` 8-byte words from the caller's own memory to where others read, and back, between two fences: what was torn is
 * thrown away by its version, so the compiler may copy as wide as it can (relaxed words would cost the decoder 3 %). A
 * race detector sees the words. */
ORDER_INLINE void order_put(void *to, const void *from, size_t words) {
#ifdef ORDER_DETECTED
    for (size_t i = 0; i < words; i++) ORDER_SET((order_word *)to + i, ((const order_word *)from)[i]);
#else
    memcpy(to, from, 8 * words);
#endif
}
ORDER_INLINE void order_take(void *to, const void *from, size_t words) {
#ifdef ORDER_DETECTED
    for (size_t i = 0; i < words; i++) ((order_word *)to)[i] = ORDER_GET((const order_word *)from + i);
#else
    memcpy(to, from, 8 * words);
#endif
}

/* One more, in a count that has one writer. */
ORDER_INLINE void order_count(uint64_t *p) {
#ifdef ORDER_DETECTED
    ORDER_SET(p, *p + 1);
#else
    ++*p;
#endif
}

/* For runs over whole arrays, which would not vectorise as relaxed words: an aligned word is read whole by every machine
 * there is. */
#ifdef ORDER_DETECTED
ORDER_INLINE int64_t order_scan64(const int64_t *p) { return (int64_t)ORDER_GET(p); }
ORDER_INLINE uint32_t order_scan32(const uint32_t *p) { return ORDER_GET_HALF(p); }
ORDER_INLINE uint8_t order_scan8(const uint8_t *p) { return ORDER_GET_BYTE(p); }
#else
ORDER_INLINE int64_t order_scan64(const int64_t *p) { return *p; }
ORDER_INLINE uint32_t order_scan32(const uint32_t *p) { return *p; }
ORDER_INLINE uint8_t order_scan8(const uint8_t *p) { return *p; }
#endif

#endif
