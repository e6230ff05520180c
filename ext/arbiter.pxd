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
    bint soft         # numbers that rise with holes: whether anything is missing nobody knows, and nothing is told

cdef struct lane:     # one stream of one symbol
    sequence legs[2]  # each leg's own order
    uint32_t met[2]   # the connection each leg last spoke by
    uint32_t resets[2]
    uint32_t reset    # of the stream
    uint8_t low[2]    # messages of a leg that began below the stream's last number, until it has reached that
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
    uint32_t serial   # these four are of the message judged last, if elements share its number
    uint8_t verdict
    uint8_t flags
    int64_t judged
    int64_t floor
    int64_t reach[2]  # the number it has to reach
    int64_t heard_ns[2]
    int64_t won_ns    # the newest first arrival
    queue held
    hole* holes       # in order, those told first; HOLES of them lent while there is one
    uint32_t n_holes


cdef inline void lane_begin(lane* ln, uint32_t season, uint32_t lead, bint given, int64_t since_ns) noexcept nogil:
    """A new arbitration: both legs have yet to speak. A lead named before is taken to have delivered so far."""
    ln.season = season
    memset(ln.legs, 0, sizeof(ln.legs))
    ln.resets[0] = ln.resets[1] = ln.reset = 0
    ln.low[0] = ln.low[1] = 0
    ln.heard_ns[0] = ln.heard_ns[1] = ln.won_ns = 0
    if given:
        ln.heard_ns[lead] = since_ns
    ln.settling = False


cdef inline bint lane_dig(lane* ln, int64_t first, int64_t last, int64_t until_ns, bint told) noexcept nogil:
    """A new hole at the end; False if there is no room."""
    cdef hole* h
    if ln.holes == NULL or ln.n_holes == HOLES:
        return False
    h = &ln.holes[ln.n_holes]
    ln.n_holes += 1
    h.first = first
    h.last = last
    h.until_ns = until_ns
    h.told = told
    h.flagged = h.soft = False
    return True


cdef inline void lane_close(lane* ln, uint32_t i) noexcept nogil:
    ln.n_holes -= 1
    memmove(&ln.holes[i], &ln.holes[i + 1], (ln.n_holes - i) * sizeof(hole))


cdef inline bint lane_lacks(const lane* ln, int64_t first, int64_t last) noexcept nogil:
    """Is any of these numbers missing?"""
    cdef uint32_t i
    for i in range(ln.n_holes):
        if first <= ln.holes[i].last and ln.holes[i].first <= last:
            return True
    return False


cdef inline bint lane_fill(lane* ln, int64_t first, int64_t last) noexcept nogil:
    """Take these numbers out of the holes; False if none of them was missing (or no room to split a hole)."""
    cdef bint found = False
    cdef uint32_t i = 0
    cdef hole* h
    while i < ln.n_holes:
        h = &ln.holes[i]
        if h.last < first or h.first > last:
            i += 1
        elif first <= h.first and h.last <= last:
            lane_close(ln, i)
            found = True
        elif first <= h.first:
            h.first = last + 1
            found = True
        elif h.last <= last:
            h.last = first - 1
            found = True
        elif ln.n_holes < HOLES:
            memmove(h + 1, h, (ln.n_holes - i) * sizeof(hole))
            ln.n_holes += 1
            h.last = first - 1
            h.flagged = False
            h[1].first = last + 1
            return True
        else:
            return found
    return found


cdef inline bint lane_is_over(const lane* ln, const hole* h, int64_t now_ns) noexcept nogil:
    """Has the hole become a gap? Both legs have gone past it, or its time is up."""
    if now_ns >= h.until_ns:
        return True
    return (ln.legs[0].known and ln.legs[1].known and ln.resets[0] == ln.reset == ln.resets[1]
            and h.last <= ln.legs[0].last and h.last <= ln.legs[1].last)


cdef inline int lane_judge(
    lane* ln, sequence* s, uint32_t leg, int64_t first, int64_t seq, int64_t now_ns, int64_t until_ns,
    int64_t apart_ns
) noexcept nogil:
    """The verdict on a numbered message. A `first` above the stream's last plus one opens a hole, if there is room.

    `until_ns`: how long the hole waits. `apart_ns`: further behind than that no leg can be.
    """
    cdef sequence* own = &ln.legs[leg]
    cdef bint joins = not own.known
    cdef bint apart = ln.won_ns and now_ns - ln.won_ns > apart_ns
    cdef int verdict = sequence_check(own, SEQUENCE_RISING, seq, seq, seq)
    if joins:
        ln.resets[leg] = ln.reset
        ln.low[leg] = s.known and seq < s.last
        ln.reach[leg] = s.last
    elif seq >= ln.reach[leg]:
        ln.low[leg] = 0
    elif ln.low[leg] and ln.low[leg] < RESET_RUN:
        ln.low[leg] += 1
    if verdict == RESET:
        ln.resets[leg] += 1
        ln.low[leg] = 0
        if <int>(ln.resets[leg] - ln.reset) > 0:
            ln.reset = ln.resets[leg]
            return lane_restart(ln, s, seq, now_ns)
    elif ln.n_holes and ln.resets[leg] == ln.reset and lane_fill(ln, first, seq):
        if seq > s.last:
            s.last = seq
        ln.won_ns = now_ns
        return FILLED
    elif verdict == DUPLICATE:
        return REPEATED
    elif ln.resets[leg] != ln.reset:
        # Numbers of before the reset the other leg has shown. If it was none, this leg knows better in the end.
        if not first <= s.last + 1 <= seq:
            if not apart:
                return SECOND
            ln.resets[leg] = ln.reset
            return lane_restart(ln, s, seq, now_ns)
        ln.resets[leg] = ln.reset
    if not s.known or seq > s.last:
        if s.known and first > s.last + 1:
            lane_dig(ln, s.last + 1, first - 1, until_ns, False)
        s.known = True
        s.last = seq
        s.run = 0
        ln.won_ns = now_ns
        return NEWEST
    if ln.low[leg]:
        # A new connection whose numbers stay below, while nobody brings any above: both began anew.
        if ln.low[leg] == RESET_RUN and apart:
            ln.low[leg] = 0
            return lane_restart(ln, s, seq, now_ns)
    return SECOND


cdef inline int lane_restart(lane* ln, sequence* s, int64_t seq, int64_t now_ns) noexcept nogil:
    s.last = seq
    s.run = 0
    ln.won_ns = now_ns
    return ANEW


cdef inline bint lane_counts(
    lane* ln, uint32_t leg, uint32_t lead, bint given, uint32_t lead_set, int64_t now_ns, int64_t patience_ns
) noexcept nogil:
    """May this leg speak where there are no numbers? The lead changes when it has been silent for too long.

    `given`: the lead was named and not just the first to speak; then it leads from its first word on.
    """
    cdef int64_t silent_ns
    if ln.lead_set != lead_set:
        ln.lead_set = lead_set
        ln.lead = <uint8_t>(lead if given else leg)
    ln.heard_ns[leg] = now_ns
    if ln.lead == leg or not ln.heard_ns[ln.lead]:
        return True
    silent_ns = now_ns - ln.heard_ns[ln.lead]
    if silent_ns <= patience_ns:
        return False
    ln.lead = <uint8_t>leg
    return True
