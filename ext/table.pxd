"""The last value cache: one row per symbol under a sequence lock, one change log, a cursor per consumer.

One writer. A tick costs the same whatever the number of consumers: it writes its row and, at most once between two
drains, one entry of the log. A consumer that fell behind loses no symbol, only intermediate values, and those are
counted per row. Readers may run in other threads without the interpreter's lock; what that costs the writer (`shared`)
is paid only where it can happen.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from order cimport (
    order_add32, order_count, order_expect, order_fence, order_full_fence, order_get32, order_get64, order_load32,
    order_load64, order_put, order_set8, order_set32, order_set64, order_store32, order_store64, order_take,
)
from tick cimport FF_AFTER_GAP, FF_LIVE, FF_NOT_LAST, FF_QUIET, FF_QUOTE, FF_TRADE, SECOND_NS, ff_row, ff_tick


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
    bint shared         # readers drain while the writer writes, not only between its frames
    uint32_t shaken     # so many rows are flagged AFTER_GAP, none of which has been cleared since

cdef struct table_reader:
    uint64_t* seen      # per symbol: its row's `updates` when last handled; NULL once detached
    uint64_t cursor     # into the log
    uint32_t sweep      # while the log has lapped this reader: the next symbol to look at; else NO_SWEEP
    uint64_t attached   # the updates of all rows when it began
    uint64_t received   # updates since then, once detached
    uint64_t delivered
    uint64_t conflated
    uint64_t dropped

cdef enum:
    NO_SWEEP = 0xFFFFFFFF
    SESSION_S = 4 * 3600  # no two messages of one trading session are further apart, as far as order is concerned


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
    order_store32(&t.count, symbol_id + 1)


cdef inline uint32_t table_lock(ff_row* r) noexcept nogil:
    """The version it has while it is written: odd."""
    cdef uint32_t version = r.version + 1
    order_set32(&r.version, version)
    order_fence()
    return version


cdef inline void table_unlock(ff_row* r, uint32_t version) noexcept nogil:
    order_store32(&r.version, version + 1)


cdef inline void table_merge(
    double* cell, double value, uint32_t field, uint16_t present, uint16_t null
) noexcept nogil:
    """Absent leaves the cell; an explicit null withdraws it."""
    cdef double nothing = NAN
    if (present >> field) & 1:
        order_put(cell, &value, 1)
    elif (null >> field) & 1:
        order_put(cell, &nothing, 1)


cdef inline void table_put(table* t, const ff_tick* k, uint16_t present, uint16_t null) noexcept nogil:
    """Merge a quote or trade into its row. `present` and `null` are the bits of its four numbers.

    One that is NOT_LAST has happened all the same: everything moves on but the last price and what dates it.
    """
    cdef ff_row* r = &t.rows[k.symbol_id]
    cdef uint32_t symbol_id = k.symbol_id
    cdef uint8_t flags = r.flags | (k.flags & FF_AFTER_GAP)
    cdef uint32_t version = table_lock(r)
    if k.kind == FF_QUOTE:
        if present & 15 == 15:
            order_put(&r.bid, k.value, 4)
        else:
            table_merge(&r.bid, k.value[0], 0, present, null)
            table_merge(&r.bid_size, k.value[1], 1, present, null)
            table_merge(&r.ask, k.value[2], 2, present, null)
            table_merge(&r.ask_size, k.value[3], 3, present, null)
        order_put(&r.quote_seq, &k.seq, 2)  # and quote_event_ns
    elif not k.flags & FF_NOT_LAST:
        table_merge(&r.last, k.value[0], 0, present, null)
        table_merge(&r.last_size, k.value[1], 1, present, null)
        order_put(&r.trade_seq, &k.seq, 2)  # and trade_event_ns
    order_set8(&r.flags, flags)
    order_set8(&r.status, FF_LIVE)
    order_put(&r.event_ns, &k.event_ns, 2)  # and recv_ns
    order_put(&r.seq, &k.seq, 1)
    order_count(&r.updates)
    table_unlock(r, version)
    order_set8(&t.doubtful[symbol_id], flags != 0)
    table_changed(t, symbol_id)


cdef inline void table_quote(
    table* t, uint32_t symbol_id, const double* value, int64_t seq, int64_t event_ns, int64_t recv_ns
) noexcept nogil:
    """What table_put comes to for a quote with its four numbers and no flag."""
    cdef ff_row* r = &t.rows[symbol_id]
    cdef uint8_t flags = r.flags
    cdef uint32_t version = table_lock(r)
    order_put(&r.bid, value, 4)
    order_put(&r.quote_seq, &seq, 1)
    order_put(&r.quote_event_ns, &event_ns, 1)
    order_set8(&r.status, FF_LIVE)
    order_put(&r.event_ns, &event_ns, 1)
    order_put(&r.recv_ns, &recv_ns, 1)
    order_put(&r.seq, &seq, 1)
    order_count(&r.updates)
    table_unlock(r, version)
    order_set8(&t.doubtful[symbol_id], flags != 0)
    table_changed(t, symbol_id)


cdef inline void table_expect(const table* t, uint32_t symbol_id) noexcept nogil:
    """Have what a tick of this symbol reads of its row on its way."""
    order_expect(&t.rows[symbol_id])
    order_expect(<const char*>&t.rows[symbol_id] + 64)
    order_expect(&t.logged[symbol_id])


cdef inline void table_changed(table* t, uint32_t symbol_id) noexcept nogil:
    """Its row has been written: log it for the readers, at most once between two drains."""
    cdef uint32_t epoch
    order_count(&t.updates)
    if order_get32(&t.shared):
        # Either we see the epoch a drain has begun, or that drain sees this row: see table_drain.
        order_full_fence()
    epoch = order_get32(&t.epoch)
    if t.logged[symbol_id] != epoch:
        t.logged[symbol_id] = epoch
        order_set32(&t.log[t.log_head & t.log_mask], symbol_id)
        order_store64(&t.log_head, t.log_head + 1)


cdef inline void table_judge(table* t, uint32_t symbol_id, uint8_t status, uint8_t flags) noexcept nogil:
    """Set a row's status and flags without new prices."""
    cdef ff_row* r = &t.rows[symbol_id]
    cdef uint32_t version = table_lock(r)
    order_set8(&r.status, status)
    order_set8(&r.flags, flags)
    table_unlock(r, version)
    order_set8(&t.doubtful[symbol_id], flags != 0 or not (status == FF_LIVE or status == FF_QUIET))


cdef inline bint table_is_of_before(
    const table* t, uint32_t symbol_id, uint8_t kind, uint32_t begun_s, int64_t event_ns
) noexcept nogil:
    """Is the row's newest quote (or last trade) so much older that another session has begun since?

    `begun_s`: when it was last thought so, or a trade came that is NOT_LAST and so leaves the row as old as it is.
    """
    cdef const ff_row* r = &t.rows[symbol_id]
    cdef int64_t last_ns = r.quote_event_ns if kind == FF_QUOTE else r.trade_event_ns if kind == FF_TRADE else 0
    if last_ns <= 0:
        return False
    last_ns = max(last_ns, <int64_t>begun_s * SECOND_NS)
    return event_ns > last_ns and event_ns - last_ns > <int64_t>SESSION_S * SECOND_NS


cdef inline void table_put_last(table* t, const ff_tick* k, uint16_t present, uint16_t null) noexcept nogil:
    """Merge a trade that comes late, but is newer than the last price: what came in between was NOT_LAST."""
    cdef ff_row* r = &t.rows[k.symbol_id]
    cdef uint32_t version = table_lock(r)
    table_merge(&r.last, k.value[0], 0, present, null)
    table_merge(&r.last_size, k.value[1], 1, present, null)
    order_put(&r.trade_seq, &k.seq, 2)  # and trade_event_ns
    order_count(&r.updates)
    table_unlock(r, version)
    table_changed(t, k.symbol_id)


cdef inline void table_shake(table* t) noexcept nogil:
    """Something is missing, and nobody knows of which row: all are flagged."""
    while t.shaken < t.count:
        table_judge(t, t.shaken, t.rows[t.shaken].status, t.rows[t.shaken].flags | FF_AFTER_GAP)
        t.shaken += 1


cdef inline void table_mark_put(table* t, const ff_tick* k, uint16_t present, uint16_t null) noexcept nogil:
    cdef table_mark* m = &t.marks[k.symbol_id]
    table_merge(&m.price, k.value[0], 0, present, null)
    table_merge(&m.index, k.value[1], 1, present, null)
    table_merge(&m.funding, k.value[2], 2, present, null)
    order_set64(&m.event_ns, k.event_ns)
    order_set64(&m.recv_ns, k.recv_ns)
    order_count(&m.updates)


cdef inline void table_copy(const table* t, uint32_t symbol_id, ff_row* out) noexcept nogil:
    """One torn-free row, from any thread: copied again until no write came in between."""
    cdef const ff_row* r = &t.rows[symbol_id]
    cdef uint32_t before
    while True:
        before = order_load32(&r.version)
        order_take(out, r, sizeof(ff_row) // 8)
        order_fence()
        if not before & 1 and order_get32(&r.version) == before:
            return


cdef inline bint table_attach(table* t, table_reader* c) noexcept nogil:
    """A reader starts at the present: nothing before counts as received or conflated."""
    cdef uint32_t i, count = order_load32(&t.count)
    memset(c, 0, sizeof(table_reader))
    c.seen = <uint64_t*>calloc(t.limit, sizeof(uint64_t))
    if c.seen == NULL:
        return False
    c.cursor = order_load64(&t.log_head)
    c.sweep = NO_SWEEP
    order_add32(&t.epoch, 1)
    order_full_fence()
    for i in range(count):
        c.seen[i] = order_get64(&t.rows[i].updates)
        c.attached += c.seen[i]
    return True


cdef inline void table_detach(table* t, table_reader* c) noexcept nogil:
    """What still waited is dropped, counted; the counts stay readable."""
    if c.seen == NULL:
        return
    c.dropped += table_pending(t, c, &c.received)
    free(c.seen)
    c.seen = NULL
    c.cursor = order_load64(&t.log_head)
    c.sweep = NO_SWEEP


cdef inline bint table_ready(const table* t, const table_reader* c) noexcept nogil:
    return c.seen != NULL and (c.cursor != order_load64(&t.log_head) or c.sweep != NO_SWEEP)


cdef inline uint32_t table_next(const table* t, table_reader* c, uint64_t head) noexcept nogil:
    """The next symbol that changed for this reader, logged before `head`, or NO_SWEEP; the handled are passed over."""
    cdef uint32_t symbol_id
    while c.sweep != NO_SWEEP:
        if c.sweep == order_load32(&t.count):
            c.sweep = NO_SWEEP
        elif order_get64(&t.rows[c.sweep].updates) != c.seen[c.sweep]:
            return c.sweep
        else:
            c.sweep += 1
    while c.cursor != head:
        symbol_id = order_get32(&t.log[c.cursor & t.log_mask])
        if order_get64(&t.rows[symbol_id].updates) != c.seen[symbol_id]:
            return symbol_id
        c.cursor += 1
    return NO_SWEEP


cdef inline bint table_lapped(const table* t, const table_reader* c) noexcept nogil:
    """The entry at the reader's cursor has been overwritten, or is just being."""
    return order_load64(&t.log_head) - c.cursor > t.log_mask


cdef inline uint32_t table_drain(
    table* t, table_reader* c, ff_row* out, uint32_t room, int64_t oldest_recv_ns
) noexcept nogil:
    """Rows changed since they were last handled, at most `room`; how many.

    What was received before `oldest_recv_ns` is dropped, counted.

    Whatever changes while it runs is not lost. The log is read only up to where it ended before the epoch moved on, so
    an update either finds the new epoch and is logged behind that, for the next drain; or, where the writer passes a
    full fence, its row is seen by this one.
    """
    cdef uint32_t n = 0
    cdef uint32_t symbol_id
    cdef uint64_t skipped, head, began
    if c.seen == NULL:
        return 0
    head = order_load64(&t.log_head)
    order_add32(&t.epoch, 1)
    order_full_fence()
    if table_lapped(t, c):
        # look at every symbol once; what changes meanwhile is in the log again
        c.cursor = head
        c.sweep = 0
    began = c.cursor
    symbol_id = table_next(t, c, head)
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
        symbol_id = table_next(t, c, head)
    if order_load64(&t.log_head) - began > t.log_mask:
        c.sweep = 0  # the writer came round meanwhile: some entries read were others
    return n


cdef inline uint64_t table_pending(const table* t, const table_reader* c, uint64_t* received) noexcept nogil:
    """Updates that wait for this reader, counted row by row; and what it has received, by the same look at the rows."""
    cdef uint64_t n = 0
    cdef uint64_t updates
    cdef uint32_t i
    if c.seen == NULL:
        received[0] = c.received
        return 0
    received[0] = 0
    for i in range(order_load32(&t.count)):
        updates = order_get64(&t.rows[i].updates)
        received[0] += updates
        n += updates - c.seen[i]
    received[0] -= c.attached
    return n
