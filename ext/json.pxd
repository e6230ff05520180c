"""JSON text to message fields: one strict parser that runs a schema program. No provider is known here.

A frame is validated whole, as strictly as orjson does it, while the values the program asks for are noted in slots; only then are messages
recognised and their fields converted. So a malformed frame leaves nothing behind. Frames are padded (scan.h); nothing here is interned,
published or counted: that is the decoder's.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport malloc, realloc, free
from libc.string cimport memcmp, memcpy, memset

from layout cimport (
    FIELD_BIDS, FIELD_COUNT, FIELD_SEQ, FIELD_SIDE, FIELD_SYMBOL, FIELD_TIME, LAYOUT_STEPS, STEP_BOOL, STEP_INTEGER, STEP_LITERAL,
    STEP_NUMBER, STEP_PRICE, STEP_SIDE_TEXT, STEP_SYMBOL, STEP_TEXT, STEP_TIME_TEXT, ff_fields, layout, layout_step,
)
from scan cimport (
    FF_PADDING, scan_bare_number, scan_integer, scan_iso, scan_price, scan_space, scan_string, scan_string_fault, scan_unescape,
)
from schema cimport *
from tick cimport FF_CONTROL, FF_LEVEL


cdef extern from "math.h" nogil:
    double NAN

cdef enum:
    JSON_DEPTH = 1024  # containers inside each other; orjson's limit

cdef enum slot_type:
    SLOT_STRING, SLOT_ESCAPED, SLOT_NUMBER, SLOT_TRUE, SLOT_FALSE, SLOT_NULL, SLOT_OBJECT, SLOT_ARRAY, SLOT_LEVELS, SLOT_BAD

cdef enum verdict:  # of a frame or message; the higher one names the frame
    UNKNOWN = 0
    CONTROL = 1
    DATA = 2
    MALFORMED = 3

cdef struct json_slot:
    const char* start  # first byte of the value, inside the quotes of a string
    uint32_t size      # SLOT_LEVELS: how many
    uint32_t level     # SLOT_LEVELS: where they begin in the level store
    uint16_t node
    uint8_t type

cdef struct json:
    const program* program
    json_slot slots[512]
    uint64_t seen[8]        # one bit a node: its slot is of this frame
    const char* fail        # where a malformed frame stops being JSON
    int escaped             # this frame holds an escape
    bint repeated           # this frame repeats a known key
    bint failed             # out of memory
    json_slot* trace        # every scalar in order, while a layout is being learned; else NULL
    uint32_t traced
    double* levels          # price, size, price, size ...
    uint32_t n_levels
    uint32_t max_levels
    char* text              # unescaped and upper-cased strings of this frame; begins with the address of a fuller block
    uint32_t n_text
    uint32_t max_text
    ff_fields* fields       # what the frame's messages say, one per tick (per message for depth)
    uint32_t n_fields
    uint32_t max_fields
    json_slot* controls     # the control messages of this frame, as spans of it
    uint32_t n_controls
    uint32_t max_controls
    uint32_t messages       # recognised or not, in this frame


# ---- stores that grow to the largest frame seen and stay ----

cdef inline bint json_grow(json* j, void** store, uint32_t* room, uint32_t need, size_t size) noexcept nogil:
    cdef uint32_t more = need + (need >> 1) + 64
    cdef void* bigger
    if need <= room[0]:
        return True
    bigger = realloc(store[0], more * size)
    if bigger == NULL:
        j.failed = True
        return False
    store[0] = bigger
    room[0] = more
    return True


cdef inline char* json_text(json* j, uint32_t size) noexcept nogil:
    """Room for `size` bytes of decoded text, padded, valid as long as the frame; NULL if memory is out."""
    # Texts of this frame are pointed at, so a full block is kept in a chain until the next frame instead of moved.
    cdef char* t
    cdef char* block
    cdef uint32_t room = 2 * j.max_text + size + FF_PADDING + sizeof(void*)
    if j.n_text + size + FF_PADDING > j.max_text:
        block = <char*>malloc(room)
        if block == NULL:
            j.failed = True
            return NULL
        (<char**>block)[0] = j.text
        j.text = block
        j.n_text = sizeof(void*)
        j.max_text = room
    t = j.text + j.n_text
    j.n_text += size + 1
    return t


cdef inline void json_text_reset(json* j) noexcept nogil:
    """Forget the last frame's texts, keeping the newest (largest) block."""
    cdef char* block
    if j.text == NULL:
        return
    while (<char**>j.text)[0] != NULL:
        block = (<char**>j.text)[0]
        (<char**>j.text)[0] = (<char**>block)[0]
        free(block)
    j.n_text = sizeof(void*)


# ---- slots ----

cdef inline bint json_has(const json* j, uint32_t node) noexcept nogil:
    return (j.seen[node >> 6] >> (node & 63)) & 1


cdef inline void json_forget(json* j, uint32_t node, uint32_t end) noexcept nogil:
    cdef uint32_t n
    for n in range(node, end):
        j.seen[n >> 6] &= ~(<uint64_t>1 << (n & 63))


cdef inline json_slot* json_claim(json* j, uint32_t node) noexcept nogil:
    """The node's slot for a new value. The last of repeated keys wins, so what an earlier one left below it is forgotten."""
    cdef json_slot* s = &j.slots[node]
    if json_has(j, node):
        j.repeated = True
        json_forget(j, node, j.program.nodes[node].end)
    j.seen[node >> 6] |= <uint64_t>1 << (node & 63)
    s.node = node
    return s


cdef inline const char* json_fail(json* j, const char* p) noexcept nogil:
    if j.fail == NULL:
        j.fail = p
    return NULL


# ---- the parser: each function takes the text at p and gives the text after its value, or NULL ----

cdef inline const char* json_scalar(json* j, const char* p, json_slot* s, bint simd) noexcept nogil:
    cdef const char* q
    cdef int escaped = 0
    s.start = p
    if p[0] == b'"':
        q = scan_string(p + 1, &escaped, simd)
        if q == NULL:
            return json_fail(j, scan_string_fault(p + 1))
        s.start = p + 1
        s.size = <uint32_t>(q - p - 1)
        s.type = SLOT_ESCAPED if escaped else SLOT_STRING
        j.escaped |= escaped
        q += 1
    elif p[0] == b"t" and memcmp(p, b"true", 4) == 0:
        s.type = SLOT_TRUE
        q = p + 4
        s.size = 4
    elif p[0] == b"f" and memcmp(p, b"false", 5) == 0:
        s.type = SLOT_FALSE
        q = p + 5
        s.size = 5
    elif p[0] == b"n" and memcmp(p, b"null", 4) == 0:
        s.type = SLOT_NULL
        q = p + 4
        s.size = 4
    else:
        q = scan_bare_number(p)
        if q == NULL:
            return json_fail(j, p)
        s.type = SLOT_NUMBER
        s.size = <uint32_t>(q - p)
    if j.trace != NULL:
        if j.traced < LAYOUT_STEPS:
            j.trace[j.traced] = s[0]
        j.traced += 1
    return q


cdef inline const char* json_key(json* j, const char* p, uint32_t node, uint16_t* child, bint simd) noexcept nogil:
    """The key at p and its colon; `child` is where it leads below `node`."""
    cdef int escaped = 0
    cdef const char* q
    cdef char* t
    if p[0] != b'"':
        return json_fail(j, p)
    q = scan_string(p + 1, &escaped, simd)
    if q == NULL:
        return json_fail(j, scan_string_fault(p + 1))
    if node == NO_NODE:
        child[0] = NO_NODE
    elif not escaped:
        child[0] = schema_child(&j.program.nodes[node], p + 1, <uint32_t>(q - p - 1))
    else:
        t = json_text(j, <uint32_t>(q - p - 1))
        if t == NULL:
            return json_fail(j, p)
        child[0] = schema_child(&j.program.nodes[node], t, scan_unescape(p + 1, <uint32_t>(q - p - 1), t))
    j.escaped |= escaped
    p = scan_space(q + 1)
    if p[0] != b":":
        return json_fail(j, p)
    return scan_space(p + 1)


cdef inline const char* json_next(json* j, const char* p, char close) noexcept nogil:
    """After an element: at the next one, or at the closing bracket."""
    p = scan_space(p)
    if p[0] == close:
        return p
    if p[0] != b",":
        return json_fail(j, p)
    p = scan_space(p + 1)
    if p[0] == close:
        return json_fail(j, p)
    return p


cdef inline const char* json_object(json* j, const char* p, uint32_t node, int depth, bint simd) noexcept nogil:
    cdef uint16_t child
    if depth > JSON_DEPTH:
        return json_fail(j, p)
    p = scan_space(p + 1)
    while p[0] != b"}":
        p = json_key(j, p, node, &child, simd)
        if p == NULL:
            return NULL
        p = json_value(j, p, child, depth, simd)
        if p == NULL:
            return NULL
        p = json_next(j, p, b"}")
        if p == NULL:
            return NULL
    return p + 1


cdef inline const char* json_array(json* j, const char* p, uint32_t node, int depth, bint simd) noexcept nogil:
    cdef uint32_t i = 0
    cdef uint16_t child
    if depth > JSON_DEPTH:
        return json_fail(j, p)
    p = scan_space(p + 1)
    while p[0] != b"]":
        child = NO_NODE
        if node != NO_NODE and i < j.program.nodes[node].positions:
            child = j.program.nodes[node].indexes[i]
        i += 1
        p = json_value(j, p, child, depth, simd)
        if p == NULL:
            return NULL
        p = json_next(j, p, b"]")
        if p == NULL:
            return NULL
    return p + 1


cdef inline const char* json_value(json* j, const char* p, uint32_t node, int depth, bint simd) noexcept nogil:
    """Any value. Its slot is noted when a node is given; NO_NODE only checks it. `depth`: containers open around it."""
    cdef json_slot unwanted
    cdef json_slot* s = &unwanted
    if node != NO_NODE:
        s = json_claim(j, node)
    else:
        s.node = NO_NODE
    if p[0] == b"{":
        s.type = SLOT_OBJECT
        s.start = p
        return json_object(j, p, node, depth + 1, simd)
    if p[0] == b"[":
        s.type = SLOT_ARRAY
        s.start = p
        if node != NO_NODE and j.program.nodes[node].levels:
            return json_levels(j, p, s, depth + 1, simd)
        return json_array(j, p, node, depth + 1, simd)
    return json_scalar(j, p, s, simd)


cdef inline const char* json_level_pair(const char* p, double* pair, bint simd) noexcept nogil:
    """The usual level, `["price","size"]`, in one go; NULL if it is written in any other way."""
    cdef const char* q
    cdef int escaped = 0
    if p[0] != b"[" or p[1] != b'"':
        return NULL
    q = scan_string(p + 2, &escaped, simd)
    if q == NULL or not scan_price(p + 2, <uint32_t>(q - p - 2), &pair[0], simd) or q[1] != b"," or q[2] != b'"':
        return NULL
    p = q + 3
    q = scan_string(p, &escaped, simd)
    if q == NULL or not scan_price(p, <uint32_t>(q - p), &pair[1], simd) or q[1] != b"]":
        return NULL
    return q + 2


cdef inline const char* json_levels(json* j, const char* p, json_slot* s, int depth, bint simd) noexcept nogil:
    """A list of depth levels, checked and converted in the same pass. One that is no level makes the slot SLOT_BAD."""
    cdef const schema_node* n = &j.program.nodes[s.node]
    cdef const char* q
    cdef double* pair
    cdef bint bad = False
    if depth > JSON_DEPTH:
        return json_fail(j, p)
    s.level = j.n_levels
    p = scan_space(p + 1)
    while p[0] != b"]":
        if not json_grow(j, <void**>&j.levels, &j.max_levels, j.n_levels + 1, 2 * sizeof(double)):
            return json_fail(j, p)
        pair = j.levels + 2 * j.n_levels
        q = json_level_pair(p, pair, simd) if n.level_pairs and depth < JSON_DEPTH else NULL
        if q == NULL:
            json_forget(j, n.level_root, j.program.nodes[n.level_root].end)
            q = json_value(j, p, n.level_root, depth, simd)
            if q == NULL:
                return NULL
            if not json_price(j, n.level_price, pair, simd) or not json_price(j, n.level_size, pair + 1, simd):
                bad = True
        j.n_levels += 1
        p = json_next(j, q, b"]")
        if p == NULL:
            return NULL
    s.type = SLOT_BAD if bad else SLOT_LEVELS
    s.size = j.n_levels - s.level
    return p + 1


# ---- slots to values ----

cdef inline bint json_string(json* j, const json_slot* s, const char** text, uint32_t* size) noexcept nogil:
    """The text of a string or number slot, escapes decoded."""
    cdef char* t
    if s.type == SLOT_STRING or s.type == SLOT_NUMBER:
        text[0] = s.start
        size[0] = s.size
        return True
    if s.type != SLOT_ESCAPED:
        return False
    t = json_text(j, s.size)
    if t == NULL:
        return False
    size[0] = scan_unescape(s.start, s.size, t)
    text[0] = t
    return True


cdef inline bint json_price(json* j, uint32_t node, double* out, bint simd) noexcept nogil:
    cdef const char* text
    cdef uint32_t size
    if not json_has(j, node) or not json_string(j, &j.slots[node], &text, &size):
        return False
    return scan_price(text, size, out, simd)


cdef inline json_slot* json_at(json* j, schema_ref at, uint32_t base) noexcept nogil:
    """The slot a reference points at, or NULL where the frame has nothing there."""
    cdef uint32_t node = at.node
    if at.scope == SCOPE_PAYLOAD:
        node += base
    elif at.scope == SCOPE_ENVELOPE and base == 0:
        return NULL
    return &j.slots[node] if json_has(j, node) else NULL


cdef inline bint json_matches(json* j, const schema_message* m, uint32_t base) noexcept nogil:
    cdef uint32_t i
    cdef const schema_match* want
    cdef json_slot* s
    cdef const char* text
    cdef uint32_t size
    cdef double number
    for i in range(m.n_matches):
        want = &m.matches[i]
        s = json_at(j, want.at, base)
        if want.type == MATCH_MISSING:
            if s != NULL:
                return False
            continue
        if s == NULL:
            return False
        if want.type == MATCH_STRING:
            if s.type == SLOT_NUMBER or not json_string(j, s, &text, &size):
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
            if m.fields[i].at.scope == SCOPE_PAYLOAD and json_at(j, m.fields[i].at, base) == NULL:
                return False
    if m.n_each:
        s = json_at(j, m.each[0].at, base)
        return s != NULL and s.type == SLOT_ARRAY
    return True


cdef inline bint json_is_null(const schema_message* m, const char* text, uint32_t size) noexcept nogil:
    cdef const char* t = m.null_text
    cdef uint32_t i, n
    for i in range(m.null_texts):
        n = 0
        while t[n]:
            n += 1
        if n == size and memcmp(t, text, n) == 0:
            return True
        t += n + 1
    return False


cdef inline bint json_time(const char* s, uint32_t n, uint8_t unit, int64_t* out, bint simd) noexcept nogil:
    """A time as the provider writes it, as epoch ns; False if it is none."""
    cdef int64_t whole, part = 0
    cdef double real
    if unit == UNIT_ISO or (unit == UNIT_AUTO and n > 16 and (s[4] == b"-" or s[8] == b"-")):
        return scan_iso(s, n, out)
    if not scan_integer(s, n, &whole) and not json_decimal(s, n, unit, &whole, &part):
        if not scan_price(s, n, &real, simd) or real < 0 or real > 9e18:
            return False
        whole = <int64_t>real
        real *= <double>json_scale(unit, whole)
        out[0] = <int64_t>real
        return real < 9.2e18
    return json_time_whole(whole, part, unit, out)


cdef inline bint json_time_whole(int64_t whole, int64_t part, uint8_t unit, int64_t* out) noexcept nogil:
    cdef int64_t scale = json_scale(unit, whole)
    cdef int64_t most = <int64_t>9223372036854775806  # what fits int64 nanoseconds: the year 2262
    if scale == 1000000:
        most = <int64_t>9223372036853
    elif scale == 1000:
        most = <int64_t>9223372036854774
    elif scale == 1000000000:
        most = <int64_t>9223372035
    if whole < 0 or whole > most:
        return False
    out[0] = whole * scale + part
    return True


cdef inline bint json_decimal(const char* s, uint32_t n, uint8_t unit, int64_t* whole, int64_t* part) noexcept nogil:
    """`whole.fraction` of a unit, the fraction in ns and exact: a double cannot hold nanoseconds since 1970."""
    cdef uint32_t i = 0
    cdef int64_t scale
    while i < n and s[i] != b".":
        i += 1
    if i + 1 >= n or not scan_integer(s, i, whole):
        return False
    scale = json_scale(unit, whole[0])
    for i in range(i + 1, n):
        if s[i] < b"0" or s[i] > b"9":
            return False
        scale //= 10
        part[0] += scale * (s[i] - 48)
    return True


cdef inline int64_t json_scale(uint8_t unit, int64_t whole) noexcept nogil:
    """Nanoseconds in one unit; `auto` goes by magnitude: each unit covers the years 1973 to 5138 of the one above."""
    if unit == UNIT_MS or (unit == UNIT_AUTO and <int64_t>100000000000 <= whole < <int64_t>100000000000000):
        return 1000000
    if unit == UNIT_US or (unit == UNIT_AUTO and <int64_t>100000000000000 <= whole < <int64_t>100000000000000000):
        return 1000
    if unit == UNIT_NS or (unit == UNIT_AUTO and whole >= <int64_t>100000000000000000):
        return 1
    return 1000000000


cdef inline bint json_symbol(json* j, const schema_message* m, ff_fields* f) noexcept nogil:
    """Cut and upper-case the symbol as the schema says."""
    cdef const char* s = f.symbol
    cdef char* t = json_text(j, f.symbol_size)
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


cdef inline bint json_finish(json* j, const schema_message* m, ff_fields* f, bint simd) noexcept nogil:
    """Symbol, time and side from their texts; False makes the message unknown. Runs after a parse and after a layout alike."""
    if not f.present & (1 << FIELD_SYMBOL) or f.symbol_size == 0:
        return False
    if (m.symbol_until or m.symbol_upper) and not json_symbol(j, m, f):
        return False
    f.event_ns = 0
    if f.present & (1 << FIELD_TIME):
        if f.time_text == NULL:
            if not json_time_whole(f.integer[3], 0, m.unit, &f.event_ns):
                return False
        elif not json_time(f.time_text, f.time_size, m.unit, &f.event_ns, simd):
            return False
    f.sell = False
    if f.present & (1 << FIELD_SIDE):
        if m.sell != NULL:
            f.sell = f.side_text != NULL and f.side_size == m.sell_size and memcmp(f.side_text, m.sell, m.sell_size) == 0
        elif f.side_text == NULL:
            f.sell = f.side_size == 1
        else:
            f.sell = f.side_size > 0 and (f.side_text[0] | 32) == b"s"
    return True


cdef inline bint json_fields(json* j, uint16_t message, uint32_t base, bint simd) noexcept nogil:
    """One tick's worth of fields from the slots; False makes the message unknown."""
    cdef const schema_message* m = &j.program.messages[message]
    cdef const schema_field* want
    cdef ff_fields* f
    cdef json_slot* s
    cdef const char* text
    cdef uint32_t i, size
    cdef uint16_t bit
    if not json_grow(j, <void**>&j.fields, &j.max_fields, j.n_fields + 1, sizeof(ff_fields)):
        return False
    f = j.fields + j.n_fields
    f.message = message
    f.present = 0
    f.null = 0
    f.levels[0] = 0
    f.levels[1] = 0
    for i in range(m.n_fields):
        want = &m.fields[i]
        s = json_at(j, want.at, base)
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
                if not json_string(j, s, &f.symbol, &f.symbol_size):
                    return False
            elif want.field == FIELD_TIME:
                if not json_string(j, s, &f.time_text, &f.time_size):
                    return False
            elif s.type == SLOT_TRUE or s.type == SLOT_FALSE:
                f.side_text = NULL
                f.side_size = s.type == SLOT_TRUE
            elif not json_string(j, s, &f.side_text, &f.side_size):
                return False
        else:
            if not json_string(j, s, &text, &size):
                return False
            if s.type != SLOT_NUMBER and json_is_null(m, text, size):
                f.null |= bit
                continue
            if want.action == TAKE_PRICE:
                if not scan_price(text, size, &f.number[want.field], simd):
                    return False
            elif not scan_integer(text, size, &f.integer[want.field - FIELD_SEQ]):
                return False
        f.present |= bit
    if not json_finish(j, m, f, simd):
        return False
    j.n_fields += 1
    return True


cdef inline bint json_each(json* j, uint16_t message, uint32_t link, uint32_t base, bint simd) noexcept nogil:
    """Every element of an array (already validated) through the message; False makes the whole message unknown."""
    cdef const schema_message* m = &j.program.messages[message]
    cdef json_slot* array = json_at(j, m.each[link].at, base)
    cdef uint32_t root = m.each[link].root
    cdef const char* p
    j.trace = NULL  # read a second time, out of the frame's order: not the predictable sort
    if array == NULL:
        return True
    if array.type != SLOT_ARRAY:
        return False
    p = scan_space(array.start + 1)
    while p[0] != b"]":
        json_forget(j, root, j.program.nodes[root].end)
        p = json_value(j, p, root, 0, simd)
        if p == NULL:
            return False
        if link + 1 < m.n_each:
            if not json_each(j, message, link + 1, base, simd):
                return False
        elif not json_fields(j, message, base, simd):
            return False
        p = json_next(j, p, b"]")
        if p == NULL:
            return False
    return True


cdef inline int json_message(json* j, const char* start, const char* end, uint32_t base, bint simd) noexcept nogil:
    """Recognise one message from the slots and take its fields; its verdict."""
    cdef uint16_t i
    cdef uint32_t before = j.n_fields
    cdef bint taken
    j.messages += 1
    for i in range(j.program.n_messages):
        if not json_matches(j, &j.program.messages[i], base):
            continue
        if j.program.messages[i].kind == FF_CONTROL:
            if json_grow(j, <void**>&j.controls, &j.max_controls, j.n_controls + 1, sizeof(json_slot)):
                j.controls[j.n_controls].start = start
                j.controls[j.n_controls].size = <uint32_t>(end - start)
                j.n_controls += 1
            return CONTROL
        if j.program.messages[i].n_each:
            taken = json_each(j, i, 0, base, simd)
        else:
            taken = json_fields(j, i, base, simd)
        if taken:
            return DATA
        j.n_fields = before
        return UNKNOWN
    return UNKNOWN


cdef inline int json_elements(json* j, const char* p, uint32_t root, uint32_t base, bint simd) noexcept nogil:
    """Each element of a validated array as a message of its own; the highest verdict."""
    cdef int best = UNKNOWN
    cdef int one
    cdef const char* q
    j.trace = NULL  # read a second time, out of the frame's order: not the predictable sort
    p = scan_space(p + 1)
    while p[0] != b"]":
        json_forget(j, root, j.program.nodes[root].end)
        q = json_value(j, p, root, 0, simd)
        if q == NULL:
            return best
        # the envelope's own slot was forgotten with its subtree; it stays a seen node only as the element's root
        one = json_message(j, p, q, base, simd)
        if one > best:
            best = one
        p = json_next(j, q, b"]")
        if p == NULL:
            return best
    return best


cdef inline int json_frame(json* j, const char* p, const char* end, bint simd) noexcept nogil:
    """Parse a padded frame and take its messages. The verdict; the rest is in `fields`, `levels`, `controls`, `messages`, `fail`."""
    cdef const char* start
    cdef const char* q
    cdef uint32_t payload
    cdef int i, found
    for i in range(8):
        j.seen[i] = 0
    j.fail = NULL
    j.escaped = 0
    j.repeated = False
    j.failed = False
    j.traced = 0
    j.n_levels = j.n_fields = j.n_controls = j.messages = 0
    json_text_reset(j)
    start = scan_space(p)
    q = json_value(j, start, 0, 0, simd)
    if q == NULL:
        return MALFORMED
    if scan_space(q) != end:
        json_fail(j, scan_space(q))
        return MALFORMED
    payload = j.program.envelope
    if start[0] == b"[":
        found = UNKNOWN
        if j.program.positional:
            found = json_message(j, start, q, 0, simd)
            if found == UNKNOWN:
                j.messages = 0
        if found == UNKNOWN:
            found = json_elements(j, start, 0, 0, simd)
    elif payload != NO_NODE and json_has(j, payload) and j.slots[payload].type == SLOT_OBJECT:
        found = json_message(j, start, q, payload, simd)
    elif payload != NO_NODE and json_has(j, payload) and j.slots[payload].type == SLOT_ARRAY:
        found = json_elements(j, j.slots[payload].start, payload, payload, simd)
    else:
        found = json_message(j, start, q, 0, simd)
    if j.failed:
        j.n_fields = 0
        return UNKNOWN
    return found


# ---- learning a layout from the frame just parsed ----

cdef inline bint json_learn(const json* j, const char* p, const char* end, layout* l) noexcept nogil:
    """Make the layout of the frame just parsed (with `trace` on, one message, one tick). False: it is not of the predictable sort."""
    cdef const ff_fields* f = j.fields
    cdef const schema_message* m = &j.program.messages[f.message]
    cdef const char* mark = p
    cdef const json_slot* s
    cdef layout_step* step
    cdef uint32_t i, k, base = 0
    cdef bint known
    if j.escaped or j.repeated or j.traced > LAYOUT_STEPS or j.n_fields != 1 or j.messages != 1 or m.n_each or m.kind == FF_LEVEL or p[0] != b"{":
        return False
    if j.program.envelope != NO_NODE and json_has(j, j.program.envelope):
        if j.slots[j.program.envelope].type != SLOT_OBJECT:
            return False
        base = j.program.envelope
    l.steps = 0
    for i in range(j.traced):
        s = &j.trace[i]
        known = s.node != NO_NODE
        if s.type == SLOT_NULL:
            continue  # stays literal text, as the null bits of the layout do
        if known and j.program.matched[s.node]:
            for k in range(m.n_fields):
                if json_node(m.fields[k].at, base) == s.node:
                    return False  # taken as well as matched
            continue  # stays literal text: it decides what the message is
        if not layout_literal(l, mark, s.start):
            return False
        step = &l.step[l.steps - 1]
        mark = s.start + s.size
        memset(step.stop, mark[0], 16)
        step.field = FIELD_COUNT
        if s.type == SLOT_STRING:
            step.action = STEP_TEXT
        elif s.type == SLOT_NUMBER:
            step.action = STEP_NUMBER
        else:
            step.action = STEP_BOOL
        if not known:
            continue
        for k in range(m.n_fields):
            if json_node(m.fields[k].at, base) != s.node:
                continue
            if step.field != FIELD_COUNT:
                return False  # two fields from one value
            if m.null_texts and s.type == SLOT_STRING:
                return False  # its text may stand for null
            step.field = m.fields[k].field
            if m.fields[k].action == TAKE_PRICE:
                step.action = STEP_PRICE
            elif m.fields[k].action == TAKE_INTEGER:
                step.action = STEP_INTEGER
            elif step.field == FIELD_SYMBOL:
                step.action = STEP_SYMBOL
            elif step.field == FIELD_TIME:
                step.action = STEP_INTEGER if s.type == SLOT_NUMBER and m.unit != UNIT_ISO else STEP_TIME_TEXT
            elif step.action != STEP_BOOL:
                step.action = STEP_SIDE_TEXT
    l.message = f.message
    l.present = f.present
    l.null = f.null
    return layout_literal(l, mark, end)


cdef inline uint32_t json_node(schema_ref at, uint32_t base) noexcept nogil:
    return at.node + base if at.scope == SCOPE_PAYLOAD else at.node


cdef inline bint layout_literal(layout* l, const char* p, const char* end) noexcept nogil:
    """Append the text from p to end as literal steps of at most 16 bytes; False if there is no room."""
    cdef layout_step* step
    cdef uint32_t n
    while True:
        if l.steps == LAYOUT_STEPS:
            return False
        step = &l.step[l.steps]
        l.steps += 1
        n = <uint32_t>(end - p) if end - p < 16 else 16
        memcpy(step.literal, p, n)
        step.mask = <uint16_t>((1 << n) - 1)
        step.size = <uint8_t>n
        step.action = STEP_LITERAL
        step.field = FIELD_COUNT
        p += n
        if p == end:
            return True
