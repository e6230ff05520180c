"""Is this the next message of its stream? Gap, duplicate, reorder, reset; one small state per (symbol, stream).

It only judges and remembers the last number. What a verdict means for prices is the decoder's business, what a gap
means for recovery the session's.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t


cdef enum sequence_rule:
    SEQUENCE_NONE = 0
    SEQUENCE_RISING = 1      # holes are normal: only order and repeats can be told
    SEQUENCE_CONTIGUOUS = 2  # +1
    SEQUENCE_RANGE = 3       # [first, seq]; first is at most the last seq + 1
    SEQUENCE_LINKED = 4      # prev names the last seq
    SEQUENCE_CONNECTION = 5  # +1 over everything on one connection
    SEQUENCE_TIME = 6        # no number: the event time never goes back; equal is normal

cdef enum sequence_verdict:
    IN_ORDER, GAP, DUPLICATE, RESET

cdef enum:
    RESET_RUN = 8  # so many rising numbers in a row below the last: the provider started anew

cdef struct sequence:  # 32 bytes: one a symbol, and two a cache line
    int64_t last
    int64_t below     # the last number seen below `last`
    uint32_t judged   # these three are of the message judged last, if elements share its number: of that the lower half
    uint32_t serial   # which one it is
    uint32_t begun_s  # event time, UTC seconds, of what shows that a session goes on though no row does
    uint8_t verdict
    uint8_t run       # how many of those below in a row have risen
    uint8_t known     # false until the first message


cdef inline bint sequence_rises(sequence* s, int64_t seq) noexcept nogil:
    """What sequence_check comes to where SEQUENCE_RISING is kept. False: it is not, or not known; nothing is done."""
    if not s.known or seq <= s.last:
        return False
    s.last = seq
    s.run = 0
    return True


cdef inline int sequence_check(sequence* s, uint8_t rule, int64_t first, int64_t seq, int64_t prev) noexcept nogil:
    """The verdict on `seq`; on GAP the missing ones are `s.last + 1` up to `first - 1` (linked: `prev`).

    That is `s.last` before this call moved on: the caller reads it before calling.
    """
    cdef int64_t last = s.last
    cdef int64_t expected = last + 1
    if not s.known:
        s.known = True
        s.last = seq
        return IN_ORDER
    if seq > last or (seq == last and rule == SEQUENCE_TIME):
        s.last = seq
        s.run = 0
        if rule == SEQUENCE_CONTIGUOUS or rule == SEQUENCE_CONNECTION:
            return IN_ORDER if seq == expected else GAP
        if rule == SEQUENCE_RANGE:
            return IN_ORDER if first <= expected else GAP
        if rule == SEQUENCE_LINKED:
            return IN_ORDER if prev <= last else GAP
        return IN_ORDER
    if seq < last:
        s.run = <uint8_t>(s.run + 1) if s.run and seq > s.below else 1
        s.below = seq
        if s.run == RESET_RUN:
            s.last = seq
            s.run = 0
            return RESET
    return DUPLICATE
