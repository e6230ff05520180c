"""A frame's way through the machine room: predicted or parsed to fields, then sequence, ring, table, liveness, counts.

Where all rooms meet. No Python, no clock: the caller says when. Every frame is counted in exactly one of data, control,
unknown, malformed.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from binary cimport binary_frame
from histogram cimport histogram, histogram_record
from json cimport json_element, json_fail, json_frame, json_learn, json_next
from layout cimport (
    FIELD_SEQ, FIELD_TIME, LAYOUT_LEAD, LAYOUT_LONGEST, LAYOUT_STEPS, ff_fields, layout_begin, layout_choice,
    layout_keep, layout_open, layout_set,
)
from liveness cimport liveness, liveness_expect, liveness_touch
from message cimport message_finish, message_open
from msgpack cimport PLAN_CREDIT, msgpack_frame, msgpack_plans
from ring cimport ring, ring_followed, ring_publish
from scan cimport FF_PADDING, scan_space
from schema cimport ENCODING_BINARY, ENCODING_JSON, ENCODING_MSGPACK, program, schema_message
from sequence cimport DUPLICATE, GAP, IN_ORDER, SEQUENCE_CONNECTION, SEQUENCE_RISING, sequence, sequence_rises
from slots cimport (
    CONTROL, DATA, MALFORMED, UNKNOWN, slot, slots, slots_begin, slots_close, slots_control, slots_reset,
)
from streams cimport (
    numbers, streams, streams_at, streams_check, streams_close, streams_forget, streams_goes_on, streams_is_behind,
    streams_is_late, streams_numbers, streams_of, streams_open,
)
from symbols cimport NO_SYMBOL, symbols, symbols_find, symbols_intern, symbols_key, symbols_known
from table cimport (
    table, table_add, table_expect, table_is_of_before, table_mark_put, table_put, table_put_last, table_quote, table_shake,
)
from tick cimport *
from watch cimport watch, watch_close, watch_commit, watch_connection, watch_end_shared


cdef extern from "math.h" nogil:
    double NAN

cdef extern from "scan.h" nogil:
    void ff_expect(const void* p)

cdef enum:
    TOGETHER = 16        # messages that wait for memory together
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
    ff_fields waiting[16]     # predicted, not yet ticks: see decoder_wait
    uint32_t n_waiting
    int64_t recv_ns           # all of them came then, by the same connection
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
    # decoder_batch, decoder_count and decoder_end_shared; through pointers, so that they are not compiled into what is
    # hotter still
    int (*batch)(decoder* d, const char* p, const char* end, uint32_t lead) noexcept nogil
    void (*count)(decoder* d, const ff_fields* f, int64_t recv_ns, uint16_t source) noexcept nogil
    void (*end_shared)(decoder* d, int64_t recv_ns, int64_t mono_ns) noexcept nogil
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
    d.batch = decoder_batch
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
    return streams_open(&d.streams, s.limit, p.n_streams) and d.trace != NULL and d.layouts != NULL


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


cdef inline uint32_t decoder_symbol(decoder* d, const ff_fields* f) noexcept nogil:
    """The symbol's id, its row begun if it is new.

    NO_SYMBOL when it had to be refused, which is counted and its name kept.
    """
    cdef uint32_t known = d.symbols.count
    cdef uint64_t room[2]
    cdef uint32_t symbol_id = symbols_intern(d.symbols, decoder_key(f, room), f.symbol, f.symbol_size)
    if symbol_id == NO_SYMBOL:
        d.refused += 1
        d.refused_size = f.symbol_size if f.symbol_size < REFUSED_BYTES else REFUSED_BYTES
        memcpy(d.refused_name, f.symbol, d.refused_size)
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
    cdef uint32_t ids[16]
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
                    ff_expect(streams_of(&d.streams, m, ids[i]))
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
    """Make ticks of the messages that wait. Called before anything else makes any, and before anybody looks."""
    cdef uint32_t n = d.n_waiting
    if n:
        d.n_waiting = 0
        decoder_ticks(d, d.waiting, n, d.recv_ns, d.mono_ns, d.source)


cdef inline void decoder_wait(decoder* d) noexcept nogil:
    """The message just predicted waits for those behind it in the same read, unless its frame holds more than it."""
    cdef ff_fields* f = d.waiting + d.n_waiting
    d.credit = CREDIT
    d.slots.n_controls = 0
    d.frames += 1
    d.predicted += 1
    d.data += 1
    d.messages += 1
    d.n_waiting += 1
    if f.keyed and f.symbol_size <= sizeof(f.key) and d.n_waiting < TOGETHER:
        f.symbol = <const char*>f.key + sizeof(f.key) - f.symbol_size
    else:
        decoder_flush(d)


cdef inline bint decoder_filled(decoder* d, const schema_message* m, ff_fields* f, bint simd) noexcept nogil:
    """What message_finish does, for fields that a layout filled; in a straight line for a plain message."""
    if not m.plain or f.time_text != NULL or f.symbol_size == 0:
        return message_finish(&d.slots, m, f, simd)
    f.event_ns = 0
    if f.present & (1 << FIELD_TIME):
        if <uint64_t>f.integer[FIELD_TIME - FIELD_SEQ] > <uint64_t>m.time_most:
            return False
        f.event_ns = f.integer[FIELD_TIME - FIELD_SEQ] * m.time_scale
    return True


cdef inline bint decoder_predict(
    decoder* d, const char* p, const char* end, uint32_t lead, bint padded, int64_t recv_ns, int64_t mono_ns,
    uint16_t source, bint simd,
) noexcept nogil:
    """Is the frame's layout remembered? What it says is behind those that wait then.

    `lead`, `padded`: see layout_kernel.
    """
    cdef ff_fields* f
    if d.n_waiting and (d.recv_ns != recv_ns or d.mono_ns != mono_ns or d.source != source):
        decoder_flush(d)
    d.recv_ns = recv_ns
    d.mono_ns = mono_ns
    d.source = source
    f = d.waiting + d.n_waiting
    slots_reset(&d.slots)
    f.time_text = NULL
    return d.kernel.find(d.layouts, p, end, lead, padded, f) and decoder_filled(
        d, &d.program.messages[f.message], f, simd)


cdef inline const char* decoder_predict_element(decoder* d, const char* p, bint simd) noexcept nogil:
    """What follows the element at p if its layout is remembered, its tick added then; else NULL."""
    cdef slots* j = &d.slots
    cdef ff_fields* f = message_open(j, 0)
    cdef const char* q
    if f == NULL:
        return NULL
    f.time_text = NULL
    q = d.kernel.element(d.layouts, p, f)
    if q == NULL or not decoder_filled(d, &d.program.messages[f.message], f, simd):
        return NULL
    d.credit = CREDIT
    d.predicted += 1
    j.messages += 1
    f.ordinal = j.messages
    j.n_fields += 1
    return q


cdef inline void decoder_missed(decoder* d) noexcept nogil:
    """A frame or element had to be parsed: prediction rests for a while after too many in a row."""
    if d.credit < 0:
        d.credit += 1
    elif d.layouts.count:
        d.credit -= 1
        if d.credit < 0:
            d.credit = -16 * CREDIT


cdef inline int decoder_parse(decoder* d, const char* p, const char* end, bint simd) noexcept nogil:
    """The strict way, learning the frame's layout while prediction is worth it."""
    cdef int verdict
    d.slots.trace = d.trace if d.credit >= 0 else NULL
    verdict = json_frame(&d.slots, p, end, simd)
    if d.slots.trace != NULL and verdict == DATA and json_learn(&d.slots, 0, p, end, False, &d.layouts.draft):
        layout_keep(d.layouts)
    decoder_missed(d)
    return verdict


cdef inline int decoder_batch_as(decoder* d, const char* p, const char* end, uint32_t lead, bint simd) noexcept nogil:
    """A frame that is an array, each element a message, predicted or parsed; the highest verdict, or MALFORMED.

    Nothing is made of any before all have been read.
    """
    cdef slots* j = &d.slots
    cdef uint32_t before
    cdef int best = UNKNOWN
    cdef int one
    cdef const char* q
    slots_begin(j)
    layout_begin(d.layouts, p - lead, end)
    p = scan_space(p + 1)
    while p[0] != b"]":
        q = decoder_predict_element(d, p, simd) if d.credit >= 0 else NULL
        one = DATA
        if q == NULL:
            before = j.n_fields
            j.trace = d.trace if d.credit >= 0 else NULL
            q = json_element(j, p, &one, simd)
            if q == NULL:
                return MALFORMED
            if j.trace != NULL and one == DATA and json_learn(j, before, p, q, True, &d.layouts.draft):
                layout_keep(d.layouts)
            decoder_missed(d)
        best = max(best, one)
        p = json_next(j, q, b"]")
        if p == NULL:
            return MALFORMED
    p = scan_space(p + 1)
    if p != end:
        json_fail(j, p)
        return MALFORMED
    if j.failed:
        j.n_fields = 0
        return UNKNOWN
    return best


cdef inline int decoder_batch(decoder* d, const char* p, const char* end, uint32_t lead) noexcept nogil:
    if d.simd:
        return decoder_batch_as(d, p, end, lead, True)
    return decoder_batch_as(d, p, end, lead, False)


cdef inline int decoder_frame_as(
    decoder* d, const char* p, const char* end, uint32_t lead, int64_t recv_ns, int64_t mono_ns, uint16_t source,
    bint simd
) noexcept nogil:
    """One padded frame (scan.h) through everything; its verdict.

    Its control messages stay in `slots.controls` until the next frame.
    """
    cdef bint is_batch = p[0] == b"[" and not d.program.positional
    cdef int verdict
    if d.credit >= 0 and not is_batch and decoder_predict(
            d, p, end, lead, True, recv_ns, mono_ns, source, simd):
        decoder_wait(d)
        return DATA
    d.frames += 1
    if is_batch:
        verdict = d.batch(d, p, end, lead)
    else:
        verdict = decoder_parse(d, p, end, simd)
    if verdict == MALFORMED and d.program.plains and decoder_plain(d, p, end):
        verdict = CONTROL
    return decoder_settle(d, verdict, recv_ns, mono_ns, source)


cdef inline bint decoder_plain(decoder* d, const char* p, const char* end) noexcept nogil:
    """Is this text, which is no JSON, one of those that are control all the same?"""
    cdef const char* t = d.program.plain
    cdef uint32_t _i, n
    for _i in range(d.program.plains):
        n = 0
        while t[n]:
            n += 1
        if n == end - p and memcmp(t, p, n) == 0:
            d.slots.messages = 1
            return slots_control(&d.slots, p, end)
        t += n + 1
    return False


cdef inline int decoder_other(
    decoder* d, const char* p, const char* end, int64_t recv_ns, int64_t mono_ns, uint16_t source
) noexcept nogil:
    """One padded frame that is not text, in the encoding of the schema; its verdict."""
    cdef int verdict
    d.frames += 1
    if d.program.encoding == ENCODING_BINARY:
        verdict = binary_frame(&d.slots, p, end, d.simd)
    else:
        verdict = msgpack_frame(&d.slots, d.plans, p, end, d.simd)
    return decoder_settle(d, verdict, recv_ns, mono_ns, source)


cdef inline int decoder_settle(
    decoder* d, int verdict, int64_t recv_ns, int64_t mono_ns, uint16_t source
) noexcept nogil:
    """Count a frame that was parsed and make ticks of what it holds; its verdict."""
    decoder_flush(d)
    if verdict == MALFORMED:
        d.slots.n_controls = 0
        d.malformed += 1
        return MALFORMED
    d.streams.before = <uint32_t>d.messages
    d.messages += d.slots.messages
    if verdict == DATA:
        d.data += 1
    elif verdict == CONTROL:
        d.control += 1
    else:
        d.unknown += 1
    if d.slots.n_fields:
        decoder_ticks(d, d.slots.fields, d.slots.n_fields, recv_ns, mono_ns, source)
    if d.watch.on:
        d.end_shared(d, recv_ns, mono_ns)
    return verdict


cdef inline void decoder_end_shared(decoder* d, int64_t recv_ns, int64_t mono_ns) noexcept nogil:
    """The frame's messages whose elements share a number are complete."""
    cdef const ff_fields* f
    cdef const schema_message* m
    cdef uint32_t i, symbol_id
    for i in range(d.slots.n_fields):
        f = d.slots.fields + i
        m = &d.program.messages[f.message]
        if m.shares and not f.counts:
            symbol_id = symbols_find(d.symbols, f.symbol, f.symbol_size)
            if symbol_id != NO_SYMBOL:
                watch_end_shared(&d.watch, m, symbol_id, recv_ns, mono_ns)


cdef inline int decoder_frame(
    decoder* d, const char* p, const char* end, uint32_t lead, int64_t recv_ns, int64_t mono_ns, uint16_t source,
    bint text
) noexcept nogil:
    """The parser and its kernel are chosen here, once per frame. `text`: it is JSON, whatever the schema's encoding."""
    if d.program.encoding != ENCODING_JSON and not text:
        return decoder_other(d, p, end, recv_ns, mono_ns, source)
    if d.simd:
        return decoder_frame_as(d, p, end, lead, recv_ns, mono_ns, source, True)
    return decoder_frame_as(d, p, end, lead, recv_ns, mono_ns, source, False)


cdef inline int decoder_in_place(
    decoder* d, char* p, size_t size, int64_t recv_ns, int64_t mono_ns, uint16_t source, bint text
) noexcept nogil:
    """A frame with FF_PADDING readable bytes behind it, the first of them writable: it is lent to the NUL meanwhile.

    Nothing need be readable in front of it; where a layout wants that, the frame is copied.
    """
    cdef char behind = p[size]
    cdef int verdict
    if d.layouts.early and d.kernel.in_place and size <= LAYOUT_LONGEST:
        return decoder_copied(d, p, size, recv_ns, mono_ns, source, text)
    p[size] = 0
    verdict = decoder_frame(d, p, p + size, 0, recv_ns, mono_ns, source, text)
    p[size] = behind
    return verdict


cdef inline int decoder_led(
    decoder* d, const char* p, size_t size, int64_t recv_ns, int64_t mono_ns, uint16_t source, bint text
) noexcept nogil:
    """A frame with LAYOUT_LEAD readable bytes in front of it and a NUL behind, beyond which nothing may be read.

    It is copied only if it has to be parsed.
    """
    cdef bint is_json = text or d.program.encoding == ENCODING_JSON
    if d.credit >= 0 and is_json and p[0] != b"[" and size >= FF_PADDING and d.kernel.in_place:
        if decoder_predict(d, p, p + size, LAYOUT_LEAD, False, recv_ns, mono_ns, source, True):
            decoder_wait(d)
            return DATA
    return decoder_copied(d, p, size, recv_ns, mono_ns, source, text)


cdef inline int decoder_copied(
    decoder* d, const char* p, size_t size, int64_t recv_ns, int64_t mono_ns, uint16_t source, bint text
) noexcept nogil:
    """A frame around which nothing may be read. One there is no memory for counts as malformed."""
    cdef char* room
    if LAYOUT_LEAD + size + FF_PADDING > d.scratch_size:
        room = <char*>calloc(1, LAYOUT_LEAD + 2 * size + FF_PADDING) if size < 0x7FFFFFFF else NULL
        if room == NULL:
            d.frames += 1
            d.malformed += 1
            return MALFORMED
        free(d.scratch)
        d.scratch = room
        d.scratch_size = LAYOUT_LEAD + 2 * size + FF_PADDING
    room = d.scratch + LAYOUT_LEAD
    memcpy(room, p, size)
    memset(room + size, 0, FF_PADDING)
    return decoder_frame(d, room, room + size, LAYOUT_LEAD, recv_ns, mono_ns, source, text)
