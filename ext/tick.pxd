"""The record that flows through every other room: one tick, one cache line, declared in fastfeed.h.

Declarations only; whoever fills a tick sets every field, there is no constructor.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    SECOND_NS = 1_000_000_000

cdef extern from "fastfeed.h" nogil:
    enum:
        FF_QUOTE, FF_TRADE, FF_LEVEL, FF_MARK, FF_BAR, FF_BAR_VOLUME, FF_CORRECTION, FF_CONTROL
    enum:
        FF_SNAPSHOT, FF_LAST_LEVEL, FF_AFTER_GAP, FF_DUPLICATE, FF_NOT_LAST, FF_SELL
    enum:
        FF_NO_DATA, FF_LIVE, FF_QUIET, FF_SUSPECT, FF_STALE, FF_RECOVERING, FF_CLOSED
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
