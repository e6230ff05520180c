"""Messages to ticks: from their fields to sequence, ring, table, liveness and counts.

Where all rooms meet but the parsers. No Python, no clock: the caller says when. How a frame becomes messages is
`frame`'s.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from histogram cimport histogram, histogram_record
from layout cimport FIELD_SEQ, LAYOUT_STEPS, ff_fields, layout_choice, layout_open, layout_set
from liveness cimport liveness, liveness_expect, liveness_touch
from msgpack cimport PLAN_CREDIT, msgpack_plans
from order cimport order_expect
from ring cimport ring, ring_followed, ring_publish
from schema cimport ENCODING_MSGPACK, program, schema_message
from sequence cimport DUPLICATE, GAP, IN_ORDER, SEQUENCE_CONNECTION, SEQUENCE_RISING, sequence, sequence_rises
from slots cimport slot, slots, slots_awaited, slots_close, slots_grow, slots_wait
from streams cimport (
    numbers, streams, streams_at, streams_check, streams_close, streams_forget, streams_goes_on, streams_is_behind,
    streams_is_late, streams_numbers, streams_of, streams_open,
)
from symbols cimport NO_SYMBOL, symbols, symbols_find, symbols_intern, symbols_key, symbols_known
from table cimport (
    table, table_add, table_expect, table_is_of_before, table_mark_put, table_put, table_put_last, table_quote,
    table_shake,
)
from tick cimport *
from watch cimport watch, watch_close, watch_commit, watch_connection, watch_end_shared


cdef extern from "math.h" nogil:
    double NAN

cdef enum:
    TOGETHER = 32        # messages that wait for memory together
    CREDIT = 64          # frames a good record lets prediction fail in a row
    REFUSED_BYTES = 64   # of the name of the last symbol refused
    QUOTE_WHOLE = 0x10F  # four numbers and FIELD_SEQ

cdef struct decoder:
    slots slots
    const program* program
    symbols* symbols          # these four belong to the handles that Python holds
    table* table
    ring* ring
    liveness* liveness
    streams streams
    watch watch
    layout_set* layouts
    void* layout_memory       # what `layouts` was cut from, at a cache line
    uint32_t n_parsed         # so many of the messages that wait were not predicted
    int64_t recv_ns           # all that wait came then, by the same connection
    int64_t mono_ns
    uint16_t source
    int32_t credit            # below zero, prediction rests for as many frames
    slot* trace
    msgpack_plans* plans      # of ENCODING_MSGPACK
    char* scratch             # a padded copy of a frame that cannot be read in place
    size_t scratch_size
    histogram lag             # event time to receipt, in ns
    uint64_t frames
    uint64_t data
    uint64_t control
    uint64_t unknown
    uint64_t malformed
    uint64_t messages
    uint64_t ticks
    uint64_t refused          # ticks of symbols the full table had no row for
    uint64_t predicted
    char refused_name[64]
    uint32_t refused_size
    # frame_batch, decoder_count and decoder_end_shared; through pointers, so that they are not compiled into what is
    # hotter still
    int (*batch)(decoder* d, const char* p, const char* end, uint32_t lead) noexcept nogil
    void (*count)(decoder* d, const ff_fields* f, int64_t recv_ns, uint16_t source) noexcept nogil
    void (*end_shared)(decoder* d, const ff_fields* f, uint32_t n, int64_t recv_ns, int64_t mono_ns) noexcept nogil
    layout_choice kernel
    bint simd                 # the parser's kernel: false for the scalar one


cdef inline bint decoder_open(decoder* d, const program* p, symbols* s, table* t, ring* r, liveness* l) noexcept nogil:
    memset(d, 0, sizeof(decoder))
    d.program = p
    d.slots.program = p
    d.symbols = s
    d.table = t
    d.ring = r
    d.liveness = l
    d.credit = CREDIT
    d.count = decoder_count
    d.end_shared = decoder_end_shared
    d.watch.program = p
    d.watch.table = t
    d.watch.ring = r
    d.watch.liveness = l
    d.watch.streams = &d.streams
    d.watch.lag = &d.lag
    d.watch.ticks = &d.ticks
    d.trace = <slot*>calloc(LAYOUT_STEPS, sizeof(slot))
    d.layouts = layout_open(&d.layout_memory)
    if p.encoding == ENCODING_MSGPACK:
        d.plans = <msgpack_plans*>calloc(1, sizeof(msgpack_plans))
        if d.plans == NULL:
            return False
        d.plans.credit = PLAN_CREDIT
    return (
        streams_open(&d.streams, s.limit, p.n_streams) and d.trace != NULL and d.layouts != NULL
        and slots_grow(&d.slots, <void**>&d.slots.fields, &d.slots.max_fields, TOGETHER, sizeof(ff_fields))
    )


cdef inline void decoder_close(decoder* d) noexcept nogil:
    slots_close(&d.slots)
    streams_close(&d.streams)
    watch_close(&d.watch)
    free(d.trace)
    free(d.layout_memory)
    free(d.plans)
    free(d.scratch)


cdef inline const uint64_t* decoder_key(const ff_fields* f, uint64_t* room) noexcept nogil:
    """The key of the message's symbol."""
    if f.keyed:
        return f.key
    symbols_key(room, f.symbol, f.symbol_size)
    return room


cdef inline const char* decoder_text(const ff_fields* f) noexcept nogil:
    """The text of the message's symbol, as long as the message itself where it fits its key: the frame may be gone."""
    if f.keyed and f.symbol_size <= sizeof(f.key):
        return <const char*>f.key + sizeof(f.key) - f.symbol_size
    return f.symbol


cdef inline uint32_t decoder_symbol(decoder* d, const ff_fields* f) noexcept nogil:
    """The symbol's id, its row begun if it is new.

    NO_SYMBOL when it had to be refused, which is counted and its name kept.
    """
    cdef uint32_t known = d.symbols.count
    cdef uint64_t room[2]
    cdef const char* text = decoder_text(f)
    cdef uint32_t symbol_id = symbols_intern(d.symbols, decoder_key(f, room), text, f.symbol_size)
    if symbol_id == NO_SYMBOL:
        d.refused += 1
        d.refused_size = f.symbol_size if f.symbol_size < REFUSED_BYTES else REFUSED_BYTES
        memcpy(d.refused_name, text, d.refused_size)
    elif d.symbols.count != known:
        table_add(d.table, symbol_id)
    return symbol_id


cdef inline int decoder_sequence(
    decoder* d, const schema_message* m, const ff_fields* f, uint32_t symbol_id, uint16_t source, int64_t recv_ns
) noexcept nogil:
    """Where this message stands in its stream; a gap is recorded."""
    cdef sequence* s = streams_at(&d.streams, m, symbol_id, source)
    cdef int64_t last = s.last
    cdef numbers n
    cdef int verdict
    if not streams_numbers(m, f, last, &n):
        return IN_ORDER
    if m.rule == SEQUENCE_RISING and n.seq < last and table_is_of_before(
            d.table, symbol_id, m.kind, s.begun_s, f.event_ns):
        streams_forget(&d.streams, s, f.event_ns)
    verdict = streams_check(&d.streams, s, m, f, &n, symbol_id, recv_ns)
    if m.spares and verdict != DUPLICATE and f.flags & FF_NOT_LAST:
        streams_goes_on(s, f.event_ns)
    if verdict == GAP and d.watch.at_gaps >> m.channel & 1 and m.rule != SEQUENCE_CONNECTION and last < n.seq:
        # Taken back: the longer way finds the gap again, and this message is the first that waits behind it.
        s.last = last
        s.serial = 0
        d.streams.n_gaps -= 1
        d.watch.on = True
    return verdict


cdef inline void decoder_count(decoder* d, const ff_fields* f, int64_t recv_ns, uint16_t source) noexcept nogil:
    """A message without ticks takes its place among those of its connection."""
    cdef const schema_message* m = &d.program.messages[f.message]
    cdef sequence* s = streams_at(&d.streams, m, NO_SYMBOL, source)
    cdef numbers n
    if streams_numbers(m, f, s.last, &n) and streams_check(&d.streams, s, m, f, &n, NO_SYMBOL, recv_ns) == GAP:
        table_shake(d.table)


cdef inline void decoder_levels(decoder* d, const ff_fields* f, ff_tick* k) noexcept nogil:
    """One tick per level, bids then asks, the last of all marked."""
    cdef uint32_t side, _i, left = f.levels[0] + f.levels[1]
    cdef const double* pair
    cdef uint8_t flags = k.flags
    d.ticks += left
    if not ring_followed(d.ring):
        return
    k.value[2] = k.value[3] = NAN
    for side in range(2):
        pair = d.slots.levels + 2 * f.level[side]
        for _i in range(f.levels[side]):
            left -= 1
            k.flags = flags | (FF_SELL if side else 0) | (FF_LAST_LEVEL if left == 0 else 0)
            k.value[0] = pair[0]
            k.value[1] = pair[1]
            pair += 2
            ring_publish(d.ring, k)


cdef inline void decoder_bar(decoder* d, const ff_fields* f, ff_tick* k) noexcept nogil:
    """A bar is two ticks: its prices, then its volume."""
    cdef uint32_t i
    d.ticks += 2
    if not ring_followed(d.ring):
        return
    ring_publish(d.ring, k)
    k.kind = FF_BAR_VOLUME
    for i in range(4):
        k.value[i] = f.number[4 + i] if f.present >> (4 + i) & 1 else NAN
    ring_publish(d.ring, k)


cdef inline void decoder_commit(
    decoder* d, const ff_fields* f, uint32_t symbol_id, int64_t recv_ns, int64_t mono_ns, uint16_t source
) noexcept nogil:
    """Fields to ticks: sequence, ring, table, liveness. `symbol_id`: NO_SYMBOL where it is not known."""
    cdef const schema_message* m = &d.program.messages[f.message]
    cdef ff_tick k
    cdef int64_t lag_ns = 0
    cdef int verdict
    cdef bint late = False
    k.symbol_id = symbol_id if symbol_id != NO_SYMBOL else decoder_symbol(d, f)
    if k.symbol_id == NO_SYMBOL:
        if m.rule == SEQUENCE_CONNECTION:
            d.count(d, f, recv_ns, source)
        return
    if d.watch.on:
        watch_commit(&d.watch, m, f, d.slots.levels, k.symbol_id, recv_ns, mono_ns, source)
        return
    verdict = decoder_sequence(d, m, f, k.symbol_id, source, recv_ns)
    k.kind = m.kind
    k.flags = m.flags
    if verdict == GAP:
        if d.watch.on:
            watch_commit(&d.watch, m, f, d.slots.levels, k.symbol_id, recv_ns, mono_ns, source)
            return
        k.flags |= FF_AFTER_GAP
        if m.rule == SEQUENCE_CONNECTION:
            table_shake(d.table)
    if m.rule == SEQUENCE_CONNECTION and verdict != DUPLICATE and streams_is_behind(
            &d.streams, m, f, k.symbol_id, watch_connection(&d.watch, source), recv_ns):
        verdict = DUPLICATE
    if verdict == DUPLICATE:
        late = streams_is_late(m, f, &d.table.rows[k.symbol_id])
        k.flags |= 0 if late else FF_DUPLICATE
    k.source = source
    k.seq = f.integer[0] if f.present >> FIELD_SEQ & 1 else 0
    k.event_ns = f.event_ns
    k.recv_ns = recv_ns
    if f.event_ns:
        lag_ns = recv_ns - f.event_ns if f.event_ns > 0 else recv_ns
        histogram_record(&d.lag, lag_ns)
    if k.kind == FF_LEVEL:
        decoder_levels(d, f, &k)
    else:
        decoder_prices(d, m, f, &k, late)
    if verdict != DUPLICATE:
        # Last: a reader in another thread who finds it fresh finds its price too.
        liveness_touch(d.liveness, k.symbol_id, m.channel, mono_ns, lag_ns)


cdef inline void decoder_prices(
    decoder* d, const schema_message* m, const ff_fields* f, ff_tick* k, bint late
) noexcept nogil:
    """To the ring, and to the table unless it is a repeat; of one that is `late` only the last price."""
    cdef uint32_t i
    if f.present & 15 == 15:
        memcpy(k.value, f.number, sizeof(k.value))
    else:
        for i in range(4):
            k.value[i] = f.number[i] if f.present >> i & 1 else NAN
    if k.kind == FF_BAR:
        decoder_bar(d, f, k)
        return
    k.flags |= f.flags
    d.ticks += 1
    if ring_followed(d.ring):
        ring_publish(d.ring, k)
    if k.flags & FF_DUPLICATE:
        return
    if late:
        table_put_last(d.table, k, f.present, f.null | m.whole)
    elif k.kind == FF_MARK:
        table_mark_put(d.table, k, f.present, f.null)
    elif k.kind != FF_CORRECTION:
        table_put(d.table, k, f.present, f.null | m.whole)


cdef inline void decoder_quote(
    decoder* d, const schema_message* m, const ff_fields* f, uint32_t symbol_id, int64_t recv_ns, int64_t mono_ns,
    uint16_t source,
) noexcept nogil:
    """What decoder_commit comes to for most frames there are, in a straight line: a whole quote of a known symbol, with
    a higher number, while nobody watches the stream or reads ticks. All others go there, nothing of them done yet."""
    cdef int64_t lag_ns = 0
    if (
        symbol_id == NO_SYMBOL or f.present & QUOTE_WHOLE != QUOTE_WHOLE or d.watch.on or ring_followed(d.ring)
        or not sequence_rises(streams_of(&d.streams, m, symbol_id), f.integer[0])
    ):
        decoder_commit(d, f, symbol_id, recv_ns, mono_ns, source)
        return
    d.ticks += 1
    if f.event_ns:
        lag_ns = recv_ns - f.event_ns if f.event_ns > 0 else recv_ns
        histogram_record(&d.lag, lag_ns)
    table_quote(d.table, symbol_id, f.number, f.integer[0], f.event_ns, recv_ns)
    liveness_touch(d.liveness, symbol_id, m.channel, mono_ns, lag_ns)


cdef inline void decoder_ticks(
    decoder* d, const ff_fields* f, uint32_t n, int64_t recv_ns, int64_t mono_ns, uint16_t source
) noexcept nogil:
    """Messages to ticks, in order. Their symbols and what their ticks write lie anywhere in memory: all of them are
    asked for before the first is needed, so that they wait together and not one after another."""
    cdef uint32_t ids[32]
    cdef uint64_t room[2]
    cdef const schema_message* m
    cdef uint32_t i, now
    while n:
        now = min(n, <uint32_t>TOGETHER)
        for i in range(now):
            ids[i] = NO_SYMBOL
            if not f[i].counts:
                ids[i] = symbols_known(d.symbols, decoder_key(f + i, room), f[i].symbol, f[i].symbol_size)
        if now > 1:
            for i in range(now):
                if ids[i] != NO_SYMBOL:
                    m = &d.program.messages[f[i].message]
                    order_expect(streams_of(&d.streams, m, ids[i]))
                    table_expect(d.table, ids[i])
                    liveness_expect(d.liveness, ids[i], m.channel)
        for i in range(now):
            m = &d.program.messages[f[i].message]
            if f[i].counts:
                d.count(d, f + i, recv_ns, source)
            elif m.straight:
                decoder_quote(d, m, f + i, ids[i], recv_ns, mono_ns, source)
            else:
                decoder_commit(d, f + i, ids[i], recv_ns, mono_ns, source)
        f += now
        n -= now


cdef inline void decoder_flush(decoder* d) noexcept nogil:
    """Count the frames whose messages wait, and make ticks of these: before anything else does, or anybody looks."""
    cdef uint32_t n = d.slots.n_waiting
    if n:
        if d.n_parsed < n:
            d.credit = CREDIT
        d.frames += n
        d.predicted += n - d.n_parsed
        d.n_parsed = 0
        d.data += n
        d.messages += n
        decoder_ticks(d, slots_awaited(&d.slots), n, d.recv_ns, d.mono_ns, d.source)


cdef inline void decoder_wait(decoder* d) noexcept nogil:
    """The message of the frame just read waits for those behind it in the same read, until the places are full.

    One whose symbol is in its frame only (it is too long for a key) does not wait, nor do those before it.
    """
    cdef const ff_fields* f = d.slots.fields
    d.slots.n_controls = 0
    slots_wait(&d.slots)
    if not f.keyed or f.symbol_size > sizeof(f.key) or d.slots.n_waiting == TOGETHER:
        decoder_flush(d)


cdef inline void decoder_end_shared(
    decoder* d, const ff_fields* f, uint32_t n, int64_t recv_ns, int64_t mono_ns
) noexcept nogil:
    """The frame's messages whose elements share a number are complete."""
    cdef const schema_message* m
    cdef uint32_t _i, symbol_id
    for _i in range(n):
        m = &d.program.messages[f.message]
        if m.shares and not f.counts:
            symbol_id = symbols_find(d.symbols, f.symbol, f.symbol_size)
            if symbol_id != NO_SYMBOL:
                watch_end_shared(&d.watch, m, symbol_id, recv_ns, mono_ns)
        f += 1
