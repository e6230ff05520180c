"""The longer way of a message: arbitrated between two legs, held back behind a hole. For what is fetched: splice.pxd.

Entered only while two legs are alive or a stream is held; it then does all that the decoder's short way does, and puts
ticks either in the ring or behind those that wait. Every tick goes to the ring once and in order; the table takes the
newest at once.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove

from arbiter cimport *
from histogram cimport histogram, histogram_record
from hold cimport *
from layout cimport FIELD_SEQ, ff_fields
from liveness cimport liveness, liveness_touch
from ring cimport ring, ring_followed, ring_publish
from schema cimport program, schema_message
from sequence cimport (
    DUPLICATE, GAP, IN_ORDER, RESET, SEQUENCE_CONNECTION, SEQUENCE_LINKED, SEQUENCE_NONE, SEQUENCE_RISING,
    SEQUENCE_TIME, sequence,
)
from streams cimport (
    GAPS, SOURCES, gap, numbers, streams, streams_at, streams_check, streams_forget, streams_gap, streams_goes_on,
    streams_is_behind, streams_is_late, streams_numbers,
)
from table cimport (
    table, table_is_of_before, table_judge, table_mark_put, table_put, table_put_last, table_shake,
)
from tick cimport *


cdef extern from "math.h" nogil:
    double NAN

cdef enum:
    BLOCKS = 256            # streams that can have holes at a time
    WINS = 65536            # newest first arrivals remembered, to see how far the second is behind
    TO_RING = 0xFFFFFFFF    # instead of a place among the held

cdef struct win:
    uint64_t lane
    int64_t seq
    int64_t mono_ns

cdef struct watch_leg:
    uint64_t wins
    uint64_t seconds
    int64_t newest_ns[32]   # per channel, monotonic; 0: never
    histogram behind        # of second arrivals behind the first, in ns
    liveness* liveness      # its own arrivals; belongs to the price table

cdef struct watch:
    bint on                 # arbitrating, or some lane is held back, floored or still settling
    bint arbitrating
    bint lead_given
    uint8_t lead
    uint8_t leg_of[256]     # per connection
    uint32_t lead_set       # moves on with every change of the lead
    uint32_t met[256]       # per connection number: which connection, counted from the first, it is now
    uint32_t meets          # connections so far
    uint32_t season
    int64_t season_ns       # when it began
    int64_t patience_ns
    int64_t single_ns       # since when one leg is left
    uint32_t hold_ticks
    uint32_t repairing      # lanes that are
    uint32_t floored
    uint32_t settling
    uint32_t listed         # first of the lanes with holes: index + 1
    uint32_t at_gaps        # channels of which a stream is held as soon as it shows a gap, one bit each
    lane* lanes             # [stream * symbols + symbol]
    hold hold
    hole* holes             # in blocks of HOLES
    hole** blocks           # those not lent
    uint32_t n_blocks
    win* wins
    watch_leg* legs
    const program* program  # these belong to the decoder
    ring* ring
    table* table
    liveness* liveness
    streams* streams
    histogram* lag
    uint64_t* ticks
    uint64_t seconds        # messages that came second
    uint64_t superseded     # ticks left out because a snapshot or last value covers them
    uint64_t spliced        # ticks that came by splices


cdef inline bint watch_open(watch* w) noexcept nogil:
    """The memory that only watching needs; reserved once, touched as it is used."""
    if w.lanes == NULL:
        w.lanes = <lane*>calloc(<size_t>w.streams.symbols * w.program.n_streams, sizeof(lane))
    if w.blocks == NULL:
        w.holes = <hole*>calloc(BLOCKS * HOLES, sizeof(hole))
        w.blocks = <hole**>calloc(BLOCKS, sizeof(void*))
        while w.holes != NULL and w.blocks != NULL and w.n_blocks < BLOCKS:
            w.blocks[w.n_blocks] = w.holes + w.n_blocks * HOLES
            w.n_blocks += 1
    if w.lanes == NULL or w.holes == NULL or w.blocks == NULL:
        return False
    return w.hold.ticks != NULL or hold_open(&w.hold, w.hold_ticks)


cdef inline bint watch_arbitrate(watch* w, int64_t now_ns) noexcept nogil:
    """Two legs from now on; False without memory for it."""
    if w.wins == NULL:
        w.wins = <win*>calloc(WINS, sizeof(win))
    if w.legs == NULL:
        w.legs = <watch_leg*>calloc(2, sizeof(watch_leg))
    if not watch_open(w) or w.wins == NULL or w.legs == NULL:
        return False
    if not w.arbitrating:
        w.season += 1
        w.season_ns = now_ns
    w.arbitrating = w.on = True
    return True


cdef inline void watch_close(watch* w) noexcept nogil:
    free(w.lanes)
    free(w.holes)
    free(w.blocks)
    free(w.wins)
    free(w.legs)
    hold_close(&w.hold)


cdef inline void watch_rest(watch* w) noexcept nogil:
    """Back to the short way when nothing needs the longer one."""
    w.on = w.arbitrating or w.repairing or w.floored or w.settling


cdef inline const schema_message* watch_message_of(const watch* w, size_t at) noexcept nogil:
    return &w.program.messages[at // w.streams.symbols]


cdef inline bint watch_lend(watch* w, lane* ln) noexcept nogil:
    """Room for another hole in the lane; False if there is none."""
    if ln.holes == NULL and w.n_blocks:
        w.n_blocks -= 1
        ln.holes = w.blocks[w.n_blocks]
    return ln.holes != NULL and ln.n_holes < HOLES


cdef inline void watch_tidy(watch* w, lane* ln) noexcept nogil:
    """Take the room for holes back from a lane without any."""
    if ln.holes != NULL and not ln.n_holes:
        w.blocks[w.n_blocks] = ln.holes
        w.n_blocks += 1
        ln.holes = NULL


# ---- out of the store ----

cdef inline void watch_flush(watch* w, size_t at) noexcept nogil:
    """Publish what waits up to the first hole that is still open."""
    cdef lane* ln = &w.lanes[at]
    cdef held* e
    cdef uint8_t flag = 0
    if ln.repairing:
        return
    while ln.held.head:
        e = &w.hold.ticks[ln.held.head]
        if e.begins and not e.aside:
            while ln.n_holes and ln.holes[0].last < e.tick.seq:
                if not ln.holes[0].told:
                    return
                if not ln.holes[0].flagged:
                    ln.doubt = True
                lane_close(ln, 0)
            flag = FF_AFTER_GAP if ln.doubt else 0
            ln.doubt = False
        if not e.aside:
            e.tick.flags |= flag
        if ring_followed(w.ring):
            ring_publish(w.ring, &e.tick)
        hold_drop(&w.hold, &ln.held, 0)


cdef inline void watch_tell(watch* w, size_t at, int64_t now_ns, int64_t recv_ns) noexcept nogil:
    """Record as gaps the holes that nobody will fill, and flag the row for them."""
    cdef lane* ln = &w.lanes[at]
    cdef const schema_message* m = watch_message_of(w, at)
    cdef uint32_t symbol_id = <uint32_t>(at % w.streams.symbols)
    cdef uint32_t i = 0
    while i < ln.n_holes:
        if ln.holes[i].told:
            i += 1
            continue
        if not lane_is_over(ln, &ln.holes[i], now_ns):
            return
        if ln.holes[i].soft:
            lane_close(ln, i)
            continue
        ln.holes[i].told = True
        streams_gap(w.streams, symbol_id, m.channel, ln.holes[i].first, ln.holes[i].last, recv_ns)
        watch_doubt(w, m, symbol_id)


cdef inline void watch_give_up(watch* w, size_t at, int64_t recv_ns) noexcept nogil:
    """There is no room to wait any longer: what is missing is gaps, what was held goes out."""
    cdef lane* ln = &w.lanes[at]
    if ln.repairing:
        ln.repairing = False
        ln.overflowed = ln.doubt = True
        w.repairing -= 1
    watch_let_out(w, at, recv_ns)
    watch_tidy(w, ln)


cdef inline void watch_let_out(watch* w, size_t at, int64_t recv_ns) noexcept nogil:
    """Everything that waits goes out, nothing is waited for; what comes next follows the last hole."""
    cdef lane* ln = &w.lanes[at]
    cdef bint repairing = ln.repairing
    ln.repairing = False
    watch_tell(w, at, 0x7FFFFFFFFFFFFFFF, recv_ns)
    watch_flush(w, at)
    while ln.n_holes:
        if not ln.holes[0].flagged:
            ln.doubt = True
        lane_close(ln, 0)
    ln.repairing = repairing


cdef inline void watch_list(watch* w, size_t at) noexcept nogil:
    cdef lane* ln = &w.lanes[at]
    if not ln.listed:
        ln.listed = True
        ln.next = w.listed
        w.listed = <uint32_t>at + 1


cdef inline bint watch_waits(const lane* ln) noexcept nogil:
    """Must this lane's next tick be held?"""
    return ln.repairing or ln.held.head or ln.n_holes


# ---- in ----

cdef inline uint32_t watch_place(
    watch* w, lane* ln, uint32_t after, const ff_tick* k, int64_t first, bint begins, bint aside
) noexcept nogil:
    """One tick to the ring, or behind `after`; where the message's next one goes."""
    if after != TO_RING:
        return hold_put(&w.hold, &ln.held, after, k, first, begins, aside)
    if ring_followed(w.ring):
        ring_publish(w.ring, k)
    return TO_RING


cdef inline uint32_t watch_count(const ff_fields* f, uint8_t kind) noexcept nogil:
    """How many ticks a message makes."""
    if kind == FF_LEVEL:
        return f.levels[0] + f.levels[1]
    return 2 if kind == FF_BAR else 1


cdef inline void watch_write(
    watch* w, lane* ln, uint32_t after, ff_tick* k, const ff_fields* f, const double* levels, int64_t first, bint aside
) noexcept nogil:
    """All ticks of a message, to the ring or behind `after`. `k` has everything but the numbers."""
    cdef uint32_t side, i, left = f.levels[0] + f.levels[1]
    cdef uint8_t flags = k.flags
    cdef const double* pair
    cdef bint begins = True
    if k.kind == FF_LEVEL:
        k.value[2] = k.value[3] = NAN
        for side in range(2):
            pair = levels + 2 * f.level[side]
            for i in range(f.levels[side]):
                left -= 1
                k.flags = flags | (FF_SELL if side else 0) | (FF_LAST_LEVEL if left == 0 else 0)
                k.value[0] = pair[2 * i]
                k.value[1] = pair[2 * i + 1]
                after = watch_place(w, ln, after, k, first, begins, aside)
                begins = False
        return
    watch_values(k, f, 0)
    after = watch_place(w, ln, after, k, first, True, aside)
    if k.kind == FF_BAR:
        k.kind = FF_BAR_VOLUME
        watch_values(k, f, 4)
        watch_place(w, ln, after, k, first, False, aside)


cdef inline int64_t watch_first(const schema_message* m, const numbers* n) noexcept nogil:
    """The first number behind which something may be missing."""
    return n.prev + 1 if m.rule == SEQUENCE_LINKED else n.first


cdef inline int64_t watch_lowest(const schema_message* m, const ff_fields* f, const numbers* n) noexcept nogil:
    """The lowest number a message covers: of a linked one, from behind the one before it, or from what it says."""
    if m.rule != SEQUENCE_LINKED:
        return n.first
    if f.present >> (FIELD_SEQ + 1) & 1 and f.integer[1] <= n.prev:
        return f.integer[1]
    return watch_first(m, n)


cdef inline void watch_tick(
    ff_tick* k, const schema_message* m, const ff_fields* f, uint32_t symbol_id, uint8_t flags, int64_t recv_ns
) noexcept nogil:
    """Everything of a tick but its numbers; source 0."""
    k.symbol_id = symbol_id
    k.kind = m.kind
    k.flags = flags
    k.source = 0
    k.seq = f.integer[0] if f.present >> FIELD_SEQ & 1 else 0
    k.event_ns = f.event_ns
    k.recv_ns = recv_ns


cdef inline void watch_values(ff_tick* k, const ff_fields* f, uint32_t begin) noexcept nogil:
    cdef uint32_t i
    for i in range(4):
        k.value[i] = f.number[begin + i] if f.present >> (begin + i) & 1 else NAN
    k.flags |= f.flags


cdef inline win* watch_win(watch* w, size_t at, int64_t seq) noexcept nogil:
    cdef uint64_t mixed = <uint64_t>seq * <uint64_t>0x9E3779B97F4A7C15
    return &w.wins[(mixed ^ (<uint64_t>at * <uint64_t>0xC2B2AE3D27D4EB4F)) >> 48]


cdef inline void watch_heard(
    watch* w, uint32_t leg, uint32_t symbol_id, uint16_t channel, int64_t mono_ns, int64_t lag_ns
) noexcept nogil:
    """The leg has brought data of this symbol, first or second."""
    w.legs[leg].newest_ns[channel] = mono_ns
    if w.legs[leg].liveness != NULL:
        liveness_touch(w.legs[leg].liveness, symbol_id, channel, mono_ns, lag_ns)


cdef inline void watch_second(
    watch* w, size_t at, uint32_t leg, bint numbered, int64_t seq, int64_t mono_ns
) noexcept nogil:
    cdef win* first
    w.seconds += 1
    if w.legs == NULL:
        return
    w.legs[leg].seconds += 1
    if numbered:
        first = watch_win(w, at, seq)
        if first.lane == at + 1 and first.seq == seq:
            histogram_record(&w.legs[leg].behind, mono_ns - first.mono_ns)
            first.lane = 0


cdef inline int64_t watch_connection(const watch* w, uint16_t source) noexcept nogil:
    """Which connection it is: another one after each `connected`."""
    return <int64_t>w.met[source % SOURCES] << 16 | source


cdef inline bint watch_is_below(watch* w, lane* ln, int64_t seq) noexcept nogil:
    """Is the message covered by what was spliced (or brought by the other leg)? The first one above ends the floor."""
    if seq < ln.floor or (seq == ln.floor and ln.reaches):
        return True
    ln.floored = False
    w.floored -= 1
    return False


cdef inline void watch_floor(watch* w, lane* ln, int64_t floor, bint reaches, bint seconds) noexcept nogil:
    w.floored += not ln.floored
    ln.floored = w.on = True
    ln.floor = floor
    ln.reaches = reaches
    ln.seconds = seconds


cdef inline bint watch_joins(
    watch* w, lane* ln, uint16_t channel, uint32_t leg, uint16_t source, int64_t now_ns
) noexcept nogil:
    """Is this the first word of a new connection, beside a leg that delivers?

    Where numbers rise with holes, what that one still has on its way could not be told from what has been overtaken:
    from the first word on it is waited for, once.
    """
    cdef uint32_t other = 1 - leg
    cdef bint new = not ln.legs[leg].known or ln.met[leg] != w.met[source % SOURCES]
    ln.met[leg] = w.met[source % SOURCES]
    if not new or not w.arbitrating or ln.repairing:
        return False
    if w.lead_given:
        return w.lead == other
    return w.legs[other].newest_ns[channel] and now_ns - w.legs[other].newest_ns[channel] <= w.patience_ns


cdef inline int watch_judge(
    watch* w, size_t at, const schema_message* m, const ff_fields* f, bint numbered, const numbers* n, uint32_t leg,
    uint32_t symbol_id, uint16_t source, uint32_t count, int64_t recv_ns, int64_t mono_ns, uint8_t* flags
) noexcept nogil:
    """The verdict on a message, holes opened or filled; FF_AFTER_GAP in `flags` where it is known at once."""
    cdef lane* ln = &w.lanes[at]
    cdef sequence* s = streams_at(w.streams, m, symbol_id, source)
    cdef int64_t last = s.last
    cdef int64_t first = watch_first(m, n)
    cdef bint ordered = m.rule != SEQUENCE_TIME and m.rule != SEQUENCE_CONNECTION and numbered
    cdef bint opens = ordered and s.known and first > last + 1 and m.rule != SEQUENCE_RISING
    cdef int verdict = IN_ORDER
    cdef uint8_t lead
    cdef bint joins = m.rule == SEQUENCE_RISING and watch_joins(w, ln, m.channel, leg, source, mono_ns)
    if m.rule == SEQUENCE_RISING and n.seq < last and table_is_of_before(
            w.table, symbol_id, m.kind, s.begun_s, f.event_ns):
        streams_forget(w.streams, s, f.event_ns)
        ln.legs[0].known = ln.legs[1].known = False
    elif m.rule == SEQUENCE_RISING and n.seq > last:
        joins = joins and s.known and watch_lend(w, ln)
        if not joins:
            first = last + 1
    if ordered and not hold_fits(&w.hold, count) and lane_lacks(ln, first, n.seq):
        # It fills a hole, but has no room to wait: only if it is the very next can it go straight to the ring.
        if ln.repairing or first > ln.holes[0].first or hold_before(&w.hold, &ln.held, n.seq):
            watch_give_up(w, at, recv_ns)
    if opens and not watch_lend(w, ln):
        watch_give_up(w, at, recv_ns)
        watch_lend(w, ln)
    if ordered and (w.arbitrating or ln.settling):
        verdict = lane_judge(
            ln, s, leg, first, n.seq, mono_ns, mono_ns + (w.patience_ns if w.arbitrating else 0), APART * w.patience_ns)
        if ln.n_holes:
            ln.holes[ln.n_holes - 1].soft |= joins and verdict == NEWEST
            watch_list(w, at)
        if verdict == NEWEST and opens and ln.holes == NULL:
            # Too many streams have holes: this one is told at once.
            streams_gap(w.streams, symbol_id, m.channel, last + 1, first - 1, recv_ns)
            flags[0] |= FF_AFTER_GAP
            watch_doubt(w, m, symbol_id)
        if verdict == REPEATED:
            w.streams.duplicates += 1
        elif verdict == ANEW:
            w.streams.resets += 1
            watch_let_out(w, at, recv_ns)
        return verdict
    if ln.repairing and ordered and n.seq <= last and lane_fill(ln, first, n.seq):
        return FILLED  # the provider sends again what it was asked for
    if w.arbitrating and m.rule != SEQUENCE_CONNECTION:
        lead = ln.lead
        if not lane_counts(ln, leg, w.lead, w.lead_given, w.lead_set, mono_ns, w.patience_ns):
            return SECOND
        if ln.lead != lead and numbered and s.known and not ln.floored:
            watch_floor(w, ln, s.last, m.kind == FF_TRADE, True)
            if watch_is_below(w, ln, n.seq):
                return SECOND
    if numbered:
        verdict = streams_check(w.streams, s, m, f, n, symbol_id, recv_ns)
    if verdict == GAP and m.rule == SEQUENCE_CONNECTION:
        table_shake(w.table)  # whichever leg it is: some lane may have followed it
    if w.arbitrating and m.rule == SEQUENCE_CONNECTION:
        if not lane_counts(ln, leg, w.lead, w.lead_given, w.lead_set, mono_ns, w.patience_ns):
            return SECOND
    if verdict == DUPLICATE:
        return REPEATED
    if verdict == RESET:
        if watch_waits(ln):
            watch_let_out(w, at, recv_ns)
        return ANEW
    if verdict == GAP:
        if opens and ln.holes != NULL and w.at_gaps >> m.channel & 1:
            watch_keep(w, ln)
        if not (ln.repairing and opens and lane_dig(ln, last + 1, first - 1, 0, True)):
            flags[0] |= FF_AFTER_GAP
        watch_doubt(w, m, symbol_id)
    return NEWEST


cdef inline void watch_keep(watch* w, lane* ln) noexcept nogil:
    """From here on the lane's ticks wait."""
    ln.overflowed = False
    w.repairing += not ln.repairing
    ln.repairing = w.on = True


cdef inline void watch_doubt(watch* w, const schema_message* m, uint32_t symbol_id) noexcept nogil:
    """The row's prices follow a gap."""
    cdef const ff_row* r = &w.table.rows[symbol_id]
    if m.kind == FF_QUOTE or m.kind == FF_TRADE:
        table_judge(w.table, symbol_id, r.status, r.flags | FF_AFTER_GAP)


cdef inline void watch_commit(
    watch* w, const schema_message* m, const ff_fields* f, const double* levels, uint32_t symbol_id,
    int64_t recv_ns, int64_t mono_ns, uint16_t source
) noexcept nogil:
    """One message of a symbol: judged; to table and liveness if it is the newest, to ring or store if it is new."""
    cdef size_t at = <size_t>m.stream * w.streams.symbols + symbol_id
    cdef lane* ln = &w.lanes[at]
    cdef uint32_t leg = w.leg_of[source % SOURCES]
    cdef int64_t lag_ns = 0
    cdef uint32_t after, serial, count = watch_count(f, m.kind)
    cdef sequence* own = streams_at(w.streams, m, symbol_id, source)
    cdef numbers n = numbers(first=0, seq=0, prev=0)
    cdef bint numbered = streams_numbers(m, f, own.last, &n)
    cdef bint floored = ln.floored
    cdef int verdict
    cdef bint two = w.arbitrating or ln.settling
    cdef bint late, fills
    cdef ff_tick k
    if w.arbitrating and ln.season != w.season:
        w.settling -= ln.settling
        lane_begin(ln, w.season, w.lead, w.lead_given, w.season_ns)
    watch_tick(&k, m, f, symbol_id, m.flags, recv_ns)
    k.source = source
    if f.event_ns:
        lag_ns = recv_ns - f.event_ns if f.event_ns > 0 else recv_ns
    if floored and m.rule == SEQUENCE_RISING and numbered and n.seq < ln.floor and table_is_of_before(
            w.table, symbol_id, m.kind, own.begun_s, f.event_ns):
        floored = ln.floored = False
        w.floored -= 1
    if floored and numbered and watch_is_below(w, ln, n.seq):
        if two:
            watch_heard(w, leg, symbol_id, m.channel, mono_ns, lag_ns)
        if ln.seconds:
            watch_second(w, at, leg, False, n.seq, mono_ns)
        else:
            w.superseded += count
            w.ticks[0] += count
            liveness_touch(w.liveness, symbol_id, m.channel, mono_ns, lag_ns)
        ln.verdict = SECOND
        return
    if m.rule == SEQUENCE_LINKED and numbered and floored and n.seq == ln.floor:
        # The delta that ends where the snapshot does is applied all the same.
        own.last = n.seq - 1
        n.prev = min(n.prev, own.last)
    serial = w.streams.before + f.ordinal
    if m.shares and numbered and ln.serial == serial and ln.judged == n.seq:
        verdict = ln.verdict
        k.flags |= ln.flags
    else:
        verdict = watch_judge(w, at, m, f, numbered, &n, leg, symbol_id, source, count, recv_ns, mono_ns, &k.flags)
        ln.serial = serial
        ln.judged = n.seq
        ln.verdict = <uint8_t>verdict
        ln.flags = k.flags & FF_AFTER_GAP
    if m.rule == SEQUENCE_CONNECTION and verdict == NEWEST:
        if streams_is_behind(w.streams, m, f, symbol_id, watch_connection(w, source), recv_ns):
            verdict = REPEATED
    if verdict == NEWEST and m.spares and f.flags & FF_NOT_LAST:
        streams_goes_on(own, f.event_ns)
    fills = verdict == FILLED
    late = (fills or verdict == REPEATED) and streams_is_late(m, f, &w.table.rows[symbol_id])
    if late:
        verdict = FILLED
    if two and verdict != REPEATED:
        watch_heard(w, leg, symbol_id, m.channel, mono_ns, lag_ns)
    if verdict == SECOND:
        watch_second(w, at, leg, numbered, n.seq, mono_ns)
        if not m.shares:
            watch_end(w, at, False, recv_ns, mono_ns)
        return
    if watch_waits(ln) and not hold_fits(&w.hold, count):
        if not fills or ln.repairing:
            watch_give_up(w, at, recv_ns)
    w.ticks[0] += count
    if f.event_ns:
        histogram_record(w.lag, lag_ns)
    if two and verdict != REPEATED:
        w.legs[leg].wins += 1
        if numbered:
            watch_win(w, at, n.seq)[0] = win(lane=at + 1, seq=n.seq, mono_ns=mono_ns)
    if verdict == REPEATED:
        k.flags |= FF_DUPLICATE
    if m.kind == FF_QUOTE or m.kind == FF_TRADE or m.kind == FF_MARK:
        watch_values(&k, f, 0)
        if verdict != REPEATED and verdict != FILLED:
            if m.kind == FF_MARK:
                table_mark_put(w.table, &k, f.present, f.null)
            else:
                table_put(w.table, &k, f.present, f.null | m.whole)
        elif late:
            table_put_last(w.table, &k, f.present, f.null | m.whole)
    if verdict != REPEATED and verdict != FILLED:
        liveness_touch(w.liveness, symbol_id, m.channel, mono_ns, lag_ns)  # behind the price
    after = TO_RING
    if verdict == FILLED and watch_waits(ln):
        after = hold_before(&w.hold, &ln.held, n.seq)
        if after == 0 and not ln.repairing and not (ln.n_holes and ln.holes[0].last < n.seq):
            after = TO_RING
    elif watch_waits(ln):
        after = ln.held.tail
    if after == TO_RING and ln.doubt and verdict != REPEATED:
        k.flags |= FF_AFTER_GAP
        ln.flags |= FF_AFTER_GAP
        ln.doubt = False
    watch_write(w, ln, after, &k, f, levels, watch_lowest(m, f, &n) if numbered else 0, verdict == REPEATED)
    if not m.shares:
        watch_end(w, at, verdict == NEWEST, recv_ns, mono_ns)


cdef inline void watch_end_shared(
    watch* w, const schema_message* m, uint32_t symbol_id, int64_t recv_ns, int64_t mono_ns
) noexcept nogil:
    """After the last of the elements that share a number: what waits behind one of them waits for all."""
    cdef size_t at = <size_t>m.stream * w.streams.symbols + symbol_id
    watch_end(w, at, w.lanes[at].verdict == NEWEST, recv_ns, mono_ns)


cdef inline void watch_end(watch* w, size_t at, bint newest, int64_t recv_ns, int64_t mono_ns) noexcept nogil:
    """After every message: holes both legs have passed are gaps, what need not wait goes out."""
    cdef lane* ln = &w.lanes[at]
    if ln.n_holes or ln.held.head:
        watch_tell(w, at, mono_ns, recv_ns)
        watch_flush(w, at)
    watch_tidy(w, ln)
    if newest and ln.settling and not ln.n_holes and not w.arbitrating:
        ln.settling = False
        w.settling -= 1
    if not w.arbitrating:
        watch_rest(w)


# ---- what the session commands ----

cdef inline uint64_t watch_expire(watch* w, int64_t now_ns, int64_t recv_ns) noexcept nogil:
    """Holes whose time is up become gaps; how many gaps that made. Late settling ends too."""
    cdef uint64_t before = w.streams.n_gaps
    cdef uint32_t at = w.listed
    cdef size_t i
    cdef lane* ln
    w.listed = 0
    while at:
        ln = &w.lanes[at - 1]
        i = at - 1
        at = ln.next
        ln.listed = False
        watch_tell(w, i, now_ns, recv_ns)
        watch_flush(w, i)
        watch_tidy(w, ln)
        if ln.n_holes and not ln.holes[ln.n_holes - 1].told:
            watch_list(w, i)
    if w.settling and now_ns - w.single_ns > APART * w.patience_ns:
        for i in range(<size_t>w.streams.symbols * w.program.n_streams):
            w.lanes[i].settling = False
        w.settling = 0
        watch_rest(w)
    return w.streams.n_gaps - before


cdef inline int64_t watch_deadline(const watch* w) noexcept nogil:
    """The next moment at which a hole's time is up, monotonic; 0: there is none."""
    cdef uint32_t at = w.listed
    cdef uint32_t i
    cdef const lane* ln
    cdef int64_t soonest = 0
    while at:
        ln = &w.lanes[at - 1]
        for i in range(ln.n_holes):
            if not ln.holes[i].told and (soonest == 0 or ln.holes[i].until_ns < soonest):
                soonest = ln.holes[i].until_ns
        at = ln.next
    return soonest


cdef inline void watch_single(watch* w, int64_t now_ns) noexcept nogil:
    """One leg is left, whichever: lanes in which it may lag, or that have a hole, are still judged as two."""
    cdef size_t at
    cdef lane* ln
    cdef sequence* s
    cdef const schema_message* m
    cdef bint ordered
    w.arbitrating = False
    w.single_ns = now_ns
    for at in range(<size_t>w.streams.symbols * w.program.n_streams):
        if at % w.streams.symbols >= w.table.count:
            continue
        ln = &w.lanes[at]
        if ln.season != w.season:
            continue
        m = watch_message_of(w, at)
        s = &w.streams.each[at]
        ordered = m.rule != SEQUENCE_TIME and m.rule != SEQUENCE_CONNECTION and m.rule != SEQUENCE_NONE
        if ordered and (ln.n_holes or not (ln.legs[0].last == s.last == ln.legs[1].last)):
            ln.settling = True
            w.settling += 1
        elif m.rule == SEQUENCE_TIME and s.known and not ln.floored:
            watch_floor(w, ln, s.last, m.kind == FF_TRADE, True)
    watch_rest(w)


cdef inline void watch_hold(watch* w, size_t at) noexcept nogil:
    """Hold the ring's ticks of this stream back. The newest gap told of it is its hole, unless it has been closed."""
    cdef lane* ln = &w.lanes[at]
    cdef const schema_message* m = watch_message_of(w, at)
    cdef uint64_t i = w.streams.n_gaps
    cdef uint64_t oldest = i - GAPS if i > GAPS else 0
    cdef gap* g
    if ln.repairing:
        ln.overflowed = False
        return
    watch_keep(w, ln)
    while i > oldest and not (ln.n_holes and ln.holes[0].told):
        i -= 1
        g = &w.streams.log[i % GAPS]
        if g.symbol_id == at % w.streams.symbols and g.channel == m.channel:
            if not g.closed and g.last <= w.streams.each[at].last and watch_lend(w, ln):
                memmove(&ln.holes[1], &ln.holes[0], ln.n_holes * sizeof(hole))
                ln.holes[0] = hole(first=g.first, last=g.last, until_ns=0, told=True, flagged=True, soft=False)
                ln.n_holes += 1
            return


cdef inline bint watch_missing(const lane* ln, int64_t* first, int64_t* last) noexcept nogil:
    """What is told missing of a held stream, from the lowest to the highest number."""
    cdef uint32_t i
    cdef bint found = False
    for i in range(ln.n_holes):
        if ln.holes[i].told:
            if not found:
                first[0] = ln.holes[i].first
            last[0] = ln.holes[i].last
            found = True
    return found


cdef inline void watch_release(watch* w, size_t at) noexcept nogil:
    """Publish what is held as it is. Its gaps are closed: the next hold does not look for them."""
    cdef lane* ln = &w.lanes[at]
    cdef const schema_message* m = watch_message_of(w, at)
    cdef uint64_t i = w.streams.n_gaps
    cdef uint64_t oldest = i - GAPS if i > GAPS else 0
    if ln.repairing:
        ln.repairing = False
        w.repairing -= 1
    watch_flush(w, at)
    while ln.n_holes and ln.holes[0].told:
        lane_close(ln, 0)
    watch_tidy(w, ln)
    while i > oldest:
        i -= 1
        if w.streams.log[i % GAPS].symbol_id == at % w.streams.symbols and w.streams.log[i % GAPS].channel == m.channel:
            if w.streams.log[i % GAPS].closed:
                break
            w.streams.log[i % GAPS].closed = True
    watch_rest(w)
