"""Slots to message fields: which message is this, and what does it say. Runs after every parser alike, knows none.

A field of the wrong type makes its message unknown: never zero, never a wrong price.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from layout cimport FIELD_BIDS, FIELD_SEQ, FIELD_SIDE, FIELD_SYMBOL, FIELD_TIME, ff_fields
from scan cimport scan_integer, scan_iso, scan_price, scan_unescape
from schema cimport *
from slots cimport *


cdef inline bint message_string(slots* j, const slot* s, const char** text, uint32_t* size) noexcept nogil:
    """The text of a string or number slot, escapes decoded."""
    cdef char* t
    if s.type == SLOT_STRING or s.type == SLOT_NUMBER:
        text[0] = s.start
        size[0] = s.size
        return True
    if s.type != SLOT_ESCAPED:
        return False
    t = slots_text(j, s.size)
    if t == NULL:
        return False
    size[0] = scan_unescape(s.start, s.size, t)
    text[0] = t
    return True


cdef inline bint message_price(slots* j, uint32_t node, double* out, bint simd) noexcept nogil:
    cdef const char* text
    cdef uint32_t size
    if not slots_has(j, node) or not message_string(j, &j.slots[node], &text, &size):
        return False
    return scan_price(text, size, out, simd)


cdef inline slot* message_at(slots* j, schema_ref at, uint32_t base) noexcept nogil:
    """The slot a reference points at, or NULL where the frame has nothing there."""
    cdef uint32_t node = at.node
    if at.scope == SCOPE_PAYLOAD:
        node += base
    elif at.scope == SCOPE_ENVELOPE and base == 0:
        return NULL
    return &j.slots[node] if slots_has(j, node) else NULL


cdef inline bint message_is_array(const slot* s) noexcept nogil:
    """Some message may have wanted levels there: it is an array all the same."""
    return s.type == SLOT_ARRAY or s.type == SLOT_LEVELS or s.type == SLOT_BAD


cdef inline bint message_matches(slots* j, const schema_message* m, uint32_t base) noexcept nogil:
    cdef uint32_t i
    cdef const schema_match* want
    cdef slot* s
    cdef const char* text
    cdef uint32_t size
    cdef double number
    for i in range(m.n_matches):
        want = &m.matches[i]
        s = message_at(j, want.at, base)
        if want.type == MATCH_MISSING:
            if s != NULL:
                return False
            continue
        if s == NULL:
            return False
        if want.type == MATCH_STRING:
            if s.type == SLOT_NUMBER or not message_string(j, s, &text, &size):
                return False
            if size != want.size or memcmp(text, want.text, size) != 0:
                return False
        elif want.type == MATCH_NUMBER:
            if s.type != SLOT_NUMBER or not scan_price(s.start, s.size, &number, False) or number != want.number:
                return False
        elif want.type == MATCH_TRUE:
            if s.type != SLOT_TRUE:
                return False
        elif want.type == MATCH_FALSE:
            if s.type != SLOT_FALSE:
                return False
        elif want.type == MATCH_NULL:
            if s.type != SLOT_NULL:
                return False
    if m.by_shape:
        for i in range(m.n_fields):
            if m.fields[i].at.scope == SCOPE_PAYLOAD and message_at(j, m.fields[i].at, base) == NULL:
                return False
    if m.n_each:
        s = message_at(j, m.each[0].at, base)
        return s != NULL and message_is_array(s)
    return True


cdef inline bint message_is_null(const schema_message* m, const char* text, uint32_t size) noexcept nogil:
    cdef const char* t = m.null_text
    cdef uint32_t _i, n
    for _i in range(m.null_texts):
        n = 0
        while t[n]:
            n += 1
        if n == size and memcmp(t, text, n) == 0:
            return True
        t += n + 1
    return False


cdef inline bint message_time(const char* s, uint32_t n, uint8_t unit, int64_t* out, bint simd) noexcept nogil:
    """A time as the provider writes it, as epoch ns; False if it is none."""
    cdef int64_t whole, part = 0
    cdef double real
    if s[0] == b"-":
        return False
    if unit == UNIT_ISO or (unit == UNIT_AUTO and n > 16 and (s[4] == b"-" or s[8] == b"-")):
        return scan_iso(s, n, out)
    if not scan_integer(s, n, &whole) and not message_decimal(s, n, unit, &whole, &part):
        if not scan_price(s, n, &real, simd) or real < 0 or real > 9e18:
            return False
        whole = <int64_t>real
        real *= <double>message_scale(unit, whole)
        out[0] = <int64_t>real
        return real < 9.2e18
    return message_time_whole(whole, part, unit, out)


cdef inline bint message_time_whole(int64_t whole, int64_t part, uint8_t unit, int64_t* out) noexcept nogil:
    cdef int64_t scale = message_scale(unit, whole)
    cdef int64_t most = message_most(scale)
    if whole < 0 or whole > most:
        return False
    out[0] = whole * scale + part
    return True


cdef inline int64_t message_most(int64_t scale) noexcept nogil:
    """The largest number of units of `scale` ns that, with a fraction, fits int64 nanoseconds: in the year 2262."""
    if scale == 1:
        return <int64_t>9223372036854775806
    if scale == 1000:
        return <int64_t>9223372036854774
    if scale == 1000000:
        return <int64_t>9223372036853
    return <int64_t>9223372035


cdef inline bint message_decimal(const char* s, uint32_t n, uint8_t unit, int64_t* whole, int64_t* part) noexcept nogil:
    """`whole.fraction` of a unit, the fraction in ns and exact: a double cannot hold nanoseconds since 1970."""
    cdef uint32_t i = 0
    cdef int64_t scale
    while i < n and s[i] != b".":
        i += 1
    if i + 1 >= n or not scan_integer(s, i, whole):
        return False
    scale = message_scale(unit, whole[0])
    for i in range(i + 1, n):
        if s[i] < b"0" or s[i] > b"9":
            return False
        scale //= 10
        part[0] += scale * (s[i] - 48)
    return True


cdef inline int64_t message_scale(uint8_t unit, int64_t whole) noexcept nogil:
    """Nanoseconds in one unit; `auto` goes by magnitude: each unit covers the years 1973 to 5138 of the one above."""
    if unit == UNIT_MS or (unit == UNIT_AUTO and <int64_t>100000000000 <= whole < <int64_t>100000000000000):
        return 1000000
    if unit == UNIT_US or (unit == UNIT_AUTO and <int64_t>100000000000000 <= whole < <int64_t>100000000000000000):
        return 1000
    if unit == UNIT_NS or (unit == UNIT_AUTO and whole >= <int64_t>100000000000000000):
        return 1
    return 1000000000


cdef inline bint message_symbol(slots* j, const schema_message* m, ff_fields* f) noexcept nogil:
    """Cut and upper-case the symbol as the schema says."""
    cdef const char* s = f.symbol
    cdef char* t = slots_text(j, f.symbol_size)
    cdef uint32_t i, n = 0
    if t == NULL:
        return False
    for i in range(f.symbol_size):
        if m.symbol_until and s[i] == m.symbol_until:
            break
        t[n] = s[i] - 32 if m.symbol_upper and b"a" <= s[i] <= b"z" else s[i]
        n += 1
    f.symbol = t
    f.symbol_size = n
    return n > 0


cdef inline bint message_finish(slots* j, const schema_message* m, ff_fields* f, bint simd) noexcept nogil:
    """Symbol, time and side from their texts; False makes the message unknown.

    Runs after a parse and after a layout alike.
    """
    if not f.present & (1 << FIELD_SYMBOL) or f.symbol_size == 0:
        return False
    if (m.symbol_until or m.symbol_upper) and not message_symbol(j, m, f):
        return False
    f.event_ns = 0
    if f.present & (1 << FIELD_TIME):
        if f.time_text != NULL:
            if not message_time(f.time_text, f.time_size, m.unit, &f.event_ns, simd):
                return False
        elif m.time_scale:
            if <uint64_t>f.integer[3] > <uint64_t>m.time_most:  # negative ones too
                return False
            f.event_ns = f.integer[3] * m.time_scale
        elif not message_time_whole(f.integer[3], 0, m.unit, &f.event_ns):
            return False
    f.sell = False
    if f.present & (1 << FIELD_SIDE):
        if m.sell != NULL:
            f.sell = (
                f.side_text != NULL
                and f.side_size == m.sell_size
                and memcmp(f.side_text, m.sell, m.sell_size) == 0
            )
        elif f.side_text == NULL:
            f.sell = f.side_size == 1
        else:
            f.sell = f.side_size > 0 and (f.side_text[0] | 32) == b"s"
    return True


cdef inline bint message_take(slots* j, uint16_t message, uint32_t base, bint simd) noexcept nogil:
    """One tick's worth of fields from the slots; False makes the message unknown."""
    cdef const schema_message* m = &j.program.messages[message]
    cdef const schema_field* want
    cdef ff_fields* f
    cdef slot* s
    cdef const char* text
    cdef uint32_t i, size
    cdef uint16_t bit
    if not slots_grow(j, <void**>&j.fields, &j.max_fields, j.n_fields + 1, sizeof(ff_fields)):
        return False
    f = j.fields + j.n_fields
    f.message = message
    f.present = 0
    f.null = 0
    f.levels[0] = 0
    f.levels[1] = 0
    for i in range(m.n_fields):
        want = &m.fields[i]
        s = message_at(j, want.at, base)
        if s == NULL:
            continue
        bit = <uint16_t>(1 << want.field)
        if s.type == SLOT_NULL:
            f.null |= bit
            continue
        if want.action == TAKE_LEVELS:
            if s.type != SLOT_LEVELS:
                return False
            f.level[want.field - FIELD_BIDS] = s.level
            f.levels[want.field - FIELD_BIDS] = s.size
        elif want.action == TAKE_TEXT:
            if want.field == FIELD_SYMBOL:
                if not message_string(j, s, &f.symbol, &f.symbol_size):
                    return False
            elif want.field == FIELD_TIME:
                if not message_string(j, s, &f.time_text, &f.time_size):
                    return False
            elif s.type == SLOT_TRUE or s.type == SLOT_FALSE:
                f.side_text = NULL
                f.side_size = s.type == SLOT_TRUE
            elif not message_string(j, s, &f.side_text, &f.side_size):
                return False
        else:
            if not message_string(j, s, &text, &size):
                return False
            if s.type != SLOT_NUMBER and message_is_null(m, text, size):
                f.null |= bit
                continue
            if want.action == TAKE_PRICE:
                if not scan_price(text, size, &f.number[want.field], simd):
                    return False
            elif not scan_integer(text, size, &f.integer[want.field - FIELD_SEQ]):
                return False
        f.present |= bit
    if not message_finish(j, m, f, simd):
        return False
    j.n_fields += 1
    return True
