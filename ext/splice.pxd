"""What was fetched, put where it belongs: snapshots, missing trades and last values join the ticks that are held.

It asks for nothing and reads no bytes: the fields come parsed, and what waits behind them is let out by `watch`.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from arbiter cimport *
from hold cimport *
from layout cimport FIELD_SEQ, ff_fields
from ring cimport ring_followed, ring_publish
from schema cimport schema_message
from sequence cimport (
    SEQUENCE_CONNECTION, SEQUENCE_LINKED, SEQUENCE_NONE, SEQUENCE_RANGE, SEQUENCE_TIME, sequence,
)
from streams cimport streams_gap, streams_is_late
from table cimport table_judge, table_put, table_put_last
from tick cimport *
from watch cimport (
    TO_RING, watch, watch_count, watch_floor, watch_give_up, watch_lend, watch_message_of, watch_release, watch_tick,
    watch_values, watch_write,
)

cdef enum splice_outcome:
    REPAIRED, TOO_OLD, OVERFLOWED, UNREADABLE


cdef inline int splice_depth(
    watch* w, size_t at, const schema_message* reply, const ff_fields* f, const double* levels, int64_t recv_ns
) noexcept nogil:
    """A snapshot, then the held deltas by the provider's rule: `linked` drops u < id, else u <= id; the first one kept
    must begin at or below id (linked) or id + 1; after that nothing may be missing. Else it is too old."""
    cdef lane* ln = &w.lanes[at]
    cdef const schema_message* m = watch_message_of(w, at)
    cdef sequence* s = &w.streams.each[at]
    cdef bint linked = m.rule == SEQUENCE_LINKED
    cdef int64_t number = f.integer[0]
    cdef int64_t kept_seq
    cdef uint32_t i, after
    cdef held* e
    cdef ff_tick k
    watch_tick(&k, reply, f, <uint32_t>(at % w.streams.symbols), reply.flags | FF_SNAPSHOT, recv_ns)
    if (m.rule == SEQUENCE_RANGE or linked) and f.present >> FIELD_SEQ & 1:
        i = ln.held.head
        while i and (w.hold.ticks[i].aside or w.hold.ticks[i].tick.seq < number
                     or (not linked and w.hold.ticks[i].tick.seq == number)):
            i = w.hold.ticks[i].next
        if i:
            e = &w.hold.ticks[i]
            kept_seq = e.tick.seq
            if e.first > number + 1:
                return TOO_OLD
        else:
            kept_seq = number
            if s.known and number < s.last:
                return TOO_OLD
        for i in range(ln.n_holes):
            if ln.holes[i].told and ln.holes[i].last > kept_seq:
                return TOO_OLD
        while ln.n_holes and ln.holes[0].last <= kept_seq:
            lane_close(ln, 0)
        after = 0
        i = ln.held.head
        while i:
            e = &w.hold.ticks[i]
            i = e.next
            if e.tick.seq < number or (e.tick.seq == number and (e.aside or not linked)):
                w.superseded += 1
                hold_drop(&w.hold, &ln.held, after)
            else:
                after = <uint32_t>(e - w.hold.ticks)
        if not s.known or s.last < number:
            s.known = True
            s.last = number
            watch_floor(w, ln, number, not linked, False)
    watch_write(w, ln, TO_RING, &k, f, levels, 0, False)
    w.spliced += watch_count(f, reply.kind)
    ln.doubt = False
    watch_release(w, at)
    return REPAIRED


cdef inline bint splice_is_older(const watch* w, const lane* ln, const ff_tick* k) noexcept nogil:
    """Is a fetched quote or trade older than the row: by number where both have one, else by event time?"""
    cdef const ff_row* r = &w.table.rows[k.symbol_id]
    cdef int64_t seq = r.quote_seq if k.kind == FF_QUOTE else r.trade_seq
    cdef int64_t event_ns = r.quote_event_ns if k.kind == FF_QUOTE else r.trade_event_ns
    if seq and k.seq:
        return k.seq < seq
    if event_ns and k.event_ns:
        return k.event_ns < event_ns
    return ln.held.head != 0


cdef inline void splice_row(watch* w, const lane* ln, const ff_tick* k, const ff_fields* f) noexcept nogil:
    """A fetched price to the row if it is not older. The status stays: only the stream itself makes a row LIVE."""
    cdef uint8_t status = w.table.rows[k.symbol_id].status
    if not splice_is_older(w, ln, k):
        table_put(w.table, k, f.present, f.null)
        table_judge(w.table, k.symbol_id, status, w.table.rows[k.symbol_id].flags)


cdef inline int splice_trade(
    watch* w, size_t at, const schema_message* reply, const ff_fields* f, int64_t recv_ns
) noexcept nogil:
    """One fetched trade of a stream that counts by one: into its hole, or behind the last; else it is known already."""
    cdef lane* ln = &w.lanes[at]
    cdef sequence* s = &w.streams.each[at]
    cdef int64_t seq = f.integer[0]
    cdef ff_tick k
    watch_tick(&k, reply, f, <uint32_t>(at % w.streams.symbols), reply.flags, recv_ns)
    watch_values(&k, f, 0)
    if not hold_fits(&w.hold, 1):
        watch_give_up(w, at, recv_ns)
        return OVERFLOWED
    if s.known and seq <= s.last:
        if lane_fill(ln, seq, seq):
            hold_put(&w.hold, &ln.held, hold_before(&w.hold, &ln.held, seq), &k, seq, True, False)
            w.spliced += 1
            if streams_is_late(reply, f, &w.table.rows[k.symbol_id]):
                table_put_last(w.table, &k, f.present, f.null)
        return REPAIRED
    if s.known and seq > s.last + 1:
        if not (watch_lend(w, ln) and lane_dig(ln, s.last + 1, seq - 1, 0, True)):
            watch_give_up(w, at, recv_ns)
            return OVERFLOWED
        streams_gap(w.streams, k.symbol_id, watch_message_of(w, at).channel, s.last + 1, seq - 1, recv_ns)
    splice_row(w, ln, &k, f)
    hold_put(&w.hold, &ln.held, ln.held.tail, &k, seq, True, False)
    w.spliced += 1
    s.known = True
    s.last = seq
    watch_floor(w, ln, seq, True, False)
    return REPAIRED


cdef inline int splice_last(
    watch* w, size_t at, const schema_message* reply, const ff_fields* f, int64_t recv_ns
) noexcept nogil:
    """The last value of a quote or trade, flagged SNAPSHOT: among the held by its number, else before them."""
    cdef lane* ln = &w.lanes[at]
    cdef const schema_message* m = watch_message_of(w, at)
    cdef sequence* s = &w.streams.each[at]
    cdef int64_t number = f.event_ns if m.rule == SEQUENCE_TIME else f.integer[0]
    cdef bint numbered = f.event_ns != 0 if m.rule == SEQUENCE_TIME else f.present >> FIELD_SEQ & 1
    cdef uint32_t after = 0
    cdef ff_tick k
    watch_tick(&k, reply, f, <uint32_t>(at % w.streams.symbols), reply.flags | FF_SNAPSHOT, recv_ns)
    watch_values(&k, f, 0)
    splice_row(w, ln, &k, f)
    w.spliced += 1
    if numbered and m.rule != SEQUENCE_NONE and m.rule != SEQUENCE_CONNECTION:
        if m.rule != SEQUENCE_TIME:
            after = hold_before(&w.hold, &ln.held, number)
        elif s.known and number > s.last:
            after = ln.held.tail
        if not s.known or number > s.last:
            s.known = True
            s.last = number
            watch_floor(w, ln, number, m.rule != SEQUENCE_TIME, False)
    if after and hold_fits(&w.hold, 1):
        hold_put(&w.hold, &ln.held, after, &k, number, True, False)
    elif ring_followed(w.ring):
        ring_publish(w.ring, &k)
    return REPAIRED
