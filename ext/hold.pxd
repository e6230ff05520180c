"""Ticks kept back from the ring: one bounded store for all streams, a queue in it for each stream that waits.

Knows neither why a stream waits nor until when. It never grows: who asks for more than there is room for is told.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tick cimport ff_tick


cdef struct held:
    ff_tick tick
    int64_t first    # the lowest number its message covers
    uint32_t next    # in its queue, or in the chain of free places; 0: the end
    uint8_t begins   # the first tick of its message
    uint8_t aside    # a repeat: it keeps its place, but takes no part in the order of numbers

cdef struct hold:
    held* ticks      # place 0 is never used, so that an empty queue is all zeros
    uint32_t room
    uint32_t used
    uint32_t fresh   # places ever used
    uint32_t spare   # chain of those given back

cdef struct queue:
    uint32_t head
    uint32_t tail


cdef inline bint hold_open(hold* h, uint32_t room) noexcept nogil:
    memset(h, 0, sizeof(hold))
    h.ticks = <held*>calloc(<size_t>room + 1, sizeof(held))
    h.room = room
    return h.ticks != NULL


cdef inline void hold_close(hold* h) noexcept nogil:
    free(h.ticks)


cdef inline bint hold_fits(const hold* h, uint32_t ticks) noexcept nogil:
    return ticks <= h.room - h.used


cdef inline uint32_t hold_put(
    hold* h, queue* q, uint32_t after, const ff_tick* tick, int64_t first, bint begins, bint aside
) noexcept nogil:
    """Keep a tick behind the place `after` (0: at the front); its place. There must be room."""
    cdef uint32_t at = h.spare
    cdef held* e
    if at:
        h.spare = h.ticks[at].next
    else:
        h.fresh += 1
        at = h.fresh
    h.used += 1
    e = &h.ticks[at]
    e.tick = tick[0]
    e.first = first
    e.begins = begins
    e.aside = aside
    if after:
        e.next = h.ticks[after].next
        h.ticks[after].next = at
    else:
        e.next = q.head
        q.head = at
    if e.next == 0:
        q.tail = at
    return at


cdef inline void hold_drop(hold* h, queue* q, uint32_t after) noexcept nogil:
    """Give back the place behind `after` (0: the front one)."""
    cdef uint32_t at = h.ticks[after].next if after else q.head
    if after:
        h.ticks[after].next = h.ticks[at].next
    else:
        q.head = h.ticks[at].next
    if q.tail == at:
        q.tail = after
    h.ticks[at].next = h.spare
    h.spare = at
    h.used -= 1


cdef inline uint32_t hold_before(const hold* h, const queue* q, int64_t seq) noexcept nogil:
    """The place behind which a message numbered `seq` belongs: everything in front of it is lower."""
    cdef uint32_t before = 0
    cdef uint32_t at = q.head
    while at and (h.ticks[at].aside or h.ticks[at].tick.seq <= seq):
        before = at
        at = h.ticks[at].next
    return before
