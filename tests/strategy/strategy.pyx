# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A user's strategy: counts crossings of a moving average, per tick, in C, from the ring and the table of a feed.

Compiled against the installed package only; refuses to touch Python between two ticks.
"""

from fastfeed._core cimport FF_QUOTE, FF_TRADE, PriceReader, PriceTable, TickReader, ff_row, ff_tick


cdef class Strategy:
    cdef TickReader ticks
    cdef PriceReader changes
    cdef PriceTable prices
    cdef readonly long long quotes
    cdef readonly long long trades
    cdef readonly long long crossings
    cdef readonly long long rows
    cdef readonly double average
    cdef readonly double last_bid
    cdef bint above

    def __init__(self, decoder):
        self.ticks = decoder.ring.reader()
        self.changes = decoder.prices.reader()
        self.prices = decoder.prices

    cdef void on_tick(self, const ff_tick* tick) noexcept nogil:
        cdef double middle
        if tick.kind == FF_TRADE:
            self.trades += 1
        if tick.kind != FF_QUOTE:
            return
        self.quotes += 1
        self.last_bid = tick.value[0]
        middle = (tick.value[0] + tick.value[2]) / 2
        if self.quotes == 1:
            self.average = middle
        self.average += (middle - self.average) / 16
        if (middle > self.average) != self.above:
            self.above = not self.above
            self.crossings += 1

    cdef long long drain(self) noexcept nogil:
        cdef ff_tick tick
        cdef long long n = 0
        while self.ticks.next_tick(&tick):
            self.on_tick(&tick)
            n += 1
        return n

    cdef long long drain_rows(self) noexcept nogil:
        cdef ff_row rows[16]
        cdef long long n = 0
        cdef unsigned int got
        while True:
            got = self.changes.next_rows(rows, 16)
            n += got
            if got < 16:
                self.rows += n
                return n

    def run(self):
        """Handle every waiting tick; how many there were."""
        cdef long long n
        with nogil:
            n = self.drain()
            self.drain_rows()
        return n

    def bid(self, unsigned int symbol_id):
        """The bid straight from the table's row, and whether it is fresh within a second."""
        cdef ff_row row
        cdef bint known, fresh
        with nogil:
            known = self.prices.row(symbol_id, &row)
            fresh = self.prices.fresh_row(symbol_id, 1_000_000_000, -1)
        return (row.bid, fresh) if known else None
