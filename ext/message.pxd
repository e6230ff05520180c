"""Slots to message fields: which message is this, and what does it say. Runs after every parser alike, knows none.

A field of the wrong type makes its message unknown: never zero, never a wrong price.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from layout cimport FIELD_BIDS, FIELD_SEQ, FIELD_SIDE, FIELD_SYMBOL, FIELD_TIME, ff_fields
from number cimport number_spell
from scan cimport scan_integer, scan_iso, scan_last16, scan_price, scan_unescape
from schema cimport *
from slots cimport *
from tick cimport FF_NOT_LAST, FF_SELL


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


cdef inline bint message_number(const slot* s, double* out) noexcept nogil:
    """The value of a number that is not text; False if it is none, or not finite."""
    if s.type == SLOT_REAL:
        out[0] = s.value.real
        return out[0] - out[0] == 0
    if s.type == SLOT_INTEGER:
        out[0] = <double>s.value.integer
        return True
    out[0] = <double>s.value.unsigned
    return s.type == SLOT_UNSIGNED


cdef inline bint message_whole(const slot* s, int64_t* out) noexcept nogil:
    """The value of a whole number that is not text, within what its digits in a text could be."""
    out[0] = s.value.integer
    return s.type == SLOT_INTEGER and out[0] >= -<int64_t>0x7FFFFFFFFFFFFFFF


cdef inline bint message_spelled(slots* j, const slot* s, const char** text, uint32_t* size) noexcept nogil:
    """The digits of a whole number that is not text. A float has no one spelling."""
    cdef bint negative = s.type == SLOT_INTEGER and s.value.integer < 0
    cdef char* t
    if s.type != SLOT_INTEGER and s.type != SLOT_UNSIGNED:
        return False
    t = slots_text(j, 24)
    if t == NULL:
        return False
    size[0] = number_spell(-s.value.unsigned if negative else s.value.unsigned, negative, t)
    text[0] = t
    return True


cdef inline bint message_price(slots* j, uint32_t node, double* out, bint simd) noexcept nogil:
    cdef const char* text
    cdef uint32_t size
    if not slots_has(j, node):
        return False
    if message_string(j, &j.slots[node], &text, &size):
        return scan_price(text, size, out, simd)
    return message_number(&j.slots[node], out)


cdef inline slot* message_at(slots* j, uint16_t node) noexcept nogil:
    """The slot of a node, or NULL where the frame has nothing there."""
    return &j.slots[node] if node != NO_NODE and slots_has(j, node) else NULL


cdef inline bint message_is_array(const slot* s) noexcept nogil:
    """Some message may have wanted levels there: it is an array all the same."""
    return s.type == SLOT_ARRAY or s.type == SLOT_LEVELS or s.type == SLOT_BAD


cdef inline bint message_matches(slots* j, const schema_message* m) noexcept nogil:
    cdef uint32_t i
    cdef const schema_match* want
    cdef slot* s
    cdef const char* text
    cdef uint32_t size
    cdef double number
    for i in range(m.n_matches):
        want = &m.matches[i]
        s = message_at(j, want.node)
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
            if s.type == SLOT_NUMBER:
                if not scan_price(s.start, s.size, &number, False) or number != want.number:
                    return False
            elif not message_number(s, &number) or number != want.number:
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
    if m.n_each:
        s = message_at(j, m.each[0].node)
        return s != NULL and message_is_array(s)
    return True


cdef inline int message_find(slots* j, uint16_t first) noexcept nogil:
    """The message that this is, of those from `first` on; -1 if none."""
    cdef uint16_t i
    for i in range(first, first + j.program.n_messages):
        if message_matches(j, &j.program.messages[i]):
            return i
    return -1


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
    """A time as the provider writes it, as epoch ns (what is below them cut off); False if it is none."""
    cdef int64_t whole
    cdef int digits
    if s[0] == b"-":
        return False
    if unit == UNIT_ISO or (unit == UNIT_AUTO and n > 16 and (s[4] == b"-" or s[8] == b"-")):
        return scan_iso(s, n, out)
    if scan_integer(s, n, &whole):
        return message_time_whole(whole, unit, out)
    if not message_decimal(s, n, 0, &whole, simd):
        return False
    digits = 9 - 3 * unit if unit != UNIT_AUTO else message_digits(whole)
    return message_decimal(s, n, digits, out, simd)


cdef inline bint message_time_whole(int64_t whole, uint8_t unit, int64_t* out) noexcept nogil:
    cdef int64_t scale = message_scale(unit, whole)
    if whole < 0 or whole > message_most(scale):
        return False
    out[0] = whole * scale
    return True


cdef inline bint message_decimal(const char* s, uint32_t n, int shift, int64_t* out, bint simd) noexcept nogil:
    """A number with a fraction or exponent, times 10 to the `shift`, exact as far as int64 goes: a double could not
    hold the nanoseconds since 1970. False if it is no number or too large."""
    cdef double number
    cdef uint64_t mantissa = 0
    cdef uint32_t i = 0
    cdef int digits = 0, exponent = 0
    cdef bint fraction = False, negative
    if not scan_price(s, n, &number, simd) or number > 9.3e18:
        return False
    while i < n and s[i] | 32 != b"e":
        if s[i] == b".":
            fraction = True
        elif digits < 19:
            mantissa = mantissa * 10 + <uint64_t>(s[i] - 48)
            digits += mantissa != 0
            shift -= fraction
        else:
            shift += not fraction
        i += 1
    if i < n:
        i += 1
        negative = s[i] == b"-"
        i += s[i] == b"-" or s[i] == b"+"
        while i < n and exponent < 100000:
            exponent = exponent * 10 + (s[i] - 48)
            i += 1
        shift += -exponent if negative else exponent
    while shift < 0 and mantissa:
        mantissa //= 10
        shift += 1
    while shift > 0 and mantissa:
        if mantissa > <uint64_t>0x7FFFFFFFFFFFFFFF // 10:
            return False
        mantissa *= 10
        shift -= 1
    out[0] = <int64_t>mantissa
    return mantissa < <uint64_t>0x7FFFFFFFFFFFFFFF


cdef inline bint message_clock(const slot* s, uint8_t unit, int64_t* out) noexcept nogil:
    """A time that is not text, as epoch ns (what is below them cut off); False if it is none.

    One that says itself what it is needs no unit; a number of unit iso is none.
    """
    cdef double real = s.value.real
    cdef int64_t whole, rest, below = 0
    cdef int digits
    if s.type == SLOT_TIME:
        out[0] = s.value.integer
        return True
    if unit == UNIT_ISO:
        return False
    if s.type == SLOT_INTEGER:
        return message_time_whole(s.value.integer, unit, out)
    if s.type != SLOT_REAL or s.value.integer < 0 or not real < 9.2e18:  # its sign bit, then NaN too
        return False
    whole = <int64_t>real
    if not message_time_whole(whole, unit, out):
        return False
    # Three decimal places of the fraction at a time: the product of 52 bits and a thousand is exact.
    rest = <int64_t>((real - <double>whole) * 4503599627370496.0)
    digits = 9 - 3 * unit if unit != UNIT_AUTO else message_digits(whole)
    while digits > 0:
        rest *= 1000
        below = below * 1000 + (rest >> 52)
        rest &= <int64_t>4503599627370495
        digits -= 3
    out[0] += below
    return True


cdef inline int message_digits(int64_t whole) noexcept nogil:
    """Decimal places from a time's unit, known by its magnitude, down to nanoseconds."""
    if whole < <int64_t>100000000000:
        return 9
    if whole < <int64_t>100000000000000:
        return 6
    return 3 if whole < <int64_t>100000000000000000 else 0


cdef inline int64_t message_scale(uint8_t unit, int64_t whole) noexcept nogil:
    """Nanoseconds in one unit.

    `auto` goes by magnitude: each unit covers the years 1973 to 5138 of the one above.
    """
    cdef int digits = 9 - 3 * unit if unit != UNIT_AUTO else message_digits(whole)
    if digits == 9:
        return 1000000000
    if digits == 6:
        return 1000000
    return 1000 if digits == 3 else 1


cdef inline int64_t message_most(int64_t scale) noexcept nogil:
    """The largest number of units of `scale` ns that, with a fraction, fits int64 nanoseconds: in the year 2262."""
    if scale == 1:
        return <int64_t>9223372036854775806
    if scale == 1000:
        return <int64_t>9223372036854774
    if scale == 1000000:
        return <int64_t>9223372036853
    return <int64_t>9223372035


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
    f.keyed = False
    return n > 0


cdef inline bint message_finish(slots* j, const schema_message* m, ff_fields* f, bint simd) noexcept nogil:
    """Symbol, time and side from their texts; False makes the message unknown.

    Runs after a parse and after a layout alike.
    """
    cdef bint is_sell
    if not f.present & (1 << FIELD_SYMBOL) or f.symbol_size == 0:
        if j.given == NULL:
            return False
        f.symbol = j.given
        f.symbol_size = j.given_size
        f.keyed = False
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
        elif not message_time_whole(f.integer[3], m.unit, &f.event_ns):
            return False
    if f.present & (1 << FIELD_SIDE):
        if m.sell != NULL:
            is_sell = (
                f.side_text != NULL
                and f.side_size == m.sell_size
                and memcmp(f.side_text, m.sell, m.sell_size) == 0
            )
        elif f.side_text == NULL:
            is_sell = f.side_size == 1
        else:
            is_sell = f.side_size > 0 and (f.side_text[0] | 32) == b"s"
        f.flags |= FF_SELL if is_sell else 0
    return True


cdef inline bint message_filled(slots* j, const schema_message* m, ff_fields* f, bint simd) noexcept nogil:
    """What message_finish does, in a straight line for a plain message. `time_text` is NULL unless there is one."""
    if not m.plain or f.time_text != NULL or f.symbol_size == 0:
        return message_finish(j, m, f, simd)
    f.event_ns = 0
    if f.present & (1 << FIELD_TIME):
        if <uint64_t>f.integer[FIELD_TIME - FIELD_SEQ] > <uint64_t>m.time_most:
            return False
        f.event_ns = f.integer[FIELD_TIME - FIELD_SEQ] * m.time_scale
    return True


cdef inline int message_condition(slots* j, const schema_conditions* c, const slot* s) noexcept nogil:
    """Is this condition in the set? -1 if it is none."""
    cdef const char* text
    cdef const schema_match* other
    cdef uint32_t i, size
    cdef double number
    cdef bint is_number = True
    cdef uint8_t byte
    if s.type == SLOT_STRING or s.type == SLOT_ESCAPED:
        if not message_string(j, s, &text, &size):
            return -1
        if c.chars or size == 1:
            for i in range(size):
                byte = <uint8_t>text[i]
                if c.letters[byte >> 6] >> (byte & 63) & 1:
                    return 1
            return 0
        is_number = False
    elif s.type == SLOT_NUMBER:
        if not scan_price(s.start, s.size, &number, False):
            return -1
    elif s.type == SLOT_NULL:
        return 0
    elif not message_number(s, &number):
        return -1
    for i in range(c.n_others):
        other = &c.others[i]
        if is_number:
            if other.type == MATCH_NUMBER and other.number == number:
                return 1
        elif other.type == MATCH_STRING and other.size == size and memcmp(other.text, text, size) == 0:
            return 1
    return 0


cdef inline uint64_t message_judge(slots* j, uint32_t sets, const slot* s) noexcept nogil:
    """In which of these sets a condition is, one bit each; NOT_CONDITION if it is none."""
    cdef uint64_t found = 0
    cdef uint32_t i = 0
    cdef int one
    while i < 32 and sets >> i:
        if sets >> i & 1:
            one = message_condition(j, &j.program.conditions[i], s)
            found |= NOT_CONDITION if one < 0 else <uint64_t>one << i
        i += 1
    return found


cdef inline bint message_conditions(slots* j, const schema_message* m, const slot* s, ff_fields* f) noexcept nogil:
    """A trade's conditions, a list or one alone; False if one is neither text nor number."""
    cdef uint64_t found
    if s.type == SLOT_CONDITIONS:
        found = s.value.unsigned
    else:
        found = message_judge(j, <uint32_t>1 << m.conditions, s)
    f.flags |= FF_NOT_LAST if found >> m.conditions & 1 else 0
    return not found & NOT_CONDITION


cdef inline bint message_put(
    slots* j, const schema_message* m, const schema_field* want, const slot* s, ff_fields* f, int64_t* event_ns,
    bint simd,
) noexcept nogil:
    """One field from its slot; False if it is of the wrong type. A time that is not text is left in `event_ns`."""
    cdef const char* text
    cdef uint32_t size
    cdef uint16_t bit = <uint16_t>(1 << want.field)
    if s.type == SLOT_NULL:
        f.null |= bit
        return True
    if want.action >= TAKE_LEVELS:
        if want.action == TAKE_CONDITIONS:
            return message_conditions(j, m, s, f)
        if s.type != SLOT_LEVELS:
            return False
        f.level[want.field - FIELD_BIDS] = s.level
        f.levels[want.field - FIELD_BIDS] = s.size
    elif want.action == TAKE_TEXT:
        if want.field == FIELD_SYMBOL:
            if not message_string(j, s, &f.symbol, &f.symbol_size):
                if not message_spelled(j, s, &f.symbol, &f.symbol_size):
                    return False
        elif want.field == FIELD_TIME:
            if not message_string(j, s, &f.time_text, &f.time_size):
                return message_clock(s, m.unit, event_ns)
        elif s.type == SLOT_TRUE or s.type == SLOT_FALSE:
            f.side_text = NULL
            f.side_size = s.type == SLOT_TRUE
        elif not message_string(j, s, &f.side_text, &f.side_size):
            if not message_spelled(j, s, &f.side_text, &f.side_size):
                return False
    elif message_string(j, s, &text, &size):
        if s.type != SLOT_NUMBER and message_is_null(m, text, size):
            f.null |= bit
            return True
        if want.action == TAKE_PRICE:
            if not scan_price(text, size, &f.number[want.field], simd):
                return False
        elif not scan_integer(text, size, &f.integer[want.field - FIELD_SEQ]):
            return False
    elif want.action == TAKE_PRICE:
        if not message_number(s, &f.number[want.field]):
            return False
    elif not message_whole(s, &f.integer[want.field - FIELD_SEQ]):
        return False
    f.present |= bit
    return True


cdef inline ff_fields* message_open(slots* j, uint16_t message) noexcept nogil:
    """Room for the fields of one tick, all absent; NULL if memory is out. It counts once `message_close` is done."""
    cdef ff_fields* f
    if not slots_room(j):
        return NULL
    f = j.fields + j.n_fields
    f.message = message
    f.present = 0
    f.null = 0
    f.flags = 0
    f.counts = False
    f.keyed = False
    f.time_text = NULL
    f.symbol_size = 0
    f.levels[0] = 0
    f.levels[1] = 0
    return f


cdef inline bint message_close(
    slots* j, const schema_message* m, ff_fields* f, int64_t event_ns, bint simd
) noexcept nogil:
    """The tick's fields are complete; False makes the message unknown."""
    # message_filled could say it all: named here as well, message_finish stays out of it, and it in line everywhere.
    if not (message_filled(j, m, f, simd) if m.plain else message_finish(j, m, f, simd)):
        return False
    if event_ns:
        f.event_ns = event_ns
    if f.symbol != j.given:  # which need not be padded
        scan_last16(f.key, f.symbol, f.symbol_size)
        f.keyed = True
    f.ordinal = j.messages
    j.n_fields += 1
    return True


cdef inline void message_count(slots* j, uint16_t message, bint simd) noexcept nogil:
    """A message that makes no tick, or cannot be read, moves the numbers of its connection all the same."""
    cdef const schema_message* m = &j.program.messages[message]
    cdef ff_fields* f = message_open(j, message) if m.counts else NULL
    cdef const slot* s
    cdef uint32_t i
    cdef int64_t event_ns = 0
    if f == NULL:
        return
    for i in range(m.n_fields):
        s = message_at(j, m.fields[i].node) if m.fields[i].field == FIELD_SEQ else NULL
        if s != NULL and not message_put(j, m, &m.fields[i], s, f, &event_ns, simd):
            return
    f.counts = True
    f.event_ns = 0
    f.ordinal = j.messages
    j.n_fields += 1


cdef inline int message_end(slots* j, uint16_t message, uint32_t before, bint taken, bint simd) noexcept nogil:
    """The verdict on a message of data whose ticks are those from `before` on, if they could be taken."""
    if not taken:
        j.n_fields = before
    if j.n_fields == before:
        message_count(j, message, simd)
    return DATA if taken else UNKNOWN


cdef inline bint message_take(slots* j, uint16_t message, bint simd) noexcept nogil:
    """One tick's worth of fields from the slots; False makes the message unknown."""
    cdef const schema_message* m = &j.program.messages[message]
    cdef ff_fields* f = message_open(j, message)
    cdef const slot* s
    cdef uint32_t i
    cdef int64_t event_ns = 0
    if f == NULL:
        return False
    for i in range(m.n_fields):
        s = message_at(j, m.fields[i].node)
        if s != NULL and not message_put(j, m, &m.fields[i], s, f, &event_ns, simd):
            return False
    return message_close(j, m, f, event_ns, simd)
