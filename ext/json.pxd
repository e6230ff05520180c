"""JSON text to slots, and from there to messages: one strict parser that runs a schema program. Knows no provider.

A frame is validated whole, as strictly as orjson does it, while the values the program asks for are noted in slots;
only then are messages recognised and their fields converted. So a malformed frame leaves nothing behind. Frames are
padded (scan.h); nothing here is interned, published or counted: that is the decoder's.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from layout cimport (
    FIELD_COUNT, FIELD_SEQ, FIELD_SIDE, FIELD_SYMBOL, FIELD_TIME, LAYOUT_STEPS, STEP_BOOL, STEP_INTEGER, STEP_LITERAL,
    STEP_NUMBER, STEP_PRICE, STEP_SIDE_TEXT, STEP_SYMBOL, STEP_TEXT, STEP_TIME_TEXT, ff_fields, layout, layout_arrange,
    layout_set, layout_step, layout_wanted,
)
from message cimport (
    message_at, message_count, message_end, message_find, message_is_array, message_judge, message_price, message_take,
)
from scan cimport scan_bare, scan_integer, scan_price, scan_space, scan_string, scan_string_fault, scan_unescape
from schema cimport *
from slots cimport *
from tick cimport FF_CONTROL, FF_LEVEL, FF_NOT_LAST


cdef enum:
    JSON_DEPTH = 1024  # containers inside each other; orjson's limit


cdef inline const char* json_fail(slots* j, const char* p) noexcept nogil:
    if j.fail == NULL:
        j.fail = p
    return NULL


# ---- the parser: each function takes the text at p and gives the text after its value, or NULL ----

cdef inline const char* json_scalar(slots* j, const char* p, slot* s, bint simd) noexcept nogil:
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
    elif p[0] <= b"9":
        q = scan_bare(p, simd)
        if q == NULL:
            return json_fail(j, p)
        s.type = SLOT_NUMBER
        s.size = <uint32_t>(q - p)
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
        return json_fail(j, p)
    if j.trace != NULL:
        if j.traced < LAYOUT_STEPS:
            j.trace[j.traced] = s[0]
        j.traced += 1
    return q


cdef inline const char* json_key(slots* j, const char* p, uint32_t node, uint16_t* child, bint simd) noexcept nogil:
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
        t = slots_text(j, <uint32_t>(q - p - 1))
        if t == NULL:
            return json_fail(j, p)
        child[0] = schema_child(&j.program.nodes[node], t, scan_unescape(p + 1, <uint32_t>(q - p - 1), t))
    j.escaped |= escaped
    p = scan_space(q + 1)
    if p[0] != b":":
        return json_fail(j, p)
    return scan_space(p + 1)


cdef inline const char* json_next(slots* j, const char* p, char close) noexcept nogil:
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


cdef inline const char* json_object(slots* j, const char* p, uint32_t node, int depth, bint simd) noexcept nogil:
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


cdef inline const char* json_array(slots* j, const char* p, uint32_t node, int depth, bint simd) noexcept nogil:
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


cdef inline const char* json_value(slots* j, const char* p, uint32_t node, int depth, bint simd) noexcept nogil:
    """Any value. Its slot is noted when a node is given; NO_NODE only checks it. `depth`: containers open around it."""
    cdef slot unwanted
    cdef slot* s = &unwanted
    if node != NO_NODE:
        s = slots_claim(j, node)
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
        if node != NO_NODE and j.program.nodes[node].conditions:
            return json_conditions(j, p, s, depth + 1, simd)
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


cdef inline const char* json_levels(slots* j, const char* p, slot* s, int depth, bint simd) noexcept nogil:
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
        if not slots_grow(j, <void**>&j.levels, &j.max_levels, j.n_levels + 1, 2 * sizeof(double)):
            return json_fail(j, p)
        pair = j.levels + 2 * j.n_levels
        q = json_level_pair(p, pair, simd) if n.level_pairs and depth < JSON_DEPTH else NULL
        if q == NULL:
            slots_forget(j, n.level_root, j.program.nodes[n.level_root].end)
            q = json_value(j, p, n.level_root, depth, simd)
            if q == NULL:
                return NULL
            if not message_price(j, n.level_price, pair, simd) or not message_price(j, n.level_size, pair + 1, simd):
                bad = True
        j.n_levels += 1
        p = json_next(j, q, b"]")
        if p == NULL:
            return NULL
    s.type = SLOT_BAD if bad else SLOT_LEVELS
    s.size = j.n_levels - s.level
    return p + 1


cdef inline const char* json_conditions(slots* j, const char* p, slot* s, int depth, bint simd) noexcept nogil:
    """A list of trade conditions, judged in the same pass. It is not traced, and so literal text of a layout."""
    cdef uint32_t one = j.program.condition
    cdef uint32_t traced = j.traced
    cdef uint64_t found = 0
    if depth > JSON_DEPTH:
        return json_fail(j, p)
    p = scan_space(p + 1)
    while p[0] != b"]":
        slots_forget(j, one, one + 1)
        p = json_value(j, p, one, depth, simd)
        if p == NULL:
            return NULL
        found |= message_judge(j, j.program.nodes[s.node].conditions, &j.slots[one])
        p = json_next(j, p, b"]")
        if p == NULL:
            return NULL
    s.type = SLOT_CONDITIONS
    s.value.unsigned = found
    j.traced = traced
    return p + 1


cdef inline bint json_each(slots* j, uint16_t message, uint32_t link, bint simd) noexcept nogil:
    """Every element of an array (already validated) through the message; False makes the whole message unknown."""
    cdef const schema_message* m = &j.program.messages[message]
    cdef slot* array = message_at(j, m.each[link].node)
    cdef uint32_t root = m.each[link].root
    cdef const char* p
    j.trace = NULL  # read a second time, out of the frame's order: not the predictable sort
    if array == NULL:
        return True
    if not message_is_array(array):
        return False
    p = scan_space(array.start + 1)
    while p[0] != b"]":
        slots_forget(j, root, j.program.nodes[root].end)
        p = json_value(j, p, root, 0, simd)
        if p == NULL:
            return False
        if link + 1 < m.n_each:
            if not json_each(j, message, link + 1, simd):
                return False
        elif not message_take(j, message, simd):
            return False
        p = json_next(j, p, b"]")
        if p == NULL:
            return False
    return True


cdef inline int json_message(slots* j, const char* start, const char* end, uint16_t first, bint simd) noexcept nogil:
    """Recognise one message, `first` on in the program, from the slots and take its fields; its verdict."""
    cdef uint32_t before = j.n_fields
    cdef int i = message_find(j, first)
    cdef bint taken
    j.messages += 1
    if i < 0:
        return UNKNOWN
    if j.program.messages[i].kind == FF_CONTROL:
        slots_control(j, start, end)
        message_count(j, <uint16_t>i, simd)
        return CONTROL
    if j.program.messages[i].n_each:
        taken = json_each(j, <uint16_t>i, 0, simd)
    else:
        taken = message_take(j, <uint16_t>i, simd)
    return message_end(j, <uint16_t>i, before, taken, simd)


cdef inline int json_elements(slots* j, const char* p, uint32_t root, uint16_t first, bint simd) noexcept nogil:
    """Each element of a validated array as a message of its own; the highest verdict."""
    cdef int best = UNKNOWN
    cdef int one
    cdef const char* q
    j.trace = NULL  # read a second time, out of the frame's order: not the predictable sort
    p = scan_space(p + 1)
    while p[0] != b"]":
        slots_forget(j, root, j.program.nodes[root].end)
        q = json_value(j, p, root, 0, simd)
        if q == NULL:
            return best
        # the envelope's own slot was forgotten with its subtree; it stays a seen node only as the element's root
        one = json_message(j, p, q, first, simd)
        if one > best:
            best = one
        p = json_next(j, q, b"]")
        if p == NULL:
            return best
    return best


cdef inline const char* json_element(slots* j, const char* p, int* verdict, bint simd) noexcept nogil:
    """The element at p of an array that is the frame, as a message of its own: what follows it, or NULL.

    Read once: nothing of the elements before it counts any more but their fields.
    """
    cdef const char* q
    j.escaped = 0
    j.repeated = False
    j.traced = 0
    slots_clear(j)
    q = json_value(j, p, 0, 1, simd)
    if q != NULL:
        verdict[0] = json_message(j, p, q, 0, simd)
    return q


cdef inline int json_frame(slots* j, const char* p, const char* end, bint simd) noexcept nogil:
    """Parse a padded frame and take its messages. The verdict.

    The rest is in `fields`, `levels`, `controls`, `messages`, `fail`.
    """
    cdef const char* start
    cdef const char* q
    cdef const slot* payload
    cdef int found
    slots_begin(j)
    slots_clear(j)
    start = scan_space(p)
    q = json_value(j, start, 0, 0, simd)
    if q == NULL:
        return MALFORMED
    if scan_space(q) != end:
        json_fail(j, scan_space(q))
        return MALFORMED
    payload = message_at(j, j.program.envelope)
    if start[0] == b"[":
        found = UNKNOWN
        if j.program.positional:
            found = json_message(j, start, q, 0, simd)
            if found == UNKNOWN:
                j.messages = j.n_fields = 0
        if found == UNKNOWN:
            found = json_elements(j, start, 0, 0, simd)
    elif payload != NULL and payload.type == SLOT_OBJECT:
        found = json_message(j, start, q, j.program.n_messages, simd)
    elif payload != NULL and payload.type == SLOT_ARRAY:
        found = json_elements(j, payload.start, payload.node, j.program.n_messages, simd)
    else:
        found = json_message(j, start, q, 0, simd)
    if j.failed:
        j.n_fields = 0
        return UNKNOWN
    return found


# ---- learning a layout from the frame just parsed ----

cdef inline bint json_learn(
    const slots* j, uint32_t before, const char* p, const char* end, bint is_element, layout_set* layouts
) noexcept nogil:
    """Make the draft the layout of the frame or element just parsed (with `trace` on, its tick `fields[before]`).

    False: it is not of the predictable sort, or not to be learned now.
    """
    cdef layout* draft = &layouts.draft
    cdef const ff_fields* f = j.fields + before
    cdef const schema_message* m
    cdef const char* mark = p
    cdef const slot* s
    cdef layout_step* step
    cdef uint32_t i, k
    cdef int64_t whole
    cdef bint known, taken
    if j.escaped or j.repeated or j.traced > LAYOUT_STEPS or j.n_fields != before + 1:
        return False
    m = &j.program.messages[f.message]
    if m.n_each or m.kind == FF_LEVEL or p[0] != b"{":
        return False
    draft.enveloped = j.program.envelope != NO_NODE and slots_has(j, j.program.envelope)
    if draft.enveloped and (is_element or j.slots[j.program.envelope].type != SLOT_OBJECT):
        return False  # an element is of no envelope, whatever it holds
    if not layout_wanted(layouts):
        return False
    draft.steps = 0
    draft.padded = False
    for i in range(j.traced):
        s = &j.trace[i]
        known = s.node != NO_NODE
        if s.type == SLOT_NULL:
            continue  # stays literal text, as the null bits of the layout do
        if known and (j.program.matched[s.node] or j.program.nodes[s.node].conditions):
            for k in range(m.n_fields):
                if m.fields[k].node == s.node and m.fields[k].action != TAKE_CONDITIONS:
                    return False  # taken as well as matched
            continue  # stays literal text: it decides what the message is, or whether its price is the last
        if not layout_literal(draft, mark, s.start):
            return False
        step = &draft.step[draft.steps - 1]
        mark = s.start + s.size
        step.length = s.size
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
        taken = False
        for k in range(m.n_fields):
            if m.fields[k].node != s.node:
                continue
            if taken:
                return False  # two fields from one value
            if m.null_texts and s.type == SLOT_STRING:
                return False  # its text may stand for null
            taken = True
            if m.fields[k].action == TAKE_PRICE:
                step.action = STEP_PRICE
                step.field = m.fields[k].field
            elif m.fields[k].action == TAKE_INTEGER:
                step.action = STEP_INTEGER
                step.field = m.fields[k].field - FIELD_SEQ
            elif m.fields[k].field == FIELD_SYMBOL:
                step.action = STEP_SYMBOL
            elif m.fields[k].field == FIELD_TIME and m.unit != UNIT_ISO and scan_integer(s.start, s.size, &whole):
                step.action = STEP_INTEGER
                step.field = FIELD_TIME - FIELD_SEQ
            elif m.fields[k].field == FIELD_TIME:
                step.action = STEP_TIME_TEXT
                draft.padded = m.unit != UNIT_ISO
            elif step.action != STEP_BOOL:
                step.action = STEP_SIDE_TEXT
            else:
                step.field = FIELD_SIDE
    draft.message = f.message
    draft.present = f.present
    draft.null = f.null
    draft.flags = f.flags & FF_NOT_LAST
    if not layout_literal(draft, mark, end):
        return False
    layout_arrange(draft)
    return True


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
