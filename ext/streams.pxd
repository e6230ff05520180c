"""Every stream's sequence state and the log of gaps: which numbers a message covers, and how it stands to its stream.

One connection's view; two legs are weighed in `arbiter`. Knows no prices and decides nothing about them.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from layout cimport FIELD_SEQ, ff_fields
from schema cimport schema_message
from sequence cimport (
    DUPLICATE, GAP, RESET, RESET_RUN, SEQUENCE_CONNECTION, SEQUENCE_LINKED, SEQUENCE_NONE, SEQUENCE_RANGE,
    SEQUENCE_TIME, sequence, sequence_check,
)
from symbols cimport NO_SYMBOL
from tick cimport FF_NOT_LAST, SECOND_NS, ff_row


cdef enum:
    SOURCES = 256       # connections whose own sequence is tracked
    BEHIND = 255        # messages of a symbol after which a connection that lies behind is followed all the same
    GAPS = 65536        # newest gaps kept

cdef struct gap:
    uint32_t symbol_id
    uint16_t channel
    bint closed         # what could be done about it has been done
    int64_t first       # first and last missing
    int64_t last
    int64_t recv_ns

cdef struct numbers:    # what one message says about its place
    int64_t first       # the lowest number it covers
    int64_t seq         # the highest; for the rule `time`, its event time
    int64_t prev        # the number before it, where the provider names it; else the stream's last

cdef struct streams:
    sequence* each      # [stream * symbols + symbol]
    sequence connections[256]
    uint32_t symbols
    gap* log
    uint64_t n_gaps
    uint64_t duplicates
    uint64_t resets
    uint32_t before     # messages before this frame


cdef inline bint streams_open(streams* t, uint32_t symbols, uint16_t count) noexcept nogil:
    memset(t, 0, sizeof(streams))
    t.symbols = symbols
    t.each = <sequence*>calloc(<size_t>symbols * count, sizeof(sequence))
    t.log = <gap*>calloc(GAPS, sizeof(gap))
    return t.each != NULL and t.log != NULL


cdef inline void streams_close(streams* t) noexcept nogil:
    free(t.each)
    free(t.log)


cdef inline bint streams_numbers(
    const schema_message* m, const ff_fields* f, int64_t last, numbers* n
) noexcept nogil:
    """False where the message has no place in an order."""
    if m.rule == SEQUENCE_TIME:
        n.first = n.seq = f.event_ns
        n.prev = last
        return f.event_ns != 0
    if m.rule == SEQUENCE_NONE or not (f.present >> FIELD_SEQ) & 1:
        return False
    n.seq = f.integer[0]
    n.first = f.integer[1] if m.rule == SEQUENCE_RANGE and f.present >> (FIELD_SEQ + 1) & 1 else n.seq
    n.prev = f.integer[2] if f.present >> (FIELD_SEQ + 2) & 1 else last
    return True


cdef inline void streams_gap(
    streams* t, uint32_t symbol_id, uint16_t channel, int64_t first, int64_t last, int64_t recv_ns
) noexcept nogil:
    cdef gap* g = &t.log[t.n_gaps % GAPS]
    t.n_gaps += 1
    g.symbol_id = symbol_id
    g.channel = channel
    g.closed = False
    g.first = first
    g.last = last
    g.recv_ns = recv_ns


cdef inline sequence* streams_of(streams* t, const schema_message* m, uint32_t symbol_id) noexcept nogil:
    return &t.each[<size_t>m.stream * t.symbols + symbol_id]


cdef inline sequence* streams_at(
    streams* t, const schema_message* m, uint32_t symbol_id, uint16_t source
) noexcept nogil:
    if m.rule == SEQUENCE_CONNECTION:
        return &t.connections[source % SOURCES]
    return streams_of(t, m, symbol_id)


cdef inline bint streams_is_late(const schema_message* m, const ff_fields* f, const ff_row* r) noexcept nogil:
    """Is this trade of before the newest, and yet newer than the last price, as those in between were NOT_LAST?"""
    if not m.spares or f.flags & FF_NOT_LAST or m.rule == SEQUENCE_CONNECTION:
        return False
    if m.rule == SEQUENCE_TIME:
        return f.event_ns > r.trade_event_ns
    return f.present >> FIELD_SEQ & 1 and f.integer[0] > r.trade_seq


cdef inline bint streams_is_behind(
    streams* t, const schema_message* m, const ff_fields* f, uint32_t symbol_id, int64_t connection, int64_t recv_ns
) noexcept nogil:
    """Does this connection lie behind the one that last spoke of the symbol? Its own numbers cannot tell.

    By the provider's time, unless that lies ahead of ours. Within one connection the order is that of arrival.
    """
    cdef sequence* s = streams_of(t, m, symbol_id)  # free under this rule: `last` is a time here, `below` whose it is
    if not f.event_ns:
        return False
    if s.known and s.below != connection and f.event_ns < s.last <= recv_ns and s.run < BEHIND:
        s.run += 1
        t.duplicates += 1
        return True
    s.known = True
    s.below = connection
    s.last = f.event_ns
    s.run = 0
    return False


cdef inline void streams_goes_on(sequence* s, int64_t event_ns) noexcept nogil:
    """A session has got so far: see table_is_of_before."""
    cdef int64_t seconds = event_ns // SECOND_NS
    if seconds > s.begun_s and seconds < <int64_t>1 << 32:
        s.begun_s = <uint32_t>seconds


cdef inline void streams_forget(streams* t, sequence* s, int64_t event_ns) noexcept nogil:
    """Its numbers count from a new beginning: the next one is in order whatever it is."""
    streams_goes_on(s, event_ns)
    s.known = False
    s.run = 0
    t.resets += 1


cdef inline int streams_check(
    streams* t, sequence* s, const schema_message* m, const ff_fields* f, const numbers* n, uint32_t symbol_id,
    int64_t recv_ns,
) noexcept nogil:
    """Where this message stands in its stream; a gap is recorded. Elements that share its number stand alike."""
    cdef int64_t last = s.last
    cdef int verdict
    if m.shares and s.serial == t.before + f.ordinal and s.judged == <uint32_t>n.seq:
        return s.verdict
    verdict = sequence_check(s, m.rule, n.first, n.seq, n.prev)
    if verdict == RESET and m.rule == SEQUENCE_CONNECTION:
        # The numbers begin anew in the middle: those taken for repeats until now were none.
        t.resets += 1
        verdict = GAP
        last = n.seq - RESET_RUN
    if m.shares:
        s.serial = t.before + f.ordinal
        s.judged = <uint32_t>n.seq
        s.verdict = <uint8_t>verdict
    if verdict == GAP:
        if m.rule == SEQUENCE_CONNECTION:
            symbol_id = NO_SYMBOL
        streams_gap(
            t, symbol_id, m.channel, last + 1, n.prev if m.rule == SEQUENCE_LINKED else n.first - 1, recv_ns)
    elif verdict == DUPLICATE:
        t.duplicates += 1
    elif verdict == RESET:
        t.resets += 1
    return verdict
