"""For Cython users: the compiled handles and their calls that need no Python.

Unstable between minor versions; compile against the one you run.

    from fastfeed._core cimport PriceTable, TickReader, ff_row, ff_tick
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "fastfeed.h" nogil:
    enum:
        FF_QUOTE, FF_TRADE, FF_LEVEL, FF_MARK, FF_BAR, FF_BAR_VOLUME, FF_CORRECTION
    enum:
        FF_SNAPSHOT, FF_LAST_LEVEL, FF_AFTER_GAP, FF_DUPLICATE, FF_NOT_LAST, FF_SELL
    ctypedef struct ff_tick:
        uint32_t symbol_id
        uint8_t kind
        uint8_t flags
        uint16_t source
        int64_t seq
        int64_t event_ns
        int64_t recv_ns
        double value[4]
    ctypedef struct ff_row:
        uint32_t symbol_id
        uint8_t status
        uint8_t flags
        uint32_t version
        uint32_t conflated
        double bid
        double bid_size
        double ask
        double ask_size
        double last
        double last_size
        int64_t event_ns
        int64_t recv_ns
        int64_t seq
        uint64_t updates
        int64_t quote_seq
        int64_t quote_event_ns
        int64_t trade_seq
        int64_t trade_event_ns


cdef class Clock:
    cdef bint is_manual
    cdef int64_t manual_mono_ns
    cdef int64_t manual_utc_ns
    cdef int64_t offset_ns
    cdef int64_t offset_read_ns
    # Both clocks at once.
    cdef void now(self, int64_t* mono_ns, int64_t* utc_ns) noexcept nogil
    cdef int64_t mono(self) noexcept nogil
    cdef int64_t utc(self) noexcept nogil


cdef class Program:
    cdef void* _program
    cdef list _kept
    cdef readonly uint32_t priced


cdef class PriceTable:
    cdef void* _table
    cdef void* _symbols
    cdef void* _liveness
    cdef void* _legs  # two more, one per leg, once a decoder arbitrates
    cdef Clock _clock
    cdef readonly tuple channels
    cdef list _names
    cdef uint32_t _id(self, str symbol) except? 0xFFFFFFFF
    cdef int _channel(self, channel) except -1
    cdef void* _of_leg(self, leg) except NULL
    cdef int _open_legs(self) except -1
    # One torn-free row, from any thread; False if there is no such symbol.
    cdef bint row(self, uint32_t symbol_id, ff_row* out) noexcept nogil
    # May this symbol's price be acted on now? max_age_ns in nanoseconds; channel -1: every required one.
    cdef bint fresh_row(self, uint32_t symbol_id, int64_t max_age_ns, int channel) noexcept nogil


cdef class PriceReader:
    cdef void* _reader
    cdef PriceTable _prices
    cdef int64_t _max_age_ns
    cdef object _held
    cdef Py_buffer _view
    cdef int _hold(self, out) except -1
    cdef uint32_t _into(self, out, uint64_t room) except? 0xFFFFFFFF
    # Up to `room` changed rows into `out`; how many.
    cdef uint32_t next_rows(self, ff_row* out, uint32_t room) noexcept nogil


cdef class TickRing:
    cdef void* _ring


cdef class TickReader:
    cdef void* _reader
    cdef TickRing _owner
    # The next tick, in order; False if there is none yet.
    cdef bint next_tick(self, ff_tick* out) noexcept nogil


cdef class Decoder:
    cdef void* _decoder
    cdef void* _reply  # what replies are read with, once one was
    cdef Program _program
    cdef readonly PriceTable prices
    cdef readonly TickRing ring
    cdef readonly Clock clock
    cdef readonly object schema
    # Decode one frame. `readable` bytes after it may be read and, for the call, written. `text`: it is a TEXT frame,
    # so JSON whatever the schema's encoding. Its verdict: 0 unknown, 1 control, 2 data, 3 malformed. Of frames that
    # came together the ticks may wait for `flush`.
    cdef int frame(
        self, char* payload, Py_ssize_t size, Py_ssize_t readable, int64_t recv_ns, int64_t mono_ns, uint16_t source,
        bint text,
    ) noexcept nogil
    cdef void flush(self) noexcept nogil
    # Were there control messages in the frame just decoded? These, as bytes.
    cdef bint spoke(self) noexcept nogil
    cdef list controls(self)
    cdef dict _leg_worth(self, int leg)
    cdef list _lanes(self, str symbol, channel)
    cdef tuple _missing(self, list lanes)
    cdef object _released(self, str outcome, list lanes)
    cdef object _ended(self, list lanes)
    cdef int _splice(self, list lanes, str symbol, payload, schema, int64_t recv_ns) except -1
    cdef Py_ssize_t _lane_for(self, list lanes, int kind) except -2
