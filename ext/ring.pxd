"""Ticks in order: one writer, many readers, the oldest overwritten. Loss is not an error: it is counted, per reader.

The writer never waits and never looks at a reader. It announces what it is about to overwrite (`claimed`), writes, then
publishes (`published`); a reader copies first and checks afterwards whether the writer had come round meanwhile.
"""

from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from order cimport (
    order_add32, order_fence, order_get32, order_get64, order_load64, order_put, order_set64, order_store64, order_take,
)
from tick cimport ff_tick


cdef struct ring:
    ff_tick* ticks
    void* memory        # what `ticks` was cut from, at a cache line
    uint64_t mask
    uint64_t claimed    # ticks whose place may be being written
    uint64_t published  # ticks ever published
    uint32_t readers    # with none, the decoder does not write here at all

cdef struct ring_reader:
    bint open
    uint64_t attached   # where it began
    uint64_t received   # published since then, once detached
    uint64_t cursor
    uint64_t delivered
    uint64_t lapped     # overwritten before it came to them


cdef inline bint ring_open(ring* r, uint64_t capacity) noexcept nogil:
    """`capacity` is a power of two."""
    memset(r, 0, sizeof(ring))
    r.memory = calloc(capacity + 1, sizeof(ff_tick))
    r.ticks = <ff_tick*>((<uintptr_t>r.memory + 63) & ~<uintptr_t>63)
    r.mask = capacity - 1
    return r.memory != NULL


cdef inline void ring_close(ring* r) noexcept nogil:
    free(r.memory)


cdef inline bint ring_followed(const ring* r) noexcept nogil:
    """Does anybody read it?"""
    return order_get32(&r.readers) != 0


cdef inline void ring_publish(ring* r, const ff_tick* t) noexcept nogil:
    cdef uint64_t n = r.published
    order_set64(&r.claimed, n + 1)
    order_fence()
    order_put(&r.ticks[n & r.mask], t, sizeof(ff_tick) // 8)
    order_store64(&r.published, n + 1)


cdef inline void ring_attach(ring* r, ring_reader* c) noexcept nogil:
    """A reader starts at the present."""
    memset(c, 0, sizeof(ring_reader))
    c.open = True
    c.attached = c.cursor = order_load64(&r.published)
    order_add32(&r.readers, 1)


cdef inline void ring_detach(ring* r, ring_reader* c) noexcept nogil:
    """What still waited is lost, counted; the counts stay readable."""
    cdef uint64_t head = order_load64(&r.published)
    if not c.open:
        return
    c.open = False
    c.received = head - c.attached
    c.lapped += head - c.cursor
    order_add32(&r.readers, <uint32_t>-1)


cdef inline uint64_t ring_received(const ring* r, const ring_reader* c) noexcept nogil:
    return order_load64(&r.published) - c.attached if c.open else c.received


cdef inline uint64_t ring_pending(const ring* r, const ring_reader* c) noexcept nogil:
    """Published and neither read nor overwritten."""
    cdef uint64_t n = order_load64(&r.published) - c.cursor if c.open else 0
    return n if n <= r.mask + 1 else r.mask + 1


cdef inline uint64_t ring_skip(ring_reader* c, uint64_t oldest) noexcept nogil:
    """Count what was overwritten before `oldest` and go on from there."""
    cdef uint64_t lost = 0
    if c.cursor < oldest:
        lost = oldest - c.cursor
        c.lapped += lost
        c.cursor = oldest
    return lost


cdef inline uint64_t ring_read(ring* r, ring_reader* c, ff_tick* out, uint64_t room) noexcept nogil:
    """Copy the next ticks, at most `room`; how many."""
    cdef uint64_t head = order_load64(&r.published)
    cdef uint64_t capacity = r.mask + 1
    cdef uint64_t n, lost, i
    if not c.open:
        return 0
    if head > capacity:
        ring_skip(c, head - capacity)
    n = head - c.cursor
    if n > room:
        n = room
    for i in range(n):
        order_take(&out[i], &r.ticks[(c.cursor + i) & r.mask], sizeof(ff_tick) // 8)
    order_fence()
    head = order_get64(&r.claimed)
    if head > capacity and head - capacity > c.cursor:
        # The writer came round while we copied: what it may have touched is lost, the rest moves to the front.
        lost = head - capacity - c.cursor
        if lost > n:
            lost = n
        c.lapped += lost
        c.cursor += lost
        n -= lost
        for i in range(n):
            out[i] = out[i + lost]
    c.cursor += n
    c.delivered += n
    return n


cdef inline uint64_t ring_unread(const ring* r, const ring_reader* c) noexcept nogil:
    """Lapped ticks the reader has not stumbled over yet."""
    cdef uint64_t n = order_load64(&r.published) - c.cursor if c.open else 0
    return n - (r.mask + 1) if n > r.mask + 1 else 0
