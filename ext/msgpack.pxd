"""MessagePack to slots, and from there to messages: one strict parser that runs a schema program. Knows no provider.

As strict as the reference reader: one value a frame, UTF-8 in every string, text or bytes as keys, no code 0xc1, no
false timestamp. A map is what an object is in JSON, an array an array; numbers stay what they are. Frames are padded
(scan.h); nothing here is interned, published or counted.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from message cimport message_at, message_find, message_is_array, message_price, message_take
from number cimport number_big, number_real, number_signed
from scan cimport scan_text_fault
from schema cimport *
from slots cimport *
from tick cimport FF_CONTROL


cdef enum:
    MSGPACK_DEPTH = 1024  # containers inside each other; the reference reader's limit, and JSON's
    TIMESTAMP = -1        # the type of extension that is a time

cdef enum msgpack_sort:
    SORT_NONE, SORT_NIL, SORT_FALSE, SORT_TRUE, SORT_UNSIGNED, SORT_SIGNED, SORT_REAL
    SORT_TEXT, SORT_BYTES, SORT_EXTENSION, SORT_ARRAY, SORT_MAP

cdef struct msgpack_head:
    uint8_t sort
    uint64_t value  # of a number its bits; else how many bytes or elements follow


cdef inline const char* msgpack_fail(slots* j, const char* p) noexcept nogil:
    if j.fail == NULL:
        j.fail = p
    return NULL


# ---- the parser: each function takes the bytes at p and gives those after its value, or NULL ----

cdef inline const char* msgpack_open(slots* j, const char* p, const char* end, msgpack_head* h) noexcept nogil:
    """The head of any value: its sort and its number, length or count. Of a number that is the whole of it."""
    cdef uint8_t code = <uint8_t>p[0]
    cdef uint32_t size = 0  # of what is in the head behind the code
    if p >= end:
        return msgpack_fail(j, end)
    h.value = code
    if code < 0x80:
        h.sort = SORT_UNSIGNED
        return p + 1
    if code >= 0xE0:
        h.sort = SORT_SIGNED
        h.value = <uint64_t>(<int64_t>code - 256)
        return p + 1
    if code < 0xC0:
        if code >= 0xA0:
            h.sort = SORT_TEXT
            h.value = code & 31
        else:
            h.sort = SORT_ARRAY if code >= 0x90 else SORT_MAP
            h.value = code & 15
        return p + 1
    if code == 0xCB:
        h.sort = SORT_REAL
        size = 8
    elif code == 0xCA:
        h.sort = SORT_REAL
        size = 4
    elif 0xCC <= code <= 0xCF:
        h.sort = SORT_UNSIGNED
        size = <uint32_t>1 << (code - 0xCC)
    elif 0xD0 <= code <= 0xD3:
        h.sort = SORT_SIGNED
        size = <uint32_t>1 << (code - 0xD0)
    elif 0xD4 <= code <= 0xD8:
        h.sort = SORT_EXTENSION
        h.value = <uint64_t>1 << (code - 0xD4)
    elif 0xD9 <= code <= 0xDB:
        h.sort = SORT_TEXT
        size = <uint32_t>1 << (code - 0xD9)
    elif code >= 0xDC:
        h.sort = SORT_ARRAY if code <= 0xDD else SORT_MAP
        size = 2 if code == 0xDC or code == 0xDE else 4
    elif 0xC4 <= code <= 0xC6:
        h.sort = SORT_BYTES
        size = <uint32_t>1 << (code - 0xC4)
    elif code >= 0xC7:
        h.sort = SORT_EXTENSION
        size = <uint32_t>1 << (code - 0xC7)
    elif code == 0xC1:
        return msgpack_fail(j, p)
    else:
        h.sort = SORT_NIL if code == 0xC0 else SORT_FALSE if code == 0xC2 else SORT_TRUE
        return p + 1
    if size:
        if size > end - p - 1:
            return msgpack_fail(j, end)
        h.value = number_big(p + 1, size)
        if h.sort == SORT_SIGNED:
            h.value = <uint64_t>number_signed(h.value, size)
    return p + 1 + size


cdef inline const char* msgpack_text(slots* j, const char* p, const char* end, uint64_t size) noexcept nogil:
    """The end of the text at p."""
    cdef const char* fault
    if size > <uint64_t>(end - p):
        return msgpack_fail(j, end)
    fault = scan_text_fault(p, p + size)
    return msgpack_fail(j, fault) if fault != NULL else p + size


cdef inline const char* msgpack_time(
    slots* j, const char* p, const char* end, uint64_t size, slot* s
) noexcept nogil:
    """A timestamp in one of its three forms. One beyond int64 nanoseconds is no time, but nothing malformed."""
    cdef uint64_t bits = 0
    cdef int64_t seconds
    if size != 4 and size != 8 and size != 12:
        return msgpack_fail(j, p)
    if size == 4:
        seconds = <int64_t>number_big(p, 4)
    elif size == 8:
        bits = number_big(p, 8)
        seconds = bits & <uint64_t>0x3FFFFFFFF
        bits >>= 34
    else:
        bits = number_big(p, 4)
        seconds = <int64_t>number_big(p + 4, 8)
    if bits > 999999999:
        return msgpack_fail(j, p)
    if -<int64_t>9223372036 < seconds < <int64_t>9223372036:
        s.type = SLOT_TIME
        s.value.integer = seconds * 1000000000 + <int64_t>bits
    return p + size


cdef inline const char* msgpack_value(
    slots* j, const char* p, const char* end, uint32_t node, int depth, bint simd
) noexcept nogil:
    """Any value. Its slot is noted when a node is given; NO_NODE only checks it. `depth`: containers open around it."""
    cdef slot unwanted
    cdef slot* s = &unwanted
    cdef msgpack_head h
    cdef const char* q = msgpack_open(j, p, end, &h)
    if q == NULL:
        return NULL
    if node != NO_NODE:
        s = slots_claim(j, node)
    if h.sort == SORT_REAL:
        s.type = SLOT_REAL
        s.value.real = number_real(h.value, <uint32_t>(q - p - 1))
    elif h.sort == SORT_UNSIGNED:
        s.type = SLOT_INTEGER if h.value <= <uint64_t>0x7FFFFFFFFFFFFFFF else SLOT_UNSIGNED
        s.value.unsigned = h.value
    elif h.sort == SORT_SIGNED:
        s.type = SLOT_INTEGER
        s.value.unsigned = h.value
    elif h.sort == SORT_TEXT:
        p = q
        q = msgpack_text(j, p, end, h.value)
        if q != NULL and node != NO_NODE and not slots_string(j, s, p, <uint32_t>h.value):
            return msgpack_fail(j, p)
    elif h.sort == SORT_ARRAY:
        s.type = SLOT_ARRAY
        s.start = p
        if node != NO_NODE and j.program.nodes[node].levels:
            return msgpack_levels(j, q, end, h.value, s, depth + 1, simd)
        return msgpack_array(j, q, end, h.value, node, depth + 1, simd)
    elif h.sort == SORT_MAP:
        s.type = SLOT_OBJECT
        s.start = p
        return msgpack_map(j, q, end, h.value, node, depth + 1, simd)
    elif h.sort == SORT_EXTENSION:
        s.type = SLOT_OPAQUE
        if h.value >= <uint64_t>(end - q):
            return msgpack_fail(j, end)
        if <signed char>q[0] == TIMESTAMP:
            return msgpack_time(j, q + 1, end, h.value, s)
        q += 1 + h.value
    elif h.sort == SORT_BYTES:
        s.type = SLOT_OPAQUE
        if h.value > <uint64_t>(end - q):
            return msgpack_fail(j, end)
        q += h.value
    elif h.sort == SORT_NIL:
        s.type = SLOT_NULL
    else:
        s.type = SLOT_TRUE if h.sort == SORT_TRUE else SLOT_FALSE
    return q


cdef inline const char* msgpack_key(
    slots* j, const char* p, const char* end, uint32_t node, uint16_t* child
) noexcept nogil:
    """A key; `child` is where it leads below `node`. Keys that are bytes lead nowhere, others are malformed."""
    cdef msgpack_head h
    cdef const char* q = msgpack_open(j, p, end, &h)
    child[0] = NO_NODE
    if q == NULL:
        return NULL
    if h.sort != SORT_TEXT and h.sort != SORT_BYTES:
        return msgpack_fail(j, p)
    if h.value > <uint64_t>(end - q):
        return msgpack_fail(j, end)
    if h.sort == SORT_BYTES:
        return q + h.value
    if node != NO_NODE:
        child[0] = schema_child(&j.program.nodes[node], q, <uint32_t>h.value)
        if child[0] != NO_NODE:
            return q + h.value
    return msgpack_text(j, q, end, h.value)


cdef inline const char* msgpack_map(
    slots* j, const char* p, const char* end, uint64_t count, uint32_t node, int depth, bint simd
) noexcept nogil:
    cdef uint16_t child
    cdef uint64_t _i
    if depth > MSGPACK_DEPTH:
        return msgpack_fail(j, p)
    for _i in range(count):
        p = msgpack_key(j, p, end, node, &child)
        if p == NULL:
            return NULL
        p = msgpack_value(j, p, end, child, depth, simd)
        if p == NULL:
            return NULL
    return p


cdef inline const char* msgpack_array(
    slots* j, const char* p, const char* end, uint64_t count, uint32_t node, int depth, bint simd
) noexcept nogil:
    cdef uint16_t child
    cdef uint64_t i
    if depth > MSGPACK_DEPTH:
        return msgpack_fail(j, p)
    for i in range(count):
        child = NO_NODE
        if node != NO_NODE and i < j.program.nodes[node].positions:
            child = j.program.nodes[node].indexes[i]
        p = msgpack_value(j, p, end, child, depth, simd)
        if p == NULL:
            return NULL
    return p


cdef inline const char* msgpack_levels(
    slots* j, const char* p, const char* end, uint64_t count, slot* s, int depth, bint simd
) noexcept nogil:
    """A list of depth levels, checked and converted in the same pass. One that is no level makes the slot SLOT_BAD."""
    cdef const schema_node* n = &j.program.nodes[s.node]
    cdef double* pair
    cdef uint64_t _i
    cdef bint bad = False
    if depth > MSGPACK_DEPTH:
        return msgpack_fail(j, p)
    s.level = j.n_levels
    for _i in range(count):
        if not slots_grow(j, <void**>&j.levels, &j.max_levels, j.n_levels + 1, 2 * sizeof(double)):
            return msgpack_fail(j, p)
        slots_forget(j, n.level_root, j.program.nodes[n.level_root].end)
        p = msgpack_value(j, p, end, n.level_root, depth, simd)
        if p == NULL:
            return NULL
        pair = j.levels + 2 * j.n_levels
        if not message_price(j, n.level_price, pair, simd) or not message_price(j, n.level_size, pair + 1, simd):
            bad = True
        j.n_levels += 1
    s.type = SLOT_BAD if bad else SLOT_LEVELS
    s.size = j.n_levels - s.level
    return p


# ---- messages ----

cdef inline bint msgpack_each(slots* j, uint16_t message, uint32_t link, const char* end, bint simd) noexcept nogil:
    """Every element of an array (already checked) through the message; False makes the whole message unknown."""
    cdef const schema_message* m = &j.program.messages[message]
    cdef slot* array = message_at(j, m.each[link].node)
    cdef uint32_t root = m.each[link].root
    cdef msgpack_head h
    cdef const char* p
    cdef uint64_t _i
    if array == NULL:
        return True
    if not message_is_array(array):
        return False
    p = msgpack_open(j, array.start, end, &h)
    for _i in range(h.value):
        slots_forget(j, root, j.program.nodes[root].end)
        p = msgpack_value(j, p, end, root, 0, simd)
        if p == NULL:
            return False
        if link + 1 < m.n_each:
            if not msgpack_each(j, message, link + 1, end, simd):
                return False
        elif not message_take(j, message, simd):
            return False
    return True


cdef inline int msgpack_message(
    slots* j, const char* start, const char* end, uint16_t first, const char* frame_end, bint simd
) noexcept nogil:
    """Recognise the message from `start` to `end`, `first` on in the program, and take its fields; its verdict."""
    cdef uint32_t before = j.n_fields
    cdef int i = message_find(j, first)
    cdef bint taken
    j.messages += 1
    if i < 0:
        return UNKNOWN
    if j.program.messages[i].kind == FF_CONTROL:
        slots_control(j, start, end)
        return CONTROL
    if j.program.messages[i].n_each:
        taken = msgpack_each(j, <uint16_t>i, 0, frame_end, simd)
    else:
        taken = message_take(j, <uint16_t>i, simd)
    if taken:
        return DATA
    j.n_fields = before
    return UNKNOWN


cdef inline int msgpack_elements(
    slots* j, const char* p, const char* end, uint32_t root, uint16_t first, int depth, const char** rest, bint simd
) noexcept nogil:
    """Each element of the array at p as a message of its own; the highest verdict, or MALFORMED.

    Only once is it read: an element's fields are taken while its slots are there. `rest` is what follows the array.
    """
    cdef int best = UNKNOWN
    cdef int one
    cdef msgpack_head h
    cdef const char* q
    cdef uint64_t _i
    p = msgpack_open(j, p, end, &h)
    if p == NULL:
        return MALFORMED
    for _i in range(h.value):
        if root == 0:
            slots_clear(j)
        else:
            slots_forget(j, root, j.program.nodes[root].end)
        q = msgpack_value(j, p, end, root, depth, simd)
        if q == NULL:
            return MALFORMED
        one = msgpack_message(j, p, q, first, end, simd)
        if one > best:
            best = one
        p = q
    rest[0] = p
    return best


cdef inline int msgpack_frame(slots* j, const char* p, const char* end, bint simd) noexcept nogil:
    """Parse a padded frame and take its messages. The verdict.

    The rest is in `fields`, `levels`, `controls`, `messages`, `fail`.
    """
    cdef const char* q = NULL
    cdef bint is_array = p < end and (p[0] & 0xF0 == 0x90 or p[0] & 0xFE == 0xDC)
    cdef int found = UNKNOWN
    slots_begin(j)
    if is_array and not j.program.positional:
        found = msgpack_elements(j, p, end, 0, 0, 1, &q, simd)
    else:
        q = msgpack_value(j, p, end, 0, 0, simd)
        if q == end:
            found = msgpack_whole(j, p, end, is_array, simd)
    if found != MALFORMED and q != NULL and q != end:
        msgpack_fail(j, q)
    if found == MALFORMED or q != end:
        j.n_fields = 0
        return MALFORMED
    if j.failed:
        j.n_fields = 0
        return UNKNOWN
    return found


cdef inline int msgpack_whole(slots* j, const char* p, const char* end, bint is_array, bint simd) noexcept nogil:
    """The verdict on a value read whole: one message, or an array of them, bare or in the envelope."""
    cdef const char* rest
    cdef const slot* payload = message_at(j, j.program.envelope)
    cdef int found = UNKNOWN
    if is_array:
        found = msgpack_message(j, p, end, 0, end, simd)
        if found != UNKNOWN:
            return found
        j.messages = 0
        return msgpack_elements(j, p, end, 0, 0, 1, &rest, simd)
    if payload != NULL and payload.type == SLOT_OBJECT:
        return msgpack_message(j, p, end, j.program.n_messages, end, simd)
    if payload != NULL and payload.type == SLOT_ARRAY:
        return msgpack_elements(j, payload.start, end, payload.node, j.program.n_messages, 1, &rest, simd)
    return msgpack_message(j, p, end, 0, end, simd)
