"""Two legs carry one stream: which message is the first arrival, what is missing on both, which leg leads.

Judges numbers and moments only; it keeps no ticks and publishes nothing. A hole that one leg shows stays open until the
other leg fills it or has passed it too, or its time is up.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memmove, memset

from hold cimport queue
from sequence cimport DUPLICATE, RESET, RESET_RUN, SEQUENCE_RISING, sequence, sequence_check


cdef enum arrival_verdict:
    NEWEST,     # the first arrival, above everything so far
    FILLED,     # the first arrival of something that was missing
    SECOND,     # the other leg has brought it already
    REPEATED,   # this leg itself has
    ANEW        # the provider counts from a new beginning

cdef enum:
    HOLES = 64   # open at a time in one stream
    APART = 10   # patiences: two legs are never further apart

cdef struct hole:
    int64_t first
    int64_t last
    int64_t until_ns  # monotonic: then it is a gap
    bint told         # it is one, and recorded
    bint flagged      # the tick behind it has been published already

cdef struct lane:     # one stream of one symbol
    sequence legs[2]  # each leg's own order
    uint32_t resets[2]
    uint32_t reset    # of the stream
    uint8_t low[2]    # this leg began below the stream's last number and has not reached it yet
    uint8_t lead      # where there are no numbers: the leg that counts
    bint settling     # one leg is left, and the stream may still lag or have a hole
    bint repairing    # held back until it is spliced or released
    bint overflowed   # the last hold ended because there was no room
    bint doubt        # the next tick published follows something lost
    bint floored      # what is numbered up to `floor` has been superseded
    bint reaches      # `floor` itself included
    bint seconds      # what is below the floor came by the other leg (else by a snapshot)
    bint listed
    uint32_t season   # the arbitration it was last touched in
    uint32_t lead_set
    uint32_t next     # in the list of lanes with holes: index + 1
    int64_t floor
    int64_t heard_ns[2]
    int64_t won_ns    # the newest first arrival
    queue held
    hole* holes       # in order, those told first; HOLES of them lent while there is one
    uint32_t n_holes


cdef inline void lane_begin(lane* l, uint32_t season, uint32_t lead, bint given, int64_t since_ns) noexcept nogil:
    """A new arbitration: both legs have yet to speak. One named as the lead before is taken to have delivered so far."""
    l.season = season
    memset(l.legs, 0, sizeof(l.legs))
    l.resets[0] = l.resets[1] = l.reset = 0
    l.low[0] = l.low[1] = 0
    l.heard_ns[0] = l.heard_ns[1] = l.won_ns = 0
    if given:
        l.heard_ns[lead] = since_ns
    l.settling = False


cdef inline bint lane_dig(lane* l, int64_t first, int64_t last, int64_t until_ns, bint told) noexcept nogil:
    """A new hole at the end; False if there is no room."""
    cdef hole* h
    if l.holes == NULL or l.n_holes == HOLES:
        return False
    h = &l.holes[l.n_holes]
    l.n_holes += 1
    h.first = first
    h.last = last
    h.until_ns = until_ns
    h.told = told
    h.flagged = False
    return True


cdef inline void lane_close(lane* l, uint32_t i) noexcept nogil:
    l.n_holes -= 1
    memmove(&l.holes[i], &l.holes[i + 1], (l.n_holes - i) * sizeof(hole))


cdef inline bint lane_fill(lane* l, int64_t first, int64_t last) noexcept nogil:
    """Take these numbers out of the holes; False if none of them was missing (or no room to split a hole)."""
    cdef bint found = False
    cdef uint32_t i = 0
    cdef hole* h
    while i < l.n_holes:
        h = &l.holes[i]
        if h.last < first or h.first > last:
            i += 1
        elif first <= h.first and h.last <= last:
            lane_close(l, i)
            found = True
        elif first <= h.first:
            h.first = last + 1
            found = True
        elif h.last <= last:
            h.last = first - 1
            found = True
        elif l.n_holes < HOLES:
            memmove(h + 1, h, (l.n_holes - i) * sizeof(hole))
            l.n_holes += 1
            h.last = first - 1
            h.flagged = False
            h[1].first = last + 1
            return True
        else:
            return found
    return found


cdef inline bint lane_is_over(const lane* l, const hole* h, int64_t now_ns) noexcept nogil:
    """Has the hole become a gap? Both legs have gone past it, or its time is up."""
    if now_ns >= h.until_ns:
        return True
    return (l.legs[0].known and l.legs[1].known and l.resets[0] == l.reset == l.resets[1]
            and h.last <= l.legs[0].last and h.last <= l.legs[1].last)


cdef inline int lane_judge(
    lane* l, sequence* s, uint32_t leg, int64_t first, int64_t seq, int64_t now_ns, int64_t until_ns,
    int64_t apart_ns
) noexcept nogil:
    """The verdict on a numbered message. A `first` above the stream's last plus one opens a hole, if there is room.

    `until_ns`: how long the hole waits. `apart_ns`: further behind than that no leg can be.
    """
    cdef sequence* own = &l.legs[leg]
    cdef bint joins = not own.known
    cdef bint apart = l.won_ns and now_ns - l.won_ns > apart_ns
    cdef int verdict = sequence_check(own, SEQUENCE_RISING, seq, seq, seq)
    if joins:
        l.resets[leg] = l.reset
        l.low[leg] = s.known and seq < s.last
    elif l.low[leg] and l.low[leg] < RESET_RUN:
        l.low[leg] += 1
    if verdict == RESET:
        l.resets[leg] += 1
        l.low[leg] = 0
        if <int>(l.resets[leg] - l.reset) > 0:
            l.reset = l.resets[leg]
            return lane_restart(l, s, seq, now_ns)
    elif l.n_holes and l.resets[leg] == l.reset and lane_fill(l, first, seq):
        if seq > s.last:
            s.last = seq
        l.won_ns = now_ns
        return FILLED
    elif verdict == DUPLICATE:
        return REPEATED
    elif l.resets[leg] != l.reset:
        # Numbers of before the reset the other leg has shown. If it was none, this leg knows better in the end.
        if not first <= s.last + 1 <= seq:
            if not apart:
                return SECOND
            l.resets[leg] = l.reset
            return lane_restart(l, s, seq, now_ns)
        l.resets[leg] = l.reset
    if not s.known or seq > s.last:
        if s.known and first > s.last + 1:
            lane_dig(l, s.last + 1, first - 1, until_ns, False)
        s.known = True
        s.last = seq
        s.run = 0
        l.low[leg] = 0
        l.won_ns = now_ns
        return NEWEST
    if l.low[leg]:
        # A new connection whose numbers stay below, while nobody brings any above: both began anew.
        if l.low[leg] == RESET_RUN and apart:
            l.low[leg] = 0
            return lane_restart(l, s, seq, now_ns)
    return SECOND


cdef inline int lane_restart(lane* l, sequence* s, int64_t seq, int64_t now_ns) noexcept nogil:
    s.last = seq
    s.run = 0
    l.won_ns = now_ns
    return ANEW


cdef inline bint lane_counts(
    lane* l, uint32_t leg, uint32_t lead, bint given, uint32_t lead_set, int64_t now_ns, int64_t patience_ns
) noexcept nogil:
    """May this leg speak where there are no numbers? The lead changes when it has been silent for too long.

    `given`: the lead was named and not just the first to speak; then it leads from its first word on.
    """
    cdef int64_t silent_ns
    if l.lead_set != lead_set:
        l.lead_set = lead_set
        l.lead = <uint8_t>(lead if given else leg)
    l.heard_ns[leg] = now_ns
    if l.lead == leg or not l.heard_ns[l.lead]:
        return True
    silent_ns = now_ns - l.heard_ns[l.lead]
    if silent_ns <= patience_ns:
        return False
    l.lead = <uint8_t>leg
    return True
