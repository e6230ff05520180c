# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, embedsignature=True, freethreading_compatible=True
"""The handles Python holds on the machine room: Clock, Program, PriceTable, TickRing, their readers, Decoder.

Thin: every handle owns one struct of a header and turns status codes into exceptions, arrays and dicts. No asyncio, no
logging, no provider. Without the interpreter's lock, whatever changes a table holds the lock of that PriceTable object
(the critical sections below, nothing elsewhere), a reader its own; reading prices takes none.
"""

import os
from collections.abc import Sequence

import numpy

from fastfeed.errors import ConfigError, DecodeError
from fastfeed.records import MARK_DTYPE, PRICE_DTYPE, TICK_DTYPE, TICK_DTYPE_PLAIN, Gap, Spliced

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strcmp
from libc.stddef cimport size_t

from binary cimport binary_frame
from decoder cimport decoder, decoder_close, decoder_flush, decoder_open
from frame cimport frame_batch, frame_copied, frame_in_place, frame_led
from histogram cimport histogram_quantile
from json cimport json_frame
from layout cimport FIELD_SEQ, FIELD_SIDE, FIELD_TIME, ff_fields, layout_choice, layout_kernels
from message cimport message_most, message_scale
from msgpack cimport msgpack_frame
from order cimport (
    order_expect_frame, order_get8, order_get64, order_load32, order_load64, order_scan8, order_scan64, order_set32,
    order_set64,
)
from liveness cimport (
    REQUIRED, liveness, liveness_age, liveness_at, liveness_close, liveness_forget, liveness_mask, liveness_oldest,
    liveness_open, liveness_sweep,
)
from ring cimport (
    ring, ring_attach, ring_close, ring_detach, ring_open, ring_pending, ring_publish, ring_read, ring_reader,
    ring_received, ring_unread,
)
from scan cimport FF_PADDING
from schema cimport (
    ENCODING_BINARY, ENCODING_MSGPACK, MATCH_NUMBER, MATCH_STRING, NO_NODE, UNIT_NS, binary, binary_item, binary_part,
    binary_record, binary_step, program, schema_conditions, schema_each, schema_field, schema_hash, schema_key,
    schema_match, schema_message, schema_node,
)
from slots cimport MALFORMED, slots, slots_close
from sequence cimport SEQUENCE_CONTIGUOUS, SEQUENCE_LINKED, SEQUENCE_RANGE, SEQUENCE_RISING, sequence
from splice cimport OVERFLOWED, REPAIRED, TOO_OLD, UNREADABLE, splice_depth, splice_last, splice_trade
from streams cimport GAPS, SOURCES, gap
from symbols cimport (
    NO_SYMBOL, symbols, symbols_alias, symbols_close, symbols_find, symbols_intern, symbols_key, symbols_open,
)
from table cimport (
    table, table_add, table_attach, table_close, table_copy, table_detach, table_drain, table_judge, table_mark,
    table_open, table_pending, table_reader, table_ready,
)
from tick cimport FF_CONTROL, FF_LEVEL, FF_QUOTE, FF_SNAPSHOT, FF_TRADE
from tick cimport ff_row as row_t
from tick cimport ff_tick as tick_t
from watch cimport (
    watch, watch_arbitrate, watch_deadline, watch_expire, watch_hold, watch_leg, watch_message_of, watch_missing,
    watch_open, watch_release, watch_single,
)


cdef extern from "time.h" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* t)
    enum:
        CLOCK_MONOTONIC, CLOCK_REALTIME

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define FF_FREE_THREADED 1
    #else
    #define FF_FREE_THREADED 0
    #endif
    """
    const bint FF_FREE_THREADED

cdef extern from "Python.h":
    # The same as Cython's own, of references that are borrowed.
    PyObject** PySequence_Fast_ITEMS(object frames)
    Py_ssize_t PySequence_Fast_GET_SIZE(object frames)
    bint ff_is_bytes "PyBytes_CheckExact"(PyObject* frame)
    const char* ff_bytes "PyBytes_AS_STRING"(PyObject* frame)
    Py_ssize_t ff_bytes_size "PyBytes_GET_SIZE"(PyObject* frame)

cdef extern from *:
    """
    #include <stddef.h>
    #include "fastfeed.h"
    typedef struct { const char *name; size_t offset; } ff_place;
    static const ff_place ff_tick_layout[] = {
        {"symbol_id", offsetof(ff_tick, symbol_id)}, {"kind", offsetof(ff_tick, kind)},
        {"flags", offsetof(ff_tick, flags)}, {"source", offsetof(ff_tick, source)},
        {"seq", offsetof(ff_tick, seq)}, {"event_ns", offsetof(ff_tick, event_ns)},
        {"recv_ns", offsetof(ff_tick, recv_ns)}, {"value", offsetof(ff_tick, value)},
        {NULL, sizeof(ff_tick)}};
    static const ff_place ff_row_layout[] = {
        {"symbol_id", offsetof(ff_row, symbol_id)}, {"status", offsetof(ff_row, status)},
        {"flags", offsetof(ff_row, flags)}, {"version", offsetof(ff_row, version)},
        {"conflated", offsetof(ff_row, conflated)}, {"bid", offsetof(ff_row, bid)},
        {"bid_size", offsetof(ff_row, bid_size)}, {"ask", offsetof(ff_row, ask)},
        {"ask_size", offsetof(ff_row, ask_size)}, {"last", offsetof(ff_row, last)},
        {"last_size", offsetof(ff_row, last_size)}, {"event_ns", offsetof(ff_row, event_ns)},
        {"recv_ns", offsetof(ff_row, recv_ns)}, {"seq", offsetof(ff_row, seq)},
        {"updates", offsetof(ff_row, updates)}, {"quote_seq", offsetof(ff_row, quote_seq)},
        {"quote_event_ns", offsetof(ff_row, quote_event_ns)}, {"trade_seq", offsetof(ff_row, trade_seq)},
        {"trade_event_ns", offsetof(ff_row, trade_event_ns)}, {NULL, sizeof(ff_row)}};
    """
    ctypedef struct ff_place:
        const char* name
        size_t offset
    const ff_place* ff_tick_layout
    const ff_place* ff_row_layout


cdef inline int64_t _now(int which) noexcept nogil:
    cdef timespec t
    clock_gettime(which, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


cdef int64_t _age_ns(double max_age) noexcept:
    """Seconds as nanoseconds.

    What no age can be within (NaN, negative) becomes -1, what every age is within the largest.
    """
    if not max_age >= 0:
        return -1
    return <int64_t>(max_age * 1e9) if max_age < 9e9 else 0x7FFFFFFFFFFFFFFF


cdef class Clock:
    """The two clocks everything compiled reads: monotonic (ages, freshness) and UTC (records). Nanoseconds.

    `Clock()` is the machine's; `Clock.manual(mono_ns=, utc_ns=)` stands still until told, for tests and replay.
    """

    @staticmethod
    def manual(*, int64_t mono_ns=1_000_000_000, int64_t utc_ns=1_700_000_000_000_000_000):
        """A clock that moves only by `advance` and `step_utc`."""
        cdef Clock clock = Clock()
        clock.is_manual = True
        clock.manual_mono_ns = mono_ns
        clock.manual_utc_ns = utc_ns
        return clock

    def advance(self, int64_t ns):
        """Move both clocks on."""
        self._check_manual()
        self.manual_mono_ns += ns
        self.manual_utc_ns += ns

    def step_utc(self, int64_t ns):
        """Step the wall clock alone, as an administrator or NTP would."""
        self._check_manual()
        self.manual_utc_ns += ns

    def mono_ns(self):
        """The monotonic clock."""
        return self.mono()

    def utc_ns(self):
        """UTC, since the epoch."""
        return self.utc()

    def _check_manual(self):
        if not self.is_manual:
            raise ConfigError("only a Clock.manual() can be moved")

    cdef void now(self, int64_t* mono_ns, int64_t* utc_ns) noexcept nogil:
        # UTC is the monotonic clock plus an offset that is looked up again every millisecond: one system clock is
        # read instead of two, and a stepped wall clock is noticed that soon.
        mono_ns[0] = self.mono()
        if self.is_manual or not 0 <= mono_ns[0] - <int64_t>order_get64(&self.offset_read_ns) < 1000000:
            order_set64(&self.offset_read_ns, mono_ns[0])
            order_set64(&self.offset_ns, self.utc() - mono_ns[0])
        utc_ns[0] = mono_ns[0] + <int64_t>order_get64(&self.offset_ns)

    cdef int64_t mono(self) noexcept nogil:
        return self.manual_mono_ns if self.is_manual else _now(CLOCK_MONOTONIC)

    cdef int64_t utc(self) noexcept nogil:
        return self.manual_utc_ns if self.is_manual else _now(CLOCK_REALTIME)


cdef class Program:
    """A compiled schema: what `Schema.program` gives and a `Decoder` runs.

    Immutable; shared by any number of decoders.
    """

    def __cinit__(
        self, list nodes, list messages, int count, envelope, int channels, bint positional, int encoding, dict records,
        list plain, condition, list conditions,
    ):
        cdef program* p = <program*>calloc(1, sizeof(program))
        cdef Py_ssize_t i
        if p == NULL:
            raise MemoryError
        self._program = p
        self._kept = []  # byte strings the structs point into
        p.n_nodes = len(nodes)
        p.n_messages = p.n_streams = count
        p.n_compiled = len(messages)
        p.n_channels = channels
        p.envelope = NO_NODE if envelope is None else envelope
        p.positional = positional
        p.encoding = encoding
        p.plain = _text(self._kept, b"".join(text + b"\0" for text in plain))
        p.plains = len(plain)
        p.nodes = <schema_node*>calloc(p.n_nodes, sizeof(schema_node))
        p.messages = <schema_message*>calloc(p.n_compiled, sizeof(schema_message))
        if p.nodes == NULL or p.messages == NULL:
            raise MemoryError
        p.condition = NO_NODE if condition is None else condition
        p.conditions = <schema_conditions*>calloc(len(conditions) + 1, sizeof(schema_conditions))
        if p.conditions == NULL:
            raise MemoryError
        for i in range(len(conditions)):
            p.n_conditions += 1
            _conditions(&p.conditions[i], conditions[i], self._kept)
        for i in range(p.n_nodes):
            _node(&p.nodes[i], nodes[i], self._kept)
            p.matched[i] = nodes[i]["matched"]
        for i in range(p.n_compiled):
            _message(&p.messages[i], messages[i], self._kept)
            if p.messages[i].kind == FF_QUOTE or p.messages[i].kind == FF_TRADE:
                self.priced |= <uint32_t>1 << p.messages[i].channel
        if records is not None:
            p.binary = <binary*>calloc(1, sizeof(binary))
            if p.binary == NULL:
                raise MemoryError
            _binary(p.binary, records)

    def __dealloc__(self):
        cdef program* p = <program*>self._program
        cdef Py_ssize_t i
        if p == NULL:
            return
        for i in range(p.n_nodes if p.nodes != NULL else 0):
            free(p.nodes[i].keys)
            free(p.nodes[i].indexes)
        for i in range(p.n_compiled if p.messages != NULL else 0):
            free(p.messages[i].matches)
            free(p.messages[i].fields)
            free(p.messages[i].each)
        if p.binary != NULL:
            free(p.binary.items)
            free(p.binary.steps)
            free(p.binary.parts)
            free(p.binary.records)
            free(p.binary.columns)
        for i in range(p.n_conditions):
            free(p.conditions[i].others)
        free(p.conditions)
        free(p.binary)
        free(p.nodes)
        free(p.messages)
        free(p)


cdef const char* _text(list kept, bytes text):
    """The bytes, kept as long as the program, with enough behind them for a wide load."""
    cdef bytes padded = text + b"\0" * FF_PADDING
    kept.append(padded)
    return PyBytes_AS_STRING(padded)


cdef int _node(schema_node* n, dict source, list kept) except -1:
    cdef list positions = source["positions"]
    cdef Py_ssize_t i
    n.end = source["end"]
    if source["level"] is not None:
        n.levels = True
        n.level_root, n.level_price, n.level_size, n.level_pairs = source["level"]
    if positions:
        n.indexes = <uint16_t*>calloc(len(positions), sizeof(uint16_t))
        if n.indexes == NULL:
            raise MemoryError
        n.positions = len(positions)
        for i in range(n.positions):
            n.indexes[i] = NO_NODE if positions[i] is None else positions[i]
    n.conditions = source["conditions"]
    if source["keys"]:
        _keys(n, source["keys"], kept)
    return 0


cdef int _conditions(schema_conditions* c, tuple source, list kept) except -1:
    """Of (whether texts are read byte by byte, the conditions that leave the last price alone)."""
    cdef schema_match* other
    cdef tuple found
    c.chars, found = source
    c.others = <schema_match*>calloc(len(found), sizeof(schema_match))
    if c.others == NULL:
        raise MemoryError
    for one in found:
        if isinstance(one, bytes) and len(one) == 1:
            c.letters[one[0] >> 6] |= <uint64_t>1 << (one[0] & 63)
            continue
        other = &c.others[c.n_others]
        c.n_others += 1
        if isinstance(one, bytes):
            other.type = MATCH_STRING
            other.text = _text(kept, one)
            other.size = len(one)
        else:
            other.type = MATCH_NUMBER
            other.number = one
    return 0


cdef int _keys(schema_node* n, list keys, list kept) except -1:
    """A perfect hash: multipliers are tried until no two keys meet; the table grows when too many fail."""
    cdef uint64_t multiplier = <uint64_t>0x9E3779B97F4A7C15
    cdef schema_key key
    cdef int bits = max(1, (2 * len(keys) - 1).bit_length())
    cdef int tries = 0
    cdef uint64_t at
    cdef bytes name
    while True:
        n.keys = <schema_key*>calloc(<size_t>1 << bits, sizeof(schema_key))
        if n.keys == NULL:
            raise MemoryError
        for name, node in keys:
            key.text = _text(kept, name)
            key.size = len(name)
            key.node = node
            key.head = int.from_bytes(name[:8], "little")
            key.tail = int.from_bytes(name[len(name) - 8:], "little") if len(name) > 8 else 0
            at = (schema_hash(key.head, key.tail, key.size) * multiplier) >> (64 - bits)
            if n.keys[at].size:
                break
            n.keys[at] = key
        else:
            n.multiplier = multiplier
            n.shift = 64 - bits
            return 0
        free(n.keys)
        n.keys = NULL
        multiplier = (multiplier * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407) | 1
        tries += 1
        if tries % 64 == 0:
            bits += 1
        if bits > 16:
            raise ConfigError(
                f"keys {[k for k, _ in keys]!r} cannot be told apart by length and first and last eight bytes"
            )


cdef int _message(schema_message* m, dict source, list kept) except -1:
    cdef Py_ssize_t i
    cdef list matches = source["matches"], fields = source["fields"], each = source["each"]
    m.kind = source["kind"]
    m.flags = source["flags"]
    m.rule = source["rule"]
    m.channel = source["channel"]
    m.stream = source["stream"]
    m.unit = source["unit"]
    if m.unit <= UNIT_NS:
        m.time_scale = message_scale(m.unit, 0)
        m.time_most = message_most(m.time_scale)
    m.symbol_until = source["until"]
    m.symbol_upper = source["upper"]
    m.plain = not m.symbol_until and not m.symbol_upper
    if source["sell"] is not None:
        m.sell = _text(kept, source["sell"])
        m.sell_size = len(source["sell"])
    if source["null"]:
        m.null_text = _text(kept, b"".join(text + b"\0" for text in source["null"]))
        m.null_texts = len(source["null"])
    m.conditions = source["conditions"]
    m.spares = source["spares"]
    m.whole = source["whole"]
    m.shares = source["shares"]
    m.counts = source["counts"]
    m.matches = <schema_match*>calloc(len(matches) + 1, sizeof(schema_match))
    m.fields = <schema_field*>calloc(len(fields) + 1, sizeof(schema_field))
    m.each = <schema_each*>calloc(len(each) + 1, sizeof(schema_each))
    if m.matches == NULL or m.fields == NULL or m.each == NULL:
        raise MemoryError
    m.n_matches, m.n_fields, m.n_each = len(matches), len(fields), len(each)
    for i in range(m.n_matches):
        m.matches[i].node, m.matches[i].type, text, m.matches[i].number = matches[i]
        m.matches[i].text = _text(kept, text)
        m.matches[i].size = len(text)
    for i in range(m.n_fields):
        m.fields[i].node, m.fields[i].field, m.fields[i].action = fields[i]
        m.plain = m.plain and m.fields[i].field != FIELD_SIDE and (m.time_scale or m.fields[i].field != FIELD_TIME)
    m.straight = m.kind == FF_QUOTE and m.rule == SEQUENCE_RISING and not m.shares
    for i in range(m.n_each):
        m.each[i].node, m.each[i].root = each[i]
    return 0


cdef int _binary(binary* b, dict source) except -1:
    cdef list items = source["items"], records = source["records"], columns = source["columns"]
    cdef list parts = source["parts"], steps = source["steps"]
    cdef binary_item* item
    cdef binary_step* step
    cdef Py_ssize_t i
    b.n_columns = source["width"]
    b.n_records = len(records)
    b.header, b.header_parts, b.is_plain = source["header"]
    b.count = source["count"]
    b.select, b.length, b.block, b.version = source["registers"]
    b.newest = source["newest"]
    b.is_big = source["is_big"]
    b.items = <binary_item*>calloc(len(items), sizeof(binary_item))
    b.records = <binary_record*>calloc(b.n_records, sizeof(binary_record))
    b.columns = <uint16_t*>calloc(len(columns), sizeof(uint16_t))
    b.parts = <binary_part*>calloc(len(parts), sizeof(binary_part))
    b.steps = <binary_step*>calloc(len(steps) + 1, sizeof(binary_step))
    if b.items == NULL or b.records == NULL or b.columns == NULL or b.parts == NULL or b.steps == NULL:
        raise MemoryError
    for i in range(len(columns)):
        b.columns[i] = columns[i]
    for i in range(b.n_records):
        b.records[i].id, b.records[i].first, b.records[i].items = records[i]["shape"]
        b.records[i].message, b.records[i].grouped, b.records[i].present = records[i]["bound"]
        b.records[i].first_part, b.records[i].parts = records[i]["parts"]
    for i in range(len(parts)):
        b.parts[i].size, b.parts[i].first, b.parts[i].steps, b.parts[i].tail = parts[i]
    for i in range(len(steps)):
        step = &b.steps[i]
        step.operation, step.shift, step.has_sign, step.kept, step.scale, step.field = steps[i]["what"]
        step.item, step.offset, step.exponent = steps[i]["where"]
    for i in range(len(items)):
        item = &b.items[i]
        item.type, item.size, item.prefix, item.block, item.column, item.first, item.items = items[i]["shape"]
        item.kept, item.scale, item.scaled, item.exponent = items[i]["number"]
        item.field, item.action = items[i]["bound"]
        item.first_step, item.steps, item.present = items[i]["steps"]
        item.has_text = items[i]["has_text"]
        item.nullable = items[i]["null"] is not None
        item.null = items[i]["null"] or 0
    return 0


cdef class _Memory:
    """Lends a span of someone's memory as a read-only buffer, keeping its owner alive."""

    cdef void* start
    cdef Py_ssize_t size
    cdef object owner

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.start, self.size, True, flags)


cdef object _lend(void* start, Py_ssize_t size, object owner, object dtype):
    cdef _Memory memory = _Memory()
    memory.start = start
    memory.size = size
    memory.owner = owner
    return numpy.frombuffer(memory, dtype)


cdef class _Name:
    """A symbol's UTF-8 bytes, padded for the machine room (scan.h)."""

    cdef char small[128]
    cdef bytes large
    cdef const char* text
    cdef uint32_t size

    cdef bint set(self, str symbol) except -1:
        cdef Py_ssize_t n
        cdef const char* s = PyUnicode_AsUTF8AndSize(symbol, &n)
        self.size = <uint32_t>n
        if n + FF_PADDING <= 128:
            memcpy(self.small, s, n)
            memset(self.small + n, 0, FF_PADDING)
            self.text = self.small
        else:
            self.large = s[:n] + b"\0" * FF_PADDING
            self.text = PyBytes_AS_STRING(self.large)
        return True


cdef inline uint32_t _find(PriceTable prices, str symbol) except? 0xFFFFFFFF:
    """Its id; NO_SYMBOL too while its row has not begun."""
    cdef uint32_t found = _named(<symbols*>prices._symbols, symbol)
    return found if found < order_load32(&(<table*>prices._table).count) else <uint32_t>NO_SYMBOL


cdef inline uint32_t _named(symbols* s, str symbol) except? 0xFFFFFFFF:
    cdef char small[64 + 64]
    cdef Py_ssize_t n
    cdef const char* text = PyUnicode_AsUTF8AndSize(symbol, &n)
    cdef _Name name
    if n <= 64:
        memcpy(small, text, n)
        memset(small + n, 0, 16)
        return symbols_find(s, small, <uint32_t>n)
    name = _Name()
    name.set(symbol)
    return symbols_find(s, name.text, name.size)


class _Symbols(Sequence):
    """A live view: symbol_id -> symbol, growing as symbols appear. Never shrinks or reorders."""

    __slots__ = ("_names", "_prices")

    def __init__(self, prices, names):
        self._prices = prices
        self._names = names

    def __len__(self):
        return len(self._prices)

    def __getitem__(self, index):
        self._prices._catch_up()
        return self._names[index]

    def __contains__(self, symbol):
        return symbol in self._prices

    def __repr__(self):
        return f"<{len(self)} symbols>"


cdef inline bint _fresh(
    const table* t, const liveness* l, uint32_t symbol_id, int64_t max_age_ns, int channel, int64_t now
) noexcept nogil:
    cdef int64_t age
    if order_get8(&t.doubtful[symbol_id]):
        return False
    age = liveness_age(l, symbol_id, channel, now) if channel >= 0 else liveness_oldest(l, symbol_id, now)
    return 0 <= age <= max_age_ns


cdef class PriceTable:
    """The latest prices: one row per symbol, updated in place, with the freshness of every channel.

    Made by a `Decoder`. Rows never move, so views stay valid; a view of `array` has as many rows as there were symbols
    when it was taken.
    """

    def __cinit__(self, Program compiled, tuple channels, uint32_t max_symbols, Clock clock):
        cdef program* p = <program*>compiled._program
        self.channels = channels
        self._clock = clock
        self._names = []
        self._table = calloc(1, sizeof(table))
        self._symbols = calloc(1, sizeof(symbols))
        self._liveness = calloc(1, sizeof(liveness))
        if self._table == NULL or self._symbols == NULL or self._liveness == NULL:
            raise MemoryError
        if not (table_open(<table*>self._table, max_symbols) and symbols_open(<symbols*>self._symbols, max_symbols)
                and liveness_open(<liveness*>self._liveness, max_symbols, p.n_channels, compiled.priced)):
            raise MemoryError
        (<table*>self._table).shared = FF_FREE_THREADED

    def __dealloc__(self):
        if self._table != NULL:
            table_close(<table*>self._table)
        if self._symbols != NULL:
            symbols_close(<symbols*>self._symbols)
        if self._liveness != NULL:
            liveness_close(<liveness*>self._liveness)
        if self._legs != NULL:
            liveness_close(<liveness*>self._legs)
            liveness_close(<liveness*>self._legs + 1)
        free(self._legs)
        free(self._table)
        free(self._symbols)
        free(self._liveness)

    def __len__(self):
        return order_load32(&(<table*>self._table).count)

    def __contains__(self, symbol):
        return isinstance(symbol, str) and _find(self, symbol) != NO_SYMBOL

    def __getitem__(self, str symbol):
        """One torn-free row as a numpy void of PRICE_DTYPE; KeyError for a symbol that never appeared."""
        cdef object row = numpy.empty((), PRICE_DTYPE)
        cdef Py_buffer view
        cdef uint32_t symbol_id = self._id(symbol)
        PyObject_GetBuffer(row, &view, PyBUF_WRITABLE)
        table_copy(<table*>self._table, symbol_id, <row_t*>view.buf)
        PyBuffer_Release(&view)
        return row[()]

    def __repr__(self):
        return f"<PriceTable of {len(self)} symbols, {self.updates} updates>"

    @property
    def array(self):
        """All rows: a read-only, zero-copy structured view, shape (symbols,), dtype PRICE_DTYPE, updated in place.

        A row read here while it is being written from another thread can be torn; `prices[symbol]` and readers never
        are.
        """
        cdef table* t = <table*>self._table
        return _lend(t.rows, order_load32(&t.count) * sizeof(row_t), self, PRICE_DTYPE)

    @property
    def marks(self):
        """The side table of mark prices: read-only view, shape (symbols,), dtype MARK_DTYPE, indexed by symbol_id."""
        cdef table* t = <table*>self._table
        return _lend(t.marks, order_load32(&t.count) * sizeof(table_mark), self, MARK_DTYPE)

    @property
    def symbols(self):
        """A live sequence: symbol_id -> symbol."""
        return _Symbols(self, self._names)

    @property
    def updates(self):
        """Ticks ever merged into a row."""
        return order_get64(&(<table*>self._table).updates)

    def id(self, str symbol):
        """The symbol's row number, or None."""
        cdef uint32_t symbol_id = _find(self, symbol)
        return None if symbol_id == NO_SYMBOL else symbol_id

    def is_fresh(self, str symbol, double max_age, channel=None):
        """May this price be acted on?

        False if unknown, too old, late by its event time, flagged after a gap, or of a doubtful status.

        `max_age` in seconds. Without `channel`, every price channel required of the symbol must be that fresh.
        """
        cdef uint32_t symbol_id = _find(self, symbol)
        if symbol_id == NO_SYMBOL:
            return False
        return self.fresh_row(symbol_id, _age_ns(max_age), -1 if channel is None else self._channel(channel))

    def fresh(self, double max_age, channel=None):
        """`is_fresh` for every symbol: a bool array, one element per row of `array`."""
        cdef table* t = <table*>self._table
        cdef uint32_t i, count = order_load32(&t.count)
        cdef object out = numpy.empty(count, numpy.bool_)
        cdef Py_buffer view
        cdef int64_t max_age_ns = _age_ns(max_age)
        cdef int64_t now = self._clock.mono()
        cdef int number = -1 if channel is None else self._channel(channel)
        cdef uint8_t* mask
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        mask = <uint8_t*>view.buf
        for i in range(count):
            mask[i] = order_scan8(&t.doubtful[i]) == 0
        if max_age_ns < 0:
            memset(mask, 0, count)
        liveness_mask(<liveness*>self._liveness, count, now, max_age_ns, number, mask)
        PyBuffer_Release(&view)
        return out

    def ages(self, channel=None):
        """Seconds since the newest data of each symbol, lateness included, float64; NaN: never.

        Without `channel`, of the least fresh required one.
        """
        cdef uint32_t i, count = order_load32(&(<table*>self._table).count)
        cdef object out = numpy.empty(count, numpy.float64)
        cdef Py_buffer view
        cdef int number = -1 if channel is None else self._channel(channel)
        cdef int64_t now = self._clock.mono()
        cdef int64_t age
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        for i in range(count):
            if number < 0:
                age = liveness_oldest(<liveness*>self._liveness, i, now)
            else:
                age = liveness_age(<liveness*>self._liveness, i, number, now)
            (<double*>view.buf)[i] = <double>age / 1e9 if age >= 0 else float("nan")
        PyBuffer_Release(&view)
        return out

    def arrived(self, channel not None, leg=None):
        """When each symbol's newest data of a channel came in, on the monotonic clock (ns, int64 array); 0: never.

        `leg` (0 or 1): by that leg, first or second, since the decoder began to arbitrate.
        """
        cdef uint32_t i, count = order_load32(&(<table*>self._table).count)
        cdef object out = numpy.empty(count, numpy.int64)
        cdef Py_buffer view
        cdef int number = self._channel(channel)
        cdef liveness* of = <liveness*>self._of_leg(leg)
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        for i in range(count):
            (<int64_t*>view.buf)[i] = order_scan64(&liveness_at(of, i, number).mono_ns)
        PyBuffer_Release(&view)
        return out

    def usual_gaps(self, channel not None):
        """The learned 99th percentile of each symbol's inter-arrival times on a channel (s); NaN until two arrivals."""
        cdef uint32_t i, count = order_load32(&(<table*>self._table).count)
        cdef object out = numpy.empty(count, numpy.float64)
        cdef Py_buffer view
        cdef int number = self._channel(channel)
        cdef int64_t usual_ns
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        for i in range(count):
            usual_ns = order_scan64(&liveness_at(<liveness*>self._liveness, i, number).usual_ns)
            (<double*>view.buf)[i] = <double>usual_ns / 1e9 if usual_ns else float("nan")
        PyBuffer_Release(&view)
        return out

    def sweep(
        self, channel not None, *, threshold=None, double factor=4.0, double floor=1.0, double ceiling=60.0, leg=None,
    ):
        """What has changed on a channel since the last sweep: (ids fallen silent, ids heard again), two lists.

        Silent is longer than `threshold` seconds without data, or, without one, than `factor` times the symbol's own
        usual gap, kept between `floor` and `ceiling`. What has never been heard is neither.

        `leg` (0 or 1): what that leg brings, so that a mute leg shows although the other keeps the prices fresh. Each
        leg's silence is remembered apart.
        """
        cdef uint32_t i
        cdef int number = self._channel(channel)
        cdef int changed
        cdef int64_t now = self._clock.mono()
        cdef int64_t fixed_ns = 0 if threshold is None else max(1, _age_ns(threshold))
        cdef int64_t floor_ns = _age_ns(floor)
        cdef int64_t ceiling_ns = _age_ns(ceiling)
        cdef list silent = [], heard = []
        cdef liveness* of = <liveness*>self._of_leg(leg)
        for i in range(order_load32(&(<table*>self._table).count)):
            with cython.critical_section(self):
                changed = liveness_sweep(of, i, number, now, fixed_ns, factor, floor_ns, ceiling_ns)
            if changed > 0:
                silent.append(i)
            elif changed < 0:
                heard.append(i)
        return silent, heard

    def forget(self, str symbol, channel not None):
        """The channel's past arrivals no longer vouch for the symbol: not fresh until it delivers again."""
        cdef uint32_t symbol_id = self._id(symbol)
        cdef int number = self._channel(channel)
        with cython.critical_section(self):
            liveness_forget(<liveness*>self._liveness, symbol_id, number)

    def require(self, str symbol, channels):
        """From now on all these channels must be fresh for the symbol to be.

        Channels that carry no prices do not count.
        """
        cdef uint32_t mask = 0
        cdef uint32_t symbol_id
        for channel in channels:
            mask |= <uint32_t>1 << self._channel(channel)
        mask &= (<liveness*>self._liveness).priced
        symbol_id = self._id(symbol)
        with cython.critical_section(self):
            order_set32(&(<liveness*>self._liveness).wanted[symbol_id], mask | <uint32_t>REQUIRED)

    def set_status(self, str symbol, int status):
        """Set what the symbol's prices are worth; the next tick makes it LIVE again."""
        if not 0 <= status <= 6:
            raise ConfigError(f"status {status!r}: use a fastfeed.Status")
        cdef table* t = <table*>self._table
        cdef uint32_t symbol_id = self._id(symbol)
        with cython.critical_section(self):
            table_judge(t, symbol_id, <uint8_t>status, t.rows[symbol_id].flags)

    def repaired(self, str symbol):
        """The gap of this symbol has been dealt with: clear AFTER_GAP on its row."""
        cdef table* t = <table*>self._table
        cdef uint32_t symbol_id = self._id(symbol)
        with cython.critical_section(self):
            table_judge(t, symbol_id, t.rows[symbol_id].status, 0)
            t.shaken = 0

    def set_clock_offset(self, double seconds):
        """This machine's clock minus the provider's, taken off every event-time lag."""
        with cython.critical_section(self):
            (<liveness*>self._liveness).offset_ns = <int64_t>(seconds * 1e9)

    def reader(self, max_age=None, *, shared=False):
        """A consumer with a cursor of its own, starting at the present.

        `max_age` (seconds): older rows are dropped, counted.

        `shared`: compiled code will drain it without the interpreter's lock while the decoder runs in another thread.
        Ask before the decoder starts; every tick then costs a full fence, about 20 cycles. A free-threaded interpreter
        always pays it.
        """
        return PriceReader(self, max_age, shared=shared)

    def _catch_up(self):
        cdef symbols* s = <symbols*>self._symbols
        cdef uint32_t i
        with cython.critical_section(self):
            for i in range(len(self._names), order_load32(&s.count)):
                self._names.append(PyUnicode_DecodeUTF8(s.entries[i].name, s.entries[i].size, NULL))

    cdef uint32_t _id(self, str symbol) except? 0xFFFFFFFF:
        cdef uint32_t symbol_id = _find(self, symbol)
        if symbol_id == NO_SYMBOL:
            raise KeyError(symbol)
        return symbol_id

    cdef int _channel(self, channel) except -1:
        if channel not in self.channels:
            raise ConfigError(f"unknown channel {channel!r}: use one of {', '.join(self.channels)}")
        return self.channels.index(channel)

    cdef void* _of_leg(self, leg) except NULL:
        if leg is None:
            return self._liveness
        if leg not in (0, 1):
            raise ConfigError(f"leg {leg!r}: use 0 or 1, or None for both together")
        if self._legs == NULL:
            raise ConfigError("there are no legs to tell apart: call Decoder.arbitrate(True) first")
        return <liveness*>self._legs + <int>leg

    cdef int _open_legs(self) except -1:
        cdef liveness* own = <liveness*>self._liveness
        cdef liveness* legs = <liveness*>self._legs
        if legs != NULL:
            return 0
        legs = <liveness*>calloc(2, sizeof(liveness))
        self._legs = legs
        if legs == NULL or not (liveness_open(legs, own.symbols, own.channels, own.priced)
                                and liveness_open(legs + 1, own.symbols, own.channels, own.priced)):
            raise MemoryError
        return 0

    cdef bint row(self, uint32_t symbol_id, ff_row* out) noexcept nogil:
        if symbol_id >= order_load32(&(<table*>self._table).count):
            return False
        table_copy(<table*>self._table, symbol_id, <row_t*>out)
        return True

    cdef bint fresh_row(self, uint32_t symbol_id, int64_t max_age_ns, int channel) noexcept nogil:
        if symbol_id >= order_load32(&(<table*>self._table).count):
            return False
        return _fresh(
            <table*>self._table, <liveness*>self._liveness, symbol_id, max_age_ns, channel, self._clock.mono()
        )


@cython.no_gc_clear  # its end looks at the table once more
cdef class PriceReader:
    """One consumer of a `PriceTable`: the newest row of every symbol that changed since it last read, each once."""

    def __cinit__(self, PriceTable prices not None, max_age=None, *, bint shared=False):
        cdef bint attached
        self._prices = prices
        self._max_age_ns = -1 if max_age is None else _age_ns(max_age)
        if max_age is not None and self._max_age_ns < 0:
            raise ConfigError(f"max_age={max_age!r}: give seconds, at least 0, or None")
        self._reader = calloc(1, sizeof(table_reader))
        if self._reader == NULL:
            raise MemoryError
        with cython.critical_section(prices):
            if shared:
                order_set32(&(<table*>prices._table).shared, True)
            attached = table_attach(<table*>prices._table, <table_reader*>self._reader)
        if not attached:
            raise MemoryError

    def __dealloc__(self):
        if self._reader != NULL:
            table_detach(<table*>self._prices._table, <table_reader*>self._reader)
        free(self._reader)
        if self._held is not None:
            PyBuffer_Release(&self._view)

    def close(self):
        """Release its memory; what it had not read counts as dropped. Idempotent."""
        with cython.critical_section(self, self._prices):
            table_detach(<table*>self._prices._table, <table_reader*>self._reader)

    @property
    def ready(self):
        """Has anything changed since the last read?"""
        cdef bint ready
        with cython.critical_section(self):
            ready = table_ready(<table*>self._prices._table, <table_reader*>self._reader)
        return ready

    def read(self):
        """An owned array of PRICE_DTYPE, one row per changed symbol, `conflated` being what this reader skipped of it.

        Empty if nothing changed.
        """
        cdef table_reader* c = <table_reader*>self._reader
        cdef table* t = <table*>self._prices._table
        cdef uint64_t room, count
        cdef object out
        cdef uint32_t n
        with cython.critical_section(self):
            count = order_load32(&t.count)
            room = order_load64(&t.log_head) - c.cursor if table_ready(t, c) else 0
            if room > count or (room == 0 and table_ready(t, c)):
                room = count  # the log has lapped this reader: any symbol may have changed
        out = numpy.empty(room, PRICE_DTYPE)
        n = self._into(out, room) if room else 0
        return out if n == room else out[:n].copy()

    def drain(self, out not None):
        """Like `read`, into the caller's contiguous PRICE_DTYPE array; how many rows.

        Call again while it comes back full. The first array given is held as long as the reader lives, so that draining
        into it again looks at nothing and allocates nothing.
        """
        cdef uint32_t n
        if out is self._held:
            with cython.critical_section(self):
                n = self.next_rows(<ff_row*>self._view.buf, <uint32_t>(self._view.len // <Py_ssize_t>sizeof(row_t)))
            return n
        if not isinstance(out, numpy.ndarray):
            raise TypeError(f"drain needs a numpy array, not {type(out).__name__}")
        if out.dtype != PRICE_DTYPE or len(out) == 0:
            raise ConfigError(
                f"drain needs a contiguous array of PRICE_DTYPE with room for a row, not {out.dtype} of {len(out)}"
            )
        n = self._into(out, len(out))
        self._hold(out)
        return n

    def ledger(self):
        """`received == delivered + conflated + dropped + pending`, each counted where it happens, in table updates."""
        cdef table_reader c
        cdef table* t = <table*>self._prices._table
        cdef uint64_t received, pending
        with cython.critical_section(self, self._prices):
            c = (<table_reader*>self._reader)[0]
            pending = table_pending(t, &c, &received)
        return {
            "received": received, "delivered": c.delivered, "conflated": c.conflated, "dropped": c.dropped,
            "pending": pending,
        }

    cdef int _hold(self, out) except -1:
        cdef Py_buffer view
        cdef bint kept
        if self._held is not None:
            return 0
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        with cython.critical_section(self):
            kept = self._held is None
            if kept:  # once, and the view first
                memcpy(&self._view, &view, sizeof(Py_buffer))
                self._held = out
        if not kept:
            PyBuffer_Release(&view)
        return 0

    cdef uint32_t _into(self, out, uint64_t room) except? 0xFFFFFFFF:
        cdef Py_buffer view
        cdef uint32_t n
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        with cython.critical_section(self):
            n = self.next_rows(<ff_row*>view.buf, <uint32_t>room)
        PyBuffer_Release(&view)
        return n

    cdef uint32_t next_rows(self, ff_row* out, uint32_t room) noexcept nogil:
        cdef int64_t oldest = -0x7FFFFFFFFFFFFFFF
        if self._max_age_ns >= 0:
            oldest = self._prices._clock.utc() - self._max_age_ns
        return table_drain(<table*>self._prices._table, <table_reader*>self._reader, <row_t*>out, room, oldest)


cdef class TickRing:
    """Every tick in order, the oldest overwritten.

    `capacity` is rounded up to a power of two; a tick takes 64 bytes.
    """

    def __cinit__(self, Py_ssize_t capacity=65536):
        cdef uint64_t room = 1
        if not 1 <= capacity <= 1 << 30:
            raise ConfigError(f"ring capacity {capacity!r}: use 1 to 2**30 ticks")
        while room < <uint64_t>capacity:
            room *= 2
        self._ring = calloc(1, sizeof(ring))
        if self._ring == NULL or not ring_open(<ring*>self._ring, room):
            raise MemoryError

    def __dealloc__(self):
        if self._ring != NULL:
            ring_close(<ring*>self._ring)
        free(self._ring)

    @property
    def capacity(self):
        """How many ticks it holds."""
        return (<ring*>self._ring).mask + 1

    @property
    def published(self):
        """Ticks ever written. A decoder writes only while there is a reader."""
        return order_load64(&(<ring*>self._ring).published)

    def publish(self, ticks not None):
        """Append a contiguous array of TICK_DTYPE (or TICK_DTYPE_PLAIN)."""
        cdef Py_buffer view
        cdef Py_ssize_t i
        if not isinstance(ticks, numpy.ndarray):
            raise TypeError(f"publish needs a numpy array, not {type(ticks).__name__}")
        if ticks.dtype not in (TICK_DTYPE, TICK_DTYPE_PLAIN):
            raise ConfigError(f"publish needs an array of TICK_DTYPE, not {ticks.dtype}")
        PyObject_GetBuffer(ticks, &view, PyBUF_SIMPLE)
        with cython.critical_section(self):
            for i in range(view.len // <Py_ssize_t>sizeof(tick_t)):
                ring_publish(<ring*>self._ring, <tick_t*>view.buf + i)
        PyBuffer_Release(&view)

    def reader(self):
        """A consumer of every tick from now on."""
        return TickReader(self)


@cython.no_gc_clear  # its end looks at the ring once more
cdef class TickReader:
    """One consumer of a `TickRing`. What is overwritten before it is read is lost to it, and counted in `lost`."""

    def __cinit__(self, TickRing owner not None):
        self._owner = owner
        self._reader = calloc(1, sizeof(ring_reader))
        if self._reader == NULL:
            raise MemoryError
        ring_attach(<ring*>owner._ring, <ring_reader*>self._reader)

    def __dealloc__(self):
        if self._reader != NULL:
            ring_detach(<ring*>self._owner._ring, <ring_reader*>self._reader)
        free(self._reader)

    def close(self):
        """Stop reading; what it had not read counts as dropped. Idempotent.

        With no reader left the decoder stops writing the ring.
        """
        with cython.critical_section(self):
            ring_detach(<ring*>self._owner._ring, <ring_reader*>self._reader)

    @property
    def ready(self):
        """Is there a tick to read?"""
        cdef bint ready
        with cython.critical_section(self):
            ready = ring_pending(<ring*>self._owner._ring, <ring_reader*>self._reader) > 0
        return ready

    @property
    def lost(self):
        """Ticks overwritten before this reader came to them."""
        cdef ring_reader* c = <ring_reader*>self._reader
        cdef uint64_t lost
        with cython.critical_section(self):
            lost = c.lapped + ring_unread(<ring*>self._owner._ring, c)
        return lost

    def read(self, max=None):
        """An owned array of TICK_DTYPE with the next ticks in order, at most `max`. Empty if there is none."""
        cdef ring_reader* c = <ring_reader*>self._reader
        cdef Py_buffer view
        cdef uint64_t n, room
        cdef object out
        with cython.critical_section(self):
            room = ring_pending(<ring*>self._owner._ring, c)
        if max is not None and max < 0:
            raise ConfigError(f"max={max!r}: give at least 0, or None for all")
        if max is not None and max < room:
            room = max
        out = numpy.empty(room, TICK_DTYPE)
        if room == 0:
            return out
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        with cython.critical_section(self):
            n = ring_read(<ring*>self._owner._ring, c, <tick_t*>view.buf, room)
        PyBuffer_Release(&view)
        return out if n == room else out[:n].copy()

    def ledger(self):
        """`received == delivered + conflated + dropped + pending`, in ticks; nothing is ever conflated here."""
        cdef ring_reader c
        cdef ring now
        with cython.critical_section(self):
            c = (<ring_reader*>self._reader)[0]
            # one look at the writer's count, or the terms would be of different moments
            now.mask = (<ring*>self._owner._ring).mask
            now.published = order_load64(&(<ring*>self._owner._ring).published)
        return {
            "received": ring_received(&now, &c), "delivered": c.delivered, "conflated": 0,
            "dropped": c.lapped + ring_unread(&now, &c), "pending": ring_pending(&now, &c),
        }

    cdef bint next_tick(self, ff_tick* out) noexcept nogil:
        return ring_read(<ring*>self._owner._ring, <ring_reader*>self._reader, <tick_t*>out, 1) == 1


cdef enum:
    FRAMES_AHEAD = 8  # about 0.4 us, what memory takes
    FRAMES_ROW = 256  # for which nobody else gets at the prices, some 10 us


cdef inline int _flush(Decoder self) except -1:
    """Make ticks of what waits: before other code may look."""
    with cython.critical_section(self.prices):
        decoder_flush(<decoder*>self._decoder)
    return 0


cdef inline uint64_t _ticks(Decoder self):
    """Ticks ever made, of what waits too: a caller further out may have begun with it."""
    _flush(self)
    return (<decoder*>self._decoder).ticks


cdef inline int _decode(Decoder self, payload, int64_t recv_ns, int64_t mono_ns, uint16_t source, bint text) except -1:
    cdef decoder* d = <decoder*>self._decoder
    cdef Py_buffer view
    if PyBytes_CheckExact(payload):
        with cython.critical_section(self.prices):
            frame_led(d, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), recv_ns, mono_ns, source, text)
        return 0
    if isinstance(payload, str):
        raise TypeError("decode takes the frame's bytes, not str: pass text.encode()")
    _flush(self)  # what is no bytes may have a say in its buffer
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    with cython.critical_section(self.prices):
        frame_copied(d, <const char*>view.buf, view.len, recv_ns, mono_ns, source, text)
    PyBuffer_Release(&view)
    return 0


cdef inline Py_ssize_t _decode_row(
    Decoder self, payloads, Py_ssize_t i, int64_t recv_ns, int64_t mono_ns, uint16_t source, bint text
):
    """The frames from place i of a list or tuple on while they are bytes, at most FRAMES_ROW; the place behind them."""
    cdef decoder* d = <decoder*>self._decoder
    cdef PyObject** frames
    cdef Py_ssize_t size, end
    with cython.critical_section(payloads, self.prices):
        frames = PySequence_Fast_ITEMS(payloads)
        size = PySequence_Fast_GET_SIZE(payloads)
        end = min(size, i + FRAMES_ROW)
        while i < end and ff_is_bytes(frames[i]):
            if i + FRAMES_AHEAD < size:
                order_expect_frame(frames[i + FRAMES_AHEAD])  # they lie anywhere; its header and its first 224 bytes
            frame_led(d, ff_bytes(frames[i]), ff_bytes_size(frames[i]), recv_ns, mono_ns, source, text)
            i += 1
    return i


cdef inline int64_t _let_out(const watch* w) noexcept:
    """A count that rises with every tick that splices and what was held bring to the ring."""
    return <int64_t>(w.spliced - w.superseded) - w.hold.used


cdef class Decoder:
    """Frames in, prices and ticks out; no network. `schema` is a `fastfeed.schema.Schema`."""

    def __cinit__(self, schema, *, ring_capacity=65536, max_symbols=65536, hold_ticks=65536, clock=None):
        cdef decoder* d
        if not 1 <= max_symbols <= 1 << 24:
            raise ConfigError(f"max_symbols={max_symbols!r}: use 1 to 2**24")
        if not 1 <= hold_ticks <= 1 << 24:
            raise ConfigError(f"hold_ticks={hold_ticks!r}: use 1 to 2**24")
        self._program = schema.program
        self.schema = schema
        self.clock = Clock() if clock is None else clock
        self.ring = TickRing(ring_capacity)
        self.prices = PriceTable(self._program, schema.channels, max_symbols, self.clock)
        d = <decoder*>calloc(1, sizeof(decoder))
        if d == NULL:
            raise MemoryError
        self._decoder = d
        if not decoder_open(
            d, <program*>self._program._program, <symbols*>self.prices._symbols, <table*>self.prices._table,
            <ring*>self.ring._ring, <liveness*>self.prices._liveness,
        ):
            raise MemoryError
        d.watch.hold_ticks = hold_ticks
        d.watch.patience_ns = 1000000000
        d.watch.lead_set = 1
        d.batch = frame_batch
        d.kernel = _kernel()[0]
        d.simd = _is_simd()

    def __dealloc__(self):
        if self._decoder != NULL:
            decoder_close(<decoder*>self._decoder)
        free(self._decoder)
        if self._reply != NULL:
            slots_close(<slots*>self._reply)
        free(self._reply)

    def decode(self, payload, recv_ns=None, uint16_t source=0, *, bint text=False):
        """Decode one frame (any contiguous buffer); how many ticks it made.

        Never raises for what the frame holds: that is counted.

        `recv_ns`: when it was received (UTC, ns), by default now. `source`: the number of the connection it came by.
        `text`: it came as a TEXT frame, which is JSON whatever the schema's encoding.
        """
        cdef uint64_t before = _ticks(self)
        cdef int64_t mono_ns, utc_ns
        self.clock.now(&mono_ns, &utc_ns)
        if recv_ns is not None:
            utc_ns = recv_ns
        _decode(self, payload, utc_ns, mono_ns, source, text)
        return _ticks(self) - before

    def decode_many(self, payloads, recv_ns=None, uint16_t source=0, *, bint text=False):
        """Decode frames that were received together; how many ticks they made. The rest is as for `decode`."""
        cdef uint64_t made, before = _ticks(self)
        cdef int64_t mono_ns, utc_ns
        cdef Py_ssize_t behind, i = 0
        self.clock.now(&mono_ns, &utc_ns)
        if recv_ns is not None:
            utc_ns = recv_ns
        try:
            if type(payloads) is list or type(payloads) is tuple:
                while i < len(payloads):
                    behind = _decode_row(self, payloads, i, utc_ns, mono_ns, source, text)
                    for payload in payloads[i:i + 1] if behind == i else ():  # none of a list that has got shorter
                        _decode(self, payload, utc_ns, mono_ns, source, text)
                    i = max(behind, i + 1)
            else:
                for payload in payloads:
                    _decode(self, payload, utc_ns, mono_ns, source, text)
                    _flush(self)  # whoever makes the next finds all of this one
        finally:
            made = _ticks(self) - before
        return made

    def add_symbol(self, str symbol not None):
        """Give a symbol its row before its first tick; its id.

        ConfigError if the table is full, the symbol empty, or an alias of another one.
        """
        cdef _Name name = _Name()
        cdef symbols* s = <symbols*>self.prices._symbols
        cdef uint32_t known, symbol_id
        cdef uint64_t key[2]
        name.set(symbol)
        symbols_key(key, name.text, name.size)
        with cython.critical_section(self.prices):
            known = s.count
            symbol_id = symbols_intern(s, key, name.text, name.size)
            if s.count != known:
                table_add(<table*>self.prices._table, symbol_id)
        if symbol_id == NO_SYMBOL:
            why = f"all {s.limit} are taken, raise max_symbols" if symbol else "it is empty"
            raise ConfigError(f"no row for symbol {symbol!r}: {why}")
        if self.prices.symbols[symbol_id] != symbol:
            other = self.prices.symbols[symbol_id]
            raise ConfigError(f"no row for symbol {symbol!r}: it stands for {other!r}; give it a feed of its own")
        return symbol_id

    def add_alias(self, str text not None, str symbol not None):
        """Another spelling of a symbol that messages may have: from now on it leads to the same row; its id.

        The symbol is given a row if it has none yet. ConfigError if the text is empty, a symbol of its own already, or
        an alias of another one, and if there are as many aliases as `max_symbols` already.
        """
        cdef _Name name = _Name()
        cdef symbols* s = <symbols*>self.prices._symbols
        cdef uint32_t symbol_id = self.add_symbol(symbol)
        cdef uint32_t found
        name.set(text)
        with cython.critical_section(self.prices):
            found = symbols_alias(s, name.text, name.size, symbol_id)
        if found == NO_SYMBOL:
            why = f"there are {s.aliases} already, raise max_symbols" if text else "it is empty"
            raise ConfigError(f"no alias {text!r} of {symbol!r}: {why}")
        if found != symbol_id:
            other = self.prices.symbols[found]
            what = "is a symbol of its own" if other == text else f"stands for {other!r}"
            raise ConfigError(f"no alias {text!r} of {symbol!r}: it {what} already; give one a feed of its own")
        return symbol_id

    def connected(self, uint16_t source=0):
        """A new connection begins: sequences that count per connection start anew."""
        cdef decoder* d = <decoder*>self._decoder
        with cython.critical_section(self.prices):
            d.streams.connections[source % SOURCES].known = False
            d.watch.meets += 1
            d.watch.met[source % SOURCES] = d.watch.meets

    def gaps(self, uint64_t since=0):
        """The gaps found, oldest first, as a list of `Gap`: the newest 65,536.

        `since`: only those after the first so many.
        """
        cdef decoder* d = <decoder*>self._decoder
        cdef uint64_t i, count
        cdef gap g
        cdef list found = []
        with cython.critical_section(self.prices):
            count = d.streams.n_gaps
        if count > GAPS and since < count - GAPS:
            since = count - GAPS
        for i in range(since, count):
            with cython.critical_section(self.prices):
                g = d.streams.log[i % GAPS]
            if g.symbol_id == NO_SYMBOL:
                channel, symbol = "", ""
            else:
                channel, symbol = self.schema.channels[g.channel], self.prices.symbols[g.symbol_id]
            found.append(Gap(channel, symbol, g.first, g.last, g.recv_ns))
        return found

    def stats(self):
        """The counters: `frames == data + control + unknown + malformed`, each frame in one of them.

        The rest counts what frames held: `messages`, `ticks`, `duplicates`, `resets`, and `seconds`, the messages the
        other leg had brought already, which make no ticks. A reader that was there all along has received
        `ticks + spliced - superseded - held`: `spliced` ticks were fetched, `superseded` ones left out because what was
        fetched covers them, `held` ones still wait.
        """
        cdef decoder* d = <decoder*>self._decoder
        with cython.critical_section(self.prices):
            return {
                "frames": d.frames, "data": d.data, "control": d.control, "unknown": d.unknown,
                "malformed": d.malformed, "messages": d.messages, "ticks": d.ticks, "gaps": d.streams.n_gaps,
                "duplicates": d.streams.duplicates, "resets": d.streams.resets, "seconds": d.watch.seconds,
                "held": d.watch.hold.used, "superseded": d.watch.superseded, "spliced": d.watch.spliced,
                "refused_symbols": d.refused, "predicted": d.predicted,
            }

    def lag_quantiles(self, *quantiles):
        """Event time to receipt in seconds, at each quantile (0 to 1), over all ticks that carry a time."""
        cdef decoder* d = <decoder*>self._decoder
        cdef list found = []
        cdef double share
        cdef int64_t lag_ns
        for q in quantiles:
            share = q
            with cython.critical_section(self.prices):
                lag_ns = histogram_quantile(&d.lag, share)
            found.append(lag_ns / 1e9)
        return tuple(found)

    @property
    def refused_symbol(self):
        """The last symbol the full table had no row for (its first 64 bytes), or None."""
        cdef decoder* d = <decoder*>self._decoder
        cdef bytes name = None
        with cython.critical_section(self.prices):
            if d.refused:
                name = d.refused_name[:d.refused_size]
        return None if name is None else name.decode("utf-8", "replace")

    # ---- two legs ----

    def leg(self, int source, int leg):
        """Connection number `source` (below 256) speaks for leg 0 or 1; until told so, each speaks for leg 0.

        A leg may be any number of connections.
        """
        if not 0 <= source < SOURCES or leg not in (0, 1):
            raise ConfigError(f"leg {leg!r} of connection {source!r}: legs are 0 and 1, connections 0 to 255")
        (<decoder*>self._decoder).watch.leg_of[source] = <uint8_t>leg

    def arbitrate(self, bint on, *, patience=None):
        """Two legs carry the same streams from now on, or (False) one is left, whichever.

        While on, of every numbered stream the first arrival wins. What comes second on the other leg makes no tick and
        counts in `seconds`; a repeat on the same leg is a DUPLICATE as ever. A hole one leg leaves is no gap yet: the
        table takes the newest at once, the ring's ticks behind the hole wait (within `hold_ticks`) until the other leg
        has filled it, has passed it too, or `patience` seconds (1 by default) are over; see `expire`. Of a stream
        without numbers (rule none, time or connection) only the lead leg counts; the lead changes when it has been
        silent on that stream of that symbol for longer than `patience` while the other speaks, or by `lead`.

        When a second leg joins one that has delivered so far, name that one by `lead` first. Turned off, the leg left
        may lag at first, and may still fill holes of the other; expiring goes on until they are gone.
        """
        cdef watch* w = &(<decoder*>self._decoder).watch
        if patience is not None:
            if not 0 < patience <= 3600:
                raise ConfigError(f"patience={patience!r}: use seconds above 0, at most 3,600")
            w.patience_ns = <int64_t>(patience * 1e9)
        if on:
            self.prices._open_legs()
            if not watch_arbitrate(w, self.clock.mono()):
                raise MemoryError
            w.legs[0].liveness = <liveness*>self.prices._legs
            w.legs[1].liveness = <liveness*>self.prices._legs + 1
        elif w.arbitrating:
            watch_single(w, self.clock.mono())

    def lead(self, int leg):
        """This leg leads at once where streams have no numbers: a switch-over, or the other leg is lost.

        Where it has not spoken yet, the other counts until it does.
        """
        cdef watch* w = &(<decoder*>self._decoder).watch
        if leg not in (0, 1):
            raise ConfigError(f"leg {leg!r}: use 0 or 1")
        w.lead = <uint8_t>leg
        w.lead_given = True
        w.lead_set += 1

    def expire(self, now_mono_ns=None):
        """Holes whose patience is over become gaps, what waited behind them goes to the ring; how many gaps that made.

        `now_mono_ns`: the monotonic clock, by default this decoder's. Call it at `deadline`, or in every sweep.
        """
        cdef int64_t mono_ns, utc_ns
        self.clock.now(&mono_ns, &utc_ns)
        if now_mono_ns is not None:
            mono_ns = now_mono_ns
        return watch_expire(&(<decoder*>self._decoder).watch, mono_ns, utc_ns)

    @property
    def deadline(self):
        """When the patience with the oldest open hole is over (monotonic, ns); None if nothing waits for it."""
        return watch_deadline(&(<decoder*>self._decoder).watch) or None

    def legs(self):
        """What each leg is worth, as two dicts: leg 0 and leg 1, since the first `arbitrate(True)`.

        `wins` (first arrivals, in messages), `seconds`, `behind_ms` (how far its seconds came behind the winner, p50
        and p99; of numbered streams, among the newest 65,536 wins; 0 without any) and `arrived` (per channel the
        newest arrival, first or second, on the monotonic clock in ns).
        """
        return tuple([self._leg_worth(leg) for leg in range(2)])

    cdef dict _leg_worth(self, int leg):
        cdef watch* w = &(<decoder*>self._decoder).watch
        cdef watch_leg* of
        if w.legs == NULL:
            return {"wins": 0, "seconds": 0, "behind_ms": {"p50": 0.0, "p99": 0.0}, "arrived": {}}
        of = w.legs + leg
        return {
            "wins": of.wins,
            "seconds": of.seconds,
            "behind_ms": {
                "p50": histogram_quantile(&of.behind, 0.5) / 1e6, "p99": histogram_quantile(&of.behind, 0.99) / 1e6,
            },
            "arrived": {name: of.newest_ns[i] for i, name in enumerate(self.schema.channels) if of.newest_ns[i]},
        }

    # ---- hold, splice, release ----

    def hold(self, str symbol not None, channel not None):
        """From now on the ring's ticks of this symbol and channel wait, until `splice` has repaired them or `release`.

        Hold before the first message that may follow a hole, best while the connection is down; the newest gap already
        told of the stream is repaired as well, then behind what has been published. Table and freshness go on as ever.
        All held ticks together fill at most `hold_ticks`. When they are full, the stream that needs room is released,
        its first tick flagged AFTER_GAP, and the next `splice` or `release` of it says "overflowed". Idempotent.
        """
        cdef watch* w = &(<decoder*>self._decoder).watch
        self.add_symbol(symbol)
        if not watch_open(w):
            raise MemoryError
        for at in self._lanes(symbol, channel):
            watch_hold(w, at)

    def hold_at_gaps(self, channel not None, bint on=True):
        """From now on a stream of this channel is held as soon as it shows a gap, from the message that shows it on.

        Then `hold` need not come before the hole; what is fetched goes to the ring in its place. Not while two legs are
        arbitrated.
        """
        cdef watch* w = &(<decoder*>self._decoder).watch
        cdef uint32_t bit = <uint32_t>1 << <int>self.prices._channel(channel)
        if not watch_open(w):
            raise MemoryError
        w.at_gaps = w.at_gaps | bit if on else w.at_gaps & ~bit

    def newest(self, str symbol not None, channel not None):
        """The highest number seen of a stream whose numbers have no holes; None if it has none, or nothing was seen."""
        cdef decoder* d = <decoder*>self._decoder
        cdef const schema_message* m
        cdef sequence* s
        cdef list found = []
        for at in self._lanes(symbol, channel):
            m = watch_message_of(&d.watch, at)
            s = &d.streams.each[<size_t>at]
            if s.known and m.rule in (SEQUENCE_CONTIGUOUS, SEQUENCE_RANGE, SEQUENCE_LINKED):
                found.append(s.last)
        return max(found) if found else None

    def missing(self, str symbol not None, channel not None):
        """What is still missing of a held stream, (first, last); None if nothing is, or it is not held."""
        if (<decoder*>self._decoder).watch.lanes == NULL:
            return None
        missing = self._missing(self._lanes(symbol, channel))
        return None if missing == (None, None) else missing

    def release(self, str symbol not None, channel not None):
        """Publish what is held as it is, flagged AFTER_GAP behind every hole left; a `fastfeed.records.Spliced`.

        Its `first` and `last` tell what is missing for good.
        """
        cdef list lanes = self._lanes(symbol, channel)
        return self._ended(lanes) or self._released("released", lanes)

    def splice(self, str symbol not None, channel not None, payload, schema, recv_ns=None):
        """Put what was fetched into a held stream; a `fastfeed.records.Spliced` says how that stands.

        `schema` reads the reply; its messages may have `symbol=GIVEN`. Those of other symbols are passed over.

        A depth snapshot goes to the ring flagged SNAPSHOT, then the held deltas by the provider's rule. Range: those
        with u <= id are left out, the first kept must have U <= id + 1. Linked: those with u < id are left out, the
        first kept must have U <= id <= u, or follow directly (pu <= id). Behind that nothing may be missing, else the
        snapshot is "too old". One that is newer than all deltas is good: later ones it covers are left out. (Binance,
        "How to manage a local order book correctly", spot and USD-M.)

        Trades of a stream that counts by one fill its hole, in order before the held ones. Those above its last number
        are new and go to the row too, those known already are passed over. "missing" tells what is left of the hole.

        Any other quote or trade is a last value: to the ring flagged SNAPSHOT, in its place by number, and to the row
        unless that is newer (by number where both have one, else by event time). Live ones it covers are left out.

        What is fetched touches neither freshness nor status: only the stream itself does. The row's AFTER_GAP stays
        until `prices.repaired(symbol)`; call it when every channel of the symbol is repaired.
        """
        cdef watch* w = &(<decoder*>self._decoder).watch
        cdef list lanes = self._lanes(symbol, channel)
        cdef int64_t before = _let_out(w)
        cdef int64_t mono_ns, utc_ns
        cdef int outcome
        if (ended := self._ended(lanes)) is not None:
            return ended
        self.clock.now(&mono_ns, &utc_ns)
        outcome = self._splice(lanes, symbol, payload, schema, utc_ns if recv_ns is None else recv_ns)
        if outcome == UNREADABLE:
            return Spliced("unreadable")
        if outcome == TOO_OLD:
            return Spliced("too old")
        if outcome == OVERFLOWED:
            return self._ended(lanes)._replace(ticks=_let_out(w) - before)
        missing = self._missing(lanes)
        if missing != (None, None):
            return Spliced("missing", _let_out(w) - before, *missing)
        self._released("repaired", lanes)
        return Spliced("repaired", _let_out(w) - before)

    cdef list _lanes(self, str symbol, channel):
        """The lanes of a symbol's channel: one per message that makes ticks of it."""
        cdef program* p = <program*>self._program._program
        cdef int number = self.prices._channel(channel)
        cdef Py_ssize_t symbol_id = _find(self.prices, symbol)
        cdef Py_ssize_t limit = (<decoder*>self._decoder).streams.symbols
        cdef int i
        if symbol_id == NO_SYMBOL:
            return []
        return [
            i * limit + symbol_id for i in range(p.n_streams)
            if p.messages[i].channel == number and p.messages[i].kind != FF_CONTROL
        ]

    cdef tuple _missing(self, list lanes):
        cdef watch* w = &(<decoder*>self._decoder).watch
        cdef int64_t first, last
        cdef list found = []
        for at in lanes:
            if watch_missing(&w.lanes[<size_t>at], &first, &last):
                found += [first, last]
        return (min(found), max(found)) if found else (None, None)

    cdef object _released(self, str outcome, list lanes):
        cdef watch* w = &(<decoder*>self._decoder).watch
        cdef int64_t before = _let_out(w)
        cdef tuple missing = self._missing(lanes)
        for at in lanes:
            w.lanes[<size_t>at].overflowed = False
            watch_release(w, at)
        return Spliced(outcome, _let_out(w) - before, *missing)

    cdef object _ended(self, list lanes):
        """What to answer if nothing is held any more; None while it is."""
        cdef watch* w = &(<decoder*>self._decoder).watch
        if w.lanes == NULL:
            return Spliced("not held")
        for at in lanes:
            if w.lanes[<size_t>at].overflowed:
                return self._released("overflowed", lanes)
        for at in lanes:
            if w.lanes[<size_t>at].repairing:
                return None
        return Spliced("not held")

    cdef int _splice(self, list lanes, str symbol, payload, schema, int64_t recv_ns) except -1:
        """Every message of the reply to its lane, in rising order."""
        cdef watch* w = &(<decoder*>self._decoder).watch
        cdef program* p = <program*>(<Program>schema.program)._program
        cdef bytes text = bytes(payload) + b"\0" * FF_PADDING  # the fields point into it
        cdef const char* start = PyBytes_AS_STRING(text)
        cdef _Name name = _Name()
        cdef slots* j = <slots*>self._reply
        cdef ff_fields* f
        cdef const schema_message* m
        cdef Py_ssize_t i, n, at, symbol_id = _find(self.prices, symbol)
        cdef bint falling
        cdef int outcome = UNREADABLE
        name.set(symbol)
        if j == NULL:
            j = <slots*>calloc(1, sizeof(slots))
            if j == NULL:
                raise MemoryError
            self._reply = j
        j.program = p
        j.given = name.text
        j.given_size = name.size
        if json_frame(j, start, start + len(text) - FF_PADDING, (<decoder*>self._decoder).simd) == MALFORMED:
            return UNREADABLE
        n = j.n_fields
        falling = n > 1 and j.fields[0].integer[0] > j.fields[n - 1].integer[0]
        for i in range(n):
            f = &j.fields[n - 1 - i if falling else i]
            m = &p.messages[f.message]
            at = -1 if f.counts else self._lane_for(lanes, m.kind)
            if at < 0 or symbols_find(<symbols*>self.prices._symbols, f.symbol, f.symbol_size) != symbol_id:
                continue
            if m.kind == FF_LEVEL:
                outcome = splice_depth(w, at, m, f, j.levels, recv_ns)
            elif (m.kind == FF_TRADE and f.present >> FIELD_SEQ & 1
                    and watch_message_of(w, at).rule == SEQUENCE_CONTIGUOUS):
                outcome = splice_trade(w, at, m, f, recv_ns)
            else:
                outcome = splice_last(w, at, m, f, recv_ns)
            if outcome != REPAIRED:
                break
        return outcome

    cdef Py_ssize_t _lane_for(self, list lanes, int kind) except -2:
        """Where a fetched message of this kind belongs, rather to deltas than to snapshots; -1: nowhere."""
        cdef watch* w = &(<decoder*>self._decoder).watch
        cdef Py_ssize_t at, found = -1
        for at in lanes:
            if watch_message_of(w, at).kind == kind and (
                found < 0 or watch_message_of(w, found).flags & FF_SNAPSHOT
            ):
                found = at
        return found

    cdef int frame(
        self, char* payload, Py_ssize_t size, Py_ssize_t readable, int64_t recv_ns, int64_t mono_ns, uint16_t source,
        bint text,
    ) noexcept nogil:
        return frame_in_place(<decoder*>self._decoder, payload, size, readable, recv_ns, mono_ns, source, text)

    cdef void flush(self) noexcept nogil:
        """Make ticks of what waits: at the end of a read, and before anybody may look."""
        decoder_flush(<decoder*>self._decoder)

    cdef bint spoke(self) noexcept nogil:
        """Did the frame just decoded hold control messages?"""
        return (<decoder*>self._decoder).slots.n_controls != 0

    cdef list controls(self):
        cdef slots* j = &(<decoder*>self._decoder).slots
        cdef uint32_t i
        return [PyBytes_FromStringAndSize(j.controls[i].start, j.controls[i].size) for i in range(j.n_controls)]


def check(payload, Program compiled not None, str name not None):
    """Raise the `DecodeError` that says where the payload is malformed in the encoding of a program; None if it is not.

    `name` is what the encoding is called in the error.
    """
    cdef slots* j
    cdef program* p = <program*>compiled._program
    cdef bint simd = _is_simd()
    cdef bytes text = bytes(payload)
    cdef bytes padded = text + b"\0" * FF_PADDING
    cdef const char* start = PyBytes_AS_STRING(padded)
    cdef const char* end = start + len(text)
    cdef Py_ssize_t offset
    cdef int verdict
    j = <slots*>calloc(1, sizeof(slots))  # last: nothing before the free may raise
    if j == NULL:
        raise MemoryError
    j.program = p
    if p.encoding == ENCODING_MSGPACK:
        verdict = msgpack_frame(j, NULL, start, end, simd)
    elif p.encoding == ENCODING_BINARY:
        verdict = binary_frame(j, start, end, simd)
    else:
        verdict = json_frame(j, start, end, simd)
    offset = 0 if j.fail == NULL else min(j.fail - start, len(text))
    slots_close(j)
    free(j)
    if verdict == MALFORMED:
        raise DecodeError(offset, text[max(0, offset - 16):offset + 16], f"malformed {name}")


def kernels():
    """The names of the kernels usable on this machine, the default first."""
    cdef const layout_choice* choice = layout_kernels()
    cdef list names = []
    while choice.name != NULL:
        names.append(choice.name.decode())
        choice += 1
    return names


cdef const layout_choice* _kernel() except NULL:
    """The kernel `FASTFEED_SIMD` asks for, by default the best."""
    cdef list usable = kernels()
    cdef str wanted = os.environ.get("FASTFEED_SIMD", "") or usable[0]
    if wanted not in usable:
        raise ConfigError(f"FASTFEED_SIMD={wanted!r}: use one of {', '.join(usable)}")
    return layout_kernels() + usable.index(wanted)


cdef bint _is_simd() except -1:
    return strcmp(_kernel().name, "scalar") != 0


def layout():
    """The C side of the records, for holding the dtypes to it.

    `{"tick": {field: offset, "size": bytes}, "row": {...}}`.
    """
    return {"tick": _places(ff_tick_layout), "row": _places(ff_row_layout)}


cdef dict _places(const ff_place* place):
    cdef dict found = {}
    while place.name != NULL:
        found[place.name.decode()] = place.offset
        place += 1
    found["size"] = place.offset
    return found
