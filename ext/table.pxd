"""The last value cache: one row per symbol under a sequence lock, one change log, a cursor per consumer.

One writer. A tick costs the same whatever the number of consumers: it writes its row and, at most once between two
drains, one entry of the log. A consumer that fell behind loses no symbol, only intermediate values, and those are
counted per row.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from order cimport order_fence, order_load32, order_store32
from tick cimport FF_AFTER_GAP, FF_LIVE, FF_QUIET, FF_QUOTE, ff_row, ff_tick


cdef extern from "math.h" nogil:
    double NAN

cdef struct table_mark:  # the side table of marks, one record per symbol
    double price
    double index
    double funding
    int64_t event_ns
    int64_t recv_ns
    uint64_t updates

cdef struct table:
    ff_row* rows
    void* memory        # what `rows` was cut from, at a cache line
    table_mark* marks
    uint32_t limit      # rows reserved; they never move
    uint32_t count      # rows in use
    uint8_t* doubtful   # per symbol: not LIVE or QUIET, or flagged; beside the rows because guards read only this
    uint32_t* logged    # per symbol: the epoch of its newest log entry
    uint32_t* log       # symbol ids in order of change, circular
    uint64_t log_head   # entries ever written
    uint64_t log_mask
    uint32_t epoch      # moves on with every drain, so that later changes are logged again
    uint64_t updates    # ticks merged into any row

cdef struct table_reader:
    uint64_t* seen      # per symbol: its row's `updates` when last handled; NULL once detached
    uint64_t cursor     # into the log
    uint32_t sweep      # while the log has lapped this reader: the next symbol to look at; else NO_SWEEP
    uint64_t attached   # the table's `updates` when it began
    uint64_t received   # updates since then, once detached
    uint64_t delivered
    uint64_t conflated
    uint64_t dropped

cdef enum:
    NO_SWEEP = 0xFFFFFFFF


cdef inline bint table_open(table* t, uint32_t limit) noexcept nogil:
    cdef uint64_t room = 16
    while room < 2 * <uint64_t>limit:
        room *= 2
    memset(t, 0, sizeof(table))
    t.memory = calloc(<size_t>limit + 1, sizeof(ff_row))
    t.rows = <ff_row*>((<uintptr_t>t.memory + 63) & ~<uintptr_t>63)
    t.marks = <table_mark*>calloc(limit, sizeof(table_mark))
    t.doubtful = <uint8_t*>calloc(limit, 1)
    t.logged = <uint32_t*>calloc(limit, sizeof(uint32_t))
    t.log = <uint32_t*>calloc(room, sizeof(uint32_t))
    t.log_mask = room - 1
    t.limit = limit
    t.epoch = 1
    return t.memory != NULL and t.marks != NULL and t.doubtful != NULL and t.logged != NULL and t.log != NULL


cdef inline void table_close(table* t) noexcept nogil:
    free(t.memory)
    free(t.marks)
    free(t.doubtful)
    free(t.logged)
    free(t.log)


cdef inline void table_add(table* t, uint32_t symbol_id) noexcept nogil:
    """Begin the row of the next new symbol: known, but without a price."""
    cdef ff_row* r = &t.rows[symbol_id]
    r.symbol_id = symbol_id
    r.bid = r.bid_size = r.ask = r.ask_size = r.last = r.last_size = NAN
    t.marks[symbol_id].price = t.marks[symbol_id].index = t.marks[symbol_id].funding = NAN
    t.doubtful[symbol_id] = True
    t.count = symbol_id + 1


cdef inline void table_lock(ff_row* r) noexcept nogil:
    order_store32(&r.version, r.version + 1)
    order_fence()


cdef inline void table_unlock(ff_row* r) noexcept nogil:
    order_store32(&r.version, r.version + 1)


cdef inline void table_merge(
    double* cell, double value, uint32_t field, uint16_t present, uint16_t null
) noexcept nogil:
    """Absent leaves the cell; an explicit null withdraws it."""
    if (present >> field) & 1:
        cell[0] = value
    elif (null >> field) & 1:
        cell[0] = NAN


cdef inline void table_put(table* t, const ff_tick* k, uint16_t present, uint16_t null) noexcept nogil:
    """Merge a quote or trade into its row. `present` and `null` are the bits of its four numbers."""
    cdef ff_row* r = &t.rows[k.symbol_id]
    table_lock(r)
    if k.kind == FF_QUOTE:
        if present & 15 == 15:
            r.bid = k.value[0]
            r.bid_size = k.value[1]
            r.ask = k.value[2]
            r.ask_size = k.value[3]
        else:
            table_merge(&r.bid, k.value[0], 0, present, null)
            table_merge(&r.bid_size, k.value[1], 1, present, null)
            table_merge(&r.ask, k.value[2], 2, present, null)
            table_merge(&r.ask_size, k.value[3], 3, present, null)
        r.quote_seq = k.seq
        r.quote_event_ns = k.event_ns
    else:
        table_merge(&r.last, k.value[0], 0, present, null)
        table_merge(&r.last_size, k.value[1], 1, present, null)
        r.trade_seq = k.seq
        r.trade_event_ns = k.event_ns
    r.flags |= k.flags & FF_AFTER_GAP
    r.status = FF_LIVE
    r.event_ns = k.event_ns
    r.recv_ns = k.recv_ns
    r.seq = k.seq
    r.updates += 1
    table_unlock(r)
    t.doubtful[k.symbol_id] = r.flags != 0
    t.updates += 1
    if t.logged[k.symbol_id] != t.epoch:
        t.logged[k.symbol_id] = t.epoch
        t.log[t.log_head & t.log_mask] = k.symbol_id
        t.log_head += 1


cdef inline void table_judge(table* t, uint32_t symbol_id, uint8_t status, uint8_t flags) noexcept nogil:
    """Set a row's status and flags without new prices."""
    cdef ff_row* r = &t.rows[symbol_id]
    table_lock(r)
    r.status = status
    r.flags = flags
    table_unlock(r)
    t.doubtful[symbol_id] = flags != 0 or not (status == FF_LIVE or status == FF_QUIET)


cdef inline void table_mark_put(table* t, const ff_tick* k, uint16_t present, uint16_t null) noexcept nogil:
    cdef table_mark* m = &t.marks[k.symbol_id]
    table_merge(&m.price, k.value[0], 0, present, null)
    table_merge(&m.index, k.value[1], 1, present, null)
    table_merge(&m.funding, k.value[2], 2, present, null)
    m.event_ns = k.event_ns
    m.recv_ns = k.recv_ns
    m.updates += 1


cdef inline void table_copy(const table* t, uint32_t symbol_id, ff_row* out) noexcept nogil:
    """One torn-free row, from any thread: copied again until no write came in between."""
    cdef const ff_row* r = &t.rows[symbol_id]
    cdef uint32_t before
    while True:
        before = order_load32(&r.version)
        out[0] = r[0]
        order_fence()
        if not before & 1 and order_load32(&r.version) == before:
            return


cdef inline bint table_attach(table* t, table_reader* c) noexcept nogil:
    """A reader starts at the present: nothing before counts as received or conflated."""
    cdef uint32_t i
    memset(c, 0, sizeof(table_reader))
    c.seen = <uint64_t*>calloc(t.limit, sizeof(uint64_t))
    if c.seen == NULL:
        return False
    for i in range(t.count):
        c.seen[i] = t.rows[i].updates
    c.attached = t.updates
    c.cursor = t.log_head
    c.sweep = NO_SWEEP
    t.epoch += 1
    return True


cdef inline void table_detach(table* t, table_reader* c) noexcept nogil:
    """What still waited is dropped, counted; the counts stay readable."""
    if c.seen == NULL:
        return
    c.dropped += table_pending(t, c)
    c.received = t.updates - c.attached
    free(c.seen)
    c.seen = NULL
    c.cursor = t.log_head
    c.sweep = NO_SWEEP


cdef inline uint64_t table_received(const table* t, const table_reader* c) noexcept nogil:
    return c.received if c.seen == NULL else t.updates - c.attached


cdef inline bint table_ready(const table* t, const table_reader* c) noexcept nogil:
    return c.seen != NULL and (c.cursor != t.log_head or c.sweep != NO_SWEEP)


cdef inline uint32_t table_next(const table* t, table_reader* c) noexcept nogil:
    """The next symbol that changed for this reader, or NO_SWEEP; what it has handled already is passed over."""
    while c.sweep != NO_SWEEP:
        if c.sweep == t.count:
            c.sweep = NO_SWEEP
        elif t.rows[c.sweep].updates != c.seen[c.sweep]:
            return c.sweep
        else:
            c.sweep += 1
    while c.cursor != t.log_head:
        if t.rows[t.log[c.cursor & t.log_mask]].updates != c.seen[t.log[c.cursor & t.log_mask]]:
            return t.log[c.cursor & t.log_mask]
        c.cursor += 1
    return NO_SWEEP


cdef inline uint32_t table_drain(
    table* t, table_reader* c, ff_row* out, uint32_t room, int64_t oldest_recv_ns
) noexcept nogil:
    """Rows changed since they were last handled, at most `room`; how many.

    What was received before `oldest_recv_ns` is dropped, counted.
    """
    cdef uint32_t n = 0
    cdef uint32_t symbol_id
    cdef uint64_t skipped
    if c.seen == NULL:
        return 0
    t.epoch += 1
    if t.log_head - c.cursor > t.log_mask + 1:
        # the log was lapped: look at every symbol once; what changes meanwhile is in the log again
        c.cursor = t.log_head
        c.sweep = 0
    symbol_id = table_next(t, c)
    while symbol_id != NO_SWEEP and n < room:
        table_copy(t, symbol_id, out)
        skipped = out.updates - c.seen[symbol_id] - 1
        c.seen[symbol_id] = out.updates
        c.conflated += skipped
        if out.recv_ns < oldest_recv_ns:
            c.dropped += 1
        else:
            out.conflated = <uint32_t>skipped if skipped < <uint64_t>0xFFFFFFFF else <uint32_t>0xFFFFFFFF
            c.delivered += 1
            out += 1
            n += 1
        symbol_id = table_next(t, c)
    return n


cdef inline uint64_t table_pending(const table* t, const table_reader* c) noexcept nogil:
    """Updates that wait for this reader, counted row by row."""
    cdef uint64_t n = 0
    cdef uint32_t i
    if c.seen != NULL:
        for i in range(t.count):
            n += t.rows[i].updates - c.seen[i]
    return n
