# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""One writer and several readers with no lock between them, for test_threads.py and tsan.py.

The writer decodes frames whose four numbers follow from one; each reader counts what does not fit together. Waits for
nothing but the writer's end.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free

from fastfeed._core cimport Decoder, PriceReader, PriceTable, TickReader, ff_row, ff_tick

cdef extern from *:
    """
    static int races_flag_get(int *flag) { return __atomic_load_n(flag, __ATOMIC_ACQUIRE); }
    static void races_flag_set(int *flag) { __atomic_store_n(flag, 1, __ATOMIC_RELEASE); }
    """
    int races_flag_get(int* flag) nogil
    void races_flag_set(int* flag) nogil


cdef class Flag:
    """Raised by the writer when it is done."""

    cdef int up

    @property
    def is_up(self):
        return races_flag_get(&self.up) != 0


cdef inline double _third(int64_t n) noexcept nogil:
    return <double>(<uint32_t>n * <uint32_t>2654435761)


cdef inline bint _fits(int64_t n, const double* value) noexcept nogil:
    """bid, bid size, ask and ask size of update `n`."""
    return value[0] == n and value[1] == 3 * n and value[2] == 7 * n + 1 and value[3] == _third(n)


def write(Decoder decoder not None, Flag flag not None, long frames, long symbols, long first=1):
    """Decode so many quotes of so many symbols in turn, numbered from `first`; the last symbols appear late."""
    cdef char text[512]
    cdef long n, size, known
    with nogil:
        for n in range(first, first + frames):
            known = 1 + (symbols - 1) * (n - first + 1) // frames
            size = snprintf(
                text, 400,
                b'{"e":"bookTicker","u":%ld,"s":"S%ld","b":"%ld","B":"%ld","a":"%ld","A":"%u","T":%ld,"E":1}',
                n, n % known, n, 3 * n, 7 * n + 1, <uint32_t>n * <uint32_t>2654435761, n,
            )
            decoder.frame(text, size, 512 - size, n, n, 0, True)
        decoder.flush()
        races_flag_set(&flag.up)


def look(PriceTable prices not None, Flag flag not None):
    """Read rows as fast as can be: (rows read, torn rows, rows that went back)."""
    cdef ff_row row
    cdef int64_t* last = <int64_t*>calloc(65536, sizeof(int64_t))
    cdef uint64_t rows = 0, torn = 0, back = 0
    cdef uint32_t i
    cdef bint done = False
    with nogil:
        while not done:
            done = races_flag_get(&flag.up)
            i = 0
            while prices.row(i, &row):
                prices.fresh_row(i, 1000000000, -1)
                i += 1
                if row.updates == 0:
                    continue
                rows += 1
                torn += not (_fits(row.seq, &row.bid) and row.recv_ns == row.seq and row.quote_seq == row.seq
                             and row.event_ns == row.seq * 1000000)
                back += row.seq < last[i - 1]
                last[i - 1] = row.seq
    free(last)
    return rows, torn, back


def drain(PriceReader reader not None, Flag flag not None, uint32_t room=64):
    """Drain until the writer is done and nothing is left.

    (rows delivered, torn rows, rows delivered twice, {symbol id: the last update seen}).
    """
    cdef ff_row out[64]
    cdef int64_t* last = <int64_t*>calloc(65536, sizeof(int64_t))
    cdef uint64_t rows = 0, torn = 0, twice = 0
    cdef uint32_t i, n
    cdef bint done = False
    with nogil:
        while True:
            done = races_flag_get(&flag.up)
            n = reader.next_rows(out, room)
            for i in range(n):
                rows += 1
                torn += not _fits(out[i].seq, &out[i].bid)
                twice += out[i].seq <= last[out[i].symbol_id]
                last[out[i].symbol_id] = out[i].seq
            if done and n == 0:
                break
    seen = {i: last[i] for i in range(65536) if last[i]}
    free(last)
    return rows, torn, twice, seen


def follow(TickReader reader not None, Flag flag not None):
    """Read ticks until the writer is done and none is left: (ticks read, torn ticks, ticks out of order)."""
    cdef ff_tick tick
    cdef int64_t last = 0
    cdef uint64_t ticks = 0, torn = 0, back = 0
    cdef bint done = False
    with nogil:
        while True:
            done = races_flag_get(&flag.up)
            while reader.next_tick(&tick):
                ticks += 1
                torn += not (_fits(tick.seq, tick.value) and tick.recv_ns == tick.seq)
                back += tick.seq <= last
                last = tick.seq
            if done:
                break
    return ticks, torn, back


cdef int _plain = 0


def bump(long times):
    """A plain data race, so that a detector can show that it detects."""
    global _plain
    cdef long i
    with nogil:
        for i in range(times):
            (<int*>&_plain)[0] += i & 1
    return _plain
